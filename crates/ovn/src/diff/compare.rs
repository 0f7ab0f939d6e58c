//! Compares a stated row with the replica's, column by column.

use ovsdb::wire;
use uuid::Uuid;

use crate::model::{
    Atom, Base, Column, Mode, Row, RowKey, Shape, Value, atom_from_wire, value_from_wire,
};

/// What has to happen to one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub column: Column,
    pub edit: Edit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Replace the value.
    Set { old: Value, new: Value },
    /// Add and remove elements of a set.
    Elements {
        insert: Vec<Atom>,
        delete: Vec<Atom>,
    },
    /// Write and remove entries of a map. What is written replaces what the key had.
    Entries {
        insert: Vec<(Atom, Atom)>,
        delete: Vec<Atom>,
        /// Keys of `insert` that have another value now.
        replace: Vec<Atom>,
    },
}

/// The changes that make `actual` hold what `desired` states. Columns for which `skip` holds are left alone.
pub(crate) fn changes(
    desired: &Row,
    actual: &wire::Row,
    columns: impl Iterator<Item = Column>,
    skip: impl Fn(Column) -> bool,
    resolve: impl Fn(&RowKey) -> Uuid,
) -> Vec<Change> {
    columns
        .filter(|column| matches!(column.mode(), Mode::Managed | Mode::Keys(_)) && !skip(*column))
        .filter_map(|column| {
            let want = desired.get(column);
            let have = actual.get(column.name());
            let edit = if let Mode::Keys(_) = column.mode() {
                keys(column, want, have)
            } else {
                whole(column, want, have, &resolve)
            };
            edit.map(|edit| Change { column, edit })
        })
        .collect()
}

fn keys(column: Column, want: Option<&Value>, have: Option<&wire::Datum>) -> Option<Edit> {
    let want = want.map(Value::entries).unwrap_or_default();
    let have = have.map(wire::Datum::pairs).unwrap_or_default();
    let lookup = |key: &Atom| {
        have.iter()
            .find(|(k, _)| same(k, key))
            .map(|(_, value)| value)
    };
    let mut insert = Vec::new();
    let mut replace = Vec::new();
    for (key, value) in want {
        match lookup(key) {
            Some(old) if same(old, value) => continue,
            Some(_) => replace.push(key.clone()),
            None => {}
        }
        insert.push((key.clone(), value.clone()));
    }
    let delete: Vec<_> = have
        .iter()
        .filter(|(key, _)| {
            key.as_str().is_some_and(|k| column.manages(k))
                && !want.iter().any(|(k, _)| same(key, k))
        })
        .filter_map(|(key, _)| atom_from_wire(column.def().key, key))
        .collect();
    (!insert.is_empty() || !delete.is_empty()).then_some(Edit::Entries {
        insert,
        delete,
        replace,
    })
}

fn whole(
    column: Column,
    want: Option<&Value>,
    have: Option<&wire::Datum>,
    resolve: &impl Fn(&RowKey) -> Uuid,
) -> Option<Edit> {
    let refers = column.refers().is_some();
    if !refers && equal(want, have) {
        return None;
    }
    let nothing = || match column.shape() {
        Shape::Map => Value::Map(Box::default()),
        Shape::Optional | Shape::Set => Value::Set(Box::default()),
        Shape::Scalar => Value::Atom(match column.def().key {
            Base::Int => Atom::Int(0),
            Base::Bool => Atom::Bool(false),
            Base::Real | Base::Str | Base::Uuid | Base::Ref { .. } => Atom::Str("".into()),
        }),
    };
    let new = want.map_or_else(nothing, |value| {
        if refers {
            value.resolved(resolve)
        } else {
            value.clone()
        }
    });
    let old = have.map_or_else(nothing, |datum| value_from_wire(column, datum));
    if old == new || (old.is_default() && new.is_default()) {
        return None;
    }
    Some(match (column.shape(), column.def().max) {
        (Shape::Set, u32::MAX) => Edit::Elements {
            insert: minus(new.atoms(), old.atoms()),
            delete: minus(old.atoms(), new.atoms()),
        },
        (Shape::Map, _) => {
            fn get<'a>(value: &'a Value, key: &Atom) -> Option<&'a Atom> {
                let entries = value.entries();
                let at = entries.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
                Some(&entries[at].1)
            }
            Edit::Entries {
                insert: new
                    .entries()
                    .iter()
                    .filter(|(k, v)| get(&old, k) != Some(v))
                    .cloned()
                    .collect(),
                delete: old
                    .entries()
                    .iter()
                    .filter(|(k, _)| get(&new, k).is_none())
                    .map(|(k, _)| k.clone())
                    .collect(),
                replace: new
                    .entries()
                    .iter()
                    .filter(|(k, v)| get(&old, k).is_some_and(|o| o != v))
                    .map(|(k, _)| k.clone())
                    .collect(),
            }
        }
        _ => Edit::Set { old, new },
    })
}

fn minus(a: &[Atom], b: &[Atom]) -> Vec<Atom> {
    a.iter()
        .filter(|x| b.binary_search(x).is_err())
        .cloned()
        .collect()
}

/// Compares without building anything: nearly all rows are equal nearly always.
fn equal(want: Option<&Value>, have: Option<&wire::Datum>) -> bool {
    match (want, have) {
        (None, None) => true,
        (None, Some(have)) => match have {
            wire::Datum::Atom(atom) => atom_is_default(atom),
            wire::Datum::Set(set) => set.is_empty(),
            wire::Datum::Map(map) => map.is_empty(),
        },
        (Some(_), None) => false,
        (Some(Value::Map(want)), Some(have)) => {
            let have = have.pairs();
            want.len() == have.len()
                && want
                    .iter()
                    .zip(have)
                    .all(|(w, h)| same(&h.0, &w.0) && same(&h.1, &w.1))
        }
        (Some(want), Some(have)) => {
            let (want, have) = (want.atoms(), have.atoms());
            want.len() == have.len() && want.iter().zip(have).all(|(w, h)| same(h, w))
        }
    }
}

fn atom_is_default(atom: &wire::Atom) -> bool {
    match atom {
        wire::Atom::Int(i) => *i == 0,
        wire::Atom::Real(r) => *r == 0.0,
        wire::Atom::Bool(b) => !*b,
        wire::Atom::Str(s) => s.is_empty(),
        wire::Atom::Uuid(u) => u.is_nil(),
        wire::Atom::NamedUuid(_) => false,
    }
}

/// Whether an atom of the replica is the same as one of ours, which has no reference by key.
pub(crate) fn same(have: &wire::Atom, want: &Atom) -> bool {
    match (have, want) {
        (wire::Atom::Int(a), Atom::Int(b)) => a == b,
        (wire::Atom::Bool(a), Atom::Bool(b)) => a == b,
        (wire::Atom::Str(a), Atom::Str(b)) => a == b,
        (wire::Atom::Uuid(a), Atom::Uuid(b)) => a == b,
        _ => false,
    }
}
