//! A new leader whose watches are late: what the one before it did stands in the database, and not in what they show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use std::collections::BTreeSet;

use common::Lab;
use engine::{Event, Kind, KubeEvent, ObjectKey};
use jiff::SignedDuration;

fn kind_of(event: &Event) -> Option<Kind> {
    match event {
        Event::Kube(KubeEvent::Begin(kind) | KubeEvent::End(kind)) => Some(*kind),
        Event::Kube(KubeEvent::Apply(object)) => Some(object.key().kind),
        _ => None,
    }
}

/// What the watches of a new leader have shown: of the kinds that are late what was there before, of the others what is
/// there now.
fn lists(old: &[Event], new: &[Event], late: &[Kind]) -> Vec<Event> {
    let is_late = |event: &&Event| kind_of(event).is_some_and(|kind| late.contains(&kind));
    let old = old.iter().filter(is_late);
    let new = new.iter().filter(|event| !is_late(event));
    old.chain(new).cloned().collect()
}

fn address(lab: &Lab, pod: &str) -> Option<String> {
    let key = format!("default/{pod}");
    lab.addresses().get(&key).cloned()
}

fn held(lab: &Lab, kind: Kind, name: &str) -> bool {
    lab.kube.get(&ObjectKey::cluster(kind, name)).is_some()
}

/// Nobody has an address twice, and each port has what its pod was told.
fn check_addresses(lab: &Lab) {
    let addresses = lab.addresses();
    let different: BTreeSet<&String> = addresses.values().collect();
    assert_eq!(different.len(), addresses.len(), "{addresses:?}");
    for (_, row) in lab.nb.rows("Logical_Switch_Port") {
        let Some((name, namespace)) = row.str("name").rsplit_once('.') else {
            continue;
        };
        if let Some(told) = addresses.get(&format!("{namespace}/{name}")) {
            let text = row.strs("addresses").next().unwrap();
            assert!(text.ends_with(told.as_str()), "{name}: {text}, {told}");
        }
    }
}

/// What is refused by an API server that knows more is tried again and again.
const LONG: SignedDuration = SignedDuration::from_mins(2);
const LATE: [&[Kind]; 4] = [
    &[Kind::Pod],
    &[Kind::Ip],
    &[Kind::Pod, Kind::Ip],
    &Kind::ALL,
];

/// Pod `early` was made before `told`, and the last leader had not got to it yet when it had already told `told` its
/// address. To the new leader `told` does not exist, and `early` is next.
#[test]
fn an_address_that_a_pod_was_told_is_given_to_nobody_else_by_a_leader_that_does_not_see_the_pod() {
    for late in LATE {
        let mut lab = Lab::new();
        lab.populate();
        lab.run();
        lab.pod("default", "early", "n1");
        let old = lab.kube.lists();
        lab.kube.news.clear();
        lab.pod("default", "told", "n2");
        lab.run();
        let told = address(&lab, "told").unwrap();
        let new = lab.kube.lists();

        lab.slow_lists = Some(Vec::new());
        lab.restart_behind(lists(&old, &new, late));
        lab.run_for(LONG);
        // However long the lists take.
        assert!(lab.ports().contains(&"told.default".into()), "{late:?}");
        assert!(held(&lab, Kind::Ip, "told.default"), "{late:?}");
        let early = address(&lab, "early");
        assert!(early.is_some_and(|early| early != told), "{late:?}");
        check_addresses(&lab);

        lab.lists_come();
        for kind in late {
            // What is not asked for comes as well, in its own time.
            lab.list_again(*kind);
        }
        lab.run();
        assert_eq!(address(&lab, "told"), Some(told), "{late:?}");
        assert_eq!(lab.lists > 0, late.contains(&Kind::Pod), "{late:?}");
        check_addresses(&lab);
    }
}

/// A pod was deleted and made again under its name; the last leader gave the new one another address, and the old address
/// to somebody else.
#[test]
fn a_leader_that_still_sees_the_pod_before_does_not_give_its_address_back() {
    for late in LATE {
        let mut lab = Lab::new();
        lab.populate();
        lab.run();
        lab.pod("default", "a", "n1");
        lab.run();
        let old = lab.kube.lists();
        lab.kube.delete(&ObjectKey::pod("default", "a"));
        lab.run();
        // Addresses that were given back go last: all others are taken out of the way.
        lab.kube
            .edit(&ObjectKey::cluster(Kind::Subnet, "ovn-default"), |subnet| {
                let out = ["10.16.0.3..10.16.255.254"];
                subnet["spec"]["excludeIps"] = serde_json::json!(out);
            });
        lab.pod("default", "b", "n1");
        lab.run();
        let b = address(&lab, "b");
        assert!(b.is_some());
        let new = lab.kube.lists();

        lab.slow_lists = Some(Vec::new());
        lab.restart_behind(lists(&old, &new, late));
        lab.run_for(LONG);
        assert_eq!(lab.ports(), ["b.default", "node-n1", "node-n2"], "{late:?}");
        check_addresses(&lab);
        lab.lists_come();
        lab.run();
        assert_eq!(lab.ports(), ["b.default", "node-n1", "node-n2"], "{late:?}");
        assert_eq!(address(&lab, "b"), b);
        assert_eq!(lab.ips(), ["b.default", "node-n1", "node-n2"], "{late:?}");
    }
}

#[test]
fn what_is_really_gone_goes_when_the_lists_have_come() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.pod("default", "b", "n1");
    lab.run();
    // While nobody leads.
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.slow_lists = Some(Vec::new());
    lab.restart();
    lab.pod("default", "c", "n1");
    lab.run();
    let all = ["a.default", "b.default", "c.default", "node-n1", "node-n2"];
    assert_eq!(lab.ports(), all);
    assert!(address(&lab, "c").is_some(), "a new pod waited");
    lab.lists_come();
    lab.run();
    assert_eq!(
        lab.ports(),
        ["b.default", "c.default", "node-n1", "node-n2"]
    );
    assert!(!held(&lab, Kind::Ip, "a.default"));
    // Each kind is listed once, and from then on what is deleted goes at once.
    let lists = lab.lists;
    lab.kube.delete(&ObjectKey::pod("default", "b"));
    lab.run();
    assert_eq!(lab.ports(), ["c.default", "node-n1", "node-n2"]);
    assert_eq!(lab.lists, lists);
}
