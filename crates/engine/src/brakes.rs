//! The brakes: what would delete an unusual share of a table waits for consent.
//!
//! Rows are counted table by table, and the elements that rows which stay would lose column by column (see
//! [`ovn::Brakes`]); what goes along with a row is not counted again. What is held is looked at anew with every plan,
//! and goes when it has become less.
//!
//! Consent names a number, of rows and elements together. It lasts until nothing is held any more, and ends if more than that would go: what the
//! operator has not seen he has not agreed to.

use std::collections::BTreeSet;

use ovn::{Held, Plan, Step};

use crate::Engine;
use crate::effect::{LogLine, Notice};
use crate::event::{Kind, ObjectKey};
use crate::notices::Source;
use smol_str::{SmolStr, format_smolstr};

/// Rows of one table, or elements of one shared column, that wait for consent to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDeletes {
    /// The table, or `table:column`.
    pub table: SmolStr,
    /// Rows or elements that nobody wants any more.
    pub rows: usize,
    /// Those of ours.
    pub owned: usize,
    /// One of them.
    pub example: Option<String>,
}

impl std::fmt::Display for HeldDeletes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            table, rows, owned, ..
        } = self;
        let what = if table.contains(':') {
            "elements"
        } else {
            "rows"
        };
        write!(f, "{rows} of {owned} {what} of {table}")?;
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
    /// So many rows may go.
    consent: Option<usize>,
    /// What else is held back, and why, in words.
    pub(crate) blocked: BTreeSet<String>,
}

impl Brakes {
    pub(crate) fn held(&self) -> impl Iterator<Item = &HeldDeletes> {
        self.northbound.iter().chain(&self.southbound)
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
                Held::Parked { .. } => {}
                other => drop(blocked.insert(other.to_string())),
            }
        }
        for text in blocked.difference(&self.brakes.blocked) {
            self.out.push(crate::Effect::Log(LogLine::Warning {
                text: format!("held back: {text}"),
            }));
        }
        self.brakes.blocked = blocked;
        let before = std::mem::replace(&mut self.brakes.northbound, northbound);
        self.brakes_changed(!before.is_empty() || self.brakes.southbound.is_some());
    }

    /// Whether so many chassis must stay for now.
    pub(crate) fn hold_chassis(
        &mut self,
        deletes: usize,
        of: usize,
        example: Option<&SmolStr>,
    ) -> bool {
        let limits = self.config.brakes;
        let was_held = self.brakes.held().next().is_some();
        let too_many = !self.config.allow_mass_delete
            && deletes > limits.rows
            && deletes * 100 > of * usize::from(limits.percent);
        self.brakes.southbound = too_many.then(|| HeldDeletes {
            table: SmolStr::new_static("Chassis"),
            rows: deletes,
            owned: of,
            example: example.map(ToString::to_string),
        });
        let held = too_many && !self.brakes.consents();
        self.brakes_changed(was_held);
        held
    }

    /// Says that something is held when it begins, and takes it back when it ends.
    fn brakes_changed(&mut self, was_held: bool) {
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
            self.notices.set(Source::Brakes, BTreeSet::new());
            return;
        }
        if was_held || self.brakes.consent.is_some() {
            return;
        }
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
                "nobody wants {what} any more: they stay until somebody agrees. See what would be deleted at /brakes of the leading kube-ovn-controller, which also says how to agree; if it should not be deleted, look for what is missing in Kubernetes"
            ),
        };
        self.notices.set(Source::Brakes, BTreeSet::from([notice]));
        self.log(LogLine::Held { what });
    }

    /// The operator agrees to the deletion of so many rows.
    pub(crate) fn release_brakes(&mut self, rows: usize) {
        let held = self.brakes.rows();
        if held == 0 {
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
        let plan = self.nb.diff.plan(&ovn::Options {
            max_ops: usize::MAX,
            brakes: None,
            deletes: true,
            parked,
            only: None,
        });
        let steps = plan.batches.iter().flat_map(|batch| &batch.steps);
        let gone = |step: &&Step| matches!(step, Step::Remove { .. } | Step::Delete { .. });
        let mut lines: Vec<String> = steps.filter(gone).map(ToString::to_string).collect();
        let (_, stale) = self.chassis_ops();
        lines.extend(stale.keys().map(|name| format!("- Chassis {name}")));
        lines
    }

    /// Forgets what was held and agreed to: another process leads now.
    pub(crate) fn lift_brakes(&mut self) {
        self.brakes = Brakes::default();
        self.notices.set(Source::Brakes, BTreeSet::new());
    }
}
