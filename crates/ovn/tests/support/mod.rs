//! A database in memory with the rules of ovsdb-server that matter to a planner: references, garbage, indexes, counts.
#![allow(dead_code, reason = "not every test uses everything")]

pub mod fixture;
pub mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ovsdb::RowDelta;
use ovsdb::wire::{
    Atom, Condition, DatabaseSchema, Datum, Mutation, Mutator, Operation, RefType, Row,
};
use uuid::Uuid;

type Tables = BTreeMap<String, BTreeMap<Uuid, Row>>;

#[derive(Clone, Debug)]
pub struct Memory {
    pub schema: DatabaseSchema,
    tables: Tables,
}

impl Memory {
    pub fn northbound(release: &str) -> Self {
        let path = format!(
            "{}/schemas/{release}/ovn-nb.ovsschema",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).unwrap();
        let schema: DatabaseSchema = serde_json::from_str(&text).unwrap();
        let tables = schema
            .tables
            .keys()
            .map(|t| (t.to_string(), BTreeMap::new()))
            .collect();
        Self { schema, tables }
    }

    pub fn rows(&self, table: &str) -> &BTreeMap<Uuid, Row> {
        &self.tables[table]
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, Uuid, &Row)> {
        self.tables
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(move |(u, r)| (table.as_str(), *u, r)))
    }

    pub fn find(&self, table: &str, column: &str, value: &str) -> Option<(Uuid, &Row)> {
        self.tables[table]
            .iter()
            .find(|(_, row)| row.str(column) == value)
            .map(|(uuid, row)| (*uuid, row))
    }

    /// Runs a transaction: all of it, or nothing and why.
    pub fn run(&mut self, ops: &[Operation]) -> Result<Vec<RowDelta>, String> {
        let mut next = self.tables.clone();
        for (i, op) in ops.iter().enumerate() {
            self.execute(&mut next, op)
                .map_err(|e| format!("operation {i} ({op:?}): {e}"))?;
        }
        self.collect_garbage(&mut next);
        self.check(&next)?;
        let deltas = deltas(&self.tables, &next);
        self.tables = next;
        Ok(deltas)
    }

    fn execute(&self, tables: &mut Tables, op: &Operation) -> Result<(), String> {
        match op {
            Operation::Insert {
                table, row, uuid, ..
            } => {
                let schema = &self.schema.tables[table];
                for (column, datum) in row.iter() {
                    let ty = &schema.columns.get(column).ok_or("no such column")?.ty;
                    count(datum, ty.min, ty.max)?;
                }
                let rows = tables.get_mut(table.as_str()).ok_or("no such table")?;
                let uuid = uuid.ok_or("no uuid")?;
                if rows.contains_key(&uuid) {
                    return Err("duplicate uuid".to_owned());
                }
                rows.insert(uuid, schema.normalize_row(row.clone()));
            }
            Operation::Update {
                table,
                conditions,
                row: new,
            } => {
                let schema = &self.schema.tables[table];
                for row in selected(tables, table, conditions) {
                    for (column, datum) in new.iter() {
                        let ty = &schema.columns.get(column).ok_or("no such column")?.ty;
                        count(datum, ty.min, ty.max)?;
                        row.insert(column.clone(), datum.clone());
                    }
                    *row = schema.normalize_row(row.clone());
                }
            }
            Operation::Mutate {
                table,
                conditions,
                mutations,
            } => {
                let schema = &self.schema.tables[table];
                for row in selected(tables, table, conditions) {
                    for Mutation {
                        column,
                        mutator,
                        value,
                    } in mutations
                    {
                        let ty = &schema.columns.get(column).ok_or("no such column")?.ty;
                        let old = row.get(column).cloned().unwrap_or_default();
                        let new = mutate(ty.is_map(), &old, *mutator, value);
                        count(&new, ty.min, ty.max)?;
                        row.insert(column.clone(), new);
                    }
                    *row = schema.normalize_row(row.clone());
                }
            }
            Operation::Delete { table, conditions } => {
                let uuid = target(conditions);
                tables.get_mut(table.as_str()).unwrap().remove(&uuid);
            }
            other => return Err(format!("not modelled: {other:?}")),
        }
        Ok(())
    }

    /// Rows of other than root tables live as long as something refers to them strongly.
    fn collect_garbage(&self, tables: &mut Tables) {
        loop {
            let mut alive = BTreeSet::new();
            self.references(tables, |_, _, target, strong| {
                if strong {
                    alive.insert(target);
                }
            });
            let mut dead = 0;
            for (name, rows) in tables.iter_mut() {
                if !self.schema.tables[name.as_str()].is_root {
                    let before = rows.len();
                    rows.retain(|uuid, _| alive.contains(uuid));
                    dead += before - rows.len();
                }
            }
            if dead == 0 {
                break;
            }
        }
        // Weak references to rows that went go too.
        let all: BTreeSet<Uuid> = tables.values().flat_map(|r| r.keys().copied()).collect();
        for (name, rows) in tables.iter_mut() {
            for (column, schema) in &self.schema.tables[name.as_str()].columns {
                let weak = |base: &ovsdb::wire::BaseType| {
                    base.ref_table.is_some() && base.ref_type == RefType::Weak
                };
                if weak(&schema.ty.key) {
                    for row in rows.values_mut() {
                        let gone: Vec<_> = row.uuids(column).filter(|u| !all.contains(u)).collect();
                        if !gone.is_empty() {
                            let kept: Vec<_> =
                                row.uuids(column).filter(|u| all.contains(u)).collect();
                            row.insert(column.clone(), Datum::set(kept));
                        }
                    }
                }
            }
            let schema = &self.schema.tables[name.as_str()];
            for row in rows.values_mut() {
                *row = schema.normalize_row(row.clone());
            }
        }
    }

    fn references(&self, tables: &Tables, mut each: impl FnMut(&str, Uuid, Uuid, bool)) {
        for (name, rows) in tables {
            for (column, schema) in &self.schema.tables[name.as_str()].columns {
                if schema.ty.key.ref_table.is_none() {
                    continue;
                }
                let strong = schema.ty.key.ref_type == RefType::Strong;
                for (uuid, row) in rows {
                    for target in row.uuids(column) {
                        each(name, *uuid, target, strong);
                    }
                }
            }
        }
    }

    fn check(&self, tables: &Tables) -> Result<(), String> {
        let all: BTreeSet<Uuid> = tables.values().flat_map(|r| r.keys().copied()).collect();
        let mut dangling = None;
        self.references(tables, |table, row, target, strong| {
            if strong && !all.contains(&target) {
                dangling = Some(format!("{table} {row} refers to {target}"));
            }
        });
        if let Some(error) = dangling {
            return Err(format!("referential integrity violation: {error}"));
        }
        for (name, schema) in &self.schema.tables {
            for index in &schema.indexes {
                let mut seen = BTreeSet::new();
                for row in tables[name.as_str()].values() {
                    let values: Vec<_> = index.iter().map(|c| row.get(c).cloned()).collect();
                    if !seen.insert(format!("{values:?}")) {
                        return Err(format!("constraint violation: {name} {values:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn count(datum: &Datum, min: u32, max: Option<u32>) -> Result<(), String> {
    let n = u32::try_from(datum.len()).unwrap();
    if n < min || max.is_some_and(|max| n > max) {
        return Err(format!("constraint violation: {n} elements"));
    }
    Ok(())
}

fn target(conditions: &[Condition]) -> Uuid {
    match conditions {
        [Condition::Clause { column, value, .. }] if column == "_uuid" => {
            value.single().and_then(Atom::as_uuid).unwrap()
        }
        other => panic!("not modelled: {other:?}"),
    }
}

fn selected<'a>(
    tables: &'a mut Tables,
    table: &str,
    conditions: &[Condition],
) -> impl Iterator<Item = &'a mut Row> {
    let uuid = target(conditions);
    tables.get_mut(table).unwrap().get_mut(&uuid).into_iter()
}

fn mutate(is_map: bool, old: &Datum, mutator: Mutator, value: &Datum) -> Datum {
    if is_map {
        let mut map: BTreeMap<Atom, Atom> = old.pairs().iter().cloned().collect();
        match mutator {
            Mutator::Insert => {
                for (k, v) in value.pairs() {
                    map.entry(k.clone()).or_insert_with(|| v.clone());
                }
            }
            Mutator::Delete => {
                map.retain(|k, v| {
                    !value.atoms().contains(k)
                        && !value.pairs().iter().any(|(dk, dv)| dk == k && dv == v)
                });
            }
            other => panic!("not modelled: {other:?}"),
        }
        return Datum::map(map);
    }
    let mut set: BTreeSet<Atom> = old.atoms().iter().cloned().collect();
    match mutator {
        Mutator::Insert => set.extend(value.atoms().iter().cloned()),
        Mutator::Delete => set.retain(|a| !value.atoms().contains(a)),
        other => panic!("not modelled: {other:?}"),
    }
    Datum::set(set)
}

fn deltas(old: &Tables, new: &Tables) -> Vec<RowDelta> {
    let mut deltas = Vec::new();
    for (table, rows) in new {
        let before = &old[table];
        let uuids: BTreeSet<_> = rows.keys().chain(before.keys()).collect();
        for uuid in uuids {
            let (old, new) = (before.get(uuid), rows.get(uuid));
            if old != new {
                deltas.push(RowDelta {
                    table: table.as_str().into(),
                    uuid: *uuid,
                    old: old.cloned().map(Arc::new),
                    new: new.cloned().map(Arc::new),
                });
            }
        }
    }
    deltas
}
