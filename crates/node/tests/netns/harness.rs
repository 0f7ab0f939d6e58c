//! Namespaces, programs in them, and the plan of a node of the default cluster.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;

use net::DualStack;
use node::linux::{self, Firewall, NetNs, Socket};
use node::plan::{
    self, JoinPort, NodeConfig, NodeFacts, NodeInputs, NodePlan, SubnetFacts, TunnelNic,
};
use node::pod::{Identity, PodNetwork, PodNic};
use smol_str::SmolStr;

pub fn need_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root"
    );
}

pub fn sh(ns: &NetNs, command: &str) -> Output {
    ns.run(|| Command::new("sh").args(["-c", command]).output())
        .unwrap()
        .unwrap()
}

/// Standard output of a command that must succeed.
pub fn out(ns: &NetNs, command: &str) -> String {
    let output = sh(ns, command);
    assert!(
        output.status.success(),
        "{command}: {}\n(packages: iproute2 nftables iputils-ping ethtool)",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn node_ns() -> NetNs {
    need_root();
    let ns = NetNs::new().unwrap();
    out(&ns, "ip link set lo up");
    ns
}

pub fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<SmolStr, SmolStr> {
    pairs
        .iter()
        .map(|(k, v)| (format!("ovn.kubernetes.io/{k}").into(), SmolStr::new(v)))
        .collect()
}

pub fn pod_nic(ip: &str, mac: &str, id: &str) -> PodNic {
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

pub fn identity() -> Identity {
    Identity {
        namespace: "default".into(),
        name: "a".into(),
        netns: "/run/netns/a".into(),
        ip: "10.16.0.11".into(),
    }
}

/// The plan of 192.168.1.41; dual-stack if a subnet is.
pub fn inputs_plan(subnets: &BTreeMap<SmolStr, SubnetFacts>) -> NodePlan {
    changed_plan(subnets, |_| ())
}

pub fn join(ip: &str, dual: bool) -> Result<JoinPort, String> {
    let both = |v4: &str, v6: &str| {
        if dual {
            format!("{v4},{v6}")
        } else {
            v4.to_owned()
        }
    };
    JoinPort::from_annotations(&annotations(&[
        ("ip_address", &both(ip, "fd00:100:64::2")),
        ("cidr", &both("100.64.0.0/16", "fd00:100:64::/112")),
        ("gateway", &both("100.64.0.1", "fd00:100:64::1")),
        ("mac_address", "0a:58:64:40:00:02"),
        ("port_name", "node-n1"),
    ]))
}

/// The same after a change to the node.
pub fn changed_plan(
    subnets: &BTreeMap<SmolStr, SubnetFacts>,
    change: impl FnOnce(&mut NodeFacts),
) -> NodePlan {
    let dual = subnets
        .values()
        .flat_map(|s| &s.cidrs)
        .any(|c| c.network().is_ipv6());
    let config = NodeConfig {
        service_cidrs: vec!["10.68.0.0/16".parse().unwrap()],
        ..NodeConfig::default()
    };
    let v6 = dual.then(|| "fd00:192:168:1::41".parse().unwrap());
    let mut node = NodeFacts {
        name: "n1".into(),
        internal_ips: DualStack::new(Some("192.168.1.41".parse().unwrap()), v6),
        userspace_datapath: true,
        tunnel_interface: None,
        join: join("100.64.0.2", dual),
    };
    change(&mut node);
    let tunnel = TunnelNic {
        name: "br-phy".into(),
        ip: "172.21.0.11".parse().unwrap(),
        mtu: 1500,
    };
    plan::compile(&NodeInputs {
        config: &config,
        node: &node,
        other_nodes: &["192.168.1.249".parse().unwrap()].into(),
        service_cidrs: &["fd00:10:68::/112".parse().unwrap()].into(),
        subnets,
        subnets_listed: true,
        tunnel: Ok(&tunnel),
        last_mtu: None,
        local: &node.internal_ips.iter().copied().collect(),
        datapath_type_set: true,
    })
    .plan
}

pub fn subnet(name: &str, cidr: &str) -> (SmolStr, SubnetFacts) {
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
pub fn converge(ns: &NetNs, firewall: &mut Firewall, plan: &NodePlan) -> Vec<String> {
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

/// A node between a pod (behind ovn0) and the outside.
pub struct Path {
    pub node: NetNs,
    pub pod: NetNs,
    pub outside: NetNs,
}

pub fn path() -> Path {
    let node = node_ns();
    let (pod, outside) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    for ns in [&node, &pod, &outside] {
        // Link-local addresses, by which neighbours are asked, would be on trial for a second or two.
        out(ns, "sysctl -qw net.ipv6.conf.default.accept_dad=0");
    }
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
    out(
        &node,
        "ip addr add 192.168.1.41/24 dev eth0; ip addr add fd00:192:168:1::41/64 dev eth0 nodad",
    );
    // OVN in one line: the pod's namespace routes, and pretends to be several pods.
    out(
        &pod,
        "ip link set lo up; ip link set p0 mtu 1400 up; ip addr add 100.64.0.1/16 dev p0; \
         ip addr add 10.16.0.11/32 dev lo; ip addr add 10.17.0.11/32 dev lo; ip addr add 10.18.0.11/32 dev lo; \
         ip route add default via 100.64.0.2; \
         ip addr add fd00:100:64::1/112 dev p0 nodad; ip addr add fd00:10:16::b/128 dev lo; \
         ip addr add fd00:10:18::b/128 dev lo; ip -6 route add default via fd00:100:64::2",
    );
    out(
        &outside,
        "ip link set lo up; ip link set o0 up; ip addr add 192.168.1.250/24 dev o0; ip addr add 192.168.1.249/24 dev o0; \
         ip route add 10.18.0.0/16 via 192.168.1.41; ip route add 10.16.0.0/16 via 192.168.1.41; \
         ip addr add fd00:192:168:1::250/64 dev o0 nodad; \
         ip -6 route add fd00:10:16::/48 via fd00:192:168:1::41; ip -6 route add fd00:10:18::/48 via fd00:192:168:1::41",
    );
    Path { node, pod, outside }
}

pub fn path_subnets() -> BTreeMap<SmolStr, SubnetFacts> {
    let mut subnets: BTreeMap<_, _> = [
        subnet("join", "100.64.0.0/16,fd00:100:64::/112"),
        subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/112"),
        subnet("test", "10.17.0.0/16"),
        subnet("routed", "10.18.0.0/16,fd00:10:18::/112"),
    ]
    .into();
    subnets.get_mut("routed").unwrap().nat_outgoing = false;
    subnets
}

/// Sends one UDP datagram from a pod address and returns the source address that arrives.
pub fn source_seen(path: &Path, from: &str, listen: (&NetNs, &str), to: &str) -> Option<String> {
    exchange((&path.pod, from), listen, to).map(|(source, _)| source)
}

/// Sends one UDP datagram and answers it: the source address that arrives, and whether the answer comes back from
/// the address that was asked.
pub fn exchange(from: (&NetNs, &str), listen: (&NetNs, &str), to: &str) -> Option<(String, bool)> {
    let patience = Some(Duration::from_millis(500));
    let bind = |(ns, address): (&NetNs, &str)| {
        let socket = ns.run(|| UdpSocket::bind(address).unwrap()).unwrap();
        socket.set_read_timeout(patience).unwrap();
        socket
    };
    let bracketed = match from.1.parse() {
        Ok(ip) => SocketAddr::new(ip, 0).to_string(),
        Err(_) => from.1.to_owned(),
    };
    let (server, client) = (bind(listen), bind((from.0, &bracketed)));
    client.send_to(b"x", to).unwrap();
    let mut buffer = [0; 10];
    let (_, peer) = server.recv_from(&mut buffer).ok()?;
    server.send_to(b"y", peer).unwrap();
    let answered = client
        .recv_from(&mut buffer)
        .is_ok_and(|(_, source)| source.to_string() == to);
    Some((peer.ip().to_string(), answered))
}
