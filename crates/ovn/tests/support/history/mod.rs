//! Histories: what units want, what people do to the database, and what must hold all the time.

use std::collections::{BTreeMap, BTreeSet};

use ovn::{Database, Diff, Fragment, Identity, Options};
use ovsdb::RowDelta;
use ovsdb::wire::{Datum, Operation, Row};
use proptest::prelude::*;
use uuid::Uuid;

mod fragments;
mod humans;

use super::Memory;
use fragments::{policy, port, service, subnet, vpc};
use humans::humans;

pub use humans::Human;

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

#[derive(Clone, Debug)]
pub enum Event {
    Vpc(Option<u8>),
    Subnet(u8, Option<u8>),
    Port(u8, Option<(u8, u8, u8)>),
    /// Another unit wants the same port, elsewhere.
    Twin(u8, Option<(u8, u8, u8)>),
    Policy(u8, Option<(u8, u8)>),
    Service(u8, Option<u8>),
    /// Somebody edits the database.
    Human(Human),
    Flush(usize),
}

pub fn events() -> impl Strategy<Value = Vec<Event>> {
    let opt = |s: std::ops::Range<u8>| proptest::option::weighted(0.8, s);
    let human = humans();
    let event = prop_oneof![
        1 => opt(0..3).prop_map(Event::Vpc),
        3 => (0..3u8, opt(0..6)).prop_map(|(i, v)| Event::Subnet(i, v)),
        6 => (0..4u8, proptest::option::weighted(0.8, (0..3u8, 0..9u8, 0..16u8)))
            .prop_map(|(i, p)| Event::Port(i, p)),
        1 => (0..4u8, proptest::option::weighted(0.5, (0..3u8, 0..9u8, 0..16u8)))
            .prop_map(|(i, p)| Event::Twin(i, p)),
        3 => (0..3u8, proptest::option::weighted(0.8, (0..6u8, 0..5u8)))
            .prop_map(|(i, p)| Event::Policy(i, p)),
        2 => (0..4u8, opt(0..6)).prop_map(|(i, v)| Event::Service(i, v)),
        5 => human.prop_map(Event::Human),
        4 => prop_oneof![Just(1usize), Just(4), Just(500)].prop_map(Event::Flush),
    ];
    proptest::collection::vec(event, 1..40)
}

/// Where transactions go.
pub trait Backend {
    fn memory(&self) -> &Memory;
    fn transact(&mut self, ops: &[Operation]) -> Result<Vec<RowDelta>, String>;
}

impl Backend for Memory {
    fn memory(&self) -> &Memory {
        self
    }

    fn transact(&mut self, ops: &[Operation]) -> Result<Vec<RowDelta>, String> {
        self.run(ops)
    }
}

pub struct World<B> {
    backend: B,
    pub diff: Diff<String>,
    next: u128,
}

impl<B: Backend> World<B> {
    pub fn new(backend: B) -> Self {
        let mut diff = Diff::new(Database::Northbound, Identity::new(CLUSTER));
        diff.support(&backend.memory().schema);
        let mut world = Self {
            backend,
            diff,
            next: 1,
        };
        world.others(&[Operation::insert(
            "NB_Global",
            Uuid::from_u128(0xff),
            Row::from([("options", Datum::map([("northd_probe_interval", "5000")]))]),
        )]);
        world
    }

    fn uuid(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    /// A transaction of somebody else; the database may refuse it.
    fn others(&mut self, ops: &[Operation]) {
        if let Ok(deltas) = self.backend.transact(ops) {
            self.diff.apply(&deltas);
        }
    }

    pub fn step(&mut self, event: &Event) {
        let mut set = |unit: String, fragment: Option<Fragment>| match fragment {
            Some(fragment) => self.diff.set(unit, fragment),
            None => self.diff.remove(&unit),
        };
        match event {
            Event::Vpc(v) => set("vpc".into(), v.map(vpc)),
            Event::Subnet(i, v) => set(format!("subnet/{i}"), v.map(|v| subnet(*i, v))),
            Event::Port(i, p) => set(format!("port/{i}"), p.map(|(s, a, g)| port(*i, s, a, g))),
            // The one sorts before, the other behind the port that it copies.
            Event::Twin(i, p) => set(
                format!("{}/{i}", if i % 2 == 0 { "a" } else { "z" }),
                p.map(|(s, a, g)| port(*i, s, a, g)),
            ),
            Event::Policy(i, p) => set(format!("policy/{i}"), p.map(|(r, a)| policy(*i, r, a))),
            Event::Service(i, v) => set(format!("service/{i}"), v.map(|v| service(*i, v))),
            Event::Human(human) => self.human(human),
            Event::Flush(max_ops) => self.flush(*max_ops),
        }
    }

    fn nth(&self, n: usize) -> Option<(String, Uuid, Row)> {
        let all: Vec<_> = self.backend.memory().all().collect();
        let (table, uuid, row) = all.get(n % all.len().max(1))?;
        Some(((*table).to_owned(), *uuid, (*row).clone()))
    }

    /// Rows that are not ours, without what goes by itself when rows of ours go.
    fn foreign(&self) -> BTreeMap<Uuid, Row> {
        let wanted: BTreeSet<Uuid> = self
            .diff
            .rows()
            .into_iter()
            .filter(|(key, ..)| self.diff.wanted(key).is_some())
            .map(|(_, uuid, _)| uuid)
            .collect();
        self.backend
            .memory()
            .all()
            .filter(|(table, uuid, row)| {
                *table != "NB_Global"
                    && row.map_str("external_ids", "kube-ovn.io/source").is_none()
                    && self.backend.memory().schema.tables[*table]
                        .columns
                        .contains_key("external_ids")
                    && !wanted.contains(uuid)
                    && !Self::named_by_us(*uuid)
            })
            .map(|(_, uuid, row)| {
                let mut row = row.clone();
                for column in ["ports", "acls", "static_routes", "policies"] {
                    row.remove(column);
                }
                (uuid, row)
            })
            .collect()
    }

    /// The load balancers of others that switches have, without those that go with their switch.
    fn attached(&self) -> BTreeMap<Uuid, BTreeSet<Uuid>> {
        let balancers = self.backend.memory().rows("Load_Balancer");
        let others = |uuid: &Uuid| balancers[uuid].str("name") == "other";
        let switches = self.backend.memory().rows("Logical_Switch");
        switches
            .iter()
            .map(|(uuid, row)| (*uuid, row.uuids("load_balancer").filter(others).collect()))
            .collect()
    }

    /// A row that we made and somebody stripped of its provenance; if it is wanted it is repaired.
    fn named_by_us(uuid: Uuid) -> bool {
        uuid.get_version_num() == 5
    }

    pub fn flush(&mut self, max_ops: usize) {
        let before = self.foreign();
        let attached = self.attached();
        let options = Options {
            max_ops,
            ..Options::default()
        };
        // What was held may come once the reason for it has gone with the first plan.
        let mut texts = Vec::new();
        for round in 0.. {
            let plan = self.diff.plan(&options);
            assert_eq!(plan, self.diff.plan(&options), "plans are deterministic");
            texts.push(plan.to_string());
            if plan.is_empty() {
                if plan.held.is_empty() {
                    assert_eq!(
                        self.diff.describe(),
                        BTreeSet::new(),
                        "{}",
                        texts.join("and then ")
                    );
                    assert!(self.diff.pending_units().is_empty());
                }
                break;
            }
            assert!(round < 3, "no end: {}", texts.join("and then "));
            for batch in &plan.batches {
                let deltas = self
                    .backend
                    .transact(&batch.ops)
                    .unwrap_or_else(|e| panic!("{e}\n{plan}"));
                self.diff.apply(&deltas);
                assert!(self.diff.audit().is_empty());
            }
            if plan.held.is_empty() {
                let again = self.diff.plan(&options);
                assert!(again.batches.is_empty(), "{plan}and then {again}");
            }
        }
        let text = texts.join("and then ");
        let mut places = BTreeMap::new();
        for switch in self.backend.memory().rows("Logical_Switch").values() {
            for port in switch.uuids("ports") {
                *places.entry(port).or_insert(0) += 1;
            }
        }
        assert!(
            places.values().all(|n| *n == 1),
            "a port in two switches: {text}"
        );
        let still = self.attached();
        for (switch, balancers) in attached {
            assert!(still.get(&switch).is_none_or(|b| *b == balancers), "{text}");
        }
        let after = self.foreign();
        for (uuid, row) in before {
            assert_eq!(after.get(&uuid), Some(&row), "{text}");
        }
    }
}

/// Plays a history and checks after each event what must always hold.
pub fn check<B: Backend>(backend: B, events: &[Event]) -> B {
    let mut world = World::new(backend);
    for event in events {
        world.step(event);
        assert_eq!(world.diff.audit(), Vec::<String>::new());
        // Piece by piece there is nothing to find either.
        let mut from = Some(0);
        while let Some(at) = from {
            let (next, found) = world.diff.recheck(at, 16);
            assert_eq!(found, Vec::<String>::new());
            from = next;
        }
    }
    world.flush(500);
    if !world.diff.plan(&Options::default()).held.is_empty() {
        return world.backend;
    }
    // Everything that units want says where it comes from.
    for (key, uuid, owner) in world.diff.rows() {
        let Some((unit, row)) = world.diff.wanted(&key) else {
            continue;
        };
        if owner == ovn::Owner::Ours {
            let (_, _, wire) = world.diff.row(&key).unwrap();
            assert!(
                row.external_id("kube-ovn.io/source")
                    == wire.map_str("external_ids", "kube-ovn.io/source"),
                "{unit} {uuid}"
            );
        }
    }
    world.backend
}
