//! The brakes: what nobody asked for and would delete a good part of the network waits for consent.
//!
//! What somebody deleted through the API server is somebody's will, and goes. Held are, each counted on its own:
//!
//! * **objects** that a new list lacks though no watch said that they went (see the module `missing`): they count as if
//!   they were still there, so nothing of theirs changes;
//! * **rows of unknown origin** that the start of a process finds: nobody wants them, nobody did while it ran, and too
//!   many of the objects that they name are not there;
//! * **rows and elements** that are unwanted although their objects are there: more than 250 of a table, and more than
//!   30 % (see [`ovn::Brakes`]). No user does that with an edit; a defect might;
//! * **chassis** of nodes that are not there and were not deleted while this process ran.
//!
//! What is held is looked at anew with every plan, and goes when it has become less. Consent names a number, of all that
//! is held together. It lasts until nothing is held any more, and ends if more than that would go: what the operator has
//! not seen he has not agreed to.

use std::collections::BTreeSet;

use ovn::{Held, Options, Plan, Step};

use crate::Engine;
use crate::effect::{LogLine, Notice};
use crate::event::{Kind, ObjectKey};
use crate::notices::Source;
use smol_str::{SmolStr, format_smolstr};

/// Rows of one table, elements of one shared column, or objects of one kind, that wait for consent to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDeletes {
    /// The table, `table:column`, or the plural of a kind of objects that a list lacks.
    pub table: SmolStr,
    /// What nobody wants any more.
    pub rows: usize,
    /// All of ours.
    pub owned: usize,
    /// One of them.
    pub example: Option<String>,
}

impl std::fmt::Display for HeldDeletes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            table, rows, owned, ..
        } = self;
        if Kind::ALL.iter().any(|kind| kind.plural() == table) {
            write!(f, "{rows} of {owned} {table} that a new list lacks")?;
        } else if table.contains(':') {
            write!(f, "{rows} of {owned} elements of {table}")?;
        } else {
            write!(f, "{rows} of {owned} rows of {table}")?;
        }
        self.example
            .iter()
            .try_for_each(|example| write!(f, " (such as {example})"))
    }
}

/// What the brakes hold, and what they let go.
#[derive(Debug, Default)]
pub(crate) struct Brakes {
    /// Of the northbound database; written by `note_held`.
    pub(crate) northbound: Vec<HeldDeletes>,
    /// Of the southbound database; written by `hold_chassis`.
    pub(crate) southbound: Option<HeldDeletes>,
    /// Objects that lists lack; written by `note_missing`.
    pub(crate) lists: Vec<HeldDeletes>,
    /// So many rows may go.
    consent: Option<usize>,
    /// Whether the user was told that something is held.
    announced: bool,
    /// What else is held back, and why, in words.
    pub(crate) blocked: BTreeSet<String>,
}

impl Brakes {
    pub(crate) fn held(&self) -> impl Iterator<Item = &HeldDeletes> {
        self.lists
            .iter()
            .chain(&self.northbound)
            .chain(&self.southbound)
    }

    fn rows(&self) -> usize {
        self.held().map(|held| held.rows).sum()
    }

    /// Whether all that is held may go.
    pub(crate) fn consents(&self) -> bool {
        self.consent.is_some_and(|rows| self.rows() <= rows)
    }
}

impl Engine {
    /// Takes note of what a plan leaves out.
    pub(crate) fn note_held<U: std::fmt::Display>(&mut self, plan: &Plan<U>) {
        let mut northbound = Vec::new();
        let mut blocked = BTreeSet::new();
        for held in &plan.held {
            match held {
                Held::Brake {
                    table,
                    deletes,
                    owned,
                    example,
                } => northbound.push(HeldDeletes {
                    table: SmolStr::new(table.name()),
                    rows: *deletes,
                    owned: *owned,
                    example: example.as_ref().map(|key| key.name.to_string()),
                }),
                Held::ElementBrake {
                    column,
                    removes,
                    owned,
                    example,
                } => northbound.push(HeldDeletes {
                    table: format_smolstr!("{}:{}", column.table(), column.name()),
                    rows: *removes,
                    owned: *owned,
                    example: example.as_ref().map(|key| key.name.to_string()),
                }),
                // It has its own log line, and its object an event.
                // What waits for lists goes with them.
                Held::Parked { .. } | Held::Barrier { .. } => {}
                other => drop(blocked.insert(other.to_string())),
            }
        }
        for text in blocked.difference(&self.brakes.blocked) {
            self.out.push(crate::Effect::Log(LogLine::Warning {
                text: format!("held back: {text}"),
            }));
        }
        self.brakes.blocked = blocked;
        self.brakes.northbound = northbound;
        self.brakes_changed();
    }

    /// Whether the chassis of so many nodes must stay for now, whose deletion nobody has seen.
    pub(crate) fn hold_chassis(
        &mut self,
        unexplained: usize,
        of: usize,
        example: Option<&SmolStr>,
    ) -> bool {
        let too_many = self.too_many(Kind::Node, unexplained, of);
        self.brakes.southbound = too_many.then(|| HeldDeletes {
            table: SmolStr::new_static("Chassis"),
            rows: unexplained,
            owned: of,
            example: example.map(ToString::to_string),
        });
        let held = too_many && !self.brakes.consents();
        self.brakes_changed();
        held
    }

    /// Says that something is held when it begins, and takes it back when it ends.
    pub(crate) fn brakes_changed(&mut self) {
        let rows = self.brakes.rows();
        if self.brakes.consent.is_some_and(|consent| consent < rows) {
            self.log(LogLine::Warning {
                text: format!(
                    "{rows} rows would be deleted by now, more than was agreed to: the brakes are on again"
                ),
            });
            self.brakes.consent = None;
        }
        if rows == 0 {
            self.brakes.consent = None;
            self.brakes.announced = false;
            self.notices.set(Source::Brakes, BTreeSet::new());
            return;
        }
        if self.brakes.announced || self.brakes.consent.is_some() {
            return;
        }
        self.brakes.announced = true;
        let held: Vec<String> = self.brakes.held().map(ToString::to_string).collect();
        let what = held.join(", ");
        let object = ObjectKey::cluster(Kind::Vpc, self.config.fabric.cluster_router.clone());
        let notice = Notice {
            uid: self
                .watches
                .seen(&object)
                .map(|seen| seen.uid.clone())
                .unwrap_or_default(),
            object,
            warning: true,
            reason: SmolStr::new_static("MassDeleteHeld"),
            message: format!(
                "this would be deleted, and nobody said so: {what}. It stays until somebody agrees. /brakes of the leading kube-ovn-controller shows all of it and how to agree; if it should not be deleted, look for what is missing in Kubernetes"
            ),
        };
        self.notices.set(Source::Brakes, BTreeSet::from([notice]));
        self.log(LogLine::Held { what });
    }

    /// The operator agrees to the deletion of so many rows.
    pub(crate) fn release_brakes(&mut self, rows: usize) {
        let held = self.brakes.rows();
        // A standby follows what the leader then does.
        if held == 0 || !self.is_active() {
            return;
        }
        if held > rows {
            self.log(LogLine::Warning {
                text: format!(
                    "{held} rows would be deleted, and {rows} were agreed to: nothing is done"
                ),
            });
            return;
        }
        self.brakes.consent = Some(rows);
        self.believe_lists();
        self.nb.stale();
        self.sb.touch();
    }

    /// What the brakes hold, by table.
    pub fn held(&self) -> Vec<HeldDeletes> {
        self.brakes.held().cloned().collect()
    }

    /// What the brakes hold, line by line as it would be done.
    pub fn held_deletes(&mut self) -> Vec<String> {
        let parked = self.parked_units();
        let plan = self.nb.diff.plan(&Options {
            max_ops: usize::MAX,
            brakes: None,
            parked,
            ..Options::default()
        });
        let steps = plan.batches.iter().flat_map(|batch| &batch.steps);
        let gone = |step: &&Step| matches!(step, Step::Remove { .. } | Step::Delete { .. });
        let mut lines: Vec<String> = steps.filter(gone).map(ToString::to_string).collect();
        let (_, stale) = self.chassis_ops();
        lines.extend(stale.keys().map(|name| format!("- Chassis {name}")));
        let missing = self.missing.kept();
        lines.extend(missing.map(|key| format!("- {key}, with all that is there for it")));
        lines
    }

    /// Forgets what was held and agreed to: another process leads now.
    pub(crate) fn lift_brakes(&mut self) {
        // What lists lack, they lack for this process whoever leads.
        self.brakes = Brakes {
            lists: std::mem::take(&mut self.brakes.lists),
            ..Brakes::default()
        };
        self.notices.set(Source::Brakes, BTreeSet::new());
    }
}
