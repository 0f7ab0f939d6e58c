//! Pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Keys, PodKey, meta};
use crate::keys;

/// A pod as a watch decodes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Pod)]
#[serde(default)]
pub struct PodWire {
    #[serde(deserialize_with = "meta::slim")]
    pub metadata: ObjectMeta,
    pub spec: PodWireSpec,
    pub status: PodWireStatus,
}

/// The parts of a pod's spec that a view uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodWireSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
}

/// The parts of a pod's status that a view uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodWireStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(rename = "podIPs", skip_serializing_if = "Option::is_none")]
    pub pod_ips: Option<Vec<PodWireIp>>,
}

/// An element of `status.podIPs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodWireIp {
    pub ip: String,
}

/// `status.phase`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    /// The node was lost; also what an unknown text is read as.
    #[serde(other)]
    Unknown,
}

/// `spec.restartPolicy`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum RestartPolicy {
    OnFailure,
    Never,
    /// The default of Kubernetes; also what an unknown text is read as.
    #[default]
    #[serde(other)]
    Always,
}

/// A deletion that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deletion {
    /// When the grace period ends (`metadata.deletionTimestamp`), in seconds since 1970.
    pub timestamp_unix: i64,
    /// The grace period (`metadata.deletionGracePeriodSeconds`), already part of the timestamp.
    pub grace_seconds: i64,
}

impl Deletion {
    pub(super) fn of(meta: &ObjectMeta) -> Option<Self> {
        let timestamp = meta.deletion_timestamp.as_ref()?;
        Some(Self {
            timestamp_unix: timestamp.0.as_second(),
            grace_seconds: meta.deletion_grace_period_seconds.unwrap_or(0),
        })
    }
}

/// The object that a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    pub kind: SmolStr,
    pub name: SmolStr,
    pub uid: SmolStr,
    /// Whether it is the managing controller.
    pub controller: bool,
}

impl Owner {
    /// The managing controller, or the first owner if there is none.
    fn of(references: &[OwnerReference]) -> Option<Self> {
        let is_controller = |owner: &&OwnerReference| owner.controller == Some(true);
        let owner = references
            .iter()
            .find(is_controller)
            .or_else(|| references.first())?;
        Some(Self {
            kind: SmolStr::new(&owner.kind),
            name: SmolStr::new(&owner.name),
            uid: SmolStr::new(&owner.uid),
            controller: owner.controller == Some(true),
        })
    }
}

/// What the fabric keeps of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    pub key: PodKey,
    pub uid: SmolStr,
    pub resource_version: SmolStr,
    /// `spec.nodeName`; none until the pod is scheduled.
    pub node: Option<SmolStr>,
    /// Whether the pod uses its node's network; it gets no port then.
    pub host_network: bool,
    pub phase: Phase,
    pub restart_policy: RestartPolicy,
    /// `status.reason`, such as `Evicted`.
    pub reason: Option<SmolStr>,
    /// Set while the pod terminates.
    pub deletion: Option<Deletion>,
    pub owner: Option<Owner>,
    /// Empty: nothing selects pods by labels yet.
    pub labels: Keys,
    /// Our annotations ([`keys::is_ours`]).
    pub annotations: Keys,
    /// Addresses that the kubelet reports, and that may be another network plugin's.
    pub ips: Vec<IpAddr>,
    /// Whether finalizers hold the pod.
    pub finalizers: bool,
}

impl PodView {
    /// Whether the pod's network is (or will be) in use: its containers have not ended for good.
    ///
    /// A terminating pod is alive until it is gone or has completed: its containers still run, and still talk. A pod that
    /// succeeded or failed is never started again, whatever its restart policy (Kubernetes: "Pod phase"), be it evicted,
    /// past its deadline, or stopped with its node.
    pub const fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether the pod is to have a logical switch port: it is alive, on a node, and not in that node's own network.
    pub const fn wants_port(&self) -> bool {
        self.is_alive() && !self.host_network && self.node.is_some()
    }

    /// The pod's logical switch port and IP resource: `<pod>.<namespace>`.
    pub fn port_name(&self) -> SmolStr {
        self.key.port_name()
    }

    /// One of our annotations, unless it is empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations
            .get(key)
            .map(SmolStr::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether the annotations say that addresses are allocated.
    pub fn is_allocated(&self) -> bool {
        self.annotation(keys::ALLOCATED) == Some(keys::TRUE)
    }

    /// Whether the annotations say that the port exists.
    pub fn is_routed(&self) -> bool {
        self.annotation(keys::ROUTED) == Some(keys::TRUE)
    }
}

impl From<&PodWire> for PodView {
    fn from(wire: &PodWire) -> Self {
        let meta = &wire.metadata;
        let some = |text: &Option<String>| {
            text.as_deref()
                .filter(|text| !text.is_empty())
                .map(SmolStr::new)
        };
        Self {
            key: PodKey {
                namespace: meta::text(meta.namespace.as_ref()),
                name: meta::text(meta.name.as_ref()),
            },
            uid: meta::text(meta.uid.as_ref()),
            resource_version: meta::text(meta.resource_version.as_ref()),
            node: some(&wire.spec.node_name),
            host_network: wire.spec.host_network.unwrap_or(false),
            phase: wire.status.phase.unwrap_or_default(),
            restart_policy: wire.spec.restart_policy.unwrap_or_default(),
            reason: some(&wire.status.reason),
            deletion: Deletion::of(meta),
            owner: Owner::of(meta.owner_references.as_deref().unwrap_or_default()),
            labels: Keys::new(),
            annotations: meta::annotations(meta),
            ips: wire
                .status
                .pod_ips
                .iter()
                .flatten()
                .filter_map(|pod_ip| pod_ip.ip.parse().ok())
                .collect(),
            finalizers: meta
                .finalizers
                .as_ref()
                .is_some_and(|held| !held.is_empty()),
        }
    }
}
