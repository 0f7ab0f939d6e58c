//! What the kernel holds, as the plan's diff wants to see it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use net::Cidr;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use smol_str::{SmolStr, format_smolstr};

use super::netlink::{NetlinkError, Socket};
use super::nft::Firewall;
use super::{During, KernelError, sysctl};
use crate::plan::{LinkState, NodePlan, NodeState, Route, RouteState};

/// All links of the socket's namespace with their addresses.
pub fn links(socket: &mut Socket) -> Result<BTreeMap<SmolStr, LinkState>, NetlinkError> {
    let found = socket.links()?;
    let addresses = socket.addresses(None)?;
    Ok(found
        .into_iter()
        .map(|link| {
            let own = || addresses.iter().filter(|a| a.link == link.id);
            let state = LinkState {
                mac: link.mac,
                mtu: link.mtu,
                tx_queue_len: link.tx_queue_len,
                up: link.up,
                addresses: own().map(|a| a.address).collect(),
                passing: own().filter(|a| a.passing).map(|a| a.address.ip).collect(),
            };
            (link.name, state)
        })
        .collect())
}

/// Everything that `plan` may want to change. `socket` and the calling thread are in the node's namespace. Our nftables
/// table is read with `audit` only; it is expected to be as we left it otherwise.
pub fn observe(
    socket: &mut Socket,
    firewall: &Firewall,
    plan: &NodePlan,
    audit: bool,
) -> Result<NodeState, KernelError> {
    let reading = |what: &str| format!("reading {what} of the node");
    let found = socket.links().during(|| reading("links"))?;
    let names: BTreeMap<u32, SmolStr> = found.into_iter().map(|l| (l.id, l.name)).collect();
    let mut state = NodeState {
        links: links(socket).during(|| reading("links"))?,
        nft: firewall.current(audit),
        ..NodeState::default()
    };
    for message in socket.routes().during(|| reading("routes"))? {
        if let Some(route) = route_state(&message, &names) {
            state.routes.push(route);
        }
    }
    for key in plan.sysctls.keys() {
        if let Some(value) = sysctl::read(key).during(|| format!("reading sysctl {key}"))? {
            state.sysctls.insert(key.clone(), value.into());
        }
    }
    for name in state.links.keys() {
        let key = format_smolstr!("net/ipv6/conf/{name}/accept_ra");
        // A link may vanish between the listing and this.
        if let Ok(Some(value)) = sysctl::read(&key)
            && let Ok(value) = value.parse()
        {
            state.accept_ra.insert(name.clone(), value);
        }
    }
    Ok(state)
}

/// `None` for routes of a kind that the plan never has (multipath, without a device).
pub(super) fn route_state(
    message: &RouteMessage,
    names: &BTreeMap<u32, SmolStr>,
) -> Option<RouteState> {
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut destination, mut gateway, mut device, mut source, mut metric) =
        (any, None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => destination = ip(a)?,
            RouteAttribute::Gateway(a) => gateway = ip(a),
            RouteAttribute::Oif(id) => device = names.get(id),
            RouteAttribute::PrefSource(a) => source = ip(a),
            RouteAttribute::Priority(value) => metric = *value,
            _ => {}
        }
    }
    Some(RouteState {
        route: Route {
            destination: Cidr::new(destination, message.header.destination_prefix_length)?,
            gateway,
            device: device?.clone(),
            source,
        },
        by_kernel: matches!(
            message.header.protocol,
            RouteProtocol::Kernel | RouteProtocol::Ra
        ),
        metric,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
