//! The ledger of addresses: IP resources as the API server holds them, and how the allocator stands to each.

use std::collections::{BTreeMap, BTreeSet};

use api::keys;
use api::view::{IpView, NodeView, PodView};
use fabric::{Change, PortName, PortOwner};
use ipam::IpamError;
use smol_str::SmolStr;

use crate::Engine;
use crate::effect::LogLine;
use crate::event::{Kind, ObjectKey};

/// How the allocator took a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The addresses are this port's.
    Held,
    /// An address of it is another port's.
    Taken(PortName),
    /// The allocator cannot hold it; why.
    Unusable(String),
    /// Nobody can tell what it says; why. What the allocator holds for the port, if anything, does not come from it.
    Unreadable(String),
}

/// A record as it was shown, and why nobody can read its addresses, if so.
type Shown = (IpView, Option<String>);

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) ip: IpView,
    pub(crate) standing: Standing,
}

/// IP resources by name.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<PortName, Record>,
    /// Records that the allocator does not hold; kept by `place` and `erase`.
    homeless: BTreeSet<PortName>,
    /// Shown before the barrier fell; they are taken in one go, the announced ones first.
    waiting: BTreeMap<PortName, Shown>,
    /// Ports whose addresses come from what their running owners were told, not from a record: what was found so at the
    /// start counts as a record until there is one. Written by `restore`, `place` and `free`.
    vouched: BTreeSet<PortName>,
}

impl Ledger {
    pub(crate) fn get(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether what a running pod was told stands for its record.
    pub(crate) fn is_vouched(&self, name: &str) -> bool {
        self.vouched.contains(name)
    }

    /// The allocator holds nothing any more that a running pod was told.
    pub(crate) fn unvouch(&mut self, name: &str) {
        self.vouched.remove(name);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &PortName> {
        self.records.keys()
    }
}

impl Engine {
    /// An IP resource was shown; `fault` says why its addresses cannot be read.
    pub(crate) fn record(&mut self, ip: IpView, fault: Option<String>) {
        if let Some(fault) = &fault {
            let text = fault.clone();
            self.log(LogLine::Warning { text });
        }
        let name = ip.name.clone();
        if !self.open {
            self.ledger.waiting.insert(name, (ip, fault));
            return;
        }
        self.place(ip, fault);
        self.todo_ports.insert(name);
    }

    /// An IP resource is gone.
    pub(crate) fn erase(&mut self, name: &PortName) {
        self.ledger.waiting.remove(name);
        self.ledger.homeless.remove(name);
        if let Some(record) = self.ledger.records.remove(name) {
            self.touch(ObjectKey::cluster(Kind::Subnet, record.ip.subnet));
        }
        self.todo_ports.insert(name.clone());
    }

    /// Takes these ports' records anew, as if nothing was known of them but what was shown: when the barrier falls, and
    /// when a leader takes over.
    ///
    /// Where two claim one address, what a living pod was told wins, with a record that says so before one that does not;
    /// then what is in the database, since the pod may be told of it at any moment; then the first by name.
    pub(crate) fn restore(&mut self, names: BTreeSet<PortName>) {
        let mut shown = std::mem::take(&mut self.ledger.waiting);
        for name in &names {
            self.free(name);
            self.ledger.homeless.remove(name);
            if let Some(Record { ip, standing }) = self.ledger.records.remove(name) {
                let fault = match standing {
                    Standing::Unreadable(why) => Some(why),
                    _ => None,
                };
                shown.insert(name.clone(), (ip, fault));
            }
        }
        let (announced, others): (Vec<_>, Vec<_>) = shown.into_values().partition(|(ip, fault)| {
            let owner = self.owner_of(&ip.name);
            fault.is_none() && owner.is_some_and(|owner| self.is_announced(&owner, &ip.addresses))
        });
        let (programmed, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(ip, fault)| fault.is_none() && self.is_programmed(ip));
        let take = |engine: &mut Self, (ip, fault): Shown| {
            engine.todo_ports.insert(ip.name.clone());
            engine.place(ip, fault);
        };
        for shown in announced {
            take(self, shown);
        }
        // Records that changed while nobody looked (by hand, or older ones were put back) do not move pods that run.
        for (ip, _) in &others {
            self.vouch(&ip.name);
        }
        for shown in programmed.into_iter().chain(others) {
            take(self, shown);
        }
        // Nor do records that are gone: somebody deleted one, and the process that would have stored it again died.
        for name in &names {
            if self.ledger.get(name).is_none() {
                self.vouch(name);
            }
        }
        // What another port has now must not be in two rows.
        for name in names {
            let Some(known) = self.world.lease(&name) else {
                continue;
            };
            let is_same = self
                .ipam
                .lease(&name)
                .is_some_and(|held| held.addresses == known.addresses);
            if !is_same {
                self.changes.push(Change::Lease(name, None));
            }
        }
    }

    /// Sets aside what a running pod was told, before anybody else can get it.
    fn vouch(&mut self, name: &PortName) {
        // A port that is in the database without a record: its pod may have been told of it meanwhile. If the pod runs
        // with that, then it is its annotations that somebody changed.
        let told = self.owner_of(name).and_then(|owner| {
            let programmed = self.programmed(name);
            match programmed {
                Some(held) if self.runs_with(&owner, &held.addresses) => Some(held),
                programmed => self.told(&owner).or(programmed),
            }
        });
        // If somebody else has it, then this one cannot keep it.
        if let Some(record) = told
            && self
                .ipam
                .restore(name.clone(), record, ipam::Claim::Port)
                .is_ok()
        {
            self.ledger.vouched.insert(name.clone());
        }
    }

    /// Whether the port has the record's addresses in the database: then it is the annotations that somebody changed.
    fn is_programmed(&self, ip: &IpView) -> bool {
        self.programmed(&ip.name)
            .is_some_and(|held| held.addresses == ip.addresses)
    }

    /// What a pod or node was told, as far as it may be true. Whoever makes a pod writes its annotations: they count for
    /// no more than the pod could have asked for.
    fn told(&self, owner: &PortOwner) -> Option<ipam::Record> {
        let (annotations, subnet) = match owner {
            PortOwner::Pod(key) => {
                let named = self.world.pod(key)?.annotation(keys::LOGICAL_SWITCH)?;
                let candidates = self.world.candidates(key).ok()?;
                let subnet = candidates.into_iter().find(|s| s.name == named)?;
                (&self.world.pod(key)?.annotations, subnet)
            }
            PortOwner::Node(node) => (
                &self.world.node(node)?.annotations,
                self.world.subnet(&self.config.fabric.join.name)?,
            ),
        };
        let text = |key: &str| annotations.get(key).map(SmolStr::as_str);
        let addresses: net::DualStack<std::net::IpAddr> = text(keys::IP_ADDRESS)?.parse().ok()?;
        let is_possible = |address: std::net::IpAddr| {
            subnet.cidrs.contains(address) && !subnet.gateways.iter().any(|g| *g == address)
        };
        (self.is_announced(owner, &addresses) && addresses.into_iter().all(is_possible)).then(
            || ipam::Record {
                subnet: subnet.name.clone(),
                addresses,
                mac: text(keys::MAC_ADDRESS).and_then(|mac| mac.parse().ok()),
            },
        )
    }

    /// Tries the records again that the allocator did not hold: a subnet changed, or an address became free.
    pub(crate) fn place_again(&mut self) {
        for name in self.ledger.homeless.clone() {
            if let Some(record) = self.ledger.records.get(&name) {
                let ip = record.ip.clone();
                self.place(ip, None);
                self.todo_ports.insert(name);
            }
        }
    }

    /// Lets the allocator take a record.
    ///
    /// What is stored wins over what is only in memory. What the leader has stored itself, and what a running pod was
    /// told, wins over an edit of the record, which is put back; for the rest a standby takes whatever it sees.
    fn place(&mut self, ip: IpView, fault: Option<String>) {
        let name = ip.name.clone();
        let before = self.ledger.records.get(&name);
        let was_held = before.is_some_and(|r| r.standing == Standing::Held);
        let was_good = before.is_some_and(|r| {
            r.ip.uid == ip.uid && matches!(r.standing, Standing::Held | Standing::Unreadable(_))
        });
        let is_edit = was_good && (self.is_active() || self.is_lease_announced(&name));
        // An edit may add an address, too. (Elsewhere that is a node's record that grew.)
        let adds = self.is_active()
            && was_good
            && self
                .ipam
                .lease(&name)
                .is_some_and(|lease| contradicts(lease, &ip));
        let standing = match fault {
            None if adds => Standing::Held,
            Some(fault) => Standing::Unreadable(fault),
            None => match self.claim(&ip) {
                Standing::Taken(holder) if holder == name => {
                    self.touch_subnets();
                    if is_edit || self.ledger.is_vouched(&name) {
                        Standing::Held
                    } else {
                        self.ipam.release(&name);
                        self.freed = true;
                        self.claim(&ip)
                    }
                }
                Standing::Held => {
                    self.ledger.unvouch(&name);
                    Standing::Held
                }
                other => other,
            },
        };
        if standing == Standing::Held && !was_held {
            self.touch(ObjectKey::cluster(Kind::Subnet, ip.subnet.clone()));
        }
        if matches!(standing, Standing::Held | Standing::Unreadable(_)) {
            self.ledger.homeless.remove(&name);
        } else {
            self.ledger.homeless.insert(name.clone());
        }
        self.ledger.records.insert(name, Record { ip, standing });
    }

    /// Lets the allocator take a record anew: what it held for the port is nobody's any more.
    pub(crate) fn replace(&mut self, ip: IpView) {
        self.free(&ip.name.clone());
        self.place(ip, None);
    }

    /// Whether the living owner of a port was told of the addresses that the allocator holds for it.
    pub(crate) fn is_lease_announced(&self, name: &PortName) -> bool {
        self.owner_of(name)
            .zip(self.ipam.lease(name))
            .is_some_and(|(owner, lease)| self.is_announced(&owner, &lease.addresses))
    }

    /// Figures of several subnets may have changed.
    fn touch_subnets(&mut self) {
        self.todo.extend(
            self.subnets
                .keys()
                .map(|name| ObjectKey::cluster(Kind::Subnet, name.clone())),
        );
    }

    fn claim(&mut self, ip: &IpView) -> Standing {
        let record = ipam::Record {
            subnet: ip.subnet.clone(),
            addresses: ip.addresses,
            mac: ip.mac,
        };
        let kind = if ip.reserved {
            ipam::Claim::Reservation
        } else {
            ipam::Claim::Port
        };
        match self.ipam.restore(ip.name.clone(), record, kind) {
            Ok(_) => Standing::Held,
            Err(IpamError::Differs { owner, .. }) => Standing::Taken(owner),
            Err(error) => match error.holder() {
                Some(holder) => Standing::Taken(holder.clone()),
                None => Standing::Unusable(error.to_string()),
            },
        }
    }

    /// Ports that the world or the ledger knows of: what a look at everything looks at.
    pub(crate) fn all_ports(&self) -> BTreeSet<PortName> {
        let pods = self
            .world
            .pods()
            .filter(|pod| self.world.wants_port(&pod.key))
            .map(PodView::port_name);
        let nodes = self.world.nodes().map(NodeView::port_name);
        pods.chain(nodes)
            .chain(self.ledger.names().cloned())
            .chain(self.ports.keys().cloned())
            .collect()
    }

    /// The IP resource that a lease is stored as (upstream's form).
    pub(crate) fn ip_resource(&self, name: &PortName, owner: &PortOwner) -> Option<api::v1::Ip> {
        use api::v1;
        let lease = self.ipam.lease(name)?;
        let text = |a: Option<std::net::IpAddr>| a.map(|a| a.to_string()).unwrap_or_default();
        let (pod_name, namespace, node, pod_type, owners) = match owner {
            PortOwner::Pod(key) => {
                let pod = self.world.pod(key)?;
                let stateful = pod.owner.as_ref().is_some_and(|o| o.kind == "StatefulSet");
                let node = pod.node.clone().unwrap_or_default();
                let pod_type = if stateful { "StatefulSet" } else { "" };
                (
                    key.name.clone(),
                    key.namespace.clone(),
                    node,
                    pod_type,
                    None,
                )
            }
            PortOwner::Node(node) => {
                let view = self.world.node(node)?;
                let owner = k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: node.to_string(),
                    uid: view.uid.to_string(),
                    ..Default::default()
                };
                (
                    node.clone(),
                    SmolStr::default(),
                    node.clone(),
                    "",
                    Some(vec![owner]),
                )
            }
        };
        let mut ip = v1::Ip::new(
            name,
            v1::IpSpec {
                pod_name: pod_name.to_string(),
                namespace: namespace.to_string(),
                subnet: lease.subnet.to_string(),
                node_name: node.to_string(),
                ip_address: lease.addresses.to_string(),
                v4_ip_address: text(lease.addresses.v4),
                v6_ip_address: text(lease.addresses.v6),
                mac_address: lease.mac.to_string(),
                pod_type: pod_type.into(),
                ..v1::IpSpec::default()
            },
        );
        let labels = [
            (keys::SUBNET, lease.subnet.as_str()),
            (keys::NODE_NAME, node.as_str()),
            (keys::IP_RESERVED, keys::FALSE),
            (lease.subnet.as_str(), ""),
        ];
        ip.metadata.labels = Some(
            labels
                .into_iter()
                // Names of nodes and Subnets may be longer than a label may; they stand in the spec as well.
                .filter(|(k, v)| is_label(k.rsplit('/').next().unwrap_or(k)) && is_label(v))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        );
        ip.metadata.finalizers = Some(vec![keys::FINALIZER.to_owned()]);
        ip.metadata.owner_references = owners;
        Some(ip)
    }
}

/// Whether a record says something that is not so, rather than less.
pub(crate) fn contradicts(lease: &ipam::Lease, ip: &IpView) -> bool {
    lease.subnet != ip.subnet
        || ip.mac.is_some_and(|mac| mac != lease.mac)
        || ip
            .addresses
            .into_iter()
            .any(|a| !lease.addresses.iter().any(|held| *held == a))
}

/// Whether Kubernetes takes it for the value of a label (which is empty or at most 63 characters, with a letter or digit
/// at both ends).
fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.starts_with(['-', '.', '_']) && !text.ends_with(['-', '.', '_'])
}
