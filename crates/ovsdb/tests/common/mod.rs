//! What the tests of the client share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test program uses a part of it; a test may fail"
)]

use std::time::Duration;

use ovsdb::client::{
    Client, ClientConfig, Connected, Events, Handle, Remote, ReplicaEvent, TableSelection,
};
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use ovsdb::{Replica, TransactResult};
use tokio::time::timeout;
use uuid::Uuid;

/// Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const NAMESPACE: Uuid = Uuid::from_u128(0x1dc0_ffee);

/// A UUID for a name.
pub fn id(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

pub fn northbound(remotes: &str) -> ClientConfig {
    let mut config = ClientConfig::new(
        Remote::parse_list(remotes).expect("remotes"),
        "OVN_Northbound",
    )
    .monitor("Logical_Switch", TableSelection::all())
    .monitor(
        "Logical_Switch_Port",
        TableSelection::columns(["name", "addresses", "external_ids", "tag", "enabled"]),
    );
    config.inactivity = Duration::from_secs(1);
    config
}

/// Inserts a switch whose UUID follows from its name.
pub fn switch(name: &str) -> Operation {
    Operation::insert("Logical_Switch", id(name), Row::new().with("name", name))
}

/// Inserts a port and puts it on a switch.
pub fn port(switch: &str, name: &str) -> [Operation; 2] {
    let row = Row::new().with("name", name).with(
        "external_ids",
        Datum::map([("vendor", "kube-ovn"), ("pod", name)]),
    );
    [
        Operation::insert("Logical_Switch_Port", id(name), row),
        Operation::mutate(
            "Logical_Switch",
            Condition::row(id(switch)),
            vec![Mutation::insert("ports", id(name))],
        ),
    ]
}

/// A consumer of events that believes nothing: each change must fit what it has been told before.
pub struct Follower {
    pub handle: Handle,
    pub events: Events,
    pub replica: Replica,
    /// Of the present connection.
    pub connected: Option<Connected>,
    pub synced: bool,
    pub connections: usize,
    pub updates: usize,
    pub deltas: usize,
}

impl Follower {
    pub fn start(config: ClientConfig) -> Self {
        let (handle, events) = Client::connect(config).expect("configuration");
        Self {
            handle,
            events,
            replica: Replica::new(),
            connected: None,
            synced: false,
            connections: 0,
            updates: 0,
            deltas: 0,
        }
    }

    pub async fn live(config: ClientConfig) -> Self {
        let mut follower = Self::start(config);
        follower.until(|f| f.synced).await;
        follower
    }

    pub fn take(&mut self, event: &ReplicaEvent) {
        match event {
            ReplicaEvent::Connected(connected) => {
                assert!(self.connected.is_none(), "connected twice");
                self.connected = Some(connected.clone());
                self.connections += 1;
            }
            ReplicaEvent::Update(deltas) => {
                assert!(self.connected.is_some(), "an update without a connection");
                assert!(!deltas.is_empty(), "an update without changes");
                self.updates += 1;
                for delta in deltas {
                    self.deltas += 1;
                    assert_eq!(
                        self.replica.row(&delta.table, delta.uuid),
                        delta.old.as_ref(),
                        "a change that does not follow from what was told before"
                    );
                    assert_ne!(delta.old, delta.new, "a change that is none");
                    self.replica.apply(delta);
                }
            }
            ReplicaEvent::Synced => {
                assert!(self.connected.is_some() && !self.synced);
                self.synced = true;
            }
            ReplicaEvent::Disconnected(_) => {
                assert!(self.connected.is_some(), "disconnected twice");
                self.connected = None;
                self.synced = false;
            }
            ReplicaEvent::Outcome { .. } => {}
        }
    }

    /// The next event, applied.
    pub async fn next(&mut self) -> ReplicaEvent {
        let event = timeout(PATIENCE, self.events.recv())
            .await
            .unwrap_or_else(|_| panic!("no event; {}", self.handle.status()))
            .expect("the client stopped");
        self.take(&event);
        event
    }

    /// Takes events until the condition holds.
    pub async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            self.next().await;
        }
    }

    /// Takes events until one is as asked for, and returns it.
    pub async fn until_event(&mut self, wanted: impl Fn(&ReplicaEvent) -> bool) -> ReplicaEvent {
        loop {
            let event = self.next().await;
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Sends a transaction through the event stream and takes events up to its outcome.
    pub async fn commit(&mut self, token: u64, operations: Vec<Operation>) -> TransactResult {
        self.handle.submit(token, operations).await?;
        let outcome = self
            .until_event(|e| matches!(e, ReplicaEvent::Outcome { token: t, .. } if *t == token))
            .await;
        match outcome {
            ReplicaEvent::Outcome { result, .. } => result,
            _ => unreachable!(),
        }
    }

    pub fn drain(&mut self) {
        while let Some(event) = self.events.try_recv() {
            self.take(&event);
        }
    }

    pub fn names(&self, table: &str) -> Vec<String> {
        let mut names: Vec<_> = self
            .replica
            .rows(table)
            .map(|(_, row)| row.str("name").to_owned())
            .collect();
        names.sort();
        names
    }
}
