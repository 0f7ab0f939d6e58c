//! Pods' ports.
//!
//! A port and its memberships are one fragment, so that one transaction carries them: no pod is reachable before its
//! policies see it, and none sends before it has a way out.

use api::keys;
use ovn::{Fragment, nb};
use smol_str::{SmolStr, SmolStrBuilder};

use super::{Compiled, names};
use crate::{PortLease, PortOwner, World};

pub(super) fn compile(name: &SmolStr, world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    let Some(lease) = world.lease(name) else {
        return compiled;
    };
    let PortOwner::Pod(key) = &lease.owner else {
        return compiled;
    };
    let pod = world.pod(key).filter(|_| world.wants_port(key));
    let subnet = world.subnet(&lease.subnet).filter(|subnet| subnet.is_ovn());
    let (Some(pod), Some(subnet)) = (pod, subnet) else {
        return compiled;
    };
    compiled.fragment = Fragment::new(format!("Pod/{key}"));
    let fragment = &mut compiled.fragment;
    let addresses = addresses(lease);
    let port_security = if pod.annotation(keys::PORT_SECURITY) == Some(keys::TRUE) {
        ovn::set([addresses.clone()])
    } else {
        ovn::set::<SmolStr>([])
    };
    let port = fragment.rule("port").child(
        &nb::LogicalSwitch::named(subnet.name.clone()),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: name.clone(),
            addresses: ovn::set([addresses]),
            port_security,
            external_ids: ovn::map([
                ("ls", subnet.name.clone()),
                ("pod", smol_str::format_smolstr!("{key}")),
            ]),
            ..Default::default()
        },
    );
    let config = world.config();
    let Some(node) = pod.node.as_ref().filter(|node| world.node(node).is_some()) else {
        return compiled;
    };
    if subnet.is_in_default_vpc(config) {
        let group = nb::PortGroup::named(names::node_group(world, node));
        fragment.member(&group, nb::PortGroup::PORTS, &port);
    }
    if subnet.has_distributed_gateway(config) {
        let group = nb::PortGroup::named(names::gateway_group(world, &subnet.name, node));
        fragment.member(&group, nb::PortGroup::PORTS, &port);
    }
    compiled
}

/// `<mac> <v4> <v6>`, as OVN reads the addresses of a port.
pub(super) fn addresses(lease: &PortLease) -> SmolStr {
    use std::fmt::Write as _;
    let mut text = SmolStrBuilder::new();
    // Writing to a builder cannot fail.
    let _ = write!(text, "{}", lease.mac);
    for address in lease.addresses {
        let _ = write!(text, " {address}");
    }
    text.finish()
}
