//! Rows as a client holds them, and their changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use thiserror::Error;
use uuid::Uuid;

use crate::wire::{Members, Row, RowUpdate, RowUpdate2, TableSchema, TableUpdates, TableUpdates2};

/// A change of one row. At least one side is there, and the sides differ.
///
/// Rows are in the form that [`Row`] describes (no defaults), and are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDelta {
    pub table: SmolStr,
    pub uuid: Uuid,
    /// `None`: the row is new.
    pub old: Option<Arc<Row>>,
    /// `None`: the row is gone.
    pub new: Option<Arc<Row>>,
}

/// Rows by table and UUID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    tables: BTreeMap<SmolStr, BTreeMap<Uuid, Arc<Row>>>,
}

impl Replica {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Arc<Row>> {
        self.tables.get(table)?.get(&uuid)
    }

    /// Rows of a table in the order of their UUIDs.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Arc<Row>)> {
        self.tables
            .get(table)
            .into_iter()
            .flat_map(|rows| rows.iter().map(|(uuid, row)| (*uuid, row)))
    }

    /// The number of rows of a table.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, BTreeMap::len)
    }

    /// Tables that have rows.
    pub fn tables(&self) -> impl Iterator<Item = &SmolStr> {
        self.tables.keys()
    }

    pub fn apply(&mut self, delta: &RowDelta) {
        match &delta.new {
            Some(row) => {
                if let Some(rows) = self.tables.get_mut(&delta.table) {
                    rows.insert(delta.uuid, Arc::clone(row));
                } else {
                    self.tables.insert(
                        delta.table.clone(),
                        BTreeMap::from([(delta.uuid, Arc::clone(row))]),
                    );
                }
            }
            None => {
                if let Some(rows) = self.tables.get_mut(&delta.table) {
                    rows.remove(&delta.uuid);
                    if rows.is_empty() {
                        self.tables.remove(&delta.table);
                    }
                }
            }
        }
    }
}

/// A server's update does not fit the replica: something was missed. Fetch everything again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("an update modifies row {uuid} of table {table}, which the replica does not have")]
pub struct OutOfStep {
    pub table: SmolStr,
    pub uuid: Uuid,
}

/// A replica that follows a server's updates.
///
/// An update is worked out as a whole before any of it is applied: after an error the replica is what it was, and what
/// consumers were told still adds up.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    replica: Replica,
    schema: BTreeMap<SmolStr, TableSchema>,
}

impl Mirror {
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The tables of the server that is mirrored from now on. Rows stay until [`Mirror::replace2`] compares them.
    pub fn set_schema(&mut self, tables: BTreeMap<SmolStr, TableSchema>) {
        self.schema = tables;
    }

    fn normalize(&self, table: &str, row: Row) -> Row {
        match self.schema.get(table) {
            Some(schema) => schema.normalize_row(row),
            None => row,
        }
    }

    /// Applies an `update2` or `update3`, or what `monitor_cond_since` found since the last connection.
    pub fn apply2(&mut self, updates: TableUpdates2) -> Result<Vec<RowDelta>, OutOfStep> {
        let mut deltas = Vec::new();
        for (table, rows) in updates {
            for (uuid, update) in rows {
                let old = self.replica.row(&table, uuid).cloned();
                let new = match update {
                    RowUpdate2::Initial(row) | RowUpdate2::Insert(row) => {
                        Some(self.normalize(&table, row))
                    }
                    RowUpdate2::Modify(change) => match (&old, self.schema.get(&table)) {
                        (Some(old), Some(schema)) => {
                            Some(schema.apply_modify(Row::clone(old), change))
                        }
                        _ => return Err(OutOfStep { table, uuid }),
                    },
                    RowUpdate2::Delete => None,
                };
                push_delta(&mut deltas, &table, uuid, old, new);
            }
        }
        Ok(self.commit(deltas))
    }

    /// Applies an `update` of the original protocol.
    pub fn apply(&mut self, updates: TableUpdates) -> Vec<RowDelta> {
        let mut deltas = Vec::new();
        for (table, rows) in updates {
            for (uuid, RowUpdate { new, .. }) in rows {
                let old = self.replica.row(&table, uuid).cloned();
                let new = new.map(|row| self.normalize(&table, row));
                push_delta(&mut deltas, &table, uuid, old, new);
            }
        }
        self.commit(deltas)
    }

    /// Takes over a dump of all monitored rows: returns what is different from the rows that were there.
    pub fn replace2(&mut self, dump: TableUpdates2) -> Vec<RowDelta> {
        let rows = |update| match update {
            RowUpdate2::Initial(row) | RowUpdate2::Insert(row) | RowUpdate2::Modify(row) => {
                Some(row)
            }
            RowUpdate2::Delete => None,
        };
        self.replace_with(dump, rows)
    }

    /// The same for the reply to a plain `monitor`.
    pub fn replace(&mut self, dump: TableUpdates) -> Vec<RowDelta> {
        self.replace_with(dump, |update| update.new)
    }

    fn replace_with<U>(
        &mut self,
        dump: Members<SmolStr, Members<Uuid, U>>,
        row: impl Fn(U) -> Option<Row>,
    ) -> Vec<RowDelta> {
        let mut deltas = Vec::new();
        let mut vanished = self.replica.tables.clone();
        for (table, rows) in dump {
            let mut before = vanished.remove(&table).unwrap_or_default();
            for (uuid, update) in rows {
                let old = before.remove(&uuid);
                let new = row(update).map(|row| self.normalize(&table, row));
                push_delta(&mut deltas, &table, uuid, old, new);
            }
            vanished.insert(table, before);
        }
        for (table, rows) in vanished {
            for (uuid, old) in rows {
                push_delta(&mut deltas, &table, uuid, Some(old), None);
            }
        }
        self.commit(deltas)
    }

    fn commit(&mut self, deltas: Vec<RowDelta>) -> Vec<RowDelta> {
        for delta in &deltas {
            self.replica.apply(delta);
        }
        deltas
    }
}

fn push_delta(
    deltas: &mut Vec<RowDelta>,
    table: &SmolStr,
    uuid: Uuid,
    old: Option<Arc<Row>>,
    new: Option<Row>,
) {
    if old.as_deref() != new.as_ref() {
        deltas.push(RowDelta {
            table: table.clone(),
            uuid,
            old,
            new: new.map(Arc::new),
        });
    }
}
