//! A hot standby follows what the leader does, in whatever order its watches and its replica show it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use std::collections::{BTreeMap, VecDeque};

use common::Lab;
use engine::{Effect, Engine, Event, Kind, KubeEvent, LeaseEvent, ObjectKey};
use jiff::SignedDuration;
use serde_json::json;

/// What comes in order: the objects of each kind, and the database.
fn stream(event: &Event) -> Option<&'static str> {
    match event {
        Event::Kube(KubeEvent::Apply(object)) => Some(object.key().kind.plural()),
        Event::Kube(KubeEvent::Delete { key, .. }) => Some(key.kind.plural()),
        Event::Nb(_) => Some("the database"),
        _ => None,
    }
}

/// What a leader does about pods and records that go and come, told to a standby in an order that `seed` chooses. It leads
/// then, and finds nothing to do.
fn follow(history: impl Fn(&mut Lab)) {
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "a", "n1");
    lab.pod("default", "b", "n1");
    lab.run();
    let mut start = lab.boot_events();
    start.retain(|event| !matches!(event, Event::Lease(_)));
    lab.record = Some(Vec::new());
    history(&mut lab);
    let steps = lab.record.take().unwrap();
    let news: Vec<Event> = steps
        .into_iter()
        .flat_map(|(_, events, _)| events)
        .collect();
    let backup = lab.nb.all().clone();
    for seed in 1..400_u64 {
        let mut engine = Engine::new(lab.config().clone(), lab.now);
        engine.step_all(start.clone(), lab.now);
        let mut streams: BTreeMap<&str, VecDeque<Event>> = BTreeMap::new();
        for event in &news {
            if let Some(stream) = stream(event) {
                streams.entry(stream).or_default().push_back(event.clone());
            }
        }
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while !streams.is_empty() {
            dice ^= dice >> 12;
            dice ^= dice << 25;
            dice ^= dice >> 27;
            let place = usize::try_from(dice >> 33).unwrap() % streams.len();
            let stream = *streams.keys().nth(place).unwrap();
            let queue = streams.get_mut(stream).unwrap();
            let event = queue.pop_front().unwrap();
            if queue.is_empty() {
                streams.remove(stream);
            }
            let effects = engine.step(event, lab.now);
            let silent = |e: &Effect| matches!(e, Effect::Wake(_) | Effect::Log(_));
            assert!(effects.iter().all(silent), "seed {seed}: {effects:?}");
        }
        let until = lab.now + SignedDuration::from_hours(1);
        let mut effects = engine.step(Event::Lease(LeaseEvent::Leader { until }), lab.now);
        effects.retain(|effect| !matches!(effect, Effect::Wake(_) | Effect::Log(_)));
        let [Effect::Nb { id, ops, .. }] = &effects[..] else {
            panic!("seed {seed}: not an epoch alone: {effects:?}");
        };
        let (outcome, deltas) = lab.nb.transact(ops);
        let deltas = Event::Nb(engine::ReplicaEvent::Deltas(deltas));
        let mut effects = engine.step(deltas, lab.now);
        let committed = Event::Committed { id: *id, outcome };
        effects.extend(engine.step(committed, lab.now));
        effects.retain(|effect| !matches!(effect, Effect::Wake(_) | Effect::Log(_)));
        assert!(effects.is_empty(), "seed {seed}: {effects:#?}");
        lab.nb.put_back(backup.clone());
    }
}

#[test]
fn a_pod_that_is_made_again_with_another_address() {
    follow(|lab| {
        lab.kube.delete(&ObjectKey::pod("default", "b"));
        lab.run();
        let fixed = json!({ "ovn.kubernetes.io/ip_address": "10.16.0.9" });
        lab.pod_with("default", "b", "n2", &fixed);
        lab.run();
        assert_eq!(lab.addresses()["default/b"], "10.16.0.9");
    });
}

#[test]
fn an_address_that_goes_from_one_pod_to_another() {
    follow(|lab| {
        let address = lab.addresses()["default/b"].clone();
        lab.kube.delete(&ObjectKey::pod("default", "b"));
        lab.run();
        let fixed = json!({ "ovn.kubernetes.io/ip_address": address });
        lab.pod_with("default", "c", "n2", &fixed);
        lab.pod("default", "b", "n1");
        lab.run();
        assert_eq!(lab.addresses()["default/c"], address);
        assert_ne!(lab.addresses()["default/b"], address);
    });
}

#[test]
fn a_record_that_is_deleted_and_made_again() {
    follow(|lab| {
        lab.kube.delete(&ObjectKey::cluster(Kind::Ip, "b.default"));
        lab.run();
        assert!(lab.ips().contains(&"b.default".into()));
    });
}

#[test]
fn two_pods_that_change_their_addresses() {
    follow(|lab| {
        let (a, b) = (
            lab.addresses()["default/a"].clone(),
            lab.addresses()["default/b"].clone(),
        );
        for pod in ["a", "b"] {
            lab.kube.delete(&ObjectKey::pod("default", pod));
        }
        lab.run();
        for (pod, address) in [("a", &b), ("b", &a)] {
            let fixed = json!({ "ovn.kubernetes.io/ip_address": address });
            lab.pod_with("default", pod, "n1", &fixed);
        }
        lab.run();
        assert_eq!(lab.addresses()["default/a"], b);
    });
}
