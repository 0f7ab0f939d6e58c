//! What Kubernetes should hold, as far as the controller writes it. The engine compares it with what it sees and
//! writes the difference.

use std::collections::BTreeMap;

use api::v1::{Condition, Subnet, SubnetSpec, Vpc, VpcStatus};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Metadata entries by key; `None` means that the key must not be there. Keys that are not mentioned are left alone.
pub type Patch = BTreeMap<SmolStr, Option<SmolStr>>;

/// A piece of desired Kubernetes state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KubeState {
    /// A Subnet that is missing. It is created as it stands, and never updated from this.
    CreateSubnet(Box<Subnet>),
    /// A Vpc that is missing.
    CreateVpc(Box<Vpc>),
    /// A Subnet that exists.
    Subnet(Box<SubnetWrites>),
    /// A Vpc that exists.
    Vpc(Box<VpcWrites>),
    /// Annotations of a namespace. They must be written under the field manager [`api::keys::FIELD_MANAGER`].
    Namespace { name: SmolStr, annotations: Patch },
}

/// What the controller writes into a Subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubnetWrites {
    pub name: SmolStr,
    /// The spec with defaults, and the values of the namespace that owns it, filled in.
    pub spec: SubnetSpec,
    pub annotations: Patch,
    /// All conditions that there should be.
    pub conditions: Vec<Condition>,
    /// Whether our finalizer must be there. When it need not, the rows of the Subnet must be gone from OVN before the
    /// finalizer is taken away.
    pub finalizer: bool,
    /// Whether the Subnet should be deleted: it was made from annotations, and no namespace asks for it any more.
    pub delete: bool,
}

/// What the controller writes into a Vpc.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpcWrites {
    pub name: SmolStr,
    pub status: VpcStatus,
    /// As for a Subnet.
    pub finalizer: bool,
}
