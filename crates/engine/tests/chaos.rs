//! Two engines, one of which leads, in a world where answers get lost, writes come late, processes die, leases move while
//! the old holder sleeps, and users do what they like. Whatever happens: no address is ever in use twice, what a pod was
//! told never changes, and when peace comes everything is as it should be.
//!
//! `KUBE_OVN_CHAOS_SEED=n` repeats one history, `KUBE_OVN_CHAOS_RUNS=n` plays more of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use std::collections::{BTreeMap, VecDeque};

use common::{Database, Kube, config};
use engine::{
    CommitOutcome, Config, Effect, EffectId, Engine, Event, Kind, KubeOutcome, LeaseEvent,
    ObjectKey, ReplicaEvent, Role,
};
use jiff::{SignedDuration, Timestamp};
use ovsdb::wire::{Operation, Row};
use serde_json::{Value, json};
use uuid::Uuid;

/// xorshift64*: a history is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() >> 33).unwrap() % n.max(1)
    }

    fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }
}

/// One process: an engine and the queues of its adapters.
struct Process {
    engine: Engine,
    config: Config,
    watches: VecDeque<Event>,
    nb: VecDeque<Event>,
    other: VecDeque<Event>,
    effects: Vec<Effect>,
    wake: Option<Timestamp>,
}

struct World {
    dice: Dice,
    now: Timestamp,
    kube: Kube,
    nb: Database,
    sb: Database,
    processes: Vec<Process>,
    /// Requests whose sender has given up on them, and that are carried out yet.
    late: Vec<(usize, Effect)>,
    holder: usize,
    until: Timestamp,
    calm: bool,
    /// What pods were told: uid to address.
    told: BTreeMap<String, String>,
    counter: usize,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut nb = Database::northbound();
        nb.transact(&[Operation::insert(
            "NB_Global",
            Uuid::from_u128(1),
            Row::default(),
        )]);
        let process = |name: &str| Process {
            engine: Engine::new(config(), now),
            config: Config {
                identity: name.into(),
                ..config()
            },
            watches: VecDeque::new(),
            nb: VecDeque::new(),
            other: VecDeque::new(),
            effects: Vec::new(),
            wake: None,
        };
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now,
            kube: Kube::default(),
            nb,
            sb: Database::southbound(),
            processes: vec![process("one"), process("two")],
            late: Vec::new(),
            holder: 0,
            until: now,
            calm: false,
            told: BTreeMap::new(),
            counter: 0,
            log: Vec::new(),
        };
        for (name, annotations) in [
            ("default", json!({})),
            (
                "test-ns",
                json!({ "ovn.kubernetes.io/logical_switch": "small", "ovn.kubernetes.io/cidr": "10.17.0.0/28" }),
            ),
        ] {
            let managers = json!([{ "manager": "kubectl", "fieldsV1": { "f:metadata": { "f:annotations":
                annotations.as_object().unwrap().keys().map(|k| (format!("f:{k}"), json!({}))).collect::<serde_json::Map<_, _>>() } } }]);
            let key = ObjectKey::cluster(Kind::Namespace, name);
            world.kube.put(
                key,
                json!({ "metadata": { "annotations": annotations, "managedFields": managers } }),
            );
        }
        for node in ["n1", "n2"] {
            world.node(node);
        }
        world.kube.news.clear();
        world.boot(0);
        world.boot(1);
        world.renew();
        world
    }

    fn node(&mut self, name: &str) {
        let address = format!("192.168.1.4{}", &name[1..]);
        let status = json!({ "addresses": [{ "type": "InternalIP", "address": address }] });
        self.kube.put(
            ObjectKey::cluster(Kind::Node, name),
            json!({ "metadata": {}, "status": status }),
        );
    }

    /// A process begins.
    fn boot(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.engine = Engine::new(process.config.clone(), self.now);
        process.effects.clear();
        process.other.clear();
        process.wake = None;
        process.watches = self.kube.lists().into();
        process.nb = VecDeque::from([
            Event::Nb(ReplicaEvent::Connected(None)),
            Event::Nb(ReplicaEvent::Deltas(self.nb.snapshot())),
            Event::Nb(ReplicaEvent::Synced),
            Event::Sb(ReplicaEvent::Connected(None)),
            Event::Sb(ReplicaEvent::Synced),
        ]);
    }

    /// The holder of the lease renews it.
    fn renew(&mut self) {
        self.until = self.now + SignedDuration::from_secs(20);
        let event = Event::Lease(LeaseEvent::Leader { until: self.until });
        self.processes[self.holder].other.push_back(event);
    }

    /// What the watches have to say goes to everybody.
    fn publish(&mut self) {
        for news in std::mem::take(&mut self.kube.news) {
            for process in &mut self.processes {
                process.watches.push_back(Event::Kube(news.clone()));
            }
        }
        self.check_always();
    }

    fn deliver(&mut self, index: usize, event: Event) {
        let effects = self.processes[index].engine.step(event, self.now);
        for effect in effects {
            match effect {
                Effect::Wake(at) => self.processes[index].wake = Some(at),
                Effect::Kube { .. } | Effect::Nb { .. } | Effect::Sb { .. } => {
                    self.processes[index].effects.push(effect);
                }
                Effect::Notice(_) | Effect::Log(_) => {}
            }
        }
    }

    /// One thing happens; `false` if there was nothing to happen.
    fn turn(&mut self) -> bool {
        self.publish();
        let index = self.dice.below(self.processes.len());
        let process = &mut self.processes[index];
        if process.wake.is_some_and(|at| at <= self.now) {
            process.wake = None;
            process.other.push_back(Event::Tick);
        }
        let mut choices: Vec<usize> = Vec::new();
        for (choice, there_is) in [
            !process.watches.is_empty(),
            !process.nb.is_empty(),
            !process.other.is_empty(),
            !process.effects.is_empty(),
        ]
        .into_iter()
        .enumerate()
        {
            if there_is {
                choices.push(choice);
            }
        }
        if choices.is_empty() {
            return self.processes.iter().any(|p| {
                !p.watches.is_empty()
                    || !p.nb.is_empty()
                    || !p.other.is_empty()
                    || !p.effects.is_empty()
            });
        }
        match choices[self.dice.below(choices.len())] {
            0 => {
                let event = self.processes[index].watches.pop_front().unwrap();
                self.deliver(index, event);
            }
            1 => {
                let event = self.processes[index].nb.pop_front().unwrap();
                self.deliver(index, event);
            }
            2 => {
                // Answers of the API server come in any order.
                let place = self.dice.below(self.processes[index].other.len());
                let event = self.processes[index].other.remove(place).unwrap();
                self.deliver(index, event);
            }
            _ => {
                let place = self.dice.below(self.processes[index].effects.len());
                let effect = self.processes[index].effects.remove(place);
                self.carry_out(index, &effect);
            }
        }
        true
    }

    fn carry_out(&mut self, index: usize, effect: &Effect) {
        let fate = if self.calm { 100 } else { self.dice.below(100) };
        // The writer's guard stops most of what a former leader wants, not what is on its way already.
        let guarded = self.holder != index && self.dice.percent(80);
        match effect {
            Effect::Kube { id, write } => {
                let outcome = if guarded {
                    KubeOutcome::Retry("the lease is not ours".into())
                } else if fate < 4 {
                    KubeOutcome::Retry("busy".into())
                } else if fate < 7 {
                    KubeOutcome::Unknown("never arrived".into())
                } else if fate < 10 {
                    self.late.push((index, effect.clone()));
                    KubeOutcome::Unknown("will arrive".into())
                } else {
                    let outcome = self.kube.write(write);
                    self.log.push(format!(
                        "{:?} {index} {} {}: {}",
                        self.now,
                        write.verb(),
                        write.key(),
                        matches!(outcome, KubeOutcome::Done(_))
                    ));
                    if fate < 15 {
                        KubeOutcome::Unknown("answer lost".into())
                    } else {
                        outcome
                    }
                };
                self.processes[index]
                    .other
                    .push_back(Event::KubeDone { id: *id, outcome });
            }
            Effect::Nb { id, ops, .. } => {
                if fate < 3 {
                    self.cut(index, *id);
                } else if fate < 6 {
                    self.late.push((index, effect.clone()));
                    self.cut(index, *id);
                } else if fate < 12 {
                    self.commit(index, ops, None);
                    self.cut(index, *id);
                } else {
                    self.commit(index, ops, Some(*id));
                }
            }
            Effect::Sb { id, ops } => {
                let (outcome, deltas) = self.sb.transact(ops);
                for process in &mut self.processes {
                    process
                        .nb
                        .push_back(Event::Sb(ReplicaEvent::Deltas(deltas.clone())));
                }
                self.processes[index]
                    .nb
                    .push_back(Event::Committed { id: *id, outcome });
            }
            Effect::Notice(_) | Effect::Log(_) | Effect::Wake(_) => {}
        }
    }

    /// The session breaks before the answer, and is made again.
    fn cut(&mut self, index: usize, id: EffectId) {
        let outcome = CommitOutcome::Unknown("session lost".into());
        self.processes[index].nb.extend([
            Event::Committed { id, outcome },
            Event::Nb(ReplicaEvent::Disconnected("cut".into())),
            Event::Nb(ReplicaEvent::Connected(None)),
            Event::Nb(ReplicaEvent::Synced),
        ]);
    }

    fn commit(&mut self, index: usize, ops: &[Operation], answer: Option<EffectId>) {
        let (outcome, deltas) = self.nb.transact(ops);
        self.log.push(format!(
            "{:?} {index} nb {} ops: {outcome:?}",
            self.now,
            ops.len()
        ));
        if let CommitOutcome::Refused { error, .. } = &outcome {
            assert!(error.contains("duplicate uuid"), "{error}\n{ops:#?}");
        }
        if !deltas.is_empty() {
            for process in &mut self.processes {
                process
                    .nb
                    .push_back(Event::Nb(ReplicaEvent::Deltas(deltas.clone())));
            }
        }
        if let Some(id) = answer {
            self.processes[index]
                .nb
                .push_back(Event::Committed { id, outcome });
        }
        self.check_always();
    }

    /// What a late request does when it arrives.
    fn arrive(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let place = self.dice.below(self.late.len());
        let (index, effect) = self.late.remove(place);
        match effect {
            Effect::Kube { write, .. } => {
                let outcome = self.kube.write(&write);
                self.log.push(format!(
                    "{:?} {index} LATE {} {}: {}",
                    self.now,
                    write.verb(),
                    write.key(),
                    matches!(outcome, KubeOutcome::Done(_))
                ));
            }
            Effect::Nb { ops, .. } => self.commit(index, &ops, None),
            _ => {}
        }
    }

    /// Something that nobody asked for.
    fn disturb(&mut self) {
        match self.dice.below(30) {
            0 => {
                let index = self.dice.below(2);
                self.log.push(format!("{:?} {index} dies", self.now));
                self.boot(index);
                if self.holder == index {
                    self.renew();
                }
            }
            1 => {
                // The holder sleeps, the other one takes the lease. Sometimes the sleeper hears of it.
                let old = self.holder;
                self.now = self.now.max(self.until);
                self.holder = 1 - old;
                self.log
                    .push(format!("{:?} lease to {}", self.now, self.holder));
                self.renew();
                if self.dice.percent(50) {
                    self.processes[old]
                        .other
                        .push_back(Event::Lease(LeaseEvent::Standby));
                }
            }
            2 | 3 => self.renew(),
            4..=6 => self.arrive(),
            7..=14 => {
                self.counter += 1;
                let name = format!("p{}", self.dice.below(9));
                let namespace = if self.dice.percent(60) {
                    "test-ns"
                } else {
                    "default"
                };
                let key = ObjectKey::pod(namespace, name);
                if self.kube.get(&key).is_none() {
                    let node = if self.dice.percent(50) { "n1" } else { "n2" };
                    let annotations = match self.dice.below(12) {
                        0 if namespace == "test-ns" => {
                            json!({ "ovn.kubernetes.io/ip_address": "10.17.0.9" })
                        }
                        _ => json!({}),
                    };
                    let spec = json!({ "nodeName": node, "restartPolicy": "Never" });
                    self.kube.put(
                        key,
                        json!({ "metadata": { "annotations": annotations }, "spec": spec }),
                    );
                }
            }
            15..=20 => {
                let keys: Vec<ObjectKey> = self
                    .kube
                    .of(Kind::Pod)
                    .map(|(key, _)| key.clone())
                    .collect();
                if !keys.is_empty() {
                    let key = keys[self.dice.below(keys.len())].clone();
                    self.kube.delete(&key);
                }
            }
            21 | 22 => {
                let keys: Vec<ObjectKey> = self
                    .kube
                    .of(Kind::Pod)
                    .map(|(key, _)| key.clone())
                    .collect();
                if !keys.is_empty() {
                    let key = keys[self.dice.below(keys.len())].clone();
                    self.kube
                        .edit(&key, |pod| pod["status"]["phase"] = "Succeeded".into());
                }
            }
            23 => {
                // A user deletes an IP resource.
                let keys: Vec<ObjectKey> =
                    self.kube.of(Kind::Ip).map(|(key, _)| key.clone()).collect();
                if !keys.is_empty() {
                    let key = keys[self.dice.below(keys.len())].clone();
                    self.kube.delete(&key);
                }
            }
            24 => {
                let node = ObjectKey::cluster(Kind::Node, "n3");
                if self.kube.get(&node).is_some() {
                    self.kube.delete(&node);
                } else {
                    self.node("n3");
                }
            }
            25 => {
                // Somebody works on the database by hand.
                let ports: Vec<Uuid> = self
                    .nb
                    .rows("Logical_Switch_Port")
                    .map(|(uuid, _)| uuid)
                    .collect();
                if !ports.is_empty() {
                    let uuid = ports[self.dice.below(ports.len())];
                    let row = Row::from([("addresses", "unknown".into())]);
                    self.commit(
                        0,
                        &[Operation::update(
                            "Logical_Switch_Port",
                            ovsdb::wire::Condition::row(uuid),
                            row,
                        )],
                        None,
                    );
                }
            }
            26 => {
                // A kubelet writes a status: versions move.
                let keys: Vec<ObjectKey> = self
                    .kube
                    .of(Kind::Pod)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in keys {
                    self.kube.edit(&key, |_| {});
                }
            }
            _ => {
                self.now +=
                    SignedDuration::from_millis(i64::try_from(self.dice.below(1500)).unwrap());
            }
        }
    }

    /// What holds at every moment.
    fn check_always(&mut self) {
        let mut in_use: BTreeMap<&str, &ObjectKey> = BTreeMap::new();
        for (key, pod) in self.kube.of(Kind::Pod) {
            let annotations = &pod["metadata"]["annotations"];
            if annotations["ovn.kubernetes.io/allocated"] != "true" {
                continue;
            }
            let address = annotations["ovn.kubernetes.io/ip_address"]
                .as_str()
                .unwrap();
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            let before = self
                .told
                .entry(uid.to_owned())
                .or_insert_with(|| address.to_owned());
            assert_eq!(
                before,
                address,
                "{key} was told another address\n{}",
                self.log.join("\n")
            );
            if pod["status"]["phase"] != "Succeeded"
                && let Some(other) = in_use.insert(address, key)
            {
                panic!(
                    "{key} and {other} both use {address}\n{}",
                    self.log.join("\n")
                );
            }
        }
        let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
        for (_, row) in self
            .nb
            .rows("Logical_Switch_Port")
            .filter(|(_, row)| row.str("type").is_empty())
        {
            let address = row
                .strs("addresses")
                .next()
                .and_then(|a| a.split(' ').nth(1))
                .unwrap_or_default();
            if !address.is_empty()
                && let Some(other) = ports.insert(address, row.str("name"))
            {
                panic!(
                    "ports {} and {other} both have {address}\n{}",
                    row.str("name"),
                    self.log.join("\n")
                );
            }
        }
    }

    /// Peace: no more disturbance, one leader, and time.
    fn rest(&mut self) {
        while !self.late.is_empty() {
            self.arrive();
        }
        self.calm = true;
        let other = 1 - self.holder;
        self.processes[other]
            .other
            .push_back(Event::Lease(LeaseEvent::Standby));
        for _ in 0..400 {
            self.renew();
            let mut turns = 0;
            while self.turn() {
                turns += 1;
                assert!(
                    turns < 5_000,
                    "it turns in a circle:\n{}",
                    self.log[self.log.len() - 40..].join("\n")
                );
            }
            self.now += SignedDuration::from_millis(700);
        }
        assert!(
            !self.turn(),
            "no rest: {:#?}",
            self.log.iter().rev().take(30).collect::<Vec<_>>()
        );
        assert!(matches!(
            self.processes[self.holder].engine.role(),
            Role::Leader { .. }
        ));
    }

    fn check_end(&self) {
        let fail = |what: String| -> ! { panic!("{what}\n{}", self.log.join("\n")) };
        let mut wanted: BTreeMap<String, &Value> = BTreeMap::new();
        let mut waiting = Vec::new();
        for (key, pod) in self
            .kube
            .of(Kind::Pod)
            .filter(|(_, pod)| pod["status"]["phase"] != "Succeeded")
        {
            let port = format!("{}.{}", key.name, key.namespace);
            if pod["metadata"]["annotations"]["ovn.kubernetes.io/routed"] == "true" {
                wanted.insert(port, pod);
            } else {
                waiting.push(port);
            }
        }
        // 10.17.0.0/28 has 13 addresses for pods and nine pods: only the one fixed address may be missing.
        for port in &waiting {
            let (name, namespace) = port.rsplit_once('.').unwrap();
            let pod = self.kube.get(&ObjectKey::pod(namespace, name)).unwrap();
            let asks = pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"].as_str();
            let holds = |ip: &Value| ip["spec"]["ipAddress"] == "10.17.0.9";
            if asks != Some("10.17.0.9") || !self.kube.of(Kind::Ip).any(|(_, ip)| holds(ip)) {
                fail(format!(
                    "{port} waits: {:?}",
                    self.processes[self.holder].engine.port_state(port)
                ));
            }
        }
        let mut names: Vec<String> = wanted.keys().cloned().collect();
        names.extend(
            self.kube
                .of(Kind::Node)
                .map(|(key, _)| format!("node-{}", key.name)),
        );
        names.sort();
        let ips: Vec<String> = self
            .kube
            .of(Kind::Ip)
            .map(|(key, _)| key.name.to_string())
            .collect();
        let mut sorted = ips.clone();
        sorted.sort();
        if sorted != names {
            fail(format!("IP resources {sorted:?}\n wanted {names:?}"));
        }
        let mut ports: Vec<String> = Vec::new();
        for (_, row) in self
            .nb
            .rows("Logical_Switch_Port")
            .filter(|(_, row)| row.str("type").is_empty())
        {
            ports.push(row.str("name").to_owned());
            let ip = self
                .kube
                .get(&ObjectKey::cluster(Kind::Ip, row.str("name")));
            let Some(ip) = ip else {
                fail(format!("port {} has no record", row.str("name")))
            };
            let text = format!(
                "{} {}",
                ip["spec"]["macAddress"].as_str().unwrap(),
                ip["spec"]["ipAddress"].as_str().unwrap()
            );
            if row.strs("addresses").next() != Some(text.as_str()) {
                fail(format!(
                    "port {} has not the address of its record",
                    row.str("name")
                ));
            }
        }
        ports.sort();
        if ports != names {
            let states: Vec<_> = names
                .iter()
                .filter(|name| !ports.contains(name))
                .map(|name| (name, self.processes[self.holder].engine.port_state(name)))
                .collect();
            fail(format!(
                "ports {ports:?}\n wanted {names:?}\n missing {states:?}"
            ));
        }
        for (subnet, object) in self.kube.of(Kind::Subnet) {
            let held = self
                .kube
                .of(Kind::Ip)
                .filter(|(_, ip)| ip["spec"]["subnet"] == subnet.name.as_str())
                .count();
            if object["status"]["v4usingIPs"] != json!(held) {
                fail(format!(
                    "{subnet} counts {} instead of {held}",
                    object["status"]["v4usingIPs"]
                ));
            }
        }
        for (port, pod) in wanted {
            let ip = self
                .kube
                .get(&ObjectKey::cluster(Kind::Ip, port.as_str()))
                .unwrap();
            if pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"]
                != ip["spec"]["ipAddress"]
            {
                fail(format!(
                    "{port} was told another address than its record has"
                ));
            }
        }
    }
}

fn play(seed: u64) {
    let mut world = World::new(seed);
    let length = 300 + world.dice.below(1500);
    for _ in 0..length {
        if world.dice.percent(15) {
            world.disturb();
        } else {
            world.turn();
        }
    }
    world.rest();
    world.check_end();
}

#[test]
fn no_history_breaks_the_rules() {
    if let Ok(seed) = std::env::var("KUBE_OVN_CHAOS_SEED") {
        play(seed.parse().unwrap());
        return;
    }
    let runs = std::env::var("KUBE_OVN_CHAOS_RUNS").map_or(60, |n| n.parse().unwrap());
    for seed in 1..=runs {
        let result = std::panic::catch_unwind(|| play(seed));
        assert!(
            result.is_ok(),
            "seed {seed}: run again with KUBE_OVN_CHAOS_SEED={seed}"
        );
    }
}
