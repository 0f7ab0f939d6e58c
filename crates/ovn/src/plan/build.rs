//! Decides what is sent, and puts it into groups.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::wire;
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Held, Options, Plan};
use crate::diff::{Change, Diff, Elem, KeyId, MemberId, Owner, RowState, UnitId, object};
use crate::fragment::SOURCE_KEY;
use crate::model::{Atom, Column, Mode, Shape, Table};

/// What goes into one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupKey<U> {
    Unit(U),
    /// Rows without a unit, by the object that they came from.
    Object(SmolStr),
}

/// The changes of one group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub inserts: BTreeSet<KeyId>,
    pub updates: BTreeMap<KeyId, (Uuid, Vec<Change>)>,
    pub adds: BTreeSet<MemberId>,
    pub removes: BTreeSet<(Uuid, Column, wire::Atom)>,
    /// Rows that are not roots, taken out of their parents.
    pub detach: BTreeSet<Uuid>,
    /// Rows of root tables.
    pub deletes: BTreeSet<Uuid>,
}

pub(super) struct Builder<'a, U> {
    pub diff: &'a Diff<U>,
    pub options: &'a Options<U>,
    pub groups: BTreeMap<GroupKey<U>, Group>,
    /// Groups of root rows that go, after everything else.
    pub last: BTreeMap<GroupKey<U>, Group>,
    /// Rows that this plan inserts.
    pub coming: BTreeSet<KeyId>,
    pub held: BTreeSet<Held<U>>,
    /// Units by the object that their rows name, for rows whose unit is not known any more.
    pub objects: BTreeMap<SmolStr, U>,
}

impl<'a, U: Ord + Clone> Builder<'a, U> {
    pub fn new(diff: &'a Diff<U>, options: &'a Options<U>) -> Self {
        Self {
            diff,
            options,
            groups: BTreeMap::new(),
            last: BTreeMap::new(),
            coming: BTreeSet::new(),
            held: BTreeSet::new(),
            objects: BTreeMap::new(),
        }
    }

    pub fn build(mut self) -> Plan<U> {
        self.choose_inserts();
        self.rows();
        self.adds();
        self.removals();
        self.losers();
        let batches = self.emit(self.options.max_ops);
        Plan {
            batches,
            held: self.held.into_iter().collect(),
        }
    }

    fn unit(&self, id: UnitId) -> U {
        self.diff.desired.unit(id).clone()
    }

    /// The unit whose row counts for a wanted key.
    pub fn claimant(&self, key: KeyId) -> Option<U> {
        let (unit, _) = self.diff.desired.claim(&self.diff.keys, key)?;
        Some(self.unit(unit))
    }

    pub fn allowed(&mut self, unit: &U) -> bool {
        if self.options.parked.contains(unit) {
            self.held.insert(Held::Parked { unit: unit.clone() });
        }
        self.may(unit)
    }

    fn may(&self, unit: &U) -> bool {
        let only = self.options.only.as_ref();
        !self.options.parked.contains(unit) && only.is_none_or(|only| only.contains(unit))
    }

    fn group(&mut self, unit: U) -> &mut Group {
        self.groups.entry(GroupKey::Unit(unit)).or_default()
    }

    /// A row that is there, or will be when the plan is done.
    pub fn available(&self, key: KeyId) -> bool {
        match self.diff.pending.rows.get(&key) {
            Some(RowState::Insert) => self.coming.contains(&key),
            Some(RowState::Blocked(_)) => false,
            Some(RowState::Update(_)) => true,
            // A row that nobody wants is no place for anything, even while it is still there.
            None => self
                .diff
                .locate(key)
                .0
                .is_some_and(|uuid| !self.diff.pending.surplus.contains(&uuid)),
        }
    }

    /// Whether rows and elements can be put into a row: it is there, or will be, and somebody of ours states it. A row of
    /// the Go implementation that nobody claims, or anybody else's, is left as it is.
    pub fn takes(&self, key: KeyId) -> bool {
        let record = &self.diff.keys[key];
        let ours = !record.claims.is_empty() || record.key.table.is_singleton();
        ours && self.available(key)
    }

    /// Finds the new rows that can be written, with reasons for those that cannot.
    fn choose_inserts(&mut self) {
        let mut units = BTreeMap::new();
        let pending = self.diff.pending.rows.iter();
        let inserts: Vec<_> = pending
            .filter(|(_, state)| **state == RowState::Insert)
            .map(|(key, _)| *key)
            .collect();
        let mut no_table: BTreeMap<Table, usize> = BTreeMap::new();
        for key in inserts {
            let Some(unit) = self.claimant(key) else {
                continue;
            };
            let table = self.diff.keys[key].key.table;
            if self.diff.missing_tables.contains(&table) {
                *no_table.entry(table).or_default() += 1;
            } else if table.is_singleton() {
                // Its own programs make it; until then there is nothing to write to.
                self.held.insert(Held::Orphan {
                    key: self.diff.keys[key].key.clone(),
                    unit,
                });
            } else if self.allowed(&unit) && self.has_columns(key, &unit) {
                self.coming.insert(key);
                units.insert(key, unit);
            }
        }
        for (table, rows) in no_table {
            self.held.insert(Held::NoTable { table, rows });
        }
        // A row that cannot come takes those with it that need it.
        loop {
            let reasons: Vec<_> = self
                .coming
                .iter()
                .filter_map(|key| Some((*key, self.obstacle(*key, units.get(key)?)?)))
                .collect();
            if reasons.is_empty() {
                break;
            }
            for (key, reason) in reasons {
                self.coming.remove(&key);
                self.held.insert(reason);
            }
        }
    }

    /// The column that a row cannot do without and the server does not have.
    fn lacking(&self, key: KeyId) -> Option<Column> {
        let (_, row) = self.diff.desired.claim(&self.diff.keys, key)?;
        row.iter()
            .map(|(column, _)| column)
            .find(|column| column.def().essential && self.diff.missing.contains(column))
    }

    fn has_columns(&mut self, key: KeyId, unit: &U) -> bool {
        let lacking = self.lacking(key);
        if let Some(column) = lacking {
            self.held.insert(Held::NoColumn {
                key: self.diff.keys[key].key.clone(),
                column,
                unit: unit.clone(),
            });
        }
        lacking.is_none()
    }

    /// Why a new row cannot be written.
    fn obstacle(&self, key: KeyId, unit: &U) -> Option<Held<U>> {
        let record = &self.diff.keys[key];
        let table = record.key.table;
        let contained = || {
            let mut places = self.diff.desired.places(&self.diff.keys, key);
            places.any(|(parent, _)| self.takes(parent))
        };
        let filled = || {
            table
                .columns()
                .filter(|c| c.mode() == Mode::Shared && c.def().min > 0)
                .all(|c| !self.available_elements(key, c).is_empty())
        };
        if (!table.is_root() && !contained()) || !filled() {
            return Some(Held::Orphan {
                key: record.key.clone(),
                unit: unit.clone(),
            });
        }
        let usurper = record.natural.iter().find(|uuid| self.usurps(**uuid, key));
        if let Some(uuid) = usurper {
            return Some(Held::Foreign {
                key: record.key.clone(),
                uuid: *uuid,
                unit: unit.clone(),
            });
        }
        self.dangling(key, unit)
    }

    /// Whether a row of another wanted key was renamed to this one, and does not give the name back.
    fn usurps(&self, uuid: Uuid, key: KeyId) -> bool {
        self.keeps_name(uuid, key, &mut BTreeSet::new())
    }

    /// The same; `asked` are the keys that wait for this answer. Rows that have one another's names in a circle all give
    /// them back at once.
    fn keeps_name(&self, uuid: Uuid, key: KeyId, asked: &mut BTreeSet<KeyId>) -> bool {
        asked.insert(key);
        self.diff.claimed(uuid).is_some_and(|other| {
            let gives = |unit: &U| {
                self.may(unit)
                    && self.lacking(other).is_none()
                    && self.dangling(other, unit).is_none()
            };
            other != key
                && !asked.contains(&other)
                && (!self.claimant(other).is_some_and(|unit| gives(&unit))
                    || self.in_the_way(other, uuid, asked).is_some())
        })
    }

    /// The row that has the name of a row which somebody renamed, and which is to get it back. The database would refuse
    /// that if names are unique.
    fn successor(&self, key: KeyId, uuid: Uuid) -> Option<Uuid> {
        self.in_the_way(key, uuid, &mut BTreeSet::new())
    }

    fn in_the_way(&self, key: KeyId, uuid: Uuid, asked: &mut BTreeSet<KeyId>) -> Option<Uuid> {
        let renamed = self.diff.actual.get(uuid)?.natural != Some(key);
        let record = &self.diff.keys[key];
        let unique = !record.key.table.def().indexes.is_empty();
        if !renamed || !unique {
            return None;
        }
        let others = record.natural.iter().copied();
        others.filter(|other| *other != uuid).find(|other| {
            self.diff.claimed(*other).is_none() || self.keeps_name(*other, key, asked)
        })
    }

    /// A reference of a wanted row to one that is not there.
    fn dangling(&self, key: KeyId, unit: &U) -> Option<Held<U>> {
        let (_, row) = self.diff.desired.claim(&self.diff.keys, key)?;
        row.rows()
            .find(|target| {
                let target = self.diff.keys.find(target);
                !target.is_some_and(|target| self.available(target))
            })
            .map(|target| Held::Dangling {
                key: self.diff.keys[key].key.clone(),
                target: target.clone(),
                unit: unit.clone(),
            })
    }

    /// Contributions to a column of a new row that the plan can write.
    pub fn available_elements(&self, key: KeyId, column: Column) -> Vec<&'a Elem> {
        let sets = self.diff.desired.sets_of(key, &self.diff.keys);
        sets.filter(|(c, _)| *c == column)
            .flat_map(|(_, elements)| elements.keys())
            .filter(|elem| match elem {
                Elem::Row(target) => self.available(*target),
                Elem::Value(_) => true,
            })
            .filter(|elem| {
                let desired = &self.diff.desired;
                desired.owner(&self.diff.keys, key, column, elem).is_some()
            })
            .collect()
    }

    fn rows(&mut self) {
        let diff = self.diff;
        for (key, state) in &diff.pending.rows {
            let Some(unit) = self.claimant(*key) else {
                continue;
            };
            self.note_object(*key, &unit);
            match *state {
                RowState::Insert => {
                    if self.coming.contains(key) {
                        self.group(unit).inserts.insert(*key);
                    }
                }
                RowState::Blocked(uuid) => {
                    self.held.insert(Held::Foreign {
                        key: diff.keys[*key].key.clone(),
                        uuid,
                        unit,
                    });
                }
                RowState::Update(uuid) => {
                    if !self.allowed(&unit) || !self.has_columns(*key, &unit) {
                        continue;
                    }
                    if let Some(reason) = self.dangling(*key, &unit) {
                        self.held.insert(reason);
                        continue;
                    }
                    if let Some(uuid) = self.successor(*key, uuid) {
                        self.held.insert(Held::Foreign {
                            key: diff.keys[*key].key.clone(),
                            uuid,
                            unit,
                        });
                        continue;
                    }
                    let changes = diff.changes(*key, uuid);
                    self.group(unit).updates.insert(*key, (uuid, changes));
                }
            }
        }
    }

    /// Units that have to do without a row of theirs.
    fn losers(&mut self) {
        for conflict in self.diff.conflicts() {
            if conflict.entry.is_none() {
                for unit in conflict.losers {
                    self.held.insert(Held::Lost {
                        key: conflict.key.clone(),
                        unit,
                        to: conflict.winner.clone(),
                    });
                }
            }
        }
    }

    fn note_object(&mut self, key: KeyId, unit: &U) {
        if let Some((_, row)) = self.diff.desired.claim(&self.diff.keys, key)
            && let Some(source) = row.external_id(SOURCE_KEY)
        {
            self.objects
                .entry(object(source).into())
                .or_insert_with(|| unit.clone());
        }
    }

    fn adds(&mut self) {
        let diff = self.diff;
        for member in &diff.pending.adds {
            let (key, column, elem) = member;
            let Some(owner) = diff.desired.owner(&diff.keys, *key, *column, elem) else {
                continue;
            };
            let unit = self.unit(owner.unit);
            if !self.allowed(&unit) {
                continue;
            }
            let element = match elem {
                Elem::Row(target) => Some(*target),
                Elem::Value(_) => None,
            };
            if !self.takes(*key) || element.is_some_and(|target| !self.available(target)) {
                // A row that is held back is reported once, not again with each of its places.
                let reported = |key: KeyId| match diff.pending.rows.get(&key) {
                    Some(RowState::Insert) => !self.coming.contains(&key),
                    Some(RowState::Blocked(_)) => true,
                    Some(RowState::Update(_)) | None => false,
                };
                if !reported(*key) && !element.is_some_and(reported) {
                    self.held.insert(Held::Absent {
                        parent: diff.keys[*key].key.clone(),
                        column: *column,
                        element: diff.atom(elem),
                        unit,
                    });
                }
                continue;
            }
            // A new row comes with its memberships, and a row that moves leaves the old place with the same stroke.
            let unit = element
                .filter(|target| self.coming.contains(target) || column.contains().is_some())
                .and_then(|target| self.claimant(target))
                .unwrap_or(unit);
            self.group(unit).adds.insert(member.clone());
        }
    }

    fn removals(&mut self) {
        let diff = self.diff;
        if !self.options.deletes {
            let (rows, elements) = (diff.pending.surplus.len(), diff.removes().count());
            if rows + elements > 0 {
                self.held.insert(Held::Barrier { rows, elements });
            }
            return;
        }
        let going = self.choose_deletes();
        // References to rows that go are taken out in the same transaction. Strong ones to root rows have to be; of the
        // weak ones ovsdb-server 3.1 forgets some when the row that holds them is changed by the same transaction
        // (seen with a port that goes while its group gets an ACL), and with stable UUIDs such a reference would come
        // to life again together with the row.
        let mut references: BTreeMap<Uuid, Vec<&(Uuid, Column, wire::Atom)>> = BTreeMap::new();
        for element in &diff.pending.removes {
            let (parent, column, atom) = element;
            if let (Some(_), Some(uuid)) = (column.refers(), atom.as_uuid())
                && column.contains().is_none()
                && !going.contains(parent)
            {
                references.entry(uuid).or_default().push(element);
            }
        }
        for uuid in &going {
            // A row that goes with its parent is not taken out of it; what refers to it goes with the parent too.
            let mut top = *uuid;
            while let Some((parent, _)) = diff.actual.parents(top).first()
                && diff
                    .actual
                    .parents(top)
                    .iter()
                    .all(|(p, _)| going.contains(p))
            {
                top = *parent;
            }
            let root = diff.actual.get(top).is_some_and(|row| row.table.is_root());
            let key = self.former(top);
            let groups = if root {
                &mut self.last
            } else {
                &mut self.groups
            };
            let group = groups.entry(key).or_default();
            if top == *uuid && root {
                group.deletes.insert(*uuid);
            } else if top == *uuid {
                group.detach.insert(*uuid);
            }
            let references = references.remove(uuid).unwrap_or_default();
            group.removes.extend(references.into_iter().cloned());
        }
        self.remove_elements();
    }

    /// Whether a row keeps a container when it is taken out of this one: without any the database forgets it.
    pub fn stays(&self, key: KeyId, element: &(Uuid, Column, wire::Atom)) -> bool {
        let mut places = self.diff.desired.places(&self.diff.keys, key);
        places.any(|(parent, column)| {
            self.takes(parent)
                && (self.diff.locate(parent).0, column) != (Some(element.0), element.1)
        })
    }

    /// Whether a map of a row has an entry with this key.
    pub fn has_entry(&self, uuid: Uuid, column: Column, key: &wire::Atom) -> bool {
        self.diff.actual.get(uuid).is_some_and(|row| {
            let pairs = row.wire.pairs(column.name());
            pairs.binary_search_by(|(k, _)| k.cmp(key)).is_ok()
        })
    }

    /// Whether a row that is edited was the Go implementation's.
    pub fn adopts(&self, uuid: Uuid) -> bool {
        self.diff
            .actual
            .get(uuid)
            .is_some_and(|row| row.owner == Owner::Vendor)
    }
}

impl<U: Ord + Clone> Diff<U> {
    pub(crate) fn atom(&self, elem: &Elem) -> Atom {
        match elem {
            Elem::Row(target) => Atom::Row(self.keys[*target].key.clone()),
            Elem::Value(atom) => atom.clone(),
        }
    }
}

/// Whether a column holds a map.
pub(super) fn is_map(column: Column) -> bool {
    column.shape() == Shape::Map
}
