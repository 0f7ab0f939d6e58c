//! When to look at something again: one time for each key, the earliest first.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

/// Times by key, in order.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    at: BTreeMap<K, Timestamp>,
    /// The same, by time.
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the time for `key`, instead of an earlier wish.
    pub(crate) fn set(&mut self, key: K, at: Timestamp) {
        self.cancel(&key);
        self.order.insert((at, key.clone()));
        self.at.insert(key, at);
    }

    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some((key, at)) = self.at.remove_entry(key) {
            self.order.remove(&(at, key));
        }
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    /// Takes out what is due.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<K> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.order.first()
            && *at <= now
            && let Some((_, key)) = self.order.pop_first()
        {
            self.at.remove(&key);
            due.push(key);
        }
        due
    }

    /// The earliest time.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(crate) fn clear(&mut self) {
        self.at.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_wish_for_a_key_counts() {
        let mut timers = Timers::default();
        timers.set("a", at(5));
        timers.set("b", at(3));
        timers.set("a", at(1));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.take_due(at(2)), ["a"]);
        timers.cancel(&"b");
        assert_eq!(timers.next(), None);
        assert!(timers.take_due(at(9)).is_empty());
    }
}
