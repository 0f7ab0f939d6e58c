//! Evaluates what was marked: each question is answered from the current indexes alone.

use ovsdb::wire;
use uuid::Uuid;

use super::actual::{ElementId, Owner};
use super::compare::{changes, same};
use super::keys::{Elem, KeyId, Seen};
use super::{Change, Diff, MemberId, RowState};
use crate::model::{Atom, Column, Mode, RowKey};

/// Our atom as the wire has it; references by key must have been resolved.
pub(crate) fn to_wire(atom: &Atom) -> wire::Atom {
    match atom {
        Atom::Int(i) => wire::Atom::Int(*i),
        Atom::Bool(b) => wire::Atom::Bool(*b),
        Atom::Str(s) => wire::Atom::Str(s.clone()),
        Atom::Uuid(u) => wire::Atom::Uuid(*u),
        Atom::Row(key) => wire::Atom::Str(key.name.clone()),
    }
}

impl<U: Ord + Clone> Diff<U> {
    /// The row that stands for a key (see the module), and whether it is somebody else's.
    pub(crate) fn locate(&self, key: KeyId) -> (Option<Uuid>, bool) {
        let record = &self.keys[key];
        let table = record.key.table;
        // A row that somebody renamed stays the one that we made as long as that is wanted.
        if let Some(row) = self.actual.get(record.uuid)
            && row.table == table
            && (row.natural == Some(key) || !record.claims.is_empty())
        {
            return (Some(record.uuid), false);
        }
        let best = record
            .natural
            .iter()
            .filter(|uuid| {
                // Another wanted row whose columns were edited into this key.
                !self
                    .keys
                    .of_uuid(**uuid)
                    .is_some_and(|k| k != key && !self.keys[k].claims.is_empty())
            })
            .filter_map(|uuid| Some((self.actual.get(*uuid)?.owner, *uuid)))
            .min();
        match best {
            Some((Owner::Foreign, uuid)) => (Some(uuid), !table.is_singleton()),
            Some((_, uuid)) => (Some(uuid), false),
            None => (None, false),
        }
    }

    /// The wanted key that a row stands for.
    pub(crate) fn claimed(&self, uuid: Uuid) -> Option<KeyId> {
        let row = self.actual.get(uuid)?;
        self.keys
            .of_uuid(uuid)
            .into_iter()
            .chain(row.natural)
            .find(|key| {
                !self.keys[*key].claims.is_empty() && self.locate(*key) == (Some(uuid), false)
            })
    }

    /// The key that a row stands for, wanted or not.
    pub(crate) fn key_of(&self, uuid: Uuid) -> Option<KeyId> {
        let row = self.actual.get(uuid)?;
        self.keys
            .of_uuid(uuid)
            .into_iter()
            .chain(row.natural)
            .find(|key| self.locate(*key).0 == Some(uuid))
    }

    /// The UUID by which other rows refer to a key: that of its row, or the one that it will get.
    pub(crate) fn uuid_of(&self, key: KeyId) -> Uuid {
        self.locate(key).0.unwrap_or(self.keys[key].uuid)
    }

    pub(crate) fn resolve(&self, key: &RowKey) -> Uuid {
        self.keys
            .find(key)
            .map_or_else(|| self.keys.identity().uuid(key), |key| self.uuid_of(key))
    }

    /// What has to change in the row that stands for a wanted key.
    pub(crate) fn changes(&self, key: KeyId, uuid: Uuid) -> Vec<Change> {
        let Some((_, desired)) = self.desired.claim(&self.keys, key) else {
            return Vec::new();
        };
        let Some(actual) = self.actual.get(uuid) else {
            return Vec::new();
        };
        changes(
            desired,
            &actual.wire,
            actual.table.columns(),
            |column| self.missing.contains(&column),
            |key| self.resolve(key),
        )
    }

    /// Brings the difference up to date.
    pub(crate) fn evaluate(&mut self) {
        if self.dirty.all {
            self.mark_everything();
        }
        let mut seen_keys = Vec::new();
        while !self.dirty.keys.is_empty() || !self.dirty.rows.is_empty() {
            let keys = distinct(&mut self.dirty.keys);
            for key in &keys {
                if self.keys.is_live(*key) {
                    self.evaluate_key(*key);
                    if self.dirty.all {
                        return self.evaluate();
                    }
                }
            }
            seen_keys.extend(keys);
            for uuid in distinct(&mut self.dirty.rows) {
                self.evaluate_surplus(uuid);
                for (parent, column) in self.actual.parents(uuid).to_vec() {
                    let element = (parent, column, wire::Atom::Uuid(uuid));
                    self.dirty.removes.push(element);
                }
            }
        }
        let adds = distinct(&mut self.dirty.adds);
        for (parent, column, atom) in distinct(&mut self.dirty.removes) {
            // An element that went may be wanted.
            for key in self.possible_keys(parent) {
                for elem in self.possible_elements(column, &atom) {
                    self.evaluate_add((key, column, elem));
                }
            }
            self.evaluate_remove((parent, column, atom));
        }
        for member in adds {
            if let Some(element) = self.element(&member) {
                self.evaluate_remove(element);
            }
            self.evaluate_add(member);
        }
        for key in distinct(&mut seen_keys) {
            if self.keys.is_live(key) {
                self.keys.release(key);
            }
        }
    }

    fn mark_everything(&mut self) {
        self.dirty.all = false;
        self.pending = super::Pending::default();
        self.dirty.keys.extend(self.keys.iter().map(|(key, _)| key));
        for (key, column, elements) in self.desired.all_sets() {
            let members = elements.keys().map(|elem| (key, column, elem.clone()));
            self.dirty.adds.extend(members);
        }
        for (uuid, row) in self.actual.iter() {
            self.dirty.rows.push(uuid);
            for column in row.table.columns().filter(|c| c.mode() == Mode::Shared) {
                for atom in element_atoms(&row.wire, column) {
                    self.dirty.removes.push((uuid, column, atom));
                }
            }
        }
        for key in self.dirty.keys.clone() {
            let seen = self.look(key);
            self.keys[key].seen = seen;
        }
    }

    fn look(&self, key: KeyId) -> Seen {
        let (row, foreign) = self.locate(key);
        Seen {
            row,
            foreign,
            claimed: !self.keys[key].claims.is_empty(),
        }
    }

    fn evaluate_key(&mut self, key: KeyId) {
        let now = self.look(key);
        let before = std::mem::replace(&mut self.keys[key].seen, now);
        self.evaluate_row(key);
        let record = &self.keys[key];
        self.dirty.rows.extend(record.natural.iter().copied());
        self.dirty.rows.push(record.uuid);
        for (parent, column) in &record.memberships {
            self.dirty.adds.push((*parent, *column, Elem::Row(key)));
        }
        if now == before {
            return;
        }
        let replaced = before
            .row
            .is_some_and(|old| now.row != Some(old) && self.actual.get(old).is_some());
        let confused = before.claimed != now.claimed
            && self
                .actual
                .get(record.uuid)
                .is_some_and(|row| row.natural != Some(key));
        if replaced
            || confused
            || (before.row.is_some() && now.row.is_some() && before.row != now.row)
        {
            // A row stands for another key from now on, or a key for another row: somebody edited the columns that
            // name it. Sets that hold it may be anywhere.
            self.dirty.all = true;
            return;
        }
        for referrer in record.referrers.as_slice().to_vec() {
            self.evaluate_row(referrer);
        }
        for (column, elements) in self.desired.sets_of(key, &self.keys) {
            let members = elements.keys().map(|elem| (key, column, elem.clone()));
            self.dirty.adds.extend(members);
        }
        if let Some(uuid) = now.row
            && let Some(row) = self.actual.get(uuid)
        {
            for column in row.table.columns().filter(|c| c.mode() == Mode::Shared) {
                for atom in element_atoms(&row.wire, column) {
                    self.dirty.removes.push((uuid, column, atom));
                }
            }
        }
    }

    fn evaluate_row(&mut self, key: KeyId) {
        let state = if self.keys[key].claims.is_empty() {
            None
        } else {
            match self.locate(key) {
                (Some(uuid), true) => Some(RowState::Blocked(uuid)),
                (Some(uuid), false) => {
                    let differs = !self.changes(key, uuid).is_empty();
                    differs.then_some(RowState::Update(uuid))
                }
                (None, _) => Some(RowState::Insert),
            }
        };
        match state {
            Some(state) => self.pending.rows.insert(key, state),
            None => self.pending.rows.remove(&key),
        };
    }

    fn evaluate_surplus(&mut self, uuid: Uuid) {
        let surplus = self.actual.get(uuid).is_some_and(|row| {
            row.owner == Owner::Ours && !row.table.is_singleton() && self.claimed(uuid).is_none()
        });
        if surplus {
            self.pending.surplus.insert(uuid);
        } else {
            self.pending.surplus.remove(&uuid);
        }
    }

    fn evaluate_add(&mut self, member: MemberId) {
        if self.lacks(&member) {
            self.pending.adds.insert(member);
        } else {
            self.pending.adds.remove(&member);
        }
    }

    /// Whether a contribution is not in the database.
    fn lacks(&self, member: &MemberId) -> bool {
        let (key, column, elem) = member;
        let Some(owner) = self.desired.owner(&self.keys, *key, *column, elem) else {
            return false;
        };
        if self.missing.contains(column) {
            return false;
        }
        let (Some(parent), _) = self.locate(*key) else {
            return true;
        };
        let Some(row) = self.actual.get(parent) else {
            return true;
        };
        let Some(datum) = row.wire.get(column.name()) else {
            return true;
        };
        let atom = match elem {
            Elem::Row(target) => match self.locate(*target) {
                (Some(uuid), _) => wire::Atom::Uuid(uuid),
                (None, _) => return true,
            },
            Elem::Value(atom) => to_wire(atom),
        };
        match &owner.value {
            None => !datum.contains(&atom),
            Some(value) => {
                let pairs = datum.pairs();
                match pairs.binary_search_by(|(k, _)| k.cmp(&atom)) {
                    Ok(at) => !same(&pairs[at].1, value),
                    Err(_) => true,
                }
            }
        }
    }

    fn evaluate_remove(&mut self, element: ElementId) {
        if self.exceeds(&element) {
            self.pending.removes.insert(element);
        } else {
            self.pending.removes.remove(&element);
        }
    }

    /// Whether an element of the database is there although nobody contributes it, and is ours to remove.
    fn exceeds(&self, element: &ElementId) -> bool {
        let (parent, column, atom) = element;
        let Some(row) = self.actual.get(*parent) else {
            return false;
        };
        let there = row.wire.get(column.name()).is_some_and(|datum| {
            if datum.is_map() {
                datum.pairs().binary_search_by(|(k, _)| k.cmp(atom)).is_ok()
            } else {
                datum.contains(atom)
            }
        });
        if !there {
            return false;
        }
        let parent_key = self.key_of(*parent);
        let child = atom.as_uuid().filter(|_| column.refers().is_some());
        if let Some(parent_key) = parent_key {
            let wanted = self
                .possible_elements(*column, atom)
                .filter(|elem| match elem {
                    Elem::Row(key) => self.locate(*key).0 == child,
                    Elem::Value(_) => true,
                })
                .any(|elem| {
                    self.desired
                        .owner(&self.keys, parent_key, *column, &elem)
                        .is_some()
                });
            if wanted {
                return false;
            }
        }
        if column.contains().is_some() {
            // The place of a row goes with the row; a row that is wanted elsewhere has moved.
            return child.is_some_and(|child| {
                self.claimed(child).is_some()
                    || self
                        .actual
                        .get(child)
                        .is_some_and(|row| row.owner == Owner::Ours)
            });
        }
        self.claimed(*parent).is_some()
    }

    /// The keys that a row may stand for.
    fn possible_keys(&self, uuid: Uuid) -> impl Iterator<Item = KeyId> + use<U> {
        let natural = self.actual.get(uuid).and_then(|row| row.natural);
        let own = self.keys.of_uuid(uuid).filter(|key| natural != Some(*key));
        natural.into_iter().chain(own)
    }

    /// The elements that an atom of the database may stand for.
    fn possible_elements(
        &self,
        column: Column,
        atom: &wire::Atom,
    ) -> impl Iterator<Item = Elem> + use<U> {
        let uuid = atom.as_uuid().filter(|_| column.refers().is_some());
        let rows = uuid.map(|uuid| self.possible_keys(uuid).map(Elem::Row));
        let value = match uuid {
            Some(_) => None,
            None => crate::model::atom_from_wire(column.def().key, atom).map(Elem::Value),
        };
        rows.into_iter().flatten().chain(value)
    }

    /// Where a contribution would be in the database.
    pub(crate) fn element(&self, member: &MemberId) -> Option<ElementId> {
        let (key, column, elem) = member;
        if !self.keys.is_live(*key) {
            return None;
        }
        let parent = self.locate(*key).0?;
        let atom = match elem {
            Elem::Row(target) if !self.keys.is_live(*target) => return None,
            Elem::Row(target) => wire::Atom::Uuid(self.locate(*target).0?),
            Elem::Value(atom) => to_wire(atom),
        };
        Some((parent, *column, atom))
    }
}

/// The elements of a set, or the keys of a map.
pub(super) fn element_atoms(row: &wire::Row, column: Column) -> Vec<wire::Atom> {
    let atoms = row.atoms(column.name()).iter();
    let keys = row.pairs(column.name()).iter().map(|(key, _)| key);
    atoms.chain(keys).cloned().collect()
}

/// Takes what was gathered, each once, in order.
fn distinct<T: Ord>(gathered: &mut Vec<T>) -> Vec<T> {
    let mut taken = std::mem::take(gathered);
    taken.sort_unstable();
    taken.dedup();
    taken
}
