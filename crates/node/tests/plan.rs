//! Golden cases of the node plan: facts in, plan out, and what it takes to get there from a given state.
//! `INSTA_UPDATE=always cargo test -p node --test plan` rewrites the expected texts; read the difference.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use net::DualStack;
use node::plan::{
    Compiled, GatewayType, JoinPort, KernelOp, LinkState, NodeConfig, NodeFacts, NodeInputs,
    NodePlan, NodeState, Route, RouteState, SubnetFacts, TunnelChoice, choose_tunnel, compile,
    diff,
};
use smol_str::SmolStr;

/// Everything around a node that a case may change.
struct Case {
    config: NodeConfig,
    node: NodeFacts,
    subnets: BTreeMap<SmolStr, SubnetFacts>,
    listed: bool,
    last_mtu: Option<u32>,
    services: BTreeSet<net::Cidr>,
    state: NodeState,
}

fn join(ip: &str, cidr: &str, gateway: &str) -> Result<JoinPort, String> {
    let annotations = [
        ("ip_address", ip),
        ("cidr", cidr),
        ("gateway", gateway),
        ("mac_address", "0a:58:64:40:00:02"),
        ("port_name", "node-n1"),
    ]
    .into_iter()
    .map(|(k, v)| (format!("ovn.kubernetes.io/{k}").into(), v.into()))
    .collect();
    JoinPort::from_annotations(&annotations)
}

fn link(mac: &str, mtu: u32, up: bool, addresses: &[&str]) -> LinkState {
    LinkState {
        mac: Some(mac.parse().unwrap()),
        mtu,
        tx_queue_len: 1000,
        up,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        passing: BTreeSet::new(),
    }
}

fn route(text: &str) -> Route {
    let words: Vec<&str> = text.split(' ').collect();
    let after = |key: &str| {
        let at = words.iter().position(|w| *w == key)?;
        words.get(at + 1).copied()
    };
    Route {
        destination: words[0].parse().unwrap(),
        gateway: after("via").map(|a| a.parse().unwrap()),
        device: after("dev").unwrap().into(),
        source: after("src").map(|a| a.parse().unwrap()),
    }
}

fn found(text: &str, by_kernel: bool) -> RouteState {
    let route = route(text);
    let metric = match route.destination.family() {
        net::Family::V4 => 0,
        net::Family::V6 => 1024,
    };
    RouteState {
        route,
        by_kernel,
        metric,
    }
}

impl Case {
    /// A node of the default cluster whose links are there and whose kernel is as it was installed.
    fn new() -> Self {
        let mut case = Self {
            config: NodeConfig {
                service_cidrs: vec!["10.68.0.0/16".parse().unwrap()],
                ..NodeConfig::default()
            },
            node: NodeFacts {
                name: "n1".into(),
                internal_ips: DualStack::new(Some("192.168.1.41".parse().unwrap()), None),
                userspace_datapath: false,
                tunnel_interface: None,
                join: join("100.64.0.2", "100.64.0.0/16", "100.64.0.1"),
            },
            subnets: BTreeMap::new(),
            listed: true,
            last_mtu: None,
            services: BTreeSet::new(),
            state: NodeState::default(),
        };
        case.subnet("join", "100.64.0.0/16").nat_outgoing = false;
        case.subnet("ovn-default", "10.16.0.0/16");
        let links = &mut case.state.links;
        links.insert(
            "lo".into(),
            link("00:00:00:00:00:00", 65536, true, &["127.0.0.1/8"]),
        );
        links.insert(
            "eth0".into(),
            link("02:00:00:00:00:41", 1500, true, &["192.168.1.41/24"]),
        );
        links.insert("ovn0".into(), link("12:34:56:78:9a:bc", 1500, false, &[]));
        for key in [
            "net/ipv4/ip_forward",
            "net/ipv6/conf/all/forwarding",
            "net/ipv4/conf/all/rp_filter",
            "net/ipv6/conf/ovn0/disable_ipv6",
            "net/ipv4/conf/ovn0/promote_secondaries",
        ] {
            case.state.sysctls.insert(key.into(), "0".into());
        }
        case.state
            .sysctls
            .insert("net/ipv4/conf/ovn0/rp_filter".into(), "1".into());
        case.state
            .sysctls
            .insert("net/ipv6/conf/ovn0/accept_ra".into(), "1".into());
        case.state.routes = vec![
            found("0.0.0.0/0 via 192.168.1.1 dev eth0", false),
            found("192.168.1.0/24 dev eth0 src 192.168.1.41", true),
        ];
        case
    }

    fn subnet(&mut self, name: &str, cidr: &str) -> &mut SubnetFacts {
        let facts = SubnetFacts {
            name: name.into(),
            vpc: "ovn-cluster".into(),
            cidrs: cidr.split(',').map(|c| c.parse().unwrap()).collect(),
            vlan: false,
            logical_gateway: false,
            u2o_interconnection: false,
            nat_outgoing: true,
            gateway_type: GatewayType::Distributed,
            egress_ips: Vec::new(),
            mtu: None,
        };
        self.subnets.insert(name.into(), facts);
        self.subnets.get_mut(name).unwrap()
    }

    fn compile(&self) -> Compiled {
        let choice = TunnelChoice::of(&self.node, &self.config);
        let tunnel = choose_tunnel(&choice, &self.state.links, self.config.host_tunnel_src);
        let local = self
            .state
            .links
            .values()
            .flat_map(|link| link.addresses.iter().map(|a| a.ip))
            .collect();
        compile(&NodeInputs {
            config: &self.config,
            node: &self.node,
            other_nodes: &["192.168.1.42", "192.168.1.43", "fd00:192:168:1::42"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            service_cidrs: &self.services,
            subnets: &self.subnets,
            subnets_listed: self.listed,
            tunnel: tunnel.as_ref(),
            last_mtu: self.last_mtu,
            local: &local,
            datapath_type_set: false,
        })
    }

    /// Brings the state to the plan and says how.
    fn step(&mut self) -> String {
        let compiled = self.compile();
        let ops = diff(&compiled.plan, &self.state);
        let mut text = render(&compiled);
        text.push_str("--- operations\n");
        for op in &ops {
            let _ = writeln!(text, "{op}");
            carry_out(&mut self.state, op);
        }
        let rest = diff(&compiled.plan, &self.state);
        assert!(rest.is_empty(), "left after applying the plan: {rest:?}");
        text
    }
}

fn render(compiled: &Compiled) -> String {
    let plan = &compiled.plan;
    let mut text = String::new();
    for waiting in &compiled.waiting {
        let _ = writeln!(text, "waiting for {}", waiting.0);
    }
    if let Some(mtu) = compiled.pod_mtu {
        let _ = writeln!(text, "pod mtu {mtu}");
    }
    for (key, value) in &plan.open_vswitch {
        let _ = writeln!(text, "external_ids:{key}={value}");
    }
    if let Some(port) = &plan.join_port {
        let _ = writeln!(
            text,
            "port ovn0 iface-id={} mac={} mtu={} ip={}",
            port.iface_id, port.mac, port.mtu, port.ip
        );
    }
    for (name, link) in &plan.links {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "link {name} mac={} mtu={} {}",
            link.mac,
            link.mtu,
            addresses.join(" ")
        );
    }
    for route in plan.routes.iter().flatten() {
        let _ = writeln!(text, "route {route}");
    }
    for (key, value) in &plan.sysctls {
        let _ = writeln!(text, "sysctl {key}={value}");
    }
    if let Some(nft) = &plan.nft {
        text.push_str(nft);
    }
    text
}

/// A kernel in a few lines.
fn carry_out(state: &mut NodeState, op: &KernelOp) {
    match op {
        KernelOp::Sysctl { key, value } => {
            if let Some(link) = key
                .strip_prefix("net/ipv6/conf/")
                .and_then(|k| k.strip_suffix("/accept_ra"))
            {
                state.accept_ra.insert(link.into(), value.parse().unwrap());
            }
            state.sysctls.insert(key.clone(), value.clone());
        }
        KernelOp::Link {
            name,
            mac,
            mtu,
            tx_queue_len,
            up,
        } => {
            let link = state.links.get_mut(name).unwrap();
            link.mac = mac.or(link.mac);
            link.mtu = mtu.unwrap_or(link.mtu);
            link.tx_queue_len = tx_queue_len.unwrap_or(link.tx_queue_len);
            link.up |= up;
        }
        KernelOp::AddressAdd { link, address } => {
            let state = state.links.get_mut(link).unwrap();
            assert!(state.up, "an address on a link that is down gives no route");
            state.addresses.insert(*address);
        }
        KernelOp::AddressDel { link, address } => {
            state.links.get_mut(link).unwrap().addresses.remove(address);
        }
        KernelOp::Announce { .. } => {}
        KernelOp::RouteReplace(route) => {
            state.routes.retain(|r| {
                r.by_kernel
                    || r.route.destination != route.destination
                    || r.route.device != route.device
            });
            state.routes.push(found(&route.to_string(), false));
        }
        KernelOp::RouteDel(route) => state.routes.retain(|r| r.by_kernel || r.route != *route),
        KernelOp::Nft(text) => state.nft = Some(text.clone()),
    }
}

#[test]
fn a_new_node() {
    insta::assert_snapshot!("a_new_node", Case::new().step());
}

#[test]
fn dual_stack() {
    let mut case = Case::new();
    case.config
        .service_cidrs
        .push("fd00:10:68::/112".parse().unwrap());
    case.node.internal_ips.v6 = Some("fd00:192:168:1::41".parse().unwrap());
    case.node.join = join(
        "100.64.0.2,fd00:100:64::2",
        "100.64.0.0/16,fd00:100:64::/112",
        "100.64.0.1,fd00:100:64::1",
    );
    case.subnet("join", "100.64.0.0/16,fd00:100:64::/112")
        .nat_outgoing = false;
    case.subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/112");
    let eth0 = case.state.links.get_mut("eth0").unwrap();
    eth0.addresses
        .insert("fd00:192:168:1::41/64".parse().unwrap());
    // The host learned its own default route from advertisements and must not lose it.
    case.state.accept_ra = [("eth0".into(), 1), ("lo".into(), 1), ("ovn0".into(), 1)].into();
    insta::assert_snapshot!("dual_stack", case.step());
}

#[test]
fn ipv6_only_over_ipv6() {
    let mut case = Case::new();
    case.config.service_cidrs = vec!["fd00:10:68::/112".parse().unwrap()];
    case.node.internal_ips = DualStack::new(None, Some("fd00:192:168:1::41".parse().unwrap()));
    case.node.join = join("fd00:100:64::2", "fd00:100:64::/112", "fd00:100:64::1");
    case.state.links.get_mut("eth0").unwrap().addresses = [
        "fe80::1/64".parse().unwrap(),
        "fd00:192:168:1::41/64".parse().unwrap(),
    ]
    .into();
    case.subnets.clear();
    case.subnet("join", "fd00:100:64::/112").nat_outgoing = false;
    case.subnet("ovn-default", "fd00:10:16::/112");
    insta::assert_snapshot!("ipv6_only_over_ipv6", case.step());
}

#[test]
fn subnets_come_and_go() {
    let mut case = Case::new();
    case.step();
    // Own VPC: not ours. VLAN: its physical network's. Logical gateway: ours again. The node's own network: never.
    case.subnet("other-vpc", "10.20.0.0/16").vpc = "vpc-1".into();
    case.subnet("vlan", "10.21.0.0/16").vlan = true;
    let logical = case.subnet("vlan-logical", "10.22.0.0/16");
    logical.vlan = true;
    logical.logical_gateway = true;
    let u2o = case.subnet("u2o", "10.23.0.0/16");
    u2o.vlan = true;
    u2o.u2o_interconnection = true;
    case.subnet("nodes", "192.168.1.0/24").logical_gateway = true;
    case.subnet("no-nat", "10.24.0.0/16").nat_outgoing = false;
    let first = case.step();
    case.subnets.remove("no-nat");
    case.subnets
        .get_mut("vlan-logical")
        .unwrap()
        .logical_gateway = false;
    let second = case.step();
    insta::assert_snapshot!(
        "subnets_come_and_go",
        format!("{first}\n=== and go\n{second}")
    );
}

#[test]
fn a_centralized_subnet_with_its_own_address() {
    let mut case = Case::new();
    case.step();
    let subnet = case.subnet("eip", "10.30.0.0/16");
    subnet.gateway_type = GatewayType::Centralized;
    subnet.egress_ips = vec!["192.168.1.200".parse().unwrap()];
    let text = case.step();
    assert!(
        text.contains("ip saddr 10.30.0.0/16 ip daddr != @subnets4 snat ip to 192.168.1.200"),
        "{text}"
    );
}

#[test]
fn nothing_is_guessed_while_things_are_missing() {
    let mut case = Case::new();
    case.listed = false;
    case.subnets.clear();
    case.state.routes.push(found(
        "10.16.0.0/16 via 100.64.0.1 dev ovn0 src 192.168.1.41",
        false,
    ));
    case.state.nft = Some("as a daemon before us left it".into());
    let unlisted = case.step();
    assert!(
        !unlisted.contains("route del") && !unlisted.contains("nft"),
        "{unlisted}"
    );
    case.node.join =
        Err("annotation ovn.kubernetes.io/ip_address (written by kube-ovn-controller)".into());
    case.node.userspace_datapath = true;
    let text = case.step();
    insta::assert_snapshot!("things_are_missing", text);
}

#[test]
fn the_node_gets_another_address() {
    let mut case = Case::new();
    case.step();
    case.node.internal_ips.v4 = Some("192.168.1.141".parse().unwrap());
    let eth0 = case.state.links.get_mut("eth0").unwrap();
    eth0.addresses = ["192.168.1.141/24".parse().unwrap()].into();
    let text = case.step();
    assert!(text.contains("external_ids:ovn-encap-ip=192.168.1.141"));
    let operations = text.split("--- operations\n").nth(1).unwrap();
    insta::assert_snapshot!(operations, @"
    nft replace table (43 lines)
    route replace 10.16.0.0/16 via 100.64.0.1 dev ovn0 src 192.168.1.141
    ");
}

#[test]
fn a_node_that_is_being_renumbered_keeps_what_it_has() {
    let mut case = Case::new();
    case.step();
    // The interface has its new address, the Node object not yet.
    let eth0 = case.state.links.get_mut("eth0").unwrap();
    eth0.addresses = ["192.168.1.141/24".parse().unwrap()].into();
    case.last_mtu = Some(1400);
    // With the address its routes go.
    case.state
        .routes
        .retain(|r| r.by_kernel || r.route.source.is_none());
    let text = case.step();
    assert!(
        text.starts_with("waiting for a network interface that holds the Node's address"),
        "{text}"
    );
    assert!(
        !text.contains("ovn-encap-ip"),
        "the old one stays until there is another"
    );
    assert!(text.contains("port ovn0"), "{text}");
    let operations = text.split("--- operations\n").nth(1).unwrap();
    insta::assert_snapshot!(operations, @"route replace 10.16.0.0/16 via 100.64.0.1 dev ovn0");
    case.node.internal_ips.v4 = Some("192.168.1.141".parse().unwrap());
    let text = case.step();
    let operations = text.split("--- operations\n").nth(1).unwrap();
    insta::assert_snapshot!(operations, @"
    nft replace table (43 lines)
    route replace 10.16.0.0/16 via 100.64.0.1 dev ovn0 src 192.168.1.141
    ");
}

#[test]
fn services_are_known_from_the_command_line_and_from_objects() {
    let mut case = Case::new();
    case.services = ["10.69.0.0/16".parse().unwrap()].into();
    let text = case.step();
    assert!(
        text.contains("elements = { 10.68.0.0/16, 10.69.0.0/16 }"),
        "{text}"
    );
}

#[test]
fn what_others_spoil_is_put_right_and_what_is_theirs_left_alone() {
    let mut case = Case::new();
    case.step();
    let plan = case.compile().plan;
    let ovn0 = case.state.links.get_mut("ovn0").unwrap();
    ovn0.mtu = 1500;
    ovn0.addresses.insert("10.9.9.9/24".parse().unwrap());
    ovn0.addresses
        .insert("fe80::858:64ff:fe40:2/64".parse().unwrap());
    case.state
        .sysctls
        .insert("net/ipv4/ip_forward".into(), "0".into());
    case.state.routes.extend([
        found("10.16.0.0/16 via 100.64.0.9 dev ovn0", false),
        found("10.77.0.0/16 via 100.64.0.1 dev ovn0", false),
        found("10.78.0.0/16 via 192.168.1.9 dev eth0", false),
        found("100.64.0.0/16 dev ovn0 src 100.64.0.2", true),
    ]);
    let ops: Vec<String> = diff(&plan, &case.state)
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(ops.join("\n"), @"
    sysctl net/ipv4/ip_forward=1
    link set ovn0 mtu 1400
    route del 10.16.0.0/16 via 100.64.0.9 dev ovn0
    route del 10.77.0.0/16 via 100.64.0.1 dev ovn0
    address del 10.9.9.9/24 dev ovn0
    ");
}

#[test]
fn a_missing_ovn0_is_waited_for() {
    let mut case = Case::new();
    case.state.links.remove("ovn0");
    let plan = case.compile().plan;
    let ops = diff(&plan, &case.state);
    assert!(
        ops.iter()
            .all(|op| matches!(op, KernelOp::Nft(_) | KernelOp::Sysctl { .. })),
        "{ops:?}"
    );
}

mod property {
    use super::*;
    use proptest::prelude::*;

    fn cidr() -> impl Strategy<Value = String> {
        (0u8..20, prop::sample::select(vec![16u8, 20, 24]))
            .prop_map(|(second, len)| format!("10.{second}.0.0/{len}"))
    }

    proptest! {
        /// Any history of subnets, addresses and meddling: after one round nothing is left to do, the host's own
        /// routes stand, and the table's text parses as sets without overlap (the kernel would refuse those).
        #[test]
        fn one_round_is_enough(
            subnets in prop::collection::vec((cidr(), any::<bool>()), 0..8),
            strangers in prop::collection::vec((cidr(), any::<bool>()), 0..6),
            up in any::<bool>(),
            mtu in 1280u32..9000,
        ) {
            let mut case = Case::new();
            for (i, (cidr, nat)) in subnets.iter().enumerate() {
                case.subnet(&format!("s{i}"), cidr).nat_outgoing = *nat;
            }
            for (cidr, ours) in &strangers {
                let via = if *ours { "via 100.64.0.7 dev ovn0" } else { "via 192.168.1.7 dev eth0" };
                case.state.routes.push(found(&format!("{cidr} {via}"), false));
            }
            let ovn0 = case.state.links.get_mut("ovn0").unwrap();
            ovn0.up = up;
            ovn0.mtu = mtu;
            let theirs: Vec<RouteState> = case
                .state
                .routes
                .iter()
                .filter(|r| r.route.device == "eth0")
                .cloned()
                .collect();
            case.step();
            for route in theirs {
                prop_assert!(case.state.routes.contains(&route));
            }
            // No destination is claimed on two devices.
            let plan: NodePlan = case.compile().plan;
            prop_assert!(diff(&plan, &case.state).is_empty());
            let nft = plan.nft.unwrap();
            for line in nft.lines().filter(|l| l.contains("elements") && l.contains('/')) {
                let members: Vec<net::Cidr> = line
                    .split(['{', '}'])
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .map(|c| c.trim().parse().unwrap())
                    .collect();
                for (i, a) in members.iter().enumerate() {
                    for b in &members[i + 1..] {
                        prop_assert!(!a.overlaps(*b), "{line}");
                    }
                }
            }
        }
    }
}
