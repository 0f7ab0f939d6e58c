//! The world: two processes with the queues of their adapters, an API server, databases, and a network that loses things.

use std::collections::{BTreeMap, VecDeque};

use crate::common::{self, Database, Kube};
use engine::{
    CommitOutcome, Config, Effect, EffectId, Engine, Event, Kind, KubeEvent, KubeOutcome,
    LeaseEvent, ObjectKey, ReplicaEvent, Role,
};
use jiff::{SignedDuration, Timestamp};
use ovsdb::wire::{Operation, Row};
use serde_json::json;
use uuid::Uuid;

/// Watches of this world break at any time, and its users delete most of the few pods behind their back: what the brakes
/// make of that is for `brakes.rs`.
fn config() -> Config {
    Config {
        allow_mass_delete: true,
        ..common::config()
    }
}

/// xorshift64*: a history is its seed.
pub struct Dice(u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() >> 33).unwrap() % n.max(1)
    }

    pub fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }
}

fn kind_of(news: &KubeEvent) -> Kind {
    match news {
        KubeEvent::Apply(object) => object.key().kind,
        KubeEvent::Delete { key, .. } => key.kind,
        KubeEvent::Begin(kind) | KubeEvent::End(kind) | KubeEvent::Asked { kind, .. } => *kind,
    }
}

/// One process: an engine and the queues of its adapters.
pub struct Process {
    pub engine: Engine,
    pub config: Config,
    /// What each kind's watch has to say: none knows how far another is.
    pub watches: BTreeMap<Kind, VecDeque<Event>>,
    pub nb: VecDeque<Event>,
    pub other: VecDeque<Event>,
    pub effects: Vec<Effect>,
    pub wake: Option<Timestamp>,
}

pub struct World {
    pub dice: Dice,
    pub now: Timestamp,
    pub kube: Kube,
    pub nb: Database,
    pub sb: Database,
    pub processes: Vec<Process>,
    /// Requests whose sender has given up on them, and that are carried out yet.
    pub late: Vec<(usize, Effect)>,
    pub holder: usize,
    pub until: Timestamp,
    pub calm: bool,
    /// What pods were told: uid to address.
    pub told: BTreeMap<String, String>,
    pub counter: usize,
    pub log: Vec<String>,
}

impl World {
    pub fn new(seed: u64) -> Self {
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
            watches: BTreeMap::new(),
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

    pub fn node(&mut self, name: &str) {
        let address = format!("192.168.1.4{}", &name[1..]);
        let status = json!({ "addresses": [{ "type": "InternalIP", "address": address }] });
        self.kube.put(
            ObjectKey::cluster(Kind::Node, name),
            json!({ "metadata": {}, "status": status }),
        );
    }

    /// A process begins.
    pub fn boot(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.engine = Engine::new(process.config.clone(), self.now);
        process.effects.clear();
        process.other.clear();
        process.wake = None;
        process.watches.clear();
        for kind in Kind::ALL {
            let begin = Event::Kube(KubeEvent::Begin(kind));
            process.watches.insert(kind, VecDeque::from([begin]));
        }
        process.nb = VecDeque::from([
            Event::Nb(ReplicaEvent::Connected(None)),
            Event::Nb(ReplicaEvent::Deltas(self.nb.snapshot())),
            Event::Nb(ReplicaEvent::Synced),
            Event::Sb(ReplicaEvent::Connected(None)),
            Event::Sb(ReplicaEvent::Synced),
        ]);
    }

    /// The holder of the lease renews it.
    pub fn renew(&mut self) {
        self.until = self.now + SignedDuration::from_secs(20);
        let event = Event::Lease(LeaseEvent::Leader { until: self.until });
        self.processes[self.holder].other.push_back(event);
    }

    /// What the watches have to say goes to everybody.
    pub fn publish(&mut self) {
        for news in std::mem::take(&mut self.kube.news) {
            for process in &mut self.processes {
                let queue = process.watches.entry(kind_of(&news)).or_default();
                queue.push_back(Event::Kube(news.clone()));
            }
        }
        self.check_always();
    }

    pub fn deliver(&mut self, index: usize, event: Event) {
        let effects = self.processes[index].engine.step(event, self.now);
        for effect in effects {
            match effect {
                Effect::Wake(at) => self.processes[index].wake = Some(at),
                Effect::Kube { .. }
                | Effect::Nb { .. }
                | Effect::Sb { .. }
                | Effect::List { .. }
                | Effect::Inventory { .. } => {
                    self.processes[index].effects.push(effect);
                }
                Effect::Notice(_) | Effect::Log(_) => {}
            }
        }
    }

    /// One thing happens; `false` if there was nothing to happen.
    pub fn turn(&mut self) -> bool {
        self.publish();
        let index = self.dice.below(self.processes.len());
        let process = &mut self.processes[index];
        if process.wake.is_some_and(|at| at <= self.now) {
            process.wake = None;
            process.other.push_back(Event::Tick);
        }
        let mut choices: Vec<usize> = Vec::new();
        for (choice, there_is) in [
            process.watches.values().any(|queue| !queue.is_empty()),
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
                p.watches.values().any(|queue| !queue.is_empty())
                    || !p.nb.is_empty()
                    || !p.other.is_empty()
                    || !p.effects.is_empty()
            });
        }
        match choices[self.dice.below(choices.len())] {
            0 => {
                let watches = &self.processes[index].watches;
                let full = watches.iter().filter(|(_, queue)| !queue.is_empty());
                let kinds: Vec<Kind> = full.map(|(kind, _)| *kind).collect();
                let kind = kinds[self.dice.below(kinds.len())];
                let queue = self.processes[index].watches.get_mut(&kind).unwrap();
                let event = queue.pop_front().unwrap();
                if event == Event::Kube(KubeEvent::Begin(kind)) {
                    self.list(index, kind);
                }
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

    /// A watch asks for a list after it has said so: what is stored now comes, and what is told from now on.
    fn list(&mut self, index: usize, kind: Kind) {
        self.publish();
        let queue = self.processes[index].watches.entry(kind).or_default();
        let is_asked = |e: &Event| matches!(e, Event::Kube(KubeEvent::Asked { .. }));
        let next = queue.iter().position(is_asked).unwrap_or(queue.len());
        let list = self.kube.list(kind).into_iter().skip(1);
        let later = queue.split_off(next);
        *queue = list.map(Event::Kube).chain(later).collect();
    }

    pub fn carry_out(&mut self, index: usize, effect: &Effect) {
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
            Effect::List { id, kind } => {
                let queue = self.processes[index].watches.entry(*kind).or_default();
                queue.push_back(Event::Kube(KubeEvent::Asked {
                    kind: *kind,
                    id: *id,
                }));
                queue.push_back(Event::Kube(KubeEvent::Begin(*kind)));
            }
            Effect::Inventory { id } => self.processes[index].nb.push_back(Event::Inventory {
                id: *id,
                in_use: Ok(Vec::new()),
            }),
            Effect::Notice(_) | Effect::Log(_) | Effect::Wake(_) => {}
        }
    }

    /// The session breaks before the answer, and is made again.
    pub fn cut(&mut self, index: usize, id: EffectId) {
        let outcome = CommitOutcome::Unknown("session lost".into());
        self.processes[index].nb.extend([
            Event::Committed { id, outcome },
            Event::Nb(ReplicaEvent::Disconnected("cut".into())),
            Event::Nb(ReplicaEvent::Connected(None)),
            Event::Nb(ReplicaEvent::Synced),
        ]);
    }

    pub fn commit(&mut self, index: usize, ops: &[Operation], answer: Option<EffectId>) {
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
    pub fn arrive(&mut self) {
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

    /// Peace: no more disturbance, one leader, and time.
    pub fn rest(&mut self) {
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
}
