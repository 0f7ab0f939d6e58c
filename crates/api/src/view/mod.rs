//! Narrow views of Kubernetes objects: what the fabric keeps of a pod, a node, a namespace or an IP resource.
//!
//! A cluster has 100 000 pods; a whole `Pod` takes 50 KiB, a view well under one. Each view comes in two steps:
//!
//! ```text
//! API server JSON ──decode──> *Wire (a kube Resource: Api<PodWire>, watcher) ──From──> *View (compact, serialisable)
//! ```
//!
//! Decoding a wire type skips over everything that no view uses without building it (containers, volumes, conditions,
//! foreign annotations). A wire type lives for the moment between the socket and its view.

mod ip;
mod meta;
mod namespace;
mod node;
mod pod;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub use ip::{IpView, IpViewError};
pub use namespace::{NamespaceView, NamespaceWire};
pub use node::{NodeView, NodeWire};
pub use pod::{Deletion, Owner, Phase, PodView, PodWire, RestartPolicy};

/// Annotations or labels.
pub type Keys = BTreeMap<SmolStr, SmolStr>;

/// The name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    pub namespace: SmolStr,
    pub name: SmolStr,
}

impl PodKey {
    /// The pod `name` in `namespace`.
    pub fn new(namespace: impl Into<SmolStr>, name: impl Into<SmolStr>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The pod's logical switch port and IP resource in the primary network: `<pod>.<namespace>`.
    pub fn port_name(&self) -> SmolStr {
        smol_str::format_smolstr!("{}.{}", self.name, self.namespace)
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A node's logical switch port and IP resource: `node-<node>`.
pub fn node_port_name(node: &str) -> SmolStr {
    smol_str::format_smolstr!("node-{node}")
}
