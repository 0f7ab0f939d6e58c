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
use serde_json::json;

#[test]
fn pods_get_the_lowest_addresses_of_their_namespaces_subnet() {
    let mut lab = Lab::new();
    lab.populate();
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
    lab.populate();
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
fn each_step_waits_for_the_acknowledgement_of_the_one_before() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let pod = ObjectKey::pod("default", "a");
    lab.slow_nb = Some(Vec::new());
    lab.pod("default", "a", "n1");
    lab.run();
    assert_eq!(lab.slow_nb.as_ref().unwrap().len(), 1);
    assert!(lab.ips().contains(&"a.default".to_owned()));
    assert_eq!(
        lab.kube.annotation(&pod, "ovn.kubernetes.io/allocated"),
        None
    );
    lab.nb_wakes();
    lab.run();
    assert_eq!(
        lab.kube.annotation(&pod, "ovn.kubernetes.io/routed"),
        Some("true")
    );

    lab.slow_nb = Some(Vec::new());
    lab.kube.delete(&pod);
    let wish = json!({ "ovn.kubernetes.io/ip_address": "10.16.0.2" });
    lab.pod_with("default", "b", "n1", &wish);
    lab.run();
    assert!(
        lab.ips().contains(&"a.default".to_owned()),
        "forgotten while its port is there"
    );
    assert!(!lab.ips().contains(&"b.default".to_owned()));
    lab.nb_wakes();
    lab.run();
    assert_eq!(lab.ips(), ["b.default", "node-n1", "node-n2"]);
    assert_eq!(lab.ports(), ["b.default", "node-n1", "node-n2"]);

    // The IP resource that is not stored yet gives no port.
    let record = ObjectKey::cluster(Kind::Ip, "c.default");
    lab.kube.refused.insert(record);
    lab.pod("default", "c", "n1");
    lab.run_for(jiff::SignedDuration::from_secs(20));
    assert_eq!(lab.ports(), ["b.default", "node-n1", "node-n2"]);
}

#[test]
fn a_restart_with_nothing_to_do_takes_its_epoch_and_writes_nothing_else() {
    let mut lab = Lab::new();
    lab.populate();
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
    assert_eq!(lab.lists, 0, "it reads what nobody needs");
    assert_eq!(lab.end_state(), before);
}

#[test]
fn an_address_that_cannot_be_given_is_told_on_the_pod_and_harms_nobody() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let fixed = |address: &str| json!({ "ovn.kubernetes.io/ip_address": address });
    lab.pod_with("test-ns", "first", "n1", &fixed("10.17.0.50"));
    lab.run();
    lab.pod_with("test-ns", "second", "n1", &fixed("10.17.0.50"));
    lab.pod_with("test-ns", "outside", "n1", &fixed("10.18.0.50"));
    lab.pod_with("test-ns", "nonsense", "n1", &fixed("10.17.0.500"));
    lab.pod("test-ns", "good", "n1");
    lab.run();
    let told: Vec<(&str, &str)> = lab
        .notices
        .iter()
        .map(|n| (n.object.name.as_str(), n.reason.as_str()))
        .collect();
    assert!(
        told.contains(&("second", "AcquireAddressFailed")),
        "{told:?}"
    );
    assert!(
        told.contains(&("outside", "AcquireAddressFailed")),
        "{told:?}"
    );
    assert!(
        told.contains(&("nonsense", "ValidatePodNetworkFailed")),
        "{told:?}"
    );
    assert_eq!(told.len(), 3, "once each: {told:?}");
    assert_eq!(lab.addresses()["test-ns/good"], "10.17.0.11");

    // The address becomes free: who waits for it gets it.
    lab.kube.delete(&ObjectKey::pod("test-ns", "first"));
    lab.run();
    assert_eq!(lab.addresses()["test-ns/second"], "10.17.0.50");
}

#[test]
fn a_subnet_in_use_waits_for_its_addresses() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let key = ObjectKey::cluster(Kind::Subnet, "extra");
    lab.kube.put(
        key.clone(),
        json!({ "metadata": {}, "spec": { "cidrBlock": "10.20.0.0/24", "namespaces": ["extra"] } }),
    );
    lab.namespace("extra", &json!({}));
    lab.run();
    lab.pod("extra", "a", "n1");
    lab.run();
    assert_eq!(lab.addresses()["extra/a"], "10.20.0.2");
    lab.kube.delete(&key);
    lab.run();
    assert!(
        lab.kube.get(&key).is_some(),
        "it went with an address in use"
    );
    assert!(
        lab.nb
            .rows("Logical_Switch")
            .any(|(_, row)| row.str("name") == "extra")
    );
    lab.kube.delete(&ObjectKey::pod("extra", "a"));
    lab.run();
    assert!(lab.kube.get(&key).is_none(), "{:#?}", lab.trace);
    assert!(
        !lab.nb
            .rows("Logical_Switch")
            .any(|(_, row)| row.str("name") == "extra")
    );
    assert_eq!(lab.ips(), ["node-n1", "node-n2"]);
}

#[test]
fn an_ip_resource_that_a_user_deletes_under_a_living_pod_comes_back() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.run();
    let before = lab.addresses();
    let commits = lab.nb.commits;
    lab.kube.delete(&ObjectKey::cluster(Kind::Ip, "a.default"));
    lab.run();
    assert_eq!(lab.ips(), ["a.default", "node-n1", "node-n2"]);
    assert_eq!(lab.addresses(), before);
    assert_eq!(
        lab.nb.commits, commits,
        "the running pod's rows were touched"
    );
}

#[test]
fn a_reinstalled_nodes_old_chassis_goes() {
    use ovsdb::wire::{Datum, Operation, Row};
    let chassis = |name: &str, host: &str| {
        let row = Row::from([("name", name.into()), ("hostname", host.into())]);
        Operation::insert(
            "Chassis",
            uuid::Uuid::new_v5(&uuid::Uuid::nil(), name.as_bytes()),
            row,
        )
    };
    let mut lab = Lab::new();
    lab.populate();
    let (outcome, deltas) = lab.sb.transact(&[
        chassis("one", "n1"),
        chassis("two", "n2"),
        chassis("stranger", "elsewhere"),
    ]);
    assert_eq!(outcome, engine::CommitOutcome::Committed);
    lab.event(engine::Event::Sb(engine::ReplicaEvent::Deltas(deltas)));
    let names = |lab: &Lab| -> Vec<String> {
        let mut names: Vec<_> = lab
            .sb
            .rows("Chassis")
            .map(|(_, row)| row.str("name").to_owned())
            .collect();
        names.sort();
        names
    };
    let says = |lab: &mut Lab, node: &str, chassis: &str| {
        lab.kube
            .edit(&ObjectKey::cluster(Kind::Node, node), |node| {
                node["metadata"]["annotations"]["ovn.kubernetes.io/chassis"] = chassis.into();
            });
    };
    lab.run();
    says(&mut lab, "n1", "one");
    says(&mut lab, "n2", "two");
    lab.run();
    assert_eq!(names(&lab), ["one", "stranger", "two"]);
    let tagged = |row: &Row| row.get("external_ids").is_some_and(Datum::is_map);
    assert_eq!(
        lab.sb
            .rows("Chassis")
            .filter(|(_, row)| tagged(row))
            .count(),
        2
    );

    // The same name, another system-id.
    let (_, deltas) = lab.sb.transact(&[chassis("new", "n1")]);
    lab.event(engine::Event::Sb(engine::ReplicaEvent::Deltas(deltas)));
    says(&mut lab, "n1", "new");
    lab.run();
    assert_eq!(names(&lab), ["new", "stranger", "two"]);
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n2"));
    lab.run();
    assert_eq!(names(&lab), ["new", "stranger"]);
}

#[test]
fn nodes_get_their_second_address_when_the_cluster_becomes_dual_stack() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.run();
    let mut config = common::config();
    config.fabric.default_subnet.cidrs = "10.16.0.0/16,fd00:10:16::/112".parse().unwrap();
    config.fabric.join.cidrs = "100.64.0.0/16,fd00:100:64::/112".parse().unwrap();
    lab.restart_with(config);
    lab.run();
    let node = ObjectKey::cluster(Kind::Node, "n1");
    assert_eq!(
        lab.kube.annotation(&node, "ovn.kubernetes.io/ip_address"),
        Some("100.64.0.2,fd00:100:64::2"),
        "{:#?}",
        lab.trace
    );
    let ip = lab
        .kube
        .get(&ObjectKey::cluster(Kind::Ip, "node-n1"))
        .unwrap();
    assert_eq!(ip["spec"]["v6IpAddress"], "fd00:100:64::2");
    assert_eq!(
        lab.addresses()["default/a"],
        "10.16.0.2",
        "a running pod keeps what it has"
    );
}
