//! `<atom>` (section 5.1).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

/// One scalar value.
///
/// Atoms have a total order (by kind, then by value; reals by [`f64::total_cmp`]) so that sets and maps can be kept
/// sorted. JSON does not tell a real `1` from an integer `1`: values that come from a server are brought to the column's
/// type with [`ColumnType::normalize`](super::ColumnType::normalize).
#[derive(Clone, Debug)]
pub enum Atom {
    Int(i64),
    /// Must be finite: JSON has no other reals.
    Real(f64),
    Bool(bool),
    Str(SmolStr),
    Uuid(Uuid),
    /// The `uuid-name` of an `insert` in the same transaction. Never part of a row that a server sends.
    NamedUuid(SmolStr),
}

impl Atom {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The value of a real, also of one that arrived as an integer.
    #[expect(
        clippy::cast_precision_loss,
        reason = "what JSON does to an integer in a real column"
    )]
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Self::Real(r) => Some(*r),
            Self::Int(i) => Some(*i as f64),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(u) => Some(*u),
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Int(_) => 0,
            Self::Real(_) => 1,
            Self::Bool(_) => 2,
            Self::Str(_) => 3,
            Self::Uuid(_) => 4,
            Self::NamedUuid(_) => 5,
        }
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Real(a), Self::Real(b)) => a.total_cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Str(a), Self::Str(b)) | (Self::NamedUuid(a), Self::NamedUuid(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Atom {}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Self::Int(i) => i.hash(state),
            Self::Real(r) => r.to_bits().hash(state),
            Self::Bool(b) => b.hash(state),
            Self::Str(s) | Self::NamedUuid(s) => s.hash(state),
            Self::Uuid(u) => u.hash(state),
        }
    }
}

/// As `ovn-nbctl` prints values: strings quoted, everything else bare.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(i) => write!(f, "{i}"),
            Self::Real(r) => write!(f, "{r}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Str(s) => write!(f, "{:?}", s.as_str()),
            Self::Uuid(u) => write!(f, "{u}"),
            Self::NamedUuid(s) => write!(f, "@{s}"),
        }
    }
}

impl From<i64> for Atom {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}

impl From<f64> for Atom {
    fn from(v: f64) -> Self {
        Self::Real(v)
    }
}

impl From<bool> for Atom {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<&str> for Atom {
    fn from(v: &str) -> Self {
        Self::Str(v.into())
    }
}

impl From<String> for Atom {
    fn from(v: String) -> Self {
        Self::Str(v.into())
    }
}

impl From<SmolStr> for Atom {
    fn from(v: SmolStr) -> Self {
        Self::Str(v)
    }
}

impl From<Uuid> for Atom {
    fn from(v: Uuid) -> Self {
        Self::Uuid(v)
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(i) => serializer.serialize_i64(*i),
            // It would be printed as `null`.
            Self::Real(r) if !r.is_finite() => Err(serde::ser::Error::custom(format_args!(
                "real {r} is not finite"
            ))),
            Self::Real(r) => serializer.serialize_f64(*r),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Str(s) => serializer.serialize_str(s),
            Self::Uuid(u) => {
                let mut pair = serializer.serialize_tuple(2)?;
                pair.serialize_element("uuid")?;
                pair.serialize_element(u)?;
                pair.end()
            }
            Self::NamedUuid(name) => {
                let mut pair = serializer.serialize_tuple(2)?;
                pair.serialize_element("named-uuid")?;
                pair.serialize_element(name)?;
                pair.end()
            }
        }
    }
}

/// The first element of a JSON array that stands for a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Uuid,
    NamedUuid,
    Set,
    Map,
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagVisitor;
        impl Visitor<'_> for TagVisitor {
            type Value = Tag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"uuid\", \"named-uuid\", \"set\" or \"map\"")
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Tag, E> {
                match v {
                    "uuid" => Ok(Tag::Uuid),
                    "named-uuid" => Ok(Tag::NamedUuid),
                    "set" => Ok(Tag::Set),
                    "map" => Ok(Tag::Map),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(v), &self)),
                }
            }
        }
        deserializer.deserialize_str(TagVisitor)
    }
}

/// The second and last element of `["uuid", ...]` and `["named-uuid", ...]`.
pub(super) fn finish_uuid<'de, A: SeqAccess<'de>>(tag: Tag, mut seq: A) -> Result<Atom, A::Error> {
    let atom = match tag {
        Tag::Uuid => seq.next_element::<Uuid>()?.map(Atom::Uuid),
        Tag::NamedUuid => seq.next_element::<SmolStr>()?.map(Atom::NamedUuid),
        Tag::Set | Tag::Map => return Err(A::Error::custom("a set or map where an atom belongs")),
    };
    let atom = atom.ok_or_else(|| A::Error::custom("a UUID without its value"))?;
    end(seq)?;
    Ok(atom)
}

pub(super) fn end<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    match seq.next_element::<serde::de::IgnoredAny>()? {
        None => Ok(()),
        Some(_) => Err(A::Error::custom("an array longer than its notation allows")),
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtomVisitor;
        impl<'de> Visitor<'de> for AtomVisitor {
            type Value = Atom;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an OVSDB atom")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Atom, E> {
                Ok(Atom::Bool(v))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Atom, E> {
                Ok(Atom::Int(v))
            }

            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Atom, E> {
                i64::try_from(v)
                    .map(Atom::Int)
                    .map_err(|_| E::custom(format_args!("integer {v} has more than 64 bits")))
            }

            fn visit_f64<E>(self, v: f64) -> Result<Atom, E> {
                // One zero only, so that equal values are equal atoms.
                Ok(Atom::Real(if v == 0.0 { 0.0 } else { v }))
            }

            fn visit_str<E>(self, v: &str) -> Result<Atom, E> {
                Ok(Atom::Str(v.into()))
            }

            fn visit_string<E>(self, v: String) -> Result<Atom, E> {
                Ok(Atom::Str(v.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Atom, A::Error> {
                let tag: Tag = seq
                    .next_element()?
                    .ok_or_else(|| A::Error::custom("an empty array where an atom belongs"))?;
                finish_uuid(tag, seq)
            }
        }
        deserializer.deserialize_any(AtomVisitor)
    }
}
