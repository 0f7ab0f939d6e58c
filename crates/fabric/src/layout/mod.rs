//! Which Subnets are in force, and which of them each namespace has: everything that follows from Subnets, Vpcs,
//! namespaces, node addresses and settings, but not from pods.
//!
//! It is derived as a whole whenever one of these changes (rarely), without memory of how they came to be. That makes
//! the answer independent of the order of events. What must survive a bad edit, the last good spec of a Subnet, is an
//! input like the others ([`Accepted`]).
//!
//! Conflicts are settled by seniority: a Subnet keeps what was accepted before; among newcomers the older object wins,
//! then the smaller name.

mod claims;
mod draft;
mod names;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::v1::{SubnetSpec, reason};
use api::view::node_port_name;
use net::DualStack;
use smol_str::SmolStr;

use crate::problem::{Kind, ObjectRef, Problem, reason as ours};
use crate::record::{NamespaceRecord, SubnetRecord, VpcRecord};
use crate::spec::{Effective, Memo};
use crate::{Accepted, Config, Shared};
use claims::{Claims, ports};
use draft::{Draft, grant, nodes_of_ports};
pub(crate) use names::Ambiguous;
use namespaces::namers;

/// What there is to know about one Subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct SubnetState {
    /// The values in force; `None` if there are none, and then the Subnet has no rows and no pods.
    pub in_force: Option<Shared<Effective>>,
    /// The spec that `in_force` was read from, as it will be accepted.
    pub spec: Option<Shared<SubnetSpec>>,
    /// What the object's spec should be: defaults and the owner's values filled in, or as it is if it is not valid.
    pub wanted: Shared<SubnetSpec>,
    /// Why the object's own spec is not in force.
    pub refused: Option<Problem>,
    /// Other things that its owner, or the owner of another object, should know.
    pub problems: Vec<Problem>,
    /// Namespaces that name it by annotation, sorted.
    pub namers: Vec<SmolStr>,
    /// The namespaces that `spec` has because they name it, see [`Accepted::namers`].
    pub accepted_namers: Vec<SmolStr>,
    /// Whether it was made from annotations, and not taken over since.
    pub marked: bool,
    /// The namespace that decides while the mark stands.
    pub owner: Option<SmolStr>,
    /// Marked, and nobody wants it any more.
    pub abandoned: bool,
    /// A deletion was asked for: no new pods.
    pub deleting: bool,
}

/// What there is to know about one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceState {
    /// Subnets in force, in order of preference.
    pub subnets: Vec<SmolStr>,
    /// Why pods of the namespace must wait; only if `subnets` is empty.
    pub waiting: Option<Problem>,
    /// Things that the namespace's owner should know.
    pub problems: Vec<Problem>,
    /// Subnets to make from its annotations: names and specs.
    pub create: Vec<(SmolStr, SubnetSpec)>,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub subnets: BTreeMap<SmolStr, SubnetState>,
    pub namespaces: BTreeMap<SmolStr, NamespaceState>,
    /// Subnets bound by their own `namespaces`, by namespace. Sorted.
    bound: BTreeMap<SmolStr, Vec<SmolStr>>,
    /// Subnets with `namespaceSelectors`.
    selecting: Vec<SmolStr>,
    /// Subnets that namespaces ask for and that cannot be made, by switch.
    failed: BTreeMap<SmolStr, Problem>,
    /// Subnets that are to be made, by the namespace in charge.
    creations: BTreeMap<SmolStr, Vec<(SmolStr, SubnetSpec)>>,
    /// Whose names are taken.
    pub(crate) ambiguous: Ambiguous,
    /// Nodes whose port has the name of a Subnet's port, and so cannot be made.
    pub blocked_nodes: BTreeMap<SmolStr, Problem>,
    /// Ports of Subnets that a pod's could be called like, which has a dot in its name. By port, with the Subnet.
    pub(crate) subnet_ports: BTreeMap<SmolStr, SmolStr>,
    /// Nodes whose address lies in a Subnet in force.
    pub node_conflicts: BTreeMap<SmolStr, Problem>,
}

/// What a layout is derived from.
pub(crate) struct Inventory<'a> {
    pub config: &'a Config,
    pub subnets: &'a BTreeMap<SmolStr, SubnetRecord>,
    pub namespaces: &'a BTreeMap<SmolStr, NamespaceRecord>,
    pub vpcs: &'a BTreeMap<SmolStr, VpcRecord>,
    /// Nodes, with their internal addresses.
    pub nodes: &'a BTreeMap<SmolStr, DualStack<IpAddr>>,
    /// Nodes by their internal addresses.
    pub nodes_by_address: &'a BTreeMap<IpAddr, BTreeSet<SmolStr>>,
    /// The ledger of accepted specs.
    pub accepted: &'a BTreeMap<SmolStr, Accepted>,
    /// Whether addresses of the Subnet are given out.
    pub occupied: &'a dyn Fn(&str) -> bool,
}

impl Layout {
    pub(crate) fn derive(inventory: &Inventory<'_>, memo: &mut Memo) -> Self {
        let mut layout = Self::default();
        let namers = namers(inventory);
        let mut drafts: BTreeMap<&SmolStr, Draft> = inventory
            .subnets
            .iter()
            .map(|(name, record)| (name, Draft::of(name, record, &namers, inventory, memo)))
            .collect();
        memo.retain(|name| inventory.subnets.contains_key(name));
        let (mut claims, seniority) = grant(&mut drafts, inventory);
        let granted = seniority
            .iter()
            .filter(|name| drafts[**name].in_force.is_some());
        layout.ambiguous = Ambiguous::find(granted.copied(), inventory.nodes.keys());
        layout.find_node_conflicts(&claims, inventory);
        for (name, draft) in drafts {
            layout.bind(name, &draft);
            layout.subnets.insert(name.clone(), draft.into_state());
        }
        layout.find_taken_names(inventory);
        layout.plan_creations(&namers, &mut claims, inventory);
        for name in inventory.namespaces.keys() {
            let state = layout.namespace(name, inventory);
            layout.namespaces.insert(name.clone(), state);
        }
        layout
    }

    /// Derives one namespace anew; enough if it has no inputs and had none.
    pub(crate) fn derive_namespace(&mut self, name: &SmolStr, inventory: &Inventory<'_>) {
        if inventory.namespaces.contains_key(name) {
            let state = self.namespace(name, inventory);
            self.namespaces.insert(name.clone(), state);
        } else {
            self.namespaces.remove(name);
        }
    }

    fn bind(&mut self, name: &SmolStr, draft: &Draft) {
        let spec = match &draft.in_force {
            Some((_, spec)) => spec,
            None => &draft.wanted,
        };
        for namespace in &draft.namespaces {
            self.bound
                .entry(namespace.clone())
                .or_default()
                .push(name.clone());
        }
        if !spec.namespace_selectors.is_empty() {
            self.selecting.push(name.clone());
        }
    }

    fn find_taken_names(&mut self, inventory: &Inventory<'_>) {
        for (subnet, state) in &self.subnets {
            let Some(effective) = state.in_force.as_deref() else {
                continue;
            };
            let dotted = ports(effective).filter(|port| port.contains('.'));
            self.subnet_ports
                .extend(dotted.map(|port| (port, subnet.clone())));
            for node in nodes_of_ports(effective) {
                if !inventory.nodes.contains_key(&node) {
                    continue;
                }
                let problem = Problem::new(
                    ObjectRef::cluster(Kind::Node, node.clone()),
                    ours::NAME_TAKEN,
                    format!(
                        "the node's port would be called {:?} like that of Subnet {subnet:?}, which was there first; delete the Subnet or give the node another name",
                        node_port_name(&node)
                    ),
                );
                self.blocked_nodes.insert(node, problem);
            }
        }
    }

    fn find_node_conflicts(&mut self, claims: &Claims, inventory: &Inventory<'_>) {
        for (address, nodes) in inventory.nodes_by_address {
            let Some((cidr, subnet)) = claims.holding(*address, inventory.config) else {
                continue;
            };
            for node in nodes {
                let problem = Problem::new(
                    ObjectRef::cluster(Kind::Node, node.clone()),
                    reason::NODE_ADDRESS_CONFLICT,
                    format!(
                        "the node's address {address} lies in the CIDR {cidr} of Subnet {subnet:?}: pods cannot tell it from a pod. Give the node or the Subnet another address"
                    ),
                );
                self.node_conflicts.entry(node.clone()).or_insert(problem);
            }
        }
    }
}

pub(crate) fn subnet_ref(name: &str) -> ObjectRef {
    ObjectRef::cluster(Kind::Subnet, name)
}

pub(crate) fn namespace_ref(name: &str) -> ObjectRef {
    ObjectRef::cluster(Kind::Namespace, name)
}
