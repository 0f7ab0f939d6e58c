//! What the database should hold, what it holds, and the difference, kept up to date change by change.
//!
//! [`Diff`] takes fragments of units on one side and atomic changes of the replica on the other. Both only mark what
//! they touch; the next question evaluates what was marked. The evaluation of one thing looks at nothing but the
//! current indexes, so the order of changes does not matter, and a full recompute ([`Diff::audit`]) gives the same.
//!
//! Which row of the database *is* a row that is wanted:
//!
//! 1. the row with the UUID that we give it ([`Identity`]), even if somebody renamed it;
//! 2. else a row with its natural key that is ours or the Go implementation's ([`Owner`]);
//! 3. else there is none, and it is inserted. If somebody else's row has the key, it is held back and reported.

mod actual;
mod audit;
mod compare;
mod desired;
mod evaluate;
mod few;
mod keys;
mod origin;
mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use ovsdb::{RowDelta, wire};
use uuid::Uuid;

use crate::fragment::Fragment;
use crate::model::{Atom, Column, Database, Identity, Row, RowKey, Table};

pub use actual::Owner;
pub use compare::{Change, Edit};
pub use desired::Conflict;
pub use support::Missing;

pub(crate) use actual::{Actual, ElementId};
pub(crate) use desired::{Desired, MemberId, UnitId};
pub(crate) use evaluate::to_wire;
pub(crate) use keys::{Elem, KeyId, Keys};
pub(crate) use origin::object;

/// What is known to differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub rows: BTreeMap<KeyId, RowState>,
    /// Contributions that the database lacks.
    pub adds: BTreeSet<MemberId>,
    /// Elements that nobody contributes.
    pub removes: BTreeSet<ElementId>,
    /// Rows of ours that nobody wants.
    pub surplus: BTreeSet<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowState {
    Insert,
    Update(Uuid),
    /// Somebody else's row has the key.
    Blocked(Uuid),
}

/// A shared element by names: what leftovers are remembered by, as numbers of keys are used again.
pub(crate) type NamedMember = (RowKey, Column, Atom);

/// Things that a unit used to want and that are still there.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub rows: BTreeSet<RowKey>,
    pub members: BTreeSet<NamedMember>,
}

/// The difference between what units want and what a database holds.
///
/// `U` names a unit; units compare by [`Ord`], and the smallest wins where two want different things.
#[derive(Debug)]
pub struct Diff<U> {
    pub(crate) database: Database,
    pub(crate) keys: Keys,
    pub(crate) desired: Desired<U>,
    pub(crate) actual: Actual,
    pub(crate) pending: Pending,
    pub(crate) missing: BTreeSet<Column>,
    pub(crate) missing_tables: BTreeSet<Table>,
    /// What units wanted before; entries go when the database has forgotten it too.
    pub(crate) former_rows: HashMap<RowKey, U>,
    former_members: HashMap<NamedMember, U>,
    pub(crate) leftovers_of: BTreeMap<U, Leftovers>,
    dirty: Dirty,
}

/// What has to be evaluated again. Lists, as marking is what happens most; they are sorted when they are used.
#[derive(Debug, Default)]
struct Dirty {
    keys: Vec<KeyId>,
    rows: Vec<Uuid>,
    adds: Vec<MemberId>,
    removes: Vec<ElementId>,
    all: bool,
}

impl<U: Ord + Clone> Diff<U> {
    /// An empty difference. The identity gives new rows their UUIDs.
    pub fn new(database: Database, identity: Identity) -> Self {
        Self {
            database,
            keys: Keys::new(identity),
            desired: Desired::new(),
            actual: Actual::new(database),
            pending: Pending::default(),
            missing: BTreeSet::new(),
            missing_tables: BTreeSet::new(),
            former_rows: HashMap::new(),
            former_members: HashMap::new(),
            leftovers_of: BTreeMap::new(),
            dirty: Dirty::default(),
        }
    }

    /// Replaces what a unit wants.
    pub fn set(&mut self, unit: U, fragment: Fragment) {
        debug_assert!(
            fragment
                .rows
                .iter()
                .all(|(key, _)| key.table.database() == self.database)
        );
        let mut touched = desired::Touched::default();
        let (rows, members) =
            self.desired
                .set(&mut self.keys, unit.clone(), fragment, &mut touched);
        if !rows.is_empty() || !members.is_empty() {
            let mut rest = Leftovers::default();
            for key in rows {
                let key = self.keys[key].key.clone();
                self.former_rows.insert(key.clone(), unit.clone());
                rest.rows.insert(key);
            }
            for (key, column, elem) in members {
                let member = (self.keys[key].key.clone(), column, self.atom(&elem));
                self.former_members.insert(member.clone(), unit.clone());
                rest.members.insert(member);
            }
            let leftovers = self.leftovers_of.entry(unit).or_default();
            leftovers.rows.append(&mut rest.rows);
            leftovers.members.append(&mut rest.members);
        }
        self.dirty.keys.extend(touched.keys);
        for member in touched.members {
            self.dirty.keys.push(member.0);
            self.dirty.adds.push(member);
        }
    }

    /// Forgets what a unit wants.
    pub fn remove(&mut self, unit: &U) {
        self.set(unit.clone(), Fragment::default());
    }

    /// Takes one atomic change of the replica.
    pub fn apply(&mut self, deltas: &[RowDelta]) {
        let mut touched = actual::Touched::default();
        self.actual.apply(&mut self.keys, deltas, &mut touched);
        self.dirty.keys.extend(touched.keys);
        self.dirty.rows.extend(touched.rows);
        self.dirty.removes.extend(touched.elements);
    }

    /// Compares the model with the server's schema: call it when connected. Each of the answers is worth a line in the
    /// log; columns that are missing are left out of rows, and rows that mean something else without one are held.
    pub fn support(&mut self, schema: &wire::DatabaseSchema) -> Vec<Missing> {
        let (tables, columns, report) = support::missing(self.database, schema);
        if tables != self.missing_tables || columns != self.missing {
            self.missing_tables = tables;
            self.missing = columns;
            self.dirty.all = true;
        }
        report
    }

    /// Everything that two units want differently.
    pub fn conflicts(&self) -> Vec<Conflict<U>> {
        self.desired.conflicts(&self.keys)
    }

    /// Whether the database holds what all units want and nothing of ours beside.
    pub fn is_empty(&mut self) -> bool {
        self.evaluate();
        self.pending.rows.is_empty()
            && self.pending.adds.is_empty()
            && self.pending.surplus.is_empty()
            && self.removes().next().is_none()
    }

    /// The elements that nobody contributes and that are ours to remove.
    ///
    /// A reference to somebody else's row is not: a load balancer that the Go implementation, or an administrator, put
    /// on a switch of ours stays there. (Who owns the other row is asked here and not when the element is evaluated: there
    /// is no index of who refers to a row. Who put it there is not asked: the next process would not know.)
    pub(crate) fn removes(&self) -> impl Iterator<Item = &ElementId> {
        self.pending.removes.iter().filter(|e| !self.is_theirs(e))
    }

    fn is_theirs(&self, element: &ElementId) -> bool {
        let (_, column, atom) = element;
        let child = atom.as_uuid().filter(|_| column.refers().is_some());
        child.is_some_and(|child| {
            let row = self.actual.get(child);
            row.is_some_and(|row| matches!(row.owner, Owner::Foreign | Owner::Vendor))
                && self.claimed(child).is_none()
        })
    }

    /// Whether the database holds what the unit wants, and nothing that only it wanted before. A unit that lost a row
    /// to another is never clean.
    pub fn is_clean(&mut self, unit: &U) -> bool {
        self.evaluate();
        if let Some(id) = self.desired.id(unit) {
            let rows = self.desired.rows_of(id);
            let members = self.desired.members_of(id);
            let lost = |key: &KeyId| {
                let claim = self.desired.claim(&self.keys, *key);
                claim.is_some_and(|(winner, _)| winner != id)
            };
            if rows
                .iter()
                .any(|key| self.pending.rows.contains_key(key) || lost(key))
                || members.iter().any(|m| self.pending.adds.contains(m))
            {
                return false;
            }
        }
        self.settle_leftovers(unit);
        !self.leftovers_of.contains_key(unit)
    }

    /// The units that want something the database does not hold yet.
    pub fn pending_units(&mut self) -> BTreeSet<U> {
        self.evaluate();
        let claims = self
            .pending
            .rows
            .keys()
            .filter_map(|key| self.desired.claim(&self.keys, *key))
            .map(|(unit, _)| unit);
        let owners = self
            .pending
            .adds
            .iter()
            .filter_map(|(key, column, elem)| self.desired.owners(*key, *column, elem))
            .flat_map(|owners| owners.iter().map(|owner| owner.unit));
        let ids: BTreeSet<_> = claims.chain(owners).collect();
        let mut units: BTreeSet<_> = ids
            .into_iter()
            .map(|id| self.desired.unit(id).clone())
            .collect();
        self.settle();
        units.extend(self.leftovers_of.keys().cloned());
        units
    }

    /// The row that stands for a key in the database, with its UUID and owner.
    pub fn row(&self, key: &RowKey) -> Option<(Uuid, Owner, &Arc<wire::Row>)> {
        let (uuid, _) = self.locate(self.keys.find(key)?);
        let row = self.actual.get(uuid?)?;
        Some((uuid?, row.owner, &row.wire))
    }

    /// What is wanted for a key, and by whom.
    pub fn wanted(&self, key: &RowKey) -> Option<(&U, &Arc<Row>)> {
        let (unit, row) = self.desired.claim(&self.keys, self.keys.find(key)?)?;
        Some((self.desired.unit(unit), row))
    }

    /// Every row of the database in tables that we write, in the order of tables and keys. Rows without a natural key
    /// are left out.
    pub fn rows(&self) -> Vec<(RowKey, Uuid, Owner)> {
        let mut rows: Vec<_> = self
            .actual
            .iter()
            .filter_map(|(uuid, row)| {
                let key = &self.keys[row.natural?].key;
                Some((key.clone(), uuid, row.owner))
            })
            .collect();
        rows.sort();
        rows
    }

    pub fn identity(&self) -> Identity {
        self.keys.identity()
    }

    /// The number of rows of a table that are ours.
    pub fn owned(&self, table: Table) -> usize {
        self.actual.owned(table)
    }

    /// Drops what units wanted before and the database no longer holds.
    pub(crate) fn settle(&mut self) {
        let former: Vec<_> = self.leftovers_of.keys().cloned().collect();
        for unit in former {
            self.settle_leftovers(&unit);
        }
    }

    /// The unit that last contributed an element which nobody contributes now.
    pub(crate) fn former_contributor(&self, element: &ElementId) -> Option<&U> {
        let (parent, column, atom) = element;
        let parent = &self.keys[self.key_of(*parent)?].key;
        let atom = match atom.as_uuid() {
            Some(uuid) => Atom::Row(self.keys[self.key_of(uuid)?].key.clone()),
            None => crate::model::atom_from_wire(column.def().key, atom)?,
        };
        self.former_members.get(&(parent.clone(), *column, atom))
    }

    /// Where a shared element would be in the database.
    fn located(&self, (key, column, atom): &NamedMember) -> Option<ElementId> {
        let uuid = |key: &RowKey| self.locate(self.keys.find(key)?).0;
        let atom = match atom {
            Atom::Row(key) => wire::Atom::Uuid(uuid(key)?),
            other => to_wire(other),
        };
        Some((uuid(key)?, *column, atom))
    }

    /// Drops what a unit wanted before and the database no longer holds, or another unit wants now.
    fn settle_leftovers(&mut self, unit: &U) {
        let Some(mut leftovers) = self.leftovers_of.remove(unit) else {
            return;
        };
        leftovers.rows.retain(|key| {
            let there = self.keys.find(key).is_some_and(|id| {
                let record = &self.keys[id];
                let uuids = record.natural.iter().chain([&record.uuid]);
                uuids.copied().any(|u| self.pending.surplus.contains(&u))
            });
            if !there && self.former_rows.get(key) == Some(unit) {
                self.former_rows.remove(key);
            }
            there
        });
        leftovers.members.retain(|member| {
            let there = self
                .located(member)
                .is_some_and(|e| self.pending.removes.contains(&e) && !self.is_theirs(&e));
            if !there && self.former_members.get(member) == Some(unit) {
                self.former_members.remove(member);
            }
            there
        });
        if !leftovers.rows.is_empty() || !leftovers.members.is_empty() {
            self.leftovers_of.insert(unit.clone(), leftovers);
        }
    }

    /// Computes the difference from scratch and compares it with the one that was kept up to date. A line that comes
    /// back is a defect of this crate; the kept difference is replaced.
    pub fn audit(&mut self) -> Vec<String>
    where
        U: fmt::Debug,
    {
        self.evaluate();
        let before = self.summary();
        let mut fresh = self.recomputed();
        fresh.evaluate();
        let after = fresh.summary();
        if before == after {
            return Vec::new();
        }
        self.keys = fresh.keys;
        self.desired = fresh.desired;
        self.actual = fresh.actual;
        self.pending = fresh.pending;
        self.dirty = fresh.dirty;
        let lost = after.difference(&before).map(|l| format!("missed: {l}"));
        let wrong = before.difference(&after).map(|l| format!("stale: {l}"));
        lost.chain(wrong).collect()
    }

    /// The same units and rows, taken in anew.
    fn recomputed(&self) -> Self {
        let mut fresh = Self::new(self.database, self.keys.identity());
        fresh.missing.clone_from(&self.missing);
        fresh.missing_tables.clone_from(&self.missing_tables);
        for (unit, id) in self.desired.units() {
            fresh.set(unit.clone(), self.fragment(id));
        }
        let deltas: Vec<_> = self
            .actual
            .iter()
            .map(|(uuid, row)| RowDelta {
                table: row.table.name().into(),
                uuid,
                old: None,
                new: Some(Arc::clone(&row.wire)),
            })
            .collect();
        fresh.apply(&deltas);
        fresh
    }

    /// The difference line by line, as it is known before a plan is made of it. For tests and reports of defects.
    pub fn describe(&mut self) -> BTreeSet<String> {
        self.evaluate();
        self.summary()
    }

    /// The difference as text without numbers that depend on history.
    fn summary(&self) -> BTreeSet<String> {
        self.lines(|_| true, |_| true)
    }

    /// The part of it that is about these keys and these rows.
    fn lines(
        &self,
        of_key: impl Fn(KeyId) -> bool,
        of_row: impl Fn(Uuid) -> bool,
    ) -> BTreeSet<String> {
        let pending = self.pending.rows.iter();
        let rows = pending
            .filter(|(key, _)| of_key(**key))
            .map(|(key, state)| format!("{} {state:?}", self.keys[*key].key));
        let adds = self.pending.adds.iter().filter(|member| of_key(member.0));
        let adds = adds.map(|(key, column, elem)| {
            let elem = match elem {
                Elem::Row(target) => self.keys[*target].key.to_string(),
                Elem::Value(atom) => atom.to_string(),
            };
            format!("{} {} + {elem}", self.keys[*key].key, column.name())
        });
        let removes = self
            .removes()
            .filter(|element| of_row(element.0))
            .map(|(row, column, atom)| format!("{row} {} - {atom}", column.name()));
        let surplus = self.pending.surplus.iter().filter(|row| of_row(**row));
        let surplus = surplus.map(|row| format!("- {row}"));
        rows.chain(adds).chain(removes).chain(surplus).collect()
    }
}
