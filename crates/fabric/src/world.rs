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

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::view::{NamespaceView, NodeView, PodKey, PodView, node_port_name};
use net::DualStack;
use smol_str::SmolStr;

use crate::Config;
use crate::input::{Accepted, Change, PortLease, PortName, PortOwner, Unit};
use crate::layout::{Inventory, Layout, NamespaceState, SubnetState};
use crate::record::{NamespaceRecord, SubnetRecord, VpcRecord};
use crate::spec::{Effective, Role};

/// See the [module](self). One task owns it.
#[derive(Clone, Debug, Default)]
pub struct World {
    config: Config,
    pub(crate) pods: BTreeMap<PodKey, PodView>,
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
            let mut changed = false;
            for (name, state) in &self.layout.subnets {
                let (Some(record), Some(spec)) = (self.subnets.get(name), &state.spec) else {
                    continue;
                };
                let accepted = Accepted {
                    uid: record.uid.clone(),
                    spec: spec.clone(),
                    namers: state.accepted_namers.clone(),
                };
                if self.accepted.get(name) != Some(&accepted) {
                    self.accepted.insert(name.clone(), accepted);
                    changed = true;
                }
            }
            if changed {
                let before = self.layout.clone();
                self.stale = true;
                self.refresh(&mut dirty);
                self.unsettled = self.layout != before;
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

    // Taking in

    fn absorb(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Pod(key, pod) => self.set_pod(key, pod.map(|pod| *pod), dirty),
            Change::Lease(port, lease) => self.set_lease(&port, lease, dirty),
            Change::Node(name, node) => self.set_node(name, node.map(|node| *node), dirty),
            Change::Namespace(name, view) => {
                self.set_namespace(name, view.map(|view| NamespaceRecord::of(*view)), dirty);
            }
            Change::Subnet(name, subnet) => {
                let record = subnet.map(|subnet| SubnetRecord::of(&subnet));
                if record.is_none() {
                    self.accepted.remove(&name);
                }
                if replace(&mut self.subnets, name.clone(), record) {
                    dirty.extend([Unit::Subnet(name), Unit::Global]);
                    self.stale = true;
                }
            }
            Change::Vpc(name, vpc) => {
                let record = vpc.map(|vpc| VpcRecord::of(&vpc));
                if replace(&mut self.vpcs, name.clone(), record) {
                    dirty.extend([Unit::Vpc(name), Unit::Global]);
                    self.stale = true;
                }
            }
            Change::Accepted(name, accepted) => {
                self.stale |= replace(&mut self.accepted, name, accepted.map(|accepted| *accepted));
            }
            Change::Config(config) => {
                if self.config != *config {
                    dirty.extend(self.units());
                    self.config = *config;
                    dirty.extend(self.units());
                    self.stale = true;
                }
            }
        }
    }

    fn set_pod(&mut self, key: PodKey, mut pod: Option<PodView>, dirty: &mut Dirty) {
        // The resource version moves with every word of a status; it means nothing to the network.
        let version = pod.as_ref().map(|pod| pod.resource_version.clone());
        let old = self.pods.get(&key);
        if let (Some(old), Some(new)) = (old, &mut pod) {
            new.resource_version.clone_from(&old.resource_version);
        }
        let same = old == pod.as_ref();
        if let (Some(pod), Some(version)) = (&mut pod, version) {
            pod.resource_version = version;
        }
        let (was, is) = (
            old.and_then(|pod| pod.node.clone()),
            pod.as_ref().and_then(|pod| pod.node.clone()),
        );
        if was != is {
            if let Some(node) = was {
                index_remove(&mut self.pods_by_node, &node, &key);
            }
            if let Some(node) = is {
                self.pods_by_node
                    .entry(node)
                    .or_default()
                    .insert(key.clone());
            }
        }
        if !same {
            dirty.insert(Unit::Port(key.port_name()));
        }
        match pod {
            Some(pod) => self.pods.insert(key, pod),
            None => self.pods.remove(&key),
        };
    }

    fn set_lease(&mut self, port: &PortName, lease: Option<PortLease>, dirty: &mut Dirty) {
        if self.leases.get(port) == lease.as_ref() {
            return;
        }
        let old = self.leases.remove(port);
        let (was, is) = (
            old.as_ref().map(|lease| &lease.subnet),
            lease.as_ref().map(|lease| &lease.subnet),
        );
        if was != is {
            if let Some(subnet) = was {
                index_remove(&mut self.leases_by_subnet, subnet, port);
                if !self.is_occupied(subnet) {
                    self.occupancy_changed(subnet.clone(), dirty);
                }
            }
            if let Some(subnet) = is {
                let ports = self.leases_by_subnet.entry(subnet.clone()).or_default();
                ports.insert(port.clone());
                if ports.len() == 1 {
                    self.occupancy_changed(subnet.clone(), dirty);
                }
            }
        }
        for owner in [&old, &lease]
            .into_iter()
            .flatten()
            .map(|lease| &lease.owner)
        {
            match owner {
                PortOwner::Pod(_) => {
                    dirty.insert(Unit::Port(port.clone()));
                }
                PortOwner::Node(node) => self.node_is_dirty(node, dirty),
            }
        }
        if let Some(lease) = lease {
            self.leases.insert(port.clone(), lease);
        }
    }

    /// A Subnet that is to go waits for its last address; others do not mind.
    fn occupancy_changed(&mut self, subnet: SmolStr, dirty: &mut Dirty) {
        self.stale |= self
            .subnets
            .get(&subnet)
            .is_some_and(|record| record.deleting);
        dirty.insert(Unit::Subnet(subnet));
    }

    fn set_node(&mut self, name: SmolStr, node: Option<NodeView>, dirty: &mut Dirty) {
        let old = self.nodes.get(&name);
        let appeared = old.is_some() != node.is_some();
        let same = match (old, &node) {
            (Some(old), Some(new)) => {
                let mut old = old.clone();
                old.resource_version.clone_from(&new.resource_version);
                old == *new
            }
            (None, None) => true,
            _ => false,
        };
        let addresses = node.as_ref().map(|node| node.internal_ips);
        if !same {
            let before = self.node_addresses.get(&name).copied().unwrap_or_default();
            for address in before {
                index_remove(&mut self.nodes_by_address, &address, &name);
            }
            for address in addresses.unwrap_or_default() {
                let nodes = self.nodes_by_address.entry(address).or_default();
                nodes.insert(name.clone());
            }
            let shared = before.into_iter().chain(addresses.unwrap_or_default());
            let others = shared.filter_map(|address| self.nodes_by_address.get(&address));
            dirty.extend(others.flatten().cloned().map(Unit::Node));
        }
        self.stale |= replace(&mut self.node_addresses, name.clone(), addresses);
        if !same {
            self.node_is_dirty(&name, dirty);
        }
        if appeared {
            // Memberships in the node's groups come and go with it.
            let ports = self.pods_on_node(&name).map(PodKey::port_name);
            dirty.extend(ports.map(Unit::Port));
        }
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
    }

    fn node_is_dirty(&self, node: &SmolStr, dirty: &mut Dirty) {
        dirty.insert(Unit::Node(node.clone()));
        let subnets = self
            .subnets()
            .filter(|subnet| subnet.has_distributed_gateway(&self.config));
        dirty.extend(subnets.map(|subnet| gateway(&subnet.name, node)));
    }

    fn set_namespace(&mut self, name: SmolStr, record: Option<NamespaceRecord>, dirty: &mut Dirty) {
        let old = self.namespaces.get(&name);
        let silent =
            |record: Option<&NamespaceRecord>| record.is_none_or(|record| record.inputs.is_empty());
        let same_inputs = old.map(|old| &old.inputs) == record.as_ref().map(|new| &new.inputs);
        if !(same_inputs || silent(old) && silent(record.as_ref())) {
            self.stale = true;
        }
        let mut versioned = old.cloned();
        if let (Some(old), Some(new)) = (&mut versioned, &record) {
            old.view
                .resource_version
                .clone_from(&new.view.resource_version);
        }
        if versioned != record {
            dirty.insert(Unit::Namespace(name.clone()));
            self.stale_namespaces.insert(name.clone());
        }
        replace(&mut self.namespaces, name, record);
    }

    // Deriving

    fn refresh(&mut self, dirty: &mut Dirty) {
        let namespaces = std::mem::take(&mut self.stale_namespaces);
        if std::mem::take(&mut self.stale) {
            self.unsettled = true;
            let new = {
                let occupied = |subnet: &str| self.is_occupied(subnet);
                Layout::derive(&self.inventory(&occupied))
            };
            let old = std::mem::replace(&mut self.layout, new);
            self.compare(&old, dirty);
        } else if !namespaces.is_empty() {
            let mut layout = std::mem::take(&mut self.layout);
            {
                let occupied = |subnet: &str| self.is_occupied(subnet);
                let inventory = self.inventory(&occupied);
                for name in &namespaces {
                    layout.derive_namespace(name, &inventory);
                }
            }
            self.layout = layout;
        }
    }

    fn inventory<'a>(&'a self, occupied: &'a dyn Fn(&str) -> bool) -> Inventory<'a> {
        Inventory {
            config: &self.config,
            subnets: &self.subnets,
            namespaces: &self.namespaces,
            vpcs: &self.vpcs,
            nodes: &self.node_addresses,
            accepted: &self.accepted,
            occupied,
        }
    }

    /// The units that a new layout alters.
    fn compare(&self, old: &Layout, dirty: &mut Dirty) {
        let new = &self.layout;
        for name in differing(&old.subnets, &new.subnets) {
            dirty.insert(Unit::Subnet(name.clone()));
            let was = old
                .subnets
                .get(name)
                .and_then(|state| state.in_force.as_ref());
            let is = new
                .subnets
                .get(name)
                .and_then(|state| state.in_force.as_ref());
            if was != is {
                self.subnet_moved(name, was, is, dirty);
            }
        }
        let namespaces = differing(&old.namespaces, &new.namespaces);
        dirty.extend(namespaces.cloned().map(Unit::Namespace));
        let nodes = differing(&old.node_conflicts, &new.node_conflicts);
        dirty.extend(nodes.cloned().map(Unit::Node));
    }

    /// What else depends on the values of a Subnet that are in force.
    fn subnet_moved(
        &self,
        name: &SmolStr,
        was: Option<&Effective>,
        is: Option<&Effective>,
        dirty: &mut Dirty,
    ) {
        let anchor = |subnet: &Effective| {
            (
                subnet.vpc.clone(),
                subnet.is_ovn(),
                subnet.has_distributed_gateway(&self.config),
                subnet.cidrs.protocol(),
            )
        };
        if was.map(anchor) != is.map(anchor) {
            dirty.extend(
                [was, is]
                    .into_iter()
                    .flatten()
                    .map(|subnet| Unit::Vpc(subnet.vpc.clone())),
            );
            if [was, is]
                .into_iter()
                .flatten()
                .any(|subnet| subnet.has_distributed_gateway(&self.config))
            {
                dirty.extend(self.nodes.keys().map(|node| gateway(name, node)));
            }
            dirty.extend(self.ports_of_subnet(name).cloned().map(Unit::Port));
        }
        // Namespaces are told its CIDR and exclusions.
        let told = self.layout.namespaces.iter();
        let told = told.filter(|(_, state)| state.subnets.contains(name));
        dirty.extend(told.map(|(namespace, _)| Unit::Namespace(namespace.clone())));
        if *name == self.config.join.name {
            dirty.insert(Unit::Vpc(self.config.cluster_router.clone()));
            for node in self.nodes.keys() {
                self.node_is_dirty(node, dirty);
            }
        }
        if *name == self.config.default_subnet.name {
            dirty.insert(Unit::Vpc(self.config.cluster_router.clone()));
        }
    }

    // Reading

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pod(&self, key: &PodKey) -> Option<&PodView> {
        self.pods.get(key)
    }

    pub fn pods(&self) -> impl Iterator<Item = &PodView> {
        self.pods.values()
    }

    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values()
    }

    /// The node that has the address. A machine that was installed again under another name may be known by both; the
    /// one that is ready has it.
    pub fn node_at(&self, address: IpAddr) -> Option<&NodeView> {
        let nodes = self.nodes_by_address.get(&address)?;
        nodes
            .iter()
            .filter_map(|name| self.nodes.get(name))
            .min_by_key(|node| !node.ready)
    }

    pub fn namespace(&self, name: &str) -> Option<&NamespaceView> {
        self.namespaces.get(name).map(|record| &record.view)
    }

    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceView> {
        self.namespaces.values().map(|record| &record.view)
    }

    /// The namespace with what its owner asks for.
    pub fn namespace_record(&self, name: &str) -> Option<&NamespaceRecord> {
        self.namespaces.get(name)
    }

    /// What follows for the namespace.
    pub fn namespace_state(&self, name: &str) -> Option<&NamespaceState> {
        self.layout.namespaces.get(name)
    }

    /// The values of a Subnet that are in force.
    pub fn subnet(&self, name: &str) -> Option<&Effective> {
        self.layout.subnets.get(name)?.in_force.as_ref()
    }

    /// All Subnets in force, by name.
    pub fn subnets(&self) -> impl Iterator<Item = &Effective> {
        self.layout
            .subnets
            .values()
            .filter_map(|state| state.in_force.as_ref())
    }

    /// The Subnet as the object has it.
    pub fn subnet_record(&self, name: &str) -> Option<&SubnetRecord> {
        self.subnets.get(name)
    }

    /// All Subnet objects, in force or not.
    pub fn subnet_records(&self) -> impl Iterator<Item = (&SmolStr, &SubnetRecord)> {
        self.subnets.iter()
    }

    /// What follows for the Subnet.
    pub fn subnet_state(&self, name: &str) -> Option<&SubnetState> {
        self.layout.subnets.get(name)
    }

    pub fn vpc(&self, name: &str) -> Option<&VpcRecord> {
        self.vpcs.get(name)
    }

    pub fn vpcs(&self) -> impl Iterator<Item = (&SmolStr, &VpcRecord)> {
        self.vpcs.iter()
    }

    pub fn lease(&self, port: &str) -> Option<&PortLease> {
        self.leases.get(port)
    }

    /// The addresses of a node's `ovn0`, if it has some in the join Subnet.
    pub fn node_lease(&self, node: &str) -> Option<&PortLease> {
        self.leases.get(&node_port_name(node)).filter(|lease| {
            lease.subnet == self.config.join.name
                && matches!(&lease.owner, PortOwner::Node(owner) if owner == node)
        })
    }

    pub fn leases(&self) -> impl Iterator<Item = (&PortName, &PortLease)> {
        self.leases.iter()
    }

    /// Pods whose `spec.nodeName` it is, host-network ones too.
    pub fn pods_on_node(&self, node: &str) -> impl Iterator<Item = &PodKey> {
        self.pods_by_node.get(node).into_iter().flatten()
    }

    pub fn pods_of_namespace(&self, namespace: &str) -> impl Iterator<Item = &PodView> {
        let from = PodKey::new(namespace, "");
        self.pods
            .range(from..)
            .map(|(_, pod)| pod)
            .take_while(move |pod| pod.key.namespace == namespace)
    }

    /// Ports that hold addresses of the Subnet.
    pub fn ports_of_subnet(&self, subnet: &str) -> impl Iterator<Item = &PortName> {
        self.leases_by_subnet.get(subnet).into_iter().flatten()
    }

    /// Whether any address of the Subnet is given out.
    pub fn is_occupied(&self, subnet: &str) -> bool {
        self.leases_by_subnet.contains_key(subnet)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The join Subnet, if it is in force.
    pub(crate) fn join(&self) -> Option<&Effective> {
        self.subnet(&self.config.join.name)
            .filter(|subnet| subnet.role == Role::Join)
    }

    /// Units whose rows a port needs to carry traffic: a pod is `routed` when all of them are in place.
    pub fn units_of_port(&self, port: &str) -> Vec<Unit> {
        let mut units = vec![Unit::Port(port.into())];
        let Some(lease) = self.leases.get(port) else {
            return units;
        };
        let subnet = self.subnet(&lease.subnet);
        units.push(Unit::Subnet(lease.subnet.clone()));
        units.extend(subnet.map(|subnet| Unit::Vpc(subnet.vpc.clone())));
        let node = match &lease.owner {
            PortOwner::Pod(key) => self.pods.get(key).and_then(|pod| pod.node.clone()),
            PortOwner::Node(node) => Some(node.clone()),
        };
        if let Some(node) = node.filter(|node| self.nodes.contains_key(node)) {
            if subnet.is_some_and(|subnet| subnet.has_distributed_gateway(&self.config)) {
                units.push(gateway(&lease.subnet, &node));
            }
            units.push(Unit::Node(node));
        }
        units
    }
}

pub(crate) fn gateway(subnet: &SmolStr, node: &SmolStr) -> Unit {
    Unit::Gateway {
        subnet: subnet.clone(),
        node: node.clone(),
    }
}

/// Puts a value in its place or takes it away; whether that changed anything.
fn replace<V: PartialEq>(map: &mut BTreeMap<SmolStr, V>, key: SmolStr, value: Option<V>) -> bool {
    if map.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
    true
}

fn index_remove<K: Ord, T: Ord>(index: &mut BTreeMap<K, BTreeSet<T>>, key: &K, value: &T) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

/// Keys whose values are not the same in both maps.
fn differing<'a, V: PartialEq>(
    old: &'a BTreeMap<SmolStr, V>,
    new: &'a BTreeMap<SmolStr, V>,
) -> impl Iterator<Item = &'a SmolStr> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    new.iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, _)| key)
        .chain(gone)
}
