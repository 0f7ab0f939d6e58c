//! The pace in a time of the tests' own.

use engine::Kind;

use super::*;

fn notice(pod: &str, message: &str) -> Notice {
    Notice {
        object: ObjectKey::pod("default", pod),
        uid: "u".into(),
        warning: true,
        reason: "NoSubnet".into(),
        message: message.to_owned(),
    }
}

/// A pace with a clock, and the Events that it made.
struct Desk {
    pace: Pace,
    now: Instant,
    /// Note and count, by name; in the order of their making.
    events: Vec<(String, String, i32)>,
    writes: usize,
}

impl Desk {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            pace: Pace::new(0x1000, now),
            now,
            events: Vec::new(),
            writes: 0,
        }
    }

    fn hear(&mut self, message: &str) {
        assert!(self.pace.hear(notice("a", message), self.now));
    }

    /// What an API server makes of a write.
    fn write(&mut self, sent: &Publication) -> Outcome {
        self.writes += 1;
        let place = self.events.iter().position(|(name, ..)| *name == sent.name);
        match (place, sent.again) {
            (Some(place), true) => {
                assert_eq!(self.events[place].1, sent.note, "a note cannot be changed");
                self.events[place].2 = sent.count;
                Outcome::Done
            }
            (None, false) => {
                let event = (sent.name.clone(), sent.note.clone(), sent.count);
                self.events.push(event);
                Outcome::Done
            }
            (Some(_), false) => Outcome::Exists,
            (None, true) => Outcome::Gone,
        }
    }

    /// Publishes what is due now.
    fn publish(&mut self) {
        while let Some(sent) = self.pace.next(self.now) {
            let outcome = self.write(&sent);
            self.pace.answered(sent, outcome, self.now);
        }
    }

    /// Publishes until all is said; how long that took.
    fn finish(&mut self) -> Duration {
        let start = self.now;
        while let Some(due) = self.pace.due() {
            self.now = self.now.max(due);
            self.publish();
        }
        assert_eq!(self.pace.waiting, 0);
        self.now - start
    }

    fn said(&self) -> Vec<(&str, i32)> {
        let said = self.events.iter();
        said.map(|(_, note, count)| (note.as_str(), *count))
            .collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn other_words_are_another_event_and_the_same_words_are_counted() {
    let mut desk = Desk::new();
    for message in ["one", "two", "two", "one", "two"] {
        desk.hear(message);
        desk.publish();
    }
    assert_eq!(desk.said(), [("one", 2), ("two", 3)]);
    assert_eq!(desk.pace.waiting, 0);
    assert_eq!(desk.pace.due(), None);
}

#[test]
fn the_oldest_of_many_words_are_forgotten() {
    let mut desk = Desk::new();
    for message in ["1", "2", "3", "4", "5"] {
        desk.hear(message);
        desk.publish();
    }
    for message in ["2", "1"] {
        desk.hear(message);
        desk.finish();
    }
    let counts = desk.said().into_iter().map(|(_, count)| count);
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2, 1, 1, 1, 1]);
    assert!(desk.pace.topics.values().all(|s| s.told.len() <= EVENTS));
}

#[test]
fn words_that_come_again_much_later_are_news() {
    let mut desk = Desk::new();
    desk.hear("one");
    desk.publish();
    desk.pass(SERIES);
    desk.hear("one");
    desk.publish();
    assert_eq!(desk.said(), [("one", 1), ("one", 1)]);
    // Each repetition keeps a series alive.
    for _ in 0..5 {
        desk.pass(SERIES * 9 / 10);
        desk.hear("one");
        desk.publish();
    }
    assert_eq!(desk.said(), [("one", 1), ("one", 6)]);
}

#[test]
fn who_changes_his_mind_all_the_time_is_heard_at_a_pace_and_to_the_end() {
    let mut desk = Desk::new();
    for n in 0..1000 {
        desk.hear(&format!("{n}"));
        desk.publish();
        desk.pass(Duration::from_millis(1));
    }
    assert_eq!(
        desk.said(),
        [("0", 1), ("1", 1), ("2", 1), ("3", 1), ("4", 1)]
    );
    let waited = desk.finish();
    assert_eq!(desk.said().last(), Some(&("999", 1)));
    assert_eq!(desk.events.len(), 6, "what was overtaken is in the log");
    assert!(waited <= OF_ONE.every, "{waited:?}");

    // Repetitions are no way around it.
    desk.pass(OF_ONE.every * OF_ONE.burst);
    desk.writes = 0;
    for _ in 0..1000 {
        desk.hear("999");
        desk.publish();
    }
    desk.finish();
    assert_eq!(desk.said().last(), Some(&("999", 1001)));
    assert_eq!(desk.writes, 6);

    // A quiet topic is not held up by a loud one.
    desk.hear("999");
    desk.publish();
    assert!(desk.pace.hear(notice("b", "here too"), desk.now));
    desk.publish();
    assert_eq!(desk.said().last(), Some(&("here too", 1)));
}

#[test]
fn many_topics_at_once_are_told_one_after_the_other_within_bounds() {
    let mut desk = Desk::new();
    let heard = (0..10_000)
        .filter(|n| {
            desk.pace
                .hear(notice(&format!("pod-{n}"), "no room"), desk.now)
        })
        .count();
    assert_eq!(heard, TOPICS);
    desk.publish();
    assert_eq!(desk.events.len(), 200);
    let took = desk.finish();
    assert_eq!(desk.events.len(), TOPICS);
    assert_eq!(desk.events[0].0, "pod-0.1001", "in turn");
    let expected = OF_ALL.every * u32::try_from(TOPICS - 200).unwrap();
    assert!(
        took + OF_ALL.every >= expected && took <= expected,
        "{took:?}"
    );

    // What was told makes room for what was not, the oldest first.
    desk.pass(Duration::from_mins(1));
    desk.pace.hear(notice("pod-0", "no room"), desk.now);
    for n in 0..100 {
        assert!(
            desk.pace
                .hear(notice(&format!("late-{n}"), "no room"), desk.now)
        );
    }
    assert_eq!(desk.pace.topics.len(), TOPICS);
    desk.finish();
    assert_eq!(desk.events[0].2, 2, "pod-0 was heard of just now");
    assert_eq!(desk.events.len(), TOPICS + 100);
}

#[test]
fn a_write_that_fails_is_tried_again_under_the_same_name() {
    let mut desk = Desk::new();
    desk.hear("one");
    let sent = desk.pace.next(desk.now).unwrap();
    // It arrived, but nobody said so.
    assert_eq!(desk.write(&sent), Outcome::Done);
    assert!(!desk.pace.answered(sent.clone(), Outcome::Failed, desk.now));
    assert_eq!(desk.pace.next(desk.now), None, "not at once");
    desk.pass(RETRY.0);
    let again = desk.pace.next(desk.now).unwrap();
    assert_eq!(again, sent);
    assert_eq!(desk.write(&again), Outcome::Exists);
    desk.pace.answered(again, Outcome::Exists, desk.now);
    assert_eq!(desk.pace.waiting, 0);
    desk.hear("one");
    desk.publish();
    assert_eq!(desk.said(), [("one", 2)]);
}

#[test]
fn a_name_that_somebody_else_has_is_given_up() {
    let mut desk = Desk::new();
    desk.hear("one");
    let sent = desk.pace.next(desk.now).unwrap();
    desk.events
        .push((sent.name.clone(), "somebody's".into(), 1));
    desk.pace.answered(sent, Outcome::Exists, desk.now);
    desk.publish();
    assert_eq!(desk.said(), [("somebody's", 1), ("one", 1)]);
}

#[test]
fn an_event_that_somebody_deleted_is_made_anew() {
    let mut desk = Desk::new();
    desk.hear("one");
    desk.publish();
    desk.events.clear();
    desk.hear("one");
    desk.publish();
    assert_eq!(desk.said(), [("one", 1)]);
}

#[test]
fn a_namespace_that_is_gone_is_the_end_of_it() {
    let mut desk = Desk::new();
    desk.hear("one");
    let sent = desk.pace.next(desk.now).unwrap();
    assert!(desk.pace.answered(sent, Outcome::Gone, desk.now));
    assert_eq!(desk.pace.due(), None);
}

#[test]
fn what_cannot_be_told_is_given_up_and_said_to_be_lost() {
    let mut desk = Desk::new();
    desk.hear("one");
    let sent = desk.pace.next(desk.now).unwrap();
    assert!(desk.pace.answered(sent, Outcome::Refused, desk.now));
    assert_eq!(desk.pace.waiting, 0);

    desk.hear("two");
    let start = desk.now;
    let mut tries = 0;
    loop {
        desk.now = desk.pace.due().unwrap().max(desk.now);
        let sent = desk.pace.next(desk.now).unwrap();
        tries += 1;
        if desk.pace.answered(sent, Outcome::Failed, desk.now) {
            break;
        }
    }
    let took = desk.now - start;
    assert!(took > STALE && took <= STALE + OF_ONE.every, "{took:?}");
    assert!(tries < 20, "{tries} tries");
    assert_eq!(desk.pace.waiting, 0);
}

#[test]
fn words_said_while_others_are_under_way_are_told_next() {
    let mut desk = Desk::new();
    desk.hear("one");
    let sent = desk.pace.next(desk.now).unwrap();
    desk.hear("one");
    desk.hear("one");
    let outcome = desk.write(&sent);
    desk.pace.answered(sent, outcome, desk.now);
    desk.publish();
    assert_eq!(desk.said(), [("one", 3)]);

    desk.hear("one");
    let sent = desk.pace.next(desk.now).unwrap();
    desk.hear("two");
    let outcome = desk.write(&sent);
    desk.pace.answered(sent, outcome, desk.now);
    desk.publish();
    assert_eq!(desk.said(), [("one", 4), ("two", 1)]);
}

#[test]
fn names_of_events_are_names() {
    assert_eq!(event_name("192.168.1.41", 0xab), "192.168.1.41.ab");
    let long = format!("{}-{}", "a".repeat(249), "b".repeat(3));
    let name = event_name(&long, 0x123);
    assert_eq!(name, format!("{}.123", "a".repeat(249)));
    assert!(name.len() <= NAME);
    let object = ObjectKey::cluster(Kind::Subnet, "blue");
    let mut desk = Desk::new();
    let long = Notice {
        object,
        message: "ü".repeat(600),
        ..notice("a", "")
    };
    desk.pace.hear(long, desk.now);
    desk.publish();
    assert_eq!(desk.events[0].1.len(), NOTE);
}
