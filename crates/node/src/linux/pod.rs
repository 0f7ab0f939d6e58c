//! A pod's veth pair: made, configured, checked, removed.
//!
//! The order matters to what others may observe. [`attach`] makes both ends and leaves the pod's end down; OVS then gets
//! the port and OVN installs its flows; only after that [`set_up`] gives the pod its link and addresses, so that nothing
//! in the pod ever talks past its policies.

use std::io;
use std::net::IpAddr;

use net::Family;
use nix::libc;
use smol_str::SmolStr;

use super::announce::announce;
use super::netlink::{NetlinkError, Socket};
use super::route::{LinkChange, LinkId};
use super::{During, KernelError, NetNs, ethtool, sysctl};
use crate::addr::IfAddr;
use crate::pod::{Identity, PodNic};

/// Makes the veth pair. A leftover of the same name (an earlier attempt for the same sandbox) is replaced.
///
/// Afterwards the host end is up, and the pod's end has its name, MAC and MTU and is down.
pub fn attach(
    host: &mut Socket,
    netns: &NetNs,
    nic: &PodNic,
    identity: &Identity,
) -> Result<(), KernelError> {
    remove_device(host, &nic.host)?;
    let what = || format!("creating veth {} for {}", nic.host, netns.path().display());
    let made = host.add_veth(
        &nic.host,
        &nic.container,
        netns.raw_fd(),
        nic.mtu,
        Some(nic.mac),
    );
    made.during(what)?;
    finish_attach(host, netns, nic, identity).inspect_err(|_| {
        let _ = remove_device(host, &nic.host);
    })
}

fn finish_attach(
    host: &mut Socket,
    netns: &NetNs,
    nic: &PodNic,
    identity: &Identity,
) -> Result<(), KernelError> {
    let what = || format!("preparing {}", nic.host);
    let link = host
        .link(&nic.host)
        .during(what)?
        .ok_or_else(|| missing(&nic.host))?;
    let alias = identity.alias();
    let change = LinkChange {
        tx_queue_len: Some(nic.tx_queue_len),
        up: Some(true),
        alias: alias.as_deref(),
        ..LinkChange::default()
    };
    // The host end needs no address of its own; without this it would send router solicitations into OVN.
    lenient(sysctl::write(
        &format!("net/ipv6/conf/{}/disable_ipv6", nic.host),
        "1",
    ))
    .during(what)?;
    host.set_link(link.id, &change).during(what)?;
    netns.run(|| prepare_inside(nic)).during(what)?
}

/// Inside the pod: rename, alias, checksums. Runs on a thread that is in the pod's namespace.
fn prepare_inside(nic: &PodNic) -> Result<(), KernelError> {
    let what = || format!("preparing {} in the pod", nic.ifname);
    let mut pod = Socket::open().during(what)?;
    if nic.tx_checksum_off {
        ethtool::tx_checksum_off(&nic.container)
            .during(|| format!("switching off transmit checksum offload of {}", nic.ifname))?;
    }
    let link = pod
        .link(&nic.container)
        .during(what)?
        .ok_or_else(|| missing(&nic.container))?;
    let change = LinkChange {
        alias: Some(&nic.container),
        name: Some(&nic.ifname),
        ..LinkChange::default()
    };
    pod.set_link(link.id, &change).during(what)
}

/// Inside the pod: link up, addresses, routes, announcements. Can be repeated.
pub fn set_up(netns: &NetNs, nic: &PodNic) -> Result<(), KernelError> {
    netns
        .run(|| set_up_inside(nic))
        .during(|| format!("entering {}", netns.path().display()))?
}

fn set_up_inside(nic: &PodNic) -> Result<(), KernelError> {
    let what = |step: &str| format!("{step} on {} in the pod", nic.ifname);
    let v6 = nic
        .addresses
        .iter()
        .any(|address| address.family() == Family::V6);
    if v6 {
        enable_ipv6(&nic.ifname)?;
    }
    let mut pod = Socket::open().during(|| what("netlink"))?;
    let link = pod
        .link(&nic.ifname)
        .during(|| what("link"))?
        .ok_or_else(|| missing(&nic.ifname))?;
    if let Some(lo) = pod.link("lo").during(|| what("lo"))?
        && !lo.up
    {
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        pod.set_link(lo.id, &up).during(|| what("lo up"))?;
    }
    let change = LinkChange {
        mac: (link.mac != Some(nic.mac)).then_some(nic.mac),
        mtu: (nic.mtu > 0 && link.mtu != nic.mtu).then_some(nic.mtu),
        up: Some(true),
        ..LinkChange::default()
    };
    pod.set_link(link.id, &change).during(|| what("link up"))?;
    let existing = pod
        .addresses(Some(link.id))
        .during(|| what("reading addresses"))?;
    for found in existing {
        let address = found.address;
        if !nic.addresses.contains(&address) && !address.is_link_local() {
            pod.del_address(link.id, address)
                .during(|| what("removing a stale address"))?;
        }
    }
    for address in &nic.addresses {
        pod.add_address(link.id, *address)
            .during(|| what(&format!("address {address}")))?;
    }
    for route in &nic.routes {
        let text = route
            .destination
            .map_or("default".into(), |d| d.to_string());
        pod.replace_route(link.id, route.destination, route.gateway, None)
            .during(|| what(&format!("route {text} via {}", route.gateway)))?;
    }
    for address in &nic.addresses {
        // The neighbours learn by themselves in time; an announcement that fails is not worth a pod.
        let _ = announce(link.id, nic.mac, address.ip);
    }
    Ok(())
}

/// Container runtimes start pods with IPv6 off. Router advertisements stay off: addresses come from the controller.
fn enable_ipv6(ifname: &str) -> Result<(), KernelError> {
    for scope in ["all", "default", ifname] {
        for key in ["disable_ipv6", "accept_ra"] {
            let key = format!("net/ipv6/conf/{scope}/{key}");
            lenient(sysctl::write(&key, "0")).during(|| format!("sysctl {key}=0 in the pod"))?;
        }
    }
    Ok(())
}

/// A container's `/proc/sys` may be read-only; then the runtime is in charge of these.
fn lenient(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// CNI CHECK: is the interface as it should be? The error names the first difference.
pub fn check(host: &mut Socket, netns: &NetNs, nic: &PodNic) -> Result<(), KernelError> {
    let what = || format!("checking {}", nic.ifname);
    let end = host
        .link(&nic.host)
        .during(what)?
        .ok_or_else(|| missing(&nic.host))?;
    if !end.up {
        return Err(KernelError::Mismatch(format!("{} is down", nic.host)));
    }
    netns.run(|| check_inside(nic, end.id)).during(what)?
}

fn check_inside(nic: &PodNic, host_end: LinkId) -> Result<(), KernelError> {
    let what = || format!("checking {} in the pod", nic.ifname);
    let differs = |text: String| Err(KernelError::Mismatch(text));
    let name = &nic.ifname;
    let mut pod = Socket::open().during(what)?;
    let link = pod.link(name).during(what)?.ok_or_else(|| missing(name))?;
    if link.peer != Some(host_end) {
        return differs(format!("{name} is not the other end of {}", nic.host));
    }
    if !link.up || !link.carrier {
        return differs(format!("{name} is down"));
    }
    if link.mac != Some(nic.mac) {
        return differs(format!("{name} does not have the MAC {}", nic.mac));
    }
    let addresses: Vec<IfAddr> = pod
        .addresses(Some(link.id))
        .during(what)?
        .into_iter()
        .map(|found| found.address)
        .collect();
    if let Some(address) = nic.addresses.iter().find(|a| !addresses.contains(a)) {
        return differs(format!("{name} does not have the address {address}"));
    }
    let routes = pod.routes().during(what)?;
    let names = [(link.id, name.clone())].into();
    for route in &nic.routes {
        let any = match route.family {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 => IpAddr::from([0; 16]),
        };
        let found = routes
            .iter()
            .filter_map(|message| super::observe::route_state(message, &names))
            .any(|found| {
                found.route.gateway == Some(route.gateway)
                    && match route.destination {
                        Some(destination) => found.route.destination == destination,
                        None => {
                            found.route.destination.network() == any
                                && found.route.destination.prefix_len() == 0
                        }
                    }
            });
        if !found {
            return differs(format!("{name} has no route via {}", route.gateway));
        }
    }
    Ok(())
}

/// Removes a link if it is there; with a veth the other end goes too.
pub fn remove_device(socket: &mut Socket, name: &str) -> Result<(), KernelError> {
    let what = || format!("removing {name}");
    let Some(link) = socket.link(name).during(what)? else {
        return Ok(());
    };
    match socket.del_link(link.id) {
        Err(e) if e.is_not_found() => Ok(()),
        other => other.during(what),
    }
}

/// Host ends that carry the identity of a pod.
pub fn pod_devices(socket: &mut Socket) -> Result<Vec<(SmolStr, Identity)>, KernelError> {
    let links = socket.links().during(|| "reading links".into())?;
    Ok(links
        .into_iter()
        .filter_map(|link| Some((link.name, Identity::from_alias(&link.alias)?)))
        .collect())
}

/// Is there a link of this name?
pub fn device_exists(socket: &mut Socket, name: &str) -> Result<bool, KernelError> {
    Ok(socket
        .link(name)
        .during(|| format!("looking for {name}"))?
        .is_some())
}

fn missing(name: &str) -> KernelError {
    KernelError::Netlink {
        what: format!("interface {name}"),
        source: NetlinkError::Kernel(io::Error::from_raw_os_error(libc::ENODEV)),
    }
}
