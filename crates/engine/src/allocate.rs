//! Which addresses a port gets.

use std::net::IpAddr;

use api::keys;
use api::view::PodKey;
use fabric::{ObjectRef, PortName, PortOwner, Problem};
use ipam::{Request, Want};
use net::{DualStack, Family, HasFamily, RangeSet};
use smol_str::SmolStr;

use crate::Engine;
use crate::event::{Kind, ObjectKey};

impl Engine {
    /// Whether what the Subnet's object must carry before addresses of it are given out is stored: our finalizer, and
    /// the spec that is in force (a restart would go by an older one).
    pub(crate) fn is_stored(&self, subnet: &SmolStr) -> bool {
        let key = ObjectKey::cluster(Kind::Subnet, subnet.clone());
        match (self.subnets.get(subnet), self.states.subnets.get(subnet)) {
            (Some(object), Some(writes)) => self.subnet_patch(&key, object, writes).is_none(),
            _ => false,
        }
    }

    /// Whether a port has to wait for a write to a Subnet that it could get addresses of; that is no problem of it.
    pub(crate) fn waits_for_subnet(&self, owner: &PortOwner) -> bool {
        match owner {
            PortOwner::Pod(key) => self
                .world
                .candidates(key)
                .is_ok_and(|all| all.iter().any(|subnet| !self.is_stored(&subnet.name))),
            PortOwner::Node(_) => {
                let join = &self.config.fabric.join.name;
                self.world.subnet(join).is_some() && !self.is_stored(join)
            }
        }
    }

    /// A node's lease grows when the join Subnet does: nodes need an address of each family. (Pods keep what they have.)
    pub(crate) fn grow(&mut self, name: &PortName, owner: &PortOwner) {
        let join = &self.config.fabric.join.name;
        if let PortOwner::Node(_) = owner
            && self.is_active()
            && let (Some(subnet), Some(lease)) = (self.world.subnet(join), self.ipam.lease(name))
            && lease.subnet == *join
            && subnet
                .cidrs
                .families()
                .any(|family| lease.addresses.get(family).is_none())
            && self.is_stored(join)
        {
            // Nothing left: the Subnet's figures say so, and the node works with what it has.
            let _ = self
                .ipam
                .allocate(join.clone(), name.clone(), &Request::any());
        }
    }

    /// Takes addresses in memory; returns the subnet.
    pub(crate) fn allocate(
        &mut self,
        name: &PortName,
        owner: &PortOwner,
    ) -> Result<SmolStr, Problem> {
        match owner {
            PortOwner::Pod(key) => self.allocate_pod(name, key),
            PortOwner::Node(node) => self.allocate_node(name, node),
        }
    }

    fn allocate_pod(&mut self, name: &PortName, key: &PodKey) -> Result<SmolStr, Problem> {
        let wish = self.world.request(key)?;
        let candidates: Vec<SmolStr> = self
            .world
            .candidates(key)?
            .into_iter()
            .map(|s| s.name.clone())
            .collect();
        let choices = if wish.choices.is_empty() {
            vec![DualStack::NONE]
        } else {
            wish.choices
        };
        let mut first_error = None;
        for subnet in &candidates {
            for choice in &choices {
                let want = |family: Family| match choice.get(family) {
                    Some(address) => Want::Static(*address),
                    None if wish.family.is_none_or(|only| only == family) => Want::Any,
                    None => Want::None,
                };
                let request = Request {
                    v4: want(Family::V4),
                    v6: want(Family::V6),
                    mac: wish.mac,
                    skip: Some(&self.node_addresses),
                };
                match self.ipam.allocate(subnet.clone(), name.clone(), &request) {
                    Ok(_) => return Ok(subnet.clone()),
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        let message = first_error.map_or_else(
            || "the pod has no Subnet".to_owned(),
            |error| error.to_string(),
        );
        Err(Problem::new(
            ObjectRef::pod(key),
            api::v1::reason::ACQUIRE_ADDRESS_FAILED,
            message,
        ))
    }

    /// A node keeps the join address that its annotations name, if it can.
    fn allocate_node(&mut self, name: &PortName, node: &SmolStr) -> Result<SmolStr, Problem> {
        let join = self.config.fabric.join.name.clone();
        if self.world.subnet(&join).is_none() {
            let message = format!("the join Subnet {join} is not in effect yet");
            let node = ObjectRef::cluster(fabric::Kind::Node, node.clone());
            return Err(Problem::new(
                node,
                fabric::problem::reason::NO_SUBNET,
                message,
            ));
        }
        let view = self.world.node(node);
        let told = view
            .filter(|view| view.annotation(keys::ALLOCATED) == Some(keys::TRUE))
            .and_then(|view| {
                let addresses = view
                    .annotation(keys::IP_ADDRESS)?
                    .parse::<DualStack<IpAddr>>()
                    .ok()?;
                let mac = view
                    .annotation(keys::MAC_ADDRESS)
                    .and_then(|text| text.parse().ok());
                Some(Request {
                    mac,
                    ..Request::fixed(addresses)
                })
            });
        if let Some(request) = told
            && self
                .ipam
                .allocate(join.clone(), name.clone(), &request)
                .is_ok()
        {
            return Ok(join);
        }
        match self
            .ipam
            .allocate(join.clone(), name.clone(), &Request::any())
        {
            Ok(_) => Ok(join),
            Err(error) => Err(Problem::new(
                ObjectRef::cluster(fabric::Kind::Node, node.clone()),
                api::v1::reason::ACQUIRE_ADDRESS_FAILED,
                error.to_string(),
            )),
        }
    }

    /// Pods never get a node's address. Nor, while a leader takes over, one that a port has.
    pub(crate) fn note_node_addresses(&mut self) {
        let mut sets: DualStack<RangeSet> = DualStack::NONE;
        for address in self
            .world
            .nodes()
            .flat_map(|node| node.internal_ips.into_iter())
            .chain(self.takeover.addresses())
        {
            let family = address.family();
            if sets.get(family).is_none() {
                sets.set(family, Some(RangeSet::new(family)));
            }
            if let Some(set) = sets.get_mut(family) {
                set.insert(address);
            }
        }
        self.node_addresses = sets;
    }
}
