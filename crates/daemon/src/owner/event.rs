//! What reaches the owner, and what leaves it for others to read.

use api::view::{NodeView, PodKey, PodView};
use net::Cidr;
use node::linux::Noticed;
use node::ovs::Interface;
use node::plan::SubnetFacts;
use node::pod::PodNetwork;
use smol_str::SmolStr;
use tokio::sync::oneshot;

use crate::kernel::Report;
use crate::leftovers;

/// One change of a watched kind.
#[derive(Debug)]
pub enum Watch<T> {
    Apply(T),
    Delete(SmolStr, SmolStr),
    /// The complete list, by which everything else is gone.
    Replace(Vec<T>),
}

#[derive(Debug)]
pub enum Event {
    Pods(Watch<PodView>),
    Nodes(Watch<NodeView>),
    Subnets(Watch<SubnetFacts>),
    ServiceCidrs(Watch<(SmolStr, Vec<Cidr>)>),
    /// Trouble with a watch, or `None` = it works again.
    Api(&'static str, Option<String>),
    Kernel(Report),
    KernelChanged(Noticed),
    /// Whether every gateway of the join subnet answers; `Err` names one that does not.
    Gateway(Result<(), String>),
    Ask(Ask),
    /// Whether CNI requests can reach us.
    Cni(Result<(), String>),
    /// Whether the CNI configuration list is in its place.
    Conflist(Result<(), String>),
    /// The plan's own OVSDB transaction has ended.
    Committed(Result<(), String>),
    /// The Node was patched, or could not be.
    Patched(Result<(), String>),
    /// What a look at the pods' devices and namespaces found.
    Found(leftovers::Found),
    LeftoversRemoved,
}

/// A pod that is ready to be plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReady {
    pub uid: SmolStr,
    pub network: PodNetwork,
    pub mtu: u32,
    pub tx_checksum_off: bool,
}

/// Which pod, and which part of its annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodQuery {
    pub key: PodKey,
    /// Which pod of that name the runtime means; empty = it did not say.
    pub uid: SmolStr,
    pub provider: String,
    pub default_route: bool,
}

/// Requests of the CNI server. A reply whose receiver is gone is forgotten.
#[derive(Debug)]
pub enum Ask {
    /// Answered once the pod is ready.
    Pod(PodQuery, oneshot::Sender<PodReady>),
    /// Answered at once; `Err` says what the pod waits for.
    PodNow(PodQuery, oneshot::Sender<Result<PodReady, String>>),
    /// Answered, in words, once the pod is being deleted or is gone. A pod that was never there is not gone: the watch may
    /// be behind.
    PodGone(PodQuery, oneshot::Sender<String>),
    /// The pod's uid as far as it is known; an event without it is not shown with the pod.
    PodUid(PodKey, oneshot::Sender<SmolStr>),
    /// Put a device into `br-int`.
    Plug(Plug, oneshot::Sender<Result<(), String>>),
    /// Answered once OVN has the port's flows in place, or OVS says that it cannot be.
    Installed(SmolStr, oneshot::Sender<Result<(), String>>),
    /// Take devices out of OVS; also fine if they are not in it.
    Unplug(Vec<SmolStr>, oneshot::Sender<Result<(), String>>),
    Interface(SmolStr, oneshot::Sender<Option<Interface>>),
    /// Names of all host ends that are ours.
    PodInterfaces(oneshot::Sender<Vec<SmolStr>>),
    /// What STATUS reports: empty = pods can be attached.
    Unready(oneshot::Sender<Vec<String>>),
}

/// A [`PortSpec`] that owns its name.
#[derive(Debug, Clone)]
pub struct Plug {
    pub name: SmolStr,
    pub iface_id: SmolStr,
    pub pod: PodKey,
    pub netns: String,
    pub ip: SmolStr,
}

/// What others read: everything that is still missing, for `/readyz`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    pub waiting: Vec<String>,
    /// Kernel operations since the start.
    pub operations: u64,
    pub pods: usize,
    /// The CNI socket is there.
    pub serving: bool,
}
