//! The distributed gateway: pods leave the cluster through their own node.
//!
//! Pods of a subnet on a node are in one port group; OVN derives the address sets `<group>_ip4` and `<group>_ip6` from
//! it, and a policy sends what comes from them to the node's join address. The node forwards it, with its own address in
//! front if the subnet has `natOutgoing`.

use ovn::matching::{group_addresses, src_set};
use ovn::{Fragment, nb};
use smol_str::SmolStr;

use super::{Compiled, common, names, priority, reroute};
use crate::World;

pub(super) fn compile(subnet: &SmolStr, node: &SmolStr, world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    let distributed = world
        .subnet(subnet)
        .filter(|subnet| subnet.has_distributed_gateway(world.config()));
    let (Some(effective), Some(_)) = (distributed, world.node(node)) else {
        return compiled;
    };
    compiled.fragment = Fragment::new(format!("Subnet/{subnet}"));
    let fragment = &mut compiled.fragment;
    let group = names::gateway_group(world, subnet, node);
    fragment.rule("gateway").row(nb::PortGroup {
        name: group.clone(),
        external_ids: ovn::map([
            ("subnet", subnet.to_string()),
            ("node", node.to_string()),
            ("np", format!("{subnet}/{node}")),
        ]),
    });
    let (Some(lease), Some(_)) = (world.node_lease(node), world.join()) else {
        return compiled;
    };
    let router = nb::LogicalRouter::named(effective.vpc.clone());
    for family in common(&effective.cidrs, &lease.addresses) {
        let pods = src_set(family, &group_addresses(family, &group));
        if let (Ok(pods), Some(nexthop)) = (pods, lease.addresses.get(family)) {
            reroute(
                fragment,
                &router,
                priority::GATEWAY,
                pods,
                *nexthop,
                &[("subnet", subnet), ("node", node)],
            );
        }
    }
    compiled
}
