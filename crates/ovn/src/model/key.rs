//! What names a row: symbolic keys and typed references.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use ovsdb::wire;
use smol_str::{SmolStr, format_smolstr};
use uuid::Uuid;

use super::atom::Atom;
use super::row::Row;
use super::schema::{Base, Column, KeyPart, Table};
use crate::nb;

/// The symbolic name of a row: its table and its natural key.
///
/// Rows refer to each other by these keys; UUIDs appear only when a plan is made. Keys of several parts are joined
/// with single spaces in the order that `codegen/overlay.rs` gives, empty parts as `-`:
///
/// | table | natural key |
/// |---|---|
/// | `NB_Global`, `Open_vSwitch` | `.` (one row) |
/// | `Logical_Switch`, `Logical_Switch_Port`, `Logical_Router`, `Logical_Router_Port`, `Address_Set`, `Port_Group`, `Load_Balancer`, `Load_Balancer_Group`, `Mirror`, `Meter`, `Gateway_Chassis`, `HA_Chassis_Group`, `Bridge`, `Port`, `Interface` | `name` |
/// | `ACL`, `QoS` (northbound) | parent, `direction`, `priority`, `match` |
/// | `Logical_Router_Policy` | router, `priority`, `match` |
/// | `Logical_Router_Static_Route` | router, `route_table`, `policy`, `ip_prefix`, `nexthop` |
/// | `NAT` | router, `type`, `external_ip`, `external_port_range`, `logical_ip` |
/// | `DHCP_Options` | `external_ids` `ls`, `port`, `protocol` |
/// | `DNS` | `external_ids` `kube-ovn.io/name` |
/// | `Load_Balancer_Health_Check` | load balancer, `vip` |
/// | `Meter_Band` | meter, `action` |
/// | `HA_Chassis` | group, `chassis_name` |
/// | `BFD` | `logical_port`, `dst_ip` |
/// | `Static_MAC_Binding` | `logical_port`, `ip` |
/// | `Chassis_Template_Var` | `chassis` |
/// | `QoS`, `Queue` (`Open_vSwitch`) | `external_ids` `iface-id` |
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    pub table: Table,
    pub name: SmolStr,
}

impl RowKey {
    pub fn new(table: Table, name: impl Into<SmolStr>) -> Self {
        Self {
            table,
            name: name.into(),
        }
    }

    /// The natural key of a row, or `None` if the row lacks what names it: a part of an `external_ids` key, or the
    /// parent, or the table is not one that we write.
    pub fn of(table: Table, row: &impl KeySource, parent: Option<&Self>) -> Option<Self> {
        let parts = table.def().key;
        if let [KeyPart::Column(index)] = parts {
            // By far the most common case: share the text with the row instead of copying it.
            let name = row.key_column(Column::new(table, *index));
            return (!name.is_empty()).then(|| Self::new(table, name));
        }
        let mut text = String::new();
        let mut known = false;
        for part in parts {
            if !text.is_empty() {
                text.push(' ');
            }
            let before = text.len();
            match part {
                KeyPart::Singleton => text.push('.'),
                KeyPart::Parent => {
                    let parent = parent?;
                    if parent.table == nb::PortGroup::TABLE {
                        text.push('@');
                    }
                    text.push_str(&parent.name);
                }
                KeyPart::Column(index) => {
                    text.push_str(&row.key_column(Column::new(table, *index)));
                }
                KeyPart::External(key) => text.push_str(row.key_external_id(key)),
            }
            if text.len() == before {
                text.push('-');
            } else {
                known = true;
            }
        }
        known.then(|| Self::new(table, text))
    }
}

/// A row from which a natural key can be made.
pub trait KeySource {
    /// The text of a scalar or optional column; of a number its decimal form, of nothing the empty text.
    fn key_column(&self, column: Column) -> SmolStr;

    fn key_external_id(&self, key: &str) -> &str;
}

impl KeySource for Row {
    fn key_column(&self, column: Column) -> SmolStr {
        match self.scalar(column) {
            Some(Atom::Str(s)) => s.clone(),
            Some(other) => format_smolstr!("{other}"),
            None if column.def().key == Base::Int => SmolStr::new_static("0"),
            None => SmolStr::default(),
        }
    }

    fn key_external_id(&self, key: &str) -> &str {
        self.external_id(key).unwrap_or_default()
    }
}

impl KeySource for wire::Row {
    fn key_column(&self, column: Column) -> SmolStr {
        match self.atoms(column.name()).first() {
            Some(wire::Atom::Str(s)) => s.clone(),
            Some(other) => format_smolstr!("{other}"),
            None if column.def().key == Base::Int => SmolStr::new_static("0"),
            None => SmolStr::default(),
        }
    }

    fn key_external_id(&self, key: &str) -> &str {
        self.map_str("external_ids", key).unwrap_or_default()
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// A reference to a row of the table that `T` stands for.
pub struct Ref<T> {
    key: RowKey,
    table: PhantomData<fn() -> T>,
}

impl<T: TableRow> Ref<T> {
    /// A reference by the text of the natural key (see [`RowKey`]).
    pub fn new(name: impl Into<SmolStr>) -> Self {
        Self::from_key(RowKey::new(T::TABLE, name))
    }
}

impl<T> Ref<T> {
    pub(crate) fn from_key(key: RowKey) -> Self {
        Self {
            key,
            table: PhantomData,
        }
    }

    pub fn key(&self) -> &RowKey {
        &self.key
    }

    /// The text of the natural key: for most tables the row's `name`.
    pub fn name(&self) -> &SmolStr {
        &self.key.name
    }

    pub fn into_key(self) -> RowKey {
        self.key
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self::from_key(self.key.clone())
    }
}

impl<T> From<&Self> for Ref<T> {
    fn from(other: &Self) -> Self {
        other.clone()
    }
}

impl<T> From<Ref<T>> for RowKey {
    fn from(r: Ref<T>) -> Self {
        r.key
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.key, f)
    }
}

/// A generated struct that stands for the rows of one table that we write.
pub trait TableRow {
    const TABLE: Table;

    /// The columns that we own, without those that have their default value.
    fn into_row(self) -> Row;
}

/// Gives rows their UUIDs: the same row has the same UUID in every life of the database.
///
/// With the UUIDs of before, ovn-northd finds the southbound rows that it made for them, tunnel keys stay, and a
/// northbound database that was lost and written again costs no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    namespace: Uuid,
}

impl Identity {
    /// `cluster` must be the same for every replica of the controller and differ between clusters: the UID of the
    /// namespace `kube-system`, as is usual. For a node's own database: the UID of its Node object.
    pub fn new(cluster: Uuid) -> Self {
        Self { namespace: cluster }
    }

    /// UUIDv5 of `DATABASE/TABLE/KEY`.
    pub fn uuid(&self, key: &RowKey) -> Uuid {
        let mut text = String::with_capacity(48 + key.name.len());
        text.push_str(key.table.database().name());
        text.push('/');
        text.push_str(key.table.name());
        text.push('/');
        text.push_str(&key.name);
        Uuid::new_v5(&self.namespace, text.as_bytes())
    }
}
