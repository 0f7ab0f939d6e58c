//! IP resources: the ledger of addresses.

use std::net::IpAddr;

use net::{DualStack, Mac, ParseError};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Keys, PodKey, meta};
use crate::keys;
use crate::v1::Ip;

/// What the engine keeps of an IP resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpView {
    /// The object's name, which is the logical switch port's.
    pub name: SmolStr,
    pub uid: SmolStr,
    pub resource_version: SmolStr,
    pub subnet: SmolStr,
    /// The pod, or none for a node's address.
    pub pod: Option<PodKey>,
    /// The node.
    pub node: Option<SmolStr>,
    pub addresses: DualStack<IpAddr>,
    /// None for addresses of other network plugins' interfaces.
    pub mac: Option<Mac>,
    /// Empty, `StatefulSet` or `VirtualMachine`.
    pub pod_type: SmolStr,
    /// Whether a user made it, to keep the address for a pod.
    pub reserved: bool,
    /// Uid of the node that it belongs to (`metadata.ownerReferences`): Kubernetes deletes it with that one.
    pub owner: Option<SmolStr>,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// Whether a deletion was asked for.
    pub deleting: bool,
}

/// An IP resource that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpViewError {
    /// The addresses do not parse.
    #[error("IP {name}: {source}")]
    Address { name: SmolStr, source: ParseError },
    /// The MAC address does not parse.
    #[error("IP {name}: {source}")]
    Mac { name: SmolStr, source: ParseError },
}

/// Reads `v4,v6`. Up to v0.4 an address had its prefix length, which is left out; empty elements are nothing.
fn parse_addresses(text: &str) -> Result<DualStack<IpAddr>, ParseError> {
    let bare: Vec<&str> = text
        .split(',')
        .map(|element| {
            element
                .split_once('/')
                .map_or(element, |(address, _)| address)
        })
        .filter(|element| !element.trim().is_empty())
        .collect();
    bare.join(",").parse()
}

impl IpView {
    /// Everything but the addresses: of a record whose addresses nobody can read, there is still to be known whose it is
    /// and what holds it.
    pub fn without_addresses(ip: &Ip) -> Self {
        let (meta, spec) = (&ip.metadata, &ip.spec);
        let some = |text: &str| (!text.is_empty()).then(|| SmolStr::new(text));
        let labels: Keys = meta::labels(meta);
        Self {
            name: meta::text(meta.name.as_ref()),
            uid: meta::text(meta.uid.as_ref()),
            resource_version: meta::text(meta.resource_version.as_ref()),
            subnet: SmolStr::new(&spec.subnet),
            pod: (!spec.namespace.is_empty())
                .then(|| PodKey::new(spec.namespace.as_str(), spec.pod_name.as_str())),
            node: some(&spec.node_name),
            addresses: DualStack::NONE,
            mac: None,
            pod_type: SmolStr::new(&spec.pod_type),
            reserved: labels
                .get(keys::IP_RESERVED)
                .is_some_and(|v| v == keys::TRUE),
            owner: meta
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.kind == "Node")
                .map(|owner| SmolStr::new(&owner.uid)),
            finalizer: meta
                .finalizers
                .iter()
                .flatten()
                .any(|held| held == keys::FINALIZER || held == keys::FINALIZER_OLD),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

impl TryFrom<&Ip> for IpView {
    type Error = IpViewError;

    fn try_from(ip: &Ip) -> Result<Self, IpViewError> {
        let spec = &ip.spec;
        let mut view = Self::without_addresses(ip);
        let name = &view.name;

        // `ipAddress` is the oldest field and the one that tools write; the other two repeat it by family.
        let text = match spec.ip_address.as_str() {
            "" => format!("{},{}", spec.v4_ip_address, spec.v6_ip_address),
            text => text.to_owned(),
        };
        let addresses = parse_addresses(&text).map_err(|source| IpViewError::Address {
            name: name.clone(),
            source,
        })?;
        let mac = match spec.mac_address.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|source| IpViewError::Mac {
                name: name.clone(),
                source,
            })?),
        };

        (view.addresses, view.mac) = (addresses, mac);
        Ok(view)
    }
}
