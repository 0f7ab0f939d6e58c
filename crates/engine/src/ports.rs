//! The life of a port: a pod's or a node's logical switch port, its addresses, and what Kubernetes is told of them.
//!
//! ```text
//!            allocate           IP resource stored      NB acknowledged         patch stored
//!  Waiting ────────────> Persisting ────────────> Programming ─────────> Announcing ────────> Ready
//!                                                      │                      │                 │
//!                                                      └──────── owner gone ──┴─────────────────┘
//!                                                                     v
//!        (address free again) <──────────────────── Forgetting <── Withdrawing
//!                              IP resource gone            NB acknowledged
//! ```
//!
//! The state is worked out anew from facts each time that a port is looked at (does its owner live, what does the ledger
//! say, are its rows in the replica, what do the annotations say): a crash between any two effects therefore needs no
//! code of its own, and no state is trusted that a fact contradicts. The enum says which effect comes next, and why.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::view::{IpView, PodKey, PodView};
use fabric::{Change, PortLease, PortName, PortOwner, Problem};
use net::{DualStack, Mac};
use smol_str::SmolStr;

use crate::Engine;
use crate::effect::{Effect, LogLine, Notice};
use crate::event::{Kind, ObjectKey};
use crate::ledger::{Standing, contradicts};
use crate::notices::Source;

/// The reason of an event about a record that nobody can read.
const UNREADABLE: &str = "InvalidIP";
/// Reason of the event about annotations of a running pod that ask for something else than it has.
const ADDRESS_KEPT: &str = "AddressKept";

/// Where a port stands. In brackets: what moves it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortState {
    /// It wants addresses and has none. [Its subnet, its namespace, its annotations or a freed address; leadership.]
    Waiting,
    /// Addresses are taken in memory; the IP resource is being stored. [The answer of the API server, or the watch.]
    Persisting,
    /// The ledger has it; the rows are on their way. [The database's acknowledgement.]
    Programming,
    /// The rows are in; the pod or node is being told. [The answer of the API server, or the watch.]
    Announcing,
    /// Everything is as it should be.
    Ready,
    /// The owner is gone; the rows are being removed. [The database's acknowledgement.]
    Withdrawing,
    /// The rows are gone; the IP resource is being removed. [The answer of the API server, or the watch.]
    Forgetting,
}

impl PortState {
    /// All, in the order of a port's life.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Persisting,
        Self::Programming,
        Self::Announcing,
        Self::Ready,
        Self::Withdrawing,
        Self::Forgetting,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Persisting => "persisting",
            Self::Programming => "programming",
            Self::Announcing => "announcing",
            Self::Ready => "ready",
            Self::Withdrawing => "withdrawing",
            Self::Forgetting => "forgetting",
        }
    }
}

/// What the engine keeps of a port besides the world, the ledger and the allocator.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) state: PortState,
}

impl Engine {
    /// Looks at one port, and does or asks for what comes next.
    pub(crate) fn advance(&mut self, name: &PortName) {
        let owner = self.owner_of(name);
        if self.is_doubtful(name, owner.as_ref()) {
            return;
        }
        let record = self
            .ledger
            .get(name)
            .map(|r| (r.ip.clone(), r.standing.clone()));
        match (owner, record) {
            (Some(owner), None) => self.want_addresses(name, &owner),
            (Some(owner), Some((ip, standing))) => self.keep(name, &owner, &ip, &standing),
            (None, Some((ip, standing))) => self.give_up(name, &ip, &standing),
            (None, None) => self.vanish(name),
        }
    }

    /// The living owner that a port of this name has. A pod's name may contain dots, its namespace may not.
    pub(crate) fn owner_of(&self, port: &str) -> Option<PortOwner> {
        if let Some(node) = port.strip_prefix("node-")
            && self.world.node(node).is_some()
        {
            return Some(PortOwner::Node(node.into()));
        }
        let (name, namespace) = port.rsplit_once('.')?;
        let key = PodKey::new(namespace, name);
        self.world.wants_port(&key).then_some(PortOwner::Pod(key))
    }

    /// Owner lives, nothing in the ledger.
    fn want_addresses(&mut self, name: &PortName, owner: &PortOwner) {
        if let Some(lease) = self.ipam.lease(name)
            && !self.is_announced(owner, &lease.addresses)
            && self.is_unsuitable(owner, &lease.subnet, &lease.addresses, Some(lease.mac))
            && !self.runs_with(owner, &lease.addresses)
            && !self
                .writes
                .is_busy(&ObjectKey::cluster(Kind::Ip, name.clone()))
        {
            // Left over from an earlier pod of this name.
            if self.world.lease(name).is_some() {
                self.changes.push(Change::Lease(name.clone(), None));
                self.todo_ports.insert(name.clone());
            }
            if self.world.lease(name).is_some() || !self.rows_are_in(name) {
                self.set_state(name, PortState::Withdrawing);
                return;
            }
            self.free(name);
        }
        if self.ipam.lease(name).is_none() {
            // A standby sees what the leader decides; it decides nothing itself.
            if !self.is_active() {
                self.set_state(name, PortState::Waiting);
                return;
            }
            if self.waits_for_subnet(owner) {
                self.set_state(name, PortState::Waiting);
                return;
            }
            match self.allocate(name, owner) {
                Ok(subnet) => {
                    self.notices
                        .set(Source::Port(name.clone()), BTreeSet::new());
                    self.touch(ObjectKey::cluster(Kind::Subnet, subnet));
                }
                Err(problem) => {
                    // At every first start pods and nodes are there before their Subnets: that is no problem of theirs.
                    let is_early = problem.reason == fabric::problem::reason::NO_SUBNET
                        && self.subnets_are_coming();
                    let notices = if is_early {
                        BTreeSet::new()
                    } else {
                        BTreeSet::from([self.notice_of(&problem)])
                    };
                    self.notices.set(Source::Port(name.clone()), notices);
                    self.set_state(name, PortState::Waiting);
                    return;
                }
            }
        }
        self.keep_rows(name, owner);
        self.set_state(name, PortState::Persisting);
        self.touch(ObjectKey::cluster(Kind::Ip, name.clone()));
    }

    /// A pod that runs is not cut off until its record is stored again. That goes for what was found at the start alone:
    /// later, annotations that name addresses may have come with the pod's manifest, and rows wait for the record.
    fn keep_rows(&mut self, name: &PortName, owner: &PortOwner) {
        if self.ledger.is_vouched(name)
            && let Some(lease) = self.port_lease(name, owner)
            && (self.is_announced(owner, &lease.addresses)
                || self.runs_with(owner, &lease.addresses))
            && self.world.lease(name) != Some(&lease)
        {
            self.changes.push(Change::Lease(name.clone(), Some(lease)));
        }
    }

    /// What the allocator holds for a port, as the world knows it.
    fn port_lease(&self, name: &PortName, owner: &PortOwner) -> Option<PortLease> {
        self.ipam.lease(name).map(|lease| PortLease {
            subnet: lease.subnet.clone(),
            addresses: lease.addresses,
            mac: lease.mac,
            owner: owner.clone(),
        })
    }

    /// Owner lives, and the ledger has something for it.
    fn keep(&mut self, name: &PortName, owner: &PortOwner, ip: &IpView, standing: &Standing) {
        let ip_key = ObjectKey::cluster(Kind::Ip, name.clone());
        if ip.deleting {
            // Somebody deleted a record whose address is in use. Its removal is completed, and it is stored again.
            self.keep_rows(name, owner);
            self.set_state(name, PortState::Persisting);
            self.touch(ip_key);
            return;
        }
        match standing {
            Standing::Held => {}
            Standing::Taken(other) if self.is_announced(owner, &ip.addresses) => {
                let text = format!(
                    "address {} is also held by {other}: delete one of the two pods",
                    ip.addresses
                );
                self.complain(name, owner, "AddressConflict", text);
                self.set_state(name, PortState::Waiting);
                return;
            }
            // Nobody was told of this address: the record gives way to a new one.
            Standing::Taken(_) => {
                self.withdraw(name);
                return;
            }
            Standing::Unusable(why) => {
                let text = format!("IP resource {name}: {why}");
                self.complain(name, owner, fabric::problem::reason::NO_SUBNET, text);
                self.set_state(name, PortState::Waiting);
                return;
            }
            Standing::Unreadable(why) => {
                self.complain(name, owner, UNREADABLE, why.clone());
                if self.ipam.lease(name).is_none() {
                    // A reservation is its user's to mend; any other record that tells nobody anything gives way.
                    let state = if ip.reserved {
                        PortState::Waiting
                    } else {
                        PortState::Forgetting
                    };
                    self.set_state(name, state);
                    self.touch(ip_key);
                    return;
                }
            }
        }
        // The record may say something else than what is held: an edit that is put back.
        let Some(lease) = self.ipam.lease(name).cloned() else {
            return;
        };
        let is_announced = self.is_announced(owner, &lease.addresses);
        if !is_announced && !self.is_active() && contradicts(&lease, ip) {
            // It was kept for a pod that is no more.
            self.replace(ip.clone());
            self.todo_ports.insert(name.clone());
            return;
        }
        let is_unsuitable = !is_announced
            && self.is_unsuitable(owner, &lease.subnet, &lease.addresses, Some(lease.mac));
        let runs = self.runs_with(owner, &lease.addresses);
        if is_unsuitable && !runs {
            // The record of an earlier pod of this name, which this one cannot use.
            self.withdraw(name);
            return;
        }
        self.grow(name, owner);
        if self.is_active() && self.record_differs(name, ip) {
            // The ledger comes first: rows follow what is stored.
            self.keep_rows(name, owner);
            self.set_state(name, PortState::Persisting);
            self.touch(ip_key);
            return;
        }
        let told = if is_unsuitable {
            let text = format!(
                "the pod runs with {}, which its annotations cannot change: delete the pod and make it again with the \
                 annotations that it should have",
                lease.addresses
            );
            BTreeSet::from([self.warning(object_of(owner), ADDRESS_KEPT, text)])
        } else {
            BTreeSet::new()
        };
        self.notices.set(Source::Port(name.clone()), told);
        let lease = self.port_lease(name, owner);
        if lease.as_ref() != self.world.lease(name) {
            self.changes.push(Change::Lease(name.clone(), lease));
            self.set_state(name, PortState::Programming);
            self.todo_ports.insert(name.clone());
            return;
        }
        self.touch(ip_key);
        if !self.rows_are_in(name) {
            self.set_state(name, PortState::Programming);
            return;
        }
        let key = object_of(owner);
        if self.annotations_differ(&key) {
            self.set_state(name, PortState::Announcing);
            self.touch(key);
        } else {
            self.set_state(name, PortState::Ready);
        }
    }

    /// Whether the allocator says something else than the record.
    fn record_differs(&self, name: &PortName, ip: &IpView) -> bool {
        self.ipam.lease(name).is_some_and(|lease| {
            lease.subnet != ip.subnet
                || lease.addresses != ip.addresses
                || ip.mac != Some(lease.mac)
        })
    }

    /// The owner is gone, its record is not.
    fn give_up(&mut self, name: &PortName, ip: &IpView, standing: &Standing) {
        if (ip.reserved || !is_of_port(ip)) && !ip.deleting {
            // A user's reservation outlives pods; only the port goes. And what is not a record of this network's ports
            // (attached networks, virtual machines, addresses of routers of an adopted cluster) is not ours to remove.
            let told = match standing {
                Standing::Unreadable(why) if ip.reserved => {
                    let key = ObjectKey::cluster(Kind::Ip, name.clone());
                    BTreeSet::from([self.warning(key, UNREADABLE, why.clone())])
                }
                _ => BTreeSet::new(),
            };
            self.notices.set(Source::Port(name.clone()), told);
            if self.world.lease(name).is_some() {
                self.changes.push(Change::Lease(name.clone(), None));
            }
            self.drop_port(name);
            return;
        }
        self.notices
            .set(Source::Port(name.clone()), BTreeSet::new());
        if matches!(standing, Standing::Held | Standing::Unreadable(_)) {
            self.withdraw(name);
        } else {
            self.set_state(name, PortState::Forgetting);
            self.touch(ObjectKey::cluster(Kind::Ip, name.clone()));
        }
    }

    /// Removes the rows, then the record.
    fn withdraw(&mut self, name: &PortName) {
        if self.world.lease(name).is_some() {
            self.changes.push(Change::Lease(name.clone(), None));
            self.set_state(name, PortState::Withdrawing);
            self.todo_ports.insert(name.clone());
        } else if self.rows_are_in(name) {
            self.set_state(name, PortState::Forgetting);
            self.touch(ObjectKey::cluster(Kind::Ip, name.clone()));
        } else {
            self.set_state(name, PortState::Withdrawing);
        }
    }

    /// Nobody wants the port, nothing is stored: the last step frees the address.
    fn vanish(&mut self, name: &PortName) {
        self.notices
            .set(Source::Port(name.clone()), BTreeSet::new());
        if self
            .writes
            .is_busy(&ObjectKey::cluster(Kind::Ip, name.clone()))
        {
            // The record may be about to appear.
            self.set_state(name, PortState::Forgetting);
            return;
        }
        if self.world.lease(name).is_some() {
            self.changes.push(Change::Lease(name.clone(), None));
            self.set_state(name, PortState::Withdrawing);
            self.todo_ports.insert(name.clone());
            return;
        }
        if !self.rows_are_in(name) {
            if self.ports.contains_key(name) {
                self.set_state(name, PortState::Withdrawing);
            }
            return;
        }
        self.free(name);
        if self.drop_port(name) {
            self.log(LogLine::PortGone { port: name.clone() });
        }
    }

    /// Frees the addresses of a port, and wakes those who wait for some.
    pub(crate) fn free(&mut self, name: &PortName) {
        self.ledger.unvouch(name);
        if let ipam::Release::Freed(lease) = self.ipam.release(name) {
            self.touch(ObjectKey::cluster(Kind::Subnet, lease.subnet));
            self.freed = true;
        }
    }

    /// Whether a Subnet is on its way that was never refused to us.
    fn subnets_are_coming(&self) -> bool {
        let mut coming = self.states.create.keys();
        coming.any(|key| key.kind == Kind::Subnet && !self.writes.has_failed(key))
    }

    /// Looks again at every port that has no addresses.
    pub(crate) fn wake_waiting(&mut self) {
        self.todo_ports.extend(self.waiting.iter().cloned());
    }

    /// Forgets a port that nobody wants and that holds nothing.
    fn drop_port(&mut self, name: &PortName) -> bool {
        self.in_nb.remove(name);
        self.waiting.remove(name);
        self.ports.remove(name).is_some()
    }

    /// Whether everything that this port needs (or no longer needs) is in the database.
    fn rows_are_in(&mut self, name: &PortName) -> bool {
        let clean = self.nb.is_synced()
            && self
                .world
                .units_of_port(name)
                .iter()
                .all(|unit| !self.dirty.contains(unit) && self.nb.is_clean(unit));
        if clean {
            self.in_nb.remove(name);
        } else {
            self.in_nb.insert(name.clone());
        }
        clean
    }

    pub(crate) fn set_state(&mut self, name: &PortName, state: PortState) {
        if state == PortState::Waiting {
            self.waiting.insert(name.clone());
        } else {
            self.waiting.remove(name);
        }
        if self
            .ports
            .insert(name.clone(), Port { state })
            .is_some_and(|held| held.state == state)
        {
            return;
        }
        if state == PortState::Ready
            && let Some(PortOwner::Pod(pod)) = self.owner_of(name)
            && let Some(lease) = self.ipam.lease(name)
        {
            let line = LogLine::PodReady {
                pod,
                addresses: smol_str::format_smolstr!("{}", lease.addresses),
                subnet: lease.subnet.clone(),
            };
            self.log(line);
        }
    }

    fn complain(
        &mut self,
        name: &PortName,
        owner: &PortOwner,
        reason: &'static str,
        message: String,
    ) {
        let notice = self.warning(object_of(owner), reason, message);
        self.notices
            .set(Source::Port(name.clone()), BTreeSet::from([notice]));
    }

    fn warning(&self, object: ObjectKey, reason: &'static str, message: String) -> Notice {
        Notice {
            uid: self
                .watches
                .seen(&object)
                .map(|s| s.uid.clone())
                .unwrap_or_default(),
            object,
            warning: true,
            reason: SmolStr::new_static(reason),
            message,
        }
    }

    pub(crate) fn notice_of(&self, problem: &Problem) -> Notice {
        let object = match (&problem.object.kind, &problem.object.namespace) {
            (fabric::Kind::Pod, Some(namespace)) => {
                ObjectKey::pod(namespace.clone(), problem.object.name.clone())
            }
            (kind, _) => ObjectKey::cluster(kind_of(*kind), problem.object.name.clone()),
        };
        Notice {
            uid: self
                .watches
                .seen(&object)
                .map(|s| s.uid.clone())
                .unwrap_or_default(),
            object,
            warning: true,
            reason: problem.reason.clone(),
            message: problem.message.clone(),
        }
    }

    /// Whether the owner's annotations already name these addresses: somebody may be using them.
    pub(crate) fn is_announced(&self, owner: &PortOwner, held: &DualStack<IpAddr>) -> bool {
        let (annotations, allocated) = match owner {
            PortOwner::Pod(key) => match self.world.pod(key) {
                Some(pod) => (&pod.annotations, PodView::is_allocated(pod)),
                None => return false,
            },
            PortOwner::Node(name) => match self.world.node(name) {
                Some(node) => (
                    &node.annotations,
                    node.annotation(api::keys::ALLOCATED) == Some(api::keys::TRUE),
                ),
                None => return false,
            },
        };
        allocated
            && annotations
                .get(api::keys::IP_ADDRESS)
                .and_then(|text| text.parse::<DualStack<IpAddr>>().ok())
                .is_some_and(|addresses| addresses == *held)
    }

    /// Whether a pod has these addresses in its network namespace, as its kubelet says: they stay whatever its annotations
    /// are made to say.
    pub(crate) fn runs_with(&self, owner: &PortOwner, held: &DualStack<IpAddr>) -> bool {
        let PortOwner::Pod(key) = owner else {
            return false;
        };
        let pod = self.world.pod(key);
        pod.is_some_and(|pod| held.iter().all(|address| pod.ips.contains(address)))
    }

    /// Whether a pod that was not told anything yet asks for something else than is held for it.
    fn is_unsuitable(
        &self,
        owner: &PortOwner,
        subnet: &str,
        addresses: &DualStack<IpAddr>,
        mac: Option<Mac>,
    ) -> bool {
        let PortOwner::Pod(key) = owner else {
            return subnet != self.config.fabric.join.name;
        };
        if let Ok(candidates) = self.world.candidates(key)
            && !candidates.iter().any(|candidate| candidate.name == subnet)
        {
            return true;
        }
        let Ok(request) = self.world.request(key) else {
            return false;
        };
        let fits = |choice: &DualStack<IpAddr>| {
            choice
                .iter()
                .all(|a| addresses.iter().any(|held| held == a))
        };
        let other_address = !request.choices.is_empty() && !request.choices.iter().any(fits);
        other_address
            || request
                .mac
                .is_some_and(|asked| mac.is_some_and(|held| held != asked))
    }

    pub(crate) fn log(&mut self, line: LogLine) {
        self.out.push(Effect::Log(line));
    }
}

/// Whether a record is that of a pod's or node's port in the cluster's own network.
fn is_of_port(ip: &IpView) -> bool {
    if ip.pod_type == "VirtualMachine" {
        return false;
    }
    match (&ip.pod, &ip.node) {
        (Some(pod), _) => pod.port_name() == ip.name,
        (None, Some(node)) => api::view::node_port_name(node) == ip.name,
        // An old record of a node may not name it.
        (None, None) => ip.name.starts_with("node-"),
    }
}

/// The object that owns a port.
pub(crate) fn object_of(owner: &PortOwner) -> ObjectKey {
    match owner {
        PortOwner::Pod(key) => ObjectKey::pod(key.namespace.clone(), key.name.clone()),
        PortOwner::Node(name) => ObjectKey::cluster(Kind::Node, name.clone()),
    }
}

pub(crate) const fn kind_of(kind: fabric::Kind) -> Kind {
    match kind {
        fabric::Kind::Namespace => Kind::Namespace,
        fabric::Kind::Node => Kind::Node,
        fabric::Kind::Pod => Kind::Pod,
        fabric::Kind::Subnet => Kind::Subnet,
        fabric::Kind::Vpc => Kind::Vpc,
    }
}
