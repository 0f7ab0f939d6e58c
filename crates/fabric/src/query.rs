//! What the engine asks about pods and nodes before it gives out addresses, and what it tells them afterwards.

use std::net::IpAddr;

use api::keys;
use api::v1::reason;
use api::view::{PodKey, PodView};
use net::{DualStack, Family, HasFamily, Mac, parse_ip};
use smol_str::{SmolStr, ToSmolStr};

use crate::desired::Patch;
use crate::problem::{Kind, ObjectRef, Problem, reason as ours};
use crate::spec::Effective;
use crate::{PortLease, World};

/// The addresses that a pod asks for by its annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticRequest {
    /// Choices in order of preference (`ip_pool`; a StatefulSet's pod has the one of its ordinal). Empty: any address.
    pub choices: Vec<DualStack<IpAddr>>,
    pub mac: Option<Mac>,
    /// On a dual-stack Subnet, take this family alone (`ip_family`).
    pub family: Option<Family>,
}

impl World {
    /// Whether the pod needs a port: it exists, is not on its node's network, has not ended, has a node, and no port of a
    /// Node or Subnet has the name of its own.
    pub fn wants_port(&self, key: &PodKey) -> bool {
        self.pod(key)
            .is_some_and(|pod| !pod.host_network && pod.node.is_some() && pod.is_alive())
            && self.shadowed(key).is_none()
    }

    /// The Node or Subnet that has a port of the name of the pod's: the Node `a.b` for the pod `node-a` in the namespace
    /// `b`, the Subnet `x.b` in the VPC `v` for the pod `v-x` there. It keeps the name: whoever may make pods in a namespace
    /// must not keep a node out of the cluster, or take a gateway's place.
    fn shadowed(&self, key: &PodKey) -> Option<ObjectRef> {
        let port = key.port_name();
        if let Some(node) = port
            .strip_prefix("node-")
            .filter(|node| self.node(node).is_some())
        {
            return Some(ObjectRef::cluster(Kind::Node, node));
        }
        let subnet = self.layout().subnet_ports.get(&port)?;
        Some(ObjectRef::cluster(Kind::Subnet, subnet.clone()))
    }

    /// The Subnets that a pod may take addresses from, in order of preference. Never empty.
    ///
    /// Err: the pod waits. Ask again when its unit or its namespace's is dirty.
    pub fn candidates(&self, key: &PodKey) -> Result<Vec<&Effective>, Problem> {
        let about = |reason, message| Problem::new(ObjectRef::pod(key), reason, message);
        let Some(pod) = self.pod(key) else {
            return Err(about(ours::NO_SUBNET, "the pod does not exist".to_owned()));
        };
        if let Some(owner) = self.shadowed(key) {
            let message = format!(
                "the pod's port would be called {:?} like that of {owner}; give the pod another name",
                key.port_name()
            );
            return Err(about(ours::NAME_TAKEN, message));
        }
        if let Some(name) = pod.annotation(keys::LOGICAL_SWITCH) {
            return self.annotated(pod, name).map(|subnet| vec![subnet]);
        }
        let Some(state) = self.namespace_state(&key.namespace) else {
            let message = format!("the namespace {:?} is not known yet", key.namespace);
            return Err(about(ours::NO_SUBNET, message));
        };
        let subnets: Vec<&Effective> = state
            .subnets
            .iter()
            .filter_map(|name| self.subnet(name))
            .collect();
        if subnets.is_empty() {
            let message = state
                .waiting
                .as_ref()
                .map_or_else(String::new, |problem| problem.message.clone());
            return Err(about(ours::NO_SUBNET, message));
        }
        Ok(subnets)
    }

    /// The first of [`World::candidates`].
    pub fn subnet_for(&self, key: &PodKey) -> Result<&Effective, Problem> {
        let first = self.candidates(key)?.into_iter().next();
        first.ok_or_else(|| {
            Problem::new(
                ObjectRef::pod(key),
                ours::NO_SUBNET,
                "the namespace has no Subnet",
            )
        })
    }

    /// The Subnet that a pod names itself.
    fn annotated(&self, pod: &PodView, name: &str) -> Result<&Effective, Problem> {
        let about = |reason, message| Problem::new(ObjectRef::pod(&pod.key), reason, message);
        let layout = self.layout();
        if !layout.usable(name) {
            return Err(about(ours::NO_SUBNET, layout.why_unusable(name)));
        }
        // What was allocated before stays; the annotation is the controller's own then. The word of the pod's annotations
        // for it is not enough: whoever makes pods writes them.
        let namespace = &pod.key.namespace;
        let record = self.namespace_record(namespace);
        let holds = |lease: &PortLease| lease.subnet == name;
        let allocated = self.lease(&pod.port_name()).is_some_and(holds);
        if !allocated && !layout.may_use(name, namespace, record) {
            return Err(about(
                ours::SUBNET_NOT_ALLOWED,
                format!(
                    "the annotation {} names the Subnet {name:?}, which is bound to other namespaces; add {namespace:?} to its spec.namespaces, or name another one",
                    keys::LOGICAL_SWITCH
                ),
            ));
        }
        self.subnet(name)
            .ok_or_else(|| about(ours::NO_SUBNET, layout.why_unusable(name)))
    }

    /// The MAC of a Subnet's gateway, which no pod may have.
    pub fn gateway_mac(&self, subnet: &str) -> Option<Mac> {
        let subnet = self.subnet(subnet).filter(|subnet| subnet.is_ovn())?;
        Some(crate::compile::names::gateway_mac(self, subnet))
    }

    /// The row of a Subnet's gateway: the router's port towards its switch.
    pub fn router_port(&self, subnet: &str) -> Option<ovn::RowKey> {
        let subnet = self.subnet(subnet).filter(|subnet| subnet.is_ovn())?;
        let name = crate::compile::names::router_port(&subnet.vpc, &subnet.name);
        Some(ovn::nb::LogicalRouterPort::named(name).into_key())
    }

    /// What a pod asks for; whether it can have it, the allocator knows.
    pub fn request(&self, key: &PodKey) -> Result<StaticRequest, Problem> {
        let Some(pod) = self.pod(key) else {
            return Ok(StaticRequest::default());
        };
        parse_request(pod).map_err(|message| {
            Problem::new(
                ObjectRef::pod(key),
                reason::VALIDATE_POD_NETWORK_FAILED,
                message,
            )
        })
    }

    /// The annotations of a pod whose port is in place. One patch says everything; upstream's keys and forms.
    pub fn pod_annotations(&self, key: &PodKey) -> Option<Patch> {
        let lease = self.lease(&key.port_name())?;
        let subnet = self.subnet(&lease.subnet)?;
        let mut patch = lease_annotations(lease, subnet);
        let mut set = |key, value| patch.insert(SmolStr::new_static(key), Some(value));
        set(keys::LOGICAL_ROUTER, subnet.vpc.clone());
        set(keys::POD_NIC_TYPE, keys::NIC_TYPE_VETH.into());
        set(keys::ROUTED, keys::TRUE.into());
        Some(patch)
    }

    /// The annotations of a node whose port is in place.
    pub fn node_annotations(&self, node: &str) -> Option<Patch> {
        let lease = self.node_lease(node)?;
        let subnet = self.join()?;
        let mut patch = lease_annotations(lease, subnet);
        patch.insert(
            SmolStr::new_static(keys::PORT_NAME),
            Some(api::view::node_port_name(node)),
        );
        Some(patch)
    }
}

fn lease_annotations(lease: &PortLease, subnet: &Effective) -> Patch {
    // A port with one family of a dual-stack Subnet is told about that one alone.
    let held = |family| lease.addresses.get(family).is_some();
    let cidrs = DualStack::from_fn(|f| subnet.cidrs.get(f).copied().filter(|_| held(f)));
    let gateways = DualStack::from_fn(|f| subnet.gateways.get(f).copied().filter(|_| held(f)));
    [
        (keys::ALLOCATED, keys::TRUE.into()),
        (keys::IP_ADDRESS, lease.addresses.to_smolstr()),
        (keys::MAC_ADDRESS, lease.mac.to_smolstr()),
        (keys::CIDR, cidrs.to_smolstr()),
        (keys::GATEWAY, gateways.to_smolstr()),
        (keys::LOGICAL_SWITCH, subnet.name.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (SmolStr::new_static(key), Some(value)))
    .collect()
}

fn parse_request(pod: &PodView) -> Result<StaticRequest, String> {
    let mut request = StaticRequest::default();
    if let Some(text) = pod.annotation(keys::MAC_ADDRESS) {
        let mac: Mac = text
            .parse()
            .map_err(|error| format!("{}: {error}", keys::MAC_ADDRESS))?;
        if !mac.is_unicast() {
            return Err(format!(
                "{}: {mac} is not the address of one interface",
                keys::MAC_ADDRESS
            ));
        }
        request.mac = Some(mac);
    }
    if let Some(text) = pod.annotation(keys::IP_FAMILY) {
        request.family = Some(match text {
            "ipv4" => Family::V4,
            "ipv6" => Family::V6,
            _ => {
                return Err(format!(
                    "{} is {text:?}, but must be \"ipv4\" or \"ipv6\"",
                    keys::IP_FAMILY
                ));
            }
        });
    }
    if let Some(text) = pod.annotation(keys::IP_ADDRESS) {
        request.choices = vec![parse_pair(text, keys::IP_ADDRESS)?];
    } else if let Some(text) = pod.annotation(keys::IP_POOL) {
        request.choices = parse_pool(pod, text)?;
    }
    if let Some(family) = request.family {
        let mut asked = request.choices.iter().flat_map(DualStack::iter);
        if let Some(other) = asked.find(|address| address.family() != family) {
            return Err(format!(
                "{} asks for {family} alone, but the pod also asks for {other}",
                keys::IP_FAMILY
            ));
        }
    }
    Ok(request)
}

/// One address or one of each family. A prefix length, as up to v0.4, is tolerated.
fn parse_pair(text: &str, key: &str) -> Result<DualStack<IpAddr>, String> {
    let addresses = text
        .split(',')
        .map(|item| {
            let item = item.trim();
            parse_ip(item.split_once('/').map_or(item, |(address, _)| address))
                .map_err(|error| format!("{key}: {error}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    DualStack::from_values(addresses)
        .map_err(|second| format!("{key}: {second} is a second address of its family in {text:?}"))
}

/// Entries are separated by `;`, or by `,` if there is none; two addresses of different families are one entry. A pod of
/// a StatefulSet has the entry of its ordinal, others take the first that is free.
fn parse_pool(pod: &PodView, text: &str) -> Result<Vec<DualStack<IpAddr>>, String> {
    let key = keys::IP_POOL;
    let entries: Vec<DualStack<IpAddr>> = if text.contains(';') {
        text.split(';')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| parse_pair(entry, key))
            .collect::<Result<_, _>>()?
    } else {
        let items: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect();
        if items.len() == 1 && parse_ip(items[0]).is_err() && !items[0].contains(['/', ':']) {
            return Err(format!(
                "{key}: {:?} is not an address, and pools by name (IPPool) are not supported yet; list addresses",
                items[0]
            ));
        }
        match parse_pair(text, key) {
            Ok(pair) if pair.is_dual() && items.len() == 2 => vec![pair],
            _ => items
                .iter()
                .map(|item| parse_pair(item, key))
                .collect::<Result<_, _>>()?,
        }
    };
    let Some(ordinal) = stateful_ordinal(pod) else {
        return Ok(entries);
    };
    entries
        .get(ordinal)
        .map(|entry| vec![*entry])
        .ok_or_else(|| {
            format!(
                "{key} lists {} addresses, and none for ordinal {ordinal} of the StatefulSet; add one",
                entries.len()
            )
        })
}

/// N of a StatefulSet's pod `name-N`.
fn stateful_ordinal(pod: &PodView) -> Option<usize> {
    let owner = pod
        .owner
        .as_ref()
        .filter(|owner| owner.kind == "StatefulSet")?;
    pod.key
        .name
        .strip_prefix(owner.name.as_str())?
        .strip_prefix('-')?
        .parse()
        .ok()
}
