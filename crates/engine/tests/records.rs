//! IP resources that change under the controller: edited by hand, put back from a backup, or not to be read at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{Event, Kind, LeaseEvent, ObjectKey, PortState};
use serde_json::json;

fn record(port: &str) -> ObjectKey {
    ObjectKey::cluster(Kind::Ip, port)
}

/// Nodes, namespaces and a pod `b` that runs.
fn lab_with_b() -> Lab {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "b", "n1");
    lab.run();
    assert_eq!(lab.addresses()["default/b"], "10.16.0.2");
    lab
}

fn set_address(lab: &mut Lab, port: &str, address: &str) {
    lab.kube.edit(&record(port), |ip| {
        ip["spec"]["ipAddress"] = address.into();
        ip["spec"]["v4IpAddress"] = address.into();
    });
}

fn recorded(lab: &Lab, port: &str) -> String {
    let ip = lab.kube.get(&record(port)).expect("a record");
    ip["spec"]["ipAddress"].as_str().unwrap().to_owned()
}

/// What the switch ports have, by name.
fn programmed(lab: &Lab, port: &str) -> String {
    let row = lab
        .nb
        .rows("Logical_Switch_Port")
        .find(|(_, row)| row.str("name") == port);
    let (_, row) = row.expect("a port");
    let addresses = row.strs("addresses").next().unwrap();
    addresses.split_once(' ').unwrap().1.to_owned()
}

/// `b` has what it always had, everywhere, and `a` something else.
fn check_both(lab: &Lab) {
    assert_eq!(lab.addresses()["default/b"], "10.16.0.2");
    assert_eq!(recorded(lab, "b.default"), "10.16.0.2");
    assert_eq!(programmed(lab, "b.default"), "10.16.0.2");
    let other = lab.addresses()["default/a"].clone();
    assert_ne!(other, "10.16.0.2");
    assert_eq!(recorded(lab, "a.default"), other);
    assert_eq!(programmed(lab, "a.default"), other);
}

#[test]
fn a_record_that_changed_while_nobody_led_moves_no_running_pod() {
    for put_back in [false, true] {
        let mut lab = lab_with_b();
        if put_back {
            // Deleted and made again, as a restored backup does.
            let mut older = lab.kube.get(&record("b.default")).unwrap().clone();
            older["metadata"] = json!({});
            lab.kube.lose(&record("b.default"));
            lab.kube.put(record("b.default"), older);
        }
        set_address(&mut lab, "b.default", "10.16.0.77");
        lab.pod("default", "a", "n2");
        let commits = lab.nb.commits;
        lab.restart();
        lab.run();
        check_both(&lab);
        assert_eq!(lab.nb.commits, commits + 2, "an epoch and the new pod");
        assert!(lab.engine.report().problems.is_empty());
    }
}

#[test]
fn a_record_that_changed_while_a_hot_standby_waited_moves_no_running_pod() {
    let mut lab = lab_with_b();
    lab.event(Event::Lease(LeaseEvent::Standby));
    lab.run();
    set_address(&mut lab, "b.default", "10.16.0.77");
    lab.pod("default", "a", "n2");
    lab.run();
    let commits = lab.nb.commits;
    lab.lead();
    lab.run();
    check_both(&lab);
    assert_eq!(lab.nb.commits, commits + 2, "an epoch and the new pod");
}

#[test]
fn a_standby_follows_the_record_of_a_pod_that_is_made_again() {
    let mut lab = lab_with_b();
    lab.event(Event::Lease(LeaseEvent::Standby));
    lab.run();
    // Another leader works; this one sees the records first and the pods later.
    let spec = lab.kube.get(&record("b.default")).unwrap()["spec"].clone();
    lab.kube.lose(&record("b.default"));
    lab.kube.put(
        record("b.default"),
        json!({ "metadata": { "finalizers": ["kubeovn.io/kube-ovn-controller"] }, "spec": spec }),
    );
    set_address(&mut lab, "b.default", "10.16.0.9");
    lab.run();
    let pod = ObjectKey::pod("default", "b");
    let annotations = lab.kube.get(&pod).unwrap()["metadata"]["annotations"].clone();
    lab.kube.delete(&pod);
    lab.pod_with("default", "b", "n1", &annotations);
    lab.kube.edit(&pod, |pod| {
        pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"] = "10.16.0.9".into();
    });
    lab.run();
    lab.lead();
    lab.run();
    assert_eq!(lab.addresses()["default/b"], "10.16.0.9");
    assert_eq!(recorded(&lab, "b.default"), "10.16.0.9");
    assert_eq!(programmed(&lab, "b.default"), "10.16.0.9");
}

#[test]
fn an_edit_of_a_running_pods_record_is_put_back_and_the_port_is_not_touched() {
    for address in ["10.16.0.77", "10.16.0.3", "100.64.0.2", "10.16.0.2,fd00::2"] {
        let mut lab = lab_with_b();
        lab.pod("default", "a", "n2");
        lab.run();
        let commits = lab.nb.commits;
        set_address(&mut lab, "b.default", address);
        lab.run();
        check_both(&lab);
        assert_eq!(lab.nb.commits, commits, "{address}: {:#?}", lab.trace);
        lab.kube.edit(&record("b.default"), |ip| {
            ip["spec"]["macAddress"] = "02:00:00:00:00:01".into();
            ip["spec"]["subnet"] = "test-subnet".into();
        });
        lab.run();
        check_both(&lab);
        assert_eq!(lab.nb.commits, commits, "another subnet: {:#?}", lab.trace);
    }
}

#[test]
fn annotations_of_a_running_pod_that_are_edited_do_not_move_it() {
    let pod = ObjectKey::pod("default", "b");
    for (edits, down) in [
        (&[("ip_address", "10.16.0.77")][..], false),
        (&[("ip_address", "10.16.0.77")], true),
        // The address of `a`, another MAC, another network.
        (
            &[
                ("ip_address", "10.16.0.3"),
                ("mac_address", "02:00:00:00:00:01"),
            ],
            false,
        ),
        (
            &[
                ("ip_address", "10.17.0.77"),
                ("logical_switch", "test-subnet"),
            ],
            false,
        ),
    ] {
        let mut lab = lab_with_b();
        lab.pod("default", "a", "n2");
        // Its kubelet says that it runs.
        lab.kube.edit(&pod, |pod| {
            pod["status"]["podIPs"] = json!([{ "ip": "10.16.0.2" }]);
        });
        lab.run();
        let annotations = lab.kube.get(&pod).unwrap()["metadata"]["annotations"].clone();
        let commits = lab.nb.commits;
        lab.kube.edit(&pod, |pod| {
            for (key, value) in edits {
                pod["metadata"]["annotations"][format!("ovn.kubernetes.io/{key}")] =
                    (*value).into();
            }
        });
        if down {
            lab.restart();
        }
        lab.run();
        check_both(&lab);
        assert_eq!(lab.nb.commits, commits + usize::from(down), "{edits:?}");
        let stored = &lab.kube.get(&pod).unwrap()["metadata"]["annotations"];
        assert_eq!(*stored, annotations, "{edits:?}");
        let told: Vec<_> = lab.notices.iter().filter(|n| n.object == pod).collect();
        assert_eq!(told.len(), 1, "{:#?}", lab.notices);
        assert!(told[0].warning && told[0].message.contains("delete the pod"));
        assert!(lab.engine.report().problems.is_empty());
    }
}

#[test]
fn a_running_pod_whose_annotations_are_edited_while_its_record_goes_is_not_moved() {
    let pod = ObjectKey::pod("default", "b");
    for down in [false, true] {
        let mut lab = lab_with_b();
        lab.pod("default", "a", "n2");
        lab.kube.edit(&pod, |pod| {
            pod["status"]["podIPs"] = json!([{ "ip": "10.16.0.2" }]);
        });
        lab.run();
        let commits = lab.nb.commits;
        lab.kube.edit(&pod, |pod| {
            pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"] = "10.16.0.77".into();
        });
        // Somebody takes the finalizer away first.
        lab.kube.edit(&record("b.default"), |ip| {
            ip["metadata"]["finalizers"] = json!([]);
        });
        lab.kube.delete(&record("b.default"));
        if down {
            lab.restart();
        } else {
            lab.news_at_once();
        }
        lab.run();
        check_both(&lab);
        assert_eq!(lab.nb.commits, commits + usize::from(down), "down {down}");
    }
}

/// Damage that makes a record unreadable.
fn damage(lab: &mut Lab, port: &str, field: &str) {
    lab.kube.edit(&record(port), |ip| {
        ip["spec"][field] = "garbage".into();
    });
}

#[test]
fn an_unreadable_record_of_a_running_pod_is_put_right() {
    for (field, down) in [
        ("ipAddress", false),
        ("macAddress", false),
        ("ipAddress", true),
        ("macAddress", true),
    ] {
        let mut lab = lab_with_b();
        let before = lab.kube.get(&record("b.default")).unwrap()["spec"].clone();
        damage(&mut lab, "b.default", field);
        lab.pod("default", "a", "n2");
        let commits = lab.nb.commits;
        if down {
            lab.restart();
        }
        lab.run();
        check_both(&lab);
        let spec = &lab.kube.get(&record("b.default")).unwrap()["spec"];
        assert_eq!(*spec, before, "{field}");
        assert_eq!(lab.nb.commits, commits + 1 + usize::from(down), "{field}");
        let told = |n: &&engine::Notice| n.message.contains("garbage");
        let told: Vec<_> = lab.notices.iter().filter(told).collect();
        assert_eq!(told.len(), 1, "{:#?}", lab.notices);
        assert_eq!(told[0].object, ObjectKey::pod("default", "b"));
        assert!(lab.engine.report().problems.is_empty());
    }
}

#[test]
fn an_unreadable_record_does_not_outlive_its_pod() {
    for down in [false, true] {
        let mut lab = lab_with_b();
        damage(&mut lab, "b.default", "ipAddress");
        lab.kube.delete(&ObjectKey::pod("default", "b"));
        lab.kube.writes.clear();
        if down {
            lab.restart();
        } else {
            lab.news_at_once();
        }
        lab.run();
        assert_eq!(lab.ips(), ["node-n1", "node-n2"]);
        assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
        let of = |write: &&(&str, ObjectKey)| write.1 == record("b.default");
        assert_eq!(lab.kube.writes.iter().filter(of).count(), 2);
        lab.pod("default", "c", "n1");
        lab.run();
        assert!(lab.addresses().contains_key("default/c"));
    }
}

#[test]
fn an_unreadable_record_that_is_deleted_goes() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    // Nobody's, but with our finalizer.
    lab.kube.put(
        record("gone.default"),
        json!({ "metadata": { "finalizers": ["kubeovn.io/kube-ovn-controller"], "labels": { "ovn.kubernetes.io/ip_reserved": "true" } },
            "spec": { "podName": "gone", "namespace": "default", "subnet": "ovn-default", "ipAddress": "garbage" } }),
    );
    lab.run();
    assert_eq!(lab.ips(), ["gone.default", "node-n1", "node-n2"]);
    assert_eq!(lab.notices.len(), 1, "{:#?}", lab.notices);
    assert_eq!(lab.notices[0].object, record("gone.default"));
    lab.kube.delete(&record("gone.default"));
    lab.run();
    assert_eq!(lab.ips(), ["node-n1", "node-n2"], "{:#?}", lab.trace);
}

#[test]
fn an_unreadable_record_keeps_no_pod_waiting() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    for address in ["garbage", ""] {
        lab.kube.put(
            record("b.default"),
            json!({ "metadata": {}, "spec": { "podName": "b", "namespace": "default", "subnet": "ovn-default",
                "ipAddress": address } }),
        );
        lab.pod("default", "b", "n1");
        lab.restart();
        lab.run();
        assert_eq!(lab.engine.port_state("b.default"), Some(PortState::Ready));
        assert_eq!(recorded(&lab, "b.default"), lab.addresses()["default/b"]);
        lab.kube.delete(&ObjectKey::pod("default", "b"));
        lab.run();
        assert_eq!(lab.ips(), ["node-n1", "node-n2"]);
    }
}

#[test]
fn a_write_that_changes_nothing_is_not_repeated_without_pause() {
    use engine::{Effect, KubeOutcome, KubeWrite};
    let mut lab = lab_with_b();
    lab.kube.delete(&ObjectKey::pod("default", "b"));
    let mut tries = 0;
    let start = lab.now;
    while lab.now < start + jiff::SignedDuration::from_mins(1) {
        // A server that says yes to every deletion, and leaves the object as it was.
        lab.news_at_once();
        for effect in lab.intercept() {
            match effect {
                Effect::Kube {
                    id,
                    write: KubeWrite::Delete { key, .. },
                } => {
                    tries += 1;
                    let shown = lab.kube.lists().into_iter().find_map(|event| match event {
                        Event::Kube(engine::KubeEvent::Apply(object)) if object.key() == key => {
                            Some(object)
                        }
                        _ => None,
                    });
                    let outcome = KubeOutcome::Done(shown);
                    lab.at_once(vec![Event::KubeDone { id, outcome }]);
                }
                Effect::Kube { id, write } => {
                    let outcome = lab.kube.write(&write);
                    lab.at_once(vec![Event::KubeDone { id, outcome }]);
                }
                Effect::Nb { id, ops, .. } => {
                    let (outcome, deltas) = lab.nb.transact(&ops);
                    let deltas = engine::ReplicaEvent::Deltas(deltas);
                    lab.at_once(vec![Event::Nb(deltas), Event::Committed { id, outcome }]);
                }
                _ => {}
            }
        }
        lab.now += jiff::SignedDuration::from_millis(50);
        lab.at_once(vec![Event::Tick]);
    }
    assert!((3..12).contains(&tries), "{tries} in a minute");
}

#[test]
fn a_manifest_with_annotations_waits_for_its_record_like_any_other() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.trace.clear();
    let claims = json!({
        "ovn.kubernetes.io/allocated": "true",
        "ovn.kubernetes.io/logical_switch": "ovn-default",
        "ovn.kubernetes.io/ip_address": "10.16.0.50",
    });
    lab.pod_with("default", "copy", "n1", &claims);
    lab.run();
    let place = |what: &str| {
        let found = lab.trace.iter().position(|t| t.contains(what));
        found.unwrap_or_else(|| panic!("no {what}: {:#?}", lab.trace))
    };
    assert!(
        place("create IP copy.default: ok") < place("nb Flush"),
        "{:#?}",
        lab.trace
    );
    assert_eq!(recorded(&lab, "copy.default"), "10.16.0.50");
}
