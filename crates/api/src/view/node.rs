//! Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use net::DualStack;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Keys, meta, node_port_name};

/// A node as a watch decodes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Node)]
#[serde(default)]
pub struct NodeWire {
    #[serde(deserialize_with = "meta::slim")]
    pub metadata: ObjectMeta,
    pub spec: NodeWireSpec,
    pub status: NodeWireStatus,
}

/// The parts of a node's spec that a view uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeWireSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unschedulable: Option<bool>,
}

/// The parts of a node's status that a view uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeWireStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<NodeWireAddress>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<NodeWireCondition>>,
}

/// An element of `status.addresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeWireAddress {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
}

/// An element of `status.conditions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeWireCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

/// What the fabric keeps of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: SmolStr,
    pub uid: SmolStr,
    pub resource_version: SmolStr,
    /// The first `InternalIP` of each family.
    pub internal_ips: DualStack<IpAddr>,
    /// Whether the kubelet says that it is ready.
    pub ready: bool,
    /// Whether new pods are kept off (`kubectl cordon`).
    pub unschedulable: bool,
    pub labels: Keys,
    /// Our annotations.
    pub annotations: Keys,
    /// Whether a deletion was asked for.
    pub deleting: bool,
}

impl NodeView {
    /// The node's logical switch port and IP resource: `node-<node>`.
    pub fn port_name(&self) -> SmolStr {
        node_port_name(&self.name)
    }

    /// One of our annotations, unless it is empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations
            .get(key)
            .map(SmolStr::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl From<&NodeWire> for NodeView {
    fn from(wire: &NodeWire) -> Self {
        let meta = &wire.metadata;
        let internal = || {
            wire.status
                .addresses
                .iter()
                .flatten()
                .filter(|address| address.kind == "InternalIP")
                .filter_map(|address| address.address.parse::<IpAddr>().ok())
        };
        Self {
            name: meta::text(meta.name.as_ref()),
            uid: meta::text(meta.uid.as_ref()),
            resource_version: meta::text(meta.resource_version.as_ref()),
            internal_ips: DualStack {
                v4: internal().find(IpAddr::is_ipv4),
                v6: internal().find(IpAddr::is_ipv6),
            },
            ready: wire
                .status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.kind == "Ready" && condition.status == "True"),
            unschedulable: wire.spec.unschedulable.unwrap_or(false),
            labels: meta::labels(meta),
            annotations: meta::annotations(meta),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}
