//! Keeping the layout up to date, and the units that depend on it.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::{Dirty, World, gateway};
use crate::input::Unit;
use crate::layout::{Inventory, Layout};
use crate::spec::Effective;

impl World {
    /// Brings the layout up to date. Whether Subnets came out otherwise than before.
    pub(super) fn refresh(&mut self, dirty: &mut Dirty) -> bool {
        let namespaces = std::mem::take(&mut self.stale_namespaces);
        if std::mem::take(&mut self.stale) {
            self.unsettled = true;
            let mut memo = std::mem::take(&mut self.memo);
            let new = {
                let occupied = |subnet: &str| self.is_occupied(subnet);
                Layout::derive(&self.inventory(&occupied), &mut memo)
            };
            self.memo = memo;
            let old = std::mem::replace(&mut self.layout, new);
            self.compare(&old, dirty);
            return old.subnets != self.layout.subnets;
        }
        if !namespaces.is_empty() {
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
        false
    }

    fn inventory<'a>(&'a self, occupied: &'a dyn Fn(&str) -> bool) -> Inventory<'a> {
        Inventory {
            config: &self.config,
            subnets: &self.subnets,
            namespaces: &self.namespaces,
            vpcs: &self.vpcs,
            nodes: &self.node_addresses,
            nodes_by_address: &self.nodes_by_address,
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
                .and_then(|state| state.in_force.as_deref());
            let is = new
                .subnets
                .get(name)
                .and_then(|state| state.in_force.as_deref());
            if was != is {
                self.subnet_moved(name, was, is, dirty);
            }
        }
        let namespaces = differing(&old.namespaces, &new.namespaces);
        dirty.extend(namespaces.cloned().map(Unit::Namespace));
        let (was, is) = (&old.ambiguous, &new.ambiguous);
        for subnet in was.subnets.symmetric_difference(&is.subnets) {
            self.groups_renamed(subnet, dirty);
        }
        for node in was.nodes.symmetric_difference(&is.nodes) {
            self.node_is_dirty(node, dirty);
            self.ports_on_node_are_dirty(node, dirty);
        }
        let blocked = differing(&old.blocked_nodes, &new.blocked_nodes);
        dirty.extend(blocked.cloned().map(Unit::Node));
        // A pod whose port has the name of a Subnet's must give way, or may come back.
        let ports = differing(&old.subnet_ports, &new.subnet_ports);
        let ports = ports.filter(|port| self.pod_of_port(port).is_some());
        dirty.extend(ports.cloned().map(Unit::Port));
        let nodes = differing(&old.node_conflicts, &new.node_conflicts);
        dirty.extend(nodes.cloned().map(Unit::Node));
    }

    /// Gateways of a Subnet and the ports that are members of their groups.
    fn groups_renamed(&self, subnet: &SmolStr, dirty: &mut Dirty) {
        dirty.extend(self.nodes.keys().map(|node| gateway(subnet, node)));
        dirty.extend(self.ports_of_subnet(subnet).cloned().map(Unit::Port));
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
            let distributed = |subnet: &Effective| subnet.has_distributed_gateway(&self.config);
            if [was, is].into_iter().flatten().any(distributed) {
                self.groups_renamed(name, dirty);
            } else {
                dirty.extend(self.ports_of_subnet(name).cloned().map(Unit::Port));
            }
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
            // Whose pods have a family that the nodes have not.
            dirty.extend(self.subnets.keys().cloned().map(Unit::Subnet));
        }
        if *name == self.config.default_subnet.name {
            dirty.insert(Unit::Vpc(self.config.cluster_router.clone()));
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
