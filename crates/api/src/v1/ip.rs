//! IP: an address that was given out, or that a user reserved. The cluster's ledger.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{absent_is_default, null_is_default};

/// An allocation. The object's name is the logical switch port: `<pod>.<namespace>`, or `node-<node>`.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "kubeovn.io",
    version = "v1",
    kind = "IP",
    root = "Ip",
    plural = "ips",
    singular = "ip",
    shortname = "ip",
    derive = "PartialEq",
    derive = "Default",
    doc = "An address that a pod or a node holds, or that is reserved for one.",
    printcolumn(name = "V4IP", type_ = "string", json_path = ".spec.v4IpAddress"),
    printcolumn(name = "V6IP", type_ = "string", json_path = ".spec.v6IpAddress"),
    printcolumn(name = "Mac", type_ = "string", json_path = ".spec.macAddress"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Subnet", type_ = "string", json_path = ".spec.subnet")
)]
#[serde(rename_all = "camelCase", default, remote = "Self")]
pub struct IpSpec {
    /// The pod (or node) that holds the address.
    pub pod_name: String,
    /// The pod's namespace; empty for a node.
    pub namespace: String,
    /// The Subnet that the address is from.
    pub subnet: String,
    /// Subnets of further interfaces; unused, they have IP resources of their own.
    #[serde(deserialize_with = "null_is_default")]
    pub attach_subnets: Vec<String>,
    /// The pod's node.
    pub node_name: String,
    /// The address, or `v4,v6`.
    pub ip_address: String,
    /// The IPv4 address.
    pub v4_ip_address: String,
    /// The IPv6 address.
    pub v6_ip_address: String,
    /// Addresses of further interfaces; unused.
    #[serde(deserialize_with = "null_is_default")]
    pub attach_ips: Vec<String>,
    /// The MAC address.
    pub mac_address: String,
    /// MAC addresses of further interfaces; unused.
    #[serde(deserialize_with = "null_is_default")]
    pub attach_macs: Vec<String>,
    /// The sandbox, where it is known.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Empty, `StatefulSet` or `VirtualMachine`: whether the address outlives the pod.
    pub pod_type: String,
}

absent_is_default!(IpSpec);
