//! Logical switches and their router ports.

use api::v1::{Condition, ConditionStatus, SubnetSpec, condition_type, reason, unsupported};
use net::{Cidr, HasFamily};
use ovn::matching::dst;
use ovn::{Fragment, nb};
use smol_str::{SmolStr, ToSmolStr};

use super::{Compiled, allow, names, priority};
use crate::layout::SubnetState;
use crate::problem::reason as ours;
use crate::spec::with_prefix;
use crate::{
    Accepted, Effective, Kind, KubeState, ObjectRef, PortOwner, Problem, Role, SubnetWrites, World,
};

/// How many of those that keep a Subnet are named.
const USERS: usize = 5;

pub(super) fn compile(name: &SmolStr, world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    let (Some(state), Some(record)) = (world.subnet_state(name), world.subnet_record(name)) else {
        return compiled;
    };
    if let Some(subnet) = &state.in_force
        && subnet.is_ovn()
    {
        compiled.fragment = rows(subnet, world);
        compiled.problems.extend(without_nodes(subnet, world));
    }
    compiled.problems.extend(state.refused.clone());
    compiled.problems.extend(state.problems.iter().cloned());
    let occupied = world.is_occupied(name);
    let spec = state.spec.as_ref().unwrap_or(&state.wanted);
    let missing = unsupported(&**spec);
    let mut conditions = conditions(state, &missing);
    if record.deleting && occupied {
        conditions.push(Condition::new(
            condition_type::TERMINATING,
            true,
            ours::ADDRESSES_IN_USE,
            users(name, world),
        ));
        compiled.problems.push(Problem::new(
            ObjectRef::cluster(Kind::Subnet, name.clone()),
            ours::ADDRESSES_IN_USE,
            "the Subnet is deleted when its last address is given back; its condition Terminating names those that have one",
        ));
    }
    if !missing.is_empty() {
        compiled.problems.push(Problem::new(
            ObjectRef::cluster(Kind::Subnet, name.clone()),
            reason::FIELDS_NOT_SUPPORTED,
            Condition::unsupported(&missing).message,
        ));
    }
    let mut annotations = crate::Patch::new();
    if let Some(text) = accepted_text(state, &record.uid) {
        annotations.insert(SmolStr::new_static(Accepted::ANNOTATION), Some(text.into()));
    }
    compiled
        .desired
        .push(KubeState::Subnet(Box::new(SubnetWrites {
            name: name.clone(),
            spec: SubnetSpec::clone(&state.wanted),
            annotations,
            conditions,
            finalizer: !record.deleting || occupied,
            delete: state.abandoned && !occupied && !record.deleting,
        })));
    compiled
}

fn rows(subnet: &Effective, world: &World) -> Fragment {
    let name = &subnet.name;
    let mut fragment = Fragment::new(format!("Subnet/{name}"));
    let switch = fragment.rule("switch").row(nb::LogicalSwitch {
        name: name.clone(),
        ..Default::default()
    });
    let router = nb::LogicalRouter::named(subnet.vpc.clone());
    let router_port = names::router_port(&subnet.vpc, name);
    let networks = subnet
        .gateways
        .into_iter()
        .map(|gateway| with_prefix(gateway, &subnet.cidrs));
    fragment.rule("router port").child(
        &router,
        nb::LogicalRouter::PORTS,
        nb::LogicalRouterPort {
            name: router_port.clone(),
            mac: names::gateway_mac(world, subnet).to_smolstr(),
            networks: ovn::set(networks),
            external_ids: ovn::map([("lr", subnet.vpc.clone())]),
            ..Default::default()
        },
    );
    fragment.child(
        &switch,
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: names::switch_port(name, &subnet.vpc),
            r#type: SmolStr::new_static("router"),
            addresses: ovn::set(["router"]),
            options: ovn::map([("router-port", router_port)]),
            external_ids: ovn::map([("ls", name.clone())]),
            ..Default::default()
        },
    );
    fragment.rule("inside");
    for cidr in subnet.cidrs {
        allow(
            &mut fragment,
            &router,
            priority::INSIDE,
            dst(cidr),
            &[("subnet", name)],
        );
    }
    fragment
}

/// Pods reach nodes, and everything outside, through the nodes' own addresses in the join Subnet, each family by itself.
fn without_nodes(subnet: &Effective, world: &World) -> Option<Problem> {
    let join = world.join()?;
    if subnet.vpc != join.vpc || subnet.role == Role::Join {
        return None;
    }
    let lacking = |cidr: &Cidr| join.cidrs.get(cidr.family()).is_none();
    let cidr = subnet.cidrs.into_iter().find(lacking)?;
    Some(Problem::new(
        ObjectRef::cluster(Kind::Subnet, subnet.name.clone()),
        ours::NODES_LACK_FAMILY,
        format!(
            "pods with addresses of {cidr} reach each other, but no node and nothing outside: the Subnet {:?} has no {} addresses for the nodes. Give it a CIDR of each family (--node-switch-cidr), or the Subnet one of the nodes' family",
            join.name,
            cidr.family()
        ),
    ))
}

/// Who has addresses of the Subnet, and how to take them back.
fn users(name: &SmolStr, world: &World) -> String {
    let owners = world.ports_of_subnet(name);
    let owners = owners.filter_map(|port| world.lease(port).map(|lease| &lease.owner));
    let (mut pods, mut nodes) = (0_usize, 0_usize);
    let mut named = Vec::new();
    for owner in owners {
        let owner = match owner {
            PortOwner::Pod(key) => {
                pods += 1;
                format!("pod {key}")
            }
            PortOwner::Node(node) => {
                nodes += 1;
                format!("node {node}")
            }
        };
        if named.len() < USERS {
            named.push(owner);
        }
    }
    let more = match pods + nodes - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = match (pods, nodes) {
        (_, 0) => "pods",
        (0, _) => "nodes",
        _ => "pods and nodes",
    };
    format!(
        "addresses are in use by {}{more}; the Subnet goes when these {what} are deleted",
        named.join(", ")
    )
}

/// The annotation that lets the values in force survive a bad edit and a restart.
fn accepted_text(state: &SubnetState, uid: &SmolStr) -> Option<String> {
    let accepted = Accepted {
        uid: uid.clone(),
        spec: SubnetSpec::clone(state.spec.as_ref()?),
        namers: state.accepted_namers.clone(),
    };
    serde_json::to_string(&accepted).ok()
}

/// The Go implementation's conditions, with its reasons, and `Unsupported` where something has no effect.
fn conditions(state: &SubnetState, missing: &[&str]) -> Vec<Condition> {
    let works = match &state.in_force {
        Some(subnet) if !subnet.is_ovn() => "SetNonOvnSubnetSuccess",
        Some(subnet)
            if subnet.private && subnet.role != Role::Join && !missing.contains(&"private") =>
        {
            reason::SET_PRIVATE_LOGICAL_SWITCH_SUCCESS
        }
        _ => reason::RESET_LOGICAL_SWITCH_ACL_SUCCESS,
    };
    let mut conditions = match &state.refused {
        None => vec![
            Condition::new(condition_type::VALIDATED, true, works, ""),
            Condition::new(condition_type::READY, state.in_force.is_some(), works, ""),
            Condition {
                status: ConditionStatus::Unknown,
                ..Condition::new(condition_type::ERROR, false, reason::INIT, "Not Observed")
            },
        ],
        Some(problem) => {
            let failed = reason::VALIDATE_LOGICAL_SWITCH_FAILED;
            let why = &problem.message;
            let ready = if state.in_force.is_some() {
                let message = "the last valid spec stays in force";
                Condition::new(condition_type::READY, true, works, message)
            } else {
                Condition::new(condition_type::READY, false, failed, why)
            };
            vec![
                Condition::new(condition_type::VALIDATED, false, failed, why),
                ready,
                Condition::new(condition_type::ERROR, true, failed, why),
            ]
        }
    };
    if !missing.is_empty() {
        conditions.push(Condition::unsupported(missing));
    }
    conditions
}
