//! How a new leader takes over: what is known at that moment, and what is not.
//!
//! The epoch was committed, so the replica shows the database as the last leader left it, and nobody else writes there any
//! more. The watches have no such moment: they may be late by any time. A pod that they do not show (any more) may have
//! been made, and told of its address, by the last leader; a record that they show may be an older one.
//!
//! What a pod was told stands in the database: its port is committed before it hears of its addresses. Therefore, until
//! the watches are known to have seen everything that was there when the epoch was taken:
//!
//! * no row is deleted, and no chassis;
//! * a port whose row says something else than what the watches make of it is **in doubt**: nothing is done about it;
//! * nobody gets an address that stands in another port's row.
//!
//! Everything else goes on, new pods are served at once. The view of a kind has caught up when its watch shows a version
//! that a write of this term was answered with, or when a list has ended that was asked for in this term. Lists are asked
//! for when something is held back, so a start with nothing to do reads nothing, and a leader lists each kind once at
//! most. See `docs/adr/0007-absence-proves-nothing-at-first.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::keys;
use fabric::{PortName, PortOwner, Unit};
use net::{DualStack, HasFamily, Mac};
use ovn::{Owner, nb::LogicalSwitchPort};
use smol_str::SmolStr;

use crate::Engine;
use crate::effect::{Effect, EffectId, LogLine};
use crate::event::Kind;
use crate::ports::PortState;

/// A pod's or node's port as a row says it.
#[derive(Debug)]
struct Row {
    subnet: SmolStr,
    addresses: BTreeSet<IpAddr>,
    mac: Option<Mac>,
}

/// What a leader has found, until its watches have caught up.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    /// Whether the watches may still be behind. Written by `begin_takeover` and `end_takeover`.
    under_way: bool,
    /// Ports as the last leader left them.
    rows: BTreeMap<PortName, Row>,
    /// The same by address.
    by_address: BTreeMap<IpAddr, PortName>,
    /// Rows do not say what pods were told: somebody changed them by hand, or they are lost. Addresses wait.
    is_silent: bool,
    /// Ports about which nothing is done.
    doubtful: BTreeSet<PortName>,
    /// Effects after this one were asked for in this term.
    since: EffectId,
    /// The epoch under which this engine has led without a break.
    led: Option<u64>,
}

impl Takeover {
    pub(crate) fn doubtful(&self) -> &BTreeSet<PortName> {
        &self.doubtful
    }

    /// Addresses that are not given out.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    /// Whether a write with this id belongs to this term.
    pub(crate) fn is_of_term(&self, id: EffectId) -> bool {
        self.led.is_some() && id > self.since
    }

    /// Whether a row has these very addresses for the port.
    pub(crate) fn agrees(&self, name: &str, addresses: &DualStack<IpAddr>) -> bool {
        self.rows.get(name).is_some_and(|row| {
            row.addresses
                .iter()
                .eq(&addresses.into_iter().collect::<BTreeSet<_>>())
        })
    }

    fn is_anothers(&self, name: &str, address: IpAddr) -> bool {
        self.by_address
            .get(&address)
            .is_some_and(|holder| holder != name)
    }
}

impl Engine {
    /// Whether this leader's watches may be behind the moment at which it took office.
    pub(crate) const fn is_taking_over(&self) -> bool {
        self.takeover.under_way
    }

    /// The epoch is ours. What was found out as a standby, from watches that may be late, is looked at again, with what
    /// the database says.
    pub(crate) fn begin_takeover(&mut self, epoch: u64) {
        // Nobody else has led meanwhile: nothing is new.
        let is_new = self.takeover.led != epoch.checked_sub(1);
        self.takeover.led = Some(epoch);
        if !is_new {
            return;
        }
        self.takeover.since = EffectId(self.next);
        self.takeover.under_way = true;
        self.watches.begin_term();
        self.read_rows();
        self.note_node_addresses();
        let mut names = self.all_ports();
        names.extend(self.takeover.rows.keys().cloned());
        self.restore(names.clone());
        self.todo_ports.extend(names);
    }

    /// Nothing is known of this office any more.
    pub(crate) fn forget_takeover(&mut self) {
        if self.takeover.under_way {
            self.takeover.under_way = false;
            self.note_node_addresses();
        }
        self.takeover = Takeover::default();
    }

    /// The watches have caught up: what is absent is gone.
    pub(crate) fn end_takeover(&mut self) {
        if !self.takeover.under_way || !self.is_active() || !self.watches.have_caught_up() {
            return;
        }
        let doubtful = std::mem::take(&mut self.takeover.doubtful);
        self.restore(doubtful.clone());
        self.takeover.under_way = false;
        self.takeover.rows.clear();
        self.takeover.by_address.clear();
        self.note_node_addresses();
        self.todo_ports.extend(doubtful);
        self.freed = true;
        self.nb.stale();
        self.nb_changed = true;
        self.sb.touch();
    }

    /// The ports of pods and nodes that are in the database, ours and those that we might adopt.
    fn read_rows(&mut self) {
        self.takeover.rows.clear();
        self.takeover.by_address.clear();
        for (key, _, owner) in self.nb.diff.rows() {
            let is_ours =
                owner == Owner::Ours || owner == Owner::Vendor && self.is_known(&key.name);
            if key.table != LogicalSwitchPort::TABLE || !is_ours {
                continue;
            }
            let Some(row) = self.read_row(&key.name) else {
                continue;
            };
            for address in &row.addresses {
                self.takeover.by_address.insert(*address, key.name.clone());
            }
            self.takeover.rows.insert(key.name, row);
        }
        let rows = &self.takeover.rows;
        self.takeover.is_silent = rows.values().any(|row| row.addresses.is_empty())
            || rows.is_empty() && self.ledger.len() > 0;
    }

    fn read_row(&self, name: &str) -> Option<Row> {
        let key = LogicalSwitchPort::named(name).into_key();
        let (_, _, row) = self.nb.diff.row(&key)?;
        if !row.str("type").is_empty() {
            return None;
        }
        let words = || row.strs("addresses").flat_map(str::split_whitespace);
        Some(Row {
            subnet: row.map_str("external_ids", "ls").unwrap_or_default().into(),
            addresses: words().filter_map(|word| word.parse().ok()).collect(),
            mac: words().find_map(|word| word.parse().ok()),
        })
    }

    fn is_known(&self, name: &str) -> bool {
        self.owner_of(name).is_some() || self.ledger.get(name).is_some()
    }

    /// What the database says that a port has.
    pub(crate) fn programmed(&self, name: &str) -> Option<ipam::Record> {
        let row = self.read_row(name)?;
        let subnet = self.world.subnet(&row.subnet)?;
        let mut addresses = DualStack::NONE;
        for address in row.addresses {
            if !subnet.cidrs.contains(address) {
                return None;
            }
            addresses.set(address.family(), Some(address));
        }
        (addresses != DualStack::NONE).then(|| ipam::Record {
            subnet: subnet.name.clone(),
            addresses,
            mac: row.mac,
        })
    }

    /// Whether nothing may be done about a port yet; it is looked at again when the watches have caught up.
    pub(crate) fn is_doubtful(&mut self, name: &PortName, owner: Option<&PortOwner>) -> bool {
        if !self.takeover.under_way || !self.is_active() {
            return false;
        }
        let held = self.ipam.lease(name).map(|lease| lease.addresses);
        let is_certain = match (self.takeover.rows.contains_key(name), &held) {
            (true, Some(held)) => owner.is_some() && self.takeover.agrees(name, held),
            (true, None) => false,
            (false, Some(held)) => !held.iter().any(|a| self.takeover.is_anothers(name, *a)),
            // It is to get some.
            (false, None) => owner.is_none_or(|owner| !self.asks_for_anothers(name, owner)),
        };
        if is_certain {
            self.takeover.doubtful.remove(name);
        } else {
            self.takeover.doubtful.insert(name.clone());
            self.set_state(name, PortState::Waiting);
            self.ask_for_lists();
        }
        !is_certain
    }

    /// Whether a port without addresses could get some that are in use.
    fn asks_for_anothers(&self, name: &PortName, owner: &PortOwner) -> bool {
        let asked: Vec<IpAddr> = match owner {
            PortOwner::Pod(key) => {
                let request = self.world.request(key).unwrap_or_default();
                request.choices.into_iter().flatten().collect()
            }
            PortOwner::Node(node) => {
                let node = self.world.node(node);
                let told = node.and_then(|node| node.annotation(keys::IP_ADDRESS));
                let told = told.and_then(|text| text.parse::<DualStack<IpAddr>>().ok());
                told.into_iter().flatten().collect()
            }
        };
        self.takeover.is_silent || asked.iter().any(|a| self.takeover.is_anothers(name, *a))
    }

    /// Units that are not written: those of ports in doubt.
    pub(crate) fn doubtful_units(&self) -> impl Iterator<Item = Unit> {
        self.takeover.doubtful().iter().map(|name| {
            let node = name.strip_prefix("node-");
            match node.filter(|node| self.world.node(node).is_some()) {
                Some(node) => Unit::Node(node.into()),
                None => Unit::Port(name.clone()),
            }
        })
    }

    /// Something is held back: the watches are to list anew, so that they catch up.
    pub(crate) fn ask_for_lists(&mut self) {
        let kinds: Vec<Kind> = self.watches.behind().collect();
        if !kinds.is_empty() {
            let kinds = kinds.iter().map(|kind| kind.plural().into()).collect();
            self.log(LogLine::CatchingUp { kinds });
        }
        for kind in kinds {
            let id = self.next_id();
            self.watches.ask(kind, id);
            self.out.push(Effect::List { id, kind });
        }
    }
}
