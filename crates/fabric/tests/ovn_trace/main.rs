//! What a packet would meet: the compiled network on real OVN databases, translated by a real `ovn-northd`, asked by
//! `ovn-trace`. Simulated chassis add what only `ovn-controller` and `ovs-vswitchd` know.
//!
//! Needs the Debian packages ovn-central, ovn-common, ovn-host, openvswitch-common and openvswitch-switch; no root.
//! For another release of OVN see [`programs`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test may fail"
)]

mod adoption;
mod chassis;
mod lifecycle;
mod neighbours;
mod network;

mod packets;
mod programs;
#[path = "../support/mod.rs"]
mod support;
mod trace;

use ::fabric::Config;
use serde_json::Value;
use testkit::objects::{SubnetBuilder, namespace, node, pod, subnet, vpc};

use crate::network::{CLUSTER, Network};

/// Settings of a cluster whose nodes have both families.
pub fn config() -> Config {
    let mut config = Config {
        cluster_uid: CLUSTER.to_string().into(),
        ..Config::default()
    };
    config.join.cidrs = "100.64.0.0/16,fd00:100:64::/112".parse().unwrap();
    config.default_subnet.exclude_ips = vec!["10.16.0.0..10.16.0.10".parse().unwrap()];
    config
}

/// Three nodes. Two of the names need care where OVN takes a name for an expression.
pub fn nodes() -> Vec<Value> {
    vec![
        node("192.168.1.41", "192.168.1.41,fd00:1::41").json(),
        node("node-2", "192.168.1.42,fd00:1::42").json(),
        node("n3.example", "192.168.1.43,fd00:1::43").json(),
    ]
}

/// Everything that users made: namespaces, Subnets and pods.
pub fn users() -> Vec<Value> {
    let made = |subnet: SubnetBuilder| serde_json::to_value(subnet.nat().build()).unwrap();
    let mut objects = vec![
        namespace("default").json(),
        // As in the seed: the namespace's annotations make the Subnet.
        namespace("test-ns")
            .annotate("logical_switch", "test-ns-subnet")
            .annotate("cidr", "10.17.0.0/16")
            .annotate("gateway", "10.17.0.1")
            .annotate("exclude_ips", "10.17.0.0..10.17.0.10")
            .json(),
        namespace("dual").json(),
        made(subnet("dual-sub", "10.18.0.0/24,fd00:10:18::/120").namespace("dual")),
        namespace("six").json(),
        // A digit in front, and a gateway that is not the first address.
        made(
            subnet("6net", "fd00:10:66::/64")
                .gateway("fd00:10:66::ffff")
                .namespace("six"),
        ),
        // A network of its own, with addresses that the cluster has too.
        namespace("blue").json(),
        serde_json::to_value(vpc("blue-vpc")).unwrap(),
        made(
            subnet("blue-sub", "10.16.0.0/24")
                .namespace("blue")
                .spec(|spec| spec.vpc = "blue-vpc".into()),
        ),
    ];
    let pods = [
        ("default/web-1", "192.168.1.41"),
        ("default/web-2", "192.168.1.41"),
        ("default/web-3", "node-2"),
        ("default/web-4", "n3.example"),
        ("test-ns/nginx-1", "192.168.1.41"),
        ("test-ns/nginx-2", "node-2"),
        ("dual/d1", "192.168.1.41"),
        ("dual/d2", "n3.example"),
        ("six/s1", "node-2"),
        ("six/s2", "n3.example"),
        ("blue/b1", "192.168.1.41"),
        ("blue/b2", "node-2"),
    ];
    objects.extend(pods.map(|(name, node)| pod(name).on(node).json()));
    objects
}

/// The whole cluster.
pub fn cluster() -> Network {
    Network::start(config(), nodes().into_iter().chain(users()))
}

/// Ports of the pods of the default VPC, with their nodes.
pub const PODS: [(&str, &str); 10] = [
    ("web-1.default", "192.168.1.41"),
    ("web-2.default", "192.168.1.41"),
    ("web-3.default", "node-2"),
    ("web-4.default", "n3.example"),
    ("nginx-1.test-ns", "192.168.1.41"),
    ("nginx-2.test-ns", "node-2"),
    ("d1.dual", "192.168.1.41"),
    ("d2.dual", "n3.example"),
    ("s1.six", "node-2"),
    ("s2.six", "n3.example"),
];

/// Port in the join switch, IPv4 and IPv6 address of each node.
pub const NODES: [(&str, &str, &str, &str); 3] = [
    (
        "192.168.1.41",
        "node-192.168.1.41",
        "192.168.1.41",
        "fd00:1::41",
    ),
    ("node-2", "node-node-2", "192.168.1.42", "fd00:1::42"),
    (
        "n3.example",
        "node-n3.example",
        "192.168.1.43",
        "fd00:1::43",
    ),
];
