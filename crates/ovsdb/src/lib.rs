//! OVSDB ([RFC 7047], ovsdb-server(7)) for Rust.
//!
//! * [`wire`]: values, rows, operations, schemas, updates, JSON-RPC frames. Pure: no socket, no clock.
//! * [`Replica`], [`RowDelta`]: rows and their changes. Pure as well.
//! * [`client`] (feature `client`): a connection that keeps itself alive, a replica of selected tables, transactions.
//!
//! [RFC 7047]: https://www.rfc-editor.org/rfc/rfc7047

pub mod wire;

mod replica;
mod transact;

pub use replica::{Mirror, OutOfStep, Replica, RowDelta};
pub use transact::{TransactError, TransactResult};

#[cfg(feature = "client")]
pub mod client;
