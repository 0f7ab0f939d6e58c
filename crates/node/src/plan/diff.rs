//! From plan and state to the operations that close the gap, in the order in which they must happen.

use std::collections::BTreeSet;
use std::fmt;

use net::Mac;
use smol_str::{SmolStr, format_smolstr};

use super::{NodePlan, NodeState, Route};
use crate::addr::IfAddr;

/// One step on the kernel of this node. Its `Display` is what the log and the golden tests show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelOp {
    Sysctl {
        key: SmolStr,
        value: SmolStr,
    },
    /// `None` = leave as it is.
    Link {
        name: SmolStr,
        mac: Option<Mac>,
        mtu: Option<u32>,
        tx_queue_len: Option<u32>,
        up: bool,
    },
    AddressAdd {
        link: SmolStr,
        address: IfAddr,
    },
    AddressDel {
        link: SmolStr,
        address: IfAddr,
    },
    /// Tell the neighbours (gratuitous ARP, unsolicited neighbour advertisement).
    Announce {
        link: SmolStr,
        mac: Mac,
        address: IfAddr,
    },
    RouteReplace(Route),
    RouteDel(Route),
    /// Replace our nftables table.
    Nft(String),
}

impl fmt::Display for KernelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { key, value } => write!(f, "sysctl {key}={value}"),
            Self::Link {
                name,
                mac,
                mtu,
                tx_queue_len,
                up,
            } => {
                write!(f, "link set {name}")?;
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                if let Some(len) = tx_queue_len {
                    write!(f, " txqueuelen {len}")?;
                }
                if *up {
                    write!(f, " up")?;
                }
                Ok(())
            }
            Self::AddressAdd { link, address } => write!(f, "address add {address} dev {link}"),
            Self::AddressDel { link, address } => write!(f, "address del {address} dev {link}"),
            Self::Announce { link, mac, address } => {
                write!(f, "announce {} is at {mac} on {link}", address.ip)
            }
            Self::RouteReplace(route) => write!(f, "route replace {route}"),
            Self::RouteDel(route) => write!(f, "route del {route}"),
            Self::Nft(text) => write!(f, "nft replace table ({} lines)", text.lines().count()),
        }
    }
}

/// Operations that turn `state` into `plan`. A plan equal to the state gives nothing.
///
/// A link of the plan that does not exist yet is left for the next round (OVS makes it, and the kernel's
/// notification brings us back here), and so is what depends on it.
pub fn diff(plan: &NodePlan, state: &NodeState) -> Vec<KernelOp> {
    let mut ops = Vec::new();
    // The rules come first: a packet that leaves before they are in place would show the pod's own address.
    if let Some(text) = &plan.nft
        && state.nft.as_ref() != Some(text)
    {
        ops.push(KernelOp::Nft(text.clone()));
    }
    sysctls(plan, state, &mut ops);
    for (name, want) in &plan.links {
        let Some(have) = state.links.get(name) else {
            continue;
        };
        let mac = (have.mac != Some(want.mac)).then_some(want.mac);
        let mtu = (have.mtu != want.mtu).then_some(want.mtu);
        let tx_queue_len = (have.tx_queue_len != want.tx_queue_len).then_some(want.tx_queue_len);
        if mac.is_some() || mtu.is_some() || tx_queue_len.is_some() || !have.up {
            ops.push(KernelOp::Link {
                name: name.clone(),
                mac,
                mtu,
                tx_queue_len,
                up: !have.up,
            });
        }
        for address in &want.addresses {
            if !have.addresses.contains(address) {
                ops.push(KernelOp::AddressAdd {
                    link: name.clone(),
                    address: *address,
                });
                ops.push(KernelOp::Announce {
                    link: name.clone(),
                    mac: want.mac,
                    address: *address,
                });
            }
        }
    }
    routes(plan, state, &mut ops);
    for (name, want) in &plan.links {
        let Some(have) = state.links.get(name) else {
            continue;
        };
        for address in &have.addresses {
            if !want.addresses.contains(address) && !address.is_link_local() {
                ops.push(KernelOp::AddressDel {
                    link: name.clone(),
                    address: *address,
                });
            }
        }
    }
    ops
}

fn sysctls(plan: &NodePlan, state: &NodeState, ops: &mut Vec<KernelOp>) {
    // A host that forwards IPv6 ignores router advertisements unless told otherwise, and would lose its own default
    // route (Linux: accept_ra=1 means "only while not forwarding", 2 means "also then").
    let forwarding = SmolStr::new_static("net/ipv6/conf/all/forwarding");
    if plan.sysctls.get(&forwarding).is_some_and(|v| v == "1")
        && state.sysctls.get(&forwarding).is_some_and(|v| v == "0")
    {
        for (link, value) in &state.accept_ra {
            if *value == 1 && !plan.links.contains_key(link) && link != "lo" {
                ops.push(KernelOp::Sysctl {
                    key: format_smolstr!("net/ipv6/conf/{link}/accept_ra"),
                    value: "2".into(),
                });
            }
        }
    }
    for (key, want) in &plan.sysctls {
        if state.sysctls.get(key).is_some_and(|have| have != want) {
            ops.push(KernelOp::Sysctl {
                key: key.clone(),
                value: want.clone(),
            });
        }
    }
}

fn routes(plan: &NodePlan, state: &NodeState, ops: &mut Vec<KernelOp>) {
    let Some(planned) = &plan.routes else { return };
    let mut elsewhere = BTreeSet::new();
    for found in &state.routes {
        if !plan.links.contains_key(&found.route.device) {
            elsewhere.insert(found.route.destination);
        }
    }
    // A destination that the host reaches by another interface of its own stays the host's.
    let wanted = |route: &Route| planned.contains(route) && !elsewhere.contains(&route.destination);
    let mut replaced = BTreeSet::new();
    for route in planned {
        let device = state.links.contains_key(&route.device);
        let present = state
            .routes
            .iter()
            .any(|found| found.route == *route && !found.by_kernel);
        if device && !present && wanted(route) {
            replaced.insert((&route.destination, &route.device));
            ops.push(KernelOp::RouteReplace(route.clone()));
        }
    }
    for found in &state.routes {
        let route = &found.route;
        if found.by_kernel || !plan.links.contains_key(&route.device) || wanted(route) {
            continue;
        }
        // `route replace` takes the place of the first route to the same destination with the same metric.
        let gone = found.metric == default_metric(found)
            && replaced.remove(&(&route.destination, &route.device));
        if !gone {
            ops.push(KernelOp::RouteDel(route.clone()));
        }
    }
}

/// The metric that the kernel gives to a route which names none.
fn default_metric(found: &super::RouteState) -> u32 {
    match found.route.destination.family() {
        net::Family::V4 => 0,
        net::Family::V6 => 1024,
    }
}
