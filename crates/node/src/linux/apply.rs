//! Executes the operations of a node plan.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::announce::announce;
use super::netlink::{NetlinkError, Socket};
use super::nft::Firewall;
use super::observe::route_state;
use super::route::{LinkChange, LinkId};
use super::{During, KernelError, sysctl};
use crate::plan::{KernelOp, Route};

/// Executes one operation in the calling thread's namespace, in which `socket` was opened too. Each can be repeated.
pub fn apply(
    socket: &mut Socket,
    firewall: &mut Firewall,
    op: &KernelOp,
) -> Result<(), KernelError> {
    let what = || op.to_string();
    match op {
        KernelOp::Sysctl { key, value } => sysctl::write(key, value).during(what),
        KernelOp::Link {
            name,
            mac,
            mtu,
            tx_queue_len,
            up,
        } => {
            let id = find(socket, name).during(what)?;
            let change = LinkChange {
                mac: *mac,
                mtu: *mtu,
                tx_queue_len: *tx_queue_len,
                up: up.then_some(true),
                ..LinkChange::default()
            };
            socket.set_link(id, &change).during(what)
        }
        KernelOp::AddressAdd { link, address } => {
            let id = find(socket, link).during(what)?;
            socket.add_address(id, *address).during(what)
        }
        KernelOp::AddressDel { link, address } => {
            let id = find(socket, link).during(what)?;
            socket.del_address(id, *address).during(what)
        }
        KernelOp::Announce { link, mac, address } => {
            let id = find(socket, link).during(what)?;
            announce(id, *mac, address.ip).during(what)
        }
        KernelOp::RouteReplace(route) => replace_route(socket, route).during(what),
        KernelOp::RouteDel(route) => del_route(socket, route).during(what),
        KernelOp::Nft(text) => firewall.replace(text),
    }
}

fn find(socket: &mut Socket, name: &str) -> Result<LinkId, NetlinkError> {
    socket
        .link(name)?
        .map(|link| link.id)
        .ok_or_else(|| NetlinkError::Kernel(std::io::Error::from_raw_os_error(nix::libc::ENODEV)))
}

fn replace_route(socket: &mut Socket, route: &Route) -> Result<(), NetlinkError> {
    let link = find(socket, &route.device)?;
    match route.gateway {
        Some(gateway) => socket.replace_route(link, Some(route.destination), gateway, route.source),
        // On-link routes are the kernel's: they come with the address.
        None => Ok(()),
    }
}

/// Deletes the route that was found, as it was found: the kernel compares all that is given.
fn del_route(socket: &mut Socket, route: &Route) -> Result<(), NetlinkError> {
    let names: BTreeMap<u32, SmolStr> = socket
        .links()?
        .into_iter()
        .map(|link| (link.id, link.name))
        .collect();
    for message in socket.routes()? {
        if route_state(&message, &names)
            .is_some_and(|found| found.route == *route && !found.by_kernel)
        {
            socket.del_route(message)?;
        }
    }
    Ok(())
}
