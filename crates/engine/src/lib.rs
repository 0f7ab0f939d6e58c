//! The controller without its sockets.
//!
//! ```text
//!                    ┌───────────────────────── Engine (one owner, no async) ─────────────────────────┐
//!  watches ── Kube ─>│ Watches ─> World ─> dirty units ─> compile ─┬─> Diff (desired x replica) ─> Nb │─> transactions
//!  replicas ─ Nb/Sb >│    │         ^                              ├─> States ─────────────> Kube     │─> API writes
//!  answers ── Done ─>│    v         │ leases that are stored       └─> Notices ────────────> Notice   │─> events
//!  lease ── Lease ──>│ Ledger ─> Ipam <── ports (allocate, persist, program, announce, and back)      │
//!  time ──── Tick ──>└────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Engine::step`] takes one [`Event`] and the time, and returns [`Effect`]s. It has no sockets, no clock and no
//! chance: the same events at the same times give the same effects. Adapters carry effects out and report how they
//! ended; a simulator does both in virtual time.
//!
//! # What holds
//!
//! * **Order for a pod**: allocate, store the IP resource, commit its rows, and only then tell the pod. Back: rows, IP
//!   resource, address. See [`PortState`].
//! * **Barrier**: before every watch has listed, the replica is complete and the ledger is restored, nothing is
//!   allocated, written or deleted.
//! * **Fence**: every northbound transaction holds only under the epoch that this engine took. See the module `fence`.
//! * **Absence proves nothing at first**: a new leader gives nothing up before its watches have caught up with the moment
//!   at which it took its epoch. See the module `takeover`.
//! * **Standby is hot**: it computes everything, down to the pending transactions, and writes nothing.
//! * **Writes are level-triggered**: what an object should be is compared with what the API server last showed. A lost
//!   answer, a conflict and a restart are the same case: compare again.

// Pure: see clippy.toml.
#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::iter_over_hash_type
    )
)]

mod adopt;
mod allocate;
mod audit;
mod brakes;
mod chassis;
mod config;
mod effect;
mod event;
mod fence;
mod flush;
mod gate;
mod ips;
pub mod lease;
mod ledger;
mod missing;
mod notices;
mod objects;
mod ports;
mod recording;
mod report;
mod subnets;
mod takeover;
mod timers;
mod watches;
mod writes;

// Unit tests use the cluster in memory of the integration tests, which knows this crate by its name.
#[cfg(test)]
extern crate self as engine;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use api::v1::{Subnet, Vpc};
use api::view::{IpView, NodeView};
use fabric::{Change, PortName, Unit, World, compile};
use ipam::Ipam;
use jiff::Timestamp;
use net::{DualStack, Mac, RangeSet};
use smol_str::SmolStr;

pub use brakes::HeldDeletes;
pub use config::Config;
pub use effect::{CommitKind, Effect, EffectId, InUse, KubeWrite, LogLine, Notice, Part};
pub use event::{
    CommitOutcome, Event, Kind, KubeEvent, KubeOutcome, LeaseEvent, Object, ObjectKey, ReplicaEvent,
};
pub use fence::{EPOCH_KEY, LEADER_KEY, Role, fence};
pub use ports::PortState;
pub use report::{Report, SubnetReport};
pub use writes::Ended;

use audit::Audit;
use brakes::Brakes;
use flush::Nb;
use gate::Gate;
use ledger::Ledger;
use missing::Missing;
use notices::{Notices, Source};
use objects::States;
use ports::Port;
use takeover::Takeover;
use timers::Timers;
use watches::Watches;
use writes::Writes;

/// The whole controller as a value.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    /// Latest time that was told; never goes back.
    now: Timestamp,
    /// The id of the next effect.
    next: u64,
    role: Role,
    /// Whether the barrier has fallen. Never unset.
    open: bool,

    // What is known.
    watches: Watches,
    world: World,
    ipam: Ipam,
    ledger: Ledger,
    /// Subnets and Vpcs as the API server shows them, for comparison with what they should be.
    subnets: BTreeMap<SmolStr, Subnet>,
    vpcs: BTreeMap<SmolStr, Vpc>,
    /// InternalIPs of nodes, which no pod gets.
    node_addresses: DualStack<RangeSet>,

    // What follows from it.
    nb: Nb,
    sb: chassis::Sb,
    brakes: Brakes,
    missing: Missing,
    audit: Audit,
    gate: Gate,
    takeover: Takeover,
    /// MACs of router ports that an older installation made, until their Subnets remember them; kept by `note_adoption`.
    adopting: BTreeMap<SmolStr, Mac>,
    states: States,
    notices: Notices,
    ports: BTreeMap<PortName, Port>,
    /// Ports in the state `Waiting`; kept by `set_state`.
    waiting: BTreeSet<PortName>,

    // What is to be looked at.
    changes: Vec<Change>,
    dirty: BTreeSet<Unit>,
    todo_ports: BTreeSet<PortName>,
    todo: BTreeSet<ObjectKey>,
    /// Ports that wait for the database, and objects whose status does.
    in_nb: BTreeSet<PortName>,
    after_nb: BTreeSet<ObjectKey>,
    nb_changed: bool,
    /// An address became free: those who wait for one are looked at.
    freed: bool,
    nodes_changed: bool,

    // Writes and times.
    writes: Writes,
    status_at: BTreeMap<ObjectKey, Timestamp>,
    /// Status writes whose time has not come.
    later: Timers<ObjectKey>,
    wake: Option<Timestamp>,
    out: Vec<Effect>,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(mut config: Config, now: Timestamp) -> Self {
        config.fabric.cluster_uid = smol_str::format_smolstr!("{}", config.cluster);
        Self {
            nb: Nb::new(&config),
            world: World::new(config.fabric.clone()),
            ipam: Ipam::new(&config.fabric.cluster_uid),
            config,
            now,
            next: 0,
            role: Role::Standby,
            open: false,
            watches: Watches::default(),
            ledger: Ledger::default(),
            subnets: BTreeMap::new(),
            vpcs: BTreeMap::new(),
            node_addresses: DualStack::NONE,
            sb: chassis::Sb::default(),
            brakes: Brakes::default(),
            missing: Missing::default(),
            audit: Audit::default(),
            gate: Gate::default(),
            takeover: Takeover::default(),
            adopting: BTreeMap::new(),
            states: States::default(),
            notices: Notices::default(),
            ports: BTreeMap::new(),
            waiting: BTreeSet::new(),
            changes: Vec::new(),
            dirty: BTreeSet::new(),
            todo_ports: BTreeSet::new(),
            todo: BTreeSet::new(),
            in_nb: BTreeSet::new(),
            after_nb: BTreeSet::new(),
            nb_changed: false,
            freed: false,
            nodes_changed: false,
            writes: Writes::default(),
            status_at: BTreeMap::new(),
            later: Timers::default(),
            wake: None,
            out: Vec::new(),
        }
    }

    /// One event happens at `now`.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        self.step_all([event], now)
    }

    /// Several events happen at `now`, in this order; they are settled together.
    pub fn step_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Timestamp,
    ) -> Vec<Effect> {
        self.now = self.now.max(now);
        for event in events {
            self.take(event);
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Kube(KubeEvent::Asked { kind, id }) => self.watches.asked(kind, id),
            Event::Kube(KubeEvent::Begin(kind)) => {
                self.writes.listed(kind);
                self.watches.begin(kind);
            }
            Event::Kube(KubeEvent::Apply(object)) => {
                self.watches
                    .shown(object.key().kind, object.resource_version());
                self.apply(object);
            }
            Event::Kube(KubeEvent::Delete {
                key,
                resource_version,
            }) => {
                self.watches.shown(key.kind, &resource_version);
                if self.watches.delete(&key, &resource_version) {
                    self.heard_of(&key, false);
                    self.gone(&key);
                }
            }
            Event::Kube(KubeEvent::End(kind)) => {
                self.writes.listed(kind);
                let gone = self.watches.end(kind);
                self.end_of_list(kind, gone);
            }
            Event::Nb(event) => self.nb_event(event),
            Event::Sb(event) => self.sb_event(event),
            Event::KubeDone { id, outcome } => self.kube_done(id, outcome),
            Event::Committed { id, outcome } => {
                let _ = self.nb_done(id, &outcome) || self.sb_done(id, &outcome);
            }
            Event::Lease(lease) => self.lease(lease),
            // Whoever ticks early must be told again.
            Event::Tick => self.wake = None,
            Event::Inventory { id, in_use } => self.inventory(id, in_use),
            Event::ReleaseBrakes { rows } => self.release_brakes(rows),
        }
    }

    /// An object is as shown, unless something newer is known.
    pub(crate) fn apply(&mut self, object: Object) {
        if !self.watches.apply(&object) {
            return;
        }
        let key = object.key();
        self.heard_of(&key, true);
        self.writes.seen(&key, object.resource_version());
        match object {
            Object::Pod(pod) => {
                self.todo_ports.insert(pod.port_name());
                self.changes.push(Change::Pod(pod.key.clone(), Some(pod)));
            }
            Object::Node(node) => {
                self.todo_ports.insert(node.port_name());
                self.nodes_changed = true;
                self.changes
                    .push(Change::Node(node.name.clone(), Some(node)));
            }
            Object::Namespace(namespace) => {
                self.changes
                    .push(Change::Namespace(namespace.name.clone(), Some(namespace)));
            }
            Object::Subnet(subnet) => {
                // Ports may wait until this version is stored.
                self.freed = true;
                if key.name == self.config.fabric.join.name {
                    self.todo_ports
                        .extend(self.world.nodes().map(NodeView::port_name));
                }
                self.subnets.insert(key.name.clone(), (*subnet).clone());
                self.changes
                    .push(Change::Subnet(key.name.clone(), Some(subnet)));
            }
            Object::Vpc(vpc) => {
                self.vpcs.insert(key.name.clone(), (*vpc).clone());
                self.changes.push(Change::Vpc(key.name.clone(), Some(vpc)));
            }
            Object::Ip(ip) => match IpView::try_from(&*ip) {
                Ok(view) if view.addresses == DualStack::NONE => {
                    let fault = format!("IP {}: it names no address", view.name);
                    self.record(view, Some(fault));
                }
                Ok(view) => self.record(view, None),
                Err(error) => {
                    self.record(IpView::without_addresses(&ip), Some(error.to_string()));
                }
            },
        }
        self.touch(key);
    }

    /// An object is gone.
    fn gone(&mut self, key: &ObjectKey) {
        self.status_at.remove(key);
        self.later.cancel(key);
        self.writes.gone(key);
        self.notices
            .set(Source::Writes(key.to_string()), BTreeSet::new());
        let name = key.name.clone();
        match key.kind {
            Kind::Pod => {
                let pod = api::view::PodKey::new(key.namespace.clone(), name);
                self.todo_ports.insert(pod.port_name());
                self.changes.push(Change::Pod(pod, None));
            }
            Kind::Node => {
                self.todo_ports.insert(api::view::node_port_name(&name));
                self.nodes_changed = true;
                self.changes.push(Change::Node(name, None));
            }
            Kind::Namespace => self.changes.push(Change::Namespace(name, None)),
            Kind::Subnet => {
                self.subnets.remove(&name);
                self.changes.push(Change::Subnet(name, None));
            }
            Kind::Vpc => {
                self.vpcs.remove(&name);
                self.changes.push(Change::Vpc(name, None));
            }
            Kind::Ip => self.erase(&name),
        }
        self.touch(key.clone());
    }

    /// Works until nothing follows any more, then asks for what is to be done.
    fn settle(&mut self) {
        if self.role.until().is_some_and(|until| self.now >= until) {
            self.stop(Role::Standby, "the lease was not renewed in time");
        }
        self.absorb();
        if !self.open && self.is_complete() {
            self.open_barrier();
        }
        if self.open {
            self.end_takeover();
            self.work();
            self.audit();
            self.after_nb();
            self.work();
            self.flush();
            self.flush_sb();
            self.todo.extend(self.later.take_due(self.now));
            self.write_objects();
            if self.is_active() {
                let notices = self.notices.take();
                self.out.extend(notices.into_iter().map(Effect::Notice));
            }
        }
        self.set_timer();
    }

    /// Changes go into the world.
    fn absorb(&mut self) {
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            self.dirty.extend(self.world.apply_all(changes));
            if self.open {
                self.dirty.extend(self.world.settle());
            }
        }
        if std::mem::take(&mut self.nodes_changed) {
            self.note_node_addresses();
            self.sb.touch();
        }
    }

    /// Compiles dirty units and moves ports on, until neither gives the other anything to do.
    fn work(&mut self) {
        loop {
            self.absorb();
            for unit in std::mem::take(&mut self.dirty) {
                self.compile(&unit);
            }
            if std::mem::take(&mut self.freed) {
                self.place_again();
                self.wake_waiting();
            }
            if self.todo_ports.is_empty() {
                break;
            }
            for port in std::mem::take(&mut self.todo_ports) {
                self.advance(&port);
            }
        }
    }

    fn compile(&mut self, unit: &Unit) {
        let compiled = compile(unit, &self.world);
        self.nb.set(unit, compiled.fragment);
        for key in self.states.set(unit, compiled.desired) {
            self.touch(key);
        }
        let notices = compiled
            .problems
            .iter()
            .map(|problem| self.notice_of(problem))
            .collect();
        self.notices.set(Source::Unit(unit.clone()), notices);
        // Ports wait for these as well, and what is wanted may be there already.
        self.nb_changed |= !matches!(unit, Unit::Port(_) | Unit::Namespace(_));
        match unit {
            Unit::Subnet(name) => {
                self.note_adoption(name);
                self.sync_pool(name);
            }
            // Other subnets may be open to its pods now.
            Unit::Namespace(_) => self.wake_waiting(),
            Unit::Port(name) => drop(self.todo_ports.insert(name.clone())),
            Unit::Node(name) => drop(self.todo_ports.insert(api::view::node_port_name(name))),
            Unit::Global | Unit::Vpc(_) | Unit::Gateway { .. } => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.nb.is_synced() && self.watches.missing().next().is_none()
    }

    /// Every watch has listed and the replica is complete: the ledger is restored, and work begins.
    fn open_barrier(&mut self) {
        self.open = true;
        self.dirty.extend(self.world.settle());
        let subnets: Vec<SmolStr> = self.world.subnets().map(|s| s.name.clone()).collect();
        for subnet in &subnets {
            self.sync_pool(subnet);
        }
        self.restore(self.all_ports());
        self.dirty.extend(self.world.units());
        self.todo_ports.extend(self.all_ports());
        self.log(LogLine::Ready {
            leases: self.ledger.len(),
        });
    }

    fn lease(&mut self, event: LeaseEvent) {
        match (event, self.role) {
            (LeaseEvent::Standby, Role::Standby) => {}
            (LeaseEvent::Standby, _) => self.stop(Role::Standby, "the lease belongs to another"),
            (LeaseEvent::Leader { until }, Role::Leader { epoch, .. }) => {
                self.role = Role::Leader { until, epoch }
            }
            // Still fenced: this is the guarantee that we had when we lost the epoch.
            (LeaseEvent::Leader { until }, Role::Fenced { until: old }) if until <= old => {}
            (LeaseEvent::Leader { until }, _) => self.role = Role::Candidate { until },
        }
    }

    /// The epoch is ours: everything is looked at once.
    pub(crate) fn take_office(&mut self, epoch: u64) {
        let Role::Candidate { until } = self.role else {
            return;
        };
        // The replica is never behind the answer. If it is ahead of it, another one has taken office since.
        let found = self.nb.global.epoch();
        if found != epoch {
            let why = format!("the database is at epoch {found}, ours was {epoch}");
            self.stop(Role::Fenced { until }, &why);
            return;
        }
        self.role = Role::Leader { until, epoch };
        self.gate = Gate::default();
        self.log(LogLine::Leading { epoch });
        self.begin_takeover(epoch);
        let subnets: Vec<SmolStr> = self.subnets.keys().cloned().collect();
        for subnet in &subnets {
            self.note_adoption(subnet);
        }
        self.todo_ports.extend(self.all_ports());
        for kind in Kind::ALL {
            let keys: Vec<ObjectKey> = self.watches.of(kind).cloned().collect();
            self.todo.extend(keys);
        }
        self.todo.extend(self.states.create.keys().cloned());
    }

    /// Stops writing.
    pub(crate) fn stop(&mut self, role: Role, why: &str) {
        if self.role != role {
            self.log(LogLine::Stopped {
                why: why.to_owned(),
            });
        }
        self.role = role;
        self.writes.abandon();
        self.nb.abandon();
        self.sb.abandon();
        self.lift_brakes();
        self.gate = Gate::default();
        self.adopting.clear();
        self.forget_takeover();
        self.notices.forget_writes();
        self.status_at.clear();
        self.later.clear();
    }

    /// Whether this engine decides and writes.
    pub(crate) const fn is_active(&self) -> bool {
        self.open && matches!(self.role, Role::Leader { .. })
    }

    pub(crate) fn next_id(&mut self) -> EffectId {
        self.next += 1;
        EffectId(self.next)
    }

    /// Asks for the next tick, if that changed.
    fn set_timer(&mut self) {
        let now = self.now;
        let active = self.is_active();
        let times = [
            self.role.until(),
            // What is due is done by a leader alone, and then there is none left that is due.
            self.writes.next_due().filter(|_| active),
            self.later.next().filter(|_| active),
            self.nb.next_due(now),
            self.sb.next_due(now),
            self.audit_due(),
            self.gate.next_due(),
        ];
        let next = times.into_iter().flatten().min();
        if next != self.wake {
            self.wake = next;
            if let Some(at) = next {
                self.out.push(Effect::Wake(at));
            }
        }
    }
}
