//! A network that the Go implementation wrote is not taken over before somebody agrees to what this version does not do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{Config, Event, InUse, Kind, LeaseEvent, ObjectKey, ReplicaEvent, Role};
use jiff::SignedDuration;
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use serde_json::json;
use uuid::Uuid;

/// A cluster whose network the Go implementation made, with these fields in its default Subnet, and a controller of ours
/// that starts there.
fn lab(fields: &serde_json::Value) -> Lab {
    let mut lab = Lab::new();
    // What is taken over, and what nobody claims.
    for (table, name, uuid) in [
        ("Logical_Router", "ovn-cluster", 10),
        ("Port_Group", "old", 11),
    ] {
        let row = Row::from([
            ("name", name.into()),
            ("external_ids", Datum::map([("vendor", "kube-ovn")])),
        ]);
        lab.nb
            .transact(&[Operation::insert(table, Uuid::from_u128(uuid), row)]);
    }
    lab.nb.commits = 0;
    lab.populate();
    let mut spec = json!({ "cidrBlock": "10.16.0.0/16", "gateway": "10.16.0.1", "default": true });
    let more = fields.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(more);
    lab.kube.put(
        ObjectKey::cluster(Kind::Subnet, "ovn-default"),
        json!({ "metadata": {}, "spec": spec }),
    );
    lab.kube.put(
        ObjectKey::cluster(Kind::Vpc, "ovn-cluster"),
        json!({ "metadata": {}, "spec": {} }),
    );
    lab.restart();
    lab
}

fn vlans() -> InUse {
    InUse {
        what: "vlans.kubeovn.io".into(),
        count: 3,
        example: "blue".into(),
    }
}

/// What a controller waits for that nobody has agreed to.
fn asked(lab: &Lab) -> Vec<String> {
    let waits = lab.engine.waits_for();
    let wanted = |wait: &String| {
        let (_, what) = wait.split_once("does not have: ")?;
        Some(what.to_owned())
    };
    waits.iter().filter_map(wanted).collect()
}

fn refusals(lab: &Lab) -> usize {
    let notices = lab.notices.iter();
    notices.filter(|n| n.reason == "UnsupportedInUse").count()
}

fn has_written(lab: &Lab) -> bool {
    lab.nb.commits > 0 || lab.sb.commits > 0 || !lab.kube.writes.is_empty()
}

#[test]
fn nothing_is_written_while_something_is_in_use_that_is_not_there() {
    let mut lab = lab(&json!({ "private": true, "enableLb": true }));
    lab.inventory = Ok(vec![vlans()]);
    lab.run_for(SignedDuration::from_mins(20));
    lab.pod("default", "a", "n1");
    lab.run_for(SignedDuration::from_mins(20));
    assert!(!has_written(&lab), "{:#?}", lab.trace);
    assert!(matches!(lab.engine.role(), Role::Candidate { .. }));
    assert_eq!(
        asked(&lab),
        [
            "vlans.kubeovn.io (3 objects, such as blue)",
            "enableLb of subnets.kubeovn.io (ovn-default)",
            "private of subnets.kubeovn.io (ovn-default)",
        ]
    );
    assert_eq!(refusals(&lab), 1, "it is said once");
    let told = &lab.notices[0];
    assert_eq!(told.object.to_string(), "Vpc ovn-cluster");
    let vpc = lab.kube.get(&told.object).unwrap();
    assert_eq!(vpc["metadata"]["uid"], told.uid.as_str());
    assert!(
        told.message.contains("private of subnets.kubeovn.io")
            && told.message.contains("--accept-unsupported")
    );
    assert_eq!(lab.engine.report().unsupported.len(), 3);

    // The operator agrees.
    let config = Config {
        accept_unsupported: true,
        ..lab.config().clone()
    };
    lab.restart_with(config);
    lab.run();
    assert_eq!(lab.ports(), ["a.default", "node-n1", "node-n2"]);
    assert!(asked(&lab).is_empty());

    // That was it: nobody is asked again, with or without the flag.
    let config = Config {
        accept_unsupported: false,
        ..lab.config().clone()
    };
    lab.restart_with(config.clone());
    lab.run();
    assert!(matches!(lab.engine.role(), Role::Leader { .. }));
    // Nor if somebody removes the epoch.
    let global = Condition::row(Uuid::from_u128(1));
    let forget = Mutation::delete_keys("external_ids", ["leader-epoch", "leader"]);
    lab.nb
        .transact(&[Operation::mutate("NB_Global", global, vec![forget])]);
    lab.restart_with(config);
    lab.run();
    assert!(matches!(lab.engine.role(), Role::Leader { .. }));
    assert!(asked(&lab).is_empty());
}

#[test]
fn it_goes_on_when_nothing_is_in_the_way_any_more() {
    let mut lab = lab(&json!({ "private": true }));
    lab.inventory = Ok(vec![vlans()]);
    lab.run_for(SignedDuration::from_secs(5));
    assert_eq!(asked(&lab).len(), 2);
    lab.inventory = Ok(Vec::new());
    lab.run_for(SignedDuration::from_secs(60));
    assert_eq!(asked(&lab), ["private of subnets.kubeovn.io (ovn-default)"]);
    assert_eq!(refusals(&lab), 2);
    assert!(!has_written(&lab));
    let subnet = ObjectKey::cluster(Kind::Subnet, "ovn-default");
    lab.kube.edit(&subnet, |subnet| {
        subnet["spec"]["private"] = false.into();
    });
    lab.run_for(SignedDuration::from_secs(60));
    assert!(asked(&lab).is_empty());
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}

#[test]
fn what_nobody_can_list_is_not_taken_for_nothing() {
    let mut lab = lab(&json!({}));
    lab.inventory = Err("listing vlans.kubeovn.io: forbidden".into());
    lab.run_for(SignedDuration::from_secs(60));
    assert!(!has_written(&lab));
    let waits = lab.engine.waits_for();
    assert!(
        waits.len() == 1 && waits[0].contains("listing vlans.kubeovn.io: forbidden"),
        "{waits:?}"
    );
    let said = lab.trace.iter().filter(|line| line.contains("forbidden"));
    assert_eq!(said.count(), 1);
    lab.inventory = Ok(Vec::new());
    lab.run_for(SignedDuration::from_secs(10));
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
    assert!(lab.engine.waits_for().is_empty());
}

#[test]
fn another_process_asks_for_itself() {
    let mut lab = lab(&json!({ "private": true }));
    lab.run_for(SignedDuration::from_secs(5));
    assert_eq!(asked(&lab).len(), 1);
    lab.event(Event::Lease(LeaseEvent::Standby));
    lab.run_for(SignedDuration::from_secs(5));
    assert!(
        asked(&lab).is_empty(),
        "a standby waits for nobody's consent"
    );
    lab.lead();
    lab.run_for(SignedDuration::from_secs(5));
    assert_eq!(asked(&lab).len(), 1);
    assert!(!has_written(&lab));
}

#[test]
fn a_database_with_nothing_of_the_go_implementation_is_nobodys() {
    let mut lab = Lab::new();
    lab.inventory = Ok(vec![vlans()]);
    let theirs = Row::from([("name", "theirs".into())]);
    lab.nb.transact(&[Operation::insert(
        "Logical_Switch",
        Uuid::from_u128(12),
        theirs,
    )]);
    let deltas = lab.nb.snapshot();
    lab.event(Event::Nb(ReplicaEvent::Deltas(deltas)));
    lab.populate();
    lab.run();
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
    assert!(!lab.trace.contains(&"inventory".to_owned()));
}
