//! Logical routers.

use api::v1::{Condition, VpcStatus, condition_type, reason, unsupported};
use ovn::{Fragment, nb};
use smol_str::{SmolStr, ToSmolStr};

use super::Compiled;
use crate::problem::reason as ours;
use crate::{Effective, Kind, KubeState, ObjectRef, Problem, VpcWrites, World};

pub(super) fn compile(name: &SmolStr, world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    let is_default = *name == world.config().cluster_router;
    let record = world.vpc(name);
    let subnets: Vec<&Effective> = world
        .subnets()
        .filter(|subnet| subnet.is_ovn() && subnet.vpc == *name)
        .collect();
    // The cluster's own router must not wait for its resource; others live as long as theirs, or as a Subnet needs them.
    let wanted = is_default || !subnets.is_empty() || record.is_some_and(|record| !record.deleting);
    if wanted {
        compiled.fragment = Fragment::new(format!("Vpc/{name}"));
        let router = compiled.fragment.rule("router").row(nb::LogicalRouter {
            name: name.clone(),
            options: ovn::map([
                // Neighbours that do not speak are forgotten after so many seconds.
                ("mac_binding_age_threshold", "300"),
                // Learn neighbours when they are needed, not all of them from all routers.
                ("dynamic_neigh_routers", "true"),
                ("always_learn_from_arp_request", "false"),
            ]),
            ..Default::default()
        });
        if is_default && let Some(join) = world.join() {
            // Policies are looked at only after a route was found; this one is found by everything that leaves.
            compiled.fragment.rule("default route");
            for (family, gateway) in join.gateways.by_family() {
                let route = nb::LogicalRouterStaticRoute {
                    ip_prefix: match family {
                        net::Family::V4 => SmolStr::new_static("0.0.0.0/0"),
                        net::Family::V6 => SmolStr::new_static("::/0"),
                    },
                    nexthop: gateway.to_smolstr(),
                    policy: Some(nb::LogicalRouterStaticRoutePolicy::DstIp),
                    ..Default::default()
                };
                compiled
                    .fragment
                    .child(&router, nb::LogicalRouter::STATIC_ROUTES, route);
            }
        }
    }
    let Some(record) = record else {
        return compiled;
    };
    let mut conditions = Vec::new();
    if record.deleting && !subnets.is_empty() {
        let names: Vec<&str> = subnets.iter().map(|subnet| subnet.name.as_str()).collect();
        let why = format!(
            "the VPC is deleted when its Subnets are gone: {}",
            names.join(", ")
        );
        conditions.push(Condition::new(
            condition_type::TERMINATING,
            true,
            ours::ADDRESSES_IN_USE,
            &why,
        ));
        compiled.problems.push(Problem::new(
            ObjectRef::cluster(Kind::Vpc, name.clone()),
            ours::ADDRESSES_IN_USE,
            why,
        ));
    }
    let mut names: Vec<String> = subnets
        .iter()
        .map(|subnet| subnet.name.to_string())
        .collect();
    names.sort_unstable();
    let default_subnet = match (is_default, record.default_subnet.as_str()) {
        (true, "") => world.config().default_subnet.name.to_string(),
        (_, subnet) => subnet.to_owned(),
    };
    let missing = unsupported(&record.spec);
    if !missing.is_empty() {
        let unsupported = Condition::unsupported(&missing);
        compiled.problems.push(Problem::new(
            ObjectRef::cluster(Kind::Vpc, name.clone()),
            reason::FIELDS_NOT_SUPPORTED,
            unsupported.message.clone(),
        ));
        conditions.push(unsupported);
    }
    compiled.desired.push(KubeState::Vpc(Box::new(VpcWrites {
        name: name.clone(),
        status: VpcStatus {
            conditions,
            standby: true,
            default: is_default,
            default_logical_switch: default_subnet,
            router: name.to_string(),
            subnets: names,
            ..record.status.clone()
        },
        finalizer: !record.deleting || !subnets.is_empty(),
    })));
    compiled
}
