//! From a difference to transactions.
//!
//! * All that a unit wants goes into one transaction; a new row and its memberships do too, whoever contributes them.
//! * A batch holds units until it is full; units that need rows of others come later or in the same batch.
//! * Edits are the smallest update or mutation that does it. Rows that are not roots go by being taken out of their
//!   parents, root rows by a delete at the very end.
//! * What must not or cannot happen is held back, with the reason.

mod build;
mod deletes;
mod emit;
mod order;
mod render;

use std::collections::BTreeSet;
use std::sync::Arc;

use ovsdb::wire::Operation;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::diff::{Change, Diff};
use crate::model::{Atom, Column, Row, RowKey, Table};

/// Limits and permissions of a plan.
#[derive(Clone, Debug)]
pub struct Options<U> {
    /// A batch is closed when the next group of units would make it larger. A group that is larger alone stays whole.
    pub max_ops: usize,
    /// `None`: the user has consented to whatever is deleted.
    pub brakes: Option<Brakes>,
    /// Objects, as rows name them, that a user deleted: the brakes do not count their rows.
    pub told: Arc<BTreeSet<SmolStr>>,
    /// Units for whose former rows the same holds, though they name another object.
    pub told_units: BTreeSet<U>,
    /// `false`: the brakes hold all rows and elements of ours that no unit has wanted since this difference is kept, and
    /// that were not deleted by a user. What they were for may have been lost rather than deleted.
    pub strangers: bool,
    /// `false` until every watch has listed, the replica is complete and the allocations are restored: nothing is
    /// removed before.
    pub deletes: bool,
    /// Units that are left out (and the rows that they used to own).
    pub parked: BTreeSet<U>,
    /// If given, only these units are planned: to find out which one of a batch is refused.
    pub only: Option<BTreeSet<U>>,
}

impl<U> Default for Options<U> {
    fn default() -> Self {
        Self {
            max_ops: 500,
            brakes: Some(Brakes::default()),
            told: Arc::default(),
            told_units: BTreeSet::new(),
            strangers: true,
            deletes: true,
            parked: BTreeSet::new(),
            only: None,
        }
    }
}

/// Deletes of a table are held if they are more than `rows` rows **and** more than `percent` of those that are ours.
/// Rows of objects that a user deleted ([`Options::told`]) are not counted: they are meant.
///
/// The same holds for each shared column and the elements that are taken out of its rows, where these rows stay: the
/// ports of all port groups, the addresses of all address sets, the entries of all load balancers. A group that lost
/// its ports is as good as deleted, and what it denied is open. Not counted: elements that go with a row or with what
/// they refer to (the brake on that table holds those), rows that move from one parent to another, and entries whose
/// value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brakes {
    pub rows: usize,
    pub percent: u8,
}

impl Brakes {
    fn hold(self, going: usize, owned: usize) -> bool {
        going > self.rows && going * 100 > owned * usize::from(self.percent)
    }
}

impl Default for Brakes {
    /// An edit of a Subnet stays below; a defect that makes all rows of a kind unwanted does not. What is lost without
    /// a word, in small clusters as well, is for [`Options::strangers`] and for whoever knows the objects.
    fn default() -> Self {
        Self {
            rows: 250,
            percent: 30,
        }
    }
}

/// What to send, in order, and what not to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<U> {
    /// To be committed one after the other: a later one may need rows of an earlier one. After a failure, plan again.
    pub batches: Vec<Batch<U>>,
    pub held: Vec<Held<U>>,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<U> {
    pub ops: Vec<Operation>,
    /// What the operations do, in words.
    pub steps: Vec<Step>,
    /// The units behind each operation; none for rows whose units are not known any more.
    op_units: Vec<BTreeSet<U>>,
    /// Ends (in `ops`) of the groups of units that were put together.
    groups: Vec<usize>,
}

impl<U: Ord + Clone> Batch<U> {
    /// The units behind an operation, for the error that names it.
    pub fn units_of(&self, op: usize) -> impl Iterator<Item = &U> {
        self.op_units.get(op).into_iter().flatten()
    }

    /// The units behind the batch.
    pub fn units(&self) -> BTreeSet<U> {
        self.op_units.iter().flatten().cloned().collect()
    }

    /// The units in two parts, the second of which may need the first: for [`Options::only`] when a batch was refused
    /// as a whole. `None` if the batch cannot be parted.
    pub fn halves(&self) -> Option<(BTreeSet<U>, BTreeSet<U>)> {
        let half = self.groups.get(self.groups.len().checked_sub(2)? / 2)?;
        let part = |ops: &[BTreeSet<U>]| ops.iter().flatten().cloned().collect::<BTreeSet<_>>();
        let first = part(&self.op_units[..*half]);
        let second: BTreeSet<_> = part(&self.op_units[*half..])
            .difference(&first)
            .cloned()
            .collect();
        (!first.is_empty() && !second.is_empty()).then_some((first, second))
    }
}

impl<U> Plan<U> {
    /// Nothing to send (something may be held).
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Number of operations in all batches.
    pub fn ops(&self) -> usize {
        self.batches.iter().map(|b| b.ops.len()).sum()
    }
}

/// One change of the database, in words.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Insert {
        key: RowKey,
        row: Arc<Row>,
    },
    Update {
        key: RowKey,
        changes: Vec<Change>,
        /// The row was the Go implementation's until now.
        adopts: bool,
    },
    /// An element or entry of a shared column.
    Add {
        key: RowKey,
        column: Column,
        element: Atom,
        value: Option<Atom>,
    },
    Remove {
        /// `None` for a row without a natural key.
        key: Option<RowKey>,
        column: Column,
        element: SmolStr,
    },
    Delete {
        table: Table,
        /// `None` for a row without a natural key.
        key: Option<RowKey>,
        uuid: Uuid,
    },
}

/// Something that differs and is not sent, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held<U> {
    /// Somebody else's row has the name.
    Foreign { key: RowKey, uuid: Uuid, unit: U },
    /// Another unit has the row.
    Lost { key: RowKey, unit: U, to: U },
    /// The row that should contain it is not there, or nothing says which one.
    Orphan { key: RowKey, unit: U },
    /// A contribution to or of a row that is not there, or to one that nobody of ours states.
    Absent {
        parent: RowKey,
        column: Column,
        element: Atom,
        unit: U,
    },
    /// A row refers to one that is not there.
    Dangling {
        key: RowKey,
        target: RowKey,
        unit: U,
    },
    /// The server has no such table.
    NoTable { table: Table, rows: usize },
    /// The server has no column that the row cannot do without.
    NoColumn {
        key: RowKey,
        column: Column,
        unit: U,
    },
    /// Too many deletes of one table at once.
    Brake {
        table: Table,
        deletes: usize,
        owned: usize,
        /// The first of them.
        example: Option<RowKey>,
    },
    /// Too many elements of a column at once, from rows that stay.
    ElementBrake {
        column: Column,
        removes: usize,
        /// Elements of the column in all rows that are ours.
        owned: usize,
        /// The first of the rows.
        example: Option<RowKey>,
    },
    /// Deletes are not allowed yet.
    Barrier { rows: usize, elements: usize },
    /// A row of ours that nobody wants contains rows that are wanted, or somebody else's.
    Inhabited {
        key: Option<RowKey>,
        uuid: Uuid,
        inhabitants: Vec<Uuid>,
    },
    /// A row of ours that nobody wants is referred to by a row that is to stay as it is.
    Referenced {
        key: Option<RowKey>,
        uuid: Uuid,
        by: Uuid,
        column: Column,
    },
    /// A row of ours that nobody wants is the last one in a column that must not be empty, of a row that stays.
    Last {
        key: Option<RowKey>,
        uuid: Uuid,
        parent: Uuid,
        column: Column,
    },
    /// The unit is left out of this plan.
    Parked { unit: U },
}

impl<U: Ord + Clone> Diff<U> {
    /// The transactions that make the database hold what is wanted.
    ///
    /// Commit the batches in order, one at a time. When the replica has seen them, the difference is empty but for
    /// what was held.
    pub fn plan(&mut self, options: &Options<U>) -> Plan<U> {
        self.evaluate();
        self.settle();
        build::Builder::new(self, options).build()
    }
}
