//! Who may write: the lease says it, and an epoch in the northbound database enforces it.
//!
//! `NB_Global.external_ids` holds `leader-epoch`, a number that each new leader raises by one in a transaction of its
//! own, and `leader`, its identity for people to read. Every other transaction begins with a `wait` that a row with this
//! very epoch exists. A leader that slept through the loss of its lease therefore fails at the database, whatever it
//! believes. An emptied database has no such row either: nothing is written into it before an epoch has been taken
//! there.

use std::sync::Arc;

use jiff::Timestamp;
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row, Until};
use smol_str::{SmolStr, format_smolstr};
use uuid::Uuid;

/// The table.
pub(crate) const TABLE: &str = "NB_Global";
const COLUMN: &str = "external_ids";
/// Key of the epoch in `NB_Global.external_ids`.
pub const EPOCH_KEY: &str = "leader-epoch";
/// Key of the leader's identity in `NB_Global.external_ids`.
pub const LEADER_KEY: &str = "leader";

/// What this engine may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Another process leads, or nobody: everything is computed, nothing is written.
    #[default]
    Standby,
    /// The lease is ours until then; the epoch is not taken yet.
    Candidate {
        /// End of the lease's guarantee.
        until: Timestamp,
    },
    /// The epoch is ours.
    Leader {
        /// End of the lease's guarantee.
        until: Timestamp,
        /// Our epoch.
        epoch: u64,
    },
    /// Another process took an epoch while we believed to lead. A renewal of the lease after this ends it.
    Fenced {
        /// End of the guarantee at that moment.
        until: Timestamp,
    },
}

impl Role {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Candidate { .. } => "candidate",
            Self::Leader { .. } => "leader",
            Self::Fenced { .. } => "fenced",
        }
    }

    pub(crate) const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Standby => None,
            Self::Candidate { until } | Self::Leader { until, .. } | Self::Fenced { until } => {
                Some(until)
            }
        }
    }
}

/// What the replica shows of `NB_Global`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Global {
    uuid: Option<Uuid>,
    /// The whole `external_ids`.
    ids: Datum,
    epoch: Option<SmolStr>,
    /// The highest epoch that was ever seen. A database that was put back to an older state must not count the same
    /// numbers again: what was sent under one of them may still be on its way.
    highest: u64,
}

impl Global {
    pub(crate) fn apply(&mut self, uuid: Uuid, new: Option<&Arc<Row>>) {
        match new {
            Some(row) => {
                self.uuid = Some(uuid);
                self.ids = row.get(COLUMN).cloned().unwrap_or_else(Datum::empty_map);
                self.epoch = row.map_str(COLUMN, EPOCH_KEY).map(SmolStr::new);
                self.highest = self.highest.max(self.epoch());
            }
            None if self.uuid == Some(uuid) => {
                *self = Self {
                    highest: self.highest,
                    ..Self::default()
                }
            }
            None => {}
        }
    }

    /// Whether an engine has led here.
    pub(crate) const fn has_epoch(&self) -> bool {
        self.epoch.is_some()
    }

    /// The number in the database; what is no number counts as none.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
            .as_deref()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// The transaction that takes the next epoch, if nobody else did since the replica was read.
    pub(crate) fn take(&self, identity: &str) -> (u64, Vec<Operation>) {
        // Nobody counts that far; somebody may write it by hand.
        let next = self.highest.checked_add(1).unwrap_or(1);
        let text = format_smolstr!("{next}");
        let ids = Datum::map([(EPOCH_KEY, text.as_str()), (LEADER_KEY, identity)]);
        let Some(uuid) = self.uuid else {
            // ovn-northd has not made the row yet. The table holds one row at most: if it makes it now, one of us fails.
            let row = Row::from([(COLUMN, ids)]);
            return (next, vec![Operation::insert_named(TABLE, "global", row)]);
        };
        let unchanged = match &self.epoch {
            Some(epoch) => guard(epoch),
            // No condition says "has no such key": the column must be what was read.
            None => Operation::require(
                TABLE,
                vec![Condition::row(uuid)],
                vec![COLUMN.into()],
                Until::Equal,
                vec![Row::from([(COLUMN, self.ids.clone())])],
            ),
        };
        let write = Operation::mutate(
            TABLE,
            Condition::row(uuid),
            vec![
                Mutation::delete_keys(COLUMN, [EPOCH_KEY, LEADER_KEY]),
                Mutation::insert(COLUMN, ids),
            ],
        );
        (next, vec![unchanged, write])
    }
}

/// The first operation of every flush: holds if a row with this epoch exists.
pub fn fence(epoch: u64) -> Operation {
    guard(&format_smolstr!("{epoch}"))
}

fn guard(epoch: &str) -> Operation {
    Operation::require(
        TABLE,
        vec![Condition::includes(
            COLUMN,
            Datum::map([(EPOCH_KEY, epoch)]),
        )],
        vec![COLUMN.into()],
        Until::NotEqual,
        vec![],
    )
}
