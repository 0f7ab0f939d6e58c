//! Nodes: their port in the join switch and the way to them.

use api::keys;
use ovn::matching::{dst, group_addresses, src_set};
use ovn::{Fragment, nb};
use smol_str::SmolStr;

use super::{Compiled, common, names, port, priority, reroute};
use crate::problem::reason;
use crate::{Kind, ObjectRef, Problem, World};
use net::{Family, HasFamily};

pub(super) fn compile(name: &SmolStr, world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    let Some(node) = world.node(name) else {
        return compiled;
    };
    compiled
        .problems
        .extend(world.layout().node_conflicts.get(name).cloned());
    compiled.fragment = Fragment::new(format!("Node/{name}"));
    let fragment = &mut compiled.fragment;
    let group = names::node_group(world, name);
    fragment.rule("pods").row(nb::PortGroup {
        name: group.clone(),
        external_ids: ovn::map([("node", name.to_string()), ("np", format!("node/{name}"))]),
    });
    if let Some(problem) = world.layout().blocked_nodes.get(name) {
        compiled.problems.push(problem.clone());
        return compiled;
    }
    let (Some(lease), Some(join)) = (world.node_lease(name), world.join()) else {
        return compiled;
    };
    fragment.rule("port").child(
        &nb::LogicalSwitch::named(join.name.clone()),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: node.port_name(),
            addresses: ovn::set([port::addresses(lease)]),
            external_ids: ovn::map([("ls", join.name.clone())]),
            ..Default::default()
        },
    );
    let router = nb::LogicalRouter::named(join.vpc.clone());
    fragment.rule("way to the node");
    for family in common(&node.internal_ips, &lease.addresses) {
        let (Some(address), Some(nexthop)) =
            (node.internal_ips.get(family), lease.addresses.get(family))
        else {
            continue;
        };
        if let Some(owner) = world.node_at(*address).filter(|owner| owner.name != *name) {
            compiled.problems.push(Problem::new(
                ObjectRef::cluster(Kind::Node, name.clone()),
                reason::DUPLICATE_ADDRESS,
                format!(
                    "node {} has the address {address} as well, and is taken to be the one; delete the Node that is no longer there",
                    owner.name
                ),
            ));
            continue;
        }
        reroute(
            fragment,
            &router,
            priority::NODE,
            dst(*address),
            *nexthop,
            &[("node", name), ("address-family", number(family))],
        );
    }
    fragment.rule("node-local DNS");
    for server in &world.config().node_local_dns {
        let family = server.family();
        let pods = src_set(family, &group_addresses(family, &group));
        if let (Ok(pods), Some(nexthop)) = (pods, lease.addresses.get(family)) {
            reroute(
                fragment,
                &router,
                priority::NODE,
                pods.and(dst(*server)),
                *nexthop,
                &[
                    ("node", name),
                    ("address-family", number(family)),
                    ("isLocalDnsCache", keys::TRUE),
                ],
            );
        }
    }
    compiled
}

/// How the Go implementation writes a family into `external_ids`.
const fn number(family: Family) -> &'static str {
    match family {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}
