//! Who may write, and how it is made sure: epochs, fences, databases that are put back, leases that run out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{
    CommitKind, Effect, Engine, Event, Kind, KubeEvent, LeaseEvent, ObjectKey, ReplicaEvent, Role,
};
use jiff::SignedDuration;
use ovsdb::RowDelta;
use ovsdb::wire::{Condition, Datum, Operation, Row};
use uuid::Uuid;

fn epoch_of(lab: &Lab) -> Option<u64> {
    let (_, row) = lab.nb.rows("NB_Global").next()?;
    row.map_str("external_ids", engine::EPOCH_KEY)?.parse().ok()
}

fn epoch(lab: &Lab) -> u64 {
    epoch_of(lab).unwrap()
}

/// Another leader takes an epoch.
fn usurp(lab: &mut Lab, epoch: u64) -> Vec<RowDelta> {
    let text = epoch.to_string();
    let ids = Datum::map([
        (engine::EPOCH_KEY, text.as_str()),
        (engine::LEADER_KEY, "other"),
    ]);
    let row = Row::from([("external_ids", ids)]);
    let global = Condition::row(Uuid::from_u128(1));
    let (outcome, deltas) = lab
        .nb
        .transact(&[Operation::update("NB_Global", global, row)]);
    assert_eq!(outcome, engine::CommitOutcome::Committed);
    deltas
}

#[test]
fn a_leader_that_did_not_hear_of_its_successor_fails_at_the_database() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    while !lab.effects().any(|e| {
        matches!(
            e,
            Effect::Nb {
                kind: CommitKind::Flush,
                ..
            }
        )
    }) {
        assert!(lab.turn(), "it never flushed");
    }
    // Its transaction is under way when another one takes office; the replica is slow.
    let deltas = usurp(&mut lab, 7);
    while lab.turn() {}
    assert!(matches!(lab.engine.role(), Role::Fenced { .. }));
    assert_eq!(
        lab.ports(),
        ["node-n1", "node-n2"],
        "it wrote under another's epoch"
    );
    assert_eq!(
        lab.engine.report().commits[&(CommitKind::Flush, "fenced")],
        1
    );
    let writes = lab.kube.writes.len();
    lab.pod("default", "b", "n1");
    lab.event(Event::Nb(ReplicaEvent::Deltas(deltas)));
    while lab.turn() {}
    assert_eq!(lab.kube.writes.len(), writes, "it goes on writing");

    // The lease is still ours by the next renewal: then it was an accident, and a new epoch mends it.
    lab.lead();
    lab.run();
    assert_eq!(epoch(&lab), 8);
    assert_eq!(
        lab.ports(),
        ["a.default", "b.default", "node-n1", "node-n2"]
    );
}

#[test]
fn two_candidates_do_not_get_the_same_epoch() {
    let mut lab = Lab::new();
    lab.populate();
    while !lab.effects().any(|e| {
        matches!(
            e,
            Effect::Nb {
                kind: CommitKind::Epoch,
                ..
            }
        )
    }) {
        assert!(lab.turn());
    }
    let deltas = usurp(&mut lab, 1);
    while lab.turn() {}
    assert_eq!(epoch(&lab), 1, "it took over from one that it had not seen");
    assert!(matches!(lab.engine.role(), Role::Candidate { .. }));
    assert_eq!(lab.kube.writes, []);
    lab.event(Event::Nb(ReplicaEvent::Deltas(deltas)));
    lab.run();
    assert_eq!(epoch(&lab), 2, "it gave up");
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}

#[test]
fn a_lease_that_is_not_renewed_ends_by_the_clock() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let until = lab.now + SignedDuration::from_secs(20);
    lab.event(Event::Lease(LeaseEvent::Leader { until }));
    // Nothing happens any more: the timer alone tells.
    lab.run_for(SignedDuration::from_secs(30));
    assert_eq!(lab.engine.role(), Role::Standby);
    let (writes, commits) = (lab.kube.writes.len(), lab.nb.commits);
    lab.pod("default", "a", "n1");
    lab.run();
    assert_eq!((lab.kube.writes.len(), lab.nb.commits), (writes, commits));
    lab.lead();
    lab.run();
    assert_eq!(lab.ports(), ["a.default", "node-n1", "node-n2"]);
}

#[test]
fn a_standby_is_hot_and_writes_nothing() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.event(Event::Lease(LeaseEvent::Standby));
    lab.run();
    let (writes, commits) = (lab.kube.writes.len(), lab.nb.commits);
    lab.pod("default", "a", "n1");
    lab.node("n3", "192.168.1.43");
    lab.run_for(SignedDuration::from_mins(2));
    assert_eq!((lab.kube.writes.len(), lab.nb.commits), (writes, commits));
    lab.trace.clear();
    lab.lead();
    lab.run();
    assert_eq!(lab.ports(), ["a.default", "node-n1", "node-n2", "node-n3"]);
}

#[test]
fn a_database_that_is_put_back_is_brought_up_to_date_under_a_new_epoch() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.run();
    let backup = lab.nb.all().clone();
    for _ in 0..3 {
        lab.restart();
        lab.run();
    }
    lab.pod("default", "b", "n2");
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.run();
    let (before, wanted) = (epoch(&lab), lab.end_state());
    let deltas = lab.nb.put_back(backup);
    assert!(epoch(&lab) < before);
    lab.event(Event::Nb(ReplicaEvent::Deltas(deltas)));
    while lab.turn() {}
    assert!(matches!(lab.engine.role(), Role::Fenced { .. }));
    assert_eq!(
        lab.ports(),
        ["a.default", "node-n1", "node-n2"],
        "it wrote without an epoch"
    );
    lab.lead();
    lab.run();
    assert!(epoch(&lab) > before, "{} was counted before", epoch(&lab));
    assert_eq!(lab.end_state(), wanted);
}

#[test]
fn an_epoch_that_nobody_can_count_on_from_is_no_end() {
    let mut lab = Lab::new();
    usurp(&mut lab, u64::MAX);
    lab.populate();
    lab.restart();
    lab.run();
    assert!(matches!(lab.engine.role(), Role::Leader { .. }));
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}

#[test]
fn an_office_that_was_lost_before_it_was_taken_is_not_taken() {
    let mut lab = Lab::new();
    lab.populate();
    while lab.turn() {
        if epoch_of(&lab) == Some(1) {
            break;
        }
    }
    // Our epoch is committed, the answer is on its way; behind it another leader takes the next one, and the replica is
    // faster than the answer.
    assert!(lab.turn());
    let deltas = usurp(&mut lab, 2);
    lab.at_once(vec![Event::Nb(ReplicaEvent::Deltas(deltas))]);
    while lab.turn() {}
    assert!(
        matches!(lab.engine.role(), Role::Fenced { .. }),
        "{:?}",
        lab.engine.role()
    );
    assert_eq!(lab.kube.writes, []);
}

#[test]
fn nothing_is_done_before_everything_is_known() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.run();
    lab.pod("default", "b", "n1");
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    let events = lab.boot_events();
    let needed = |event: &Event| {
        let last = |kind| *event == Event::Kube(KubeEvent::End(kind));
        *event == Event::Nb(ReplicaEvent::Synced) || Kind::ALL.into_iter().any(last)
    };
    assert_eq!(events.iter().filter(|event| needed(event)).count(), 7);
    for missing in events.iter().filter(|event| needed(event)) {
        let mut engine = Engine::new(lab.config().clone(), lab.now);
        let all_but = events.iter().filter(|event| *event != missing).cloned();
        let effects = engine.step_all(all_but, lab.now);
        for effect in &effects {
            let harmless = matches!(effect, Effect::Wake(_) | Effect::Log(_));
            assert!(harmless, "without {missing:?}: {effect:?}");
        }
        assert_eq!(engine.waits_for().len(), 1, "{missing:?}");
        // The last one opens the door.
        let effects = engine.step(missing.clone(), lab.now);
        let takes = |effect: &Effect| {
            matches!(
                effect,
                Effect::Nb {
                    kind: CommitKind::Epoch,
                    ..
                }
            )
        };
        assert!(effects.iter().any(takes), "{missing:?}: {effects:?}");
    }
}

#[test]
fn a_leader_stops_as_soon_as_it_sees_another_epoch() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let deltas = usurp(&mut lab, 5);
    lab.at_once(vec![Event::Nb(ReplicaEvent::Deltas(deltas))]);
    assert!(matches!(lab.engine.role(), Role::Fenced { .. }));
}

#[test]
fn what_was_sent_without_an_answer_cannot_happen_later() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    let flush = |effect: &Effect| {
        matches!(
            effect,
            Effect::Nb {
                kind: CommitKind::Flush,
                ..
            }
        )
    };
    while !lab.effects().any(flush) {
        assert!(lab.turn());
    }
    let sent = lab.intercept().into_iter().find(flush).unwrap();
    let Effect::Nb { id, ops, .. } = sent else {
        unreachable!()
    };
    let outcome = engine::CommitOutcome::Unknown("no answer".into());
    lab.event(Event::Committed { id, outcome });
    lab.run();
    assert_eq!(lab.ports(), ["a.default", "node-n1", "node-n2"]);
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.run();
    // The server that had it in its socket wakes up.
    let (outcome, _) = lab.nb.transact(&ops);
    assert_eq!(outcome, engine::CommitOutcome::WaitFailed { op: 0 });
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}
