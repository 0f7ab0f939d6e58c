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
    lab.seed();
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
