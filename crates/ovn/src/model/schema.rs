//! Tables and columns as small copyable ids with what the schema and the overlay say about them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::generated;

/// A database that Kube-OVN reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Database {
    Northbound = 0,
    Southbound = 1,
    /// A node's own `Open_vSwitch` database.
    OpenVswitch = 2,
}

impl Database {
    pub const ALL: [Self; 3] = [Self::Northbound, Self::Southbound, Self::OpenVswitch];

    /// The name by which an OVSDB server knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Northbound => "OVN_Northbound",
            Self::Southbound => "OVN_Southbound",
            Self::OpenVswitch => "Open_vSwitch",
        }
    }

    pub(crate) fn defs(self) -> &'static [TableDef] {
        match self {
            Self::Northbound => &generated::nb::TABLES,
            Self::Southbound => &generated::sb::TABLES,
            Self::OpenVswitch => &generated::vswitch::TABLES,
        }
    }

    /// The tables that the model knows, in the order of their names.
    pub fn tables(self) -> impl Iterator<Item = Table> {
        (0u8..).zip(self.defs()).map(move |(index, _)| Table {
            database: self,
            index,
        })
    }

    /// Looks a table up by its name in the database.
    pub fn table(self, name: &str) -> Option<Table> {
        self.defs()
            .binary_search_by(|def| def.name.cmp(name))
            .ok()
            .and_then(|index| u8::try_from(index).ok())
            .map(|index| Table {
                database: self,
                index,
            })
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A table of one of the databases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    database: Database,
    index: u8,
}

impl Table {
    pub(crate) const fn new(database: Database, index: u8) -> Self {
        Self { database, index }
    }

    pub fn def(self) -> &'static TableDef {
        &self.database.defs()[usize::from(self.index)]
    }

    pub fn database(self) -> Database {
        self.database
    }

    pub fn name(self) -> &'static str {
        self.def().name
    }

    /// Rows of a root table live until they are deleted; the others as long as a row refers to them.
    pub fn is_root(self) -> bool {
        self.def().root
    }

    /// Whether Kube-OVN writes rows of this table.
    pub fn is_written(self) -> bool {
        !self.def().key.is_empty()
    }

    /// A table of exactly one row, which its own programs make and nobody deletes.
    pub fn is_singleton(self) -> bool {
        matches!(self.def().key, [KeyPart::Singleton])
    }

    pub fn columns(self) -> impl Iterator<Item = Column> {
        (0u8..)
            .zip(self.def().columns)
            .map(move |(index, _)| Column { table: self, index })
    }

    pub fn column(self, name: &str) -> Option<Column> {
        self.def()
            .columns
            .binary_search_by(|def| def.name.cmp(name))
            .ok()
            .and_then(|index| u8::try_from(index).ok())
            .map(|index| Column { table: self, index })
    }

    /// `external_ids`, where the table has it.
    pub fn external_ids(self) -> Option<Column> {
        self.column("external_ids")
    }

    /// The columns of other tables that contain rows of this one; none for root tables.
    pub fn containers(self) -> impl Iterator<Item = Column> {
        self.database
            .tables()
            .flat_map(Self::columns)
            .filter(move |column| column.contains() == Some(self))
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A column of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Column {
    table: Table,
    index: u8,
}

impl Column {
    pub(crate) const fn new(table: Table, index: u8) -> Self {
        Self { table, index }
    }

    pub fn def(self) -> &'static ColumnDef {
        &self.table.def().columns[usize::from(self.index)]
    }

    pub fn table(self) -> Table {
        self.table
    }

    pub fn name(self) -> &'static str {
        self.def().name
    }

    pub fn mode(self) -> Mode {
        self.def().mode
    }

    pub fn shape(self) -> Shape {
        let def = self.def();
        match (def.value, def.min, def.max) {
            (Some(_), _, _) => Shape::Map,
            (None, 1, 1) => Shape::Scalar,
            (None, _, 1) => Shape::Optional,
            (None, _, _) => Shape::Set,
        }
    }

    /// The table whose rows this column keeps alive: a strong reference to a table that is not a root.
    pub fn contains(self) -> Option<Table> {
        match self.def().key {
            Base::Ref {
                table,
                strong: true,
            } if !table.is_root() => Some(table),
            _ => None,
        }
    }

    /// Whether this column refers strongly to rows of a root table, which cannot be deleted while it does.
    pub fn holds(self) -> bool {
        let strong = |base| matches!(base, Base::Ref { table, strong: true } if table.is_root());
        strong(self.def().key) || self.def().value.is_some_and(strong)
    }

    /// The table that this column refers to, strongly or weakly.
    pub fn refers(self) -> Option<Table> {
        match (self.def().key, self.def().value) {
            (Base::Ref { table, .. }, _) | (_, Some(Base::Ref { table, .. })) => Some(table),
            _ => None,
        }
    }

    /// Whether a map key of this column is ours to write and to remove. `true` for columns that are managed whole.
    pub fn manages(self, key: &str) -> bool {
        match self.mode() {
            Mode::Keys(patterns) => patterns.iter().any(|p| match p.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix),
                None => *p == key,
            }),
            Mode::Managed | Mode::Shared => true,
            Mode::Ignored => false,
        }
    }
}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.name())
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.name())
    }
}

/// What is known about a table.
#[derive(Debug)]
pub struct TableDef {
    pub name: &'static str,
    pub root: bool,
    /// In the order of their names.
    pub columns: &'static [ColumnDef],
    /// The parts of the natural key; empty for tables that we do not write.
    pub key: &'static [KeyPart],
    /// Sets of columns whose values are unique in the table, as the database itself enforces.
    pub indexes: &'static [&'static [&'static str]],
    /// The first schema version known to have it, if older known ones lack it.
    pub since: Option<&'static str>,
}

/// What is known about a column.
#[derive(Debug)]
pub struct ColumnDef {
    pub name: &'static str,
    pub key: Base,
    /// The value type of a map.
    pub value: Option<Base>,
    /// Least number of elements in every known version.
    pub min: u8,
    /// Greatest number of elements; `u32::MAX` is "unlimited".
    pub max: u32,
    pub mode: Mode,
    /// The first schema version known to have it, if older known ones lack it.
    pub since: Option<&'static str>,
    /// The first schema version known to lack it again.
    pub until: Option<&'static str>,
    /// A row that sets it means something else without it.
    pub essential: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Int,
    Real,
    Bool,
    Str,
    Uuid,
    Ref { table: Table, strong: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Scalar,
    Optional,
    Set,
    Map,
}

/// Who owns a column of a row of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The unit that owns the row states the whole value.
    Managed,
    /// The unit that owns the row states some keys of the map. Of the others, those that match a pattern are ours too
    /// and are removed when they are not stated; the rest belongs to somebody else. `x*` is a prefix.
    Keys(&'static [&'static str]),
    /// Every unit may contribute elements.
    Shared,
    /// Neither written nor compared.
    Ignored,
}

/// A part of a natural key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The name of the row that contains this one (with `@` before it if it is a port group).
    Parent,
    /// Index of a column of the table.
    Column(u8),
    /// A key of `external_ids`.
    External(&'static str),
    /// The table has one row.
    Singleton,
}

macro_rules! typed_column {
    ($(#[$doc:meta])* $name:ident<$($param:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($param),+> {
            column: Column,
            types: PhantomData<fn() -> ($($param,)+)>,
        }

        impl<$($param),+> $name<$($param),+> {
            pub(crate) const fn new(column: Column) -> Self {
                Self { column, types: PhantomData }
            }

            pub const fn column(self) -> Column {
                self.column
            }
        }

        impl<$($param),+> Clone for $name<$($param),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($param),+> Copy for $name<$($param),+> {}

        impl<$($param),+> From<$name<$($param),+>> for Column {
            fn from(typed: $name<$($param),+>) -> Self {
                typed.column
            }
        }

        impl<$($param),+> PartialEq for $name<$($param),+> {
            fn eq(&self, other: &Self) -> bool {
                self.column == other.column
            }
        }

        impl<$($param),+> Eq for $name<$($param),+> {}

        impl<$($param),+> PartialOrd for $name<$($param),+> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<$($param),+> Ord for $name<$($param),+> {
            fn cmp(&self, other: &Self) -> Ordering {
                self.column.cmp(&other.column)
            }
        }

        impl<$($param),+> Hash for $name<$($param),+> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.column.hash(state);
            }
        }

        impl<$($param),+> fmt::Debug for $name<$($param),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.column, f)
            }
        }
    };
}

typed_column! {
    /// A set of `T` in rows of `P` to which units contribute elements.
    SharedSet<P, T>
}

typed_column! {
    /// A map from `K` to `V` in rows of `P` to which units contribute entries.
    SharedMap<P, K, V>
}
