//! From facts to the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use net::{Cidr, Family};
use smol_str::{SmolStr, format_smolstr};

use super::{
    JOIN_INTERFACE, JoinPortPlan, LinkPlan, NetworkType, NftInputs, NodeFacts, NodePlan, Route,
    SubnetFacts, TX_QUEUE_LEN, TunnelError, TunnelNic, pod_mtu, render,
};

/// What the command line says (names as upstream's flags).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub default_vpc: SmolStr,
    pub join_subnet: SmolStr,
    pub network_type: NetworkType,
    pub encap_checksum: bool,
    /// 0 = computed from the tunnel interface.
    pub mtu: u32,
    pub iface: Option<SmolStr>,
    pub dpdk_tunnel_iface: SmolStr,
    pub host_tunnel_src: bool,
    /// `--service-cluster-ip-range`.
    pub service_cidrs: Vec<Cidr>,
    /// Environment `POD_IP`: the node's address as Kubernetes gave it to a host-network pod.
    pub pod_ip: Option<IpAddr>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            default_vpc: "ovn-cluster".into(),
            join_subnet: "join".into(),
            network_type: NetworkType::Geneve,
            encap_checksum: true,
            mtu: 0,
            iface: None,
            dpdk_tunnel_iface: "br-phy".into(),
            host_tunnel_src: false,
            service_cidrs: Vec::new(),
            pod_ip: None,
        }
    }
}

/// Everything that the plan depends on.
#[derive(Debug)]
pub struct NodeInputs<'a> {
    pub config: &'a NodeConfig,
    pub node: &'a NodeFacts,
    /// InternalIPs of all other nodes.
    pub other_nodes: &'a BTreeSet<IpAddr>,
    /// CIDRs of the ServiceCIDR objects, which may be more than the command line says.
    pub service_cidrs: &'a BTreeSet<Cidr>,
    pub subnets: &'a BTreeMap<SmolStr, SubnetFacts>,
    /// False until the Subnet watch has listed once: no route and no rule is removed before.
    pub subnets_listed: bool,
    pub tunnel: Result<&'a TunnelNic, &'a TunnelError>,
    /// MTU of pods when there last was a tunnel interface. A node that is being renumbered has none for a while, and
    /// keeps its join port over that.
    pub last_mtu: Option<u32>,
    /// Addresses that the node's links hold at this moment.
    pub local: &'a BTreeSet<IpAddr>,
    /// `external_ids:ovn-bridge-datapath-type` is set already (by the OVS start script).
    pub datapath_type_set: bool,
}

/// Something the node cannot be complete without; shown by `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting(pub String);

/// The plan as far as it can be known, and what is missing for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    pub plan: NodePlan,
    /// MTU of pods whose subnet does not say otherwise.
    pub pod_mtu: Option<u32>,
    pub waiting: Vec<Waiting>,
}

/// Computes the node plan. Infallible: what is not known yet is left out and named in [`Compiled::waiting`].
pub fn compile(inputs: &NodeInputs<'_>) -> Compiled {
    let mut out = Compiled::default();
    tunnel(inputs, &mut out);
    join(inputs, &mut out);
    if inputs.subnets_listed {
        out.plan.routes = routes(inputs, &out.plan);
        out.plan.nft = Some(render(&nft_inputs(inputs)));
    } else {
        out.waiting
            .push(Waiting("the list of Subnets from the API server".into()));
    }
    sysctls(inputs, &mut out.plan);
    out
}

fn tunnel(inputs: &NodeInputs<'_>, out: &mut Compiled) {
    let ids = &mut out.plan.open_vswitch;
    let mut set = |key: &str, value: SmolStr| {
        ids.insert(key.into(), value);
    };
    set("hostname", inputs.node.name.clone());
    set(
        "ovn-encap-type",
        inputs.config.network_type.encap_type().into(),
    );
    set(
        "ovn-encap-csum",
        format_smolstr!("{}", inputs.config.encap_checksum),
    );
    if inputs.node.userspace_datapath && !inputs.datapath_type_set {
        set("ovn-bridge-datapath-type", "netdev".into());
    }
    match inputs.tunnel {
        Ok(nic) => {
            let ip = format_smolstr!("{}", nic.ip);
            set("ovn-encap-ip", ip.clone());
            set("ovn-encap-ip-default", ip);
            out.pod_mtu = Some(pod_mtu(inputs.config, nic));
        }
        Err(error) => {
            out.pod_mtu = inputs.last_mtu;
            out.waiting.push(Waiting(error.to_string()));
        }
    }
}

fn join(inputs: &NodeInputs<'_>, out: &mut Compiled) {
    let join = match &inputs.node.join {
        Ok(join) => join,
        Err(missing) => {
            out.waiting.push(Waiting(format!(
                "the join port of Node {}: {missing}",
                inputs.node.name
            )));
            return;
        }
    };
    // The interface's MTU follows from the tunnel's; a port with a guessed one would hurt what runs through it.
    let Some(mtu) = out.pod_mtu else { return };
    let mtu = inputs
        .subnets
        .get(&inputs.config.join_subnet)
        .and_then(|subnet| subnet.mtu)
        .unwrap_or(mtu);
    out.plan.join_port = Some(JoinPortPlan {
        iface_id: join.port_name.clone(),
        mac: join.mac,
        mtu,
        ip: join.ip_text.clone(),
    });
    out.plan.links.insert(
        JOIN_INTERFACE.into(),
        LinkPlan {
            mac: join.mac,
            mtu,
            tx_queue_len: TX_QUEUE_LEN,
            addresses: join.addresses.iter().copied().collect(),
        },
    );
}

/// A route to every subnet behind the nodes, by the join gateway, with the node's own address as source, so that
/// a pod answers to the address under which it knows the node. The join subnet itself is on link.
fn routes(inputs: &NodeInputs<'_>, plan: &NodePlan) -> Option<BTreeSet<Route>> {
    let join = inputs.node.join.as_ref().ok()?;
    plan.join_port.as_ref()?;
    let mut routes = BTreeSet::new();
    let node_ips = inputs.node.internal_ips;
    for subnet in inputs.subnets.values() {
        let routed = subnet.behind_nodes(&inputs.config.default_vpc)
            || u2o(subnet, &inputs.config.default_vpc);
        if !routed || subnet.name == inputs.config.join_subnet {
            continue;
        }
        for cidr in &subnet.cidrs {
            let family = cidr.family();
            let Some(gateway) = join.gateway.get(family).copied() else {
                continue;
            };
            if is_nodes_network(inputs.node, *cidr) {
                continue;
            }
            routes.insert(Route {
                destination: *cidr,
                gateway: Some(gateway),
                device: JOIN_INTERFACE.into(),
                // The kernel refuses a source that it does not hold, and drops routes whose source goes: while the
                // Node object and the interfaces do not agree, pods are reached from the join address.
                source: node_ips
                    .get(family)
                    .copied()
                    .filter(|ip| inputs.local.contains(ip)),
            });
        }
    }
    Some(routes)
}

/// A CIDR that holds the node's own address is the physical network: neither route nor rule may touch it.
fn is_nodes_network(node: &NodeFacts, cidr: Cidr) -> bool {
    node.internal_ips.iter().any(|ip| cidr.contains(*ip))
}

fn u2o(subnet: &SubnetFacts, default_vpc: &str) -> bool {
    subnet.vpc == default_vpc && subnet.vlan && subnet.u2o_interconnection
}

fn nft_inputs(inputs: &NodeInputs<'_>) -> NftInputs {
    let mut nft = NftInputs {
        node_ips: inputs.node.internal_ips,
        services: inputs
            .config
            .service_cidrs
            .iter()
            .chain(inputs.service_cidrs)
            .copied()
            .collect(),
        other_nodes: inputs.other_nodes.clone(),
        ..NftInputs::default()
    };
    for subnet in inputs.subnets.values() {
        if !subnet.behind_nodes(&inputs.config.default_vpc) {
            continue;
        }
        for cidr in &subnet.cidrs {
            if is_nodes_network(inputs.node, *cidr) {
                continue;
            }
            nft.subnets.insert(*cidr);
            if !subnet.nat_outgoing {
                continue;
            }
            nft.nat.insert(*cidr);
            if subnet.gateway_type == super::GatewayType::Centralized {
                let family = cidr.family();
                for ip in &subnet.egress_ips {
                    if crate::addr::family_of(*ip) == family {
                        nft.egress.insert(*cidr, *ip);
                    }
                }
            }
        }
    }
    // The join addresses belong to the fabric also before the Subnet has been listed as such.
    if let Ok(join) = &inputs.node.join {
        for address in &join.addresses {
            if !nft.subnets.iter().any(|cidr| cidr.contains(address.ip))
                && let Ok(cidr) = address.to_string().parse::<Cidr>()
            {
                nft.subnets.insert(cidr);
            }
        }
    }
    nft
}

fn sysctls(inputs: &NodeInputs<'_>, plan: &mut NodePlan) {
    let mut set = |key: &str, value: &str| {
        plan.sysctls.insert(key.into(), value.into());
    };
    let families: BTreeSet<Family> = match &inputs.node.join {
        Ok(join) => join.addresses.iter().map(super::IfAddr::family).collect(),
        Err(_) => return,
    };
    if families.contains(&Family::V4) {
        set("net/ipv4/ip_forward", "1");
        // A pod's packet may reach the node by ovn0 and leave by another interface. The kernel takes the larger of
        // `all` and the interface's own value, so both must be 0 (upstream does the same).
        set("net/ipv4/conf/all/rp_filter", "0");
        set("net/ipv4/conf/ovn0/rp_filter", "0");
        // Another join address comes before the old one goes; without this the kernel would take both away.
        set("net/ipv4/conf/ovn0/promote_secondaries", "1");
    }
    if families.contains(&Family::V6) {
        set("net/ipv6/conf/all/forwarding", "1");
        set("net/ipv6/conf/ovn0/disable_ipv6", "0");
        set("net/ipv6/conf/ovn0/accept_ra", "0");
    }
}
