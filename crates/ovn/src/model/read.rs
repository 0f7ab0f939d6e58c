//! Typed readers of rows that others write.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::wire;
use smol_str::SmolStr;
use uuid::Uuid;

use super::schema::Table;

/// A generated struct with every column of a table, for reading.
///
/// Reading never fails: a column that the server does not have, or has with another type, reads as its default.
pub trait ReadRow: Sized {
    const TABLE: Table;

    fn read(uuid: Uuid, row: &wire::Row) -> Self;
}

/// A column's value as a Rust type.
pub trait FromDatum: Sized {
    fn from_datum(datum: Option<&wire::Datum>) -> Self;
}

/// One element of a column.
pub trait FromAtom: Sized {
    fn from_atom(atom: &wire::Atom) -> Option<Self>;
}

macro_rules! scalar {
    ($($ty:ty, $atom:ident => $value:expr;)*) => {
        $(
            impl FromAtom for $ty {
                fn from_atom($atom: &wire::Atom) -> Option<Self> {
                    $value
                }
            }

            impl FromDatum for $ty {
                fn from_datum(datum: Option<&wire::Datum>) -> Self {
                    datum
                        .and_then(|d| d.atoms().first())
                        .and_then(Self::from_atom)
                        .unwrap_or_default()
                }
            }
        )*
    };
}

scalar! {
    i64, atom => atom.as_int();
    f64, atom => atom.as_real();
    bool, atom => atom.as_bool();
    Uuid, atom => atom.as_uuid();
    SmolStr, atom => match atom {
        wire::Atom::Str(s) => Some(s.clone()),
        _ => None,
    };
}

impl<T: FromAtom> FromDatum for Option<T> {
    fn from_datum(datum: Option<&wire::Datum>) -> Self {
        datum.and_then(|d| d.atoms().first()).and_then(T::from_atom)
    }
}

impl<T: FromAtom + Ord> FromDatum for BTreeSet<T> {
    fn from_datum(datum: Option<&wire::Datum>) -> Self {
        datum
            .map(wire::Datum::atoms)
            .unwrap_or_default()
            .iter()
            .filter_map(T::from_atom)
            .collect()
    }
}

impl<K: FromAtom + Ord, V: FromAtom> FromDatum for BTreeMap<K, V> {
    fn from_datum(datum: Option<&wire::Datum>) -> Self {
        datum
            .map(wire::Datum::pairs)
            .unwrap_or_default()
            .iter()
            .filter_map(|(k, v)| Some((K::from_atom(k)?, V::from_atom(v)?)))
            .collect()
    }
}
