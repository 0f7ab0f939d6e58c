//! The node plan: what the kernel and Open vSwitch of this node must hold, as a value.
//!
//! ```text
//!  NodeInputs ──compile()──> NodePlan ─┐
//!                                      ├─ diff() ─> [KernelOp], external ids, join port
//!  kernel, OVSDB ──observe──> NodeState┘
//! ```

mod compile;
mod diff;
mod facts;
mod nft;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use net::{Cidr, Mac};
use smol_str::SmolStr;

use crate::addr::IfAddr;

pub use compile::{Compiled, NodeConfig, NodeInputs, Waiting, compile};
pub use diff::{KernelOp, diff};
pub use facts::{GatewayType, JoinPort, NodeFacts, SubnetFacts};
pub use nft::{ACCEPT_FROM_PODS, ACCEPT_TO_PODS, MASQUERADE_MARK, NftInputs, TABLE, render};
pub use tunnel::{NetworkType, TunnelChoice, TunnelError, TunnelNic, choose_tunnel, pod_mtu};

/// The interface by which this node takes part in the join subnet.
pub const JOIN_INTERFACE: &str = "ovn0";
/// The integration bridge, made by ovn-controller.
pub const INTEGRATION_BRIDGE: &str = "br-int";
/// Transmit queue length of `ovn0` and of the host ends of pods (upstream's value).
pub const TX_QUEUE_LEN: u32 = 1000;
/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;

/// One route of the main table. Equality is over everything that we set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
    pub device: SmolStr,
    /// The source address for packets of this node itself (`src` of `ip route`).
    pub source: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.device)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        Ok(())
    }
}

/// What one of our own links must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    pub mac: Mac,
    pub mtu: u32,
    pub tx_queue_len: u32,
    /// All addresses but link-local ones; others are removed.
    pub addresses: BTreeSet<IfAddr>,
}

/// The `ovn0` port as OVS must hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPortPlan {
    /// Name of the logical switch port, `node-<node name>`.
    pub iface_id: SmolStr,
    pub mac: Mac,
    pub mtu: u32,
    /// `external_ids:ip`, the text of the Node's annotation.
    pub ip: SmolStr,
}

/// The desired state of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// Keys of `Open_vSwitch.external_ids` that are ours.
    pub open_vswitch: BTreeMap<SmolStr, SmolStr>,
    /// `None` while the controller has not given the node its join address.
    pub join_port: Option<JoinPortPlan>,
    pub links: BTreeMap<SmolStr, LinkPlan>,
    /// All static routes through our own links; others through them are removed. `None` = not known yet, leave what is
    /// there.
    pub routes: Option<BTreeSet<Route>>,
    /// Keys relative to `/proc/sys`, with `/` as separator. A key that does not exist is skipped.
    pub sysctls: BTreeMap<SmolStr, SmolStr>,
    /// The complete text of our nftables table; `None` = not known yet, leave what is there.
    pub nft: Option<String>,
}

/// What was found on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Every link of the namespace.
    pub links: BTreeMap<SmolStr, LinkState>,
    /// The main table: every unicast route, both families.
    pub routes: Vec<RouteState>,
    /// Values of the plan's keys, of those that exist.
    pub sysctls: BTreeMap<SmolStr, SmolStr>,
    /// `net/ipv6/conf/LINK/accept_ra` by link.
    pub accept_ra: BTreeMap<SmolStr, u8>,
    /// The table in the kernel is the one rendered from this text (see `linux::nft::Firewall`).
    pub nft: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub tx_queue_len: u32,
    pub up: bool,
    pub addresses: BTreeSet<IfAddr>,
    /// Those of `addresses` that the host itself would not use by choice: secondary ones (a virtual address that
    /// moves between hosts), temporary and deprecated ones (RFC 8981).
    pub passing: BTreeSet<IpAddr>,
}

/// A route that was found, with what tells ours from the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteState {
    pub route: Route,
    /// `proto kernel` (or `ra`): the kernel's own, never touched.
    pub by_kernel: bool,
    pub metric: u32,
}
