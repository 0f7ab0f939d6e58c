//! OVN's tables as types, and the way from rows that are wanted to transactions.
//!
//! ```text
//! units ─ Fragment ─> Desired ─┐
//!                              ├─> Diff ─> Plan { batches, held } ─> NB
//! replica ─ RowDelta ─> Actual ┘
//! ```
//!
//! * [`nb`], [`sb`], [`vswitch`]: one struct per table, generated from the `.ovsschema` files of several OVN releases.
//! * [`RowKey`]: rows are named by natural keys; UUIDs appear only in plans, and are the same in every life of a
//!   database ([`Identity`]).
//! * [`Fragment`]: what one unit wants; rows carry their provenance in `external_ids`.
//! * [`Diff`]: desired rows against the replica, kept up to date change by change; [`Plan`]: the transactions that make
//!   the database hold what is wanted, and what is held back, and why.
//! * [`matching`]: expressions for ACLs, policies and QoS that cannot fail open.
//!
//! Pure: no sockets, no clock, no randomness.

pub mod diff;
mod fragment;
mod generated;
pub mod matching;
pub mod model;
pub mod plan;

pub use diff::{Conflict, Diff, Missing, Owner};
pub use fragment::{Fragment, Member, SOURCE_KEY, VENDOR, VENDOR_KEY, map, set};
pub use generated::{nb, sb, vswitch};
pub use model::{Atom, Column, Database, Identity, Ref, Row, RowKey, Table, Value};
pub use plan::{Batch, Brakes, Held, Options, Plan, Step};
