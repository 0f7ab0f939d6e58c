//! Rows: the columns that we own, nothing else.

use std::fmt;

use super::atom::{Atom, Value};
use super::key::RowKey;
use super::schema::{Base, Column, Mode, Shape, Table};
use ovsdb::wire;

/// The columns of one row, without those that have their default value, in the order of the schema.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Row {
    columns: Box<[(Column, Value)]>,
}

impl Row {
    /// A row from columns in any order. Default values are dropped; of two values for one column the later stays.
    pub fn new(columns: impl IntoIterator<Item = (Column, Value)>) -> Self {
        let mut columns: Vec<_> = columns.into_iter().collect();
        columns.sort_by_key(|(column, _)| *column);
        columns.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        columns.retain(|(_, value)| !value.is_default());
        Self {
            columns: columns.into_boxed_slice(),
        }
    }

    /// The part of a replica's row that concerns us: managed columns, references as UUIDs. Shared columns are not part
    /// of it, they are tracked element by element.
    pub fn from_wire(table: Table, row: &wire::Row) -> Self {
        Self::new(
            table
                .columns()
                .filter(|column| matches!(column.mode(), Mode::Managed | Mode::Keys(_)))
                .filter_map(|column| {
                    let datum = row.get(column.name())?;
                    Some((column, value_from_wire(column, datum)))
                }),
        )
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Column, &Value)> {
        self.columns.iter().map(|(column, value)| (*column, value))
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn get(&self, column: Column) -> Option<&Value> {
        self.columns
            .binary_search_by_key(&column, |(c, _)| *c)
            .ok()
            .map(|i| &self.columns[i].1)
    }

    /// The value of a scalar or optional column.
    pub fn scalar(&self, column: Column) -> Option<&Atom> {
        self.get(column)?.atoms().first()
    }

    /// The value that a map column has for a text key.
    pub fn entry(&self, column: Column, key: &str) -> Option<&Atom> {
        self.get(column)?
            .entries()
            .iter()
            .find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, v)| v)
    }

    pub fn external_id(&self, key: &str) -> Option<&str> {
        let table = self.columns.first()?.0.table();
        self.entry(table.external_ids()?, key)?.as_str()
    }

    /// Every row that this one refers to by key (contributions of other units not counted).
    pub fn rows(&self) -> impl Iterator<Item = &RowKey> {
        self.columns.iter().flat_map(|(_, value)| value.rows())
    }

    /// The row with entries added to one map column; an entry that is already there stays.
    #[must_use]
    pub fn with_entries(
        self,
        column: Column,
        entries: impl IntoIterator<Item = (Atom, Atom)>,
    ) -> Self {
        let old = self
            .get(column)
            .map(|v| v.entries().to_vec())
            .unwrap_or_default();
        let value = Value::map(entries.into_iter().chain(old));
        Self::new(self.columns.into_iter().chain([(column, value)]))
    }
}

/// Brings a datum to the form that this crate compares: sorted, references as UUIDs.
pub(crate) fn value_from_wire(column: Column, datum: &wire::Datum) -> Value {
    let def = column.def();
    match column.shape() {
        Shape::Scalar => datum
            .atoms()
            .first()
            .and_then(|a| atom_from_wire(def.key, a))
            .map_or_else(|| Value::Set(Box::default()), Value::Atom),
        Shape::Optional | Shape::Set => Value::set(
            datum
                .atoms()
                .iter()
                .filter_map(|a| atom_from_wire(def.key, a)),
        ),
        Shape::Map => Value::map(datum.pairs().iter().filter_map(|(k, v)| {
            Some((atom_from_wire(def.key, k)?, atom_from_wire(def.value?, v)?))
        })),
    }
}

/// `None` for an atom that is not of the column's type: a schema that changed under us, which is then left alone.
pub(crate) fn atom_from_wire(base: Base, atom: &wire::Atom) -> Option<Atom> {
    match base {
        Base::Int => atom.as_int().map(Atom::Int),
        Base::Bool => atom.as_bool().map(Atom::Bool),
        Base::Str => match atom {
            wire::Atom::Str(s) => Some(Atom::Str(s.clone())),
            _ => None,
        },
        Base::Uuid | Base::Ref { .. } => atom.as_uuid().map(Atom::Uuid),
        // No column that we write holds reals.
        Base::Real => None,
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(column, value)| (column.name(), value)))
            .finish()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (column, value)) in self.iter().enumerate() {
            write!(
                f,
                "{}{}={value}",
                if i == 0 { "" } else { " " },
                column.name()
            )?;
        }
        Ok(())
    }
}
