//! The model of the databases: tables and columns, values, keys, rows.

mod atom;
mod key;
mod read;
mod row;
mod schema;

pub use atom::{Atom, IntoValue, UnknownWord, Value};
pub use key::{Identity, Ref, RowKey, TableRow};
pub use read::{FromDatum, ReadRow};
pub use row::Row;
pub(crate) use row::{atom_from_wire, value_from_wire};
pub use schema::{
    Base, Column, ColumnDef, Database, KeyPart, Mode, Shape, SharedMap, SharedSet, Table, TableDef,
};
