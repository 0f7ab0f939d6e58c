//! What is wrong with an object, told to its owner.

use std::fmt;

use api::view::PodKey;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Kinds of objects that problems and desired states speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Subnet,
    Vpc,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An object of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: Kind,
    /// Of pods alone.
    pub namespace: Option<SmolStr>,
    pub name: SmolStr,
}

impl ObjectRef {
    /// An object that belongs to no namespace.
    pub fn cluster(kind: Kind, name: impl Into<SmolStr>) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.into(),
        }
    }

    /// A pod.
    pub fn pod(key: &PodKey) -> Self {
        Self {
            kind: Kind::Pod,
            namespace: Some(key.namespace.clone()),
            name: key.name.clone(),
        }
    }
}

/// `Subnet/blue`, `Pod/default/web-0`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// Something about an object that its owner should know: an event, and for a Subnet a condition as well.
///
/// It lasts as long as its cause: each compilation of a unit returns it again, and the receiver speaks only of new ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    pub object: ObjectRef,
    /// One word for programs, the Go implementation's where it has one ([`api::v1::reason`] and [`reason`]).
    pub reason: SmolStr,
    /// What is wrong, with which value, and what to do.
    pub message: String,
}

impl Problem {
    pub fn new(object: ObjectRef, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            object,
            reason: SmolStr::new_static(reason),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.object, self.reason, self.message)
    }
}

/// Reasons that the Go implementation has no word for.
pub mod reason {
    /// Namespaces, or a namespace and a Subnet, say different things about one switch.
    pub const SWITCH_CONFLICT: &str = "LogicalSwitchConflict";
    /// A pod's Subnet does not exist (yet), or is not in effect.
    pub const NO_SUBNET: &str = "NoSubnet";
    /// A pod asks for a Subnet that its namespace may not use.
    pub const SUBNET_NOT_ALLOWED: &str = "SubnetNotAllowed";
    /// A field that a namespace owns was edited on its Subnet and is put back.
    pub const PUT_BACK: &str = "NamespaceOwnsField";
    /// A Subnet is being deleted, or is to have other addresses, and waits for those that are in use.
    pub const ADDRESSES_IN_USE: &str = "AddressesInUse";
    /// Two objects would have a port of one name.
    pub const NAME_TAKEN: &str = "PortNameTaken";
    /// Two nodes have one address.
    pub const DUPLICATE_ADDRESS: &str = "NodeAddressDuplicate";
    /// A Vpc that a Subnet names does not exist.
    pub const NO_VPC: &str = "NoVpc";
    /// Pods of a Subnet have addresses of a family in which the nodes have none.
    pub const NODES_LACK_FAMILY: &str = "NodesLackFamily";
}
