//! Which Subnets are in force, and which of them each namespace has: everything that follows from Subnets, Vpcs,
//! namespaces, node addresses and settings, but not from pods.
//!
//! It is derived as a whole whenever one of these changes (rarely), without memory of how they came to be. That makes
//! the answer independent of the order of events. What must survive a bad edit, the last good spec of a Subnet, is an
//! input like the others ([`Accepted`]).
//!
//! Conflicts are settled by seniority: a Subnet keeps what was accepted before; among newcomers the older object wins,
//! then the smaller name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::keys;
use api::v1::{SubnetSpec, reason};
use net::{Cidr, DualStack, HasFamily};
use smol_str::SmolStr;

use crate::binding::{Inputs, live_fields};
use crate::problem::{Kind, ObjectRef, Problem, reason as ours};
use crate::record::{NamespaceRecord, SubnetRecord, VpcRecord};
use crate::spec::{Effective, Role, defaults, resolve};
use crate::{Accepted, Config};

/// What there is to know about one Subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct SubnetState {
    /// The values in force; `None` if there are none, and then the Subnet has no rows and no pods.
    pub in_force: Option<Effective>,
    /// The spec that `in_force` was read from, as it will be accepted.
    pub spec: Option<SubnetSpec>,
    /// What the object's spec should be: defaults and the owner's values filled in, or as it is if it is not valid.
    pub wanted: SubnetSpec,
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
    /// Nodes whose address lies in a Subnet in force.
    pub node_conflicts: BTreeMap<SmolStr, Problem>,
}

/// What a layout is derived from.
pub(crate) struct Inventory<'a> {
    pub config: &'a Config,
    pub subnets: &'a BTreeMap<SmolStr, SubnetRecord>,
    pub namespaces: &'a BTreeMap<SmolStr, NamespaceRecord>,
    pub vpcs: &'a BTreeMap<SmolStr, VpcRecord>,
    /// Internal addresses of nodes.
    pub nodes: &'a BTreeMap<SmolStr, DualStack<IpAddr>>,
    /// The ledger of accepted specs.
    pub accepted: &'a BTreeMap<SmolStr, Accepted>,
    /// Whether addresses of the Subnet are given out.
    pub occupied: &'a dyn Fn(&str) -> bool,
}

/// Address blocks that are taken, by the world that they must be unique in. Blocks of one world never overlap.
#[derive(Default)]
struct Claims(BTreeMap<(SmolStr, IpAddr), (Cidr, SmolStr)>);

impl Claims {
    /// Provider and VPC: two Subnets that differ in one of them may have the same addresses.
    fn world(subnet: &Effective) -> SmolStr {
        smol_str::format_smolstr!("{}/{}", subnet.provider, subnet.vpc)
    }

    /// A block that overlaps one of the Subnet's, and whose it is.
    fn overlapping(&self, subnet: &Effective) -> Option<(Cidr, &SmolStr)> {
        let world = Self::world(subnet);
        subnet.cidrs.iter().find_map(|cidr| {
            let to = (world.clone(), cidr.last());
            // Disjoint blocks: only the last one that begins before our end can reach into us.
            self.0
                .range((world.clone(), cidr.first().family_floor())..=to)
                .next_back()
                .filter(|(_, (other, _))| other.overlaps(*cidr))
                .map(|(_, (other, owner))| (*other, owner))
        })
    }

    fn insert(&mut self, subnet: &Effective) {
        let world = Self::world(subnet);
        for cidr in subnet.cidrs {
            self.0
                .insert((world.clone(), cidr.first()), (cidr, subnet.name.clone()));
        }
    }

    fn remove(&mut self, subnet: &Effective) {
        let world = Self::world(subnet);
        for cidr in subnet.cidrs {
            let key = (world.clone(), cidr.first());
            if self
                .0
                .get(&key)
                .is_some_and(|(_, owner)| *owner == subnet.name)
            {
                self.0.remove(&key);
            }
        }
    }
}

/// The lowest address of an address's family: where a range query over one family begins.
trait FamilyFloor {
    fn family_floor(&self) -> IpAddr;
}

impl FamilyFloor for IpAddr {
    fn family_floor(&self) -> IpAddr {
        match self {
            Self::V4(_) => Self::V4(std::net::Ipv4Addr::UNSPECIFIED),
            Self::V6(_) => Self::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl Layout {
    pub(crate) fn derive(inventory: &Inventory<'_>) -> Self {
        let mut layout = Self::default();
        let namers = namers(inventory);
        let mut drafts: BTreeMap<&SmolStr, Draft> = inventory
            .subnets
            .iter()
            .map(|(name, record)| (name, Draft::of(name, record, &namers, inventory)))
            .collect();
        let mut claims = grant(&mut drafts, inventory);
        for (name, draft) in drafts {
            layout.bind(name, &draft);
            layout.subnets.insert(name.clone(), draft.into_state());
        }
        layout.plan_creations(&namers, &mut claims, inventory);
        for name in inventory.namespaces.keys() {
            let state = layout.namespace(name, inventory);
            layout.namespaces.insert(name.clone(), state);
        }
        layout.find_node_conflicts(inventory);
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

    /// Switches that namespaces name and that no Subnet describes.
    fn plan_creations(
        &mut self,
        namers: &BTreeMap<SmolStr, Vec<SmolStr>>,
        claims: &mut Claims,
        inventory: &Inventory<'_>,
    ) {
        let config = inventory.config;
        for (switch, namespaces) in namers {
            if inventory.subnets.contains_key(switch) {
                continue;
            }
            if *switch == config.default_subnet.name || *switch == config.join.name {
                continue; // made by the settings, or refused below
            }
            let inputs = |namespace: &SmolStr| &inventory.namespaces[namespace].inputs;
            // The first that says what the switch should be is in charge.
            let Some(owner) = namespaces
                .iter()
                .find(|namespace| inputs(namespace).get(keys::CIDR).is_some())
            else {
                let problem = Problem::new(
                    subnet_ref(switch),
                    ours::NO_SUBNET,
                    format!(
                        "the logical switch {switch:?} does not exist: add the annotation {} to make it, or create a Subnet of that name",
                        keys::CIDR
                    ),
                );
                self.failed.insert(switch.clone(), problem);
                continue;
            };
            let made = inputs(owner)
                .make(namespaces)
                .map(|spec| defaults(switch, &spec, config))
                .and_then(|spec| resolve(switch, &spec, config).map(|effective| (spec, effective)));
            if !is_object_name(switch) {
                let problem = Problem::new(
                    subnet_ref(switch),
                    reason::VALIDATE_LOGICAL_SWITCH_FAILED,
                    format!(
                        "{switch:?} cannot be the name of a Subnet: use lower-case letters, digits, '-' and '.'"
                    ),
                );
                self.failed.insert(switch.clone(), problem);
                continue;
            }
            let fail = |reason: &'static str, why: String| {
                Problem::new(
                    subnet_ref(switch),
                    reason,
                    format!(
                        "the logical switch {switch:?} cannot be made from the annotations of namespace {owner}: {why}"
                    ),
                )
            };
            match made {
                Err(errors) => {
                    let problem = fail(reason::VALIDATE_LOGICAL_SWITCH_FAILED, errors.join("; "));
                    self.failed.insert(switch.clone(), problem);
                }
                Ok((spec, effective)) => {
                    if let Some(problem) =
                        conflict(&effective, None, claims, &Claims::default(), inventory)
                    {
                        let reason = if problem.reason == reason::CIDR_CONFLICT {
                            reason::CIDR_CONFLICT
                        } else {
                            reason::VALIDATE_LOGICAL_SWITCH_FAILED
                        };
                        self.failed
                            .insert(switch.clone(), fail(reason, problem.message));
                        continue;
                    }
                    claims.insert(&effective);
                    self.creations
                        .entry(owner.clone())
                        .or_default()
                        .push((switch.clone(), spec));
                }
            }
        }
    }

    /// The Subnets of a namespace, and what to tell its owner.
    fn namespace(&self, name: &SmolStr, inventory: &Inventory<'_>) -> NamespaceState {
        let config = inventory.config;
        let record = &inventory.namespaces[name];
        let inputs = &record.inputs;
        let mut problems = Vec::new();
        let mut waiting = None;
        let mut wanted: Vec<SmolStr> = Vec::new();
        if let Some(switch) = &inputs.switch {
            if *switch == config.join.name {
                problems.push(Problem::new(
                    namespace_ref(name),
                    ours::SUBNET_NOT_ALLOWED,
                    format!(
                        "{switch:?} is the nodes' own switch; pods cannot use it. Name another one"
                    ),
                ));
            } else {
                wanted.push(switch.clone());
                problems.extend(self.agreement(name, switch, inventory));
            }
        }
        if inputs.switch.is_none() && inputs.has(keys::CIDR) {
            problems.push(Problem::new(
                namespace_ref(name),
                reason::VALIDATE_LOGICAL_SWITCH_FAILED,
                format!(
                    "{} has no effect without {}: name the switch that should have these addresses",
                    keys::CIDR,
                    keys::LOGICAL_SWITCH
                ),
            ));
        }
        let selected = self.selecting.iter().filter(|subnet| {
            self.subnets[*subnet]
                .spec
                .as_ref()
                .unwrap_or(&self.subnets[*subnet].wanted)
                .namespace_selectors
                .iter()
                .any(|selector| record.matches(selector))
        });
        let mut bound: Vec<&SmolStr> = self
            .bound
            .get(name)
            .into_iter()
            .flatten()
            .chain(selected)
            .collect();
        bound.sort_unstable();
        let vpc = inventory.vpcs.iter().find(|(_, vpc)| {
            !vpc.default_subnet.is_empty() && vpc.namespaces.iter().any(|listed| listed == name)
        });
        // As upstream: a VPC's own default goes in front, and kube-system stays where nodes can reach it.
        if inputs.switch.is_none()
            && let Some((_, vpc)) = vpc
            && name != "kube-system"
        {
            wanted.push(vpc.default_subnet.clone());
        }
        wanted.extend(bound.into_iter().cloned());
        let mut seen = BTreeSet::new();
        wanted.retain(|subnet| seen.insert(subnet.clone()));
        if wanted.is_empty() && inputs.switch.is_none() {
            wanted.push(config.default_subnet.name.clone());
        }
        let subnets: Vec<SmolStr> = wanted
            .iter()
            .filter(|subnet| self.usable(subnet))
            .cloned()
            .collect();
        if subnets.is_empty() {
            waiting = Some(self.why_not(name, &wanted));
        }
        let create = self.creations.get(name).cloned().unwrap_or_default();
        NamespaceState {
            subnets,
            waiting,
            problems,
            create,
        }
    }

    /// Whether pods can be in the Subnet.
    pub(crate) fn usable(&self, subnet: &str) -> bool {
        self.subnets.get(subnet).is_some_and(|state| {
            !state.deleting
                && state
                    .in_force
                    .as_ref()
                    .is_some_and(|effective| effective.is_ovn() && effective.role != Role::Join)
        })
    }

    /// Why none of the Subnets can be used by pods of the namespace.
    fn why_not(&self, namespace: &SmolStr, wanted: &[SmolStr]) -> Problem {
        let whys: Vec<String> = wanted
            .iter()
            .map(|subnet| self.why_unusable(subnet))
            .collect();
        Problem::new(
            namespace_ref(namespace),
            ours::NO_SUBNET,
            if whys.is_empty() {
                "the namespace names no switch that pods can use".to_owned()
            } else {
                whys.join("; ")
            },
        )
    }

    /// Why pods cannot be in the Subnet, in words.
    pub(crate) fn why_unusable(&self, subnet: &str) -> String {
        let Some(state) = self.subnets.get(subnet) else {
            return self.failed.get(subnet).map_or_else(
                || format!("the Subnet {subnet:?} does not exist yet"),
                |problem| problem.message.clone(),
            );
        };
        match (&state.refused, &state.in_force) {
            _ if state.deleting => format!("the Subnet {subnet:?} is being deleted"),
            (Some(problem), None) => {
                format!("the Subnet {subnet:?} is not valid: {}", problem.message)
            }
            (_, Some(effective)) if effective.role == Role::Join => {
                format!("{subnet:?} is the nodes' own Subnet; pods cannot use it")
            }
            (_, Some(effective)) => format!(
                "the Subnet {subnet:?} belongs to the provider {:?}, not to the cluster's own network",
                effective.provider
            ),
            (None, None) => format!("the Subnet {subnet:?} is not in effect"),
        }
    }

    /// What a namespace says about a switch that it shares, and is not heard.
    fn agreement(
        &self,
        name: &SmolStr,
        switch: &SmolStr,
        inventory: &Inventory<'_>,
    ) -> Option<Problem> {
        let inputs = &inventory.namespaces[name].inputs;
        let about = |reason: &str, message: String| {
            Some(Problem {
                object: namespace_ref(name),
                reason: reason.into(),
                message,
            })
        };
        let Some(state) = self.subnets.get(switch) else {
            let problem = self.failed.get(switch);
            if let Some(problem) = problem {
                return about(&problem.reason, problem.message.clone());
            }
            // It is about to be made by another namespace: compare when it is there.
            return None;
        };
        let (Some(effective), Some(spec)) = (&state.in_force, &state.spec) else {
            let owns = state.owner.as_ref() == Some(name);
            return state.refused.as_ref().filter(|_| owns).and_then(|problem| {
                about(
                    &problem.reason,
                    format!(
                        "the Subnet {switch:?} is not in effect: {}",
                        problem.message
                    ),
                )
            });
        };
        if let Some(problem) = &state.refused
            && state.owner.as_ref() == Some(name)
        {
            return about(
                &problem.reason,
                format!(
                    "the switch {switch:?} keeps running with its last good values; what the annotations ask for is refused: {}",
                    problem.message
                ),
            );
        }
        let differences = inputs.differences(effective, spec, state.owner.as_ref() != Some(name));
        if differences.is_empty() {
            return None;
        }
        let differences = differences.join("; ");
        about(
            ours::SWITCH_CONFLICT,
            match &state.owner {
                Some(owner) if owner == name => format!(
                    "the addresses of a switch that exists are not changed by annotations: {differences}. Put the annotation back, or name another switch"
                ),
                Some(owner) => format!(
                    "namespace {owner} decides about the switch {switch:?}: {differences}. Remove these annotations or make them equal"
                ),
                None => format!(
                    "the Subnet {switch:?} decides about itself: {differences}. Edit the Subnet, and remove these annotations"
                ),
            },
        )
    }

    fn find_node_conflicts(&mut self, inventory: &Inventory<'_>) {
        for (node, addresses) in inventory.nodes {
            let hit = self.subnets.iter().find_map(|(subnet, state)| {
                let effective = state.in_force.as_ref()?;
                let address = addresses.iter().find(|address| {
                    effective.is_in_default_vpc(inventory.config)
                        && effective.cidrs.contains(**address)
                })?;
                Some((subnet, *address, effective.cidrs))
            });
            if let Some((subnet, address, cidrs)) = hit {
                let problem = Problem::new(
                    ObjectRef::cluster(Kind::Node, node.clone()),
                    reason::NODE_ADDRESS_CONFLICT,
                    format!(
                        "the node's address {address} lies in the CIDR {cidrs} of Subnet {subnet:?}: pods cannot tell it from a pod. Give the node or the Subnet another address"
                    ),
                );
                self.node_conflicts.insert(node.clone(), problem);
            }
        }
    }

    /// Subnets that list the namespace or select it, or that it names, whether or not they are in force.
    pub(crate) fn may_use(
        &self,
        subnet: &str,
        namespace: &str,
        record: Option<&NamespaceRecord>,
    ) -> bool {
        let Some(state) = self.subnets.get(subnet) else {
            return false;
        };
        let spec = state.spec.as_ref().unwrap_or(&state.wanted);
        let listed = spec.namespaces.iter().any(|name| name == namespace)
            || state.namers.iter().any(|name| name == namespace);
        let open = spec.namespaces.is_empty()
            && spec.namespace_selectors.is_empty()
            && state.owner.is_none();
        let role = state.in_force.as_ref().map(|effective| effective.role);
        listed
            || open
            || role == Some(Role::Default)
            || record.is_some_and(|record| {
                spec.namespace_selectors
                    .iter()
                    .any(|selector| record.matches(selector))
            })
    }
}

/// Whether Kubernetes takes it for the name of an object: a DNS subdomain (RFC 1123).
fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Which namespaces name which switch, sorted.
fn namers(inventory: &Inventory<'_>) -> BTreeMap<SmolStr, Vec<SmolStr>> {
    let mut namers: BTreeMap<SmolStr, Vec<SmolStr>> = BTreeMap::new();
    for (name, record) in inventory.namespaces {
        if let Some(switch) = &record.inputs.switch {
            let namespaces = namers.entry(switch.clone()).or_default();
            if namespaces.last() != Some(name) {
                namespaces.push(name.clone());
            }
        }
    }
    namers
}

/// Decides, in order of seniority, which spec of each Subnet is in force.
fn grant(drafts: &mut BTreeMap<&SmolStr, Draft>, inventory: &Inventory<'_>) -> Claims {
    let mut order: Vec<&SmolStr> = drafts.keys().copied().collect();
    order.sort_by_key(|name| {
        let draft = &drafts[*name];
        // The cluster cannot do without its own Subnets.
        let config = inventory.config;
        let own = **name == config.default_subnet.name || **name == config.join.name;
        (draft.accepted.is_none(), !own, draft.created, *name)
    });
    // What was accepted is taken until its Subnet has had its turn.
    let mut held = Claims::default();
    for name in &order {
        if let Some((effective, _)) = &drafts[*name].accepted
            && held.overlapping(effective).is_none()
        {
            held.insert(effective);
        }
    }
    let mut granted = Claims::default();
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
            Ok(effective) => conflict(
                effective,
                draft.accepted_cidrs(),
                &granted,
                &held,
                inventory,
            )
            .map_or(Ok(()), Err),
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
                    .filter(|(effective, _)| granted.overlapping(effective).is_none())
            }
        };
        if let Some((effective, spec)) = chosen.filter(|_| !gone) {
            if draft.refused.is_some() {
                draft.namespaces = spec.namespaces.iter().map(SmolStr::new).collect();
            }
            granted.insert(&effective);
            draft.in_force = Some((effective, spec));
        }
    }
    granted
}

/// What stands against a spec that is valid by itself.
fn conflict(
    subnet: &Effective,
    accepted: Option<DualStack<Cidr>>,
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
    // The cluster's own Subnets have their place before they exist.
    for (name, cidrs) in [
        (&config.default_subnet.name, config.default_subnet.cidrs),
        (&config.join.name, config.join.cidrs),
    ] {
        let absent = *name != subnet.name && !inventory.subnets.contains_key(name);
        let hit = cidrs
            .into_iter()
            .find(|reserved| absent && subnet.cidrs.iter().any(|cidr| cidr.overlaps(*reserved)));
        if let Some(other) = hit {
            return Some(overlap(other, name));
        }
    }
    // A Subnet that runs is not taken down because a node appeared; the node is told.
    let known = |address: &IpAddr| {
        accepted
            .is_some_and(|cidrs| cidrs.get(address.family()) == subnet.cidrs.get(address.family()))
    };
    inventory.nodes.iter().find_map(|(node, addresses)| {
        let address = addresses
            .iter()
            .find(|address| subnet.cidrs.contains(**address) && !known(address))?;
        Some(Problem::new(
            object.clone(),
            reason::VALIDATE_LOGICAL_SWITCH_FAILED,
            format!(
                "the CIDR {} holds {address}, the address of node {node}; choose another CIDR",
                subnet.cidrs
            ),
        ))
    })
}

pub(crate) fn subnet_ref(name: &str) -> ObjectRef {
    ObjectRef::cluster(Kind::Subnet, name)
}

pub(crate) fn namespace_ref(name: &str) -> ObjectRef {
    ObjectRef::cluster(Kind::Namespace, name)
}

/// A Subnet while its state is being worked out.
struct Draft {
    /// Seconds since 1970; seniority among Subnets that were never accepted.
    created: i64,
    deleting: bool,
    /// As the object has it.
    written: SubnetSpec,
    wanted: SubnetSpec,
    parsed: Result<Effective, Vec<String>>,
    accepted: Option<(Effective, SubnetSpec)>,
    namers: Vec<SmolStr>,
    past_namers: Vec<SmolStr>,
    owner: Option<SmolStr>,
    marked: bool,
    /// Namespaces bound by the spec, with those that left taken out.
    namespaces: Vec<SmolStr>,
    problems: Vec<Problem>,
    refused: Option<Problem>,
    in_force: Option<(Effective, SubnetSpec)>,
}

impl Draft {
    fn of(
        name: &SmolStr,
        record: &SubnetRecord,
        namers: &BTreeMap<SmolStr, Vec<SmolStr>>,
        inventory: &Inventory<'_>,
    ) -> Self {
        let config = inventory.config;
        let namers = namers.get(name).cloned().unwrap_or_default();
        let past = inventory
            .accepted
            .get(name)
            .or(record.accepted.as_ref())
            .filter(|accepted| accepted.uid == record.uid);
        let mut problems = Vec::new();
        let mut spec = record.spec.clone();
        let mut owner = None;
        let mut errors = Vec::new();
        if let Some(mark) = &record.mark {
            owner = namers
                .iter()
                .find(|namer| *namer == mark)
                .or(namers.first())
                .cloned();
            if let Some(owner) = &owner {
                let inputs: &Inputs = &inventory.namespaces[owner].inputs;
                errors = inputs
                    .overlay(&mut spec, owner == mark)
                    .err()
                    .unwrap_or_default();
            }
            let before = past.map_or_else(|| vec![mark.clone()], |past| past.namers.clone());
            let left = |listed: &String| {
                before.iter().any(|namer| namer == listed)
                    && !namers.iter().any(|namer| namer == listed)
            };
            spec.namespaces.retain(|listed| !left(listed));
            for namer in &namers {
                if !spec.namespaces.iter().any(|listed| listed == namer) {
                    spec.namespaces.push(namer.to_string());
                }
            }
        }
        let parsed = if errors.is_empty() {
            resolve(name, &spec, config)
        } else {
            Err(errors)
        };
        let wanted = if parsed.is_ok() {
            defaults(name, &spec, config)
        } else {
            spec.clone()
        };
        if let (Some(owner), Some(past), true) = (&owner, past, parsed.is_ok())
            && live_fields(&past.spec) == live_fields(&wanted)
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
            let effective = resolve(name, &past.spec, config).ok()?;
            Some((effective, past.spec.clone()))
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

    fn accepted_cidrs(&self) -> Option<DualStack<Cidr>> {
        self.accepted.as_ref().map(|(effective, _)| effective.cidrs)
    }

    fn into_state(self) -> SubnetState {
        let abandoned = self.marked
            && self.namers.is_empty()
            && self.namespaces.is_empty()
            && self.wanted.namespace_selectors.is_empty();
        // One that left is remembered until the object's spec no longer lists it.
        let mut accepted_namers = self.past_namers;
        if self.refused.is_none() {
            accepted_namers
                .retain(|namer| self.written.namespaces.iter().any(|listed| listed == namer));
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
