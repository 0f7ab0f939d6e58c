//! The World: narrow, indexed views of everything that the network follows from.
//!
//! ```text
//! Change ─> absorb: views and indexes ─> (if Subnets, Vpcs, namespaces, node addresses or settings changed) Layout
//!                        │                                                      │
//!                        └───────────────> dirty units <── what the Layout says otherwise than before
//! ```
//!
//! A change of a pod touches its own port alone. Nothing here remembers how the present state came to be: a World that
//! is filled anew from the same objects and the same ledger compiles to the same network.

mod absorb;
mod derive;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::v1::SubnetSpec;
use api::view::{NodeView, PodKey, PodView};
use net::DualStack;
use smol_str::SmolStr;

use crate::Config;
use crate::input::{Accepted, Change, PortLease, PortName, PortOwner, Unit};
use crate::layout::Layout;
use crate::record::{NamespaceRecord, SubnetRecord, VpcRecord};
use crate::spec::Memo;

/// See the [module](self). One task owns it.
#[derive(Clone, Debug, Default)]
pub struct World {
    config: Config,
    pods: BTreeMap<PodKey, PodView>,
    nodes: BTreeMap<SmolStr, NodeView>,
    namespaces: BTreeMap<SmolStr, NamespaceRecord>,
    subnets: BTreeMap<SmolStr, SubnetRecord>,
    vpcs: BTreeMap<SmolStr, VpcRecord>,
    leases: BTreeMap<PortName, PortLease>,
    /// Ledger of the specs that were last found good; [`World::settle`] keeps it.
    accepted: BTreeMap<SmolStr, Accepted>,

    /// Pods by `spec.nodeName`, kept by `set_pod`.
    pods_by_node: BTreeMap<SmolStr, BTreeSet<PodKey>>,
    /// Leases by Subnet, kept by `set_lease`.
    leases_by_subnet: BTreeMap<SmolStr, BTreeSet<PortName>>,
    /// Internal addresses of nodes, kept by `set_node`.
    node_addresses: BTreeMap<SmolStr, DualStack<IpAddr>>,

    /// Nodes by internal address, kept by `set_node`. As a rule one each.
    nodes_by_address: BTreeMap<IpAddr, BTreeSet<SmolStr>>,

    /// Derived from the above by `refresh`.
    layout: Layout,
    /// What specs mean; only a shortcut. Dropped when the settings change.
    memo: Memo,
    /// The layout may be out of date, whole or in these namespaces. Set by `absorb`.
    stale: bool,
    stale_namespaces: BTreeSet<SmolStr>,
    /// Something came in since the last [`World::settle`].
    unsettled: bool,
}

type Dirty = BTreeSet<Unit>;

impl World {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            unsettled: true,
            ..Self::default()
        }
    }

    /// Takes in one change; the units that it may have altered, sorted.
    pub fn apply(&mut self, change: Change) -> Vec<Unit> {
        self.apply_all([change]).into_iter().collect()
    }

    /// Takes in many changes at once, which is faster than one by one: the layout is derived a single time.
    pub fn apply_all(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<Unit> {
        let mut dirty = Dirty::new();
        for change in changes {
            self.absorb(change, &mut dirty);
        }
        self.refresh(&mut dirty);
        dirty
    }

    /// Accepts the Subnet specs that are in force now: a later edit that is not valid leaves them in force.
    ///
    /// To be called when all lists are complete and after each change from then on; it costs nothing if no Subnet,
    /// namespace, Vpc, node address or setting changed. Returns units to compile again, as a rule none. What was accepted
    /// is persisted by the annotation that compiling the Subnet asks for.
    pub fn settle(&mut self) -> Vec<Unit> {
        let mut dirty = Dirty::new();
        // A grant can set free what another one waits for; each round accepts at least one more, or ends.
        while std::mem::take(&mut self.unsettled) {
            let (mut changed, mut waited_for) = (false, !self.layout.ambiguous.subnets.is_empty());
            for (name, state) in &self.layout.subnets {
                let (Some(record), Some(spec)) = (self.subnets.get(name), &state.spec) else {
                    waited_for = true;
                    continue;
                };
                waited_for |= state.refused.is_some();
                let same = self.accepted.get(name).is_some_and(|accepted| {
                    accepted.uid == record.uid
                        && accepted.namers == state.accepted_namers
                        && accepted.spec == **spec
                });
                if !same {
                    let accepted = Accepted {
                        uid: record.uid.clone(),
                        spec: SubnetSpec::clone(spec),
                        namers: state.accepted_namers.clone(),
                    };
                    self.accepted.insert(name.clone(), accepted);
                    changed = true;
                    waited_for |= state.marked;
                }
            }
            // Where every wish is granted, what was accepted before decides nothing.
            if changed && waited_for {
                self.stale = true;
                self.unsettled = self.refresh(&mut dirty);
            }
        }
        dirty.into_iter().collect()
    }

    /// The ledger of accepted specs, to seed another World with ([`Change::Accepted`]).
    pub fn accepted(&self) -> &BTreeMap<SmolStr, Accepted> {
        &self.accepted
    }

    /// Every unit that there is: what a full recompute compiles, in the order of their names.
    pub fn units(&self) -> Vec<Unit> {
        let mut units = Dirty::from([Unit::Global, Unit::Vpc(self.config.cluster_router.clone())]);
        units.extend(self.vpcs.keys().cloned().map(Unit::Vpc));
        let routed = self.subnets().filter(|subnet| subnet.is_ovn());
        units.extend(routed.map(|subnet| Unit::Vpc(subnet.vpc.clone())));
        units.extend(self.subnets.keys().cloned().map(Unit::Subnet));
        units.extend(self.nodes.keys().cloned().map(Unit::Node));
        units.extend(self.namespaces.keys().cloned().map(Unit::Namespace));
        for subnet in self
            .subnets()
            .filter(|subnet| subnet.has_distributed_gateway(&self.config))
        {
            units.extend(self.nodes.keys().map(|node| gateway(&subnet.name, node)));
        }
        units.extend(
            self.leases
                .iter()
                .filter(|(_, lease)| matches!(lease.owner, PortOwner::Pod(_)))
                .map(|(port, _)| Unit::Port(port.clone())),
        );
        units.extend(
            self.pods
                .values()
                .filter(|pod| !pod.host_network)
                .map(|pod| Unit::Port(pod.port_name())),
        );
        units.into_iter().collect()
    }
}

pub(crate) fn gateway(subnet: &SmolStr, node: &SmolStr) -> Unit {
    Unit::Gateway {
        subnet: subnet.clone(),
        node: node.clone(),
    }
}
