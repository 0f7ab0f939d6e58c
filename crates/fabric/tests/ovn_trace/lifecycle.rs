//! Networks come, change, and go, and nothing of them stays behind.

use fabric::Unit;
use testkit::objects::{namespace, pod};
use testkit::ovn::{Schema, Server};

use crate::network::Network;
use crate::programs::{nbctl, schema};
use crate::support::Cluster;
use crate::trace::{Checks, Expect, Packet};
use crate::{cluster, config, nodes, users};

#[test]
fn the_same_objects_change_nothing() {
    let mut network = cluster();
    let commits = network.writer.commits;
    let before = network.contents();
    let sent = network.apply(nodes().into_iter().chain(users()));
    assert_eq!(sent, "");
    assert_eq!(network.writer.commits, commits);
    // A controller that starts anew knows nothing but what is there.
    let plan = network.restarted().plan();
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(network.contents(), before);
}

#[test]
fn what_users_made_goes_with_them() {
    let mut network = Network::start(config(), nodes());
    let (before, rows) = (network.contents(), network.writer.rows());
    assert!(!before.is_empty());
    network.apply(users());
    assert_ne!(network.contents(), before);
    let commits = network.writer.commits;
    network.delete(&[
        "Pod/default/web-1",
        "Pod/default/web-2",
        "Pod/default/web-3",
        "Pod/default/web-4",
        "Pod/test-ns/nginx-1",
        "Pod/test-ns/nginx-2",
        "Pod/dual/d1",
        "Pod/dual/d2",
        "Pod/six/s1",
        "Pod/six/s2",
        "Pod/blue/b1",
        "Pod/blue/b2",
        "Namespace/default",
        "Namespace/test-ns",
        "Namespace/dual",
        "Namespace/six",
        "Namespace/blue",
    ]);
    // The Subnet of the namespace's annotations went with the namespace, the others stay.
    assert!(
        !network
            .cluster
            .objects
            .contains_key("Subnet/test-ns-subnet")
    );
    assert!(network.cluster.objects.contains_key("Subnet/dual-sub"));
    network.delete(&["Subnet/dual-sub", "Subnet/6net", "Subnet/blue-sub"]);
    network.delete(&["Vpc/blue-vpc"]);
    assert_eq!(network.writer.rows(), rows);
    assert_eq!(network.contents(), before);
    assert!(network.writer.commits - commits <= 10, "a batch at a time");
    network.assert_northd_is_content();
}

#[test]
fn taken_apart_nothing_is_left() {
    let mut network = cluster();
    let units: Vec<Unit> = network.cluster.compiled.keys().cloned().collect();
    for unit in units {
        network.writer.diff.remove(&unit);
    }
    network.writer.flush();
    network.translate();
    assert_eq!(network.contents(), "");
    let ports = network.port_bindings(&["logical_port"]);
    assert!(ports.is_empty(), "{ports:?}");
    network.assert_northd_is_content();
}

/// Tunnel keys and neighbours depend on UUIDs and MACs: a lost database must come back as it was.
#[test]
fn a_lost_database_comes_back_byte_for_byte() {
    let network = cluster();
    let empty = Server::start(schema(Schema::Northbound));
    nbctl(&empty.remote(), &["init"]);
    let sent = network.restarted_on(&empty.remote()).flush();
    assert!(sent.contains("ovn-cluster"), "{sent}");
    assert_eq!(network.contents_of(&empty.remote()), network.contents());
}

#[test]
fn a_pod_that_went_is_reached_no_more() {
    let mut network = cluster();
    let gone = network.v4("nginx-2.test-ns");
    let sent = network.delete(&["Pod/test-ns/nginx-2"]);
    assert!(sent.contains("nginx-2.test-ns"), "{sent}");
    let mut checks = Checks::on(&network);
    checks.packet(&Packet::echo("web-1.default", gone), &Expect::Lost);
    checks.packet(&Packet::echo("nginx-1.test-ns", gone), &Expect::Lost);
    checks.done();
    // The next one gets the address, on another node, and its traffic that node's way.
    network.apply([pod("test-ns/nginx-9").on("n3.example").json()]);
    assert_eq!(network.v4("nginx-9.test-ns"), gone);
    let mut checks = Checks::on(&network);
    let packet = Packet::echo("web-1.default", gone);
    checks.packet(&packet, &Expect::Routed("nginx-9.test-ns"));
    let out = Packet::echo("nginx-9.test-ns", "203.0.113.7".parse().unwrap());
    checks.packet(&out, &Expect::Rerouted(29000, "node-n3.example"));
    checks.done();
}

#[test]
fn one_pod_is_one_transaction() {
    let mut network = cluster();
    let commits = network.writer.commits;
    network.apply([pod("default/late").on("node-2").json()]);
    assert_eq!(network.writer.commits, commits + 1);
    network.delete(&["Pod/default/late"]);
    assert_eq!(network.writer.commits, commits + 2);
}

/// Drift: somebody else edits rows of ours, or takes them away.
#[test]
fn hand_edits_are_put_back() {
    let mut network = cluster();
    let before = network.contents();
    for edit in [
        ["lr-policy-del", "ovn-cluster", "", ""].as_slice(),
        &["lsp-del", "web-1.default"],
        &[
            "lsp-set-addresses",
            "web-2.default",
            "02:00:00:00:00:01 10.16.0.99",
        ],
        &[
            "set",
            "Logical_Router_Port",
            "ovn-cluster-join",
            "networks=100.65.0.1/16",
        ],
        &["set", "Port_Group", "ovn.default.node.2", "ports=[]"],
        &["destroy", "Port_Group", "ovn.default.192.168.1.41"],
        &["lr-route-del", "ovn-cluster"],
        &["ls-del", "test-ns-subnet"],
        &["lr-del", "ovn-cluster"],
    ] {
        let edit: Vec<&str> = edit
            .iter()
            .copied()
            .filter(|word| !word.is_empty())
            .collect();
        nbctl(&network.nb.remote(), &edit);
        assert_ne!(network.contents(), before, "{edit:?}");
        network.writer.catch_up();
        network.writer.flush();
        assert_eq!(network.contents(), before, "after {edit:?}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let nb = Server::start(schema(Schema::Northbound));
    let remote = nb.remote();
    let by_hand = |args: &[&str]| nbctl(&remote, args);
    by_hand(&["ls-add", "theirs", "--", "lsp-add", "theirs", "their-port"]);
    by_hand(&[
        "lr-add",
        "their-router",
        "--",
        "lr-route-add",
        "their-router",
        "0.0.0.0/0",
        "10.0.0.1",
    ]);
    by_hand(&[
        "pg-add",
        "their_group",
        "their-port",
        "--",
        "create",
        "Address_Set",
        "name=their_set",
    ]);
    let show = |remote: &str| nbctl(remote, &["show", "theirs"]);
    let before = show(&remote);
    let mut network = Network::on(
        nb,
        Cluster::new(config()),
        nodes().into_iter().chain(users()),
    );
    // Somebody hangs a port and a policy of their own on what is ours.
    let by_hand = |args: &[&str]| nbctl(&network.nb.remote(), args);
    by_hand(&["lsp-add", "ovn-default", "guest"]);
    by_hand(&[
        "lr-policy-add",
        "ovn-cluster",
        "32000",
        "ip4.dst == 198.51.100.0/24",
        "drop",
    ]);
    let plan = network.restarted().plan();
    assert!(plan.is_empty(), "{plan}");
    network.apply([namespace("more").json(), pod("more/p").on("node-2").json()]);
    assert_eq!(show(&network.nb.remote()), before);
    let ports = nbctl(&network.nb.remote(), &["lsp-list", "ovn-default"]);
    assert!(
        ports.contains("(guest)") && ports.contains("(p.more)"),
        "{ports}"
    );
    let policies = nbctl(&network.nb.remote(), &["lr-policy-list", "ovn-cluster"]);
    assert!(policies.contains("198.51.100.0/24"), "{policies}");
}
