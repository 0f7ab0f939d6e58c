//! Where packets go.

use std::net::IpAddr;

use net::Family;
use testkit::objects::{namespace, node, pod, subnet};

use crate::network::Network;
use crate::trace::{Checks, Expect, Packet};
use crate::{NODES, PODS, cluster, config, nodes, users};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The address of a link that follows from a MAC (RFC 4291, appendix A).
fn eui64(mac: net::Mac) -> IpAddr {
    let [first, .., last] = mac.octets();
    let mut address = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        first ^ 2,
        0,
        0,
        0xff,
        0xfe,
        0,
        0,
        last,
    ];
    address[9..11].copy_from_slice(&mac.octets()[1..3]);
    address[13..15].copy_from_slice(&mac.octets()[3..5]);
    address.into()
}

/// Every pair of a pod and a family that it has.
fn pods_with_addresses(
    network: &Network,
) -> impl Iterator<Item = (&'static str, &'static str, Family, IpAddr)> {
    PODS.into_iter().flat_map(|(port, node)| {
        let lease = network.cluster.world.lease(port).expect("a lease");
        lease
            .addresses
            .by_family()
            .map(move |(family, address)| (port, node, family, *address))
            .collect::<Vec<_>>()
    })
}

fn node_port(node: &str) -> &'static str {
    NODES.iter().find(|(name, ..)| *name == node).unwrap().1
}

#[test]
fn pods_reach_each_other() {
    let network = cluster();
    assert_eq!(
        network.v4("web-1.default"),
        ip("10.16.0.11"),
        "as in the seed"
    );
    assert_eq!(
        network.v4("nginx-1.test-ns"),
        ip("10.17.0.11"),
        "as in the seed"
    );
    let mut checks = Checks::on(&network);
    for (from, _, family, own) in pods_with_addresses(&network) {
        for (to, _, other, address) in pods_with_addresses(&network) {
            if family != other || own == address {
                continue;
            }
            let expect = if network.switch(from) == network.switch(to) {
                Expect::Switched(to)
            } else {
                Expect::Routed(to)
            };
            checks.packet(&Packet::echo(from, address), &expect);
        }
    }
    let nginx = network.v4("nginx-2.test-ns");
    let web = Packet::tcp("web-1.default", nginx, 80);
    checks.packet(&web, &Expect::Routed("nginx-2.test-ns"));
    let dns = Packet::udp("s1.six", network.v6("d1.dual"), 53);
    checks.packet(&dns, &Expect::Routed("d1.dual"));
    checks.done();
    network.assert_northd_is_content();
}

#[test]
fn nodes_and_pods_reach_each_other() {
    let network = cluster();
    let mut checks = Checks::on(&network);
    for (_, port, v4, v6) in NODES {
        for (pod, _, family, address) in pods_with_addresses(&network) {
            // A node's own address, also that of another node than the pod's: through that node's join port.
            let node = ip(if family == Family::V4 { v4 } else { v6 });
            checks.packet(&Packet::echo(pod, node), &Expect::Rerouted(30000, port));
            // Its address in the join network.
            let join = network.address(port, family);
            checks.packet(&Packet::echo(pod, join), &Expect::Routed(port));
            // The node asks, from its join address, or from its own one.
            checks.packet(&Packet::echo(port, address), &Expect::Routed(pod));
            let probe = Packet::tcp(port, address, 8080).source(node);
            checks.packet(&probe, &Expect::Routed(pod));
        }
        for (_, other, ..) in NODES.into_iter().filter(|node| node.1 != port) {
            let packet = Packet::echo(port, network.v4(other));
            checks.packet(&packet, &Expect::Switched(other));
            let packet = Packet::echo(port, network.v6(other));
            checks.packet(&packet, &Expect::Switched(other));
        }
    }
    checks.done();
}

#[test]
fn pods_leave_through_their_own_node() {
    let network = cluster();
    let mut checks = Checks::on(&network);
    for (pod, node, family, address) in pods_with_addresses(&network) {
        let port = node_port(node);
        let (outside, service) = match family {
            Family::V4 => (ip("203.0.113.7"), ip("10.96.0.1")),
            Family::V6 => (ip("2001:db8::7"), ip("fd00:10:96::1")),
        };
        let out = Expect::Rerouted(29000, port);
        checks.packet(&Packet::echo(pod, outside), &out);
        checks.packet(&Packet::tcp(pod, outside, 443), &out);
        // ClusterIPs are kube-proxy's, on the pod's node.
        checks.packet(&Packet::tcp(pod, service, 443), &out);
        // What comes back, and what comes in by another node.
        for (_, port, ..) in NODES {
            let reply = Packet::udp(port, address, 40000).source(outside);
            checks.packet(&reply, &Expect::Routed(pod));
        }
    }
    checks.done();
}

#[test]
fn gateways_answer_pings() {
    let network = cluster();
    let mut checks = Checks::on(&network);
    let gateways = [
        "10.16.0.1",
        "10.17.0.1",
        "10.18.0.1",
        "100.64.0.1",
        "fd00:10:18::1",
        "fd00:10:66::ffff",
        "fd00:100:64::1",
    ];
    let nodes = NODES.map(|(_, port, ..)| port);
    for from in PODS.map(|(port, _)| port).into_iter().chain(nodes) {
        let lease = network.cluster.world.lease(from).unwrap();
        for gateway in gateways.map(ip) {
            if lease
                .addresses
                .get(net::HasFamily::family(&gateway))
                .is_some()
            {
                checks.packet(&Packet::echo(from, gateway), &Expect::Answered);
            }
        }
        if lease.addresses.v6.is_some() {
            let link_local = eui64(network.gateway_mac(&lease.subnet));
            checks.packet(&Packet::echo(from, link_local), &Expect::Answered);
        }
    }
    checks.done();
}

#[test]
fn a_route_of_too_many_hops_is_told() {
    let network = cluster();
    let mut checks = Checks::on(&network);
    let expired = |packet: Packet, from: &str| (packet.ttl(1), Expect::Expired(ip(from)));
    for (packet, expect) in [
        expired(
            Packet::udp("web-1.default", ip("203.0.113.7"), 33434),
            "10.16.0.1",
        ),
        expired(
            Packet::echo("web-1.default", network.v4("nginx-2.test-ns")),
            "10.16.0.1",
        ),
        expired(
            Packet::udp("nginx-1.test-ns", ip("192.168.1.43"), 33434),
            "10.17.0.1",
        ),
        expired(
            Packet::udp("d1.dual", ip("2001:db8::7"), 33434),
            "fd00:10:18::1",
        ),
        expired(
            Packet::echo("s1.six", network.v6("d2.dual")),
            "fd00:10:66::ffff",
        ),
    ] {
        checks.packet(&packet, &expect);
    }
    // On one switch there is no hop.
    let near = Packet::echo("web-1.default", network.v4("web-3.default")).ttl(1);
    checks.packet(&near, &Expect::Switched("web-3.default"));
    checks.done();
}

#[test]
fn nothing_leaks() {
    let network = cluster();
    let mut checks = Checks::on(&network);
    // Addresses that nobody has.
    for to in ["10.16.0.200", "10.17.0.200", "10.18.0.200", "100.64.0.200"] {
        checks.packet(&Packet::echo("web-1.default", ip(to)), &Expect::Lost);
        checks.packet(&Packet::echo("nginx-2.test-ns", ip(to)), &Expect::Lost);
    }
    for to in ["fd00:10:18::99", "fd00:10:66::99", "fd00:100:64::99"] {
        checks.packet(&Packet::echo("d1.dual", ip(to)), &Expect::Lost);
    }
    // What is for everybody stays on its switch, and what is for the host or the link goes nowhere.
    for to in ["224.0.0.251", "239.1.2.3", "255.255.255.255"] {
        checks.packet(
            &Packet::udp("web-1.default", ip(to), 5353),
            &Expect::Flooded,
        );
    }
    checks.packet(
        &Packet::udp("s1.six", ip("ff02::fb"), 5353),
        &Expect::Flooded,
    );
    for to in ["10.17.255.255", "127.0.0.1"] {
        checks.packet(&Packet::udp("web-1.default", ip(to), 5353), &Expect::Lost);
    }
    // Another VPC is another world: its pods see each other, and nothing of the cluster, although addresses are the same.
    let (b1, b2) = ("b1.blue", "b2.blue");
    checks.packet(&Packet::echo(b1, network.v4(b2)), &Expect::Switched(b2));
    checks.packet(&Packet::echo(b1, ip("10.16.0.1")), &Expect::Answered);
    for to in [
        "10.16.0.11",
        "10.17.0.11",
        "100.64.0.1",
        "100.64.0.2",
        "192.168.1.41",
        "203.0.113.7",
        "10.96.0.1",
    ] {
        checks.packet(&Packet::echo(b1, ip(to)), &Expect::Lost);
    }
    // The cluster's pods get to the cluster's owner of the address, never to the VPC's.
    let packet = Packet::echo("nginx-1.test-ns", network.v4(b1));
    assert!(
        network
            .trace(&packet)
            .outputs
            .iter()
            .all(|output| output.port != b1 && output.port != b2)
    );
    checks.done();
    network.assert_northd_is_content();
}

/// The family of the join network decides whether there is a way out.
#[test]
fn without_ipv6_nodes_ipv6_pods_stay_inside() {
    let mut config = config();
    config.join.cidrs = "100.64.0.0/16".parse().unwrap();
    let network = Network::start(config, nodes().into_iter().chain(users()));
    let mut checks = Checks::on(&network);
    let routed = Packet::echo("s1.six", network.v6("d1.dual"));
    checks.packet(&routed, &Expect::Routed("d1.dual"));
    checks.packet(
        &Packet::echo("s1.six", ip("fd00:10:66::ffff")),
        &Expect::Answered,
    );
    checks.packet(&Packet::echo("s1.six", ip("2001:db8::7")), &Expect::Lost);
    checks.packet(&Packet::echo("d1.dual", ip("2001:db8::7")), &Expect::Lost);
    checks.packet(&Packet::echo("d1.dual", ip("fd00:1::42")), &Expect::Lost);
    let out = Expect::Rerouted(29000, "node-192.168.1.41");
    checks.packet(&Packet::echo("d1.dual", ip("203.0.113.7")), &out);
    checks.done();
    network.assert_northd_is_content();
}

/// A pod may be seen before its node, and may outlive the Node object.
#[test]
fn a_pod_on_an_unknown_node_has_no_way_out() {
    let mut network = cluster();
    network.apply([pod("default/stray").on("n4").json()]);
    let stray = "stray.default";
    let mut checks = Checks::on(&network);
    let web = network.v4("web-1.default");
    checks.packet(
        &Packet::echo(stray, web),
        &Expect::Switched("web-1.default"),
    );
    let own = network.v4(stray);
    checks.packet(
        &Packet::echo("nginx-1.test-ns", own),
        &Expect::Routed(stray),
    );
    checks.packet(&Packet::echo(stray, ip("203.0.113.7")), &Expect::Lost);
    checks.done();

    network.apply([node("n4", "192.168.1.44,fd00:1::44").json()]);
    let mut checks = Checks::on(&network);
    let out = Expect::Rerouted(29000, "node-n4");
    checks.packet(&Packet::echo(stray, ip("203.0.113.7")), &out);
    let node = Expect::Rerouted(30000, "node-n4");
    checks.packet(&Packet::echo("web-1.default", ip("192.168.1.44")), &node);
    checks.done();
    network.assert_northd_is_content();
}

/// Single-stack IPv6, the least tried of the three.
#[test]
fn an_ipv6_cluster_works_alike() {
    let mut config = config();
    config.join.cidrs = "fd00:100:64::/112".parse().unwrap();
    config.default_subnet.cidrs = "fd00:10:16::/112".parse().unwrap();
    config.default_subnet.exclude_ips = Vec::new();
    config.service_cidrs = "fd00:10:96::/112".parse().unwrap();
    let network = Network::start(
        config,
        [
            node("n1", "fd00:1::41").json(),
            node("n2", "fd00:1::42").json(),
            namespace("default").json(),
            pod("default/a").on("n1").json(),
            pod("default/b").on("n2").json(),
        ],
    );
    let (a, b) = ("a.default", "b.default");
    let mut checks = Checks::on(&network);
    checks.packet(&Packet::echo(a, network.v6(b)), &Expect::Switched(b));
    checks.packet(&Packet::echo(a, ip("fd00:10:16::1")), &Expect::Answered);
    checks.packet(
        &Packet::tcp(a, ip("fd00:1::42"), 6443),
        &Expect::Rerouted(30000, "node-n2"),
    );
    checks.packet(
        &Packet::tcp(a, ip("fd00:10:96::1"), 443),
        &Expect::Rerouted(29000, "node-n1"),
    );
    checks.packet(
        &Packet::echo(b, ip("2001:db8::7")),
        &Expect::Rerouted(29000, "node-n2"),
    );
    checks.packet(&Packet::echo("node-n1", network.v6(b)), &Expect::Routed(b));
    checks.done();
    network.assert_northd_is_content();
}

#[test]
fn a_node_local_dns_cache_is_the_own_nodes() {
    let mut config = config();
    config.node_local_dns = vec![ip("169.254.20.10"), ip("fd00:53::10")];
    let network = Network::start(config, nodes().into_iter().chain(users()));
    let mut checks = Checks::on(&network);
    for (pod, node, family, _) in pods_with_addresses(&network) {
        let server = match family {
            Family::V4 => ip("169.254.20.10"),
            Family::V6 => ip("fd00:53::10"),
        };
        let own = Expect::Rerouted(30000, node_port(node));
        checks.packet(&Packet::udp(pod, server, 53), &own);
    }
    checks.done();
    network.assert_northd_is_content();
}

#[test]
fn policies_follow_a_nodes_address() {
    let mut network = cluster();
    network.apply([node("node-2", "192.168.1.52,fd00:1::52").json()]);
    let mut checks = Checks::on(&network);
    let there = Expect::Rerouted(30000, "node-node-2");
    let web = "web-1.default";
    checks.packet(&Packet::echo(web, ip("192.168.1.52")), &there);
    checks.packet(&Packet::echo("s2.six", ip("fd00:1::52")), &there);
    // The old address is anybody's now.
    let out = Expect::Rerouted(29000, "node-192.168.1.41");
    checks.packet(&Packet::echo(web, ip("192.168.1.42")), &out);
    let own = Expect::Rerouted(29000, "node-node-2");
    checks.packet(&Packet::echo("web-3.default", ip("203.0.113.7")), &own);
    checks.done();
}

#[test]
fn a_node_that_goes_takes_nothing_with_it() {
    let mut network = cluster();
    let before = network.contents();
    network.delete(&["Node/node-2"]);
    let mut checks = Checks::on(&network);
    // Its pods may still run there, and hear the others; there is no way out for them.
    let web3 = network.v4("web-3.default");
    checks.packet(
        &Packet::echo("web-1.default", web3),
        &Expect::Switched("web-3.default"),
    );
    checks.packet(
        &Packet::echo("web-3.default", ip("203.0.113.7")),
        &Expect::Lost,
    );
    for (pod, node, family, _) in pods_with_addresses(&network) {
        if node == "node-2" {
            continue;
        }
        let (outside, first) = match family {
            Family::V4 => (ip("203.0.113.7"), ip("192.168.1.41")),
            Family::V6 => (ip("2001:db8::7"), ip("fd00:1::41")),
        };
        let out = Expect::Rerouted(29000, node_port(node));
        checks.packet(&Packet::echo(pod, outside), &out);
        let there = Expect::Rerouted(30000, "node-192.168.1.41");
        checks.packet(&Packet::echo(pod, first), &there);
    }
    checks.done();
    network.assert_northd_is_content();
    // It comes back under the same name.
    network.apply(nodes());
    assert_eq!(network.contents(), before);
}

/// OVN knows no `-` in the names of groups: `net-a` and `net.a` are one name to it, and so are `a` on `b.n1` and `a.b`
/// on `n1`.
#[test]
fn names_that_ovn_cannot_tell_apart() {
    let made = |name: &str, cidr: &str, namespace: &str| {
        let subnet = subnet(name, cidr).namespace(namespace).nat();
        serde_json::to_value(subnet.build()).unwrap()
    };
    let mut network = Network::start(
        config(),
        [
            node("n1", "192.168.1.51").json(),
            node("b.n1", "192.168.1.52").json(),
            namespace("x").json(),
            namespace("z").json(),
            made("net-a", "10.21.0.0/24", "x"),
            made("a", "10.23.0.0/24", "z"),
            pod("x/p").on("n1").json(),
            pod("z/p").on("b.n1").json(),
        ],
    );
    let outside = ip("203.0.113.7");
    let mut checks = Checks::on(&network);
    let n1 = Expect::Rerouted(29000, "node-n1");
    let bn1 = Expect::Rerouted(29000, "node-b.n1");
    checks.packet(&Packet::echo("p.x", outside), &n1);
    checks.packet(&Packet::echo("p.z", outside), &bn1);
    checks.done();

    // The others come later.
    network.apply([
        namespace("y").json(),
        namespace("w").json(),
        made("net.a", "10.22.0.0/24", "y"),
        made("a.b", "10.24.0.0/24", "w"),
        pod("y/p").on("n1").json(),
        pod("w/p").on("n1").json(),
    ]);
    let mut checks = Checks::on(&network);
    for pod in ["p.x", "p.y", "p.w"] {
        checks.packet(&Packet::echo(pod, outside), &n1);
    }
    checks.packet(&Packet::echo("p.z", outside), &bn1);
    checks.done();
    let plan = network.restarted().plan();
    assert!(plan.is_empty(), "{plan}");
    network.assert_northd_is_content();
}
