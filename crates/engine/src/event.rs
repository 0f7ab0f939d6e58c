//! What can happen to the engine.

use std::sync::Arc;

use api::v1::{Ip, Subnet, Vpc};
use api::view::{NamespaceView, NodeView, PodView};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovsdb::RowDelta;
use ovsdb::wire::DatabaseSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::effect::{EffectId, InUse};

/// The kinds that the controller watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `v1/pods`
    Pod,
    /// `v1/nodes`
    Node,
    /// `v1/namespaces`
    Namespace,
    /// `kubeovn.io/v1/subnets`
    Subnet,
    /// `kubeovn.io/v1/vpcs`
    Vpc,
    /// `kubeovn.io/v1/ips`
    Ip,
}

impl Kind {
    /// Every watched kind, in the order in which the adapter starts them.
    pub const ALL: [Self; 6] = [
        Self::Vpc,
        Self::Subnet,
        Self::Ip,
        Self::Namespace,
        Self::Node,
        Self::Pod,
    ];

    /// The kind as it stands in an object's `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Subnet => "Subnet",
            Self::Vpc => "Vpc",
            Self::Ip => "IP",
        }
    }

    /// `apiVersion` of the kind.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Pod | Self::Node | Self::Namespace => "v1",
            Self::Subnet | Self::Vpc | Self::Ip => "kubeovn.io/v1",
        }
    }

    /// The resource's name in a URL.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Namespace => "namespaces",
            Self::Subnet => "subnets",
            Self::Vpc => "vpcs",
            Self::Ip => "ips",
        }
    }
}

/// Names one Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for objects of the cluster.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
}

impl ObjectKey {
    /// Names an object of the cluster.
    pub fn cluster(kind: Kind, name: impl Into<SmolStr>) -> Self {
        Self {
            kind,
            namespace: SmolStr::default(),
            name: name.into(),
        }
    }

    /// Names a pod.
    pub fn pod(namespace: impl Into<SmolStr>, name: impl Into<SmolStr>) -> Self {
        Self {
            kind: Kind::Pod,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.name(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
        }
    }
}

/// One object as the API server shows it: a narrow view, or the whole resource where it is ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// A pod.
    Pod(Box<PodView>),
    /// A node.
    Node(Box<NodeView>),
    /// A namespace.
    Namespace(Box<NamespaceView>),
    /// A subnet.
    Subnet(Box<Subnet>),
    /// A VPC.
    Vpc(Box<Vpc>),
    /// An IP resource: one entry of the ledger of addresses.
    Ip(Box<Ip>),
}

impl Object {
    /// The name of the object.
    pub fn key(&self) -> ObjectKey {
        let of = |kind, meta: &ObjectMeta| {
            ObjectKey::cluster(kind, meta.name.as_deref().unwrap_or_default())
        };
        match self {
            Self::Pod(v) => ObjectKey::pod(v.key.namespace.clone(), v.key.name.clone()),
            Self::Node(v) => ObjectKey::cluster(Kind::Node, v.name.clone()),
            Self::Namespace(v) => ObjectKey::cluster(Kind::Namespace, v.name.clone()),
            Self::Subnet(v) => of(Kind::Subnet, &v.metadata),
            Self::Vpc(v) => of(Kind::Vpc, &v.metadata),
            Self::Ip(v) => of(Kind::Ip, &v.metadata),
        }
    }

    /// `metadata.resourceVersion`; empty when the object was never stored.
    pub fn resource_version(&self) -> &str {
        match self {
            Self::Pod(v) => &v.resource_version,
            Self::Node(v) => &v.resource_version,
            Self::Namespace(v) => &v.resource_version,
            Self::Subnet(v) => v.metadata.resource_version.as_deref().unwrap_or_default(),
            Self::Vpc(v) => v.metadata.resource_version.as_deref().unwrap_or_default(),
            Self::Ip(v) => v.metadata.resource_version.as_deref().unwrap_or_default(),
        }
    }

    /// `metadata.uid`; empty when the object was never stored.
    pub fn uid(&self) -> &str {
        match self {
            Self::Pod(v) => &v.uid,
            Self::Node(v) => &v.uid,
            Self::Namespace(v) => &v.uid,
            Self::Subnet(v) => v.metadata.uid.as_deref().unwrap_or_default(),
            Self::Vpc(v) => v.metadata.uid.as_deref().unwrap_or_default(),
            Self::Ip(v) => v.metadata.uid.as_deref().unwrap_or_default(),
        }
    }
}

/// What a watch reports. A list is `Begin`, any number of `Apply`, `End`: what was known and is not repeated is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KubeEvent {
    /// The list that begins next was asked for by [`crate::Effect::List`].
    Asked {
        /// Of this kind.
        kind: Kind,
        /// Id of the effect.
        id: EffectId,
    },
    /// The watch of this kind starts over with a list. This goes before the request for the list, on the way that answers
    /// to writes come, so the list shows every write whose answer came earlier.
    Begin(Kind),
    /// An object exists as shown.
    Apply(Object),
    /// An object is gone; `resource_version` is that of its removal.
    Delete {
        /// The object.
        key: ObjectKey,
        /// Version at which it went.
        resource_version: SmolStr,
    },
    /// The list is complete.
    End(Kind),
}

/// What a database's replica reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReplicaEvent {
    /// A session stands; rows follow. With the schema of the server's database, if the adapter has it.
    Connected(#[serde(with = "crate::recording")] Option<Arc<DatabaseSchema>>),
    /// The rows that one transaction changed, whole.
    Deltas(Vec<RowDelta>),
    /// The replica equals the database.
    Synced,
    /// The session is gone; the replica keeps what it has.
    Disconnected(String),
}

/// Whether this process may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEvent {
    /// The lease is ours and nobody else may take it before `until`. Repeated with each renewal.
    Leader {
        /// End of the guarantee, on the engine's clock.
        until: Timestamp,
    },
    /// The lease belongs to another process or to nobody.
    Standby,
}

/// How a Kubernetes write ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KubeOutcome {
    /// Done; the object as the server holds it now (`None`: it is gone, or the answer had none).
    Done(Option<Object>),
    /// 404: there is no such object (or it has another uid).
    NotFound,
    /// 409: it exists already, or its resourceVersion or uid differs from the one asked for.
    Conflict(String),
    /// 400, 403, 422: this request will fail again until something changes.
    Refused(String),
    /// Certainly not executed; worth another try.
    Retry(String),
    /// No answer: it may have been executed, or still be.
    Unknown(String),
}

/// How a database transaction ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CommitOutcome {
    /// Committed. Its changes have been reported by [`ReplicaEvent::Deltas`] before.
    Committed,
    /// A `wait` operation did not hold; nothing was written.
    WaitFailed {
        /// Index of the operation.
        op: usize,
    },
    /// The server refused operation `op`; nothing was written.
    Refused {
        /// Index of the operation, if the error was about one.
        op: Option<usize>,
        /// The server's words.
        error: String,
    },
    /// Certainly not committed; worth another try.
    Retry(String),
    /// The session broke after the request was sent.
    Unknown(String),
}

/// Everything that can happen. Serialisable, so that a run can be recorded and repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// From a watch.
    Kube(KubeEvent),
    /// From the northbound database.
    Nb(ReplicaEvent),
    /// From the southbound database (tables `Chassis` and `Chassis_Private` alone).
    Sb(ReplicaEvent),
    /// End of [`crate::Effect::Kube`].
    KubeDone {
        /// The effect that ended.
        id: EffectId,
        /// How.
        outcome: KubeOutcome,
    },
    /// End of [`crate::Effect::Nb`] or [`crate::Effect::Sb`].
    Committed {
        /// The effect that ended.
        id: EffectId,
        /// How.
        outcome: CommitOutcome,
    },
    /// From the lease.
    Lease(LeaseEvent),
    /// The time that [`crate::Effect::Wake`] asked for has come (or any other moment: it does no harm).
    Tick,
    /// End of [`crate::Effect::Inventory`].
    Inventory {
        /// The effect that ended.
        id: EffectId,
        /// What there is; or why nobody knows.
        in_use: Result<Vec<InUse>, String>,
    },
    /// The operator agrees to what the brakes hold.
    ReleaseBrakes {
        /// Rows that may be deleted. If it would be more, nothing is.
        rows: usize,
    },
}
