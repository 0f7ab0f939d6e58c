//! Subnet: an address range, its logical switch, and how its pods reach the world.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Count, absent_is_default, is_default, null_is_default, number};

/// What a user asks of a Subnet.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubeovn.io",
    version = "v1",
    kind = "Subnet",
    plural = "subnets",
    singular = "subnet",
    shortname = "subnet",
    status = "SubnetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A range of addresses for pods, its logical switch in OVN, and its way out.",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Vpc", type_ = "string", json_path = ".spec.vpc"),
    printcolumn(name = "Vlan", type_ = "string", json_path = ".spec.vlan"),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidrBlock"),
    printcolumn(name = "Private", type_ = "boolean", json_path = ".spec.private"),
    printcolumn(name = "NAT", type_ = "boolean", json_path = ".spec.natOutgoing"),
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default"),
    printcolumn(
        name = "GatewayType",
        type_ = "string",
        json_path = ".spec.gatewayType"
    ),
    printcolumn(name = "V4Used", type_ = "number", json_path = ".status.v4usingIPs"),
    printcolumn(
        name = "V4Available",
        type_ = "number",
        json_path = ".status.v4availableIPs"
    ),
    printcolumn(name = "V6Used", type_ = "number", json_path = ".status.v6usingIPs"),
    printcolumn(
        name = "V6Available",
        type_ = "number",
        json_path = ".status.v6availableIPs"
    ),
    printcolumn(name = "ExcludeIPs", type_ = "string", json_path = ".spec.excludeIps"),
    printcolumn(
        name = "U2OInterconnectionIP",
        type_ = "string",
        json_path = ".status.u2oInterconnectionIP"
    )
)]
#[serde(rename_all = "camelCase", default, remote = "Self")]
pub struct SubnetSpec {
    /// Whether this is the cluster's default subnet. There is one.
    pub default: bool,
    /// The VPC (logical router) that the subnet belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vpc: String,
    /// IPv4, IPv6, Dual or Mac; follows from the CIDR.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("enum" = ["IPv4", "IPv6", "Dual", "Mac"]))]
    pub protocol: String,
    /// Namespaces whose pods take addresses from here.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub namespaces: Vec<String>,
    /// Namespaces by their labels, in addition to `namespaces`.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub namespace_selectors: Vec<LabelSelector>,
    /// A CIDR, or one of each family separated by a comma.
    pub cidr_block: String,
    /// The gateway's address in the CIDR, or one of each family. The first address if empty.
    pub gateway: String,
    /// Addresses (`a`) and ranges (`a..b`) that pods do not get by themselves.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub exclude_ips: Vec<String>,
    /// The network provider; `ovn` for the cluster's own network.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Way out of the cluster: `distributed` (through the pod's own node) or `centralized` (through gateway nodes).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway_type: String,
    /// Gateway nodes of a centralized subnet: `n1,n2` or `n1:egressIP`.
    pub gateway_node: String,
    /// Gateway nodes by their labels, instead of `gatewayNode`.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub gateway_node_selectors: Vec<LabelSelector>,
    /// Whether traffic that leaves the cluster takes the node's address.
    pub nat_outgoing: bool,
    /// Ordered exceptions to `natOutgoing`.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nat_outgoing_policy_rules: Vec<NatOutgoingPolicyRule>,
    /// One or two next hops outside the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_egress_gateway: String,
    /// Priority of the policy routing rule on the node, together with `externalEgressGateway`.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_default")]
    #[schemars(range(min = 1, max = 32765))]
    pub policy_routing_priority: u32,
    /// Routing table on the node, together with `externalEgressGateway`.
    #[serde(
        deserialize_with = "number",
        rename = "policyRoutingTableID",
        skip_serializing_if = "is_default"
    )]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub policy_routing_table_id: u32,
    /// MTU of the pods' interfaces; 0 takes the node's.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_default")]
    #[schemars(range(min = 0, max = 65535))]
    pub mtu: u32,
    /// Whether other subnets are kept out.
    pub private: bool,
    /// CIDRs that may reach a private subnet.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub allow_subnets: Vec<String>,
    /// The Vlan of an underlay subnet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vlan: String,
    /// Addresses that pods may share as virtual ones.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub vips: Vec<String>,
    /// Whether the gateway of an underlay subnet is OVN's router.
    #[serde(skip_serializing_if = "is_default")]
    pub logical_gateway: bool,
    /// Whether a pod starts without having reached its gateway.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_gateway_check: bool,
    /// Whether the subnet stays out of OVN interconnection.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_inter_connection: bool,
    /// Whether OVN answers DHCP requests.
    #[serde(rename = "enableDHCP", skip_serializing_if = "is_default")]
    pub enable_dhcp: bool,
    /// DHCPv4 options, `key=value,...`.
    #[serde(rename = "dhcpV4Options", skip_serializing_if = "String::is_empty")]
    pub dhcp_v4_options: String,
    /// DHCPv6 options, `key=value,...`.
    #[serde(rename = "dhcpV6Options", skip_serializing_if = "String::is_empty")]
    pub dhcp_v6_options: String,
    /// Whether OVN sends router advertisements.
    #[serde(rename = "enableIPv6RA", skip_serializing_if = "is_default")]
    pub enable_ipv6_ra: bool,
    /// Router advertisement settings, `key=value,...`.
    #[serde(rename = "ipv6RAConfigs", skip_serializing_if = "String::is_empty")]
    pub ipv6_ra_configs: String,
    /// ACLs in OVN's own words.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub acls: Vec<Acl>,
    /// Whether traffic inside the subnet passes although `acls` would drop it.
    #[serde(rename = "allowEWTraffic", skip_serializing_if = "is_default")]
    pub allow_ew_traffic: bool,
    /// Address of the router in an underlay subnet that is connected with the overlay.
    #[serde(
        rename = "u2oInterconnectionIP",
        skip_serializing_if = "String::is_empty"
    )]
    pub u2o_interconnection_ip: String,
    /// Whether an underlay subnet is connected with the overlay.
    #[serde(rename = "u2oInterconnection", skip_serializing_if = "is_default")]
    pub u2o_interconnection: bool,
    /// Details of `u2oInterconnection`.
    #[serde(deserialize_with = "null_is_default")]
    pub u2o_features: U2oFeatures,
    /// Whether the cluster's Services are served by OVN in this subnet; the controller's setting if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_lb: Option<bool>,
    /// Whether the gateway nodes of a centralized subnet share the traffic.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ecmp: bool,
    /// Whether OVN snoops multicast.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_multicast_snoop: bool,
    /// Whether external addresses of Services are taken from this subnet.
    #[serde(rename = "enableExternalLBAddress", skip_serializing_if = "is_default")]
    pub enable_external_lb_address: bool,
    /// OVN route table of the router port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_table: String,
    /// Which of a node's encapsulation addresses carries this subnet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_network: String,
}

absent_is_default!(SubnetSpec);

/// Values of [`SubnetSpec::gateway_type`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayType {
    /// Out through the pod's own node.
    Distributed,
    /// Out through gateway nodes.
    Centralized,
}

impl GatewayType {
    /// The text in the spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Distributed => "distributed",
            Self::Centralized => "centralized",
        }
    }

    /// Reads the spec's text; empty is distributed, anything else unknown is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "distributed" => Some(Self::Distributed),
            "centralized" => Some(Self::Centralized),
            _ => None,
        }
    }
}

/// An ordered exception to `natOutgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NatOutgoingPolicyRule {
    /// Which traffic.
    #[serde(rename = "match", deserialize_with = "null_is_default")]
    pub matches: NatOutgoingPolicyMatch,
    /// `nat` or `forward`.
    #[schemars(extend("enum" = ["nat", "forward"]))]
    pub action: String,
}

/// Traffic that a [`NatOutgoingPolicyRule`] speaks of. An empty side is any address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NatOutgoingPolicyMatch {
    /// Addresses and CIDRs, separated by commas.
    #[serde(rename = "srcIPs", skip_serializing_if = "String::is_empty")]
    pub src_ips: String,
    /// Addresses and CIDRs, separated by commas.
    #[serde(rename = "dstIPs", skip_serializing_if = "String::is_empty")]
    pub dst_ips: String,
}

/// A [`NatOutgoingPolicyRule`] in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NatOutgoingPolicyRuleStatus {
    /// Twelve hexadecimal digits that nodes name their rules by.
    #[serde(rename = "ruleID")]
    pub rule_id: String,
    /// Which traffic.
    #[serde(rename = "match", deserialize_with = "null_is_default")]
    pub matches: NatOutgoingPolicyMatch,
    /// `nat` or `forward`.
    pub action: String,
}

/// An ACL in OVN's own words (ovn-nb(5), table ACL).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Acl {
    /// `from-lport` or `to-lport`.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("enum" = ["from-lport", "to-lport"]))]
    pub direction: String,
    /// 0 to 32767.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_default")]
    #[schemars(range(min = 0, max = 32767))]
    pub priority: i64,
    /// OVN match expression.
    #[serde(rename = "match", skip_serializing_if = "String::is_empty")]
    pub matches: String,
    /// `allow`, `allow-related`, `allow-stateless`, `drop` or `reject`.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("enum" = ["allow", "allow-related", "allow-stateless", "drop", "reject"]))]
    pub action: String,
}

/// Details of an underlay subnet that is connected with the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct U2oFeatures {
    /// Whether only traffic with the overlay is routed by OVN.
    #[serde(skip_serializing_if = "is_default")]
    pub overlay_only_routing: bool,
}

/// What the controller says about a Subnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubnetStatus {
    /// What is true about the object.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub conditions: Vec<Condition>,
    /// IPv4 addresses that a pod could get.
    #[serde(rename = "v4availableIPs")]
    pub v4_available_ips: Count,
    /// The same as ranges, `a-b,c`.
    #[serde(rename = "v4availableIPrange")]
    pub v4_available_ip_range: String,
    /// IPv4 addresses in use.
    #[serde(rename = "v4usingIPs")]
    pub v4_using_ips: Count,
    /// The same as ranges, `a-b,c`.
    #[serde(rename = "v4usingIPrange")]
    pub v4_using_ip_range: String,
    /// IPv6 addresses that a pod could get.
    #[serde(rename = "v6availableIPs")]
    pub v6_available_ips: Count,
    /// The same as ranges, `a-b,c`.
    #[serde(rename = "v6availableIPrange")]
    pub v6_available_ip_range: String,
    /// IPv6 addresses in use.
    #[serde(rename = "v6usingIPs")]
    pub v6_using_ips: Count,
    /// The same as ranges, `a-b,c`.
    #[serde(rename = "v6usingIPrange")]
    pub v6_using_ip_range: String,
    /// The centralized gateway node in charge.
    pub activate_gateway: String,
    /// DHCPv4 options row in OVN.
    #[serde(rename = "dhcpV4OptionsUUID")]
    pub dhcp_v4_options_uuid: String,
    /// DHCPv6 options row in OVN.
    #[serde(rename = "dhcpV6OptionsUUID")]
    pub dhcp_v6_options_uuid: String,
    /// Address of the router in the underlay subnet.
    #[serde(rename = "u2oInterconnectionIP")]
    pub u2o_interconnection_ip: String,
    /// MAC address of the router in the underlay subnet.
    #[serde(rename = "u2oInterconnectionMAC")]
    pub u2o_interconnection_mac: String,
    /// VPC that the underlay subnet is connected with.
    #[serde(rename = "u2oInterconnectionVPC")]
    pub u2o_interconnection_vpc: String,
    /// The NAT rules in effect.
    #[serde(deserialize_with = "null_is_default")]
    pub nat_outgoing_policy_rules: Vec<NatOutgoingPolicyRuleStatus>,
    /// Address of the multicast querier.
    #[serde(rename = "mcastQuerierIP")]
    pub mcast_querier_ip: String,
    /// MAC address of the multicast querier.
    #[serde(rename = "mcastQuerierMAC")]
    pub mcast_querier_mac: String,
    /// OVN's tunnel key of the switch.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_default")]
    pub tunnel_key: i64,
}
