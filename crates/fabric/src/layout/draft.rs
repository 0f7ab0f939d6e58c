//! A Subnet while its state is being worked out, and the settling of conflicts between them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::keys;
use api::v1::{SubnetSpec, reason};
use api::view::node_port_name;
use net::{Cidr, DualStack, Family, HasFamily};
use smol_str::SmolStr;

use super::claims::{Claims, ports};
use super::{Inventory, SubnetState, subnet_ref};
use crate::binding::{Inputs, live_fields};
use crate::problem::{ObjectRef, Problem, reason as ours};
use crate::record::SubnetRecord;
use crate::spec::{Effective, Memo, Slot, cluster_conflict};
use crate::{Config, Shared};

/// A Subnet while its state is being worked out.
pub(super) struct Draft {
    /// Seconds since 1970; seniority among Subnets that were never accepted.
    created: i64,
    deleting: bool,
    /// As the object has it.
    written: Shared<SubnetSpec>,
    pub(super) wanted: Shared<SubnetSpec>,
    parsed: Result<Shared<Effective>, Vec<String>>,
    accepted: Option<(Shared<Effective>, Shared<SubnetSpec>)>,
    namers: Vec<SmolStr>,
    past_namers: Vec<SmolStr>,
    owner: Option<SmolStr>,
    marked: bool,
    /// Namespaces bound by the spec, with those that left taken out.
    pub(super) namespaces: Vec<SmolStr>,
    problems: Vec<Problem>,
    refused: Option<Problem>,
    pub(super) in_force: Option<(Shared<Effective>, Shared<SubnetSpec>)>,
}

impl Draft {
    pub(super) fn of(
        name: &SmolStr,
        record: &SubnetRecord,
        namers: &BTreeMap<SmolStr, Vec<SmolStr>>,
        inventory: &Inventory<'_>,
        memo: &mut Memo,
    ) -> Self {
        let config = inventory.config;
        let namers = namers.get(name).cloned().unwrap_or_default();
        let past = inventory
            .accepted
            .get(name)
            .or(record.accepted.as_ref())
            .filter(|accepted| accepted.uid == record.uid);
        let mut problems = Vec::new();
        let mut spec = Cow::Borrowed(&*record.spec);
        if let Some(grown) = grown(name, &spec, config) {
            spec = Cow::Owned(grown);
        }
        let mut owner = None;
        let mut errors = Vec::new();
        if let Some(mark) = &record.mark {
            let spec = spec.to_mut();
            owner = namers
                .iter()
                .find(|namer| *namer == mark)
                .or(namers.first())
                .cloned();
            if let Some(owner) = &owner {
                let inputs: &Inputs = &inventory.namespaces[owner].inputs;
                errors = inputs
                    .overlay(spec, owner == mark)
                    .err()
                    .unwrap_or_default();
            }
            let before = past.map_or(std::slice::from_ref(mark), |past| &past.namers);
            spec.namespaces
                .retain(|listed| contains(&namers, listed) || !contains(before, listed));
            let listed: BTreeSet<String> = spec.namespaces.iter().cloned().collect();
            let new = namers
                .iter()
                .filter(|namer| !listed.contains(namer.as_str()));
            spec.namespaces.extend(new.map(ToString::to_string));
        }
        let (parsed, wanted) = if errors.is_empty() {
            let reading = memo.read(name, Slot::Wanted, &spec, config);
            (reading.parsed, reading.filled)
        } else {
            (Err(errors), record.spec.clone())
        };
        if let (Some(owner), true) = (&owner, record.edited && parsed.is_ok())
            && live_fields(&record.spec) != live_fields(&wanted)
        {
            problems.push(Problem::new(
                subnet_ref(name),
                ours::PUT_BACK,
                format!(
                    "namespace {owner} decides about private, allowSubnets, gatewayType, gatewayNode, natOutgoing and excludeIps of this Subnet, and the edit was undone. Change the namespace's annotations, or remove the label {} to make the Subnet decide",
                    keys::SUBNET_FROM_NAMESPACE
                ),
            ));
        }
        let accepted = past.and_then(|past| {
            let reading = memo.read(name, Slot::Accepted, &past.spec, config);
            Some((reading.parsed.ok()?, reading.spec))
        });
        Self {
            created: record.created,
            deleting: record.deleting,
            written: record.spec.clone(),
            namespaces: spec.namespaces.iter().map(SmolStr::new).collect(),
            wanted,
            parsed,
            accepted,
            namers,
            past_namers: past.map(|past| past.namers.clone()).unwrap_or_default(),
            owner,
            marked: record.mark.is_some(),
            problems,
            refused: None,
            in_force: None,
        }
    }

    pub(super) fn into_state(self) -> SubnetState {
        let abandoned = self.marked
            && self.namers.is_empty()
            && self.namespaces.is_empty()
            && self.wanted.namespace_selectors.is_empty();
        // One that left is remembered until the object's spec no longer lists it.
        let mut accepted_namers = self.past_namers;
        if self.refused.is_none() {
            let written: BTreeSet<&str> =
                self.written.namespaces.iter().map(String::as_str).collect();
            accepted_namers.retain(|namer| written.contains(namer.as_str()));
            accepted_namers.extend(self.namers.iter().filter(|_| self.marked).cloned());
            accepted_namers.sort_unstable();
            accepted_namers.dedup();
        }
        let (in_force, spec) = self.in_force.unzip();
        // What is refused stays as its owner wrote it.
        let wanted = if self.refused.is_some() {
            self.written
        } else {
            self.wanted
        };
        SubnetState {
            in_force,
            spec,
            wanted,
            refused: self.refused,
            problems: self.problems,
            accepted_namers,
            marked: self.marked,
            namers: self.namers,
            owner: self.owner,
            abandoned,
            deleting: self.deleting,
        }
    }
}

/// Whether a sorted list has the name.
fn contains(sorted: &[SmolStr], name: &str) -> bool {
    sorted
        .binary_search_by(|candidate| candidate.as_str().cmp(name))
        .is_ok()
}

/// The spec of one of the cluster's own Subnets with the family that it lacks and that the settings have: a cluster grows
/// from one family to both by its flags, as in the Go implementation. What the Subnet has stays.
fn grown(name: &str, spec: &SubnetSpec, config: &Config) -> Option<SubnetSpec> {
    let (cidrs, gateways, excludes) = if *name == config.default_subnet.name {
        let own = &config.default_subnet;
        (own.cidrs, own.gateways, own.exclude_ips.as_slice())
    } else if *name == config.join.name {
        (config.join.cidrs, config.join.gateways, [].as_slice())
    } else {
        return None;
    };
    let held: DualStack<Cidr> = spec.cidr_block.parse().ok()?;
    if !cidrs.is_dual() || held.is_dual() || held == DualStack::NONE {
        return None;
    }
    let missing = |family| held.get(family).is_none();
    let mut grown = spec.clone();
    grown.cidr_block = DualStack::from_fn(|f| held.get(f).or(cidrs.get(f)).copied()).to_string();
    if let Ok(gateway) = spec.gateway.parse::<DualStack<IpAddr>>() {
        let added = |f| gateways.get(f).filter(|_| missing(f));
        let both = DualStack::from_fn(|f| gateway.get(f).or(added(f)).copied());
        grown.gateway = both.to_string();
    }
    let added = excludes.iter().filter(|range| missing(range.family()));
    grown.exclude_ips.extend(added.map(ToString::to_string));
    Some(grown)
}

/// The cluster's own Subnets, and the addresses that the settings give them.
fn own_subnets(config: &Config) -> [(&SmolStr, DualStack<Cidr>); 2] {
    [
        (&config.default_subnet.name, config.default_subnet.cidrs),
        (&config.join.name, config.join.cidrs),
    ]
}

/// Decides which spec of each Subnet is in force. Returns what is taken, and the order of seniority.
pub(super) fn grant<'a>(
    drafts: &mut BTreeMap<&'a SmolStr, Draft>,
    inventory: &Inventory<'_>,
) -> (Claims, Vec<&'a SmolStr>) {
    // The cluster cannot do without its own Subnets.
    let own = own_subnets(inventory.config);
    let is_own = |name: &SmolStr| own.iter().any(|(own, _)| *own == name);
    let mut seniority: Vec<&'a SmolStr> = drafts.keys().copied().collect();
    seniority.sort_by_key(|name| {
        let draft = &drafts[*name];
        (
            draft.accepted.is_none(),
            !is_own(name),
            draft.created,
            *name,
        )
    });
    // They choose first, however young, and those among them that hold nothing yet before those that want another place:
    // what the others hold is safe from them, but not what the others would like to have.
    let mut order = seniority.clone();
    order.sort_by_key(|name| {
        (
            !is_own(name),
            is_own(name) && drafts[*name].accepted.is_some(),
        )
    });
    // What was accepted is taken until its Subnet has had its turn.
    let mut held = Claims::default();
    for name in &order {
        if let Some((effective, _)) = &drafts[*name].accepted
            && held.admit(effective)
        {
            held.insert(effective);
        }
    }
    let mut granted = Claims::default();
    for (name, cidrs) in own {
        if !drafts.contains_key(name) {
            granted.keep(cidrs, name);
        }
    }
    for name in order {
        let Some(draft) = drafts.get_mut(name) else {
            continue;
        };
        if let Some((effective, _)) = &draft.accepted {
            held.remove(effective);
        }
        let verdict = match &draft.parsed {
            Err(errors) => Err(Problem::new(
                subnet_ref(name),
                reason::VALIDATE_LOGICAL_SWITCH_FAILED,
                errors.join("; "),
            )),
            Ok(effective) => {
                let accepted = draft.accepted.as_ref().map(|(accepted, _)| &**accepted);
                let in_use = || {
                    let why = moved_in_use(accepted?, effective)?;
                    let occupied = (inventory.occupied)(name);
                    occupied.then(|| Problem::new(subnet_ref(name), ours::ADDRESSES_IN_USE, why))
                };
                conflict(effective, accepted, &granted, &held, inventory)
                    .or_else(in_use)
                    .map_or(Ok(()), Err)
            }
        };
        let gone = draft.deleting && !(inventory.occupied)(name);
        let chosen = match (verdict, &draft.parsed) {
            (Ok(()), Ok(effective)) => Some((effective.clone(), draft.wanted.clone())),
            (Ok(()), Err(_)) => None,
            (Err(problem), _) => {
                draft.refused = Some(problem);
                draft
                    .accepted
                    .clone()
                    .filter(|(effective, _)| granted.admit(effective))
            }
        };
        if let Some((effective, spec)) = chosen.filter(|_| !gone) {
            if draft.refused.is_some() {
                draft.namespaces = spec.namespaces.iter().map(SmolStr::new).collect();
            }
            granted.insert(&effective);
            draft.in_force = Some((effective, spec));
        } else if let Some((_, cidrs)) = own.iter().find(|(own, _)| *own == name) {
            // It will be back, as it is or as the settings have it.
            granted.keep(*cidrs, name);
            if let Ok(effective) = &draft.parsed {
                granted.keep(effective.cidrs, name);
            }
        }
    }
    (granted, seniority)
}

/// Names of ports follow from names of objects, and OVN has one port of a name.
fn taken(object: &ObjectRef, port: &str, owner: &str) -> Problem {
    Problem::new(
        object.clone(),
        ours::NAME_TAKEN,
        format!("its port would be called {port:?} like that of {owner}; give it another name"),
    )
}

/// The nodes whose port in the join switch would be called as one of the Subnet's own ports, if there were such nodes.
pub(super) fn nodes_of_ports(subnet: &Effective) -> impl Iterator<Item = SmolStr> {
    ports(subnet).filter_map(|port| port.strip_prefix("node-").map(SmolStr::new))
}

/// What speaks against other addresses for a Subnet whose addresses are in use: the pods that have them would lose their
/// gateway, or their place in the network, and nobody could tell them.
fn moved_in_use(accepted: &Effective, wanted: &Effective) -> Option<String> {
    let advice =
        "while addresses are in use; delete the pods that have them first, or make another Subnet";
    if (&accepted.vpc, &accepted.provider) != (&wanted.vpc, &wanted.provider) {
        return Some(format!(
            "the Subnet cannot go from the VPC {:?} and the provider {:?} to {:?} and {:?} {advice}",
            accepted.vpc, accepted.provider, wanted.vpc, wanted.provider
        ));
    }
    let kept = |(family, cidr): (Family, &Cidr)| {
        wanted
            .cidrs
            .get(family)
            .is_some_and(|new| new.covers(*cidr))
    };
    if !accepted.cidrs.by_family().all(kept) {
        return Some(format!(
            "the CIDR cannot change from {} to {}, which does not contain it, {advice}",
            accepted.cidrs, wanted.cidrs
        ));
    }
    let same = |(family, gateway)| wanted.gateways.get(family) == Some(gateway);
    if !accepted.gateways.by_family().all(same) {
        return Some(format!(
            "the gateway cannot change from {} to {} {advice}",
            accepted.gateways, wanted.gateways
        ));
    }
    None
}

/// What stands against a spec that is valid by itself.
pub(super) fn conflict(
    subnet: &Effective,
    accepted: Option<&Effective>,
    granted: &Claims,
    held: &Claims,
    inventory: &Inventory<'_>,
) -> Option<Problem> {
    let config = inventory.config;
    let object = subnet_ref(&subnet.name);
    let overlap = |other: Cidr, owner: &str| {
        Problem::new(
            object.clone(),
            reason::CIDR_CONFLICT,
            format!(
                "the CIDR {} overlaps {other} of Subnet {owner:?}; choose another one",
                subnet.cidrs
            ),
        )
    };
    if let Some((other, owner)) = granted.overlapping(subnet).or(held.overlapping(subnet)) {
        return Some(overlap(other, owner));
    }
    if let Some((port, owner)) = granted.sharing(subnet).or(held.sharing(subnet)) {
        return Some(taken(
            &object,
            &port,
            &format!("Subnet {owner:?} in its VPC"),
        ));
    }
    let node = nodes_of_ports(subnet).find(|node| inventory.nodes.contains_key(node));
    if let (Some(node), None) = (node.as_deref(), accepted) {
        return Some(taken(
            &object,
            &node_port_name(node),
            &format!("node {node}"),
        ));
    }
    if subnet.is_ovn()
        && subnet.vpc != config.cluster_router
        && !inventory.vpcs.contains_key(&subnet.vpc)
    {
        return Some(Problem::new(
            object,
            ours::NO_VPC,
            format!("the VPC {:?} does not exist; create it", subnet.vpc),
        ));
    }
    if !subnet.is_in_default_vpc(config) {
        return None;
    }
    // What runs is not taken down because a node appeared or a setting changed.
    let runs = |cidr: Cidr| {
        accepted.is_some_and(|accepted| accepted.cidrs.get(cidr.family()) == Some(&cidr))
    };
    subnet
        .cidrs
        .into_iter()
        .filter(|cidr| !runs(*cidr))
        .find_map(|cidr| {
            // The cluster's own Subnets have their place while they do not exist.
            if let Some((other, owner)) = granted.kept(cidr) {
                return Some(overlap(other, owner));
            }
            let why = cluster_conflict(cidr, config).or_else(|| {
            let (address, nodes) = inventory
                .nodes_by_address
                .range(cidr.first()..=cidr.last())
                .next()?;
            let node = nodes.first()?;
            Some(format!(
                "the CIDR {cidr} holds {address}, the address of node {node}; choose another one"
            ))
        })?;
            Some(Problem::new(
                object.clone(),
                reason::VALIDATE_LOGICAL_SWITCH_FAILED,
                why,
            ))
        })
}
