//! The loop that owns what the daemon knows.
//!
//! ```text
//!  watches: Nodes, own pods, Subnets ─────┐
//!  kernel thread: reports; monitor ───────┤ Event (bounded)        ┌─> kernel thread: Job{plan}
//!  CNI server: asks ──────────────────────┼────────────> Owner ────┼─> OVSDB transactions (spawned)
//!  gateway prober ────────────────────────┘                ^       ├─> Node annotation, condition (spawned)
//!  OVSDB session: rows of the node's Open vSwitch ─────────┘       ├─> replies to asks
//!                                                                  └─> readiness (watch channel)
//! ```
//!
//! Nothing here waits: whatever takes time is spawned or sent to a thread and comes back as an event.

mod asks;
mod changes;
mod event;
mod ready;
mod sweep;

pub use event::{Ask, Event, Plug, PodQuery, PodReady, Readiness, Watch};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use api::view::{NodeView, PodKey, PodView};
use asks::GoneWaiter;
use net::{Cidr, DualStack};
use node::ovs::OvsView;
use node::plan::{
    Compiled, JOIN_INTERFACE, LinkState, NodeConfig, NodeInputs, NodePlan, SubnetFacts,
    TunnelChoice, TunnelError, choose_tunnel, compile,
};
use ovsdb::client::{Events as OvsEvents, Handle};
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::{Condition, NodeWriter};
use crate::conflist::Conflist;
use crate::gateway::Gateways;
use crate::kernel::Job;
use crate::leftovers;
use crate::views::node_facts;

/// For one write to the Node.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at what others may have spoiled without the kernel telling.
const AUDIT: Duration = Duration::from_secs(30);
/// At least between two such looks when rules of the host change: kube-proxy may change its own all the time.
const RULES_CALM: Duration = Duration::from_secs(5);
/// The kernel thread's work takes milliseconds, programs that it starts included.
const STUCK: Duration = Duration::from_secs(30);
/// Between looks at the CNI configuration list, once pods can be attached.
const CONFLIST: Duration = Duration::from_secs(10);
/// And after one that failed.
const CONFLIST_RETRY: Duration = Duration::from_secs(1);
/// Between searches for leftovers when nothing hints at any.
const SWEEP: Duration = Duration::from_mins(1);

/// What the owner is given: its settings and its hands.
pub struct Parts {
    pub config: NodeConfig,
    pub node_name: SmolStr,
    pub jobs: blocking::Sender<Job>,
    pub ovs: Handle,
    pub events: mpsc::Sender<Event>,
    pub conflist: Option<Conflist>,
    pub gateways: Gateways,
    pub writer: NodeWriter,
    pub readiness: watch::Sender<Readiness>,
    pub busy: leftovers::Busy,
    /// For [`leftovers::judge`].
    pub patience: Duration,
    /// Where `ovs-ctl` keeps the chassis' name.
    pub system_id: PathBuf,
}

/// The state; see the module's diagram for who sends what.
pub struct Owner {
    parts: Parts,
    /// Written by the watch of Nodes.
    node: Option<NodeView>,
    other_nodes: BTreeMap<SmolStr, DualStack<IpAddr>>,
    /// Written by the watch of this node's pods (host-network pods are left out).
    pods: BTreeMap<PodKey, PodView>,
    pods_listed: bool,
    /// When the watch told that a pod was no more; not of mirrors of static pods. Kept for a while.
    went: BTreeMap<PodKey, Instant>,
    /// Written by the watch of Subnets.
    subnets: BTreeMap<SmolStr, SubnetFacts>,
    subnets_listed: bool,
    /// Written by the watch of ServiceCIDRs, where there are such.
    service_cidrs: BTreeMap<SmolStr, Vec<Cidr>>,
    /// Watches in trouble, by kind.
    api: BTreeMap<&'static str, String>,
    /// Written by the OVSDB session.
    ovs: OvsView,
    ovs_problem: Option<String>,
    /// A system-id of our own, when the database had none.
    new_system_id: Option<SmolStr>,
    /// Written by the kernel thread's reports.
    links: BTreeMap<SmolStr, LinkState>,
    /// The last plan that the kernel thread carried out without an error.
    reached: Option<Arc<NodePlan>>,
    kernel_error: Option<String>,
    operations: u64,
    /// The kernel thread has a job; after a failure it gets none before that time.
    kernel_busy: bool,
    kernel_since: Instant,
    kernel_retry: Instant,
    /// Something that the plan depends on has changed.
    stale: bool,
    /// Look at the kernel although the plan is the same.
    look: bool,
    audited: Instant,
    audit_due: Instant,
    /// The plan's OVSDB transaction is under way; after a failure none is sent before that time.
    ovs_busy: bool,
    ovs_error: Option<String>,
    ovs_retry: Instant,
    /// Result of the prober.
    gateway: Option<Result<(), String>>,
    /// The chassis and the condition last written, and whether a patch is under way. The watch shows them later, or not at
    /// all while it is broken.
    chassis: Option<SmolStr>,
    condition: Option<Condition>,
    patching: bool,
    patch_retry: Instant,
    /// Written by the CNI server.
    cni_problem: Option<String>,
    /// What became of the last look at the CNI configuration list.
    conflist: Option<Result<(), String>>,
    conflist_due: Instant,
    compiled: Compiled,
    pod_waiters: Vec<(PodQuery, oneshot::Sender<PodReady>)>,
    gone_waiters: Vec<GoneWaiter>,
    port_waiters: Vec<(SmolStr, oneshot::Sender<Result<(), String>>)>,
    /// Ports whose DEL came while there was no connection to OVS.
    unplug_later: BTreeSet<SmolStr>,
    sweep_due: Instant,
    sweeping: bool,
    /// Since when an interface's pod has been unknown to the API server.
    orphans: BTreeMap<SmolStr, Instant>,
    /// When ports of pods went that seemed to run and of which nobody had said that they were deleted.
    believed: Vec<Instant>,
    /// How many ports stay that belong to pods which the API server does not show, because they are too many.
    doubtful: usize,
    /// Since when a pod's device has had no port in OVS.
    unplugged: BTreeMap<SmolStr, Instant>,
}

impl Owner {
    pub fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            parts,
            node: None,
            other_nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            pods_listed: false,
            went: BTreeMap::new(),
            subnets: BTreeMap::new(),
            subnets_listed: false,
            service_cidrs: BTreeMap::new(),
            api: BTreeMap::new(),
            ovs: OvsView::default(),
            ovs_problem: Some("not connected yet".into()),
            new_system_id: None,
            links: BTreeMap::new(),
            reached: None,
            kernel_error: None,
            operations: 0,
            kernel_busy: false,
            kernel_since: now,
            kernel_retry: now,
            stale: true,
            look: true,
            audited: now,
            audit_due: now + AUDIT,
            ovs_busy: false,
            ovs_error: None,
            ovs_retry: now,
            gateway: None,
            chassis: None,
            condition: None,
            patching: false,
            patch_retry: now,
            cni_problem: Some("the CNI socket".into()),
            conflist: None,
            conflist_due: now,
            compiled: Compiled::default(),
            pod_waiters: Vec::new(),
            gone_waiters: Vec::new(),
            port_waiters: Vec::new(),
            unplug_later: BTreeSet::new(),
            sweep_due: now,
            sweeping: false,
            orphans: BTreeMap::new(),
            believed: Vec::new(),
            doubtful: 0,
            unplugged: BTreeMap::new(),
        }
    }

    /// Runs until cancelled.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut ovs_events: OvsEvents,
        stop: CancellationToken,
    ) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = events.recv() => Some(event),
                Some(event) = ovs_events.recv() => {
                    self.replica(event);
                    None
                }
                _ = tick.tick() => None,
            };
            // The effects of a transaction are in the replica's queue before its result is in ours. Reading the replica
            // first keeps that order: nobody plans on rows from before his own transaction.
            let mut next = first;
            loop {
                while let Some(event) = ovs_events.try_recv() {
                    self.replica(event);
                }
                // What is there already is taken along: a burst costs one look.
                match next {
                    Some(event) => self.handle(event),
                    None => break,
                }
                next = events.try_recv().ok();
            }
            self.step();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Pods(change) => self.pods_changed(change),
            Event::Nodes(change) => self.nodes_changed(change),
            Event::Subnets(change) => self.subnets_changed(change),
            Event::Api(kind, problem) => {
                match problem {
                    Some(problem) => self.api.insert(kind, problem),
                    None => self.api.remove(kind),
                };
            }
            Event::Kernel(report) => self.kernel(report),
            Event::ServiceCidrs(change) => self.service_cidrs_changed(change),
            Event::KernelChanged(noticed) => self.kernel_changed(noticed),
            Event::Gateway(result) => self.gateway = Some(result),
            Event::Ask(ask) => self.ask(ask),
            Event::Cni(reachable) => self.cni_problem = reachable.err(),
            Event::Conflist(result) => {
                self.conflist_due = Instant::now()
                    + if result.is_ok() {
                        CONFLIST
                    } else {
                        CONFLIST_RETRY
                    };
                self.conflist = Some(result);
            }
            Event::Committed(result) => {
                self.ovs_busy = false;
                self.ovs_error = result.err();
                if let Some(error) = &self.ovs_error {
                    warn!("Open vSwitch: {error}");
                    self.ovs_retry = Instant::now() + Duration::from_secs(1);
                }
            }
            Event::Patched(result) => {
                self.patching = false;
                if let Err(error) = result {
                    warn!("writing to the Node: {error}");
                    (self.chassis, self.condition) = (None, None);
                    self.patch_retry = Instant::now() + Duration::from_secs(5);
                }
            }
            Event::Found(found) => self.found(&found),
            Event::LeftoversRemoved => self.sweeping = false,
        }
    }

    /// Everything that follows from the state; called after each event, cheap when nothing follows.
    fn step(&mut self) {
        let now = Instant::now();
        self.compile();
        self.drive_kernel(now);
        self.drive_ovs(now);
        self.parts.gateways.probe(self.probed_gateways());
        self.drive_node(now);
        self.answer_waiters();
        self.drive_conflist(now);
        self.sweep(now);
        let waiting = self.waiting();
        let (operations, pods) = (self.operations, self.pods.len());
        let serving = self.cni_problem.is_none();
        self.parts.readiness.send_if_modified(|readiness| {
            let changed = readiness.waiting != waiting;
            if changed {
                if waiting.is_empty() {
                    info!("ready");
                } else {
                    info!("waiting for {}", waiting.join("; "));
                }
            }
            *readiness = Readiness {
                waiting,
                operations,
                pods,
                serving,
            };
            changed
        });
    }

    /// Nobody needs to say any more which datapath `br-int` is to use.
    fn datapath_known(&self) -> bool {
        self.ovs.has_integration_bridge()
            || self
                .ovs
                .external_ids()
                .is_some_and(|ids| ids.contains_key("ovn-bridge-datapath-type"))
    }

    fn compile(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        // Without its Node object the node keeps what it has.
        let Some(node) = &self.node else { return };
        let facts = node_facts(node);
        let choice = TunnelChoice::of(&facts, &self.parts.config);
        let tunnel = choose_tunnel(&choice, &self.links, self.parts.config.host_tunnel_src);
        let inputs = NodeInputs {
            config: &self.parts.config,
            node: &facts,
            other_nodes: &self
                .other_nodes
                .values()
                .flat_map(|ips| ips.iter().copied().collect::<Vec<_>>())
                .collect(),
            service_cidrs: &self.service_cidrs.values().flatten().copied().collect(),
            subnets: &self.subnets,
            subnets_listed: self.subnets_listed,
            tunnel: tunnel.as_ref().map_err(|e: &TunnelError| e),
            last_mtu: self.compiled.pod_mtu,
            local: &self
                .links
                .values()
                .flat_map(|link| link.addresses.iter().map(|a| a.ip))
                .collect(),
            datapath_type_set: self.datapath_known(),
        };
        let mut compiled = compile(&inputs);
        if compiled.plan.nft.is_none() {
            // Not known yet; what was applied before stays.
            compiled.plan.nft.clone_from(&self.compiled.plan.nft);
        }
        if let Some(id) = &self.new_system_id {
            compiled
                .plan
                .open_vswitch
                .insert("system-id".into(), id.clone());
        }
        self.compiled = compiled;
    }

    fn drive_kernel(&mut self, now: Instant) {
        let audit = now >= self.audit_due;
        let changed = self.reached.as_deref() != Some(&self.compiled.plan);
        if self.kernel_busy || now < self.kernel_retry || !(audit || changed || self.look) {
            return;
        }
        if audit {
            self.audited = now;
            self.audit_due = now + AUDIT;
        }
        self.look = false;
        let job = Job {
            plan: Arc::new(self.compiled.plan.clone()),
            audit,
        };
        self.kernel_busy = self.parts.jobs.send(job).is_ok();
        self.kernel_since = now;
    }

    fn drive_ovs(&mut self, now: Instant) {
        if self.ovs_problem.is_some() || self.ovs_busy || now < self.ovs_retry {
            return;
        }
        if self.ovs.external_ids().is_none() {
            return;
        }
        if self.ovs.system_id().is_none() && self.new_system_id.is_none() {
            match crate::chassis::known_or_new(&self.parts.system_id) {
                Ok(id) => self.new_system_id = Some(id),
                Err(error) => {
                    self.ovs_error = Some(error);
                    self.ovs_retry = now + Duration::from_secs(1);
                    return;
                }
            }
            self.stale = true;
            self.compile();
        }
        if self.node.is_none() {
            return;
        }
        let later = std::mem::take(&mut self.unplug_later);
        let mut ops = self.ovs.del_ports(later.iter().map(SmolStr::as_str));
        ops.extend(self.ovs.set_external_ids(&self.compiled.plan.open_vswitch));
        if let Some(join) = &self.compiled.plan.join_port
            && self.ovs.has_integration_bridge()
        {
            ops.extend(self.ovs.set_join_port(join));
        }
        if ops.is_empty() {
            // Whatever went wrong before, the database is as it should be.
            self.ovs_error = None;
            return;
        }
        self.ovs_busy = true;
        let (ovs, events) = (self.parts.ovs.clone(), self.parts.events.clone());
        tokio::spawn(async move {
            let result = ovs.transact(ops).await;
            let result = result.map(drop).map_err(|e| e.to_string());
            let _ = events.send(Event::Committed(result)).await;
        });
    }

    /// Gateways of the join subnet, once ovn0 is there to reach them by.
    fn probed_gateways(&self) -> Vec<IpAddr> {
        let Some(node) = &self.node else {
            return Vec::new();
        };
        match node_facts(node).join {
            Ok(join) if self.join_problem().is_none() => join
                .addresses
                .iter()
                .filter_map(|a| join.gateway.get(a.family()).copied())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Why ovn0 is not usable yet.
    fn join_problem(&self) -> Option<String> {
        let Some(plan) = self.compiled.plan.links.get(JOIN_INTERFACE) else {
            // Named among what the plan waits for.
            return Some("the join port".into());
        };
        match self.links.get(JOIN_INTERFACE) {
            None => Some(format!("interface {JOIN_INTERFACE} (made by ovs-vswitchd)")),
            Some(link) if !link.up || !plan.addresses.is_subset(&link.addresses) => {
                Some(format!("interface {JOIN_INTERFACE} to be configured"))
            }
            Some(_) => None,
        }
    }

    fn drive_node(&mut self, now: Instant) {
        let Some(node) = &self.node else { return };
        if self.patching || now < self.patch_retry {
            return;
        }
        let chassis = self
            .ovs
            .system_id()
            .filter(|id| node.annotation(api::keys::CHASSIS) != Some(id.as_str()))
            .filter(|id| self.chassis.as_ref() != Some(id))
            .cloned();
        let condition = match &self.gateway {
            Some(result) if self.join_problem().is_none() => Some(Condition::of(result)),
            _ => None,
        };
        let condition = condition.filter(|c| self.condition.as_ref() != Some(c));
        if chassis.is_none() && condition.is_none() {
            return;
        }
        if let Some(chassis) = &chassis {
            self.chassis = Some(chassis.clone());
        }
        if let Some(condition) = &condition {
            self.condition = Some(condition.clone());
        }
        self.patching = true;
        let (writer, events) = (self.parts.writer.clone(), self.parts.events.clone());
        tokio::spawn(async move {
            let write = writer.write(chassis, condition);
            let result = match timeout(WRITE_PATIENCE, write).await {
                Ok(result) => result,
                Err(_) => Err("the API server does not answer".into()),
            };
            let _ = events.send(Event::Patched(result)).await;
        });
    }

    /// Writes the CNI configuration list, by which the node becomes Ready, once ADD can be served.
    ///
    /// It is never taken away again. Without it the runtime could not end pods either, and a node that is not Ready loses
    /// its pods after five minutes, whose network works; as long as ADD cannot be served, the plugin says so, and the
    /// kubelet tries again.
    fn drive_conflist(&mut self, now: Instant) {
        let Some(conflist) = &self.parts.conflist else {
            return;
        };
        if now < self.conflist_due || !self.unready().is_empty() {
            return;
        }
        // Until it has been looked at.
        self.conflist_due = now + STUCK;
        let (conflist, events) = (conflist.clone(), self.parts.events.clone());
        tokio::task::spawn_blocking(move || {
            let path = conflist.path().display();
            let result = match conflist.install() {
                Ok(wrote) => {
                    if wrote {
                        info!("wrote {path}");
                    }
                    Ok(())
                }
                Err(error) => {
                    warn!("writing {path}: {error}");
                    Err(format!("the CNI configuration list {path}: {error}"))
                }
            };
            let _ = events.blocking_send(Event::Conflist(result));
        });
    }
}
