//! Turns groups into operations and batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ovsdb::wire;
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row as WireRow};
use uuid::Uuid;

use super::build::{Builder, Group, GroupKey, is_map};
use super::{Batch, Step, order};
use crate::diff::{Edit, Elem, KeyId, to_wire};
use crate::model::{Atom, Column, Mode, RowKey, Table, Value};

/// The operations of one group.
struct Emitted<U> {
    ops: Vec<Operation>,
    op_units: Vec<BTreeSet<U>>,
    steps: Vec<Step>,
}

/// The edits of one row, gathered over its columns.
struct RowEdit<U> {
    table: Table,
    update: WireRow,
    mutations: BTreeMap<Column, Mutations>,
    units: BTreeSet<U>,
}

#[derive(Default)]
struct Mutations {
    insert: Vec<wire::Atom>,
    delete: Vec<wire::Atom>,
    entries: Vec<(wire::Atom, wire::Atom)>,
    /// Keys that go, or whose value is replaced.
    keys: Vec<wire::Atom>,
}

impl<U: Ord + Clone> Builder<'_, U> {
    /// Orders the groups and fills batches with them.
    pub(super) fn emit(&self, max_ops: usize) -> Vec<Batch<U>> {
        let groups: Vec<_> = self.groups.iter().collect();
        let mut provider = BTreeMap::new();
        for (i, (_, group)) in groups.iter().enumerate() {
            for key in group.inserts.iter().chain(group.updates.keys()) {
                provider.insert(*key, i);
            }
        }
        let needs: Vec<Vec<usize>> = groups
            .iter()
            .enumerate()
            .map(|(i, (_, group))| {
                let mut needs = BTreeSet::new();
                self.needs(group, |key| needs.extend(provider.get(&key)));
                needs.remove(&i);
                needs.into_iter().collect()
            })
            .collect();
        let mut batches = Batches::new(max_ops);
        for component in order::components(&needs) {
            let parts = component.iter().map(|i| {
                let (key, group) = groups[*i];
                self.emit_group(key, group)
            });
            batches.push(parts.collect());
        }
        let last: Vec<_> = self.last.iter().collect();
        for component in order::components(&self.holders_first(&last)) {
            let parts = component.iter().map(|i| {
                let (key, group) = last[*i];
                let removes = Group {
                    removes: group.removes.clone(),
                    ..Group::default()
                };
                let mut emitted = self.emit_group(key, &removes);
                let units = units(key);
                for uuid in &group.deletes {
                    self.delete(*uuid, &units, &mut emitted);
                }
                emitted
            });
            batches.push(parts.collect());
        }
        batches.finish()
    }

    /// For each of the last groups those that have to go before or together with it: their rows refer strongly to rows
    /// of the group.
    fn holders_first(&self, last: &[(&GroupKey<U>, &Group)]) -> Vec<Vec<usize>> {
        let mut place = BTreeMap::new();
        for (i, (_, group)) in last.iter().enumerate() {
            place.extend(group.deletes.iter().map(|uuid| (*uuid, i)));
        }
        // A row that is no root goes with the one that contains it.
        let root = |mut uuid: Uuid| {
            while let Some((parent, _)) = self.diff.actual.parents(uuid).first() {
                uuid = *parent;
            }
            uuid
        };
        let needs = last.iter().enumerate().map(|(i, (_, group))| {
            let held = group.deletes.iter();
            let holders = held.flat_map(|uuid| self.diff.actual.holders(*uuid));
            let places = holders.filter_map(|(holder, _)| place.get(&root(*holder)));
            let needs: BTreeSet<usize> = places.copied().filter(|j| *j != i).collect();
            needs.into_iter().collect()
        });
        needs.collect()
    }

    /// The rows that have to be written before or together with a group.
    fn needs(&self, group: &Group, mut need: impl FnMut(KeyId)) {
        let rows = group.inserts.iter().chain(group.updates.keys());
        for key in rows {
            if let Some((_, row)) = self.diff.desired.claim(&self.diff.keys, *key) {
                for target in row.rows().filter_map(|t| self.diff.keys.find(t)) {
                    need(target);
                }
            }
            // A row of another key that somebody renamed to this one has to give the name back.
            for uuid in &self.diff.keys[*key].natural {
                self.diff.claimed(*uuid).filter(|k| k != key).map(&mut need);
            }
            let table = self.diff.keys[*key].key.table;
            let filled = table.columns().filter(|c| is_filled_at_once(*c));
            for elem in filled.flat_map(|c| self.available_elements(*key, c)) {
                if let Elem::Row(target) = elem {
                    need(*target);
                }
            }
        }
        for (key, _, elem) in &group.adds {
            need(*key);
            if let Elem::Row(target) = elem {
                need(*target);
            }
        }
        // A row that comes without its place is forgotten by the database: the place is in this group or another.
        for key in &group.inserts {
            for (parent, _) in self.diff.desired.places(&self.diff.keys, *key) {
                if self.coming.contains(&parent) {
                    need(parent);
                }
            }
        }
    }

    fn emit_group(&self, key: &GroupKey<U>, group: &Group) -> Emitted<U> {
        let diff = self.diff;
        let own = units(key);
        let mut out = Emitted {
            ops: Vec::new(),
            op_units: Vec::new(),
            steps: Vec::new(),
        };
        let mut inserts: Vec<_> = group.inserts.iter().copied().collect();
        inserts.sort_by(|a, b| diff.keys[*a].key.cmp(&diff.keys[*b].key));
        let mut adds: Vec<_> = group.adds.iter().collect();
        adds.sort_by_cached_key(|(key, column, elem)| {
            (diff.keys[*key].key.clone(), *column, diff.atom(elem))
        });
        // Elements of rows that this group makes are part of the insert.
        let mut initial: BTreeMap<KeyId, BTreeMap<Column, Vec<&Elem>>> = BTreeMap::new();
        for key in &inserts {
            let table = diff.keys[*key].key.table;
            for column in table.columns().filter(|c| is_filled_at_once(*c)) {
                let elements = self.available_elements(*key, column);
                initial.entry(*key).or_default().insert(column, elements);
            }
        }
        let mut edits: BTreeMap<(RowKey, Uuid), RowEdit<U>> = BTreeMap::new();
        let mut element_steps = Vec::new();
        for member in adds {
            let (key, column, elem) = member;
            let Some(owner) = diff.desired.owner(&diff.keys, *key, *column, elem) else {
                continue;
            };
            element_steps.push(Step::Add {
                key: diff.keys[*key].key.clone(),
                column: *column,
                element: diff.atom(elem),
                value: owner.value.as_deref().cloned(),
            });
            if group.inserts.contains(key) {
                let elements = initial.entry(*key).or_default().entry(*column).or_default();
                if !elements.contains(&elem) {
                    elements.push(elem);
                }
                continue;
            }
            let record = &diff.keys[*key];
            let edit = edits
                .entry((record.key.clone(), diff.uuid_of(*key)))
                .or_insert_with(|| RowEdit::new(record.key.table, &own));
            edit.units.insert(diff.desired.unit(owner.unit).clone());
            let mutations = edit.mutations.entry(*column).or_default();
            let atom = self.wire_elem(elem);
            match &owner.value {
                None => mutations.insert.push(atom),
                Some(value) => {
                    if self.has_entry(diff.uuid_of(*key), *column, &atom) {
                        mutations.keys.push(atom.clone());
                    }
                    mutations.entries.push((atom, to_wire(value)));
                }
            }
        }
        for key in inserts {
            let record = &diff.keys[key];
            let Some((_, row)) = diff.desired.claim(&diff.keys, key) else {
                continue;
            };
            let mut wire_row: WireRow = row
                .iter()
                .filter(|(column, _)| !diff.missing.contains(column))
                .map(|(column, value)| (column.name().into(), self.wire_value(value)))
                .collect();
            let mut units = own.clone();
            for (column, elements) in initial.remove(&key).unwrap_or_default() {
                let owners = elements.iter().filter_map(|elem| {
                    Some((elem, diff.desired.owner(&diff.keys, key, column, elem)?))
                });
                let mut atoms = Vec::new();
                let mut pairs = Vec::new();
                for (elem, owner) in owners {
                    units.insert(diff.desired.unit(owner.unit).clone());
                    match &owner.value {
                        None => atoms.push(self.wire_elem(elem)),
                        Some(value) => pairs.push((self.wire_elem(elem), to_wire(value))),
                    }
                }
                let datum = if is_map(column) {
                    Datum::map(pairs)
                } else {
                    Datum::set(atoms)
                };
                wire_row.insert(column.name(), datum);
            }
            out.steps.push(Step::Insert {
                key: record.key.clone(),
                row: Arc::clone(row),
            });
            out.push(
                Operation::insert(record.key.table.name(), record.uuid, wire_row),
                units,
            );
        }
        for (key, (uuid, changes)) in &group.updates {
            let record = &diff.keys[*key];
            let edit = edits
                .entry((record.key.clone(), *uuid))
                .or_insert_with(|| RowEdit::new(record.key.table, &own));
            edit.units.extend(own.iter().cloned());
            for change in changes {
                edit.take(change.column, &change.edit);
            }
            out.steps.push(Step::Update {
                key: record.key.clone(),
                changes: changes.clone(),
                adopts: self.adopts(*uuid),
            });
        }
        out.steps.append(&mut element_steps);
        let detached = group.detach.iter().flat_map(|uuid| {
            let parents = diff.actual.parents(*uuid).iter();
            parents.map(|(parent, column)| (*parent, *column, wire::Atom::Uuid(*uuid)))
        });
        for (parent, column, atom) in group.removes.iter().cloned().chain(detached) {
            let Some(row) = diff.actual.get(parent) else {
                continue;
            };
            let natural = diff.key_of(parent).or(row.natural);
            let natural = natural.map(|key| diff.keys[key].key.clone());
            let child = atom.as_uuid().and_then(|uuid| {
                let key = diff.key_of(uuid).or(diff.actual.get(uuid)?.natural)?;
                Some(diff.keys[key].key.name.clone())
            });
            let detaches = atom.as_uuid().is_some_and(|u| group.detach.contains(&u));
            if !detaches {
                out.steps.push(Step::Remove {
                    key: natural.clone(),
                    column,
                    element: child.unwrap_or_else(|| smol_str::format_smolstr!("{atom}")),
                });
            }
            let sort_key = natural.unwrap_or_else(|| RowKey::new(row.table, ""));
            let edit = edits
                .entry((sort_key, parent))
                .or_insert_with(|| RowEdit::new(row.table, &own));
            let mutations = edit.mutations.entry(column).or_default();
            if is_map(column) {
                mutations.keys.push(atom);
            } else {
                mutations.delete.push(atom);
            }
        }
        for uuid in &group.detach {
            out.steps.push(self.delete_step(*uuid));
        }
        for ((_, uuid), edit) in edits {
            edit.emit(uuid, &mut out);
        }
        out
    }

    fn delete(&self, uuid: Uuid, units: &BTreeSet<U>, out: &mut Emitted<U>) {
        let Some(row) = self.diff.actual.get(uuid) else {
            return;
        };
        out.steps.push(self.delete_step(uuid));
        out.push(
            Operation::delete(row.table.name(), Condition::row(uuid)),
            units.clone(),
        );
    }

    fn delete_step(&self, uuid: Uuid) -> Step {
        let row = self.diff.actual.get(uuid);
        let key = row.and_then(|row| row.natural);
        let key = key.map(|key| self.diff.keys[key].key.clone());
        Step::Delete {
            table: row.map_or_else(|| Table::new(self.diff.database, 0), |row| row.table),
            key,
            uuid,
        }
    }

    fn wire_elem(&self, elem: &Elem) -> wire::Atom {
        match elem {
            Elem::Row(target) => wire::Atom::Uuid(self.diff.uuid_of(*target)),
            Elem::Value(atom) => to_wire(atom),
        }
    }

    fn wire_value(&self, value: &Value) -> Datum {
        wire_value(&value.resolved(|key| self.diff.resolve(key)))
    }
}

/// Whether a new row must have elements in this shared column from the first.
fn is_filled_at_once(column: Column) -> bool {
    column.mode() == Mode::Shared && column.def().min > 0
}

fn units<U: Ord + Clone>(key: &GroupKey<U>) -> BTreeSet<U> {
    match key {
        GroupKey::Unit(unit) => BTreeSet::from([unit.clone()]),
        GroupKey::Object(_) => BTreeSet::new(),
    }
}

fn wire_value(value: &Value) -> Datum {
    match value {
        Value::Atom(atom) => Datum::Atom(to_wire(atom)),
        Value::Set(atoms) => Datum::set(atoms.iter().map(to_wire)),
        Value::Map(entries) => Datum::map(entries.iter().map(|(k, v)| (to_wire(k), to_wire(v)))),
    }
}

impl<U> Emitted<U> {
    fn push(&mut self, op: Operation, units: BTreeSet<U>) {
        self.ops.push(op);
        self.op_units.push(units);
    }
}

impl<U: Ord + Clone> RowEdit<U> {
    fn new(table: Table, units: &BTreeSet<U>) -> Self {
        Self {
            table,
            update: WireRow::default(),
            mutations: BTreeMap::new(),
            units: units.clone(),
        }
    }

    fn take(&mut self, column: Column, edit: &Edit) {
        let atoms = |atoms: &[Atom]| atoms.iter().map(to_wire).collect::<Vec<_>>();
        match edit {
            Edit::Set { new, .. } => {
                self.update.insert(column.name(), wire_value(new));
            }
            Edit::Elements { insert, delete } => {
                let mutations = self.mutations.entry(column).or_default();
                mutations.insert.extend(atoms(insert));
                mutations.delete.extend(atoms(delete));
            }
            Edit::Entries {
                insert,
                delete,
                replace,
            } => {
                let mutations = self.mutations.entry(column).or_default();
                mutations.keys.extend(atoms(delete));
                mutations.keys.extend(atoms(replace));
                let entries = insert.iter().map(|(k, v)| (to_wire(k), to_wire(v)));
                mutations.entries.extend(entries);
            }
        }
    }

    fn emit(self, uuid: Uuid, out: &mut Emitted<U>) {
        let name = self.table.name();
        if !self.update.is_empty() {
            let op = Operation::update(name, Condition::row(uuid), self.update);
            out.push(op, self.units.clone());
        }
        let mut mutations = Vec::new();
        for (column, m) in self.mutations {
            let name = column.name();
            // A map keeps the value of a key that is inserted again, so the key goes first. A set may have to keep
            // one element at any time, so what goes goes last.
            if !m.keys.is_empty() {
                mutations.push(Mutation::delete_keys(name, m.keys));
            }
            if !m.entries.is_empty() {
                mutations.push(Mutation::insert(name, Datum::map(m.entries)));
            }
            if !m.insert.is_empty() {
                mutations.push(Mutation::insert(name, Datum::set(m.insert)));
            }
            if !m.delete.is_empty() {
                mutations.push(Mutation::delete(name, Datum::set(m.delete)));
            }
        }
        if !mutations.is_empty() {
            let op = Operation::mutate(name, Condition::row(uuid), mutations);
            out.push(op, self.units);
        }
    }
}

/// Fills batches with components that must stay whole.
struct Batches<U> {
    max_ops: usize,
    done: Vec<Batch<U>>,
    current: Batch<U>,
}

impl<U: Ord + Clone> Batches<U> {
    fn new(max_ops: usize) -> Self {
        Self {
            max_ops,
            done: Vec::new(),
            current: empty(),
        }
    }

    fn push(&mut self, parts: Vec<Emitted<U>>) {
        let size: usize = parts.iter().map(|part| part.ops.len()).sum();
        if size == 0 {
            return;
        }
        if !self.current.ops.is_empty() && self.current.ops.len() + size > self.max_ops {
            self.close();
        }
        for mut part in parts {
            self.current.ops.append(&mut part.ops);
            self.current.op_units.append(&mut part.op_units);
            self.current.steps.append(&mut part.steps);
        }
        self.current.groups.push(self.current.ops.len());
    }

    fn close(&mut self) {
        let batch = std::mem::replace(&mut self.current, empty());
        if !batch.ops.is_empty() {
            self.done.push(batch);
        }
    }

    fn finish(mut self) -> Vec<Batch<U>> {
        self.close();
        self.done
    }
}

fn empty<U>() -> Batch<U> {
    Batch {
        ops: Vec::new(),
        steps: Vec::new(),
        op_units: Vec::new(),
        groups: Vec::new(),
    }
}
