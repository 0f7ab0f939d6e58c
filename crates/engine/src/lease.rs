//! Leader election by a `coordination.k8s.io/v1` Lease: the decision, without IO.
//!
//! The rules are those of client-go's leader election, so that an upstream controller and ours exclude each other:
//! a lease that another holder renewed less than `leaseDurationSeconds` ago is respected; the age is counted from the
//! moment **we** first saw that renewal, on our own clock, never by comparing two machines' clocks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Times of the election (upstream's flags `--leader-elect-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// How long a lease that is not renewed is respected.
    pub duration: Duration,
    /// A leader that could not renew for this long stops writing. Less than `duration`.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(20),
            retry: Duration::from_secs(6),
        }
    }
}

/// The part of a Lease's spec that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `spec.holderIdentity`; empty when released.
    pub holder: String,
    /// `spec.leaseDurationSeconds`.
    pub duration: Duration,
    /// `spec.acquireTime`, as written by the holder.
    pub acquired: Option<Timestamp>,
    /// `spec.renewTime`, as written by the holder: compared for equality alone.
    pub renewed: Option<Timestamp>,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
    /// `metadata.resourceVersion`: precondition of our update.
    pub resource_version: String,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// `spec.acquireTime`.
    pub acquired: Timestamp,
    /// `spec.renewTime`.
    pub renewed: Timestamp,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
    /// Create when `None`, else replace this version.
    pub replace: Option<String>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Write the claim; if that succeeds the lease is ours until `now + renew_deadline`.
    Claim(Claim),
    /// Another one holds it; look again at this time.
    Wait(Timestamp),
}

/// What one process remembers of the lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// Last record and the time (ours) at which it was first seen. Written by [`Election::decide`].
    observed: Option<(Record, Timestamp)>,
    /// Since when the lease of another holder has been missing. Written by [`Election::decide`].
    missing: Option<Timestamp>,
}

impl Election {
    /// What to do about the lease as just read (`None`: there is none).
    ///
    /// `me` is this process's identity, `now` its own clock. A lease that was there and is not any more was deleted, which its
    /// holder does not know before it renews: it is respected as if it had just been renewed.
    pub fn decide(
        &mut self,
        lease: Option<Record>,
        me: &str,
        now: Timestamp,
        timing: &Timing,
    ) -> Decision {
        let Some(record) = lease else {
            if let Some((old, _)) = &self.observed
                && !old.holder.is_empty()
                && old.holder != me
            {
                let missing = *self.missing.get_or_insert(now);
                if let Some(wait) = respect(old, missing, now, timing) {
                    return wait;
                }
            }
            *self = Self::default();
            return Decision::Claim(Claim {
                acquired: now,
                renewed: now,
                transitions: 0,
                replace: None,
            });
        };
        let seen = match &self.observed {
            Some((old, seen)) if same_renewal(old, &record) => *seen,
            _ => now,
        };
        self.observed = Some((record.clone(), seen));
        self.missing = None;
        let replace = Some(record.resource_version.clone());
        if record.holder == me {
            return Decision::Claim(Claim {
                acquired: record.acquired.unwrap_or(now),
                renewed: now,
                transitions: record.transitions,
                replace,
            });
        }
        if !record.holder.is_empty()
            && let Some(wait) = respect(&record, seen, now, timing)
        {
            return wait;
        }
        Decision::Claim(Claim {
            acquired: now,
            renewed: now,
            transitions: record.transitions.saturating_add(1),
            replace,
        })
    }

    /// Until when a claim written at `at` lets us write: the end of the renew deadline.
    pub fn guarantee(at: Timestamp, timing: &Timing) -> Timestamp {
        at.saturating_add(signed(timing.renew_deadline))
            .unwrap_or(Timestamp::MAX)
    }
}

/// The wait for a lease that was renewed at `seen`, if it is to be respected.
fn respect(record: &Record, seen: Timestamp, now: Timestamp, timing: &Timing) -> Option<Decision> {
    let after = |from: Timestamp, duration| {
        from.saturating_add(signed(duration))
            .unwrap_or(Timestamp::MAX)
    };
    let free_at = after(seen, record.duration);
    (now < free_at).then(|| Decision::Wait(free_at.min(after(now, timing.retry))))
}

fn same_renewal(a: &Record, b: &Record) -> bool {
    a.holder == b.holder
        && a.renewed == b.renewed
        && a.transitions == b.transitions
        && a.acquired == b.acquired
}

pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn held_by(holder: &str, renewed: i64) -> Record {
        Record {
            holder: holder.into(),
            duration: Duration::from_secs(30),
            acquired: Some(at(0)),
            renewed: Some(at(renewed)),
            transitions: 3,
            resource_version: format!("{renewed}"),
        }
    }

    #[test]
    fn a_missing_lease_is_created() {
        let mut e = Election::default();
        let Decision::Claim(claim) = e.decide(None, "a", at(5), &Timing::default()) else {
            panic!("must claim");
        };
        assert_eq!((claim.transitions, claim.replace), (0, None));
    }

    #[test]
    fn our_own_lease_is_renewed_without_a_transition() {
        let mut e = Election::default();
        let Decision::Claim(claim) =
            e.decide(Some(held_by("a", 1)), "a", at(5), &Timing::default())
        else {
            panic!("must claim");
        };
        assert_eq!(claim.transitions, 3);
        assert_eq!(claim.acquired, at(0));
        assert_eq!(claim.renewed, at(5));
        assert_eq!(claim.replace.as_deref(), Some("1"));
    }

    #[test]
    fn the_age_of_a_renewal_is_counted_from_when_we_saw_it() {
        let t = Timing::default();
        let mut e = Election::default();
        // The holder's clock is far behind ours: its renewTime looks an hour old, and yet it is respected.
        assert_eq!(
            e.decide(Some(held_by("b", -3600)), "a", at(0), &t),
            Decision::Wait(at(6))
        );
        assert_eq!(
            e.decide(Some(held_by("b", -3600)), "a", at(27), &t),
            Decision::Wait(at(30))
        );
        assert!(
            matches!(e.decide(Some(held_by("b", -3600)), "a", at(30), &t), Decision::Claim(c) if c.transitions == 4)
        );
    }

    #[test]
    fn a_renewal_starts_the_count_anew() {
        let t = Timing::default();
        let mut e = Election::default();
        e.decide(Some(held_by("b", 0)), "a", at(0), &t);
        assert_eq!(
            e.decide(Some(held_by("b", 20)), "a", at(29), &t),
            Decision::Wait(at(35))
        );
        assert_eq!(
            e.decide(Some(held_by("b", 20)), "a", at(58), &t),
            Decision::Wait(at(59))
        );
    }

    #[test]
    fn a_lease_that_somebody_deletes_is_respected_as_if_it_had_just_been_renewed() {
        let t = Timing::default();
        let mut e = Election::default();
        e.decide(Some(held_by("b", 0)), "a", at(0), &t);
        assert_eq!(e.decide(None, "a", at(25), &t), Decision::Wait(at(31)));
        assert_eq!(e.decide(None, "a", at(54), &t), Decision::Wait(at(55)));
        let mut other = e.clone();
        assert!(
            matches!(e.decide(None, "a", at(55), &t), Decision::Claim(c) if c.replace.is_none())
        );
        // Its holder has made it again.
        assert_eq!(
            other.decide(Some(held_by("b", 54)), "a", at(55), &t),
            Decision::Wait(at(61))
        );
        assert_eq!(other.decide(None, "a", at(84), &t), Decision::Wait(at(90)));
    }

    #[test]
    fn a_lease_of_our_own_or_of_nobody_that_somebody_deletes_is_made_again_at_once() {
        for holder in ["a", ""] {
            let mut e = Election::default();
            e.decide(Some(held_by(holder, 0)), "a", at(0), &Timing::default());
            let made = e.decide(None, "a", at(1), &Timing::default());
            assert!(matches!(made, Decision::Claim(c) if c.replace.is_none()));
        }
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut e = Election::default();
        let d = e.decide(Some(held_by("", 0)), "a", at(1), &Timing::default());
        assert!(matches!(d, Decision::Claim(c) if c.transitions == 4));
    }
}
