//! What somebody deletes goes. What is merely missing stays until somebody agrees, in small clusters first of all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use std::collections::BTreeSet;

use common::Lab;
use engine::{Engine, Event, Kind, LeaseEvent, ObjectKey, Role};
use jiff::SignedDuration;
use ovsdb::wire::{Operation, Row};
use serde_json::json;
use uuid::Uuid;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Three nodes with their chassis, twelve pods, four namespaces, a Subnet made by hand.
fn small_cluster() -> Lab {
    let mut lab = Lab::new();
    populate(&mut lab);
    lab
}

fn populate(lab: &mut Lab) {
    lab.populate();
    lab.node("n3", "192.168.1.43");
    lab.namespace("kube-system", &json!({}));
    lab.namespace("apart", &json!({}));
    lab.kube.put(
        ObjectKey::cluster(Kind::Subnet, "by-hand"),
        json!({ "spec": { "cidrBlock": "10.18.0.0/24", "gateway": "10.18.0.1", "namespaces": ["apart"] } }),
    );
    for node in NODES {
        let row = Row::from([("name", chassis(node).into()), ("hostname", node.into())]);
        let uuid = Uuid::new_v5(&Uuid::nil(), node.as_bytes());
        lab.southbound(&[Operation::insert("Chassis", uuid, row)]);
        lab.kube
            .edit(&ObjectKey::cluster(Kind::Node, node), |object| {
                object["metadata"]["annotations"]["ovn.kubernetes.io/chassis"] =
                    chassis(node).into();
            });
    }
    lab.run();
    for (number, node) in (0..12).zip(NODES.into_iter().cycle()) {
        let namespace = ["default", "test-ns", "apart"][number / 4];
        lab.pod(namespace, &format!("p{number:02}"), node);
    }
    lab.run();
    assert_eq!(lab.ports().len(), 15);
}

fn chassis(node: &str) -> String {
    format!("chassis-of-{node}")
}

fn all(lab: &Lab, kind: Kind) -> Vec<ObjectKey> {
    lab.kube.of(kind).map(|(key, _)| key.clone()).collect()
}

fn lose_all(lab: &mut Lab, kind: Kind) {
    for key in all(lab, kind) {
        lab.kube.lose(&key);
    }
}

/// Rows of the network: all but the epoch's.
fn rows(lab: &Lab) -> BTreeSet<String> {
    let rows = lab.nb.all().iter();
    rows.filter(|((table, _), _)| table != "NB_Global")
        .map(|(key, row)| format!("{key:?} {row:?}"))
        .collect()
}

fn chassis_names(lab: &Lab) -> Vec<String> {
    let mut names: Vec<_> = lab
        .sb
        .rows("Chassis")
        .map(|(_, row)| row.str("name").to_owned())
        .collect();
    names.sort();
    names
}

fn held(lab: &Lab) -> Vec<(String, usize)> {
    let held = lab.engine.held();
    held.iter().map(|h| (h.table.to_string(), h.rows)).collect()
}

fn consent(lab: &mut Lab) {
    let rows = held(lab).iter().map(|(_, rows)| rows).sum();
    lab.event(Event::ReleaseBrakes { rows });
    lab.run();
}

fn told(lab: &Lab) -> usize {
    let told = lab.notices.iter().filter(|n| n.reason == "MassDeleteHeld");
    told.count()
}

#[test]
fn a_list_that_comes_back_empty_changes_nothing() {
    for kind in [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::Subnet,
        Kind::Ip,
    ] {
        let mut lab = small_cluster();
        let before = rows(&lab);
        let kept: Vec<_> = lab
            .kube
            .of(kind)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        let records = lab.ips();
        lose_all(&mut lab, kind);
        lab.list_again(kind);
        lab.run();
        assert_eq!(rows(&lab), before, "{kind:?}");
        assert_eq!(lab.ips(), records, "{kind:?}");
        assert_eq!(chassis_names(&lab).len(), 3, "{kind:?}");
        if kind == Kind::Ip {
            // What running pods use is written again.
            assert!(held(&lab).is_empty());
            continue;
        }
        assert_eq!(held(&lab), [(kind.plural().to_owned(), kept.len())]);
        assert_eq!(told(&lab), 1, "{kind:?}");
        let lines = lab.engine.held_deletes();
        let first = &kept[0].0;
        assert!(
            lines.iter().any(|line| line.contains(&first.to_string())),
            "{lines:#?}"
        );

        // A new object is served meanwhile, and another empty list is no other case.
        lab.node("n4", "192.168.1.44");
        lab.run();
        lab.list_again(kind);
        lab.run();
        assert!(lab.ports().contains(&"node-n4".to_owned()), "{kind:?}");

        // They come back.
        for (key, object) in kept {
            lab.kube.put(key, object);
        }
        lab.run();
        assert!(held(&lab).is_empty(), "{kind:?}");
        assert_eq!(lab.ports().len(), 16, "{kind:?}");
        assert_eq!(told(&lab), 1, "{kind:?}");
    }
}

#[test]
fn a_loss_in_slices_is_one_loss() {
    let mut lab = small_cluster();
    for slice in all(&lab, Kind::Pod).chunks(2) {
        for pod in slice {
            lab.kube.lose(pod);
        }
        lab.list_again(Kind::Pod);
        lab.run();
        lab.run_for(SignedDuration::from_mins(5));
    }
    assert_eq!(lab.ports().len(), 11, "four may be an interruption");
    assert_eq!(held(&lab), [("pods".to_owned(), 8)]);
    // All kinds, one after the other.
    let before = rows(&lab);
    for kind in [Kind::Subnet, Kind::Node, Kind::Namespace] {
        lose_all(&mut lab, kind);
        lab.list_again(kind);
        lab.run();
        assert_eq!(rows(&lab), before, "{kind:?}");
    }
    assert_eq!(chassis_names(&lab).len(), 3);

    // In three hours, three interruptions.
    let mut lab = small_cluster();
    for slice in all(&lab, Kind::Pod)[..9].chunks(3) {
        for pod in slice {
            lab.kube.lose(pod);
        }
        lab.list_again(Kind::Pod);
        lab.run();
        lab.run_for(SignedDuration::from_mins(61));
    }
    assert_eq!(lab.ports().len(), 6);
    assert!(held(&lab).is_empty());
}

#[test]
fn what_is_agreed_to_goes_and_nothing_else() {
    let mut lab = small_cluster();
    lose_all(&mut lab, Kind::Pod);
    lab.list_again(Kind::Pod);
    lab.run();
    lab.event(Event::ReleaseBrakes { rows: 11 });
    lab.run();
    assert_eq!(lab.ports().len(), 15, "consent to less is none");
    consent(&mut lab);
    assert_eq!(lab.ports(), ["node-n1", "node-n2", "node-n3"]);
    assert_eq!(lab.ips(), ["node-n1", "node-n2", "node-n3"]);
    assert!(held(&lab).is_empty());

    // It was consent to that, not to the next time.
    for pod in 0..6 {
        lab.pod("default", &format!("q{pod}"), "n1");
    }
    lab.run();
    lose_all(&mut lab, Kind::Pod);
    lab.list_again(Kind::Pod);
    lab.run();
    assert_eq!(lab.ports().len(), 9);
    assert_eq!(told(&lab), 2);
}

#[test]
fn what_is_deleted_goes_however_much_it_is() {
    let mut lab = Lab::with(engine::Config {
        brakes: ovn::Brakes {
            rows: 3,
            percent: 30,
        },
        ..common::config()
    });
    populate(&mut lab);
    // Somebody else's objects are missing at the same time.
    for key in all(&lab, Kind::Subnet) {
        lab.kube.lose(&key);
    }
    lab.list_again(Kind::Subnet);
    lab.run();
    assert_eq!(held(&lab).len(), 1);
    for pod in &all(&lab, Kind::Pod)[1..] {
        lab.kube.delete(pod);
    }
    for node in ["n2", "n3"] {
        lab.kube.delete(&ObjectKey::cluster(Kind::Node, node));
    }
    lab.news_at_once();
    lab.run();
    assert_eq!(lab.ports(), ["node-n1", "p08.apart"]);
    assert_eq!(chassis_names(&lab), ["chassis-of-n1"]);
    assert_eq!(held(&lab), [("subnets".to_owned(), 4)]);
}

#[test]
fn pods_that_were_going_are_not_missing() {
    let mut lab = small_cluster();
    for pod in all(&lab, Kind::Pod) {
        lab.kube.edit(&pod, |object| {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            object["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        });
    }
    lab.run();
    lose_all(&mut lab, Kind::Pod);
    lab.list_again(Kind::Pod);
    lab.run();
    assert_eq!(lab.ports().len(), 3);
    assert!(held(&lab).is_empty());
}

#[test]
fn a_process_that_starts_and_is_shown_nothing_deletes_nothing() {
    let every = [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::Subnet,
        Kind::Ip,
        Kind::Vpc,
    ];
    let cases = every.iter().map(|kind| vec![*kind]);
    for kinds in cases.chain([every.to_vec()]) {
        let mut lab = small_cluster();
        let (ports, records) = (lab.ports(), lab.ips());
        let uuids = |lab: &Lab| -> BTreeSet<_> { lab.nb.all().keys().cloned().collect() };
        let before = uuids(&lab);
        for kind in &kinds {
            lose_all(&mut lab, *kind);
        }
        lab.restart();
        lab.run();
        let lost: Vec<_> = before.difference(&uuids(&lab)).cloned().collect();
        assert!(lost.is_empty(), "{kinds:?}: {lost:#?}");
        assert_eq!(lab.ports(), ports, "{kinds:?}");
        assert_eq!(chassis_names(&lab).len(), 3, "{kinds:?}");
        if kinds == [Kind::Pod] || kinds == [Kind::Subnet] {
            assert!(!held(&lab).is_empty(), "{kinds:?}");
            assert_eq!(
                lab.ips(),
                records,
                "{kinds:?}: an address would be given away"
            );
            assert_eq!(told(&lab), 1, "{kinds:?}");
        }
    }
}

#[test]
fn a_start_believes_that_a_few_are_gone() {
    let mut lab = small_cluster();
    for pod in &all(&lab, Kind::Pod)[..4] {
        lab.kube.lose(pod);
    }
    lab.kube.lose(&ObjectKey::cluster(Kind::Node, "n3"));
    lab.restart();
    lab.run();
    assert_eq!(lab.ports().len(), 10);
    assert_eq!(lab.ips().len(), 10);
    assert_eq!(chassis_names(&lab), ["chassis-of-n1", "chassis-of-n2"]);
    assert!(held(&lab).is_empty());
}

#[test]
fn consent_after_a_start_lets_go() {
    let mut lab = small_cluster();
    lose_all(&mut lab, Kind::Pod);
    lab.restart();
    lab.run();
    assert_eq!(lab.ports().len(), 15);
    consent(&mut lab);
    assert_eq!(lab.ports().len(), 3);
    assert_eq!(lab.ips().len(), 3);
    assert!(held(&lab).is_empty());
}

#[test]
fn what_is_deleted_after_such_a_start_goes() {
    let mut lab = small_cluster();
    let lost = all(&lab, Kind::Pod);
    for pod in &lost[..11] {
        lab.kube.lose(pod);
    }
    lab.restart();
    lab.run();
    assert_eq!(lab.ports().len(), 15);
    lab.kube.delete(&lost[11]);
    lab.run();
    assert_eq!(lab.ports().len(), 14);
    assert_eq!(lab.ips().len(), 14);
}

#[test]
fn chassis_of_nodes_that_nobody_deleted_stay() {
    let mut lab = small_cluster();
    lose_all(&mut lab, Kind::Node);
    lab.restart();
    lab.run();
    assert_eq!(chassis_names(&lab).len(), 3);
    assert!(held(&lab).contains(&("Chassis".to_owned(), 3)));
    let lines = lab.engine.held_deletes();
    assert!(
        lines.contains(&"- Chassis chassis-of-n2".to_owned()),
        "{lines:#?}"
    );
    consent(&mut lab);
    assert!(chassis_names(&lab).is_empty());
    assert!(held(&lab).is_empty());

    // Deleted while somebody looked, and reinstalled.
    let mut lab = small_cluster();
    for node in ["n1", "n2"] {
        lab.kube.delete(&ObjectKey::cluster(Kind::Node, node));
    }
    lab.news_at_once();
    lab.run();
    assert_eq!(chassis_names(&lab), ["chassis-of-n3"]);
}

#[test]
fn the_standby_keeps_what_is_missing_and_follows_the_leader() {
    for agreed in [false, true] {
        let mut lab = Lab::new();
        // The other process sees all that this one sees.
        lab.record = Some(Vec::new());
        lab.restart();
        populate(&mut lab);
        lose_all(&mut lab, Kind::Pod);
        lab.list_again(Kind::Pod);
        lab.run();
        if agreed {
            consent(&mut lab);
        }
        let (ports, before) = (lab.ports(), rows(&lab));
        let mut standby = Engine::new(lab.config().clone(), lab.now);
        for (now, mut events, _) in lab.record.take().unwrap() {
            events.retain(|event| matches!(event, Event::Kube(_) | Event::Nb(_) | Event::Sb(_)));
            standby.step_all(events, now);
        }
        assert_eq!(standby.role(), Role::Standby);
        lab.engine = standby;
        let until = lab.now + SignedDuration::from_hours(1);
        lab.event(Event::Lease(LeaseEvent::Leader { until }));
        lab.run();
        assert_eq!(lab.ports().len(), if agreed { 3 } else { 15 });
        assert_eq!((lab.ports(), rows(&lab)), (ports, before));
        assert_eq!(held(&lab).is_empty(), agreed);
        if !agreed {
            consent(&mut lab);
            assert_eq!(lab.ports().len(), 3);
        }
    }
}

#[test]
fn allow_mass_delete_believes_everything() {
    let mut lab = Lab::with(engine::Config {
        allow_mass_delete: true,
        ..common::config()
    });
    populate(&mut lab);
    lose_all(&mut lab, Kind::Pod);
    lab.list_again(Kind::Pod);
    lab.run();
    assert_eq!(lab.ports().len(), 3);
}
