//! A database for tests: enough of RFC 7047 for the planner's transactions, with the schema's references.
//!
//! Strong references keep rows of non-root tables alive and must not dangle; weak ones vanish with their target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use ::ovsdb::RowDelta;
use ::ovsdb::wire::{
    Atom, Condition, DatabaseSchema, Datum, Function, Mutation, Mutator, Operation, RefType, Row,
    Until,
};
use engine::CommitOutcome;
use smol_str::SmolStr;
use uuid::Uuid;

pub type Rows = BTreeMap<(SmolStr, Uuid), Row>;

#[derive(Debug)]
pub struct Database {
    pub schema: Arc<DatabaseSchema>,
    rows: Rows,
    named: u128,
    /// Committed transactions.
    pub commits: usize,
    /// Operations that say this are refused.
    pub refuses: Option<&'static str>,
    /// With these words.
    pub refusal: &'static str,
    /// Transactions that were refused for this reason.
    pub refusals: usize,
}

impl Database {
    pub fn northbound() -> Self {
        static SCHEMA: OnceLock<Arc<DatabaseSchema>> = OnceLock::new();
        Self::new(
            SCHEMA
                .get_or_init(|| read(include_str!("../../../ovn/schemas/23.03/ovn-nb.ovsschema"))),
        )
    }

    pub fn southbound() -> Self {
        static SCHEMA: OnceLock<Arc<DatabaseSchema>> = OnceLock::new();
        Self::new(
            SCHEMA
                .get_or_init(|| read(include_str!("../../../ovn/schemas/23.03/ovn-sb.ovsschema"))),
        )
    }

    fn new(schema: &Arc<DatabaseSchema>) -> Self {
        Self {
            schema: Arc::clone(schema),
            rows: Rows::new(),
            named: 0,
            commits: 0,
            refuses: None,
            refusal: "constraint violation: no",
            refusals: 0,
        }
    }

    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Row)> {
        self.rows
            .iter()
            .filter(move |((t, _), _)| t == table)
            .map(|((_, uuid), row)| (*uuid, row))
    }

    pub fn all(&self) -> &Rows {
        &self.rows
    }

    /// The whole contents, as a first update.
    pub fn snapshot(&self) -> Vec<RowDelta> {
        deltas(&Rows::new(), &self.rows)
    }

    /// The database is put back to an older state; what changed.
    pub fn put_back(&mut self, rows: Rows) -> Vec<RowDelta> {
        let before = std::mem::replace(&mut self.rows, rows);
        deltas(&before, &self.rows)
    }

    /// Commits or refuses a transaction; the changes of a committed one.
    pub fn transact(&mut self, ops: &[Operation]) -> (CommitOutcome, Vec<RowDelta>) {
        let before = self.rows.clone();
        let refused = |op: &Operation| {
            let word = self.refuses;
            word.is_some_and(|word| format!("{op:?}").contains(word))
        };
        if let Some(index) = ops.iter().position(refused) {
            self.refusals += 1;
            let outcome = CommitOutcome::Refused {
                op: Some(index),
                error: self.refusal.into(),
            };
            return (outcome, Vec::new());
        }
        for (index, op) in ops.iter().enumerate() {
            match self.execute(op) {
                Ok(()) => {}
                Err(Fault::Wait) => {
                    self.rows = before;
                    return (CommitOutcome::WaitFailed { op: index }, Vec::new());
                }
                Err(Fault::Error(error)) => {
                    self.rows = before;
                    return (
                        CommitOutcome::Refused {
                            op: Some(index),
                            error,
                        },
                        Vec::new(),
                    );
                }
            }
        }
        self.collect();
        if let Err(error) = self.check() {
            self.rows = before;
            return (CommitOutcome::Refused { op: None, error }, Vec::new());
        }
        self.commits += 1;
        (CommitOutcome::Committed, deltas(&before, &self.rows))
    }

    fn matching(&self, table: &str, conditions: &[Condition]) -> Vec<Uuid> {
        self.rows(table)
            .filter(|(uuid, row)| conditions.iter().all(|c| holds(c, *uuid, row)))
            .map(|(u, _)| u)
            .collect()
    }

    fn execute(&mut self, op: &Operation) -> Result<(), Fault> {
        match op {
            Operation::Insert {
                table, row, uuid, ..
            } => {
                let uuid = uuid.unwrap_or_else(|| {
                    self.named += 1;
                    Uuid::from_u128(self.named)
                });
                let row = self.normal(table, row.clone());
                if self.rows.insert((table.clone(), uuid), row).is_some() {
                    return Err(Fault::Error(format!("duplicate uuid {uuid}")));
                }
            }
            Operation::Update {
                table,
                conditions,
                row,
            } => {
                for uuid in self.matching(table, conditions) {
                    let mut held = self.rows[&(table.clone(), uuid)].clone();
                    for (column, value) in row.iter() {
                        held.insert(column.clone(), value.clone());
                    }
                    let held = self.normal(table, held);
                    self.rows.insert((table.clone(), uuid), held);
                }
            }
            Operation::Mutate {
                table,
                conditions,
                mutations,
            } => {
                for uuid in self.matching(table, conditions) {
                    let mut held = self.rows[&(table.clone(), uuid)].clone();
                    for mutation in mutations {
                        let value = mutate(&self.datum(table, &held, &mutation.column), mutation);
                        held.insert(mutation.column.clone(), value);
                    }
                    let held = self.normal(table, held);
                    self.rows.insert((table.clone(), uuid), held);
                }
            }
            Operation::Delete { table, conditions } => {
                for uuid in self.matching(table, conditions) {
                    self.rows.remove(&(table.clone(), uuid));
                }
            }
            Operation::Wait {
                table,
                conditions,
                columns,
                until,
                rows,
                ..
            } => {
                let columns = columns.clone().unwrap_or_default();
                let found: Vec<Row> = self
                    .matching(table, conditions)
                    .into_iter()
                    .map(|uuid| {
                        let row = &self.rows[&(table.clone(), uuid)];
                        columns
                            .iter()
                            .map(|c| (c.clone(), self.datum(table, row, c)))
                            .collect()
                    })
                    .collect();
                let equal = found.len() == rows.len() && found.iter().all(|row| rows.contains(row));
                if equal != (*until == Until::Equal) {
                    return Err(Fault::Wait);
                }
            }
            Operation::Comment { .. } => {}
            other => panic!("the test database has no {}", other.name()),
        }
        Ok(())
    }

    fn datum(&self, table: &str, row: &Row, column: &str) -> Datum {
        row.get(column)
            .cloned()
            .unwrap_or_else(|| self.schema.tables[table].columns[column].ty.default_datum())
    }

    fn normal(&self, table: &str, row: Row) -> Row {
        self.schema.tables[table].normalize_row(row)
    }

    /// References of a row: the table and row they lead to, and whether they are strong.
    fn references(&self, table: &str, row: &Row) -> Vec<(SmolStr, Uuid, bool)> {
        let mut references = Vec::new();
        for (column, value) in row.iter() {
            let Some(ty) = self.schema.tables[table].columns.get(column).map(|c| &c.ty) else {
                continue;
            };
            let (keys, values): (Vec<&Atom>, Vec<&Atom>) = if ty.is_map() {
                (
                    value.pairs().iter().map(|(k, _)| k).collect(),
                    value.pairs().iter().map(|(_, v)| v).collect(),
                )
            } else {
                (value.atoms().iter().collect(), Vec::new())
            };
            for (base, atoms) in [(Some(&ty.key), keys), (ty.value.as_ref(), values)] {
                let Some((base, target)) = base.and_then(|b| Some((b, b.ref_table.clone()?)))
                else {
                    continue;
                };
                let strong = base.ref_type == RefType::Strong;
                references.extend(
                    atoms
                        .iter()
                        .filter_map(|a| Some((target.clone(), a.as_uuid()?, strong))),
                );
            }
        }
        references
    }

    /// Removes rows of non-root tables that nothing refers to, and weak references to what is gone.
    fn collect(&mut self) {
        loop {
            let held: BTreeSet<(SmolStr, Uuid)> = self
                .rows
                .iter()
                .flat_map(|((table, _), row)| self.references(table, row))
                .filter(|(_, _, strong)| *strong)
                .map(|(table, uuid, _)| (table, uuid))
                .collect();
            let before = self.rows.len();
            let schema = Arc::clone(&self.schema);
            self.rows
                .retain(|key, _| schema.tables[&key.0].is_root || held.contains(key));
            if self.rows.len() == before {
                break;
            }
        }
        let gone: Vec<((SmolStr, Uuid), Uuid)> = self
            .rows
            .iter()
            .flat_map(|(key, row)| {
                self.references(&key.0, row)
                    .into_iter()
                    .filter_map(|(table, uuid, strong)| {
                        let dangles = !strong && !self.rows.contains_key(&(table, uuid));
                        dangles.then(|| (key.clone(), uuid))
                    })
            })
            .collect();
        for (key, uuid) in gone {
            let mut row = self.rows[&key].clone();
            row.retain(|_, value| {
                if value.atoms().contains(&Atom::Uuid(uuid)) {
                    *value = Datum::set(
                        value
                            .atoms()
                            .iter()
                            .filter(|a| **a != Atom::Uuid(uuid))
                            .cloned(),
                    );
                }
                true
            });
            let row = self.normal(&key.0, row);
            self.rows.insert(key, row);
        }
    }

    fn check(&self) -> Result<(), String> {
        for ((table, uuid), row) in &self.rows {
            for (target, to, strong) in self.references(table, row) {
                if strong && !self.rows.contains_key(&(target.clone(), to)) {
                    return Err(format!(
                        "referential integrity violation: {table} {uuid} refers to {target} {to}"
                    ));
                }
            }
        }
        for (name, table) in &self.schema.tables {
            for index in &table.indexes {
                let mut seen = BTreeSet::new();
                for (_, row) in self.rows(name) {
                    let key: Vec<String> =
                        index.iter().map(|c| format!("{:?}", row.get(c))).collect();
                    if !seen.insert(key) {
                        return Err(format!(
                            "constraint violation: duplicate {index:?} in {name}"
                        ));
                    }
                }
            }
            let count = self.rows(name).count() as u64;
            if table.max_rows.is_some_and(|max| count > max) {
                return Err(format!("constraint violation: too many rows in {name}"));
            }
        }
        Ok(())
    }
}

fn read(schema: &str) -> Arc<DatabaseSchema> {
    Arc::new(serde_json::from_str(schema).unwrap())
}

enum Fault {
    Wait,
    Error(String),
}

fn holds(condition: &Condition, uuid: Uuid, row: &Row) -> bool {
    let (column, function, value) = match condition {
        Condition::Always(always) => return *always,
        Condition::Clause {
            column,
            function,
            value,
        } => (column, function, value),
    };
    if column == "_uuid" {
        return value.single().and_then(Atom::as_uuid) == Some(uuid);
    }
    let held = row.get(column);
    match function {
        Function::Equal => held.is_some_and(|h| h == value),
        Function::Includes => {
            value
                .atoms()
                .iter()
                .all(|a| held.is_some_and(|h| h.atoms().contains(a)))
                && value
                    .pairs()
                    .iter()
                    .all(|p| held.is_some_and(|h| h.pairs().contains(p)))
        }
        other => panic!("the test database has no condition {other:?}"),
    }
}

fn mutate(held: &Datum, mutation: &Mutation) -> Datum {
    let mut atoms: BTreeSet<Atom> = held.atoms().iter().cloned().collect();
    let mut pairs: BTreeMap<Atom, Atom> = held.pairs().iter().cloned().collect();
    let value = &mutation.value;
    match mutation.mutator {
        Mutator::Insert => {
            atoms.extend(value.atoms().iter().cloned());
            for (key, value) in value.pairs() {
                pairs.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Mutator::Delete => {
            for atom in value.atoms() {
                atoms.remove(atom);
                pairs.remove(atom);
            }
            for (key, value) in value.pairs() {
                if pairs.get(key) == Some(value) {
                    pairs.remove(key);
                }
            }
        }
        other => panic!("the test database has no mutator {other:?}"),
    }
    if held.is_map() {
        Datum::map(pairs)
    } else {
        Datum::set(atoms)
    }
}

fn deltas(before: &Rows, after: &Rows) -> Vec<RowDelta> {
    let keys: BTreeSet<&(SmolStr, Uuid)> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| RowDelta {
            table: key.0.clone(),
            uuid: key.1,
            old: before.get(key).cloned().map(Arc::new),
            new: after.get(key).cloned().map(Arc::new),
        })
        .collect()
}
