//! What the database holds: the replica's rows with their natural keys, owners and containers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ovsdb::{RowDelta, wire};
use uuid::Uuid;

use super::few::Few;
use super::keys::{KeyId, Keys};
use crate::fragment::{SOURCE_KEY, VENDOR, VENDOR_KEY};
use crate::model::{Column, Database, Mode, RowKey, Table};

/// Whose a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// It carries our provenance (or, in a table without `external_ids`, the UUID that we would give it).
    Ours,
    /// It carries only the vendor: written by the Go implementation. Becomes ours when a unit claims its key.
    Vendor,
    /// Anybody's, in a table where rows carry no names of owners. Treated as [`Owner::Vendor`].
    Unlabelled,
    /// Somebody else's: read, never touched.
    Foreign,
}

/// A row of the replica. The wire form is shared with the client that holds the replica.
#[derive(Debug)]
pub(crate) struct ActualRow {
    pub table: Table,
    pub wire: Arc<wire::Row>,
    pub owner: Owner,
    pub natural: Option<KeyId>,
}

/// An element of a shared column as the replica holds it; of a map, its key.
pub(crate) type ElementId = (Uuid, Column, wire::Atom);

/// What an event changed, for the evaluation.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub keys: Vec<KeyId>,
    pub rows: Vec<Uuid>,
    pub elements: Vec<ElementId>,
}

#[derive(Debug)]
pub(crate) struct Actual {
    database: Database,
    rows: HashMap<Uuid, ActualRow>,
    /// The columns that hold a row, for tables that are not roots.
    parents: HashMap<Uuid, Few<(Uuid, Column)>>,
    /// The columns that refer strongly to a row of a root table: it cannot be deleted while they do.
    holders: HashMap<Uuid, Few<(Uuid, Column)>>,
    /// Number of rows that are ours, by table.
    owned: BTreeMap<Table, usize>,
}

impl Actual {
    pub fn new(database: Database) -> Self {
        Self {
            database,
            rows: HashMap::new(),
            parents: HashMap::new(),
            holders: HashMap::new(),
            owned: BTreeMap::new(),
        }
    }

    pub fn get(&self, uuid: Uuid) -> Option<&ActualRow> {
        self.rows.get(&uuid)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &ActualRow)> {
        self.rows.iter().map(|(uuid, row)| (*uuid, row))
    }

    pub fn parents(&self, uuid: Uuid) -> &[(Uuid, Column)] {
        self.parents.get(&uuid).map_or(&[], Few::as_slice)
    }

    /// The columns that refer strongly to a row of a root table.
    pub fn holders(&self, uuid: Uuid) -> &[(Uuid, Column)] {
        self.holders.get(&uuid).map_or(&[], Few::as_slice)
    }

    pub fn owned(&self, table: Table) -> usize {
        self.owned.get(&table).copied().unwrap_or(0)
    }

    /// Number of elements of a column in all rows that are ours. Looks at every row.
    pub fn owned_elements(&self, column: Column) -> usize {
        let rows = self.rows.values().filter(|row| row.table == column.table());
        rows.filter(|row| row.owner == Owner::Ours)
            .filter_map(|row| row.wire.get(column.name()))
            .map(wire::Datum::len)
            .sum()
    }

    /// Takes one atomic change of the replica.
    pub fn apply(&mut self, keys: &mut Keys, deltas: &[RowDelta], touched: &mut Touched) {
        let mut work = Vec::new();
        for delta in deltas {
            let Some(table) = self
                .database
                .table(&delta.table)
                .filter(|table| table.is_written())
            else {
                continue;
            };
            let uuid = delta.uuid;
            // Compare with what we hold, not with what the delta says was there.
            let old = self.rows.get(&uuid).map(|row| Arc::clone(&row.wire));
            self.elements(table, uuid, old.as_deref(), delta.new.as_deref(), touched);
            self.hold(table, uuid, old.as_deref(), delta.new.as_deref());
            touched.rows.push(uuid);
            match &delta.new {
                Some(new) => {
                    match self.rows.get_mut(&uuid) {
                        Some(row) => row.wire = Arc::clone(new),
                        None => {
                            self.rows.insert(
                                uuid,
                                ActualRow {
                                    table,
                                    wire: Arc::clone(new),
                                    owner: Owner::Foreign,
                                    natural: None,
                                },
                            );
                        }
                    }
                    work.push(uuid);
                }
                None => self.forget(keys, uuid, touched),
            }
        }
        // Containers that changed give their rows other keys.
        work.extend(
            touched
                .elements
                .iter()
                .filter(|(_, column, _)| column.contains().is_some())
                .filter_map(|(_, _, atom)| atom.as_uuid()),
        );
        while let Some(uuid) = work.pop() {
            if self.classify(keys, uuid, touched) {
                self.children(uuid, &mut work);
            }
        }
    }

    /// Notes the elements of shared columns that differ, and the containers of rows.
    fn elements(
        &mut self,
        table: Table,
        uuid: Uuid,
        old: Option<&wire::Row>,
        new: Option<&wire::Row>,
        touched: &mut Touched,
    ) {
        for column in table.columns().filter(|c| c.mode() == Mode::Shared) {
            let old = old.and_then(|row| row.get(column.name()));
            let new = new.and_then(|row| row.get(column.name()));
            if old == new {
                continue;
            }
            let mut differ = |atom: &wire::Atom, present: bool| {
                if column.contains().is_some()
                    && let Some(child) = atom.as_uuid()
                {
                    let parents = self.parents.entry(child).or_default();
                    if present {
                        parents.push((uuid, column));
                    } else {
                        parents.remove(|p| *p == (uuid, column));
                        if parents.is_empty() {
                            self.parents.remove(&child);
                        }
                    }
                }
                touched.elements.push((uuid, column, atom.clone()));
            };
            let none = wire::Datum::empty();
            let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
            for atom in old.atoms().iter().filter(|a| !new.contains(a)) {
                differ(atom, false);
            }
            for atom in new.atoms().iter().filter(|a| !old.contains(a)) {
                differ(atom, true);
            }
            for (key, value) in old.pairs() {
                if pair_value(new, key) != Some(value) {
                    differ(key, false);
                }
            }
            for (key, value) in new.pairs() {
                if pair_value(old, key) != Some(value) {
                    differ(key, true);
                }
            }
        }
    }

    /// Notes strong references to rows of root tables.
    fn hold(&mut self, table: Table, uuid: Uuid, old: Option<&wire::Row>, new: Option<&wire::Row>) {
        for column in table.columns().filter(|column| column.holds()) {
            let targets = |row: Option<&wire::Row>| -> BTreeSet<Uuid> {
                let Some(datum) = row.and_then(|row| row.get(column.name())) else {
                    return BTreeSet::new();
                };
                let values = datum.pairs().iter().map(|(_, value)| value);
                datum
                    .atoms()
                    .iter()
                    .chain(values)
                    .filter_map(wire::Atom::as_uuid)
                    .collect()
            };
            let (old, new) = (targets(old), targets(new));
            for target in old.difference(&new) {
                if let Some(holders) = self.holders.get_mut(target) {
                    holders.remove(|h| *h == (uuid, column));
                    if holders.is_empty() {
                        self.holders.remove(target);
                    }
                }
            }
            for target in new.difference(&old) {
                self.holders
                    .entry(*target)
                    .or_default()
                    .push((uuid, column));
            }
        }
    }

    fn forget(&mut self, keys: &mut Keys, uuid: Uuid, touched: &mut Touched) {
        let Some(row) = self.rows.remove(&uuid) else {
            return;
        };
        if let Some(key) = row.natural {
            keys[key].natural.remove(|u| *u == uuid);
            touched.keys.push(key);
        }
        if let Some(key) = keys.of_uuid(uuid) {
            touched.keys.push(key);
        }
        if row.owner == Owner::Ours {
            *self.owned.entry(row.table).or_default() -= 1;
        }
    }

    /// Finds a row's natural key and owner again; `true` if the key changed.
    fn classify(&mut self, keys: &mut Keys, uuid: Uuid, touched: &mut Touched) -> bool {
        let Some(row) = self.rows.get(&uuid) else {
            return false;
        };
        let parent = self.parents.get(&uuid).and_then(|parents| {
            let parent = parents.iter().map(|(parent, _)| *parent).min()?;
            self.rows.get(&parent)?.natural
        });
        let natural = RowKey::of(row.table, &*row.wire, parent.map(|p| &keys[p].key))
            .map(|key| keys.intern(&key));
        let owner = owner(row, natural.is_some_and(|key| keys[key].uuid == uuid));
        touched.rows.push(uuid);
        touched.keys.extend(natural);
        touched.keys.extend(row.natural);
        touched.keys.extend(keys.of_uuid(uuid));
        let changed = natural != row.natural;
        if changed {
            if let Some(key) = row.natural {
                keys[key].natural.remove(|u| *u == uuid);
            }
            if let Some(key) = natural {
                keys[key].natural.push(uuid);
            }
        }
        if owner != row.owner {
            let owned = self.owned.entry(row.table).or_default();
            if row.owner == Owner::Ours {
                *owned -= 1;
            } else if owner == Owner::Ours {
                *owned += 1;
            }
        }
        if let Some(row) = self.rows.get_mut(&uuid) {
            row.natural = natural;
            row.owner = owner;
        }
        changed
    }

    /// Finds the natural key and owner of a row anew; whether they were not what they should be.
    pub fn check(&mut self, keys: &mut Keys, uuid: Uuid, touched: &mut Touched) -> bool {
        let Some(row) = self.rows.get_mut(&uuid) else {
            return false;
        };
        let (owner, natural) = (row.owner, row.natural);
        let is_indexed = natural.is_none_or(|key| is_listed(keys, key, uuid));
        if !is_indexed {
            row.natural = None;
        }
        self.classify(keys, uuid, touched);
        let row = self.rows.get(&uuid);
        !is_indexed || row.is_some_and(|row| (row.owner, row.natural) != (owner, natural))
    }

    /// Rows that no key leads to: they have none, or an index has lost them.
    pub fn unlisted(&self, keys: &Keys) -> Vec<Uuid> {
        let listed = |uuid, key: Option<KeyId>| key.is_some_and(|key| is_listed(keys, key, uuid));
        let rows = self.rows.iter();
        let mut uuids: Vec<_> = rows
            .filter(|(uuid, row)| !listed(**uuid, row.natural))
            .map(|(uuid, _)| *uuid)
            .collect();
        uuids.sort_unstable();
        uuids
    }

    /// The rows that a row contains.
    pub fn children(&self, uuid: Uuid, out: &mut Vec<Uuid>) {
        let Some(row) = self.rows.get(&uuid) else {
            return;
        };
        for column in row.table.columns().filter(|c| c.contains().is_some()) {
            out.extend(row.wire.uuids(column.name()));
        }
    }
}

fn is_listed(keys: &Keys, key: KeyId, uuid: Uuid) -> bool {
    keys.is_live(key) && keys[key].natural.as_slice().contains(&uuid)
}

fn pair_value<'a>(datum: &'a wire::Datum, key: &wire::Atom) -> Option<&'a wire::Atom> {
    let pairs = datum.pairs();
    let at = pairs.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
    Some(&pairs[at].1)
}

fn owner(row: &ActualRow, own_uuid: bool) -> Owner {
    if row.table.external_ids().is_none() {
        return if own_uuid {
            Owner::Ours
        } else {
            Owner::Unlabelled
        };
    }
    if row.wire.map_str("external_ids", SOURCE_KEY).is_some() {
        Owner::Ours
    } else if row.wire.map_str("external_ids", VENDOR_KEY) == Some(VENDOR) {
        Owner::Vendor
    } else {
        Owner::Foreign
    }
}
