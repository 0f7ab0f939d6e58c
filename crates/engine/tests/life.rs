//! The life of pods, nodes and subnets against an API server and databases in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{Kind, ObjectKey};

#[test]
fn the_seeds_pods_get_the_seeds_addresses() {
    let mut lab = Lab::new();
    lab.seed();
    lab.run();
    lab.pod("default", "busybox", "n1");
    lab.pod("test-ns", "nginx-a", "n1");
    lab.pod("test-ns", "nginx-b", "n2");
    lab.run();
    let addresses = lab.addresses();
    assert_eq!(
        addresses["test-ns/nginx-a"], "10.17.0.11",
        "{:#?}",
        lab.trace
    );
    assert_eq!(addresses["test-ns/nginx-b"], "10.17.0.12");
    assert_eq!(addresses["default/busybox"], "10.16.0.2");
    assert_eq!(
        lab.ips(),
        [
            "busybox.default",
            "nginx-a.test-ns",
            "nginx-b.test-ns",
            "node-n1",
            "node-n2"
        ]
    );
    assert_eq!(
        lab.ports(),
        [
            "busybox.default",
            "nginx-a.test-ns",
            "nginx-b.test-ns",
            "node-n1",
            "node-n2"
        ]
    );
    let pod = ObjectKey::pod("test-ns", "nginx-a");
    for (key, value) in [
        ("allocated", "true"),
        ("routed", "true"),
        ("cidr", "10.17.0.0/16"),
        ("gateway", "10.17.0.1"),
        ("logical_switch", "test-subnet"),
        ("logical_router", "ovn-cluster"),
        ("pod_nic_type", "veth-pair"),
    ] {
        assert_eq!(
            lab.kube
                .annotation(&pod, &format!("ovn.kubernetes.io/{key}")),
            Some(value),
            "{key}"
        );
    }
    let node = ObjectKey::cluster(Kind::Node, "n1");
    for (key, value) in [
        ("logical_switch", "join"),
        ("port_name", "node-n1"),
        ("ip_address", "100.64.0.2"),
    ] {
        assert_eq!(
            lab.kube
                .annotation(&node, &format!("ovn.kubernetes.io/{key}")),
            Some(value),
            "{key}"
        );
    }
}

#[test]
fn the_order_of_effects_is_allocate_persist_program_announce() {
    let mut lab = Lab::new();
    lab.seed();
    lab.run();
    lab.trace.clear();
    lab.pod("default", "a", "n1");
    lab.run();
    let place = |what: &str| {
        lab.trace
            .iter()
            .position(|t| t.contains(what))
            .unwrap_or_else(|| panic!("no {what}: {:#?}", lab.trace))
    };
    let order = [
        place("create IP a.default: ok"),
        place("nb Flush"),
        place("patch Pod default/a: ok"),
    ];
    assert!(order.is_sorted(), "{:#?}", lab.trace);

    lab.trace.clear();
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.run();
    let place = |what: &str| {
        lab.trace
            .iter()
            .position(|t| t.contains(what))
            .unwrap_or_else(|| panic!("no {what}: {:#?}", lab.trace))
    };
    let order = [
        place("nb Flush"),
        place("delete IP a.default: ok"),
        place("patch IP a.default: ok"),
        place("PortGone"),
    ];
    assert!(order.is_sorted(), "{:#?}", lab.trace);
    assert_eq!(lab.ips(), ["node-n1", "node-n2"]);
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}

#[test]
fn a_restart_with_nothing_to_do_takes_its_epoch_and_writes_nothing_else() {
    let mut lab = Lab::new();
    lab.seed();
    lab.run();
    for pod in ["a", "b", "c"] {
        lab.pod("default", pod, "n1");
        lab.pod("test-ns", pod, "n2");
    }
    lab.run();
    let before = lab.end_state();
    lab.kube.writes.clear();
    lab.nb.commits = 0;
    lab.trace.clear();
    lab.restart();
    lab.run();
    assert_eq!(lab.kube.writes, [], "{:#?}", lab.trace);
    assert_eq!(lab.nb.commits, 1, "{:#?}", lab.trace);
    assert_eq!(lab.end_state(), before);
}
