//! Reading the World.

use std::net::IpAddr;

use api::view::{NamespaceView, NodeView, PodKey, PodView, node_port_name};
use smol_str::SmolStr;

use super::{World, gateway};
use crate::Config;
use crate::input::{PortLease, PortName, PortOwner, Unit};
use crate::layout::{Layout, NamespaceState, SubnetState};
use crate::record::{NamespaceRecord, SubnetRecord, VpcRecord};
use crate::spec::{Effective, Role};

impl World {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pod(&self, key: &PodKey) -> Option<&PodView> {
        self.pods.get(key)
    }

    pub fn pods(&self) -> impl Iterator<Item = &PodView> {
        self.pods.values()
    }

    /// The pod whose port has this name, if there is one.
    pub(crate) fn pod_of_port(&self, port: &str) -> Option<&PodView> {
        // A namespace has no dot in its name (RFC 1123 label).
        let (pod, namespace) = port.rsplit_once('.')?;
        self.pods.get(&PodKey::new(namespace, pod))
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
        self.layout.subnets.get(name)?.in_force.as_deref()
    }

    /// All Subnets in force, by name.
    pub fn subnets(&self) -> impl Iterator<Item = &Effective> {
        self.layout
            .subnets
            .values()
            .filter_map(|state| state.in_force.as_deref())
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
