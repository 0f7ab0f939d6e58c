//! Which Subnets a namespace has, which are to be made for it, and what its owner is told.

use std::collections::{BTreeMap, BTreeSet};

use api::keys;
use api::v1::reason;
use smol_str::SmolStr;

use super::claims::Claims;
use super::draft::conflict;
use super::{Inventory, Layout, NamespaceState, namespace_ref, subnet_ref};
use crate::problem::{Problem, reason as ours};
use crate::record::NamespaceRecord;
use crate::spec::{Role, defaults, resolve};

impl Layout {
    /// Switches that namespaces name and that no Subnet describes.
    pub(super) fn plan_creations(
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
    pub(super) fn namespace(&self, name: &SmolStr, inventory: &Inventory<'_>) -> NamespaceState {
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
        // What is bound to nobody is for everybody, but not what lost its last namespace and is about to go.
        let open =
            spec.namespaces.is_empty() && spec.namespace_selectors.is_empty() && !state.marked;
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
pub(super) fn namers(inventory: &Inventory<'_>) -> BTreeMap<SmolStr, Vec<SmolStr>> {
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
