//! What the tests of the client share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test program uses a part of it; a test may fail"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ovsdb::client::{
    Client, ClientConfig, Connected, Events, Handle, Remote, ReplicaEvent, Status, TableSelection,
};
use ovsdb::wire::{Condition, Datum, Mutation, Mutator, Operation, Row};
use ovsdb::{Replica, TransactError, TransactResult};
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

    /// Waits until the client says what is wrong.
    pub async fn problem(&self) -> Status {
        let mut watch = self.handle.watch();
        let status = timeout(PATIENCE, watch.wait_for(|s| s.problem.is_some())).await;
        status.expect("a problem").expect("a client").clone()
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

/// Makes one port per step, the way the controller does it: rows have UUIDs of our choice, and after an unknown outcome
/// the replica says whether to try again. `nb_cfg` counts the steps, so that a transaction that was committed twice
/// would show.
pub struct Writer {
    pub follower: Follower,
    pub step: u64,
    pub unknown: usize,
    pub unsent: usize,
    pub longest: Duration,
}

impl Writer {
    pub async fn start(config: ClientConfig) -> Self {
        let mut follower = Follower::live(config).await;
        let global = Operation::insert("NB_Global", id("global"), Row::new().with("nb_cfg", 0_i64));
        follower
            .commit(0, vec![switch("sw"), global])
            .await
            .unwrap();
        Self {
            follower,
            step: 0,
            unknown: 0,
            unsent: 0,
            longest: Duration::ZERO,
        }
    }

    fn name(step: u64) -> String {
        format!("port-{step}")
    }

    fn operations(step: u64) -> Vec<Operation> {
        let mut operations: Vec<_> = port("sw", &Self::name(step)).into();
        operations.push(Operation::mutate(
            "NB_Global",
            Condition::Always(true),
            vec![Mutation::new("nb_cfg", Mutator::Add, 1_i64)],
        ));
        operations
    }

    pub async fn write(&mut self) {
        self.step += 1;
        let row = id(&Self::name(self.step));
        let start = Instant::now();
        loop {
            match self
                .follower
                .commit(self.step, Self::operations(self.step))
                .await
            {
                Ok(_) => {
                    assert!(
                        self.follower
                            .replica
                            .row("Logical_Switch_Port", row)
                            .is_some(),
                        "committed, and not in the replica"
                    );
                    break;
                }
                Err(TransactError::NotConnected) => {
                    self.unsent += 1;
                    self.follower.until(|f| f.synced).await;
                }
                Err(TransactError::Unknown(_)) => {
                    self.unknown += 1;
                    self.follower.drain();
                    self.follower.until(|f| f.synced).await;
                    if self
                        .follower
                        .replica
                        .row("Logical_Switch_Port", row)
                        .is_some()
                    {
                        break;
                    }
                }
                Err(TransactError::Refused { error, .. })
                    if error.error == "duplicate uuid" || error.error == "constraint violation" =>
                {
                    // An unknown one that was committed late, after we looked. The replica has it by now.
                    assert!(
                        self.follower
                            .replica
                            .row("Logical_Switch_Port", row)
                            .is_some()
                    );
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.longest = self.longest.max(start.elapsed());
    }

    /// Everything is there, once; `remotes` leads to the servers themselves.
    pub async fn check(&mut self, remotes: &str) {
        let expected: BTreeSet<_> = (1..=self.step).map(Self::name).collect();
        let names = self.follower.names("Logical_Switch_Port");
        assert_eq!(names.len() as u64, self.step);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected);
        let switch = self.follower.replica.row("Logical_Switch", id("sw"));
        assert_eq!(switch.unwrap().atoms("ports").len() as u64, self.step);

        let config = northbound(remotes).monitor("NB_Global", TableSelection::columns(["nb_cfg"]));
        let fresh = Follower::live(config).await;
        for table in ["Logical_Switch", "Logical_Switch_Port"] {
            assert!(
                self.follower
                    .replica
                    .rows(table)
                    .eq(fresh.replica.rows(table))
            );
        }
        let (_, global) = fresh.replica.rows("NB_Global").next().unwrap();
        let count = u64::try_from(global.int("nb_cfg")).unwrap();
        assert_eq!(count, self.step, "doubled or lost");
    }
}
