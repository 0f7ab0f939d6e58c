//! The process dies before or after every single effect of a whole story, and the next one brings the same end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use std::collections::BTreeSet;

use common::{Crash, Lab};
use engine::{Kind, ObjectKey};
use serde_json::{Value, json};

/// Namespaces, nodes and pods come, move and go.
fn story(crash: Option<Crash>) -> Lab {
    let mut lab = Lab::new();
    lab.crash = crash;
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.run();
    lab.pod("default", "b", "n2");
    lab.pod("test-ns", "c", "n1");
    lab.run();
    // A pod of the same name on another node.
    lab.kube.delete(&ObjectKey::pod("test-ns", "c"));
    lab.run();
    // With an address of its own: which one comes next is not the same after a restart (released ones come last only
    // as long as the process lives).
    lab.pod_with(
        "test-ns",
        "c",
        "n2",
        &json!({ "ovn.kubernetes.io/ip_address": "10.17.0.77" }),
    );
    lab.run();
    // A pod that completes, and a node that goes.
    lab.kube.edit(&ObjectKey::pod("default", "a"), |pod| {
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["status"]["phase"] = "Succeeded".into();
    });
    lab.node("n3", "192.168.1.43");
    lab.run();
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n1"));
    lab.run();
    check(&lab);
    lab
}

/// What must hold at any rest: no address twice, no port without a record, no record without a port.
fn check(lab: &Lab) {
    let mut seen = BTreeSet::new();
    for (key, ip) in lab.kube.of(Kind::Ip) {
        let address = ip["spec"]["ipAddress"].as_str().unwrap().to_owned();
        assert!(
            seen.insert(address.clone()),
            "{address} is given out twice ({key})"
        );
        assert!(
            ip["metadata"]["deletionTimestamp"].is_null(),
            "{key} hangs in its deletion"
        );
    }
    assert_eq!(lab.ips(), lab.ports(), "the ledger and the database differ");
    for (subnet, figures) in lab.kube.of(Kind::Subnet) {
        let held = lab
            .kube
            .of(Kind::Ip)
            .filter(|(_, ip)| ip["spec"]["subnet"] == subnet.name.as_str())
            .count();
        assert_eq!(
            figures["status"]["v4usingIPs"],
            json!(held),
            "figures of {subnet}"
        );
    }
}

#[test]
fn a_crash_at_any_effect_changes_nothing_in_the_end() {
    let calm = story(None);
    let wanted = calm.end_state();
    assert!(calm.executed > 30, "a story too short: {}", calm.executed);
    for n in 0..calm.executed {
        for crash in [Crash::Before(n), Crash::After(n)] {
            let lab = story(Some(crash));
            let end = lab.end_state();
            let differs = || first_difference(&wanted, &end, "");
            assert!(
                end == wanted,
                "after {crash:?} ({:?}):\n{}",
                calm.trace.get(n),
                differs()
            );
        }
    }
}

fn first_difference(wanted: &Value, found: &Value, path: &str) -> String {
    let inner = |key: &str| {
        let (wanted, found) = (&wanted[key], &found[key]);
        (wanted != found).then(|| first_difference(wanted, found, &format!("{path}/{key}")))
    };
    if let (Some(left), Some(right)) = (wanted.as_object(), found.as_object()) {
        let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        return keys
            .into_iter()
            .find_map(|key| inner(key))
            .unwrap_or_default();
    }
    if let (Some(left), Some(right)) = (wanted.as_array(), found.as_array())
        && left.len() == right.len()
    {
        let place = left
            .iter()
            .zip(right)
            .position(|(a, b)| a != b)
            .unwrap_or_default();
        return first_difference(&left[place], &right[place], &format!("{path}/{place}"));
    }
    format!("{path}: {wanted}\n   is {found}")
}

/// A Subnet without room gets a larger CIDR while pods wait, and then an edit that is not valid.
fn growth(crash: Option<Crash>) -> Lab {
    let mut lab = Lab::new();
    lab.populate();
    lab.namespace("tight", &json!({}));
    let key = ObjectKey::cluster(Kind::Subnet, "tight");
    lab.kube.put(
        key.clone(),
        json!({ "metadata": {}, "spec": { "cidrBlock": "10.20.0.0/30", "namespaces": ["tight"] } }),
    );
    lab.run();
    for pod in ["a", "b", "c"] {
        lab.pod("tight", pod, "n1");
    }
    lab.run();
    lab.crash = crash;
    lab.executed = 0;
    lab.kube.edit(&key, |subnet| {
        subnet["spec"]["cidrBlock"] = "10.20.0.0/28".into();
    });
    // Requests of one moment are carried out in any order.
    lab.backwards = true;
    while lab.turn() {
        addresses_are_covered(&lab, &key);
    }
    lab.backwards = false;
    lab.run();
    // The process that meets this one has nothing but what was stored.
    lab.kube.edit(&key, |subnet| {
        subnet["spec"]["cidrBlock"] = "10.20.0.0/99".into();
    });
    lab.restart();
    lab.run();
    lab
}

/// No address is given out that the last good spec, as it is stored, does not hold: a restart would go by that one.
fn addresses_are_covered(lab: &Lab, key: &ObjectKey) {
    let accepted = lab
        .kube
        .annotation(key, "ovn.kubernetes.io/accepted")
        .unwrap();
    let accepted: Value = serde_json::from_str(accepted).unwrap();
    let cidr = accepted["spec"]["cidrBlock"].as_str().unwrap();
    let cidr: net::Cidr = cidr.parse().unwrap();
    for (name, ip) in lab.kube.of(Kind::Ip) {
        if ip["spec"]["subnet"] == key.name.as_str() {
            let address = ip["spec"]["ipAddress"].as_str().unwrap().parse().unwrap();
            assert!(cidr.contains(address), "{name}: {address} is not in {cidr}");
        }
    }
}

#[test]
fn a_larger_cidr_is_stored_before_its_addresses_are_given_out() {
    let calm = growth(None);
    let end = |lab: &Lab| (lab.addresses(), lab.ips(), lab.ports());
    assert_eq!(calm.addresses().len(), 3, "{:?}", calm.addresses());
    for n in 0..calm.executed {
        for crash in [Crash::Before(n), Crash::After(n)] {
            let lab = growth(Some(crash));
            assert_eq!(end(&lab), end(&calm), "after {crash:?}");
        }
    }
}
