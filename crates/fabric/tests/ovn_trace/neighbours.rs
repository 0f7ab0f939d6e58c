//! Who answers for which address.

use net::Mac;

use crate::network::Network;
use crate::{NODES, PODS, cluster};

/// The MAC that OVN gives for an IPv4 address.
fn ask(network: &Network, from: &str, address: &str) -> Option<Mac> {
    let mac = network.mac(from);
    let flow = format!(
        "inport == \"{from}\" && eth.src == {mac} && eth.dst == ff:ff:ff:ff:ff:ff && arp.op == 1 && arp.sha == {mac} && arp.spa == {} && arp.tha == 00:00:00:00:00:00 && arp.tpa == {address}",
        network.v4(from)
    );
    let trace = network.trace_flow(from, flow, 0);
    let replies: Vec<_> = trace
        .outputs
        .iter()
        .filter(|output| output.port == from && output.field("arp.op") == Some("2"))
        .collect();
    assert!(replies.len() <= 1, "two answers:\n{}", trace.text);
    let reply = replies.first()?;
    assert_eq!(reply.field("arp.spa"), Some(address), "{}", trace.text);
    Some(reply.field("arp.sha")?.parse().unwrap())
}

#[test]
fn gateways_answer_for_themselves() {
    let network = cluster();
    let mut macs = std::collections::BTreeSet::new();
    for (from, switch, gateway) in [
        ("web-1.default", "ovn-default", "10.16.0.1"),
        ("nginx-2.test-ns", "test-ns-subnet", "10.17.0.1"),
        ("d1.dual", "dual-sub", "10.18.0.1"),
        ("node-node-2", "join", "100.64.0.1"),
        ("b1.blue", "blue-sub", "10.16.0.1"),
    ] {
        let mac = ask(&network, from, gateway);
        assert_eq!(mac, Some(network.gateway_mac(switch)), "{gateway}");
        macs.insert(mac);
    }
    assert_eq!(macs.len(), 5, "each router port has a MAC of its own");
    // A gateway does not answer for other switches' addresses, nor for the world.
    for address in ["10.17.0.1", "10.17.0.11", "203.0.113.7"] {
        assert_eq!(ask(&network, "web-1.default", address), None, "{address}");
    }
}

/// `ovn-trace` cannot follow a router's answer to a neighbour solicitation (it aborts, in 23.03 and in 25.03), so the
/// logical flows have to do.
#[test]
fn gateways_answer_in_ipv6() {
    let network = cluster();
    let flows = network.logical_flows();
    for (port, gateway) in [
        ("ovn-cluster-dual-sub", "fd00:10:18::1"),
        ("ovn-cluster-6net", "fd00:10:66::ffff"),
        ("ovn-cluster-join", "fd00:100:64::1"),
    ] {
        let answers = flows.lines().filter(|line| {
            line.contains("lr_in_ip_input")
                && line.contains(&format!("inport == \"{port}\""))
                && line.contains("nd_ns")
                && line.contains(&format!("nd.target == {gateway}"))
                && line.contains("nd_na_router {")
        });
        assert_eq!(answers.count(), 1, "{port} answers for {gateway}:\n{flows}");
    }
}

#[test]
fn every_port_has_what_its_owner_was_told() {
    let network = cluster();
    let bindings = network.port_bindings(&["logical_port", "mac", "type"]);
    let nodes = NODES.map(|(_, port, ..)| port);
    for port in PODS.map(|(port, _)| port).into_iter().chain(nodes) {
        let lease = network.cluster.world.lease(port).unwrap();
        let addresses: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
        let wanted = format!("{} {}", lease.mac, addresses.join(" "));
        let line = format!("{port},{wanted},");
        assert!(bindings.contains(&line), "{line} is not in {bindings:#?}");
    }
}
