//! Taking in changes: views, indexes, and the units that they alter at once.

use std::collections::{BTreeMap, BTreeSet};

use api::view::{NodeView, PodKey, PodView, node_port_name};
use smol_str::SmolStr;

use super::{Dirty, World, gateway};
use crate::input::{Change, PortLease, PortName, PortOwner, Unit};
use crate::record::{NamespaceRecord, SubnetRecord, VpcRecord};
use crate::spec::Memo;

impl World {
    pub(super) fn absorb(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Pod(key, pod) => self.set_pod(key, pod.map(|pod| *pod), dirty),
            Change::Lease(port, lease) => self.set_lease(&port, lease, dirty),
            Change::Node(name, node) => self.set_node(name, node.map(|node| *node), dirty),
            Change::Namespace(name, view) => {
                self.set_namespace(name, view.map(|view| NamespaceRecord::of(*view)), dirty);
            }
            Change::Subnet(name, subnet) => {
                self.set_subnet(name, subnet.map(|subnet| SubnetRecord::of(&subnet)), dirty);
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
                    self.memo = Memo::default();
                    dirty.extend(self.units());
                    self.stale = true;
                }
            }
        }
    }

    fn set_subnet(&mut self, name: SmolStr, mut record: Option<SubnetRecord>, dirty: &mut Dirty) {
        let Some(new) = &mut record else {
            self.accepted.remove(&name);
            if self.subnets.remove(&name).is_some() {
                dirty.extend([Unit::Subnet(name), Unit::Global]);
                self.stale = true;
            }
            return;
        };
        // Once the ledger has the Subnet, its annotation is only our own words come back.
        let ledger = self.accepted.get(&name);
        if ledger.is_some_and(|ledger| ledger.uid == new.uid) {
            new.accepted = None;
        }
        if replace(&mut self.subnets, name.clone(), record) {
            dirty.extend([Unit::Subnet(name), Unit::Global]);
            self.stale = true;
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
        for subnet in [was, is].into_iter().flatten() {
            // One that is to go names those that keep it.
            if self
                .subnets
                .get(subnet)
                .is_some_and(|record| record.deleting)
            {
                dirty.insert(Unit::Subnet(subnet.clone()));
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

    /// A Subnet that is to go, or to have other addresses, waits for its last address; others do not mind.
    fn occupancy_changed(&mut self, subnet: SmolStr, dirty: &mut Dirty) {
        if let Some(record) = self.subnets.get(&subnet) {
            let accepted = self.accepted.get(&subnet).or(record.accepted.as_ref());
            let state = self.layout.subnets.get(&subnet);
            let as_accepted = state.is_some_and(|state| {
                let spec = state.spec.as_deref();
                state.refused.is_none()
                    && accepted.is_none_or(|accepted| Some(&accepted.spec) == spec)
            });
            self.stale |= record.deleting || !as_accepted;
        }
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
            self.ports_on_node_are_dirty(&name, dirty);
            // A pod whose port has the same name must give way, or may come back.
            let port = node_port_name(&name);
            if self.pod_of_port(&port).is_some() {
                dirty.insert(Unit::Port(port));
            }
        }
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
    }

    pub(super) fn ports_on_node_are_dirty(&self, node: &str, dirty: &mut Dirty) {
        let ports = self.pods_on_node(node).map(PodKey::port_name);
        dirty.extend(ports.map(Unit::Port));
    }

    pub(super) fn node_is_dirty(&self, node: &SmolStr, dirty: &mut Dirty) {
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
