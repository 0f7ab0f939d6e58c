//! The engine and the OVSDB client against a real ovsdb-server: epochs, fences, restarts of either side.
//!
//! The API server is the one in memory of the engine's own tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

#[path = "../../engine/tests/common/kube.rs"]
mod kube;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use controller::clock::Clock;
use controller::databases;
use engine::{
    CommitKind, Config, Effect, Engine, Event, Kind, KubeEvent, LeaseEvent, ObjectKey,
    ReplicaEvent, Role,
};
use jiff::SignedDuration;
use kube::Kube;
use ovsdb::client::{Client, ClientConfig, Events, Handle, Remote, TableSelection};
use serde_json::json;
use testkit::ovn::{Schema, Server};
use tokio::time::{Instant, timeout};

/// Nothing happens for so long: it is at rest.
const QUIET: Duration = Duration::from_millis(300);

struct Process {
    engine: Engine,
    clock: Clock,
    handle: Handle,
    events: Events,
    inbox: VecDeque<Event>,
    wake: Option<Instant>,
}

impl Process {
    fn new(name: &str, server: &Server, kube: &Kube) -> Self {
        let mut config = ClientConfig::new(
            Remote::parse_list(&server.remote()).unwrap(),
            "OVN_Northbound",
        );
        for table in ovn::Database::Northbound.tables() {
            config = config.monitor(
                table.name(),
                TableSelection::columns(table.columns().map(ovn::Column::name)),
            );
        }
        let (handle, events) = Client::connect(config).unwrap();
        let clock = Clock::start();
        let config = Config {
            identity: name.into(),
            cluster: uuid::Uuid::from_u128(0xfeed),
            ..Config::default()
        };
        let mut inbox: VecDeque<Event> = kube.lists().into();
        inbox.push_back(Event::Sb(ReplicaEvent::Synced));
        Self {
            engine: Engine::new(config, clock.now()),
            clock,
            handle,
            events,
            inbox,
            wake: None,
        }
    }

    fn lead(&mut self) {
        let until = self.clock.now() + SignedDuration::from_mins(5);
        self.inbox
            .push_back(Event::Lease(LeaseEvent::Leader { until }));
    }

    /// Runs until nothing happens any more; returns what the watches had to say meanwhile.
    async fn run(&mut self, kube: &mut Kube) -> Vec<KubeEvent> {
        let mut heard = Vec::new();
        loop {
            let news = std::mem::take(&mut kube.news);
            heard.extend(news.iter().cloned());
            self.inbox.extend(news.into_iter().map(Event::Kube));
            if self.inbox.is_empty() {
                let quiet = self.wake.map_or(QUIET, |at| {
                    at.saturating_duration_since(Instant::now()).min(QUIET)
                });
                match timeout(quiet, self.events.recv()).await {
                    Ok(event) => self
                        .inbox
                        .push_back(databases::event(event.unwrap(), Event::Nb)),
                    Err(_) if self.wake.is_some_and(|at| at <= Instant::now()) => {
                        self.wake = None;
                        self.inbox.push_back(Event::Tick);
                    }
                    Err(_)
                        if self
                            .wake
                            .is_some_and(|at| at < Instant::now() + Duration::from_secs(3)) => {}
                    Err(_) => return heard,
                }
            }
            let effects = self.engine.step_all(self.inbox.drain(..), self.clock.now());
            for effect in effects {
                match effect {
                    Effect::Kube { id, write } => {
                        let outcome = kube.write(&write);
                        self.inbox.push_back(Event::KubeDone { id, outcome });
                    }
                    Effect::Nb { id, ops, .. } => self.handle.submit(id.0, ops).await.unwrap(),
                    Effect::Wake(at) => self.wake = Some(Instant::now() + self.clock.until(at)),
                    Effect::List { id, kind } => {
                        let asked = KubeEvent::Asked { kind, id };
                        let list = std::iter::once(asked).chain(kube.list(kind));
                        self.inbox.extend(list.map(Event::Kube));
                    }
                    Effect::Inventory { id } => {
                        let in_use = Ok(Vec::new());
                        self.inbox.push_back(Event::Inventory { id, in_use });
                    }
                    Effect::Sb { .. } | Effect::Notice(_) | Effect::Log(_) => {}
                }
            }
        }
    }

    fn commits(&mut self) -> BTreeMap<(CommitKind, &'static str), u64> {
        self.engine.report().commits
    }
}

fn cluster() -> Kube {
    let mut kube = Kube::default();
    kube.put(
        ObjectKey::cluster(Kind::Namespace, "default"),
        json!({ "metadata": {} }),
    );
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": "192.168.1.41" }] });
    kube.put(
        ObjectKey::cluster(Kind::Node, "n1"),
        json!({ "metadata": {}, "status": status }),
    );
    kube
}

fn pod(kube: &mut Kube, name: &str) -> ObjectKey {
    let key = ObjectKey::pod("default", name);
    kube.put(
        key.clone(),
        json!({ "metadata": {}, "spec": { "nodeName": "n1" } }),
    );
    key
}

/// Names of the switch ports of pods and nodes, by ovn-nbctl's eyes.
fn ports(server: &Server) -> Vec<String> {
    let text = server.ctl([
        "--bare",
        "--columns=name",
        "find",
        "Logical_Switch_Port",
        "type=\"\"",
    ]);
    let mut names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    names.sort();
    names
}

fn epoch(server: &Server) -> String {
    let text = server.ctl(["get", "NB_Global", ".", "external_ids:leader-epoch"]);
    text.trim().trim_matches('"').to_owned()
}

#[tokio::test]
async fn an_empty_database_is_filled_and_a_restart_writes_its_epoch_alone() {
    let server = Server::start(Schema::Northbound);
    let mut kube = cluster();
    // Nobody has made NB_Global yet: the first epoch makes it.
    let mut first = Process::new("one", &server, &kube);
    first.lead();
    first.run(&mut kube).await;
    let key = pod(&mut kube, "a");
    first.run(&mut kube).await;
    assert_eq!(ports(&server), ["a.default", "node-n1"]);
    assert_eq!(
        kube.annotation(&key, "ovn.kubernetes.io/routed"),
        Some("true")
    );
    assert_eq!(epoch(&server), "1");
    drop(first);

    kube.writes.clear();
    let mut second = Process::new("two", &server, &kube);
    second.lead();
    second.run(&mut kube).await;
    assert_eq!(kube.writes, []);
    assert_eq!(
        second.commits(),
        BTreeMap::from([((CommitKind::Epoch, "committed"), 1)])
    );
    assert_eq!(epoch(&server), "2");
}

#[tokio::test]
async fn a_former_leader_cannot_commit() {
    let server = Server::start(Schema::Northbound);
    server.ctl(["init"]);
    let mut kube = cluster();
    let mut old = Process::new("old", &server, &kube);
    old.lead();
    old.run(&mut kube).await;
    assert!(matches!(old.engine.role(), Role::Leader { epoch: 1, .. }));

    // It sleeps: it does not hear of the new leader before it writes.
    let mut new = Process::new("new", &server, &kube);
    new.lead();
    new.run(&mut kube).await;
    assert!(matches!(new.engine.role(), Role::Leader { epoch: 2, .. }));
    let ops = vec![
        engine::fence(1),
        ovsdb::wire::Operation::insert_named(
            "Logical_Switch",
            "row",
            ovsdb::wire::Row::from([("name", "stale".into())]),
        ),
    ];
    let error = old.handle.transact(ops).await.unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    assert_eq!(
        server
            .ctl([
                "--bare",
                "--columns=name",
                "find",
                "Logical_Switch",
                "name=stale"
            ])
            .trim(),
        ""
    );

    // It wakes up, sees the other's epoch and stops; the new one goes on.
    pod(&mut kube, "a");
    let news = old.run(&mut kube).await;
    assert!(matches!(old.engine.role(), Role::Fenced { .. }));
    assert_eq!(ports(&server), ["node-n1"]);
    kube.news = news;
    new.run(&mut kube).await;
    assert_eq!(ports(&server), ["a.default", "node-n1"]);
}

#[tokio::test]
async fn the_database_may_go_and_come_back() {
    let mut server = Server::start(Schema::Northbound);
    server.ctl(["init"]);
    let mut kube = cluster();
    let mut process = Process::new("one", &server, &kube);
    process.lead();
    process.run(&mut kube).await;
    pod(&mut kube, "a");
    process.run(&mut kube).await;
    server.kill();
    let key = pod(&mut kube, "b");
    kube.delete(&ObjectKey::pod("default", "a"));
    process.run(&mut kube).await;
    assert_eq!(
        kube.annotation(&key, "ovn.kubernetes.io/routed"),
        None,
        "told before the rows were in"
    );
    assert!(
        kube.get(&ObjectKey::cluster(Kind::Ip, "a.default"))
            .is_some(),
        "forgotten before the rows were gone"
    );
    server.restart();
    let deadline = Instant::now() + Duration::from_secs(20);
    while kube.annotation(&key, "ovn.kubernetes.io/routed").is_none() && Instant::now() < deadline {
        process.run(&mut kube).await;
    }
    process.run(&mut kube).await;
    assert_eq!(ports(&server), ["b.default", "node-n1"]);
    assert!(
        kube.get(&ObjectKey::cluster(Kind::Ip, "a.default"))
            .is_none()
    );

    // Somebody works on it by hand: it is put back.
    server.ctl(["lsp-del", "b.default"]);
    process.run(&mut kube).await;
    assert_eq!(ports(&server), ["b.default", "node-n1"]);
}
