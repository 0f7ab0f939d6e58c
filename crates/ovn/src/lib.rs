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
//!
//! ```
//! use ovn::{Database, Diff, Fragment, Identity, Options, nb};
//!
//! // All UUIDs derive from the cluster's.
//! let cluster = uuid::Uuid::from_u128(0xc1);
//! let mut diff = Diff::new(Database::Northbound, Identity::new(cluster));
//!
//! // What two units want. The rows know each other by name alone.
//! let mut subnet = Fragment::new("Subnet/blue");
//! subnet.rule("switch").row(nb::LogicalSwitch {
//!     name: "blue".into(),
//!     ..Default::default()
//! });
//! let mut pod = Fragment::new("Pod/default/web");
//! pod.rule("port").child(
//!     &nb::LogicalSwitch::named("blue"),
//!     nb::LogicalSwitch::PORTS,
//!     nb::LogicalSwitchPort {
//!         name: "web.default".into(),
//!         addresses: ovn::set(["0e:1f:00:53:aa:01 10.17.0.11"]),
//!         ..Default::default()
//!     },
//! );
//! diff.set("subnet/blue", subnet);
//! diff.set("pod/default/web", pod);
//!
//! // What the database lacks, in the order in which it can be sent. What it answers comes back through `diff.apply`.
//! let plan = diff.plan(&Options::default());
//! assert_eq!(
//!     plan.to_string(),
//!     r#"transaction 1 of 1: 3 operations
//!   + Logical_Switch blue: external_ids={kube-ovn.io/source: "Subnet/blue switch", vendor: "kube-ovn"} name="blue"
//!   + Logical_Switch_Port web.default: addresses=["0e:1f:00:53:aa:01 10.17.0.11"] external_ids={kube-ovn.io/source: "Pod/default/web port", vendor: "kube-ovn"} name="web.default"
//!   + Logical_Switch blue: ports web.default
//! "#
//! );
//! for batch in &plan.batches {
//!     // One transaction each: `batch.ops`; a refusal of one of them is the fault of `batch.units_of(index)`.
//!     assert_eq!(batch.ops.len(), 3);
//! }
//! ```

// Pure: see clippy.toml.
#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::iter_over_hash_type
    )
)]

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
