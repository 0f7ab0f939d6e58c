//! Chassis of nodes that are gone or were installed anew.
//!
//! ovn-controller registers its node in the southbound database under the machine's system-id and never removes a
//! predecessor. Until somebody does, every other node keeps a tunnel to it. A chassis that a node names in its annotation
//! is marked with that node; it is stale once the node is gone or names another one.
//!
//! Often a node is deleted while its machine runs on. Its ovn-controller then registers again at once, without our mark.
//! Such a chassis gets the mark of the node that it was, so that it goes as well, whoever leads by then; not at once, as
//! it would be back at once, but a while later.
//!
//! The southbound database knows no epoch. Instead each change of a chassis holds only if its row still is what was
//! looked at, and the mark names the node's uid: a leader that slept cannot remove the chassis of a node that was made
//! anew meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ovsdb::RowDelta;
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row, Until};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::Engine;
use crate::effect::{CommitKind, Effect, EffectId, LogLine};
use crate::event::{CommitOutcome, ReplicaEvent};
use crate::flush::Link;
use crate::lease::signed;

const CHASSIS: &str = "Chassis";
const CHASSIS_PRIVATE: &str = "Chassis_Private";
const IDS: &str = "external_ids";
const CONFIG: &str = "other_config";
/// `external_ids` key of a chassis: the node that it is.
const NODE_KEY: &str = "kube-ovn.io/node";
/// `external_ids` key of a chassis: the uid of that node.
const UID_KEY: &str = "kube-ovn.io/node-uid";
/// Pause after a failed transaction.
const PAUSE: Duration = Duration::from_secs(1);
/// A chassis that comes back after its removal (its ovn-controller still runs) is left for this long, and for twice as
/// long each time it comes back again.
const AGAIN: Duration = Duration::from_mins(1);
/// But not for longer than this: until then every node keeps a tunnel to a machine that may be gone by now.
const AGAIN_MAX: Duration = Duration::from_mins(16);
/// How long a chassis that went is remembered.
const MEMORY: Duration = Duration::from_hours(24);

#[derive(Debug, PartialEq, Eq)]
struct Chassis {
    name: SmolStr,
    hostname: SmolStr,
    node: Option<SmolStr>,
    node_uid: Option<SmolStr>,
    vendor: bool,
    remote: bool,
    /// Columns that the decision about it rests on.
    basis: Row,
}

impl Chassis {
    fn of(row: &Row) -> Self {
        let map = |column| row.get(column).cloned().unwrap_or_else(Datum::empty_map);
        Self {
            name: row.str("name").into(),
            hostname: row.str("hostname").into(),
            node: row.map_str(IDS, NODE_KEY).map(SmolStr::new),
            node_uid: row.map_str(IDS, UID_KEY).map(SmolStr::new),
            vendor: row.map_str(IDS, ovn::VENDOR_KEY) == Some(ovn::VENDOR),
            remote: row.map_str(CONFIG, "is-remote") == Some("true"),
            basis: Row::from([
                ("name", row.str("name").into()),
                ("hostname", row.str("hostname").into()),
                (IDS, map(IDS)),
                (CONFIG, map(CONFIG)),
            ]),
        }
    }

    /// Holds as long as the chassis is as it was looked at.
    fn unchanged(&self, uuid: Uuid) -> Operation {
        Operation::require(
            CHASSIS,
            vec![Condition::row(uuid)],
            self.basis
                .iter()
                .map(|(column, _)| column.clone())
                .collect(),
            Until::Equal,
            vec![self.basis.clone()],
        )
    }
}

/// A chassis that is to go.
#[derive(Debug)]
pub(crate) struct Stale {
    deletes: Vec<Operation>,
    /// Its node has another one now, or was seen to be deleted.
    is_explained: bool,
}

/// A chassis with a mark that was removed, by whomever.
#[derive(Debug)]
struct Departed {
    node: SmolStr,
    at: Timestamp,
    /// How often.
    times: u32,
}

impl Departed {
    /// When it may be removed again.
    fn due(&self) -> Timestamp {
        let doublings = self.times.saturating_sub(1).min(8);
        let pause = (AGAIN * 2_u32.pow(doublings)).min(AGAIN_MAX);
        self.at
            .saturating_add(signed(pause))
            .unwrap_or(Timestamp::MAX)
    }
}

/// The southbound side of the engine.
#[derive(Debug, Default)]
pub(crate) struct Sb {
    pub(crate) link: Link,
    chassis: BTreeMap<Uuid, Chassis>,
    private: BTreeMap<Uuid, SmolStr>,
    in_flight: Option<EffectId>,
    pause: Option<Timestamp>,
    /// Chassis that went within [`MEMORY`]. A standby learns of them as the leader does, from the replica.
    departed: BTreeMap<SmolStr, Departed>,
    /// Whether looking again may find something.
    stale: bool,
    /// Whether a chassis that is back was left for a while when this was last looked at.
    waited: bool,
    pub(crate) counts: BTreeMap<(CommitKind, &'static str), u64>,
}

impl Sb {
    fn apply(&mut self, delta: &RowDelta, now: Timestamp) {
        let row: Option<&Arc<Row>> = delta.new.as_ref();
        match (delta.table.as_str(), row) {
            (CHASSIS, Some(row)) => drop(self.chassis.insert(delta.uuid, Chassis::of(row))),
            (CHASSIS, None) => {
                if let Some(Chassis {
                    name,
                    node: Some(node),
                    ..
                }) = self.chassis.remove(&delta.uuid)
                {
                    let times = self.departed.get(&name).map_or(0, |before| before.times) + 1;
                    let at = now;
                    self.departed.insert(name, Departed { node, at, times });
                }
            }
            (CHASSIS_PRIVATE, Some(row)) => {
                drop(self.private.insert(delta.uuid, row.str("name").into()));
            }
            (CHASSIS_PRIVATE, None) => drop(self.private.remove(&delta.uuid)),
            _ => return,
        }
        self.stale = true;
    }

    pub(crate) const fn touch(&mut self) {
        self.stale = true;
    }

    pub(crate) fn abandon(&mut self) {
        self.in_flight = None;
        self.stale = true;
    }

    pub(crate) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let again = self.departed.values().map(Departed::due);
        self.pause
            .into_iter()
            .chain(again)
            .filter(|t| *t > now)
            .min()
    }

    /// The node that a chassis without a mark was before it went.
    fn was(&self, chassis: &Chassis) -> Option<&SmolStr> {
        let by_name = self.departed.get(&chassis.name).map(|gone| &gone.node);
        by_name.or_else(|| {
            let mut nodes = self.departed.values().map(|gone| &gone.node);
            nodes.find(|node| **node == chassis.hostname)
        })
    }

    /// Whether a chassis may not be removed again yet.
    fn is_back(&self, chassis: &Chassis, now: Timestamp) -> bool {
        let gone = self.departed.get(&chassis.name);
        gone.is_some_and(|gone| gone.due() > now)
    }

    pub(crate) fn chassis(&self) -> usize {
        self.chassis.len()
    }
}

impl Engine {
    pub(crate) fn sb_event(&mut self, event: ReplicaEvent) {
        match event {
            ReplicaEvent::Connected(_) => self.sb.link = Link::Loading,
            ReplicaEvent::Deltas(deltas) => {
                for delta in &deltas {
                    self.sb.apply(delta, self.now);
                }
            }
            ReplicaEvent::Synced => {
                self.sb.link = Link::Synced;
                self.sb.stale = true;
            }
            ReplicaEvent::Disconnected(_) => self.sb.link = Link::Down,
        }
    }

    /// Tags the chassis of nodes, and removes stale ones.
    pub(crate) fn flush_sb(&mut self) {
        let now = self.now;
        if self.sb.link != Link::Synced {
            return;
        }
        self.forget_chassis();
        if !self.is_active()
            || self.sb.in_flight.is_some()
            || self.sb.pause.is_some_and(|t| t > now)
        {
            return;
        }
        self.sb.pause = None;
        let waits = self.sb.departed.values().any(|gone| gone.due() > now);
        if !self.sb.stale && !std::mem::replace(&mut self.sb.waited, waits) {
            return;
        }
        self.sb.waited = waits;
        self.sb.stale = false;
        let (mut ops, mut stale) = self.chassis_ops();
        if self.is_taking_over() && !stale.is_empty() {
            // Nodes may be there that no watch has shown yet.
            self.ask_for_lists();
            stale.clear();
        }
        let unexplained: Vec<&SmolStr> = stale
            .iter()
            .filter(|(_, stale)| !stale.is_explained)
            .map(|(name, _)| name)
            .collect();
        let (count, example) = (unexplained.len(), unexplained.first().copied().cloned());
        let held = self.hold_chassis(count, self.sb.chassis.len(), example.as_ref());
        for (
            name,
            Stale {
                deletes,
                is_explained,
            },
        ) in stale
        {
            if is_explained || !held {
                self.log(LogLine::Warning {
                    text: format!("removing stale chassis {name}"),
                });
                ops.extend(deletes);
            }
        }
        if ops.is_empty() {
            return;
        }
        let id = self.next_id();
        self.sb.in_flight = Some(id);
        self.out.push(Effect::Sb { id, ops });
    }

    /// Forgets chassis that went and nodes that were deleted when nothing can follow from them any more.
    fn forget_chassis(&mut self) {
        let mentions = |chassis: &Chassis, node: &str| {
            chassis.node.as_deref() == Some(node) || chassis.hostname == node
        };
        let chassis = &self.sb.chassis;
        self.missing
            .forget_nodes(|node| chassis.values().any(|c| mentions(c, node)));
        let since = self.now.saturating_sub(signed(MEMORY));
        let since = since.unwrap_or(Timestamp::MIN);
        let world = &self.world;
        // A node that is there names its chassis itself.
        self.sb
            .departed
            .retain(|_, gone| gone.at > since && world.node(&gone.node).is_none());
    }

    /// Marks to set, and what to delete for each stale chassis.
    pub(crate) fn chassis_ops(&self) -> (Vec<Operation>, BTreeMap<SmolStr, Stale>) {
        let mut of_node: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        let mut node_of: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for node in self.world.nodes() {
            let chassis = node.annotation(api::keys::CHASSIS);
            of_node.insert(&node.name, chassis);
            if let Some(chassis) = chassis {
                node_of.insert(chassis, (&node.name, &node.uid));
            }
        }
        let mut ops = Vec::new();
        let mut stale = BTreeMap::new();
        for (uuid, chassis) in &self.sb.chassis {
            if let Some((node, uid)) = node_of.get(chassis.name.as_str()) {
                if chassis.node.as_deref() != Some(node)
                    || chassis.node_uid.as_deref() != Some(uid)
                    || !chassis.vendor
                {
                    let ids = [
                        (NODE_KEY, *node),
                        (UID_KEY, *uid),
                        (ovn::VENDOR_KEY, ovn::VENDOR),
                    ];
                    let ids = Datum::map(ids);
                    ops.push(chassis.unchanged(*uuid));
                    ops.push(Operation::mutate(
                        CHASSIS,
                        Condition::row(*uuid),
                        vec![
                            Mutation::delete_keys(IDS, [NODE_KEY, UID_KEY, ovn::VENDOR_KEY]),
                            Mutation::insert(IDS, ids),
                        ],
                    ));
                }
                continue;
            }
            let told = self.missing.is_told(&chassis.hostname);
            let was = told.then_some(&chassis.hostname);
            if chassis.node.is_none()
                && !chassis.vendor
                && let Some(node) = was.or_else(|| self.sb.was(chassis))
                && !of_node.contains_key(node.as_str())
            {
                let ids = Datum::map([(NODE_KEY, node.as_str()), (ovn::VENDOR_KEY, ovn::VENDOR)]);
                ops.push(chassis.unchanged(*uuid));
                ops.push(Operation::mutate(
                    CHASSIS,
                    Condition::row(*uuid),
                    vec![Mutation::insert(IDS, ids)],
                ));
                continue;
            }
            // A chassis without a mark may be a node's that is just being installed: it registers before its node
            // names it.
            // The Go implementation's mark does not name the node.
            let node = chassis.node.as_ref();
            let node = node.or(chassis.vendor.then_some(&chassis.hostname));
            let node = node.map(SmolStr::as_str);
            let is_stale = node.is_some_and(|n| of_node.get(n).is_none_or(Option::is_some));
            if is_stale && !chassis.remote && !self.sb.is_back(chassis, self.now) {
                let mut deletes = vec![
                    chassis.unchanged(*uuid),
                    Operation::delete(CHASSIS, Condition::row(*uuid)),
                ];
                let private = self
                    .sb
                    .private
                    .iter()
                    .filter(|(_, name)| **name == chassis.name);
                deletes
                    .extend(private.map(|(uuid, _)| {
                        Operation::delete(CHASSIS_PRIVATE, Condition::row(*uuid))
                    }));
                let is_explained = self.sb.departed.contains_key(&chassis.name)
                    || node.is_some_and(|n| of_node.contains_key(n) || self.missing.is_told(n));
                let entry = Stale {
                    deletes,
                    is_explained,
                };
                stale.insert(chassis.name.clone(), entry);
            }
        }
        (ops, stale)
    }

    /// The end of a transaction; `false` if it was not ours.
    pub(crate) fn sb_done(&mut self, id: EffectId, outcome: &CommitOutcome) -> bool {
        if self.sb.in_flight != Some(id) {
            return false;
        }
        self.sb.in_flight = None;
        self.sb.stale = true;
        let label = match outcome {
            CommitOutcome::Committed => "committed",
            CommitOutcome::WaitFailed { .. } => "fenced",
            _ => "failed",
        };
        *self
            .sb
            .counts
            .entry((CommitKind::Chassis, label))
            .or_default() += 1;
        if *outcome != CommitOutcome::Committed {
            self.sb.pause = self.now.saturating_add(signed(PAUSE)).ok();
            self.log(LogLine::Warning {
                text: format!("southbound transaction failed: {outcome:?}"),
            });
        }
        true
    }
}
