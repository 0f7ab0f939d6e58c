//! The way to the northbound database: one transaction at a time, guarded by the epoch.
//!
//! ```text
//!   Idle ── something pending, nothing in flight ──> InFlight ── answer ──> Idle
//! ```
//!
//! There is no timer: while a transaction is in flight, changes gather; its end starts the next one. The answer comes
//! after the deltas of the transaction, so that what was written is no longer pending when it is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fabric::{PortName, Unit};
use jiff::Timestamp;
use ovn::{Batch, Database, Diff, Fragment, Held, Identity, Options};
use ovsdb::wire::Operation;
use smol_str::SmolStr;

use crate::effect::{CommitKind, Effect, EffectId, LogLine, Notice};
use crate::event::{CommitOutcome, Kind, ObjectKey, ReplicaEvent};
use crate::fence::{self, Global, Role};
use crate::lease::signed;
use crate::notices::Source;
use crate::{Config, Engine};

/// First pause after a transaction that surely did not happen.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after such transactions.
const LONGEST: Duration = Duration::from_secs(5);
/// So often may the database say in a row that it has a row already which the replica does not show.
const DUPLICATES: u32 = 4;
/// First pause of a parked unit.
const PARK: Duration = Duration::from_secs(1);
/// Longest pause of a parked unit.
const PARK_LONGEST: Duration = Duration::from_mins(1);

/// How a database's replica stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// No session.
    #[default]
    Down,
    /// A session, the replica being brought up to date.
    Loading,
    /// The replica follows.
    Synced,
}

#[derive(Debug)]
struct InFlight {
    id: EffectId,
    kind: CommitKind,
    /// The epoch that is being taken, or under which the flush was sent.
    epoch: u64,
    batch: Option<Batch<Unit>>,
}

/// A unit whose rows the database refuses.
#[derive(Debug)]
struct Parked {
    error: String,
    failures: u32,
    until: Timestamp,
}

/// The northbound side of the engine.
#[derive(Debug)]
pub(crate) struct Nb {
    pub(crate) link: Link,
    pub(crate) diff: Diff<Unit>,
    pub(crate) global: Global,
    in_flight: Option<InFlight>,
    /// Units of the transaction that is under way, and of one whose outcome is unknown until its epoch has passed.
    on_its_way: BTreeSet<Unit>,
    parked: BTreeMap<Unit, Parked>,
    /// Sets of units that failed together without a word about which is guilty; tried apart.
    suspects: Vec<BTreeSet<Unit>>,
    /// Whether planning again may give something new.
    stale: bool,
    /// Nothing is sent before this.
    pause: Option<Timestamp>,
    /// Transactions that did not happen, since the last one that did.
    failures: u32,
    /// Ended transactions by kind and outcome.
    pub(crate) counts: BTreeMap<(CommitKind, &'static str), u64>,
    /// Operations sent.
    pub(crate) ops: u64,
}

impl Nb {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            link: Link::Down,
            diff: Diff::new(Database::Northbound, Identity::new(config.cluster)),
            global: Global::default(),
            in_flight: None,
            on_its_way: BTreeSet::new(),
            parked: BTreeMap::new(),
            suspects: Vec::new(),
            stale: true,
            pause: None,
            failures: 0,
            counts: BTreeMap::new(),
            ops: 0,
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.link == Link::Synced
    }

    /// Whether the database holds what a unit wants, and no port of it that it does not want, and nothing is on its way
    /// that would change this.
    pub(crate) fn is_clean(&mut self, unit: &Unit) -> bool {
        !self.on_its_way.contains(unit) && self.diff.is_clean(unit) && !self.has_old_port(unit)
    }

    /// Whether there is a port of an earlier process, of a unit that wants none.
    fn has_old_port(&self, unit: &Unit) -> bool {
        let name = match unit {
            Unit::Port(name) => name.clone(),
            Unit::Node(name) => api::view::node_port_name(name),
            _ => return false,
        };
        let key = ovn::nb::LogicalSwitchPort::named(name).into_key();
        let ours = |(_, owner, _)| owner == ovn::Owner::Ours;
        self.diff.wanted(&key).is_none() && self.diff.row(&key).is_some_and(ours)
    }

    pub(crate) fn parked(&self, unit: &Unit) -> Option<&str> {
        self.parked.get(unit).map(|p| p.error.as_str())
    }

    pub(crate) fn parked_units(&self) -> impl Iterator<Item = (&Unit, &str)> {
        self.parked.iter().map(|(unit, p)| (unit, p.error.as_str()))
    }

    pub(crate) const fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// What a unit wants now.
    pub(crate) fn set(&mut self, unit: &Unit, fragment: Fragment) {
        // A unit that changed deserves another try at once.
        if let Some(parked) = self.parked.get_mut(unit) {
            parked.until = Timestamp::MIN;
        }
        self.stale = true;
        if fragment.is_empty() {
            self.diff.remove(unit);
        } else {
            self.diff.set(unit.clone(), fragment);
        }
    }

    /// Planning again may give something new.
    pub(crate) const fn stale(&mut self) {
        self.stale = true;
    }

    /// Forgets what is under way (its answer, if it comes, is nobody's) and what was learnt from refusals.
    pub(crate) fn abandon(&mut self) {
        self.in_flight = None;
        self.on_its_way.clear();
        self.parked.clear();
        self.suspects.clear();
        self.stale = true;
    }

    pub(crate) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.parked
            .values()
            .map(|p| p.until)
            .chain(self.pause)
            .filter(|t| *t > now)
            .min()
    }

    /// Sends nothing for a while after a transaction that did not happen, longer each time.
    fn hesitate(&mut self, now: Timestamp) -> Duration {
        let pause = LONGEST.min(PAUSE * 2u32.saturating_pow(self.failures.min(10)));
        self.failures = self.failures.saturating_add(1);
        self.pause = now.saturating_add(signed(pause)).ok();
        pause
    }

    fn park(&mut self, unit: &Unit, error: &str, now: Timestamp) {
        let failures = self.parked.get(unit).map_or(0, |p| p.failures) + 1;
        let pause = PARK_LONGEST.min(PARK * 2u32.saturating_pow(failures.min(10) - 1));
        let parked = Parked {
            error: error.to_owned(),
            failures,
            until: now.saturating_add(signed(pause)).unwrap_or(Timestamp::MAX),
        };
        self.parked.insert(unit.clone(), parked);
    }
}

impl Engine {
    pub(crate) fn nb_event(&mut self, event: ReplicaEvent) {
        match event {
            ReplicaEvent::Connected(schema) => {
                self.nb.link = Link::Loading;
                if let Some(schema) = schema {
                    for missing in self.nb.diff.support(&schema) {
                        self.log(LogLine::Warning {
                            text: missing.to_string(),
                        });
                    }
                }
            }
            ReplicaEvent::Deltas(deltas) => {
                for delta in deltas.iter().filter(|delta| delta.table == fence::TABLE) {
                    self.nb.global.apply(delta.uuid, delta.new.as_ref());
                }
                self.nb.diff.apply(&deltas);
                self.nb.stale = true;
                self.nb_changed = true;
                self.check_epoch();
            }
            ReplicaEvent::Synced => {
                self.nb.link = Link::Synced;
                self.nb.stale = true;
                self.nb_changed = true;
                self.check_epoch();
            }
            ReplicaEvent::Disconnected(_) => self.nb.link = Link::Down,
        }
    }

    /// The database shows another epoch than ours: somebody else leads, or the database was put back to an older state.
    fn check_epoch(&mut self) {
        if let Role::Leader { until, epoch } = self.role
            && self.nb.is_synced()
            && self.nb.global.epoch() != epoch
        {
            let now = self.nb.global.epoch();
            self.stop(
                Role::Fenced { until },
                &format!("the database is at epoch {now}, ours was {epoch}"),
            );
        }
    }

    /// Sends what is next, if anything.
    pub(crate) fn flush(&mut self) {
        if !self.open
            || !self.nb.is_synced()
            || self.nb.is_busy()
            || self.nb.pause.is_some_and(|t| t > self.now)
        {
            return;
        }
        self.nb.pause = None;
        self.forget_told(false);
        match self.role {
            Role::Standby | Role::Fenced { .. } => {}
            Role::Candidate { .. } => {
                if !self.may_take_over() {
                    return;
                }
                let (epoch, ops) = self.nb.global.take(&self.config.identity);
                self.commit(CommitKind::Epoch, epoch, ops, None);
            }
            Role::Leader { epoch, .. } => {
                if let Some(batch) = self.next_batch() {
                    let mut ops = vec![fence::fence(epoch)];
                    ops.extend(batch.ops.iter().cloned());
                    self.commit(CommitKind::Flush, epoch, ops, Some(batch));
                }
            }
        }
    }

    fn next_batch(&mut self) -> Option<Batch<Unit>> {
        let now = self.now;
        let due: Vec<Unit> = self
            .nb
            .parked
            .iter()
            .filter(|(_, p)| p.until <= now)
            .map(|(unit, _)| unit.clone())
            .collect();
        for unit in due {
            self.nb.stale = true;
            if self.nb.is_clean(&unit) {
                self.unpark(&unit);
            }
        }
        if !self.nb.stale {
            return None;
        }
        self.forget_told(true);
        let mut options = Options {
            max_ops: self.config.batch_ops,
            brakes: None,
            told: self.missing.told(),
            told_units: self.told_units(),
            strangers: !self.doubts(),
            deletes: !self.is_taking_over(),
            parked: self.parked_units(),
            ..Options::default()
        };
        loop {
            options.only = self.nb.suspects.last().cloned();
            options.brakes = (!self.config.allow_mass_delete).then_some(self.config.brakes);
            let mut plan = self.nb.diff.plan(&options);
            let waits = |held: &Held<Unit>| matches!(held, Held::Barrier { .. });
            if self.is_taking_over() && plan.held.iter().any(waits) {
                self.ask_for_lists();
            }
            if options.only.is_none() {
                self.note_held(&plan);
            }
            if !self.brakes.northbound.is_empty() && self.brakes.consents() {
                options.brakes = None;
                plan = self.nb.diff.plan(&options);
            }
            if let Some(batch) = plan.batches.into_iter().next() {
                return Some(batch);
            }
            if self.nb.suspects.pop().is_none() {
                self.nb.stale = false;
                return None;
            }
        }
    }

    /// Units whose rows are not sent for now: the database refused them, or a Subnet has to remember first what is there,
    /// or the port may be another than the watches show.
    pub(crate) fn parked_units(&self) -> BTreeSet<Unit> {
        let refused = self.nb.parked.iter().filter(|(_, p)| p.until > self.now);
        let adopting = self.adopting.keys().cloned().map(Unit::Subnet);
        refused
            .map(|(unit, _)| unit.clone())
            .chain(adopting)
            .chain(self.doubtful_units())
            .collect()
    }

    fn commit(
        &mut self,
        kind: CommitKind,
        epoch: u64,
        ops: Vec<Operation>,
        batch: Option<Batch<Unit>>,
    ) {
        let id = self.next_id();
        self.nb.ops += ops.len() as u64;
        if let Some(batch) = &batch {
            self.nb.on_its_way = batch.units();
        }
        self.nb.in_flight = Some(InFlight {
            id,
            kind,
            epoch,
            batch,
        });
        self.out.push(Effect::Nb { id, kind, ops });
    }

    /// The end of a transaction; `false` if it was not ours (or of a former leadership).
    pub(crate) fn nb_done(&mut self, id: EffectId, outcome: &CommitOutcome) -> bool {
        if self.nb.in_flight.as_ref().is_none_or(|f| f.id != id) {
            return false;
        }
        let Some(InFlight {
            kind, epoch, batch, ..
        }) = self.nb.in_flight.take()
        else {
            return false;
        };
        self.nb.stale = true;
        self.nb_changed = true;
        let label = match outcome {
            CommitOutcome::Committed => "committed",
            CommitOutcome::WaitFailed { .. } => "fenced",
            CommitOutcome::Refused { .. } => "refused",
            CommitOutcome::Retry(_) => "retry",
            CommitOutcome::Unknown(_) => "unknown",
        };
        *self.nb.counts.entry((kind, label)).or_default() += 1;
        if *outcome == CommitOutcome::Committed {
            self.nb.failures = 0;
        }
        let is_over = match kind {
            CommitKind::Epoch => *outcome == CommitOutcome::Committed,
            _ => !matches!(outcome, CommitOutcome::Unknown(_)),
        };
        if is_over {
            self.nb.on_its_way.clear();
        }
        match (outcome, batch) {
            (CommitOutcome::Committed, None) => {
                self.take_office(epoch);
                self.settle_missing();
                self.note_unclaimed();
            }
            (CommitOutcome::Committed, Some(batch)) => self.committed(&batch),
            (CommitOutcome::WaitFailed { .. }, Some(_)) => {
                if let Role::Leader { until, .. } = self.role {
                    self.stop(Role::Fenced { until }, "another leader has taken an epoch");
                }
            }
            (CommitOutcome::Refused { op, error }, Some(batch)) => self.refused(*op, error, &batch),
            (CommitOutcome::Unknown(error), batch) => {
                self.hesitate(error);
                // It may be committed yet, when a server wakes up that has it in its socket. Under a new epoch its own
                // fence stops it, and nothing is sent before that is taken.
                if let (Some(_), Role::Leader { until, .. }) = (batch, self.role) {
                    self.role = Role::Candidate { until };
                }
            }
            (CommitOutcome::Retry(error), _) => self.hesitate(error),
            // Somebody took the epoch first, or made the row: look again at what the replica then shows.
            (CommitOutcome::WaitFailed { .. } | CommitOutcome::Refused { .. }, None) => {
                self.nb.hesitate(self.now);
            }
        }
        true
    }

    /// Waits a little before the next transaction.
    fn hesitate(&mut self, error: &str) {
        let pause = self.nb.hesitate(self.now);
        self.log(LogLine::WriteFailed {
            write: "northbound transaction".to_owned(),
            error: error.to_owned(),
            retry_in_ms: u64::try_from(pause.as_millis()).unwrap_or_default(),
        });
    }

    fn unpark(&mut self, unit: &Unit) {
        if self.nb.parked.remove(unit).is_some() {
            self.notices
                .set(Source::Writes(unit.to_string()), BTreeSet::new());
            self.touch_unit(unit);
        }
    }

    fn touch_unit(&mut self, unit: &Unit) {
        if let Some(object) = object_of(unit) {
            self.touch(object);
        }
    }

    fn committed(&mut self, batch: &Batch<Unit>) {
        self.nb.suspects.pop();
        for unit in batch.units() {
            self.unpark(&unit);
        }
    }

    fn refused(&mut self, op: Option<usize>, error: &str, batch: &Batch<Unit>) {
        self.nb.suspects.pop();
        // Operation 0 is the fence.
        let named = op.and_then(|op| op.checked_sub(1));
        let mut guilty: BTreeSet<Unit> = named
            .into_iter()
            .flat_map(|op| batch.units_of(op))
            .cloned()
            .collect();
        // An insert that we sent before was committed after all: the replica will show it. If it does not, then a row that
        // we do not look at has the UUID.
        let is_known = guilty.iter().any(|unit| self.nb.parked.contains_key(unit));
        if error.contains("duplicate uuid") && !is_known && self.nb.failures < DUPLICATES {
            self.hesitate(error);
            return;
        }
        if guilty.is_empty() {
            // The transaction as a whole was refused: its halves tell more. The second may need the first.
            if let Some((first, second)) = batch.halves() {
                self.nb.suspects.extend([second, first]);
                return;
            }
            guilty = batch.units();
        }
        if guilty.is_empty() {
            // Rows that no unit of ours stands behind: nobody can be parked for them.
            self.nb.pause = self.now.saturating_add(signed(PARK)).ok();
            self.log(LogLine::Parked {
                unit: "unclaimed rows".to_owned(),
                error: error.to_owned(),
            });
        }
        for unit in &guilty {
            self.nb.park(unit, error, self.now);
            self.log(LogLine::Parked {
                unit: unit.to_string(),
                error: error.to_owned(),
            });
            if let Some(object) = object_of(unit) {
                let notice = Notice {
                    uid: self
                        .watches
                        .seen(&object)
                        .map(|s| s.uid.clone())
                        .unwrap_or_default(),
                    object: object.clone(),
                    warning: true,
                    reason: SmolStr::new_static("NorthboundRefused"),
                    message: format!(
                        "OVN's northbound database refused the rows of {unit}: {error}"
                    ),
                };
                self.notices
                    .set(Source::Writes(unit.to_string()), BTreeSet::from([notice]));
                self.touch(object);
            }
        }
    }

    /// Looks again at whatever waited for the database.
    pub(crate) fn after_nb(&mut self) {
        if std::mem::take(&mut self.nb_changed) {
            self.todo_ports.extend(std::mem::take(&mut self.in_nb));
            self.todo.extend(std::mem::take(&mut self.after_nb));
        }
    }
}

/// The object that a unit stands for.
fn object_of(unit: &Unit) -> Option<ObjectKey> {
    let port = |name: &PortName| {
        name.rsplit_once('.')
            .map(|(pod, namespace)| ObjectKey::pod(namespace, pod))
    };
    match unit {
        Unit::Global => None,
        Unit::Vpc(name) => Some(ObjectKey::cluster(Kind::Vpc, name.clone())),
        Unit::Subnet(name) | Unit::Gateway { subnet: name, .. } => {
            Some(ObjectKey::cluster(Kind::Subnet, name.clone()))
        }
        Unit::Node(name) => Some(ObjectKey::cluster(Kind::Node, name.clone())),
        Unit::Namespace(name) => Some(ObjectKey::cluster(Kind::Namespace, name.clone())),
        Unit::Port(name) => port(name),
    }
}
