//! What an older installation left, what somebody lost, what was put back: found and kept, not trampled on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::{Crash, Lab};
use engine::{Event, Kind, ObjectKey, ReplicaEvent};
use ovsdb::wire::{Datum, Operation, Row};
use serde_json::json;
use uuid::Uuid;

const OLD_MAC: &str = "00:00:00:12:34:56";

/// The Go implementation's router with its port towards the default Subnet.
fn adopt(crash: Option<Crash>, with_subnet: bool) -> Lab {
    let mut lab = Lab::new();
    let vendor = || Datum::map([("vendor", "kube-ovn")]);
    let (router, port) = (Uuid::from_u128(10), Uuid::from_u128(11));
    let rows = [
        (
            "Logical_Router",
            router,
            Row::from([
                ("name", "ovn-cluster".into()),
                ("ports", port.into()),
                ("external_ids", vendor()),
            ]),
        ),
        (
            "Logical_Router_Port",
            port,
            Row::from([
                ("name", "ovn-cluster-ovn-default".into()),
                ("mac", OLD_MAC.into()),
                ("networks", "10.16.0.1/16".into()),
                ("external_ids", vendor()),
            ]),
        ),
    ];
    let rows = rows.map(|(table, uuid, row)| Operation::insert(table, uuid, row));
    let (outcome, _) = lab.nb.transact(&rows);
    assert_eq!(outcome, engine::CommitOutcome::Committed);
    lab.populate();
    if with_subnet {
        let subnet = ObjectKey::cluster(Kind::Subnet, "ovn-default");
        let spec = json!({ "cidrBlock": "10.16.0.0/16", "gateway": "10.16.0.1", "default": true });
        lab.kube
            .put(subnet, json!({ "metadata": {}, "spec": spec }));
    }
    lab.restart();
    lab.crash = crash;
    // Requests of one moment are carried out in any order.
    lab.backwards = with_subnet;
    while lab.turn() {
        assert_eq!(gateway_mac(&lab), OLD_MAC, "for a moment");
    }
    lab.backwards = false;
    lab.run();
    lab
}

fn gateway_mac(lab: &Lab) -> String {
    let mut ports = lab.nb.rows("Logical_Router_Port");
    let port = ports.find(|(_, row)| row.str("name") == "ovn-cluster-ovn-default");
    port.unwrap().1.str("mac").to_owned()
}

#[test]
fn an_older_clusters_gateways_keep_their_macs() {
    for with_subnet in [false, true] {
        let calm = adopt(None, with_subnet);
        for n in 0..calm.executed {
            for crash in [Crash::Before(n), Crash::After(n)] {
                let lab = adopt(Some(crash), with_subnet);
                assert_eq!(gateway_mac(&lab), OLD_MAC, "after {crash:?}");
            }
        }
    }
    let mut lab = adopt(None, true);
    assert_eq!(gateway_mac(&lab), OLD_MAC);
    let subnet = ObjectKey::cluster(Kind::Subnet, "ovn-default");
    let remembered = lab
        .kube
        .annotation(&subnet, "ovn.kubernetes.io/gateway_mac");
    assert_eq!(remembered, Some(OLD_MAC));
    assert_eq!(lab.ports(), ["node-n1", "node-n2"], "it goes on from there");

    // Somebody changes it by hand: that is no adoption.
    let port = ovsdb::wire::Condition::row(Uuid::from_u128(11));
    let edit = Row::from([("mac", "00:00:00:66:66:66".into())]);
    let (_, deltas) = lab
        .nb
        .transact(&[Operation::update("Logical_Router_Port", port, edit)]);
    lab.event(Event::Nb(ReplicaEvent::Deltas(deltas)));
    lab.run();
    assert_eq!(gateway_mac(&lab), OLD_MAC);

    // And no pod gets it.
    let wish = json!({ "ovn.kubernetes.io/mac_address": OLD_MAC });
    lab.pod_with("default", "thief", "n1", &wish);
    lab.run();
    assert!(lab.addresses().is_empty());
    assert_eq!(lab.notices.last().unwrap().object.name, "thief");
}

#[test]
fn records_of_other_networks_are_left_alone() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let record = |name: &str, pod: &str, address: &str, kind: &str| {
        (
            ObjectKey::cluster(Kind::Ip, name),
            json!({ "metadata": { "finalizers": ["kubeovn.io/kube-ovn-controller"] }, "spec": {
                "podName": pod, "namespace": if pod.is_empty() { "" } else { "default" }, "subnet": "ovn-default",
                "ipAddress": address, "v4IpAddress": address, "macAddress": "", "podType": kind } }),
        )
    };
    for (key, object) in [
        record("web.default.net1.default.ovn", "web", "10.16.0.2", ""),
        record("vm.default", "vm", "10.16.0.3", "VirtualMachine"),
        record(
            "u2o-interconnection.ovn-cluster.ovn-default",
            "",
            "10.16.0.4",
            "",
        ),
        record("gone.default", "gone", "10.16.0.5", ""),
    ] {
        lab.kube.put(key, object);
    }
    lab.restart();
    lab.run();
    let kept = [
        "node-n1",
        "node-n2",
        "u2o-interconnection.ovn-cluster.ovn-default",
        "vm.default",
        "web.default.net1.default.ovn",
    ];
    assert_eq!(lab.ips(), kept);
    for pod in ["a", "b"] {
        lab.pod("default", pod, "n1");
    }
    lab.run();
    let taken: Vec<String> = lab.addresses().into_values().collect();
    assert_eq!(
        taken,
        ["10.16.0.6", "10.16.0.7"],
        "what they hold is theirs, what was freed comes last"
    );
}

#[test]
fn a_running_pod_keeps_its_address_when_its_record_is_lost() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "zzz", "n1");
    lab.run();
    let address = lab.addresses()["default/zzz"].clone();
    let commits = lab.nb.commits;
    // A user deleted it, and the process died before it had stored it again; meanwhile somebody waits for an address.
    lab.kube.lose(&ObjectKey::cluster(Kind::Ip, "zzz.default"));
    lab.kube.lose(&ObjectKey::cluster(Kind::Ip, "node-n2"));
    lab.restart();
    lab.run();
    lab.kube.lose(&ObjectKey::cluster(Kind::Ip, "zzz.default"));
    lab.pod("default", "aaa", "n1");
    lab.restart();
    lab.run();
    let addresses = lab.addresses();
    assert_eq!(addresses["default/zzz"], address);
    assert_ne!(addresses["default/aaa"], address);
    assert_eq!(
        lab.ips(),
        ["aaa.default", "node-n1", "node-n2", "zzz.default"]
    );
    assert_eq!(lab.nb.commits, commits + 3, "two epochs and the new pod");
}

#[test]
fn what_a_pod_says_of_itself_is_not_believed() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let claims = json!({
        "ovn.kubernetes.io/allocated": "true",
        "ovn.kubernetes.io/logical_switch": "test-subnet",
        "ovn.kubernetes.io/ip_address": "10.17.0.77",
    });
    lab.pod_with("default", "liar", "n1", &claims);
    let gateway = json!({
        "ovn.kubernetes.io/allocated": "true",
        "ovn.kubernetes.io/logical_switch": "ovn-default",
        "ovn.kubernetes.io/ip_address": "10.16.0.1",
    });
    lab.pod_with("default", "router", "n1", &gateway);
    lab.restart();
    lab.run();
    assert_eq!(lab.ips(), ["node-n1", "node-n2"], "{:#?}", lab.trace);
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}

#[test]
fn of_two_records_of_one_address_the_running_pods_wins() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "zzz", "n1");
    lab.run();
    let address = lab.addresses()["default/zzz"].clone();
    // Two controllers of the past gave it out twice; nobody was told of the second one.
    lab.pod("default", "aaa", "n1");
    lab.kube.put(
        ObjectKey::cluster(Kind::Ip, "aaa.default"),
        json!({ "metadata": { "finalizers": ["kubeovn.io/kube-ovn-controller"] }, "spec": {
            "podName": "aaa", "namespace": "default", "subnet": "ovn-default", "nodeName": "n1",
            "ipAddress": address, "v4IpAddress": address, "macAddress": "02:00:00:00:00:01" } }),
    );
    lab.restart();
    lab.run();
    assert_eq!(lab.addresses()["default/zzz"], address);
    assert_ne!(lab.addresses()["default/aaa"], address);
    assert!(lab.engine.report().problems.is_empty());
}
