//! Two leaders and one chassis: what a leader that slept decided does not happen to a node that was made anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{CommitOutcome, Effect, Engine, Event, Kind, LeaseEvent, ObjectKey};
use jiff::SignedDuration;
use ovsdb::wire::{Condition, Datum, Operation, Row};
use uuid::Uuid;

const CHASSIS: Uuid = Uuid::from_u128(0xc4a5);

fn node(lab: &mut Lab) {
    lab.node("n1", "192.168.1.41");
    lab.kube
        .edit(&ObjectKey::cluster(Kind::Node, "n1"), |node| {
            node["metadata"]["annotations"]["ovn.kubernetes.io/chassis"] = "one".into();
        });
}

/// A leader that was about to remove the chassis of a deleted node when it fell asleep; its transaction.
fn asleep() -> (Lab, Vec<Operation>) {
    let mut lab = Lab::new();
    lab.record = Some(Vec::new());
    lab.restart();
    node(&mut lab);
    let row = Row::from([("name", "one".into()), ("hostname", "n1".into())]);
    lab.southbound(&[Operation::insert("Chassis", CHASSIS, row)]);
    lab.run();
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n1"));
    while !lab.effects().any(|e| matches!(e, Effect::Sb { .. })) {
        assert!(lab.turn(), "it never decided");
    }
    let decided = lab.intercept().into_iter().find_map(|effect| match effect {
        Effect::Sb { ops, .. } => Some(ops),
        _ => None,
    });
    (lab, decided.unwrap())
}

/// Another process takes over that has seen all that the first one saw.
fn take_over(lab: &mut Lab) {
    let mut standby = Engine::new(lab.config().clone(), lab.now);
    for (now, mut events, _) in lab.record.take().unwrap() {
        events.retain(|event| matches!(event, Event::Kube(_) | Event::Nb(_) | Event::Sb(_)));
        standby.step_all(events, now);
    }
    lab.engine = standby;
    let until = lab.now + SignedDuration::from_hours(1);
    lab.event(Event::Lease(LeaseEvent::Leader { until }));
}

#[test]
fn a_leader_that_slept_does_not_remove_the_chassis_of_a_node_that_is_back() {
    let (mut lab, decided) = asleep();
    take_over(&mut lab);
    // The node is back under its name and with its chassis before anybody removed that.
    node(&mut lab);
    lab.run();
    assert_eq!(lab.sb.rows("Chassis").count(), 1);
    let (outcome, _) = lab.sb.transact(&decided);
    assert_eq!(outcome, CommitOutcome::WaitFailed { op: 0 });
    assert_eq!(lab.sb.rows("Chassis").count(), 1);
}

const MOMENT: SignedDuration = SignedDuration::from_secs(5);

fn registers(lab: &mut Lab, uuid: u128, name: &str, hostname: &str) {
    let row = Row::from([("name", name.into()), ("hostname", hostname.into())]);
    lab.southbound(&[Operation::insert("Chassis", Uuid::from_u128(uuid), row)]);
}

fn names(lab: &Lab) -> Vec<String> {
    let rows = lab.sb.rows("Chassis");
    let mut names: Vec<String> = rows.map(|(_, row)| row.str("name").into()).collect();
    names.sort();
    names
}

/// A node whose chassis has our mark, and a chassis of somebody else.
fn with_a_stranger() -> Lab {
    let mut lab = Lab::new();
    lab.restart();
    node(&mut lab);
    registers(&mut lab, 1, "one", "n1");
    registers(&mut lab, 2, "stranger", "somewhere");
    lab.run();
    lab
}

#[test]
fn a_machine_that_runs_on_after_its_node_was_deleted_registers_in_vain() {
    let mut lab = with_a_stranger();
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n1"));
    lab.run_for(MOMENT);
    assert_eq!(names(&lab), ["stranger"]);
    let mut rows = 10..;
    let mut back = |lab: &mut Lab| {
        registers(lab, rows.next().unwrap(), "one", "n1");
        lab.run_for(MOMENT);
        assert_eq!(
            names(lab),
            ["one", "stranger"],
            "not at once, or it would be back at once"
        );
    };
    for minutes in [1, 2, 4] {
        back(&mut lab);
        let half = SignedDuration::from_secs(30);
        lab.run_for(SignedDuration::from_mins(minutes) - half);
        assert_eq!(names(&lab), ["one", "stranger"]);
        lab.run_for(half);
        assert_eq!(names(&lab), ["stranger"]);
    }
    back(&mut lab);
    // Another process knows it by its mark.
    lab.restart();
    lab.run_for(MOMENT);
    assert_eq!(names(&lab), ["stranger"]);
    // The machine joins the cluster again.
    back(&mut lab);
    node(&mut lab);
    lab.run_for(SignedDuration::from_hours(2));
    assert_eq!(names(&lab), ["one", "stranger"]);
}

#[test]
fn a_machine_that_was_installed_anew_before_its_node_is_there_is_marked_by_its_hostname() {
    let mut lab = with_a_stranger();
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n1"));
    lab.run_for(MOMENT);
    registers(&mut lab, 10, "two", "n1");
    lab.run_for(MOMENT);
    assert_eq!(names(&lab), ["stranger"]);
    // Nobody knows whether it will be a node; it registers again if it runs.
    registers(&mut lab, 11, "two", "n1");
    lab.run_for(MOMENT);
    lab.node("n1", "192.168.1.41");
    lab.run();
    lab.run_for(SignedDuration::from_hours(1));
    assert_eq!(names(&lab), ["stranger", "two"]);
}

#[test]
fn a_removal_that_failed_is_tried_again_soon() {
    let mut lab = with_a_stranger();
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n1"));
    while !lab.effects().any(|e| matches!(e, Effect::Sb { .. })) {
        assert!(lab.turn(), "it never decided");
    }
    let id = lab.intercept().into_iter().find_map(|effect| match effect {
        Effect::Sb { id, .. } => Some(id),
        _ => None,
    });
    let outcome = CommitOutcome::Retry("the session was lost".into());
    lab.event(Event::Committed {
        id: id.unwrap(),
        outcome,
    });
    lab.run_for(SignedDuration::from_secs(2));
    assert_eq!(names(&lab), ["stranger"]);
}

#[test]
fn what_is_as_it_was_looked_at_goes() {
    let (mut lab, decided) = asleep();
    let (outcome, _) = lab.sb.transact(&decided);
    assert_eq!(outcome, CommitOutcome::Committed);
    assert_eq!(lab.sb.rows("Chassis").count(), 0);
}

#[test]
fn a_chassis_that_changed_meanwhile_is_looked_at_again() {
    let (mut lab, decided) = asleep();
    let row = Row::from([("other_config", Datum::map([("is-remote", "true")]))]);
    let remote = Operation::update("Chassis", Condition::row(CHASSIS), row);
    lab.southbound(&[remote]);
    // The leader's own transaction fails, and it sees why.
    let (outcome, _) = lab.sb.transact(&decided);
    assert_eq!(outcome, CommitOutcome::WaitFailed { op: 0 });
    lab.restart();
    lab.run();
    assert_eq!(
        lab.sb.rows("Chassis").count(),
        1,
        "a chassis of another availability zone is not ours to remove"
    );
}
