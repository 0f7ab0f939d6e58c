//! What goes into the [`World`](crate::World), and the units that it is compiled by.

use std::fmt;
use std::net::IpAddr;

use api::v1::{Subnet, SubnetSpec, Vpc};
use api::view::{NamespaceView, NodeView, PodKey, PodView};
use net::{DualStack, Mac};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::Config;

/// Name of a logical switch port of ours, and of its IP resource: `<pod>.<namespace>` or `node-<node>`.
pub type PortName = SmolStr;

/// Everything that can happen to the network. `None` means that the object is gone.
///
/// A recorded sequence of changes can be replayed; the order matters only between changes of the same object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Other settings.
    Config(Box<Config>),
    /// A pod.
    Pod(PodKey, Option<Box<PodView>>),
    /// A node.
    Node(SmolStr, Option<Box<NodeView>>),
    /// A namespace.
    Namespace(SmolStr, Option<Box<NamespaceView>>),
    /// A Subnet.
    Subnet(SmolStr, Option<Box<Subnet>>),
    /// A Vpc.
    Vpc(SmolStr, Option<Box<Vpc>>),
    /// Addresses given out; the decision is already persisted.
    Lease(PortName, Option<PortLease>),
    /// The spec of a Subnet that was last found good, see [`World::settle`](crate::World::settle).
    Accepted(SmolStr, Option<Box<Accepted>>),
}

/// Who holds the addresses of a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PortOwner {
    Pod(PodKey),
    Node(SmolStr),
}

/// The addresses of a port, decided by the allocator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortLease {
    /// The Subnet that they come from.
    pub subnet: SmolStr,
    pub addresses: DualStack<IpAddr>,
    pub mac: Mac,
    pub owner: PortOwner,
}

/// The last good spec of a Subnet, kept so that a bad edit, or a restart after one, does not take a running network
/// away. It is persisted in the annotation [`Accepted::ANNOTATION`] of the Subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The Subnet's uid: a new object of the same name starts without a past.
    pub uid: SmolStr,
    /// The spec in effect, with defaults and the namespace's values filled in.
    pub spec: SubnetSpec,
    /// Namespaces that were bound by their own annotations, which leave when they stop to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namers: Vec<SmolStr>,
}

impl Accepted {
    /// Annotation of a Subnet that holds this value as JSON.
    pub const ANNOTATION: &'static str = "ovn.kubernetes.io/accepted";
}

/// A piece of the network that is compiled by itself: the key of incrementality.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// Options of the whole OVN, and objects that must always exist.
    Global,
    /// A logical router with its own routes.
    Vpc(SmolStr),
    /// A logical switch with its router port.
    Subnet(SmolStr),
    /// A node's port in the join switch, its port group and the way to it.
    Node(SmolStr),
    /// The way out of a distributed subnet's pods on one node.
    Gateway { subnet: SmolStr, node: SmolStr },
    /// What a namespace is told, and the Subnet that it asks for.
    Namespace(SmolStr),
    /// A pod's port with its memberships.
    Port(PortName),
}

/// `subnet/blue`, `gateway/blue/node-1`: also the provenance of rows.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Vpc(name) => write!(f, "vpc/{name}"),
            Self::Subnet(name) => write!(f, "subnet/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Gateway { subnet, node } => write!(f, "gateway/{subnet}/{node}"),
            Self::Namespace(name) => write!(f, "namespace/{name}"),
            Self::Port(name) => write!(f, "port/{name}"),
        }
    }
}
