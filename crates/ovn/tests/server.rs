//! The histories of `converge`, on a real ovsdb-server by way of the real client, in step with the database in memory:
//! both have to answer alike and to hold the same rows after each transaction.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "for tests alone"
)]

mod support;

use std::collections::BTreeMap;

use ovn::Database;
use ovsdb::client::{Client, ClientConfig, Events, Handle, Remote, ReplicaEvent, TableSelection};
use ovsdb::wire::{Condition, Operation, Row};
use ovsdb::{Replica, RowDelta};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use support::Memory;
use support::history::{Backend, check, events};
use testkit::ovn::{Schema, Server};
use tokio::runtime::Runtime;
use uuid::Uuid;

struct Real {
    runtime: Runtime,
    handle: Handle,
    events: Events,
    replica: Replica,
    memory: Memory,
    release: &'static str,
    _server: Server,
}

impl Real {
    fn start(release: &'static str) -> Self {
        let path = format!(
            "{}/schemas/{release}/ovn-nb.ovsschema",
            env!("CARGO_MANIFEST_DIR")
        );
        let server = Server::start(Schema::File {
            name: Database::Northbound.name().to_owned(),
            path: path.into(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let remotes = Remote::parse_list(&server.remote()).unwrap();
        let mut config = ClientConfig::new(remotes, Database::Northbound.name());
        for table in Database::Northbound.tables() {
            config = config.monitor(table.name(), TableSelection::all());
        }
        let (handle, mut events) = runtime.block_on(async { Client::connect(config) }).unwrap();
        runtime.block_on(async {
            while !matches!(events.recv().await, Some(ReplicaEvent::Synced)) {}
        });
        Self {
            runtime,
            handle,
            events,
            replica: Replica::new(),
            memory: Memory::northbound(release),
            release,
            _server: server,
        }
    }

    /// Deletes everything, on both sides.
    fn clear(&mut self) {
        let tables = Database::Northbound.tables().filter(|t| t.is_root());
        let ops: Vec<_> = tables
            .map(|table| Operation::delete(table.name(), Condition::Always(true)))
            .collect();
        self.runtime.block_on(self.handle.transact(ops)).unwrap();
        self.drain();
        self.memory = Memory::northbound(self.release);
        self.compare(&[]);
    }

    fn drain(&mut self) -> Vec<RowDelta> {
        let mut deltas = Vec::new();
        while let Some(event) = self.events.try_recv() {
            if let ReplicaEvent::Update(update) = event {
                for delta in &update {
                    self.replica.apply(delta);
                }
                deltas.extend(update);
            }
        }
        deltas
    }

    fn compare(&self, ops: &[Operation]) {
        let known = |table: &str| Database::Northbound.table(table).is_some();
        let memory: BTreeMap<(&str, Uuid), &Row> = self
            .memory
            .all()
            .filter(|(table, ..)| known(table))
            .map(|(table, uuid, row)| ((table, uuid), row))
            .collect();
        let real: BTreeMap<(&str, Uuid), &Row> = self
            .replica
            .tables()
            .flat_map(|table| {
                let rows = self.replica.rows(table);
                rows.map(move |(uuid, row)| ((table.as_str(), uuid), &**row))
            })
            .collect();
        let differ: Vec<_> = real
            .keys()
            .chain(memory.keys())
            .filter(|key| real.get(key) != memory.get(key))
            .map(|key| format!("{key:?}: {:?}, not {:?}", real.get(key), memory.get(key)))
            .collect();
        assert!(differ.is_empty(), "after {ops:?} the server has {differ:?}");
    }
}

impl Backend for Real {
    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn transact(&mut self, ops: &[Operation]) -> Result<Vec<RowDelta>, String> {
        let modelled = self.memory.run(ops);
        let real = self.runtime.block_on(self.handle.transact(ops.to_vec()));
        assert_eq!(
            real.is_ok(),
            modelled.is_ok(),
            "{ops:?}: the server says {real:?}, the model {modelled:?}"
        );
        let deltas = self.drain();
        self.compare(ops);
        modelled.map(|_| deltas)
    }
}

fn histories(release: &'static str, count: usize) {
    let mut runner = TestRunner::deterministic();
    let mut real = Real::start(release);
    for _ in 0..count {
        let history = events().new_tree(&mut runner).unwrap().current();
        real = check(real, &history);
        real.clear();
    }
}

#[test]
fn plans_work_on_a_real_server() {
    histories("25.03", 60);
}

#[test]
fn plans_work_on_a_real_server_with_an_older_schema() {
    histories("23.03", 60);
}
