//! Row keys as small numbers, with what is known about each.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::desired::UnitId;
use super::few::Few;
use crate::model::{Atom, Column, Identity, Row, RowKey};

/// A row key that desired or actual rows mention. Numbers of keys that nobody mentions any more are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyId(u32);

/// An element of a shared column as units state it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Elem {
    Row(KeyId),
    Value(Atom),
}

/// Everything that is indexed by a row key.
#[derive(Debug)]
pub(crate) struct Record {
    pub key: RowKey,
    /// The UUID that we give the row if we make it.
    pub uuid: Uuid,
    /// The units that state the row. Written by `Desired`.
    pub claims: Few<(UnitId, Arc<Row>)>,
    /// Shared columns that units want this row in. Written by `Desired`.
    pub memberships: Few<(KeyId, Column)>,
    /// Stated rows that refer to this one in a column of their own, once per mention. Written by `Desired`.
    pub referrers: Few<KeyId>,
    /// Number of shared columns of this row that have contributions. Written by `Desired`.
    pub contributed: u32,
    /// Rows of the replica with this natural key. Written by `Actual`.
    pub natural: Few<Uuid>,
    /// As of the last evaluation. Written by `Diff`.
    pub seen: Seen,
}

/// What the evaluation of elements rests on; when it changes they are evaluated again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub row: Option<Uuid>,
    pub foreign: bool,
    pub claimed: bool,
}

#[derive(Debug)]
pub(crate) struct Keys {
    identity: Identity,
    ids: HashMap<RowKey, KeyId>,
    by_uuid: HashMap<Uuid, KeyId>,
    records: Vec<Option<Record>>,
    free: Vec<KeyId>,
}

impl Keys {
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            ids: HashMap::new(),
            by_uuid: HashMap::new(),
            records: Vec::new(),
            free: Vec::new(),
        }
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn find(&self, key: &RowKey) -> Option<KeyId> {
        self.ids.get(key).copied()
    }

    /// The key whose own UUID this is.
    pub fn of_uuid(&self, uuid: Uuid) -> Option<KeyId> {
        self.by_uuid.get(&uuid).copied()
    }

    pub fn intern(&mut self, key: &RowKey) -> KeyId {
        if let Some(id) = self.find(key) {
            return id;
        }
        let uuid = self.identity.uuid(key);
        let record = Record {
            key: key.clone(),
            uuid,
            claims: Few::None,
            memberships: Few::None,
            referrers: Few::None,
            contributed: 0,
            natural: Few::None,
            seen: Seen::default(),
        };
        let id = if let Some(id) = self.free.pop() {
            self.records[id.0 as usize] = Some(record);
            id
        } else {
            #[expect(clippy::expect_used, reason = "the rows would not fit into memory")]
            let id = KeyId(u32::try_from(self.records.len()).expect("fewer than 2^32 row keys"));
            self.records.push(Some(record));
            id
        };
        self.ids.insert(key.clone(), id);
        self.by_uuid.insert(uuid, id);
        id
    }

    /// Forgets a key that nobody mentions.
    pub fn release(&mut self, id: KeyId) {
        let vacant = self.records[id.0 as usize].as_ref().is_some_and(|r| {
            r.claims.is_empty()
                && r.memberships.is_empty()
                && r.referrers.is_empty()
                && r.contributed == 0
                && r.natural.is_empty()
        });
        if vacant && let Some(record) = self.records[id.0 as usize].take() {
            self.ids.remove(&record.key);
            self.by_uuid.remove(&record.uuid);
            self.free.push(id);
        }
    }

    /// Whether the id still stands for a key.
    pub fn is_live(&self, id: KeyId) -> bool {
        self.records[id.0 as usize].is_some()
    }

    /// So many numbers from this one on: the live ones, and where to go on.
    pub fn slice(&self, from: usize, count: usize) -> (Vec<KeyId>, Option<usize>) {
        let end = from.saturating_add(count).min(self.records.len());
        let ids = (from..end).filter_map(|i| Some(KeyId(u32::try_from(i).ok()?)));
        let next = (end < self.records.len()).then_some(end);
        (ids.filter(|id| self.is_live(*id)).collect(), next)
    }

    pub fn iter(&self) -> impl Iterator<Item = (KeyId, &Record)> {
        (0..)
            .zip(&self.records)
            .filter_map(|(i, r)| Some((KeyId(i), r.as_ref()?)))
    }
}

impl std::ops::Index<KeyId> for Keys {
    type Output = Record;

    #[expect(
        clippy::expect_used,
        reason = "ids are released when nothing holds them"
    )]
    fn index(&self, id: KeyId) -> &Record {
        self.records[id.0 as usize].as_ref().expect("a live key")
    }
}

impl std::ops::IndexMut<KeyId> for Keys {
    #[expect(
        clippy::expect_used,
        reason = "ids are released when nothing holds them"
    )]
    fn index_mut(&mut self, id: KeyId) -> &mut Record {
        self.records[id.0 as usize].as_mut().expect("a live key")
    }
}
