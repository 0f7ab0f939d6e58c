//! What is told when: repetitions become one Event with a count, and nobody is flooded.
//!
//! Everything but its note makes an Event's [`Topic`]. The note of an Event cannot be changed (the API server refuses
//! that), so other words about a topic are another Event, and the same words again raise the count of theirs. A topic
//! that keeps changing its words is heard at a bounded pace: while it has to wait, newer words replace older ones, so that
//! the last word is always told. Nothing here knows a clock or a socket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::{Notice, ObjectKey};
use smol_str::SmolStr;

/// Longest `note` that the API takes, in bytes.
const NOTE: usize = 1024;
/// Longest name of an object (RFC 1123 subdomain).
const NAME: usize = 253;
/// Topics that are remembered.
pub(super) const TOPICS: usize = 4096;
/// Events of a topic that the same words can count on.
const EVENTS: usize = 4;
/// Words that come again later than this are news, as in client-go.
const SERIES: Duration = Duration::from_mins(6);
/// How often one topic is written about, and all of them together.
const OF_ONE: Rate = Rate {
    burst: 5,
    every: Duration::from_mins(1),
};
const OF_ALL: Rate = Rate {
    burst: 200,
    every: Duration::from_millis(50),
};
/// Pauses after a failed write: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Words that could not be told for so long are given up.
const STALE: Duration = Duration::from_mins(10);

/// So many at once, and one more each time that this has passed.
struct Rate {
    burst: u32,
    every: Duration,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Topic {
    pub object: ObjectKey,
    pub uid: SmolStr,
    pub warning: bool,
    pub reason: SmolStr,
}

/// One write. The next one waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub topic: Topic,
    /// Name of the Event.
    pub name: String,
    pub note: String,
    /// How often it was said.
    pub count: i32,
    /// The Event is there already, and its count is raised.
    pub again: bool,
}

/// What became of a [`Publication`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// An Event of this name is there.
    Exists,
    /// The Event whose count was to be raised is not there, or the namespace of a new one.
    Gone,
    /// The same write would be refused again.
    Refused,
    /// It may or may not be written.
    Failed,
}

/// An Event that is there.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    note: String,
    count: i32,
    at: Instant,
}

/// What is still to be said.
#[derive(Clone, Debug)]
struct Untold {
    note: String,
    times: i32,
    since: Instant,
    /// Name of the Event, once a write was tried.
    name: Option<String>,
    failures: u32,
}

#[derive(Clone, Debug)]
struct Story {
    /// Oldest first.
    told: Vec<Told>,
    untold: Option<Untold>,
    allowance: Allowance,
    /// Not before, because of a failure.
    pause: Instant,
    heard: Instant,
}

/// A bucket of tokens.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// When the bucket will be full.
    full: Instant,
}

impl Allowance {
    /// When the next write is allowed.
    fn next(self, rate: &Rate) -> Instant {
        let reach = rate.every * (rate.burst - 1);
        self.full.checked_sub(reach).unwrap_or(self.full)
    }

    fn take(&mut self, rate: &Rate, now: Instant) {
        self.full = self.full.max(now) + rate.every;
    }
}

/// See the [module](self).
pub(super) struct Pace {
    topics: BTreeMap<Topic, Story>,
    /// Topics with something untold.
    waiting: usize,
    allowance: Allowance,
    /// Makes names unlike each other.
    serial: u128,
}

impl Pace {
    /// `serial` should differ between processes.
    pub(super) fn new(serial: u128, now: Instant) -> Self {
        Self {
            topics: BTreeMap::new(),
            waiting: 0,
            allowance: Allowance { full: now },
            serial,
        }
    }

    /// Takes in a notice; whether there was room.
    pub(super) fn hear(&mut self, notice: Notice, now: Instant) -> bool {
        let note = cut(&notice.message, NOTE);
        let topic = Topic {
            object: notice.object,
            uid: notice.uid,
            warning: notice.warning,
            reason: notice.reason,
        };
        if !self.topics.contains_key(&topic) && !self.make_room() {
            return false;
        }
        let story = self.topics.entry(topic).or_insert_with(|| Story {
            told: Vec::new(),
            untold: None,
            allowance: Allowance { full: now },
            pause: now,
            heard: now,
        });
        story.heard = now;
        match &mut story.untold {
            Some(untold) if untold.note == note => untold.times = untold.times.saturating_add(1),
            untold => {
                self.waiting += usize::from(untold.is_none());
                *untold = Some(Untold {
                    note: note.to_owned(),
                    times: 1,
                    since: now,
                    name: None,
                    failures: 0,
                });
            }
        }
        true
    }

    /// Forgets the topic that was not heard of for the longest time, if there are too many.
    fn make_room(&mut self) -> bool {
        if self.topics.len() < TOPICS {
            return true;
        }
        if self.waiting >= TOPICS {
            return false;
        }
        let silent = self.topics.iter().filter(|(_, s)| s.untold.is_none());
        let oldest = silent.min_by_key(|(_, story)| story.heard);
        let Some(oldest) = oldest.map(|(topic, _)| topic.clone()) else {
            return false;
        };
        self.topics.remove(&oldest).is_some()
    }

    /// When there will be something to publish.
    pub(super) fn due(&self) -> Option<Instant> {
        let (_, due) = self.first()?;
        Some(due.max(self.allowance.next(&OF_ALL)))
    }

    /// The topic that may speak first; of several, the one that has waited longest.
    fn first(&self) -> Option<(&Topic, Instant)> {
        let waiting = self.topics.iter().filter_map(|(topic, story)| {
            let untold = story.untold.as_ref()?;
            let due = story.pause.max(story.allowance.next(&OF_ONE));
            Some((due.max(untold.since), topic))
        });
        waiting.min().map(|(due, topic)| (topic, due))
    }

    /// What to write now. To be called again when it was [answered](Self::answered).
    pub(super) fn next(&mut self, now: Instant) -> Option<Publication> {
        let (topic, due) = self.first()?;
        if due.max(self.allowance.next(&OF_ALL)) > now {
            return None;
        }
        let topic = topic.clone();
        let story = self.topics.get_mut(&topic)?;
        let untold = story.untold.as_mut()?;
        story.told.retain(|told| told.at + SERIES > now);
        let same = story.told.iter().find(|told| told.note == untold.note);
        let name = if let Some(told) = same {
            told.name.clone()
        } else {
            self.serial += 1;
            let fresh = || event_name(&topic.object.name, self.serial);
            untold.name.get_or_insert_with(fresh).clone()
        };
        Some(Publication {
            name,
            note: untold.note.clone(),
            count: untold
                .times
                .saturating_add(same.map_or(0, |told| told.count)),
            again: same.is_some(),
            topic,
        })
    }

    /// Takes in what became of a publication; whether its words are lost.
    pub(super) fn answered(&mut self, sent: Publication, outcome: Outcome, now: Instant) -> bool {
        let Some(story) = self.topics.get_mut(&sent.topic) else {
            return false;
        };
        // While it was under way, the same words may have been said once more, or others.
        let current = story.untold.as_mut().filter(|u| u.note == sent.note);
        // Whatever came of it, it was a write.
        story.allowance.take(&OF_ONE, now);
        self.allowance.take(&OF_ALL, now);
        let tried = current.as_ref().is_some_and(|u| u.failures > 0);
        let outcome = match outcome {
            Outcome::Exists if tried => Outcome::Done,
            // Not the Event, its namespace.
            Outcome::Gone if !sent.again => Outcome::Refused,
            other => other,
        };
        match outcome {
            Outcome::Done => {
                let before = story.told.iter().position(|told| told.name == sent.name);
                let counted = before.map_or(0, |place| story.told.remove(place).count);
                if let Some(untold) = current {
                    untold.times -= sent.count - counted;
                    untold.name = None;
                    untold.failures = 0;
                    if untold.times <= 0 {
                        story.untold = None;
                        self.waiting -= 1;
                    }
                }
                story.told.push(Told {
                    name: sent.name,
                    note: sent.note,
                    count: sent.count,
                    at: now,
                });
                if story.told.len() > EVENTS {
                    story.told.remove(0);
                }
                story.pause = now;
                false
            }
            Outcome::Exists | Outcome::Gone => {
                story.told.retain(|told| told.name != sent.name);
                if let Some(untold) = current {
                    untold.name = None;
                }
                false
            }
            Outcome::Failed => {
                let Some(untold) = current else {
                    return false;
                };
                let pause = RETRY.0.saturating_mul(1 << untold.failures.min(16));
                story.pause = now + pause.min(RETRY.1);
                untold.failures += 1;
                let stale = now > untold.since + STALE;
                if stale {
                    story.untold = None;
                    self.waiting -= 1;
                }
                stale
            }
            Outcome::Refused => {
                let lost = current.is_some();
                if lost {
                    story.untold = None;
                    self.waiting -= 1;
                }
                lost
            }
        }
    }
}

/// `<object>.<number>`, as client-go names Events.
fn event_name(object: &str, serial: u128) -> String {
    let number = format!("{serial:x}");
    let object = cut(object, NAME - 1 - number.len());
    let object = object.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{object}.{number}")
}

/// The first `limit` bytes of a text, at a character's border.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
