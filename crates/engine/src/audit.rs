//! The auditor: what is kept up to date change by change is computed anew, slowly, and compared.
//!
//! ```text
//!   wait ──(audit_interval)──> units, a slice at a time ──> rows, a slice at a time ──> wait
//! ```
//!
//! First each unit is compiled as at the start and compared with what the difference keeps of it; then all that is known
//! about the rows of the replica is evaluated again. What is not as it should be is a defect: it is said, counted, and
//! mended the way every change goes. A slice is small and between two others get their turn, so nobody waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use fabric::{Unit, compile};
use jiff::Timestamp;

use crate::Engine;
use crate::effect::LogLine;
use crate::lease::signed;

/// Units compiled in one slice.
const UNITS: usize = 128;
/// Row keys evaluated in one slice.
const KEYS: usize = 512;
/// From one slice to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// So many findings of a unit, or of a slice of rows, are named.
const NAMED: usize = 5;

/// Where a round stands.
#[derive(Debug)]
enum Round {
    /// These units have to be looked at yet.
    Units(BTreeSet<Unit>),
    /// The row keys from this number on.
    Rows(usize),
}

/// The auditor's state.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// When the next slice is due; none before the barrier has fallen.
    due: Option<Timestamp>,
    round: Option<Round>,
    /// Rounds that were completed.
    pub(crate) rounds: u64,
    /// Units and rows that were not as they should be.
    pub(crate) drift: u64,
    /// Rows that only the Go implementation's mark is on, as of the last look.
    pub(crate) unclaimed: Vec<String>,
}

impl Engine {
    /// When the auditor wants its turn.
    pub(crate) fn audit_due(&self) -> Option<Timestamp> {
        self.audit.due.filter(|_| self.can_audit())
    }

    fn can_audit(&self) -> bool {
        self.open && self.nb.is_synced()
    }

    /// Looks at the next slice, if its time has come. Whatever changed in this step has been compiled before.
    pub(crate) fn audit(&mut self) {
        if !self.can_audit() {
            return;
        }
        let later = |pause| self.now.saturating_add(signed(pause)).ok();
        match self.audit.due {
            None => self.audit.due = later(self.config.audit_interval),
            Some(due) if due > self.now => {}
            Some(_) => {
                let next = match self.audit.round.take() {
                    None => {
                        let kept = self.nb.diff.units().cloned();
                        Some(Round::Units(
                            self.world.units().into_iter().chain(kept).collect(),
                        ))
                    }
                    Some(Round::Units(units)) => Some(self.audit_units(units)),
                    Some(Round::Rows(from)) => self.audit_rows(from),
                };
                let pause = if next.is_some() {
                    PAUSE
                } else {
                    self.audit.rounds += 1;
                    self.note_unclaimed();
                    self.config.audit_interval
                };
                self.audit.round = next;
                self.audit.due = self.now.saturating_add(signed(pause)).ok();
            }
        }
    }

    fn audit_units(&mut self, mut units: BTreeSet<Unit>) -> Round {
        for _ in 0..UNITS {
            let Some(unit) = units.pop_first() else {
                return Round::Rows(0);
            };
            let wanted = compile(&unit, &self.world).fragment;
            let drift = self.nb.diff.drift(&unit, &wanted);
            if !drift.is_empty() {
                self.found(&unit.to_string(), &drift);
                self.dirty.insert(unit);
            }
        }
        Round::Units(units)
    }

    fn audit_rows(&mut self, from: usize) -> Option<Round> {
        let (next, drift) = self.nb.diff.recheck(from, KEYS);
        if !drift.is_empty() {
            self.found("the replica", &drift);
            self.nb.stale();
            self.nb_changed = true;
        }
        next.map(Round::Rows)
    }

    /// Says what was not as it should be.
    fn found(&mut self, of: &str, drift: &[String]) {
        self.audit.drift += drift.len() as u64;
        let named = drift[..drift.len().min(NAMED)].join("; ");
        let more = drift.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        self.log(LogLine::Warning {
            text: format!(
                "audit: what was known of {of} was not so, which is a defect; it is mended: {named}{more}"
            ),
        });
    }

    /// Looks for rows of the Go implementation that no unit claims.
    pub(crate) fn note_unclaimed(&mut self) {
        let rows = self.nb.diff.unclaimed();
        let rows: Vec<String> = rows.into_iter().map(|(key, _)| key.to_string()).collect();
        if rows == self.audit.unclaimed {
            return;
        }
        if !rows.is_empty() {
            let named = rows[..rows.len().min(NAMED)].join(", ");
            self.log(LogLine::Warning {
                text: format!(
                    "{} rows carry vendor=kube-ovn alone and belong to nothing that this version makes; they are left alone: {named}{}",
                    rows.len(),
                    if rows.len() > NAMED { ", ..." } else { "" }
                ),
            });
        }
        self.audit.unclaimed = rows;
    }

    /// Rows of the Go implementation that nothing of this version claims, as of the last look: at the begin of a
    /// leadership, and with each audit.
    pub fn unclaimed(&self) -> &[String] {
        &self.audit.unclaimed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "this is a test")]
mod tests {
    use jiff::SignedDuration;
    use ovsdb::wire::{Datum, Operation, Row};
    use uuid::Uuid;

    use super::*;
    use crate::common::Lab;

    fn cluster() -> Lab {
        let mut lab = Lab::new();
        lab.populate();
        lab.run();
        for pod in 0..200 {
            lab.pod("default", &format!("p{pod}"), "n1");
        }
        lab.news_at_once();
        lab.run();
        assert_eq!(lab.ports().len(), 202);
        lab
    }

    fn audited(lab: &mut Lab) -> (u64, u64) {
        lab.run_for(SignedDuration::from_mins(11));
        let report = lab.engine.report();
        (report.audits, report.drift)
    }

    #[test]
    fn the_audit_of_a_quiet_cluster_writes_nothing() {
        let mut lab = cluster();
        let (commits, writes) = (lab.nb.commits, lab.kube.writes.len());
        assert_eq!(audited(&mut lab), (1, 0), "{:#?}", lab.trace);
        assert_eq!(audited(&mut lab), (2, 0));
        assert_eq!((lab.nb.commits, lab.kube.writes.len()), (commits, writes));
    }

    #[test]
    fn what_the_bookkeeping_lost_comes_back() {
        let mut lab = cluster();
        let before = lab.end_state();
        // One unit is forgotten, one has what it should not have, one is nobody's.
        let unit = |pod: &str| Unit::Port(format!("{pod}.default").into());
        let diff = &mut lab.engine.nb.diff;
        diff.remove(&unit("p1"));
        diff.remove(&unit("p2"));
        let mut fragment = compile(&unit("p3"), &lab.engine.world).fragment;
        fragment.members.clear();
        diff.set(unit("p3"), fragment);
        let mut fragment = ovn::Fragment::new("Pod/default/never");
        fragment.row(ovn::nb::PortGroup {
            name: "never".into(),
            ..Default::default()
        });
        diff.set(unit("never"), fragment);
        // The next change carries the damage to the database.
        lab.engine.nb.stale();
        lab.run_for(SignedDuration::from_secs(1));
        lab.pod("default", "new", "n1");
        lab.run_for(SignedDuration::from_secs(1));
        let ports = lab.ports();
        assert!(!ports.contains(&"p1.default".into()), "{ports:?}");
        assert_eq!(
            lab.nb
                .rows("Port_Group")
                .filter(|(_, r)| r.str("name") == "never")
                .count(),
            1
        );
        lab.kube.delete(&crate::ObjectKey::pod("default", "new"));
        let (rounds, drift) = audited(&mut lab);
        assert_eq!(rounds, 1);
        assert!(drift >= 4, "{drift}");
        assert_eq!(lab.end_state(), before);
        let told = |of: &str| {
            let line = format!("audit: what was known of {of}");
            lab.trace.iter().any(|l| l.contains(&line))
        };
        for of in ["p1.default", "p2.default", "p3.default", "never.default"] {
            let unit = Unit::Port(of.into()).to_string();
            assert!(told(&unit), "{unit}: {:#?}", lab.trace);
        }
        assert_eq!(audited(&mut lab), (2, drift), "that is mended");
    }

    #[test]
    fn an_audit_takes_many_small_steps() {
        let mut lab = cluster();
        lab.record = Some(Vec::new());
        audited(&mut lab);
        let steps = lab.record.take().unwrap();
        let units = lab.engine.nb.diff.units().count();
        assert!(
            steps.len() > 2 + units / UNITS,
            "{} for {units}",
            steps.len()
        );
    }

    #[test]
    fn rows_of_the_go_implementation_that_nothing_claims_are_said() {
        let mut lab = Lab::new();
        let row = Row::from([
            ("name", "old".into()),
            ("external_ids", Datum::map([("vendor", "kube-ovn")])),
        ]);
        lab.nb
            .transact(&[Operation::insert("Port_Group", Uuid::from_u128(9), row)]);
        lab.populate();
        lab.restart();
        lab.run();
        assert_eq!(lab.engine.unclaimed(), ["Port_Group old"]);
        let lines = lab.trace.iter().filter(|l| l.contains("vendor=kube-ovn"));
        assert_eq!(lines.count(), 1);
        assert_eq!(
            lab.nb
                .rows("Port_Group")
                .filter(|(_, r)| r.str("name") == "old")
                .count(),
            1
        );
        assert!(lab.engine.held_deletes().is_empty());
    }
}
