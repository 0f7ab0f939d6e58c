//! What one unit wants in a database: rows of its own and contributions to rows of others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use smol_str::SmolStr;

use crate::model::{Atom, Column, Ref, Row, RowKey, SharedMap, SharedSet, Table, TableRow, Value};

/// `external_ids` key that upstream's tools look for, with the value [`VENDOR`].
pub const VENDOR_KEY: &str = "vendor";

/// Who wrote the row: kept as the Go implementation writes it.
pub const VENDOR: &str = "kube-ovn";

/// `external_ids` key of the provenance: object and rule, for example `Subnet/test-ns-subnet gateway`.
///
/// Rows that carry it are ours to change and to delete; rows that carry only `vendor` were written by the Go
/// implementation.
pub const SOURCE_KEY: &str = "kube-ovn.io/source";

/// A contribution to a shared column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    pub parent: RowKey,
    pub column: Column,
    /// The element of a set, or the key of a map.
    pub element: Atom,
    /// The value, in a map.
    pub value: Option<Atom>,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.parent,
            self.column.name(),
            self.element
        )?;
        match &self.value {
            Some(value) => write!(f, "={value}"),
            None => Ok(()),
        }
    }
}

/// Everything that one unit wants in a database.
///
/// Rows get their provenance from the fragment: the object it was made for ([`Fragment::new`]) and the rule that is
/// being applied ([`Fragment::rule`]).
///
/// ```
/// use ovn::{Fragment, nb};
///
/// let mut f = Fragment::new("Subnet/blue");
/// let switch = f.rule("switch").row(nb::LogicalSwitch {
///     name: "blue".into(),
///     ..Default::default()
/// });
/// let router = nb::LogicalRouter::named("ovn-cluster");
/// f.rule("gateway").child(&router, nb::LogicalRouter::POLICIES, nb::LogicalRouterPolicy {
///     priority: 31000,
///     r#match: "ip4.dst == 10.17.0.0/16".into(),
///     action: nb::LogicalRouterPolicyAction::Allow,
///     ..Default::default()
/// });
/// assert_eq!(switch.name(), "blue");
/// assert_eq!(f.rows[1].0.name, "ovn-cluster 31000 ip4.dst == 10.17.0.0/16");
/// assert_eq!(f.rows[1].1.external_id("kube-ovn.io/source"), Some("Subnet/blue gateway"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    pub rows: Vec<(RowKey, Row)>,
    pub members: Vec<Member>,
    object: SmolStr,
    source: SmolStr,
}

impl Fragment {
    /// An empty fragment whose rows come from `object`, written `Kind/name` or `Kind/namespace/name`.
    pub fn new(object: impl Into<SmolStr>) -> Self {
        let object = object.into();
        Self {
            source: object.clone(),
            object,
            ..Self::default()
        }
    }

    /// The rows that follow are made by this rule of the object (one or two words: `gateway`, `router port`).
    pub fn rule(&mut self, rule: &str) -> &mut Self {
        self.source = if rule.is_empty() {
            self.object.clone()
        } else {
            smol_str::format_smolstr!("{} {rule}", self.object)
        };
        self
    }

    /// The rows that follow come from another object.
    pub fn object(&mut self, object: impl Into<SmolStr>) -> &mut Self {
        self.object = object.into();
        self.source = self.object.clone();
        self
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.members.is_empty()
    }

    /// Adds a row of a root table (or of a table whose parent's key is no part of its own, if the contribution to the
    /// parent comes from elsewhere).
    pub fn row<T: TableRow>(&mut self, row: T) -> Ref<T> {
        let row = self.labelled(T::TABLE, row.into_row());
        self.push(row, None)
    }

    /// Adds a row together with its place in the column that contains it.
    pub fn child<P, T: TableRow>(
        &mut self,
        parent: &Ref<P>,
        column: SharedSet<P, Ref<T>>,
        row: T,
    ) -> Ref<T> {
        debug_assert_eq!(column.column().contains(), Some(T::TABLE));
        let row = self.labelled(T::TABLE, row.into_row());
        let child = self.push(row, Some(parent.key()));
        self.member(parent, column, &child);
        child
    }

    /// Contributes an element to a set of a row that any unit may own.
    pub fn member<P, T: Into<Atom>>(
        &mut self,
        parent: &Ref<P>,
        column: SharedSet<P, T>,
        element: impl Into<T>,
    ) -> &mut Self {
        let element: T = element.into();
        self.members.push(Member {
            parent: parent.key().clone(),
            column: column.column(),
            element: element.into(),
            value: None,
        });
        self
    }

    /// Contributes an entry to a map of a row that any unit may own.
    pub fn entry<P, K: Into<Atom>, V: Into<Atom>>(
        &mut self,
        parent: &Ref<P>,
        column: SharedMap<P, K, V>,
        key: impl Into<K>,
        value: impl Into<V>,
    ) -> &mut Self {
        let (key, value): (K, V) = (key.into(), value.into());
        self.members.push(Member {
            parent: parent.key().clone(),
            column: column.column(),
            element: key.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Adds the rows and members of another fragment.
    pub fn append(&mut self, mut other: Self) {
        self.rows.append(&mut other.rows);
        self.members.append(&mut other.members);
    }

    /// Keys of `external_ids` that rows state although the overlay does not list them as ours: they would be written
    /// and never removed again. For tests of whoever makes fragments.
    pub fn undeclared_ids(&self) -> BTreeSet<(Table, SmolStr)> {
        let mut undeclared = BTreeSet::new();
        for (key, row) in &self.rows {
            let Some(column) = key.table.external_ids() else {
                continue;
            };
            for (id, _) in row.get(column).map(Value::entries).unwrap_or_default() {
                if let Some(id) = id.as_str()
                    && !column.manages(id)
                {
                    undeclared.insert((key.table, id.into()));
                }
            }
        }
        undeclared
    }

    fn labelled(&self, table: Table, row: Row) -> Row {
        match table.external_ids() {
            // The one row of a singleton belongs to its own programs; we set some keys in it.
            Some(column) if !table.is_singleton() => row.with_entries(
                column,
                [
                    (VENDOR_KEY.into(), Atom::Str(SmolStr::new_static(VENDOR))),
                    (
                        Atom::Str(SmolStr::new_static(SOURCE_KEY)),
                        Atom::Str(self.source.clone()),
                    ),
                ],
            ),
            _ => row,
        }
    }

    fn push<T: TableRow>(&mut self, row: Row, parent: Option<&RowKey>) -> Ref<T> {
        let key = RowKey::of(T::TABLE, &row, parent);
        debug_assert!(
            key.is_some(),
            "a row of {} without a natural key: {row}",
            T::TABLE
        );
        let key = key.unwrap_or_else(|| RowKey::new(T::TABLE, "-"));
        self.rows.push((key.clone(), row));
        Ref::from_key(key)
    }
}

/// A map of texts: `ovn::map([("router-port", "a-b")])`.
pub fn map<K: Into<SmolStr>, V: Into<SmolStr>>(
    entries: impl IntoIterator<Item = (K, V)>,
) -> BTreeMap<SmolStr, SmolStr> {
    entries
        .into_iter()
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

/// A set of texts: `ovn::set(["02:00:00:00:00:01 10.17.0.11"])`.
pub fn set<T: Into<SmolStr>>(elements: impl IntoIterator<Item = T>) -> BTreeSet<SmolStr> {
    elements.into_iter().map(Into::into).collect()
}
