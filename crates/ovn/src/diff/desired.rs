//! What all units together want: rows with their claims, shared columns with their contributions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::few::Few;
use super::keys::{Elem, KeyId, Keys};
use crate::fragment::Fragment;
use crate::model::{Atom, Column, Row, RowKey};

/// A unit as a small number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UnitId(u32);

/// One unit's contribution of an element; the value is that of a map's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub unit: UnitId,
    pub value: Option<Arc<Atom>>,
}

/// The elements of one shared column of one row.
pub(crate) type Elements = BTreeMap<Elem, Few<Owner>>;

/// A shared element: column `1` of the row `0` has element `2`.
pub(crate) type MemberId = (KeyId, Column, Elem);

#[derive(Debug)]
struct Entry<U> {
    unit: U,
    rows: Box<[KeyId]>,
    members: Box<[MemberId]>,
}

/// Two units want different things in one place. The smallest unit wins, the others are left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict<U> {
    pub key: RowKey,
    /// The map and its key, if the conflict is about an entry.
    pub entry: Option<(Column, Atom)>,
    pub winner: U,
    pub losers: Vec<U>,
}

impl<U: fmt::Display> fmt::Display for Conflict<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some((column, key)) = &self.entry {
            write!(f, " {}: {key}", column.name())?;
        }
        write!(f, " is wanted by {} and", self.winner)?;
        for (i, loser) in self.losers.iter().enumerate() {
            write!(f, "{} {loser}", if i == 0 { "" } else { "," })?;
        }
        write!(f, "; {} has it", self.winner)
    }
}

/// What changed, for the evaluation.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub keys: Vec<KeyId>,
    pub members: Vec<MemberId>,
}

#[derive(Debug)]
pub(crate) struct Desired<U> {
    ids: BTreeMap<U, UnitId>,
    entries: Vec<Option<Entry<U>>>,
    free: Vec<UnitId>,
    sets: HashMap<(KeyId, Column), Elements>,
    conflicting_rows: BTreeSet<KeyId>,
    conflicting_entries: BTreeSet<MemberId>,
}

impl<U: Ord + Clone> Desired<U> {
    pub fn new() -> Self {
        Self {
            ids: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            sets: HashMap::new(),
            conflicting_rows: BTreeSet::new(),
            conflicting_entries: BTreeSet::new(),
        }
    }

    pub fn id(&self, unit: &U) -> Option<UnitId> {
        self.ids.get(unit).copied()
    }

    #[expect(clippy::expect_used, reason = "claims are removed before their unit")]
    fn entry(&self, id: UnitId) -> &Entry<U> {
        self.entries[id.0 as usize].as_ref().expect("a live unit")
    }

    pub fn unit(&self, id: UnitId) -> &U {
        &self.entry(id).unit
    }

    pub fn units(&self) -> impl Iterator<Item = (&U, UnitId)> {
        self.ids.iter().map(|(unit, id)| (unit, *id))
    }

    pub fn rows_of(&self, id: UnitId) -> &[KeyId] {
        &self.entry(id).rows
    }

    pub fn members_of(&self, id: UnitId) -> &[MemberId] {
        &self.entry(id).members
    }

    /// The shared columns of a row that have contributions.
    pub fn sets_of(&self, key: KeyId, keys: &Keys) -> impl Iterator<Item = (Column, &Elements)> {
        keys[key]
            .key
            .table
            .columns()
            .filter(move |_| keys[key].contributed > 0)
            .filter_map(move |column| Some((column, self.sets.get(&(key, column))?)))
    }

    pub fn all_sets(&self) -> impl Iterator<Item = (KeyId, Column, &Elements)> {
        self.sets
            .iter()
            .map(|((key, column), elements)| (*key, *column, elements))
    }

    pub fn owners(&self, key: KeyId, column: Column, elem: &Elem) -> Option<&Few<Owner>> {
        self.sets.get(&(key, column))?.get(elem)
    }

    /// The contribution that counts.
    pub fn owner(&self, keys: &Keys, key: KeyId, column: Column, elem: &Elem) -> Option<&Owner> {
        self.owners(key, column, elem)?
            .iter()
            .filter(|owner| !self.lost(keys, elem, owner.unit))
            .min_by_key(|owner| self.unit(owner.unit))
    }

    /// Whether a unit states a row that another unit has: where that row belongs is not for it to say.
    fn lost(&self, keys: &Keys, elem: &Elem, unit: UnitId) -> bool {
        let Elem::Row(key) = elem else {
            return false;
        };
        let claims = &keys[*key].claims;
        claims.len() > 1
            && claims.iter().any(|(u, _)| *u == unit)
            && self.claim(keys, *key).is_some_and(|(u, _)| u != unit)
    }

    /// The columns that a row is wanted in and that would keep it alive.
    pub fn places<'a>(
        &'a self,
        keys: &'a Keys,
        key: KeyId,
    ) -> impl Iterator<Item = (KeyId, Column)> + 'a {
        let record = &keys[key];
        record
            .memberships
            .iter()
            .copied()
            .filter(move |(parent, column)| {
                column.contains() == Some(record.key.table)
                    && self
                        .owner(keys, *parent, *column, &Elem::Row(key))
                        .is_some()
            })
    }

    /// The claim that counts.
    pub fn claim<'a>(&self, keys: &'a Keys, key: KeyId) -> Option<(UnitId, &'a Arc<Row>)> {
        keys[key]
            .claims
            .iter()
            .min_by_key(|(unit, _)| self.unit(*unit))
            .map(|(unit, row)| (*unit, row))
    }

    /// Replaces what a unit wants. The rows and elements that it no longer wants are returned as well as marked.
    pub fn set(
        &mut self,
        keys: &mut Keys,
        unit: U,
        fragment: Fragment,
        touched: &mut Touched,
    ) -> (Vec<KeyId>, Vec<MemberId>) {
        let mut rows = BTreeMap::new();
        for (key, row) in fragment.rows {
            rows.insert(keys.intern(&key), row);
        }
        let mut members = BTreeMap::new();
        for member in fragment.members {
            let parent = keys.intern(&member.parent);
            let elem = match member.element {
                Atom::Row(key) => Elem::Row(keys.intern(&key)),
                value => Elem::Value(value),
            };
            members.insert((parent, member.column, elem), member.value.map(Arc::new));
        }
        if rows.is_empty() && members.is_empty() && !self.ids.contains_key(&unit) {
            return Default::default();
        }
        let id = self.intern(unit);
        let old = self.entries[id.0 as usize]
            .as_mut()
            .map(|e| (std::mem::take(&mut e.rows), std::mem::take(&mut e.members)));
        let (old_rows, old_members) = old.unwrap_or_default();
        let left_rows: Vec<_> = old_rows
            .into_iter()
            .filter(|key| !rows.contains_key(key))
            .collect();
        let left_members: Vec<_> = old_members
            .into_iter()
            .filter(|member| !members.contains_key(member))
            .collect();
        for key in &left_rows {
            self.unclaim(keys, *key, id, touched);
            touched.keys.push(*key);
        }
        for member in &left_members {
            self.withdraw(keys, member, id);
            if let Elem::Row(target) = member.2 {
                touched.keys.push(target);
            }
            touched.members.push(member.clone());
        }
        let row_keys = rows.keys().copied().collect();
        for (key, row) in rows {
            if self.state(keys, key, id, row, touched) {
                touched.keys.push(key);
            }
        }
        let member_keys = members.keys().cloned().collect();
        for (member, value) in members {
            if self.contribute(keys, &member, Owner { unit: id, value }) {
                touched.members.push(member);
            }
        }
        if let Some(entry) = &mut self.entries[id.0 as usize] {
            entry.rows = row_keys;
            entry.members = member_keys;
            if entry.rows.is_empty() && entry.members.is_empty() {
                self.ids.remove(&entry.unit);
                self.entries[id.0 as usize] = None;
                self.free.push(id);
            }
        }
        (left_rows, left_members)
    }

    fn intern(&mut self, unit: U) -> UnitId {
        if let Some(id) = self.id(&unit) {
            return id;
        }
        let entry = Some(Entry {
            unit: unit.clone(),
            rows: Box::default(),
            members: Box::default(),
        });
        let id = if let Some(id) = self.free.pop() {
            self.entries[id.0 as usize] = entry;
            id
        } else {
            #[expect(clippy::expect_used, reason = "the units would not fit into memory")]
            let id = UnitId(u32::try_from(self.entries.len()).expect("fewer than 2^32 units"));
            self.entries.push(entry);
            id
        };
        self.ids.insert(unit, id);
        id
    }

    /// Records a claim; `false` if it was there already, with an equal row.
    fn state(
        &mut self,
        keys: &mut Keys,
        key: KeyId,
        unit: UnitId,
        row: Row,
        touched: &mut Touched,
    ) -> bool {
        let old = keys[key]
            .claims
            .iter()
            .find(|(u, _)| *u == unit)
            .map(|(_, row)| Arc::clone(row));
        if old.as_deref() == Some(&row) {
            return false;
        }
        if let Some(old) = &old {
            Self::unrefer(keys, key, old, touched);
        }
        for target in row.rows() {
            let target = keys.intern(target);
            keys[target].referrers.push(key);
        }
        let row = Arc::new(row);
        let claims = &mut keys[key].claims;
        match claims.find_mut(|(u, _)| *u == unit) {
            Some(claim) => claim.1 = row,
            None => claims.push((unit, row)),
        }
        if claims.len() > 1 {
            self.conflicting_rows.insert(key);
        }
        true
    }

    fn unclaim(&mut self, keys: &mut Keys, key: KeyId, unit: UnitId, touched: &mut Touched) {
        let Some((_, row)) = keys[key].claims.remove(|(u, _)| *u == unit) else {
            return;
        };
        Self::unrefer(keys, key, &row, touched);
        if keys[key].claims.len() < 2 {
            self.conflicting_rows.remove(&key);
        }
    }

    fn unrefer(keys: &mut Keys, key: KeyId, row: &Row, touched: &mut Touched) {
        for target in row.rows() {
            if let Some(target) = keys.find(target) {
                touched.keys.push(target);
                keys[target].referrers.remove(|r| *r == key);
            }
        }
    }

    /// Records a contribution; `false` if it was there already, with an equal value.
    fn contribute(&mut self, keys: &mut Keys, member: &MemberId, owner: Owner) -> bool {
        let (key, column, elem) = member;
        let elements = self.sets.entry((*key, *column)).or_default();
        if elements.is_empty() {
            keys[*key].contributed += 1;
        }
        let owners = elements.entry(elem.clone()).or_default();
        if owners.is_empty()
            && let Elem::Row(target) = elem
        {
            keys[*target].memberships.push((*key, *column));
        }
        match owners.find_mut(|o| o.unit == owner.unit) {
            Some(old) if old.value == owner.value => return false,
            Some(old) => *old = owner,
            None => owners.push(owner),
        }
        let owners = owners.as_slice();
        if owners.windows(2).any(|pair| pair[0].value != pair[1].value) {
            self.conflicting_entries.insert(member.clone());
        } else {
            self.conflicting_entries.remove(member);
        }
        true
    }

    fn withdraw(&mut self, keys: &mut Keys, member: &MemberId, unit: UnitId) {
        let (key, column, elem) = member;
        let Some(elements) = self.sets.get_mut(&(*key, *column)) else {
            return;
        };
        let Some(owners) = elements.get_mut(elem) else {
            return;
        };
        owners.remove(|owner| owner.unit == unit);
        let slice = owners.as_slice();
        if slice.windows(2).all(|pair| pair[0].value == pair[1].value) {
            self.conflicting_entries.remove(member);
        }
        if owners.is_empty() {
            elements.remove(elem);
            if let Elem::Row(target) = elem {
                keys[*target].memberships.remove(|m| *m == (*key, *column));
            }
        }
        if elements.is_empty() {
            self.sets.remove(&(*key, *column));
            keys[*key].contributed -= 1;
        }
    }

    /// Everything that two units want differently, in the order of keys.
    pub fn conflicts(&self, keys: &Keys) -> Vec<Conflict<U>> {
        let conflict = |key: KeyId, entry, units: Vec<UnitId>| {
            let mut units: Vec<_> = units.into_iter().map(|u| self.unit(u).clone()).collect();
            units.sort();
            let mut units = units.into_iter();
            Some(Conflict {
                key: keys[key].key.clone(),
                entry,
                winner: units.next()?,
                losers: units.collect(),
            })
        };
        let rows = self.conflicting_rows.iter().filter_map(|key| {
            let units = keys[*key].claims.iter().map(|(unit, _)| *unit).collect();
            conflict(*key, None, units)
        });
        let entries = self.conflicting_entries.iter().filter_map(|member| {
            let (key, column, elem) = member;
            let units = self.owners(*key, *column, elem)?;
            let atom = match elem {
                Elem::Row(target) => Atom::Row(keys[*target].key.clone()),
                Elem::Value(atom) => atom.clone(),
            };
            let units = units.iter().map(|o| o.unit).collect();
            conflict(*key, Some((*column, atom)), units)
        });
        let mut all: Vec<_> = rows.chain(entries).collect();
        all.sort();
        all
    }
}
