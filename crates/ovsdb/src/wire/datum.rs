//! `<value>` (section 5.1): an atom, a set or a map, and the difference algebra of `update2` and `update3`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

use super::atom::{Atom, Tag, end, finish_uuid};

/// Atoms in ascending order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomSet(Vec<Atom>);

impl AtomSet {
    pub fn as_slice(&self) -> &[Atom] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Atom> {
        self.0.iter()
    }

    pub fn contains(&self, atom: &Atom) -> bool {
        self.0.binary_search(atom).is_ok()
    }

    /// False if it was there already.
    pub fn insert(&mut self, atom: Atom) -> bool {
        match self.0.binary_search(&atom) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, atom);
                true
            }
        }
    }

    /// False if it was not there.
    pub fn remove(&mut self, atom: &Atom) -> bool {
        match self.0.binary_search(atom) {
            Ok(at) => {
                self.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }
}

impl FromIterator<Atom> for AtomSet {
    fn from_iter<I: IntoIterator<Item = Atom>>(iter: I) -> Self {
        let mut atoms: Vec<Atom> = iter.into_iter().collect();
        atoms.sort_unstable();
        atoms.dedup();
        Self(atoms)
    }
}

impl IntoIterator for AtomSet {
    type Item = Atom;
    type IntoIter = std::vec::IntoIter<Atom>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a AtomSet {
    type Item = &'a Atom;
    type IntoIter = std::slice::Iter<'a, Atom>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Pairs in ascending order of their keys, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomMap(Vec<(Atom, Atom)>);

impl AtomMap {
    pub fn as_slice(&self) -> &[(Atom, Atom)] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (Atom, Atom)> {
        self.0.iter()
    }

    fn find(&self, key: &Atom) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| k.cmp(key))
    }

    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    /// The value of a string key.
    pub fn get_str(&self, key: &str) -> Option<&Atom> {
        self.0
            .iter()
            .find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, v)| v)
    }

    /// The value that was there before.
    pub fn insert(&mut self, key: Atom, value: Atom) -> Option<Atom> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &Atom) -> Option<Atom> {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }
}

/// Of two pairs with one key the later wins.
impl FromIterator<(Atom, Atom)> for AtomMap {
    fn from_iter<I: IntoIterator<Item = (Atom, Atom)>>(iter: I) -> Self {
        let mut pairs: Vec<(Atom, Atom)> = iter.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        Self(pairs)
    }
}

impl IntoIterator for AtomMap {
    type Item = (Atom, Atom);
    type IntoIter = std::vec::IntoIter<(Atom, Atom)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a AtomMap {
    type Item = &'a (Atom, Atom);
    type IntoIter = std::slice::Iter<'a, (Atom, Atom)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The value of one column.
///
/// On the wire a set of one element and the element alone are the same thing; so are they here: `Atom(x)` equals
/// `Set([x])`. Read sets through [`Datum::atoms`], which serves both.
#[derive(Clone, Debug)]
pub enum Datum {
    Atom(Atom),
    Set(AtomSet),
    Map(AtomMap),
}

impl Datum {
    /// The empty set, which is also how an absent optional value looks.
    pub fn empty() -> Self {
        Self::Set(AtomSet::default())
    }

    pub fn empty_map() -> Self {
        Self::Map(AtomMap::default())
    }

    /// A set of anything that is an atom: `Datum::set(["a", "b"])`.
    pub fn set<T: Into<Atom>>(atoms: impl IntoIterator<Item = T>) -> Self {
        Self::from(atoms.into_iter().map(Into::into).collect::<AtomSet>())
    }

    /// An optional value: the empty set or one atom.
    pub fn optional<T: Into<Atom>>(atom: Option<T>) -> Self {
        atom.map_or_else(Self::empty, |a| Self::Atom(a.into()))
    }

    /// A map of anything that is an atom: `Datum::map([("key", "value")])`.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Map(
            pairs
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }

    /// The elements of a set or the one atom; nothing for a map.
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Self::Atom(atom) => std::slice::from_ref(atom),
            Self::Set(set) => set.as_slice(),
            Self::Map(_) => &[],
        }
    }

    /// The pairs of a map; nothing for anything else.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match self {
            Self::Map(map) => map.as_slice(),
            Self::Atom(_) | Self::Set(_) => &[],
        }
    }

    /// The value of `key` in a map with string keys and values.
    pub fn map_str(&self, key: &str) -> Option<&str> {
        match self {
            Self::Map(map) => map.get_str(key).and_then(Atom::as_str),
            Self::Atom(_) | Self::Set(_) => None,
        }
    }

    /// The only atom, if there is exactly one.
    pub fn single(&self) -> Option<&Atom> {
        match self.atoms() {
            [atom] => Some(atom),
            _ => None,
        }
    }

    pub fn contains(&self, atom: &Atom) -> bool {
        match self {
            Self::Atom(a) => a == atom,
            Self::Set(set) => set.contains(atom),
            Self::Map(_) => false,
        }
    }

    pub fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }

    /// Elements of a set or pairs of a map.
    pub fn len(&self) -> usize {
        match self {
            Self::Atom(_) => 1,
            Self::Set(set) => set.len(),
            Self::Map(map) => map.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn into_set(self) -> AtomSet {
        match self {
            Self::Atom(atom) => AtomSet(vec![atom]),
            Self::Set(set) => set,
            Self::Map(_) => AtomSet::default(),
        }
    }

    /// What an `update2` carries for a set or map column of more than one possible element that goes from `self` to
    /// `new` (ovsdb-server(7), section 4.1.14): elements of one side only; of a map also pairs whose value changed, with
    /// the new value. (Other columns are carried as their new value.)
    #[must_use]
    pub fn difference(&self, new: &Self) -> Self {
        if self.is_map() || new.is_map() {
            let (old, new) = (self.pairs(), new.pairs());
            let changed = merge(
                old,
                new,
                |(k, _)| k,
                |(_, a), (_, b)| {
                    if a == b { Side::Neither } else { Side::Right }
                },
            );
            Self::Map(AtomMap(changed))
        } else {
            let changed = merge(self.atoms(), new.atoms(), |a| a, |_, _| Side::Neither);
            Self::from(AtomSet(changed))
        }
    }

    /// The inverse of [`Datum::difference`]: `old.apply_difference(&old.difference(&new)) == new`.
    #[must_use]
    pub fn apply_difference(self, difference: &Self) -> Self {
        if self.is_map() || difference.is_map() {
            // An empty map may have arrived as an empty set, or may be a column that was left out.
            let changed = merge(
                self.pairs(),
                difference.pairs(),
                |(k, _)| k,
                |(_, a), (_, b)| {
                    if a == b { Side::Neither } else { Side::Right }
                },
            );
            Self::Map(AtomMap(changed))
        } else if let [one] = difference.atoms() {
            // By far the most frequent: a port joins or leaves a switch of thousands.
            let mut set = self.into_set();
            if !set.remove(one) {
                set.insert(one.clone());
            }
            Self::from(set)
        } else {
            let changed = merge(
                self.atoms(),
                difference.atoms(),
                |a| a,
                |_, _| Side::Neither,
            );
            Self::from(AtomSet(changed))
        }
    }
}

enum Side {
    Neither,
    Right,
}

/// Merges two sorted slices: what is on one side only stays; `both` decides about what is on both.
fn merge<T: Clone>(
    left: &[T],
    right: &[T],
    key: impl Fn(&T) -> &Atom,
    both: impl Fn(&T, &T) -> Side,
) -> Vec<T> {
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() && r < right.len() {
        match key(&left[l]).cmp(key(&right[r])) {
            Ordering::Less => {
                out.push(left[l].clone());
                l += 1;
            }
            Ordering::Greater => {
                out.push(right[r].clone());
                r += 1;
            }
            Ordering::Equal => {
                if matches!(both(&left[l], &right[r]), Side::Right) {
                    out.push(right[r].clone());
                }
                l += 1;
                r += 1;
            }
        }
    }
    out.extend_from_slice(&left[l..]);
    out.extend_from_slice(&right[r..]);
    out
}

impl Default for Datum {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        self.is_map() == other.is_map()
            && self.atoms() == other.atoms()
            && self.pairs() == other.pairs()
    }
}

impl Eq for Datum {}

impl Ord for Datum {
    fn cmp(&self, other: &Self) -> Ordering {
        self.is_map()
            .cmp(&other.is_map())
            .then_with(|| self.atoms().cmp(other.atoms()))
            .then_with(|| self.pairs().cmp(other.pairs()))
    }
}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Datum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_map().hash(state);
        self.atoms().hash(state);
        self.pairs().hash(state);
    }
}

/// As `ovn-nbctl` prints values: `[a, b]`, `{k=v}`.
impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atom(atom) => write!(f, "{atom}"),
            Self::Set(set) => {
                f.write_str("[")?;
                for (i, atom) in set.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{atom}")?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (i, (k, v)) in map.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{k}={v}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl From<AtomSet> for Datum {
    fn from(mut set: AtomSet) -> Self {
        if set.0.len() == 1
            && let Some(atom) = set.0.pop()
        {
            Self::Atom(atom)
        } else {
            Self::Set(set)
        }
    }
}

impl From<AtomMap> for Datum {
    fn from(map: AtomMap) -> Self {
        Self::Map(map)
    }
}

macro_rules! datum_from_atom {
    ($($t:ty),*) => {$(
        impl From<$t> for Datum {
            fn from(v: $t) -> Self {
                Self::Atom(v.into())
            }
        }
    )*};
}

datum_from_atom!(Atom, i64, f64, bool, &str, String, SmolStr, Uuid);

/// A slice as a JSON array, element by element.
struct Elements<'a, T>(&'a [T]);

impl<T: Serialize> Serialize for Elements<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Atom(atom) => atom.serialize(serializer),
            Self::Set(set) => {
                let mut pair = serializer.serialize_tuple(2)?;
                pair.serialize_element("set")?;
                pair.serialize_element(&Elements(set.as_slice()))?;
                pair.end()
            }
            Self::Map(map) => {
                let mut pair = serializer.serialize_tuple(2)?;
                pair.serialize_element("map")?;
                pair.serialize_element(&Elements(map.as_slice()))?;
                pair.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Datum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DatumVisitor;
        impl<'de> Visitor<'de> for DatumVisitor {
            type Value = Datum;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an OVSDB value")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Datum, E> {
                Ok(Datum::Atom(Atom::Bool(v)))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Datum, E> {
                Ok(Datum::Atom(Atom::Int(v)))
            }

            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Datum, E> {
                i64::try_from(v)
                    .map(|v| Datum::Atom(Atom::Int(v)))
                    .map_err(|_| E::custom(format_args!("integer {v} has more than 64 bits")))
            }

            fn visit_f64<E>(self, v: f64) -> Result<Datum, E> {
                Ok(Datum::Atom(Atom::Real(if v == 0.0 { 0.0 } else { v })))
            }

            fn visit_str<E>(self, v: &str) -> Result<Datum, E> {
                Ok(Datum::Atom(Atom::Str(v.into())))
            }

            fn visit_string<E>(self, v: String) -> Result<Datum, E> {
                Ok(Datum::Atom(Atom::Str(v.into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
                let tag: Tag = seq
                    .next_element()?
                    .ok_or_else(|| A::Error::custom("an empty array where a value belongs"))?;
                let datum = match tag {
                    Tag::Uuid | Tag::NamedUuid => return finish_uuid(tag, seq).map(Datum::Atom),
                    Tag::Set => seq
                        .next_element::<Vec<Atom>>()?
                        .map(|atoms| Datum::from(atoms.into_iter().collect::<AtomSet>())),
                    Tag::Map => seq
                        .next_element::<Vec<(Atom, Atom)>>()?
                        .map(|pairs| Datum::Map(pairs.into_iter().collect())),
                };
                let datum =
                    datum.ok_or_else(|| A::Error::custom("a set or map without its elements"))?;
                end(seq)?;
                Ok(datum)
            }
        }
        deserializer.deserialize_any(DatumVisitor)
    }
}
