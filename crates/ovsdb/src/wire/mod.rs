//! Values and messages of OVSDB, without any input or output.
//!
//! Section numbers in the documentation of this module are those of RFC 7047, unless ovsdb-server(7) is named: that
//! page describes what Open vSwitch adds (`monitor_cond`, `monitor_cond_since`, the `uuid` member of `insert`, ...).

mod atom;
mod datum;
mod framing;
mod monitor;
mod operation;
mod outcome;
mod row;
mod rpc;
mod schema;

pub use atom::Atom;
pub use datum::{AtomMap, AtomSet, Datum};
pub use framing::{FrameBuffer, FramingError};
pub use monitor::{
    Members, MonitorCondSinceReply, MonitorRequest, RowUpdate, RowUpdate2, TableUpdates,
    TableUpdates2, Update2Params, Update3Params, UpdateParams,
};
pub use operation::{Condition, Function, Mutation, Mutator, Operation, Until};
pub use outcome::{OpError, OpOutcome, OpResult};
pub use row::Row;
pub use rpc::{Incoming, encode_error_reply, encode_reply, encode_request};
pub use schema::{
    AtomicType, BaseType, ColumnSchema, ColumnType, DatabaseSchema, RefType, TableSchema,
};
