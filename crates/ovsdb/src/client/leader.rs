//! Whether a server is fit for use, by the `Database` table of its `_Server` database (ovsdb-server(5)).

use serde_json::value::RawValue;
use smol_str::SmolStr;
use uuid::Uuid;

use crate::wire::{MonitorRequest, Row, TableUpdates};
use crate::{Mirror, Replica};

pub(super) const DATABASE: &str = "_Server";
const TABLE: &str = "Database";

/// How far a cluster's log had been seen: a client must not go back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    cluster: Uuid,
    index: i64,
}

/// The server's own account of its databases, kept current by a monitor.
#[derive(Debug, Default)]
pub(super) struct Account {
    mirror: Mirror,
    /// Open vSwitch before 2.9 has no such account: there were no clusters either.
    absent: bool,
}

impl Account {
    /// What to monitor. The log's index changes with each transaction, so it is asked for only where it matters: a
    /// leader is never behind.
    pub(super) fn request(leader_only: bool) -> (&'static str, MonitorRequest) {
        let mut columns: Vec<SmolStr> = ["name", "model", "connected", "leader", "cid"]
            .map(SmolStr::new_static)
            .into();
        if !leader_only {
            columns.push(SmolStr::new_static("index"));
        }
        let request = MonitorRequest {
            columns,
            conditions: Vec::new(),
        };
        (TABLE, request)
    }

    pub(super) fn apply(&mut self, updates: TableUpdates) {
        self.mirror.apply(updates);
    }

    pub(super) fn begin(
        &mut self,
        reply: Result<&RawValue, &RawValue>,
    ) -> Result<(), serde_json::Error> {
        match reply {
            Ok(updates) => self.apply(serde_json::from_str(updates.get())?),
            Err(_) => self.absent = true,
        }
        Ok(())
    }

    /// `Err` says why the server is of no use.
    pub(super) fn check(
        &self,
        database: &str,
        leader_only: bool,
        seen: Option<Seen>,
    ) -> Result<(), String> {
        if self.absent {
            return Ok(());
        }
        let row = find(self.mirror.replica(), database)
            .ok_or_else(|| format!("the server has no database {database}"))?;
        let model = row.str("model");
        if model != "clustered" && model != "relay" {
            return Ok(());
        }
        if !row.bool("connected") {
            return Err("the server is not connected to its cluster".to_owned());
        }
        if leader_only && !row.bool("leader") {
            return Err("the server is not the leader of its cluster".to_owned());
        }
        match (seen, seen_in(row)) {
            (Some(before), Some(now))
                if before.cluster == now.cluster && now.index < before.index =>
            {
                Err(format!(
                    "the server is behind: its log ends at {}, we have seen {}",
                    now.index, before.index
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn seen(&self, database: &str) -> Option<Seen> {
        find(self.mirror.replica(), database).and_then(seen_in)
    }
}

fn find<'a>(replica: &'a Replica, database: &str) -> Option<&'a Row> {
    replica
        .rows(TABLE)
        .map(|(_, row)| &**row)
        .find(|row| row.str("name") == database)
}

fn seen_in(row: &Row) -> Option<Seen> {
    Some(Seen {
        cluster: row.uuid("cid")?,
        index: row.get("index")?.single()?.as_int()?,
    })
}
