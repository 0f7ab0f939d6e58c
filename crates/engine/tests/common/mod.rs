//! A cluster in memory: an API server, a northbound and a southbound database, one engine, virtual time, and crashes.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod kube;
pub mod ovsdb;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::{
    CommitOutcome, Config, Effect, Engine, Event, InUse, Kind, KubeEvent, LeaseEvent, Notice,
    ObjectKey, ReplicaEvent,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use kube::Kube;
pub use ovsdb::Database;

/// When an engine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Effect number n was asked for and not carried out.
    Before(usize),
    /// Effect number n was carried out; nobody heard of it.
    After(usize),
}

/// What went in at a time, and what came out.
pub type Step = (Timestamp, Vec<Event>, Vec<Effect>);

pub struct Lab {
    pub kube: Kube,
    pub nb: Database,
    pub sb: Database,
    pub engine: Engine,
    pub now: Timestamp,
    pub notices: Vec<Notice>,
    /// Effects carried out, in words.
    pub trace: Vec<String>,
    /// Lists that the engine asked for.
    pub lists: usize,
    pub crash: Option<Crash>,
    pub executed: usize,
    /// Steps of the engine with their effects, if they are to be recorded.
    pub record: Option<Vec<Step>>,
    /// Of what was asked for, the last is done first.
    pub backwards: bool,
    /// The northbound database takes its time: its transactions wait here.
    pub slow_nb: Option<Vec<Effect>>,
    /// The API server takes its time with lists that the engine asks for: they wait here.
    pub slow_lists: Option<Vec<Effect>>,
    /// What the API server has of kinds that this version does not have.
    pub inventory: Result<Vec<InUse>, String>,
    config: Config,
    events: VecDeque<Event>,
    effects: VecDeque<Effect>,
    wake: Option<Timestamp>,
}

pub fn config() -> Config {
    Config {
        identity: "controller-0".into(),
        cluster: uuid::Uuid::from_u128(0xfeed),
        ..Config::default()
    }
}

impl Lab {
    /// A cluster with nothing in it, and an engine that leads.
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut nb = Database::northbound();
        let global = ::ovsdb::wire::Operation::insert(
            "NB_Global",
            uuid::Uuid::from_u128(1),
            ::ovsdb::wire::Row::default(),
        );
        nb.transact(&[global]);
        nb.commits = 0;
        let mut lab = Self {
            kube: Kube::default(),
            nb,
            sb: Database::southbound(),
            engine: Engine::new(config.clone(), now),
            now,
            notices: Vec::new(),
            trace: Vec::new(),
            lists: 0,
            crash: None,
            executed: 0,
            record: None,
            backwards: false,
            slow_nb: None,
            slow_lists: None,
            inventory: Ok(Vec::new()),
            config,
            events: VecDeque::new(),
            effects: VecDeque::new(),
            wake: None,
        };
        lab.boot();
        lab
    }

    /// Events of a process that starts: sessions, lists, and the lease.
    fn boot(&mut self) {
        self.boot_with(self.kube.lists());
    }

    fn boot_with(&mut self, lists: Vec<Event>) {
        self.kube.news.clear();
        self.events.extend(lists);
        let schema = std::sync::Arc::clone(&self.nb.schema);
        self.events
            .push_back(Event::Nb(ReplicaEvent::Connected(Some(schema))));
        self.events
            .push_back(Event::Nb(ReplicaEvent::Deltas(self.nb.snapshot())));
        self.events.push_back(Event::Nb(ReplicaEvent::Synced));
        self.events
            .push_back(Event::Sb(ReplicaEvent::Connected(None)));
        self.events
            .push_back(Event::Sb(ReplicaEvent::Deltas(self.sb.snapshot())));
        self.events.push_back(Event::Sb(ReplicaEvent::Synced));
        self.lead();
    }

    pub fn lead(&mut self) {
        let until = self.now + SignedDuration::from_hours(24);
        self.events
            .push_back(Event::Lease(LeaseEvent::Leader { until }));
    }

    /// The process dies, and another one takes its place.
    pub fn restart(&mut self) {
        self.restart_behind(self.kube.lists());
    }

    /// The same; the watches of the other one have shown these lists, and are late with what happened since.
    pub fn restart_behind(&mut self, lists: Vec<Event>) {
        self.engine = Engine::new(self.config.clone(), self.now);
        self.events.clear();
        self.effects.clear();
        self.wake = None;
        self.boot_with(lists);
    }

    /// The same, with other flags.
    pub fn restart_with(&mut self, config: Config) {
        self.config = config;
        self.restart();
    }

    /// What the engine asked for and nobody did yet.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter()
    }

    /// The northbound database does what it was asked for.
    pub fn nb_wakes(&mut self) {
        self.effects.extend(self.slow_nb.take().unwrap_or_default());
    }

    /// The API server answers what it was asked for.
    pub fn lists_come(&mut self) {
        let lists = self.slow_lists.take().unwrap_or_default();
        self.effects.extend(lists);
    }

    /// Events of a process that starts.
    pub fn boot_events(&mut self) -> Vec<Event> {
        self.boot();
        self.events.drain(..).collect()
    }

    /// Takes away what the engine asked for: it is up to the test what becomes of it.
    pub fn intercept(&mut self) -> Vec<Effect> {
        self.effects.drain(..).collect()
    }

    pub fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// These events in one step.
    pub fn at_once(&mut self, events: Vec<Event>) {
        let written = self.record.is_some().then(|| events.clone());
        let effects = self.engine.step_all(events, self.now);
        if let (Some(record), Some(events)) = (&mut self.record, written) {
            record.push((self.now, events, effects.clone()));
        }
        self.effects.extend(effects);
    }

    /// What the watches have to say, in one step, as after an interruption.
    pub fn news_at_once(&mut self) {
        let news = std::mem::take(&mut self.kube.news);
        self.at_once(news.into_iter().map(Event::Kube).collect());
    }

    /// The watch of a kind starts over, with what the server has now.
    pub fn list_again(&mut self, kind: Kind) {
        self.kube.news.clear();
        let mut events = self.kube.lists();
        events.retain(|event| match event {
            Event::Kube(KubeEvent::Begin(k) | KubeEvent::End(k)) => *k == kind,
            Event::Kube(KubeEvent::Apply(object)) => object.key().kind == kind,
            _ => false,
        });
        self.at_once(events);
    }

    /// Somebody changes the southbound database.
    pub fn southbound(&mut self, ops: &[::ovsdb::wire::Operation]) {
        let (outcome, deltas) = self.sb.transact(ops);
        assert_eq!(outcome, CommitOutcome::Committed);
        self.events
            .push_back(Event::Sb(ReplicaEvent::Deltas(deltas)));
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs until nothing happens any more, timers included.
    pub fn run(&mut self) {
        self.run_with(|lab| lab.now + SignedDuration::from_mins(5));
    }

    /// Runs for so long, whatever happens.
    pub fn run_for(&mut self, time: SignedDuration) {
        let end = self.now + time;
        self.run_with(|_| end);
        self.now = self.now.max(end);
    }

    fn run_with(&mut self, horizon: impl Fn(&Self) -> Timestamp) {
        for _ in 0..100_000 {
            if self.turn() {
                continue;
            }
            let horizon = horizon(self);
            match self.wake.filter(|at| *at < horizon) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.wake = None;
                    self.events.push_back(Event::Tick);
                }
                None => return,
            }
        }
        panic!(
            "it does not come to rest; last effects: {:#?}",
            &self.trace[self.trace.len().saturating_sub(20)..]
        );
    }

    /// One event in, or one effect out; `false` if there is neither.
    pub fn turn(&mut self) -> bool {
        for news in std::mem::take(&mut self.kube.news) {
            self.events.push_back(Event::Kube(news));
        }
        if let Some(event) = self.events.pop_front() {
            self.at_once(vec![event]);
            return true;
        }
        let next = if self.backwards {
            self.effects.pop_back()
        } else {
            self.effects.pop_front()
        };
        let Some(effect) = next else {
            return false;
        };
        self.now += SignedDuration::try_from(Duration::from_millis(1)).unwrap();
        self.carry_out(effect);
        true
    }

    fn carry_out(&mut self, effect: Effect) {
        if let (Some(waiting), Effect::Nb { .. }) = (&mut self.slow_nb, &effect) {
            waiting.push(effect);
            return;
        }
        if let (Some(waiting), Effect::List { .. }) = (&mut self.slow_lists, &effect) {
            waiting.push(effect);
            return;
        }
        let counts = matches!(
            effect,
            Effect::Kube { .. } | Effect::Nb { .. } | Effect::Sb { .. }
        );
        if counts {
            if self.crash == Some(Crash::Before(self.executed)) {
                self.crash = None;
                self.restart();
                return;
            }
            self.executed += 1;
        }
        match effect {
            Effect::Kube { id, write } => {
                let outcome = self.kube.write(&write);
                let end = match &outcome {
                    engine::KubeOutcome::Done(_) => "ok".to_owned(),
                    other => format!("{other:?}"),
                };
                self.trace
                    .push(format!("{} {}: {end}", write.verb(), write.key()));
                self.events.push_back(Event::KubeDone { id, outcome });
            }
            Effect::Nb { id, kind, ops } => {
                let (outcome, deltas) = self.nb.transact(&ops);
                self.trace
                    .push(format!("nb {kind:?} {} ops: {}", ops.len(), say(&outcome)));
                if !deltas.is_empty() {
                    self.events
                        .push_back(Event::Nb(ReplicaEvent::Deltas(deltas)));
                }
                self.events.push_back(Event::Committed { id, outcome });
            }
            Effect::Sb { id, ops } => {
                let (outcome, deltas) = self.sb.transact(&ops);
                self.trace
                    .push(format!("sb {} ops: {}", ops.len(), say(&outcome)));
                if !deltas.is_empty() {
                    self.events
                        .push_back(Event::Sb(ReplicaEvent::Deltas(deltas)));
                }
                self.events.push_back(Event::Committed { id, outcome });
            }
            Effect::List { id, kind } => {
                self.trace.push(format!("list {}", kind.plural()));
                self.lists += 1;
                let news = std::mem::take(&mut self.kube.news).into_iter();
                let list = news
                    .chain([KubeEvent::Asked { kind, id }])
                    .chain(self.kube.list(kind));
                self.events.extend(list.map(Event::Kube));
            }
            Effect::Inventory { id } => {
                self.trace.push("inventory".into());
                let in_use = self.inventory.clone();
                self.events.push_back(Event::Inventory { id, in_use });
            }
            Effect::Notice(notice) => self.notices.push(notice),
            Effect::Wake(at) => self.wake = Some(at),
            Effect::Log(line) => self.trace.push(format!("log {line:?}")),
        }
        if counts && self.crash == Some(Crash::After(self.executed - 1)) {
            self.crash = None;
            self.restart();
        }
    }

    // What users do.

    pub fn namespace(&mut self, name: &str, annotations: &Value) {
        let managers = json!([{ "manager": "kubectl", "fieldsV1": { "f:metadata": { "f:annotations":
            annotations.as_object().into_iter().flatten().map(|(k, _)| (format!("f:{k}"), json!({}))).collect::<serde_json::Map<_, _>>() } } }]);
        self.kube.put(
            ObjectKey::cluster(Kind::Namespace, name),
            json!({ "metadata": { "annotations": annotations, "managedFields": managers } }),
        );
    }

    pub fn node(&mut self, name: &str, address: &str) {
        self.kube.put(
            ObjectKey::cluster(Kind::Node, name),
            json!({ "metadata": {}, "status": { "addresses": [{ "type": "InternalIP", "address": address }],
                "conditions": [{ "type": "Ready", "status": "True" }] } }),
        );
    }

    /// A node has another InternalIP from now on.
    pub fn node_address(&mut self, name: &str, address: &str) {
        self.kube
            .edit(&ObjectKey::cluster(Kind::Node, name), |node| {
                node["status"]["addresses"][0]["address"] = address.into();
            });
    }

    pub fn pod(&mut self, namespace: &str, name: &str, node: &str) {
        self.pod_with(namespace, name, node, &json!({}));
    }

    pub fn pod_with(&mut self, namespace: &str, name: &str, node: &str, annotations: &Value) {
        self.kube.put(
            ObjectKey::pod(namespace, name),
            json!({ "metadata": { "annotations": annotations }, "spec": { "nodeName": node, "restartPolicy": "Always" },
                "status": { "phase": "Pending" } }),
        );
    }

    /// Two nodes, the namespaces `default` and `test-ns` (bound to a Subnet of its own by annotations).
    pub fn populate(&mut self) {
        self.namespace("default", &json!({}));
        self.namespace(
            "test-ns",
            &json!({
                "ovn.kubernetes.io/logical_switch": "test-subnet",
                "ovn.kubernetes.io/cidr": "10.17.0.0/16",
                "ovn.kubernetes.io/gateway": "10.17.0.1",
                "ovn.kubernetes.io/exclude_ips": "10.17.0.1..10.17.0.10",
            }),
        );
        self.node("n1", "192.168.1.41");
        self.node("n2", "192.168.1.42");
    }

    /// Addresses of pods as their annotations say.
    pub fn addresses(&self) -> BTreeMap<String, String> {
        self.kube
            .of(Kind::Pod)
            .filter_map(|(key, _)| {
                let address = self.kube.annotation(key, api::keys::IP_ADDRESS)?;
                Some((
                    format!("{}/{}", key.namespace, key.name),
                    address.to_owned(),
                ))
            })
            .collect()
    }

    /// Names of IP resources.
    pub fn ips(&self) -> Vec<String> {
        self.kube
            .of(Kind::Ip)
            .map(|(key, _)| key.name.to_string())
            .collect()
    }

    /// Names of the switch ports of pods and nodes.
    pub fn ports(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .nb
            .rows("Logical_Switch_Port")
            .filter(|(_, row)| row.str("type").is_empty())
            .map(|(_, row)| row.str("name").to_owned())
            .collect();
        names.sort();
        names
    }

    /// Everything that outlives the process, without what may differ between two histories.
    pub fn end_state(&self) -> Value {
        let objects: BTreeMap<String, Value> = [
            Kind::Pod,
            Kind::Node,
            Kind::Namespace,
            Kind::Subnet,
            Kind::Vpc,
            Kind::Ip,
        ]
        .into_iter()
        .flat_map(|kind| self.kube.of(kind))
        .map(|(key, object)| {
            let mut object = object.clone();
            strip(&mut object);
            (key.to_string(), object)
        })
        .collect();
        let rows: Vec<Value> = self
            .nb
            .all()
            .iter()
            .filter(|((table, _), _)| table != "NB_Global")
            .map(|((table, uuid), row)| json!({ "table": table, "uuid": uuid, "row": row }))
            .collect();
        json!({ "objects": objects, "rows": rows })
    }
}

fn say(outcome: &CommitOutcome) -> String {
    match outcome {
        CommitOutcome::Committed => "ok".into(),
        other => format!("{other:?}"),
    }
}

fn strip(value: &mut Value) {
    const CHANGING: [&str; 8] = [
        "uid",
        "resourceVersion",
        "lastUpdateTime",
        "lastTransitionTime",
        "managedFields",
        "deletionTimestamp",
        "creationTimestamp",
        "ovn.kubernetes.io/accepted",
    ];
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !CHANGING.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}
