//! `<database-schema>` (section 3.2), as `get_schema` returns it and as `.ovsschema` files hold it. What is written reads
//! back as an equal value.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Atom, AtomMap, Datum, Row};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSchema {
    pub name: SmolStr,
    pub version: SmolStr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cksum: Option<SmolStr>,
    pub tables: BTreeMap<SmolStr, TableSchema>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSchema {
    pub columns: BTreeMap<SmolStr, ColumnSchema>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// Rows of other tables vanish when nothing refers to them strongly.
    #[serde(default)]
    pub is_root: bool,
    /// Sets of columns that are unique together.
    #[serde(default)]
    pub indexes: Vec<Vec<SmolStr>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSchema {
    #[serde(rename = "type")]
    pub ty: ColumnType,
    #[serde(default)]
    pub ephemeral: bool,
    #[serde(default = "yes")]
    pub mutable: bool,
}

fn yes() -> bool {
    true
}

/// `<type>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    pub key: BaseType,
    /// Present for maps.
    pub value: Option<BaseType>,
    /// 0 or 1.
    pub min: u32,
    /// `None` is unlimited.
    pub max: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtomicType {
    Integer,
    Real,
    Boolean,
    String,
    Uuid,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum RefType {
    /// Keeps the row that it refers to; a reference to nothing fails the transaction.
    #[default]
    Strong,
    /// Disappears with the row that it refers to.
    Weak,
}

/// `<base-type>`.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseType {
    pub ty: AtomicType,
    /// The only values allowed; empty if any is.
    pub allowed: Vec<Atom>,
    pub min_integer: Option<i64>,
    pub max_integer: Option<i64>,
    pub min_real: Option<f64>,
    pub max_real: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub ref_table: Option<SmolStr>,
    pub ref_type: RefType,
}

impl Eq for BaseType {}

impl BaseType {
    fn of(ty: AtomicType) -> Self {
        Self {
            ty,
            allowed: Vec::new(),
            min_integer: None,
            max_integer: None,
            min_real: None,
            max_real: None,
            min_length: None,
            max_length: None,
            ref_table: None,
            ref_type: RefType::Strong,
        }
    }

    /// The value of a column that nobody set.
    pub fn default_atom(&self) -> Atom {
        match self.ty {
            AtomicType::Integer => Atom::Int(0),
            AtomicType::Real => Atom::Real(0.0),
            AtomicType::Boolean => Atom::Bool(false),
            AtomicType::String => Atom::Str(SmolStr::default()),
            AtomicType::Uuid => Atom::Uuid(Uuid::nil()),
        }
    }

    fn normalize(&self, atom: Atom) -> Atom {
        if self.ty == AtomicType::Real
            && let Atom::Int(_) = atom
        {
            Atom::Real(atom.as_real().unwrap_or_default())
        } else {
            atom
        }
    }
}

impl ColumnType {
    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    /// Exactly one atom.
    pub fn is_scalar(&self) -> bool {
        !self.is_map() && self.min == 1 && self.max == Some(1)
    }

    /// Zero or one atom.
    pub fn is_optional(&self) -> bool {
        !self.is_map() && self.min == 0 && self.max == Some(1)
    }

    /// Whether `update2` carries this column as a difference instead of as its new value.
    pub fn sends_difference(&self) -> bool {
        self.max != Some(1)
    }

    pub fn default_datum(&self) -> Datum {
        match (&self.value, self.min) {
            (None, 0) => Datum::empty(),
            (None, _) => Datum::Atom(self.key.default_atom()),
            (Some(_), 0) => Datum::empty_map(),
            (Some(value), _) => Datum::Map(AtomMap::from_iter([(
                self.key.default_atom(),
                value.default_atom(),
            )])),
        }
    }

    pub fn is_default(&self, datum: &Datum) -> bool {
        if self.min == 0 {
            datum.is_empty()
        } else {
            *datum == self.default_datum()
        }
    }

    /// Whether [`ColumnType::normalize`] would leave the value as it is: almost always.
    fn is_normal(&self, datum: &Datum) -> bool {
        let key = self.key.ty != AtomicType::Real;
        match &self.value {
            None => key || datum.atoms().iter().all(|a| matches!(a, Atom::Real(_))),
            Some(value) => key && value.ty != AtomicType::Real && datum.is_map(),
        }
    }

    /// Brings a value from the wire to this type: integers of a real column become reals, an empty set of a map column
    /// an empty map.
    #[must_use]
    pub fn normalize(&self, datum: Datum) -> Datum {
        if self.is_normal(&datum) {
            return datum;
        }
        match &self.value {
            None if self.key.ty == AtomicType::Real => match datum {
                Datum::Atom(atom) => Datum::Atom(self.key.normalize(atom)),
                Datum::Set(set) => Datum::set(set.into_iter().map(|atom| self.key.normalize(atom))),
                Datum::Map(map) => Datum::Map(map),
            },
            Some(value) if self.key.ty == AtomicType::Real || value.ty == AtomicType::Real => {
                match datum {
                    Datum::Map(map) => Datum::map(
                        map.into_iter()
                            .map(|(k, v)| (self.key.normalize(k), value.normalize(v))),
                    ),
                    other => other,
                }
            }
            Some(_) if datum.is_empty() => Datum::empty_map(),
            _ => datum,
        }
    }
}

impl TableSchema {
    /// Brings a row from the wire to the form of a replica: typed values, no defaults, no unknown columns.
    #[must_use]
    pub fn normalize_row(&self, mut row: Row) -> Row {
        row.retain(|column, datum| {
            let Some(ColumnSchema { ty, .. }) = self.columns.get(column) else {
                return false;
            };
            if !ty.is_normal(datum) {
                *datum = ty.normalize(std::mem::take(datum));
            }
            !ty.is_default(datum)
        });
        row
    }

    /// Applies the `modify` of an `update2` or `update3` to a row in the form of a replica.
    #[must_use]
    pub fn apply_modify(&self, mut row: Row, modify: Row) -> Row {
        for (column, change) in modify {
            let Some(ty) = self.columns.get(&column).map(|c| &c.ty) else {
                continue;
            };
            let change = ty.normalize(change);
            let new = if ty.sends_difference() {
                row.remove(&column)
                    .unwrap_or_else(|| ty.default_datum())
                    .apply_difference(&change)
            } else {
                change
            };
            if ty.is_default(&new) {
                row.remove(&column);
            } else {
                row.insert(column, new);
            }
        }
        row
    }

    /// The inverse of [`TableSchema::apply_modify`]: what a server would send for `old` becoming `new`.
    #[must_use]
    pub fn modify_between(&self, old: &Row, new: &Row) -> Row {
        let mut modify = Row::new();
        for (column, schema) in &self.columns {
            let (before, after) = (old.get(column), new.get(column));
            if before == after {
                continue;
            }
            let default = schema.ty.default_datum();
            let (before, after) = (before.unwrap_or(&default), after.unwrap_or(&default));
            if before != after {
                let change = if schema.ty.sends_difference() {
                    before.difference(after)
                } else {
                    after.clone()
                };
                modify.insert(column.clone(), change);
            }
        }
        modify
    }
}

/// A member that is left out if there is nothing to say.
fn entry<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &'static str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(name, value),
        None => Ok(()),
    }
}

impl Serialize for BaseType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.ty)?;
        if !self.allowed.is_empty() {
            map.serialize_entry("enum", &Datum::set(self.allowed.iter().cloned()))?;
        }
        entry(&mut map, "minInteger", self.min_integer.as_ref())?;
        entry(&mut map, "maxInteger", self.max_integer.as_ref())?;
        entry(&mut map, "minReal", self.min_real.as_ref())?;
        entry(&mut map, "maxReal", self.max_real.as_ref())?;
        entry(&mut map, "minLength", self.min_length.as_ref())?;
        entry(&mut map, "maxLength", self.max_length.as_ref())?;
        if let Some(table) = &self.ref_table {
            map.serialize_entry("refTable", table)?;
            map.serialize_entry("refType", &self.ref_type)?;
        }
        map.end()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireBaseType {
    #[serde(rename = "type")]
    ty: AtomicType,
    #[serde(default, rename = "enum")]
    allowed: Option<Datum>,
    min_integer: Option<i64>,
    max_integer: Option<i64>,
    min_real: Option<f64>,
    max_real: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    ref_table: Option<SmolStr>,
    #[serde(default)]
    ref_type: RefType,
}

impl<'de> Deserialize<'de> for BaseType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BaseVisitor;
        impl<'de> Visitor<'de> for BaseVisitor {
            type Value = BaseType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an atomic type or a base type object")
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<BaseType, E> {
                AtomicType::deserialize(serde::de::value::StrDeserializer::new(v)).map(BaseType::of)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BaseType, A::Error> {
                let wire =
                    WireBaseType::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(BaseType {
                    ty: wire.ty,
                    allowed: wire.allowed.map_or_else(Vec::new, |d| d.atoms().to_vec()),
                    min_integer: wire.min_integer,
                    max_integer: wire.max_integer,
                    min_real: wire.min_real,
                    max_real: wire.max_real,
                    min_length: wire.min_length,
                    max_length: wire.max_length,
                    ref_table: wire.ref_table,
                    ref_type: wire.ref_type,
                })
            }
        }
        deserializer.deserialize_any(BaseVisitor)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireMax {
    Number(u32),
    Word(SmolStr),
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", &self.key)?;
        entry(&mut map, "value", self.value.as_ref())?;
        map.serialize_entry("min", &self.min)?;
        match self.max {
            Some(max) => map.serialize_entry("max", &max)?,
            None => map.serialize_entry("max", "unlimited")?,
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct WireColumnType {
    key: BaseType,
    value: Option<BaseType>,
    #[serde(default = "one")]
    min: u32,
    max: Option<WireMax>,
}

fn one() -> u32 {
    1
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TypeVisitor;
        impl<'de> Visitor<'de> for TypeVisitor {
            type Value = ColumnType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an atomic type or a column type object")
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<ColumnType, E> {
                let ty = AtomicType::deserialize(serde::de::value::StrDeserializer::new(v))?;
                Ok(ColumnType {
                    key: BaseType::of(ty),
                    value: None,
                    min: 1,
                    max: Some(1),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnType, A::Error> {
                let wire =
                    WireColumnType::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let max = match wire.max {
                    None => Some(1),
                    Some(WireMax::Number(n)) => Some(n),
                    Some(WireMax::Word(w)) if w == "unlimited" => None,
                    Some(WireMax::Word(w)) => {
                        return Err(A::Error::custom(format_args!("max is {w:?}")));
                    }
                };
                Ok(ColumnType {
                    key: wire.key,
                    value: wire.value,
                    min: wire.min,
                    max,
                })
            }
        }
        deserializer.deserialize_any(TypeVisitor)
    }
}
