//! The adapters against the real kernel, in network namespaces of their own. Needs root and the programs `nft` and
//! `ping`; without them the tests fail and say so.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::time::Duration;

use net::{Cidr, DualStack, Mac};
use node::addr::IfAddr;
use node::linux::{self, Firewall, NetNs, Socket};
use node::plan::{
    self, JoinPort, NodeConfig, NodeFacts, NodeInputs, NodePlan, SubnetFacts, TunnelNic,
};
use node::pod::{Identity, PodNetwork, PodNic};
use smol_str::SmolStr;

fn need_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root"
    );
}

fn sh(ns: &NetNs, command: &str) -> Output {
    ns.run(|| Command::new("sh").args(["-c", command]).output())
        .unwrap()
        .unwrap()
}

/// Standard output of a command that must succeed.
fn out(ns: &NetNs, command: &str) -> String {
    let output = sh(ns, command);
    assert!(
        output.status.success(),
        "{command}: {}\n(packages: iproute2 nftables iputils-ping ethtool)",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn node_ns() -> NetNs {
    need_root();
    let ns = NetNs::new().unwrap();
    out(&ns, "ip link set lo up");
    ns
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<SmolStr, SmolStr> {
    pairs
        .iter()
        .map(|(k, v)| (format!("ovn.kubernetes.io/{k}").into(), SmolStr::new(v)))
        .collect()
}

fn pod_nic(ip: &str, mac: &str, id: &str) -> PodNic {
    let network = PodNetwork::from_annotations(
        &annotations(&[
            ("allocated", "true"),
            ("routed", "true"),
            ("ip_address", ip),
            ("cidr", "10.16.0.0/16,fd00:10:16::/112"),
            ("gateway", "10.16.0.1,fd00:10:16::1"),
            ("mac_address", mac),
            ("logical_switch", "ovn-default"),
            ("routes", r#"[{"dst":"192.0.2.0/24","gw":"10.16.0.9"}]"#),
        ]),
        "ovn",
        true,
    )
    .unwrap();
    PodNic::new(id, "eth0", &network, &[], true, 1400, true)
}

fn identity() -> Identity {
    Identity {
        namespace: "default".into(),
        name: "a".into(),
        netns: "/run/netns/a".into(),
        ip: "10.16.0.11".into(),
    }
}

#[test]
fn a_pods_interface_from_nothing_to_nothing() {
    let node = node_ns();
    let pod = NetNs::new().unwrap();
    // As container runtimes hand a namespace over.
    out(&pod, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let nic = pod_nic(
        "10.16.0.11,fd00:10:16::b",
        "0a:00:00:10:00:0b",
        "0123456789abcdef",
    );
    let mut host = node.run(Socket::open).unwrap().unwrap();

    let at = |step: &str| out(&pod, step);
    node.run(|| linux::attach(&mut host, &pod, &nic, &identity()))
        .unwrap()
        .unwrap();
    assert!(at("ip -o link show eth0").contains("state DOWN"));
    assert_eq!(
        at("ip -4 -o addr show eth0"),
        "",
        "no address before set_up"
    );
    assert!(out(&node, "ip -o link show 0123456789ab_h").contains("mtu 1400"));
    assert_eq!(
        linux::pod_devices(&mut host).unwrap(),
        [("0123456789ab_h".into(), identity())]
    );
    assert!(
        at("ethtool -k eth0").contains("tx-checksumming: off"),
        "checksum offload must be off for the userspace datapath"
    );

    linux::set_up(&pod, &nic).unwrap();
    let link = at("ip -o link show eth0");
    assert!(link.contains("mtu 1400") && link.contains("0a:00:00:10:00:0b"));
    assert!(at("ip -o addr show eth0").contains("inet 10.16.0.11/16 brd 10.16.255.255"));
    let v6 = at("ip -6 -o addr show eth0");
    assert!(v6.contains("fd00:10:16::b/112"), "{v6}");
    assert!(!v6.contains("tentative fd00"), "{v6}");
    let routes = at("ip route");
    assert!(
        routes.contains("default via 10.16.0.1 dev eth0"),
        "{routes}"
    );
    assert!(routes.contains("192.0.2.0/24 via 10.16.0.9"), "{routes}");
    assert!(at("ip -6 route").contains("default via fd00:10:16::1"));
    assert_eq!(at("sysctl -n net.ipv6.conf.eth0.accept_ra").trim(), "0");

    node.run(|| linux::check(&mut host, &pod, &nic))
        .unwrap()
        .unwrap();
    // Both again: ADD is repeated after an attempt that failed half way.
    linux::set_up(&pod, &nic).unwrap();
    at("ip addr del 10.16.0.11/16 dev eth0");
    let error = node
        .run(|| linux::check(&mut host, &pod, &nic))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "eth0 does not have the address 10.16.0.11/16"
    );
    node.run(|| linux::attach(&mut host, &pod, &nic, &identity()))
        .unwrap()
        .unwrap();
    linux::set_up(&pod, &nic).unwrap();

    linux::remove_device(&mut host, &nic.host).unwrap();
    assert!(!linux::device_exists(&mut host, &nic.host).unwrap());
    assert!(!at("ip -o link").contains("eth0"));
    linux::remove_device(&mut host, &nic.host).unwrap();
}

#[test]
fn announcements_reach_the_other_end() {
    let node = node_ns();
    let pod = NetNs::new().unwrap();
    let nic = pod_nic(
        "10.16.0.11,fd00:10:16::b",
        "0a:00:00:10:00:0b",
        "0123456789abcdef",
    );
    let mut host = node.run(Socket::open).unwrap().unwrap();
    node.run(|| linux::attach(&mut host, &pod, &nic, &identity()))
        .unwrap()
        .unwrap();
    out(
        &node,
        "sysctl -qw net.ipv6.conf.0123456789ab_h.disable_ipv6=0 net.ipv4.conf.0123456789ab_h.arp_accept=1 \
         net.ipv6.conf.0123456789ab_h.accept_untracked_na=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.0123456789ab_h.forwarding=1; \
         ip addr add 10.16.0.1/16 dev 0123456789ab_h; ip addr add fd00:10:16::1/112 dev 0123456789ab_h nodad",
    );
    linux::set_up(&pod, &nic).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let neighbours = out(&node, "ip neigh show");
    assert!(
        neighbours.contains("10.16.0.11 dev 0123456789ab_h lladdr 0a:00:00:10:00:0b"),
        "{neighbours}"
    );
    assert!(
        neighbours.contains("fd00:10:16::b dev 0123456789ab_h lladdr 0a:00:00:10:00:0b"),
        "{neighbours}"
    );
    // And the gateway probe, both families, from the node's end.
    let probe = |ip: &str, seq| {
        let ip: IpAddr = ip.parse().unwrap();
        node.run(|| linux::ping("0123456789ab_h", ip, 7, seq, Duration::from_secs(1)).unwrap())
            .unwrap()
    };
    assert!(probe("10.16.0.11", 1));
    assert!(probe("fd00:10:16::b", 2));
    let before = std::time::Instant::now();
    let none: IpAddr = "10.16.0.99".parse().unwrap();
    let answered = node
        .run(|| linux::ping("0123456789ab_h", none, 7, 3, Duration::from_millis(200)).unwrap())
        .unwrap();
    assert!(!answered && before.elapsed() < Duration::from_secs(1));
}

fn inputs_plan(subnets: &BTreeMap<SmolStr, SubnetFacts>) -> NodePlan {
    let config = NodeConfig {
        service_cidrs: vec!["10.68.0.0/16".parse().unwrap()],
        ..NodeConfig::default()
    };
    let node = NodeFacts {
        name: "n1".into(),
        internal_ips: DualStack::new(Some("192.168.1.41".parse().unwrap()), None),
        userspace_datapath: true,
        tunnel_interface: None,
        join: JoinPort::from_annotations(&annotations(&[
            ("ip_address", "100.64.0.2"),
            ("cidr", "100.64.0.0/16"),
            ("gateway", "100.64.0.1"),
            ("mac_address", "0a:58:64:40:00:02"),
            ("port_name", "node-n1"),
        ])),
    };
    let tunnel = TunnelNic {
        name: "br-phy".into(),
        ip: "172.21.0.11".parse().unwrap(),
        mtu: 1500,
    };
    plan::compile(&NodeInputs {
        config: &config,
        node: &node,
        other_nodes: &["192.168.1.249".parse().unwrap()].into(),
        subnets,
        subnets_listed: true,
        tunnel: Ok(&tunnel),
        datapath_type_set: true,
    })
    .plan
}

fn subnet(name: &str, cidr: &str) -> (SmolStr, SubnetFacts) {
    let facts = SubnetFacts {
        name: name.into(),
        vpc: "ovn-cluster".into(),
        cidrs: cidr.split(',').map(|c| c.parse().unwrap()).collect(),
        vlan: false,
        logical_gateway: false,
        u2o_interconnection: false,
        nat_outgoing: name != "join",
        gateway_type: plan::GatewayType::Distributed,
        egress_ips: Vec::new(),
        mtu: None,
    };
    (name.into(), facts)
}

/// Applies until nothing is left to do; returns the rounds' operations as text.
fn converge(ns: &NetNs, firewall: &mut Firewall, plan: &NodePlan) -> Vec<String> {
    ns.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut done = Vec::new();
        for round in 0.. {
            assert!(round < 3, "does not converge: {done:?}");
            let state = linux::observe(&mut socket, firewall, plan, true).unwrap();
            let ops = plan::diff(plan, &state);
            if ops.is_empty() {
                break;
            }
            for op in ops {
                linux::apply(&mut socket, firewall, &op).unwrap();
                done.push(op.to_string());
            }
        }
        done
    })
    .unwrap()
}

#[test]
fn the_node_plan_is_reached_kept_and_left_alone() {
    let node = node_ns();
    // In the place of OVS: a device that is named ovn0.
    out(
        &node,
        "ip link add ovn0 type veth peer name far; ip link set far up; ip link add eth0 type veth peer name out0; \
         ip link set eth0 up; ip link set out0 up; ip addr add 192.168.1.41/24 dev eth0; \
         ip route add 10.99.0.0/16 via 192.168.1.1 dev eth0",
    );
    let subnets: BTreeMap<_, _> = [
        subnet("join", "100.64.0.0/16"),
        subnet("ovn-default", "10.16.0.0/16"),
        subnet("test", "10.17.0.0/16"),
        // The host routes this one elsewhere: it stays so.
        subnet("foreign", "10.99.0.0/16"),
    ]
    .into();
    let plan = inputs_plan(&subnets);
    let mut firewall = Firewall::default();
    let done = converge(&node, &mut firewall, &plan);
    assert!(done.iter().any(|op| op.starts_with("nft")), "{done:?}");
    let routes = out(&node, "ip route");
    for route in [
        "10.16.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.41",
        "10.17.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.41",
        "100.64.0.0/16 dev ovn0 proto kernel scope link src 100.64.0.2",
        "10.99.0.0/16 via 192.168.1.1 dev eth0",
    ] {
        assert!(routes.contains(route), "{route} not in\n{routes}");
    }
    assert!(!routes.contains("10.99.0.0/16 via 100.64.0.1"), "{routes}");
    let link = out(&node, "ip -o link show ovn0");
    assert!(
        link.contains("mtu 1400") && link.contains("0a:58:64:40:00:02"),
        "{link}"
    );
    assert_eq!(out(&node, "sysctl -n net.ipv4.ip_forward").trim(), "1");

    // Nothing to do, nothing done; also by a daemon that has just been started (it cannot know the table).
    assert_eq!(converge(&node, &mut firewall, &plan), Vec::<String>::new());
    let again = converge(&node, &mut Firewall::default(), &plan);
    assert_eq!(again.len(), 1, "{again:?}");

    // What others spoil is put right.
    out(
        &node,
        "nft flush chain inet kube_ovn postrouting; ip addr add 1.2.3.4/24 dev ovn0; ip route del 10.17.0.0/16; \
         ip route add 10.55.0.0/16 via 100.64.0.1 dev ovn0; ip link set ovn0 mtu 1300",
    );
    let repaired = converge(&node, &mut firewall, &plan);
    assert_eq!(repaired.len(), 5, "{repaired:#?}");
    assert_eq!(converge(&node, &mut firewall, &plan), Vec::<String>::new());

    // A subnet goes.
    let mut fewer = subnets.clone();
    fewer.remove("test");
    let ops = converge(&node, &mut firewall, &inputs_plan(&fewer));
    assert!(
        ops.contains(&"route del 10.17.0.0/16 via 100.64.0.1 dev ovn0 src 192.168.1.41".to_owned()),
        "{ops:?}"
    );
    assert!(!out(&node, "nft list table inet kube_ovn").contains("10.17"));
}

/// A node between a pod (behind ovn0) and the outside.
struct Path {
    node: NetNs,
    pod: NetNs,
    outside: NetNs,
}

fn path() -> Path {
    let node = node_ns();
    let (pod, outside) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let veth = |peer: &NetNs, near: &str, far: &str| {
        out(
            &node,
            &format!("ip link add {near} type veth peer name {far}"),
        );
        let pid = std::process::id();
        let fd = peer.raw_fd();
        out(
            &node,
            &format!("ip link set {far} netns /proc/{pid}/fd/{fd}; ip link set {near} up"),
        );
    };
    veth(&pod, "ovn0", "p0");
    veth(&outside, "eth0", "o0");
    out(&node, "ip addr add 192.168.1.41/24 dev eth0");
    // OVN in one line: the pod's namespace routes, and pretends to be several pods.
    out(
        &pod,
        "ip link set lo up; ip link set p0 mtu 1400 up; ip addr add 100.64.0.1/16 dev p0; \
         ip addr add 10.16.0.11/32 dev lo; ip addr add 10.17.0.11/32 dev lo; ip addr add 10.18.0.11/32 dev lo; \
         ip route add default via 100.64.0.2",
    );
    out(
        &outside,
        "ip link set lo up; ip link set o0 up; ip addr add 192.168.1.250/24 dev o0; ip addr add 192.168.1.249/24 dev o0; \
         ip route add 10.18.0.0/16 via 192.168.1.41; ip route add 10.16.0.0/16 via 192.168.1.41",
    );
    Path { node, pod, outside }
}

fn path_subnets() -> BTreeMap<SmolStr, SubnetFacts> {
    let mut subnets: BTreeMap<_, _> = [
        subnet("join", "100.64.0.0/16"),
        subnet("ovn-default", "10.16.0.0/16"),
        subnet("test", "10.17.0.0/16"),
        subnet("routed", "10.18.0.0/16"),
    ]
    .into();
    subnets.get_mut("routed").unwrap().nat_outgoing = false;
    subnets
}

/// Sends one UDP datagram from a pod address and returns the source address that arrives outside.
fn source_seen(path: &Path, from: &str, listen: (&NetNs, &str), to: &str) -> Option<String> {
    use std::net::UdpSocket;
    let server = listen.0.run(|| UdpSocket::bind(listen.1).unwrap()).unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    path.pod
        .run(|| {
            let client = UdpSocket::bind(format!("{from}:0")).unwrap();
            client.send_to(b"x", to).unwrap();
        })
        .unwrap();
    let mut buffer = [0; 10];
    let (_, peer) = server.recv_from(&mut buffer).ok()?;
    Some(peer.ip().to_string())
}

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
        .run(|| std::net::UdpSocket::bind("10.16.0.11:9002").unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    path.node
        .run(|| {
            std::net::UdpSocket::bind("0.0.0.0:0")
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
        .run(|| std::net::UdpSocket::bind("10.16.0.11:5300").unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    path.outside
        .run(|| {
            std::net::UdpSocket::bind("192.168.1.250:0")
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
        .run(|| std::net::UdpSocket::bind("10.16.0.11:80").unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let seen_from = |source: &str| {
        path.outside
            .run(|| {
                std::net::UdpSocket::bind(format!("{source}:0"))
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
fn large_packets_from_outside_are_refused_aloud() {
    let path = path();
    let mut firewall = Firewall::default();
    converge(&path.node, &mut firewall, &inputs_plan(&path_subnets()));
    // 1372 + 28 = 1400, the pod's MTU.
    out(&path.outside, "ping -c1 -W1 -M do -s 1372 10.16.0.11");
    let refused = sh(&path.outside, "ping -c1 -W1 -M do -s 1373 10.16.0.11");
    let text = String::from_utf8_lossy(&refused.stdout);
    assert!(
        !refused.status.success() && text.contains("Frag needed and DF set (mtu = 1400)"),
        "{text}"
    );
}

#[test]
fn hosts_that_drop_get_accept_rules_once() {
    let path = path();
    converge(
        &path.node,
        &mut Firewall::default(),
        &inputs_plan(&path_subnets()),
    );
    let keep = || path.node.run(linux::keep_accepted).unwrap().unwrap();
    assert_eq!(keep(), Vec::<String>::new(), "nothing drops, nothing added");
    let ping = "ping -c1 -W1 10.16.0.11";
    assert!(sh(&path.outside, ping).status.success());
    // Docker: policy drop in iptables' FORWARD. firewalld: an unconditional reject at the end.
    out(
        &path.node,
        "iptables -P FORWARD DROP; iptables -A FORWARD -i docker0 -j ACCEPT; \
         nft 'add table inet firewalld; \
         add chain inet firewalld filter_INPUT { type filter hook input priority filter + 10; }; \
         add rule inet firewalld filter_INPUT ct state established,related accept; \
         add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited'",
    );
    assert!(!sh(&path.outside, ping).status.success());
    assert!(
        !sh(&path.pod, "ping -c1 -W1 -I 10.16.0.11 192.168.1.41")
            .status
            .success()
    );
    let added = keep();
    assert_eq!(added.len(), 3, "{added:?}");
    assert!(sh(&path.outside, ping).status.success());
    out(&path.pod, "ping -c1 -W1 -I 10.16.0.11 192.168.1.41");
    assert_eq!(keep(), Vec::<String>::new());
    // The host's own tool still reads its chain, and shows our comment.
    let rules = out(&path.node, "iptables -S FORWARD");
    assert!(rules.contains("kube-ovn: from pods"), "{rules}");
    // Docker starts again and rewrites its chain.
    out(&path.node, "iptables -F FORWARD");
    assert_eq!(keep().len(), 2);
}

#[test]
fn legacy_iptables_too() {
    let path = path();
    converge(
        &path.node,
        &mut Firewall::default(),
        &inputs_plan(&path_subnets()),
    );
    out(&path.node, "iptables-legacy -P FORWARD DROP");
    let keep = || path.node.run(linux::keep_accepted).unwrap().unwrap();
    assert_eq!(keep().len(), 2);
    assert_eq!(keep().len(), 0);
    out(&path.outside, "ping -c1 -W1 10.16.0.11");
}

#[test]
fn namespaces_are_told_apart_and_gone_ones_are_not_found() {
    need_root();
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    assert_ne!(a.id().unwrap(), b.id().unwrap());
    assert_eq!(
        a.id().unwrap(),
        a.run(NetNs::current).unwrap().unwrap().id().unwrap()
    );
    let gone = NetNs::open("/run/netns/kube-ovn-never-there").unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    // A file that is no namespace: the bind mount went, the file stayed.
    let plain = NetNs::open("/etc/hostname").unwrap_err();
    assert_eq!(plain.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn the_monitor_wakes_on_changes() {
    let node = node_ns();
    let monitor = node.run(linux::Monitor::open).unwrap().unwrap();
    let waiter = std::thread::spawn(move || monitor.wait());
    out(&node, "ip link add a0 type veth peer name b0");
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_tunnel_interface_is_found_by_name_or_address() {
    let node = node_ns();
    out(
        &node,
        "ip link add br-phy type veth peer name x0; ip addr add 172.21.0.11/24 dev br-phy; ip addr add 169.254.3.3/16 dev br-phy; \
         ip link add eth0 type veth peer name x1; ip addr add 192.168.1.41/24 dev eth0; ip link set br-phy up",
    );
    let links = node
        .run(|| linux::links(&mut Socket::open().unwrap()).unwrap())
        .unwrap();
    let by_name = plan::TunnelChoice::Named {
        pattern: "br-phy".into(),
        because: String::new(),
    };
    let nic = plan::choose_tunnel(&by_name, &links, false).unwrap();
    assert_eq!(
        (nic.ip.to_string().as_str(), nic.mtu),
        ("172.21.0.11", 1500)
    );
    let by_address = plan::TunnelChoice::HolderOf(vec!["192.168.1.41".parse().unwrap()]);
    assert_eq!(
        plan::choose_tunnel(&by_address, &links, false)
            .unwrap()
            .name,
        "eth0"
    );
    let nobody = plan::TunnelChoice::HolderOf(vec!["10.0.0.1".parse().unwrap()]);
    assert_eq!(
        plan::choose_tunnel(&nobody, &links, false)
            .unwrap_err()
            .to_string(),
        "a network interface that holds the Node's address 10.0.0.1"
    );
    let _: (Mac, Option<Cidr>, Option<IfAddr>) = (Mac::BROADCAST, None, None);
}
