//! The way of events to their consumer: in order, without loss, bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol_str::SmolStr;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Remote, TransactResult};
use crate::RowDelta;
use crate::wire::DatabaseSchema;

/// How the server is monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MonitorMethod {
    /// `monitor_cond_since`: a reconnect transfers only what changed.
    CondSince,
    /// `monitor_cond`: Open vSwitch before 2.12.
    Cond,
    /// `monitor`: RFC 7047. Conditions are not applied.
    Plain,
}

/// Parts of the selection that the server's schema does not have. They are not monitored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    pub tables: Vec<SmolStr>,
    /// Table and column; not those of missing tables.
    pub columns: Vec<(SmolStr, SmolStr)>,
}

impl Missing {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.columns.is_empty()
    }
}

/// A new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    pub remote: Remote,
    /// The whole schema of the database, whatever is monitored.
    pub schema: Arc<DatabaseSchema>,
    pub missing: Missing,
    pub method: MonitorMethod,
    /// Whether only the changes since the last connection had to be fetched.
    pub resumed: bool,
}

/// What a consumer is told. `Connected`, at most one `Update`, `Synced`, then `Update`s and `Outcome`s, then
/// `Disconnected`, and again from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaEvent {
    Connected(Connected),
    /// The changes of one moment: apply all or none. Usually one transaction; several if the server, or the queue
    /// before a slow consumer, merged them. After a reconnect: the difference to what the consumer has.
    Update(Vec<RowDelta>),
    /// The replica is complete.
    Synced,
    /// The connection is lost, for this reason. What was replicated stays valid as the last known state.
    Disconnected(String),
    /// The result of [`Handle::submit`](super::Handle::submit).
    Outcome {
        token: u64,
        result: TransactResult,
    },
}

/// Above this many events a consumer counts as slow.
const SLOW: usize = 64;

#[derive(Debug)]
enum Entry {
    Event(ReplicaEvent),
    Merged(BTreeMap<(SmolStr, Uuid), RowDelta>),
}

impl Entry {
    fn is_update(&self) -> bool {
        matches!(self, Self::Merged(_) | Self::Event(ReplicaEvent::Update(_)))
    }

    fn is_outcome(&self) -> bool {
        matches!(self, Self::Event(ReplicaEvent::Outcome { .. }))
    }
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    outcomes: usize,
    sender_gone: bool,
    receiver_gone: bool,
}

impl Inner {
    fn push(&mut self, event: ReplicaEvent) {
        if self.receiver_gone {
            return;
        }
        let slow = self.entries.len() >= SLOW;
        match event {
            ReplicaEvent::Update(deltas) if slow => self.merge(deltas),
            ReplicaEvent::Disconnected(_) if slow => {
                self.fold_connection();
                self.entries.push_back(Entry::Event(event));
            }
            event => {
                let entry = Entry::Event(event);
                self.outcomes += usize::from(entry.is_outcome());
                self.entries.push_back(entry);
            }
        }
    }

    fn merge(&mut self, deltas: Vec<RowDelta>) {
        let mut merged = match self.entries.pop_back() {
            Some(Entry::Merged(merged)) => merged,
            Some(Entry::Event(ReplicaEvent::Update(before))) => merge(BTreeMap::new(), before),
            Some(other) => {
                self.entries.push_back(other);
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        merged = merge(merged, deltas);
        if !merged.is_empty() {
            self.entries.push_back(Entry::Merged(merged));
        }
    }

    /// A connection came and goes again while the consumer has not even seen the end of the one before: leave out the
    /// end of that one and the beginning of this one, keep the changes.
    fn fold_connection(&mut self) {
        let disconnected = self
            .entries
            .iter()
            .rposition(|e| matches!(e, Entry::Event(ReplicaEvent::Disconnected(_))));
        let Some(at) = disconnected else { return };
        if self.entries.iter().skip(at).any(Entry::is_outcome) {
            return;
        }
        let tail = self.entries.split_off(at);
        for entry in tail.into_iter().filter(Entry::is_update) {
            self.merge(into_deltas(entry));
        }
    }

    fn pop(&mut self) -> Option<ReplicaEvent> {
        let entry = self.entries.pop_front()?;
        self.outcomes -= usize::from(entry.is_outcome());
        Some(match entry {
            Entry::Event(event) => event,
            merged @ Entry::Merged(_) => ReplicaEvent::Update(into_deltas(merged)),
        })
    }
}

fn into_deltas(entry: Entry) -> Vec<RowDelta> {
    match entry {
        Entry::Merged(merged) => merged.into_values().collect(),
        Entry::Event(ReplicaEvent::Update(deltas)) => deltas,
        Entry::Event(_) => Vec::new(),
    }
}

type Merged = BTreeMap<(SmolStr, Uuid), RowDelta>;

fn merge(mut merged: Merged, deltas: Vec<RowDelta>) -> Merged {
    for delta in deltas {
        let key = (delta.table.clone(), delta.uuid);
        match merged.get_mut(&key) {
            None => {
                merged.insert(key, delta);
            }
            Some(earlier) => {
                earlier.new = delta.new;
                if earlier.old == earlier.new {
                    merged.remove(&key);
                }
            }
        }
    }
    merged
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// An event was added, or the sender is gone.
    added: Notify,
    /// An event was taken.
    taken: Notify,
    /// The receiver is gone.
    abandoned: Notify,
}

impl Shared {
    /// The state is consistent whenever the lock is released, so that a panic of another holder does not matter.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct Queue(Arc<Shared>);

impl Queue {
    pub(super) fn push(&self, event: ReplicaEvent) {
        self.0.lock().push(event);
        self.0.added.notify_one();
    }

    /// Outcomes that wait for the consumer.
    pub(super) fn outcomes(&self) -> usize {
        self.0.lock().outcomes
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.lock().receiver_gone
    }

    /// Returns when the consumer took an event or left.
    pub(super) async fn taken(&self) {
        self.0.taken.notified().await;
    }

    /// Returns when the consumer left.
    pub(super) async fn abandoned(&self) {
        self.0.abandoned.notified().await;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.lock().sender_gone = true;
        self.0.added.notify_one();
    }
}

/// The events of a client, in order.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

impl Events {
    /// The next event; `None` when the client has stopped. Cancel safe.
    pub async fn recv(&mut self) -> Option<ReplicaEvent> {
        loop {
            {
                let mut inner = self.0.lock();
                if let Some(event) = inner.pop() {
                    drop(inner);
                    self.0.taken.notify_one();
                    return Some(event);
                }
                if inner.sender_gone {
                    return None;
                }
            }
            self.0.added.notified().await;
        }
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<ReplicaEvent> {
        let event = self.0.lock().pop();
        if event.is_some() {
            self.0.taken.notify_one();
        }
        event
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.receiver_gone = true;
        inner.entries.clear();
        inner.outcomes = 0;
        drop(inner);
        self.0.taken.notify_one();
        self.0.abandoned.notify_one();
    }
}

pub(super) fn channel() -> (Queue, Events) {
    let shared = Arc::new(Shared::default());
    (Queue(Arc::clone(&shared)), Events(shared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Row;

    fn row(value: i64) -> Option<Arc<Row>> {
        (value != 0).then(|| Arc::new(Row::new().with("v", value)))
    }

    /// 0 stands for no row.
    fn change(uuid: u128, old: i64, new: i64) -> ReplicaEvent {
        ReplicaEvent::Update(vec![RowDelta {
            table: "T".into(),
            uuid: Uuid::from_u128(uuid),
            old: row(old),
            new: row(new),
        }])
    }

    fn outcome(token: u64) -> ReplicaEvent {
        ReplicaEvent::Outcome {
            token,
            result: Ok(Vec::new()),
        }
    }

    fn lost(reason: &str) -> ReplicaEvent {
        ReplicaEvent::Disconnected(reason.to_owned())
    }

    fn drain(events: &mut Events) -> Vec<ReplicaEvent> {
        std::iter::from_fn(|| events.try_recv()).collect()
    }

    fn fill(queue: &Queue) {
        for i in 0..SLOW {
            queue.push(change(1000 + i as u128, 0, 1));
        }
    }

    #[test]
    fn a_consumer_that_keeps_up_sees_every_update() {
        let (queue, mut events) = channel();
        for i in 1..=20 {
            queue.push(change(1, i - 1, i));
        }
        assert_eq!(drain(&mut events).len(), 20);
    }

    #[test]
    fn a_slow_one_gets_the_sum() {
        let (queue, mut events) = channel();
        fill(&queue);
        for i in 2..500 {
            queue.push(change(1, i - 1, i));
        }
        queue.push(change(2, 0, 1));
        queue.push(change(2, 1, 0));
        let all = drain(&mut events);
        assert_eq!(all.len(), SLOW);
        let ReplicaEvent::Update(last) = all.last().unwrap() else {
            panic!()
        };
        // The last one that was kept, and the changes since; a row that came and went is none.
        assert_eq!(last.len(), 2);
        assert_eq!((&last[0].old, &last[0].new), (&row(1), &row(499)));
    }

    #[test]
    fn outcomes_stay_behind_their_updates() {
        let (queue, mut events) = channel();
        fill(&queue);
        queue.push(change(1, 1, 2));
        queue.push(outcome(7));
        queue.push(change(1, 2, 3));
        queue.push(change(1, 3, 4));
        queue.push(outcome(8));
        assert_eq!(queue.outcomes(), 2);
        let all = drain(&mut events);
        assert_eq!(queue.outcomes(), 0);
        assert_eq!(
            all[SLOW..],
            [outcome(7), change(1, 2, 4), outcome(8)],
            "merged up to an outcome, never across one"
        );
    }

    #[test]
    fn connections_that_nobody_saw_are_folded() {
        let (queue, mut events) = channel();
        fill(&queue);
        queue.push(lost("first"));
        for i in 1..100 {
            queue.push(change(1, i, i + 1));
            queue.push(ReplicaEvent::Synced);
            queue.push(lost("again"));
        }
        queue.push(ReplicaEvent::Synced);
        let all = drain(&mut events);
        let ReplicaEvent::Update(sum) = &all[SLOW - 1] else {
            panic!()
        };
        assert_eq!((&sum[0].old, &sum[0].new), (&row(1), &row(100)));
        assert_eq!(all[SLOW..], [lost("again"), ReplicaEvent::Synced]);
    }

    #[test]
    fn a_connection_with_an_outcome_is_not_folded() {
        let (queue, mut events) = channel();
        fill(&queue);
        let tail = [
            lost("first"),
            change(1, 1, 2),
            outcome(7),
            change(1, 2, 3),
            lost("again"),
        ];
        for event in &tail {
            queue.push(event.clone());
        }
        assert_eq!(
            drain(&mut events)[SLOW..],
            tail,
            "an outcome stays between the updates that it came between"
        );
        assert_eq!(queue.outcomes(), 0);
    }

    #[tokio::test]
    async fn the_end_comes_after_the_last_event() {
        let (queue, mut events) = channel();
        queue.push(outcome(1));
        drop(queue);
        assert_eq!(events.recv().await, Some(outcome(1)));
        assert_eq!(events.recv().await, None);
    }
}
