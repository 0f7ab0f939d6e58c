//! The facts that a node plan depends on, in the shape the plan needs them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use net::{Cidr, DualStack, Family, Mac, parse_ip};
use smol_str::SmolStr;

use crate::addr::IfAddr;

/// What the controller wrote on the Node: the node's own port on the join subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPort {
    pub port_name: SmolStr,
    pub mac: Mac,
    pub addresses: Vec<IfAddr>,
    pub gateway: DualStack<IpAddr>,
    /// The annotation's own text, `100.64.0.2` or `100.64.0.2,fd00:100:64::2`.
    pub ip_text: SmolStr,
}

impl JoinPort {
    /// Reads the annotations `ovn.kubernetes.io/{ip_address,cidr,gateway,mac_address,port_name}`.
    ///
    /// The error says which annotation is missing or malformed: it is what the daemon reports while it waits.
    pub fn from_annotations(annotations: &BTreeMap<SmolStr, SmolStr>) -> Result<Self, String> {
        let get = |suffix: &str| {
            let key = format!("ovn.kubernetes.io/{suffix}");
            match annotations.get(key.as_str()) {
                Some(value) if !value.is_empty() => Ok(value),
                _ => Err(format!("annotation {key} (written by kube-ovn-controller)")),
            }
        };
        let malformed = |suffix: &str, value: &str| {
            format!("a valid annotation ovn.kubernetes.io/{suffix}: {value:?} is malformed")
        };
        let ip_text = get("ip_address")?;
        let cidr_text = get("cidr")?;
        let mac_text = get("mac_address")?;
        let gateway_text = get("gateway")?;
        let ips: DualStack<IpAddr> =
            parse_pair(ip_text).ok_or_else(|| malformed("ip_address", ip_text))?;
        let cidrs: DualStack<Cidr> = cidr_text
            .parse()
            .map_err(|_| malformed("cidr", cidr_text))?;
        let gateway = parse_pair(gateway_text).ok_or_else(|| malformed("gateway", gateway_text))?;
        let mac = mac_text
            .parse()
            .map_err(|_| malformed("mac_address", mac_text))?;
        let mut addresses = Vec::new();
        for family in [Family::V4, Family::V6] {
            match (ips.get(family), cidrs.get(family)) {
                (Some(ip), Some(cidr)) => addresses.push(IfAddr::in_cidr(*ip, cidr)),
                (Some(_), None) => return Err(malformed("cidr", cidr_text)),
                _ => {}
            }
        }
        Ok(Self {
            port_name: get("port_name")?.clone(),
            mac,
            addresses,
            gateway,
            ip_text: ip_text.clone(),
        })
    }
}

/// `a`, `a,b` or `b,a` with at most one address of each family; a mask behind an address is tolerated,
/// as upstream wrote one up to v0.4.
fn parse_pair(text: &str) -> Option<DualStack<IpAddr>> {
    let ips: Option<Vec<IpAddr>> = text
        .split(',')
        .map(|part| parse_ip(part.trim().split('/').next()?).ok())
        .collect();
    DualStack::from_values(ips?).ok()
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: SmolStr,
    pub internal_ips: DualStack<IpAddr>,
    /// Label `ovn.kubernetes.io/ovs_dp_type=userspace`: OVS runs its userspace datapath here.
    pub userspace_datapath: bool,
    /// Annotation `ovn.kubernetes.io/tunnel_interface`.
    pub tunnel_interface: Option<SmolStr>,
    /// `Err` = what is still missing on the Node object.
    pub join: Result<JoinPort, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GatewayType {
    #[default]
    Distributed,
    Centralized,
}

/// What a node needs to know of a Subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFacts {
    pub name: SmolStr,
    pub vpc: SmolStr,
    pub cidrs: Vec<Cidr>,
    /// Attached to a physical network (`spec.vlan`).
    pub vlan: bool,
    pub logical_gateway: bool,
    pub u2o_interconnection: bool,
    pub nat_outgoing: bool,
    pub gateway_type: GatewayType,
    /// Addresses by which the subnet leaves through this node (`gatewayNode: "node:address"`), when this node is
    /// an active gateway of a centralized subnet; otherwise plain masquerade applies.
    pub egress_ips: Vec<IpAddr>,
    /// `spec.mtu`, when set.
    pub mtu: Option<u32>,
}

impl SubnetFacts {
    /// Does the subnet's traffic to elsewhere pass the nodes? Overlay subnets and those with a logical gateway do.
    pub fn behind_nodes(&self, default_vpc: &str) -> bool {
        self.vpc == default_vpc && (!self.vlan || self.logical_gateway)
    }
}
