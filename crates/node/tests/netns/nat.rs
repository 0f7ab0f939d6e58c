//! Translations, and what becomes of packets that are too large.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use node::linux::{Firewall, NetNs};

use crate::harness::{converge, exchange, inputs_plan, out, path, path_subnets, sh, source_seen};

#[test]
fn masquerade_as_upstream_does() {
    let path = path();
    let mut firewall = Firewall::default();
    converge(&path.node, &mut firewall, &inputs_plan(&path_subnets()));
    let outside = (&path.outside, "192.168.1.250:9000");
    let seen = |from: &str| source_seen(&path, from, outside, "192.168.1.250:9000");
    assert_eq!(seen("10.16.0.11").as_deref(), Some("192.168.1.41"));
    assert_eq!(seen("10.17.0.11").as_deref(), Some("192.168.1.41"));
    assert_eq!(
        seen("10.18.0.11").as_deref(),
        Some("10.18.0.11"),
        "natOutgoing is off"
    );
    // Pod to its node: untranslated.
    assert_eq!(
        source_seen(
            &path,
            "10.16.0.11",
            (&path.node, "192.168.1.41:9001"),
            "192.168.1.41:9001"
        )
        .as_deref(),
        Some("10.16.0.11")
    );
    // Node to pod: the route's source address, no translation.
    let server = path
        .pod
        .run(|| UdpSocket::bind("10.16.0.11:9002").unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    path.node
        .run(|| {
            UdpSocket::bind("0.0.0.0:0")
                .unwrap()
                .send_to(b"x", "10.16.0.11:9002")
                .unwrap();
        })
        .unwrap();
    let mut buffer = [0; 10];
    assert_eq!(
        server.recv_from(&mut buffer).unwrap().1.ip().to_string(),
        "192.168.1.41"
    );
}

#[test]
fn no_packet_slips_through_while_the_table_is_replaced() {
    let path = path();
    let plan = inputs_plan(&path_subnets());
    converge(&path.node, &mut Firewall::default(), &plan);
    let text = plan.nft.unwrap();
    let bind = |ns: &NetNs, address: &'static str| {
        let socket = ns.run(|| UdpSocket::bind(address).unwrap()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        socket
    };
    let server = bind(&path.outside, "192.168.1.250:9000");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let replaced = scope.spawn(|| {
            let replace = || {
                let mut firewall = Firewall::default();
                (0..100).for_each(|_| firewall.replace(&text).unwrap());
            };
            path.node.run(replace).unwrap();
            over.store(true, Ordering::SeqCst);
        });
        // Each a connection of its own, which the rules see.
        let mut sent = 0;
        while !over.load(Ordering::SeqCst) {
            let client = bind(&path.pod, "10.16.0.11:0");
            client.send_to(b"x", "192.168.1.250:9000").unwrap();
            let (_, source) = server.recv_from(&mut [0; 10]).unwrap();
            assert_eq!(source.ip().to_string(), "192.168.1.41", "packet {sent}");
            sent += 1;
        }
        replaced.join().unwrap();
        assert!(sent > 100, "{sent} packets");
    });
}

#[test]
fn whatever_has_the_tables_name_is_replaced() {
    let path = path();
    let plan = inputs_plan(&path_subnets());
    let table = || out(&path.node, "nft -s list table inet kube_ovn");
    converge(&path.node, &mut Firewall::default(), &plan);
    let whole = table();
    for spoiled in [
        // Chains and sets of another version, and rules and elements of another hand.
        "add chain inet kube_ovn old { type nat hook output priority 0; }; add set inet kube_ovn old4 { type ipv4_addr; }; \
         add rule inet kube_ovn old ip daddr @old4 drop; add element inet kube_ovn nat4 { 10.99.0.0/16 }; \
         add rule inet kube_ovn postrouting drop",
        "delete table inet kube_ovn; add table inet kube_ovn; \
         add chain inet kube_ovn postrouting { type filter hook input priority 0; }",
        "delete table inet kube_ovn; add table inet kube_ovn; add set inet kube_ovn nat4 { type ipv6_addr; }",
        "delete table inet kube_ovn",
    ] {
        out(&path.node, &format!("nft '{spoiled}'"));
        assert_ne!(
            sh(&path.node, "nft -s list table inet kube_ovn").stdout,
            whole.as_bytes()
        );
        converge(&path.node, &mut Firewall::default(), &plan);
        assert_eq!(table(), whole, "{spoiled}");
    }
}

#[test]
fn services_through_the_node_come_back_through_it() {
    let path = path();
    let mut firewall = Firewall::default();
    converge(&path.node, &mut firewall, &inputs_plan(&path_subnets()));
    // kube-proxy in nftables mode, reduced to what matters: one Service to a pod, one to an outside endpoint.
    out(
        &path.node,
        "nft 'add table ip kube-proxy; \
         add chain ip kube-proxy pre { type nat hook prerouting priority dstnat; }; \
         add chain ip kube-proxy post { type nat hook postrouting priority srcnat; }; \
         add rule ip kube-proxy pre ip daddr 10.68.0.10 udp dport 53 dnat to 10.17.0.11:5353; \
         add rule ip kube-proxy pre ip daddr 10.68.0.1 udp dport 443 dnat to 192.168.1.250:6443; \
         add rule ip kube-proxy post meta mark & 0x4000 != 0x4000 return; \
         add rule ip kube-proxy post meta mark set meta mark ^ 0x4000; \
         add rule ip kube-proxy post masquerade fully-random'",
    );
    assert_eq!(
        source_seen(
            &path,
            "10.16.0.11",
            (&path.pod, "10.17.0.11:5353"),
            "10.68.0.10:53"
        )
        .as_deref(),
        Some("100.64.0.2"),
        "pod to Service to pod: the node's own join address, so that the answer returns here"
    );
    // Also where natOutgoing is off: the answer must pass this node.
    assert_eq!(
        source_seen(
            &path,
            "10.18.0.11",
            (&path.outside, "192.168.1.250:6443"),
            "10.68.0.1:443"
        )
        .as_deref(),
        Some("192.168.1.41")
    );
    // NodePort from outside, as kube-proxy marks it.
    out(
        &path.node,
        "nft 'insert rule ip kube-proxy pre iifname eth0 udp dport 30053 meta mark set meta mark | 0x4000 dnat to 10.16.0.11:5300'",
    );
    let server = path
        .pod
        .run(|| UdpSocket::bind("10.16.0.11:5300").unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    path.outside
        .run(|| {
            UdpSocket::bind("192.168.1.250:0")
                .unwrap()
                .send_to(b"x", "192.168.1.41:30053")
                .unwrap();
        })
        .unwrap();
    let mut buffer = [0; 10];
    assert_eq!(
        server.recv_from(&mut buffer).unwrap().1.ip().to_string(),
        "100.64.0.2"
    );
}

#[test]
fn kube_proxy_in_iptables_mode_translates_beside_us() {
    for (program, first) in [("iptables-nft", false), ("iptables-legacy", true)] {
        let path = path();
        let mut firewall = Firewall::default();
        let plan = inputs_plan(&path_subnets());
        out(&path.node, "ip route add default via 192.168.1.250");
        if !first {
            converge(&path.node, &mut firewall, &plan);
        }
        // The chains of kube-proxy: a Service of a pod, one of the API server, a NodePort.
        let rules = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
            :KUBE-POSTROUTING - [0:0]\n:KUBE-SVC-DNS - [0:0]\n:KUBE-SEP-DNS - [0:0]\n\
            -A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
            -A KUBE-SERVICES -d 10.68.0.10/32 -p udp --dport 53 -j KUBE-SVC-DNS\n\
            -A KUBE-SERVICES -d 10.68.0.1/32 -p udp --dport 443 -j DNAT --to-destination 192.168.1.250:6443\n\
            -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
            -A KUBE-NODEPORTS -p udp --dport 30053 -j KUBE-MARK-MASQ\n\
            -A KUBE-NODEPORTS -p udp --dport 30053 -j KUBE-SEP-DNS\n\
            -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
            -A KUBE-SVC-DNS ! -s 10.16.0.0/14 -j KUBE-MARK-MASQ\n-A KUBE-SVC-DNS -j KUBE-SEP-DNS\n\
            -A KUBE-SEP-DNS -s 10.17.0.11/32 -j KUBE-MARK-MASQ\n\
            -A KUBE-SEP-DNS -p udp -j DNAT --to-destination 10.17.0.11:5353\n\
            -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
            -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
            -A KUBE-POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n";
        out(
            &path.node,
            &format!("printf '%b' '{rules}' | {program}-restore"),
        );
        if first {
            converge(&path.node, &mut firewall, &plan);
        }
        let (pod, node, outside) = (&path.pod, &path.node, &path.outside);
        let dns = (pod, "10.17.0.11:5353");
        let api = (outside, "192.168.1.250:6443");
        for (from, listen, to, source, what) in [
            (
                (pod, "10.16.0.11"),
                dns,
                "10.68.0.10:53",
                "100.64.0.2",
                "pod to Service of a pod",
            ),
            (
                (pod, "10.17.0.11"),
                dns,
                "10.68.0.10:53",
                "100.64.0.2",
                "pod to itself by its Service",
            ),
            (
                (node, "0.0.0.0"),
                dns,
                "10.68.0.10:53",
                "100.64.0.2",
                "node to Service",
            ),
            (
                (pod, "10.16.0.11"),
                api,
                "10.68.0.1:443",
                "192.168.1.41",
                "pod to Service of the API server",
            ),
            (
                (pod, "10.18.0.11"),
                api,
                "10.68.0.1:443",
                "192.168.1.41",
                "the same without natOutgoing",
            ),
            (
                (outside, "192.168.1.250"),
                dns,
                "192.168.1.41:30053",
                "100.64.0.2",
                "NodePort",
            ),
        ] {
            assert_eq!(
                exchange(from, listen, to),
                Some((source.to_owned(), true)),
                "{program}: {what}"
            );
        }
        // Each of these was translated once: what we decide never reaches kube-proxy's own rule.
        let counters = out(node, &format!("{program} -t nat -nvxL KUBE-POSTROUTING"));
        let masqueraded = counters
            .lines()
            .find(|line| line.contains("MASQUERADE"))
            .unwrap();
        assert!(masqueraded.trim_start().starts_with("0 "), "{counters}");
    }
}

#[test]
fn a_host_port_answers_other_nodes_too() {
    let path = path();
    let mut firewall = Firewall::default();
    converge(&path.node, &mut firewall, &inputs_plan(&path_subnets()));
    // As the plugin portmap does it, and a NodePort of externalTrafficPolicy Local: translated, not marked.
    out(
        &path.node,
        "nft 'add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; \
         add rule ip nat pre fib daddr type local udp dport 18080 dnat to 10.16.0.11:80'",
    );
    let server = path
        .pod
        .run(|| UdpSocket::bind("10.16.0.11:80").unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let seen_from = |source: &str| {
        path.outside
            .run(|| {
                UdpSocket::bind(format!("{source}:0"))
                    .unwrap()
                    .send_to(b"x", "192.168.1.41:18080")
                    .unwrap();
            })
            .unwrap();
        server.recv_from(&mut [0; 10]).unwrap().1.ip().to_string()
    };
    // The answer to a node would be brought to that node's own ovn0, past the translation.
    assert_eq!(seen_from("192.168.1.249"), "100.64.0.2");
    assert_eq!(seen_from("192.168.1.250"), "192.168.1.250");
}

#[test]
fn ipv6_is_masqueraded_alike() {
    let path = path();
    let mut firewall = Firewall::default();
    converge(&path.node, &mut firewall, &inputs_plan(&path_subnets()));
    let outside = (&path.outside, "[fd00:192:168:1::250]:9000");
    let seen = |from: &str| exchange((&path.pod, from), outside, "[fd00:192:168:1::250]:9000");
    assert_eq!(
        seen("fd00:10:16::b"),
        Some(("fd00:192:168:1::41".to_owned(), true))
    );
    assert_eq!(
        seen("fd00:10:18::b"),
        Some(("fd00:10:18::b".to_owned(), true)),
        "natOutgoing is off"
    );
}

#[test]
fn large_packets_from_outside_are_refused_aloud() {
    let path = path();
    let mut firewall = Firewall::default();
    converge(&path.node, &mut firewall, &inputs_plan(&path_subnets()));
    // With the headers (28 and 48 bytes) 1400, the pod's MTU.
    for (pod, fits, says) in [
        ("10.16.0.11", 1372, "Frag needed and DF set (mtu = 1400)"),
        ("fd00:10:16::b", 1352, "Packet too big: mtu=1400"),
    ] {
        out(
            &path.outside,
            &format!("ping -c1 -W1 -M do -s {fits} {pod}"),
        );
        let refused = sh(
            &path.outside,
            &format!("ping -c1 -W1 -M do -s {} {pod}", fits + 1),
        );
        let text = String::from_utf8_lossy(&refused.stdout);
        assert!(!refused.status.success() && text.contains(says), "{text}");
    }
}
