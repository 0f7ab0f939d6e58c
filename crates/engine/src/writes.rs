//! Kubernetes writes under way: at most one for each object, and when to try again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use smol_str::SmolStr;

use crate::effect::EffectId;
use crate::event::{Kind, ObjectKey};
use crate::lease::signed;
use crate::timers::Timers;

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_mins(1);
/// How long a write that met a newer version waits for the watch to show it.
const STALE: Duration = Duration::from_secs(1);

/// What a write is for; says what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Create an object.
    Create,
    /// Change metadata or spec.
    Patch,
    /// Change the status.
    Status,
    /// Ask for the removal.
    Delete,
    /// Take our finalizer off.
    Unfinalize,
}

#[derive(Debug)]
struct InFlight {
    id: EffectId,
    purpose: Purpose,
    verb: &'static str,
    /// The version of the object that the write was made for; none if there was no object.
    based_on: Option<SmolStr>,
    /// Whether the object went, or was listed anew, since: the object in the answer may be one that is gone.
    overtaken: bool,
}

/// A write that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) id: EffectId,
    pub(crate) key: ObjectKey,
    pub(crate) purpose: Purpose,
    pub(crate) based_on: Option<SmolStr>,
    pub(crate) overtaken: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Ends {
    WithTime,
    /// With any version but this one (`None`: with any version), which was out of date.
    WithNews {
        stale: Option<SmolStr>,
    },
}

#[derive(Debug)]
struct Pause {
    failures: u32,
    until: Timestamp,
    /// What ends the pause besides time.
    ends: Ends,
}

/// How a write ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// Done.
    Done,
    /// The object was not there.
    NotFound,
    /// A newer version was there.
    Conflict,
    /// Refused.
    Refused,
    /// Not executed.
    Retry,
    /// No answer.
    Unknown,
}

impl Ended {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Retry => "retry",
            Self::Unknown => "unknown",
        }
    }
}

/// The book of writes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// By object; written by `begin` and `end`.
    in_flight: BTreeMap<ObjectKey, InFlight>,
    /// The same by id.
    by_id: BTreeMap<EffectId, ObjectKey>,
    /// Objects whose last write failed; written by `pause` and `await_news`, until one succeeds or none is needed.
    pauses: BTreeMap<ObjectKey, Pause>,
    /// When they are looked at again; kept by `wait`.
    due: Timers<ObjectKey>,
    /// Ended writes: kind, verb, how.
    counts: BTreeMap<(Kind, &'static str, Ended), u64>,
}

impl Writes {
    /// Whether `key` may be written now.
    pub(crate) fn is_free(&self, key: &ObjectKey, now: Timestamp) -> bool {
        !self.in_flight.contains_key(key) && self.pauses.get(key).is_none_or(|p| p.until <= now)
    }

    /// Whether a write to `key` is under way.
    pub(crate) fn is_busy(&self, key: &ObjectKey) -> bool {
        self.in_flight.contains_key(key)
    }

    /// Notes a write of `key` that was made for the version `based_on`.
    pub(crate) fn begin(
        &mut self,
        key: ObjectKey,
        id: EffectId,
        purpose: Purpose,
        verb: &'static str,
        based_on: Option<SmolStr>,
    ) {
        self.by_id.insert(id, key.clone());
        let write = InFlight {
            id,
            purpose,
            verb,
            based_on,
            overtaken: false,
        };
        self.in_flight.insert(key, write);
    }

    /// Ends a write; `None` for one that a former leadership of ours began.
    pub(crate) fn end(&mut self, id: EffectId, how: Ended) -> Option<Finished> {
        let key = self.by_id.remove(&id)?;
        let write = self.in_flight.remove(&key)?;
        debug_assert_eq!(write.id, id);
        *self.counts.entry((key.kind, write.verb, how)).or_default() += 1;
        Some(Finished {
            id,
            key,
            purpose: write.purpose,
            based_on: write.based_on,
            overtaken: write.overtaken,
        })
    }

    /// `key` is gone.
    pub(crate) fn gone(&mut self, key: &ObjectKey) {
        self.clear(key);
        if let Some(write) = self.in_flight.get_mut(key) {
            write.overtaken = true;
        }
    }

    /// A list of this kind begins or ends.
    pub(crate) fn listed(&mut self, kind: Kind) {
        for (_, write) in self
            .in_flight
            .iter_mut()
            .filter(|(key, _)| key.kind == kind)
        {
            write.overtaken = true;
        }
    }

    /// Makes `key` wait after a failure, longer each time; returns the pause.
    pub(crate) fn pause(&mut self, key: &ObjectKey, now: Timestamp) -> Duration {
        self.fail(key, now, Ends::WithTime)
    }

    /// Makes `key` wait after a write that changed nothing, longer each time, or until it is seen in another version than
    /// `stale`.
    pub(crate) fn pause_until_news(
        &mut self,
        key: &ObjectKey,
        stale: Option<SmolStr>,
        now: Timestamp,
    ) {
        self.fail(key, now, Ends::WithNews { stale });
    }

    fn fail(&mut self, key: &ObjectKey, now: Timestamp, ends: Ends) -> Duration {
        let failures = self
            .pauses
            .get(key)
            .map_or(0, |p| p.failures)
            .saturating_add(1);
        let pause = LONGEST.min(FIRST * 2u32.saturating_pow(failures.min(16) - 1));
        let until = now.saturating_add(signed(pause)).unwrap_or(Timestamp::MAX);
        self.wait(key, failures, until, ends);
        pause
    }

    fn wait(&mut self, key: &ObjectKey, failures: u32, until: Timestamp, ends: Ends) {
        let pause = Pause {
            failures,
            until,
            ends,
        };
        self.pauses.insert(key.clone(), pause);
        self.due.set(key.clone(), until);
    }

    /// Makes `key` wait until the watch shows another version than `stale`, or for a second.
    pub(crate) fn await_news(&mut self, key: &ObjectKey, stale: Option<SmolStr>, now: Timestamp) {
        let failures = self.pauses.get(key).map_or(0, |p| p.failures);
        let until = now.saturating_add(signed(STALE)).unwrap_or(Timestamp::MAX);
        self.wait(key, failures, until, Ends::WithNews { stale });
    }

    /// Success, or nothing left to write: the next failure starts with a short pause again.
    pub(crate) fn clear(&mut self, key: &ObjectKey) {
        self.pauses.remove(key);
        self.due.cancel(key);
    }

    /// Whether the last write failed.
    pub(crate) fn has_failed(&self, key: &ObjectKey) -> bool {
        self.pauses.get(key).is_some_and(|pause| pause.failures > 0)
    }

    /// A version of `key` was seen: a pause that waited for news ends.
    pub(crate) fn seen(&mut self, key: &ObjectKey, version: &str) {
        let ends = |pause: &Pause| match &pause.ends {
            Ends::WithTime => false,
            Ends::WithNews { stale } => stale.as_deref() != Some(version),
        };
        if self.pauses.get(key).is_some_and(ends) {
            self.clear(key);
        }
    }

    /// Objects whose pause is over; each is named once.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<ObjectKey> {
        self.due.take_due(now)
    }

    /// End of the earliest pause.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.next()
    }

    /// Forgets everything under way (leadership lost): late answers find nobody.
    pub(crate) fn abandon(&mut self) {
        self.in_flight.clear();
        self.by_id.clear();
        self.pauses.clear();
        self.due.clear();
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.pauses.len()
    }

    pub(crate) fn counts(&self) -> &BTreeMap<(Kind, &'static str, Ended), u64> {
        &self.counts
    }
}
