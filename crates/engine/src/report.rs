//! What the engine says about itself: for readiness, metrics and people.

use std::collections::BTreeMap;

use net::Family;
use smol_str::SmolStr;

use crate::Engine;
use crate::brakes::HeldDeletes;
use crate::effect::{CommitKind, InUse, Notice};
use crate::event::Kind;
use crate::fence::Role;
use crate::flush::Link;
use crate::ports::PortState;
use crate::writes::Ended;

/// Figures of one subnet and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetReport {
    /// The Subnet.
    pub name: SmolStr,
    /// The family.
    pub family: Family,
    /// Its CIDR.
    pub cidr: String,
    /// Addresses that a pod could get.
    pub available: u128,
    /// Addresses in use.
    pub using: u128,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the engine may do.
    pub role: Role,
    /// What it still waits for before it can work; empty when it is ready.
    pub waits_for: Vec<String>,
    /// Ports by state.
    pub ports: BTreeMap<PortState, usize>,
    /// Addresses by subnet.
    pub subnets: Vec<SubnetReport>,
    /// Units whose rows are not in the database yet.
    pub pending_units: usize,
    /// Units that the database refuses, with its words.
    pub parked: Vec<(String, String)>,
    /// What the brakes hold, by table.
    pub held: Vec<HeldDeletes>,
    /// What is in use of the Go implementation and not there yet, while that keeps this engine from taking over.
    pub unsupported: Vec<InUse>,
    /// What else is not sent, and why.
    pub blocked: Vec<String>,
    /// Kubernetes writes that ended, by kind, verb and end.
    pub writes: BTreeMap<(Kind, &'static str, Ended), u64>,
    /// Kubernetes writes under way.
    pub writes_in_flight: usize,
    /// Objects whose last write failed and is tried again later.
    pub writes_waiting: usize,
    /// Transactions that ended, by kind and end.
    pub commits: BTreeMap<(CommitKind, &'static str), u64>,
    /// Northbound operations sent.
    pub operations: u64,
    /// Records of the ledger.
    pub leases: usize,
    /// Audits that were completed.
    pub audits: u64,
    /// Units and rows that an audit found to be otherwise than they were known.
    pub drift: u64,
    /// Rows of the Go implementation that nothing claims.
    pub unclaimed: usize,
    /// Chassis seen.
    pub chassis: usize,
    /// What is wrong at the moment.
    pub problems: Vec<Notice>,
}

impl Engine {
    /// What the engine waits for before it can work at all.
    pub fn waits_for(&self) -> Vec<String> {
        let mut waits: Vec<String> = self
            .watches
            .missing()
            .map(|kind| format!("the first list of {}.{}", kind.plural(), kind.api_version()))
            .collect();
        match self.nb.link {
            Link::Down => waits.push("a connection to the northbound database".to_owned()),
            Link::Loading => waits.push("the rows of the northbound database".to_owned()),
            Link::Synced => {}
        }
        match self.sb.link {
            Link::Down => waits.push("a connection to the southbound database".to_owned()),
            Link::Loading => waits.push("the rows of the southbound database".to_owned()),
            Link::Synced => {}
        }
        waits.extend(self.gate.waits_for());
        waits
    }

    /// What the engine may do now.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The state of a port.
    pub fn port_state(&self, port: &str) -> Option<PortState> {
        self.ports.get(port).map(|port| port.state)
    }

    /// A snapshot of everything that metrics and the admin pages show.
    pub fn report(&mut self) -> Report {
        let mut ports: BTreeMap<PortState, usize> =
            PortState::ALL.into_iter().map(|s| (s, 0)).collect();
        for port in self.ports.values() {
            *ports.entry(port.state).or_default() += 1;
        }
        let mut subnets = Vec::new();
        for subnet in self.world.subnets() {
            let counters = self.ipam.counters(&subnet.name);
            for (family, cidr) in subnet.cidrs.by_family() {
                let counter = counters.get(family).copied().unwrap_or_default();
                subnets.push(SubnetReport {
                    name: subnet.name.clone(),
                    family,
                    cidr: cidr.to_string(),
                    available: counter.available,
                    using: counter.using,
                });
            }
        }
        let mut commits = self.nb.counts.clone();
        commits.extend(self.sb.counts.clone());
        Report {
            role: self.role,
            waits_for: self.waits_for(),
            ports,
            subnets,
            pending_units: self.nb.diff.pending_units().len(),
            parked: self
                .nb
                .parked_units()
                .map(|(unit, error)| (unit.to_string(), error.to_owned()))
                .collect(),
            held: self.brakes.held().cloned().collect(),
            unsupported: self.gate.in_use().to_vec(),
            blocked: self.brakes.blocked.iter().cloned().collect(),
            writes: self.writes.counts().clone(),
            writes_in_flight: self.writes.in_flight(),
            writes_waiting: self.writes.waiting(),
            commits,
            operations: self.nb.ops,
            leases: self.ledger.len(),
            audits: self.audit.rounds,
            drift: self.audit.drift,
            unclaimed: self.audit.unclaimed.len(),
            chassis: self.sb.chassis(),
            problems: self.notices.current().cloned().collect(),
        }
    }
}
