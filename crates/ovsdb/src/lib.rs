//! OVSDB ([RFC 7047], ovsdb-server(7)) for Rust.
//!
//! * [`wire`]: values, rows, operations, schemas, updates, JSON-RPC frames. Pure: no socket, no clock.
//! * [`Replica`], [`RowDelta`]: rows and their changes. Pure as well.
//! * [`client`] (feature `client`): a connection that keeps itself alive, a replica of selected tables, transactions.
//!
//! The pure half is enough to speak of databases:
//!
//! ```
//! use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
//! use uuid::Uuid;
//!
//! let (switch, port) = (Uuid::from_u128(1), Uuid::from_u128(2));
//! let transaction = [
//!     // The client chooses the UUID of a new row, and can refer to it at once.
//!     Operation::insert("Logical_Switch_Port", port, Row::new().with("name", "web.default")),
//!     Operation::mutate(
//!         "Logical_Switch",
//!         Condition::row(switch),
//!         vec![Mutation::insert("ports", port)],
//!     ),
//! ];
//! let json = serde_json::to_value(&transaction).unwrap();
//! assert_eq!(json[1]["mutations"][0][1], "insert");
//!
//! // Sets are sorted, and a set of one element is that element.
//! assert_eq!(Datum::set([2_i64, 1, 2]), Datum::set([1_i64, 2]));
//! assert_eq!(serde_json::to_string(&Datum::set([port])).unwrap(), format!(r#"["uuid","{port}"]"#));
//! ```
//!
//! [RFC 7047]: https://www.rfc-editor.org/rfc/rfc7047

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

pub mod wire;

mod replica;
mod transact;

pub use replica::{Mirror, OutOfStep, Replica, RowDelta};
pub use transact::{TransactError, TransactResult};

#[cfg(feature = "client")]
#[allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the adapters are where the world begins"
)]
pub mod client;
