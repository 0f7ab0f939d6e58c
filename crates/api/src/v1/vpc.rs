//! Vpc: a logical router with its subnets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, absent_is_default, is_default, null_is_default, number};

/// What a user asks of a VPC.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubeovn.io",
    version = "v1",
    kind = "Vpc",
    plural = "vpcs",
    singular = "vpc",
    shortname = "vpc",
    status = "VpcStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A network of subnets around one logical router of OVN.",
    printcolumn(
        name = "EnableExternal",
        type_ = "boolean",
        json_path = ".status.enableExternal"
    ),
    printcolumn(name = "EnableBfd", type_ = "boolean", json_path = ".status.enableBfd"),
    printcolumn(name = "Standby", type_ = "boolean", json_path = ".status.standby"),
    printcolumn(name = "Subnets", type_ = "string", json_path = ".status.subnets"),
    printcolumn(
        name = "ExtraExternalSubnets",
        type_ = "string",
        json_path = ".status.extraExternalSubnets"
    ),
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(
        name = "DefaultSubnet",
        type_ = "string",
        json_path = ".status.defaultLogicalSwitch"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default, remote = "Self")]
pub struct VpcSpec {
    /// The subnet of namespaces that name none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_subnet: String,
    /// Namespaces whose pods live in this VPC.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub namespaces: Vec<String>,
    /// Static routes of the router.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub static_routes: Vec<StaticRoute>,
    /// Routing policies of the router.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub policy_routes: Vec<PolicyRoute>,
    /// Other VPCs that this one is connected with.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub vpc_peerings: Vec<VpcPeering>,
    /// Whether the router has a port in the external network.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_external: bool,
    /// Further external subnets.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub extra_external_subnets: Vec<String>,
    /// Whether static routes are watched by BFD.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_bfd: bool,
    /// The router's BFD port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd_port: Option<BfdPort>,
}

absent_is_default!(VpcSpec);

/// A static route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StaticRoute {
    /// `policyDst` (the default) or `policySrc`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// The destination (or source).
    pub cidr: String,
    /// Address of the next router.
    #[serde(rename = "nextHopIP")]
    pub next_hop_ip: String,
    /// `ecmp` or empty.
    pub ecmp_mode: String,
    /// BFD session that watches the next hop.
    pub bfd_id: String,
    /// OVN route table.
    pub route_table: String,
}

/// A routing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRoute {
    /// 0 to 32767.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_default")]
    #[schemars(range(min = 0, max = 32767))]
    pub priority: i64,
    /// OVN match expression.
    #[serde(rename = "match", skip_serializing_if = "String::is_empty")]
    pub matches: String,
    /// `allow`, `drop` or `reroute`.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("enum" = ["allow", "drop", "reroute"]))]
    pub action: String,
    /// Next hops of `reroute`, separated by commas.
    #[serde(rename = "nextHopIP", skip_serializing_if = "String::is_empty")]
    pub next_hop_ip: String,
}

/// A connection with another VPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VpcPeering {
    /// The other VPC.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_vpc: String,
    /// This side's address with its prefix length.
    #[serde(rename = "localConnectIP", skip_serializing_if = "String::is_empty")]
    pub local_connect_ip: String,
}

/// The BFD port that a user asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BfdPort {
    /// Whether the port exists.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// Address of the port, or `v4,v6`.
    #[serde(rename = "ip", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Nodes that may host the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
}

/// The BFD port that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BfdPortStatus {
    /// The logical router port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Nodes that may host it.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nodes: Vec<String>,
}

/// What the controller says about a VPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VpcStatus {
    /// What is true about the object.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub conditions: Vec<Condition>,
    /// Whether the VPC was realised.
    pub standby: bool,
    /// Whether this is the default VPC.
    pub default: bool,
    /// The subnet of namespaces that name none.
    pub default_logical_switch: String,
    /// The logical router.
    pub router: String,
    /// Load balancer of Services, TCP.
    pub tcp_load_balancer: String,
    /// Load balancer of Services, UDP.
    pub udp_load_balancer: String,
    /// Load balancer of Services, SCTP.
    pub sctp_load_balancer: String,
    /// Load balancer of Services with session affinity, TCP.
    pub tcp_session_load_balancer: String,
    /// Load balancer of Services with session affinity, UDP.
    pub udp_session_load_balancer: String,
    /// Load balancer of Services with session affinity, SCTP.
    pub sctp_session_load_balancer: String,
    /// The subnets of the VPC, sorted.
    #[serde(deserialize_with = "null_is_default")]
    pub subnets: Vec<String>,
    /// VPCs that this one is connected with.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub vpc_peerings: Vec<String>,
    /// Whether the router has a port in the external network.
    pub enable_external: bool,
    /// Further external subnets.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub extra_external_subnets: Vec<String>,
    /// Whether static routes are watched by BFD.
    pub enable_bfd: bool,
    /// The BFD port that there is.
    #[serde(deserialize_with = "null_is_default")]
    pub bfd_port: BfdPortStatus,
}
