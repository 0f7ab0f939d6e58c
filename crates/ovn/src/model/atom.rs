//! Values of columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use smol_str::SmolStr;
use uuid::Uuid;

use super::key::{Ref, RowKey};

/// One scalar value, with references by key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    Int(i64),
    Bool(bool),
    Str(SmolStr),
    /// A row of ours, by its natural key.
    Row(RowKey),
    /// A row that is known by its UUID alone: what the replica holds.
    Uuid(Uuid),
}

impl Atom {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_row(&self) -> Option<&RowKey> {
        match self {
            Self::Row(key) => Some(key),
            _ => None,
        }
    }

    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(uuid) => Some(*uuid),
            _ => None,
        }
    }

    /// The value that a scalar column has when nobody sets it.
    pub(crate) fn is_default(&self) -> bool {
        match self {
            Self::Int(i) => *i == 0,
            Self::Bool(b) => !*b,
            Self::Str(s) => s.is_empty(),
            Self::Row(_) => false,
            Self::Uuid(u) => u.is_nil(),
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(i) => i.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Str(s) => f.write_str(s),
            Self::Row(key) => f.write_str(&key.name),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(s) => fmt::Debug::fmt(s.as_str(), f),
            Self::Row(key) => write!(f, "<{key}>"),
            other => fmt::Display::fmt(other, f),
        }
    }
}

impl From<i64> for Atom {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Atom {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<SmolStr> for Atom {
    fn from(value: SmolStr) -> Self {
        Self::Str(value)
    }
}

impl From<&str> for Atom {
    fn from(value: &str) -> Self {
        Self::Str(value.into())
    }
}

impl From<String> for Atom {
    fn from(value: String) -> Self {
        Self::Str(value.into())
    }
}

impl From<RowKey> for Atom {
    fn from(value: RowKey) -> Self {
        Self::Row(value)
    }
}

impl<T> From<Ref<T>> for Atom {
    fn from(value: Ref<T>) -> Self {
        Self::Row(value.into_key())
    }
}

impl<T> From<&Ref<T>> for Atom {
    fn from(value: &Ref<T>) -> Self {
        Self::Row(value.key().clone())
    }
}

/// The value of one column. Sets and maps are sorted and without duplicates, so that equal values compare equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value {
    Atom(Atom),
    Set(Box<[Atom]>),
    Map(Box<[(Atom, Atom)]>),
}

impl Value {
    /// A set from elements in any order.
    pub fn set(atoms: impl IntoIterator<Item = Atom>) -> Self {
        Self::Set(
            atoms
                .into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        )
    }

    /// A map from entries in any order; of two with one key the later stays.
    pub fn map(entries: impl IntoIterator<Item = (Atom, Atom)>) -> Self {
        Self::Map(
            entries
                .into_iter()
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect(),
        )
    }

    /// Whether this is what the column holds when nobody sets it.
    pub fn is_default(&self) -> bool {
        match self {
            Self::Atom(atom) => atom.is_default(),
            Self::Set(atoms) => atoms.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }

    /// The elements of a set (of an atom: itself; of a map: none).
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Self::Atom(atom) => std::slice::from_ref(atom),
            Self::Set(atoms) => atoms,
            Self::Map(_) => &[],
        }
    }

    /// The entries of a map.
    pub fn entries(&self) -> &[(Atom, Atom)] {
        match self {
            Self::Map(entries) => entries,
            Self::Atom(_) | Self::Set(_) => &[],
        }
    }

    /// Every row that this value refers to by key.
    pub fn rows(&self) -> impl Iterator<Item = &RowKey> {
        self.atoms()
            .iter()
            .chain(self.entries().iter().flat_map(|(k, v)| [k, v]))
            .filter_map(Atom::as_row)
    }

    /// The same value with each reference by key replaced.
    #[must_use]
    pub fn resolved(&self, mut uuid: impl FnMut(&RowKey) -> Uuid) -> Self {
        let mut atom = |a: &Atom| match a {
            Atom::Row(key) => Atom::Uuid(uuid(key)),
            other => other.clone(),
        };
        match self {
            Self::Atom(a) => Self::Atom(atom(a)),
            Self::Set(atoms) => Self::set(atoms.iter().map(atom)),
            Self::Map(entries) => Self::map(entries.iter().map(|(k, v)| (atom(k), atom(v)))),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atom(atom) => write!(f, "{atom:?}"),
            Self::Set(atoms) => {
                f.write_str("[")?;
                for (i, atom) in atoms.iter().enumerate() {
                    write!(f, "{}{atom:?}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}: {value:?}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Turns a field of a generated struct into a column's value.
pub trait IntoValue {
    fn into_value(self) -> Value;
}

macro_rules! scalar {
    ($($ty:ty),*) => {
        $(impl IntoValue for $ty {
            fn into_value(self) -> Value {
                Value::Atom(self.into())
            }
        })*
    };
}

scalar!(i64, bool, SmolStr);

impl<T> IntoValue for Ref<T> {
    fn into_value(self) -> Value {
        Value::Atom(self.into())
    }
}

impl<T: Into<Atom>> IntoValue for Option<T> {
    fn into_value(self) -> Value {
        Value::Set(self.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Atom>> IntoValue for BTreeSet<T> {
    fn into_value(self) -> Value {
        Value::set(self.into_iter().map(Into::into))
    }
}

impl<K: Into<Atom>, V: Into<Atom>> IntoValue for BTreeMap<K, V> {
    fn into_value(self) -> Value {
        Value::map(self.into_iter().map(|(k, v)| (k.into(), v.into())))
    }
}

/// A word that a column of several words does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is none of {}", known.join(", "))]
pub struct UnknownWord {
    word: String,
    known: &'static [&'static str],
}

impl UnknownWord {
    pub(crate) fn new(word: &str, known: &'static [&'static str]) -> Self {
        Self {
            word: word.to_owned(),
            known,
        }
    }
}
