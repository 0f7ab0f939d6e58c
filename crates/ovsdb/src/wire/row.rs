//! `<row>` (section 5.1).

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Atom, Datum};

/// Columns of one row, ordered by name. The interface is that of a `BTreeMap`; the representation is a sorted vector,
/// which takes half of the memory at the size of rows.
///
/// A row of a replica leaves out columns that hold their type's default (empty set or map, `""`, `0`, `false`), so that
/// equal rows are equal values and a table with many unused columns stays small. The typed accessors ([`Row::str`],
/// [`Row::int`], ...) return the default for an absent column.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(Vec<(SmolStr, Datum)>);

impl Row {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a column; for building rows in one expression.
    #[must_use]
    pub fn with(mut self, column: impl Into<SmolStr>, value: impl Into<Datum>) -> Self {
        self.insert(column, value);
        self
    }

    fn find(&self, column: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(c, _)| c.as_str().cmp(column))
    }

    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.find(column).ok().map(|at| &self.0[at].1)
    }

    pub fn contains_key(&self, column: &str) -> bool {
        self.find(column).is_ok()
    }

    /// The value that was there before.
    pub fn insert(&mut self, column: impl Into<SmolStr>, value: impl Into<Datum>) -> Option<Datum> {
        let (column, value) = (column.into(), value.into());
        match self.find(&column) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (column, value));
                None
            }
        }
    }

    pub fn remove(&mut self, column: &str) -> Option<Datum> {
        self.find(column).ok().map(|at| self.0.remove(at).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&SmolStr, &mut Datum) -> bool) {
        self.0.retain_mut(|(c, d)| keep(c, d));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&SmolStr, &Datum)> + DoubleEndedIterator {
        self.0.iter().map(|(c, d)| (c, d))
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &SmolStr> + DoubleEndedIterator {
        self.0.iter().map(|(c, _)| c)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &Datum> + DoubleEndedIterator {
        self.0.iter().map(|(_, d)| d)
    }

    /// The elements of a set column, or the one atom; nothing for an absent column or a map.
    pub fn atoms(&self, column: &str) -> &[Atom] {
        self.get(column).map_or(&[], Datum::atoms)
    }

    /// The pairs of a map column.
    pub fn pairs(&self, column: &str) -> &[(Atom, Atom)] {
        self.get(column).map_or(&[], Datum::pairs)
    }

    fn single(&self, column: &str) -> Option<&Atom> {
        self.get(column).and_then(Datum::single)
    }

    /// A string column, `""` if absent.
    pub fn str(&self, column: &str) -> &str {
        self.single(column).and_then(Atom::as_str).unwrap_or("")
    }

    /// An integer column, 0 if absent.
    pub fn int(&self, column: &str) -> i64 {
        self.single(column).and_then(Atom::as_int).unwrap_or(0)
    }

    /// A boolean column, false if absent.
    pub fn bool(&self, column: &str) -> bool {
        self.single(column).and_then(Atom::as_bool).unwrap_or(false)
    }

    /// A column with at most one UUID.
    pub fn uuid(&self, column: &str) -> Option<Uuid> {
        self.single(column).and_then(Atom::as_uuid)
    }

    /// A set of UUIDs.
    pub fn uuids(&self, column: &str) -> impl Iterator<Item = Uuid> {
        self.atoms(column).iter().filter_map(Atom::as_uuid)
    }

    /// A set of strings.
    pub fn strs(&self, column: &str) -> impl Iterator<Item = &str> {
        self.atoms(column).iter().filter_map(Atom::as_str)
    }

    /// One key of a map column with string keys and values, such as `external_ids`.
    pub fn map_str(&self, column: &str, key: &str) -> Option<&str> {
        self.get(column).and_then(|d| d.map_str(key))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (column, datum) in &self.0 {
            map.entry(&format_args!("{column}"), &format_args!("{datum}"));
        }
        map.finish()
    }
}

/// Of two values for one column the later wins.
impl FromIterator<(SmolStr, Datum)> for Row {
    fn from_iter<I: IntoIterator<Item = (SmolStr, Datum)>>(iter: I) -> Self {
        let mut row = Self::new();
        row.extend(iter);
        row
    }
}

impl Extend<(SmolStr, Datum)> for Row {
    fn extend<I: IntoIterator<Item = (SmolStr, Datum)>>(&mut self, iter: I) {
        for (column, datum) in iter {
            self.insert(column, datum);
        }
    }
}

impl<const N: usize> From<[(&str, Datum); N]> for Row {
    fn from(columns: [(&str, Datum); N]) -> Self {
        columns
            .into_iter()
            .map(|(c, d)| (SmolStr::from(c), d))
            .collect()
    }
}

impl IntoIterator for Row {
    type Item = (SmolStr, Datum);
    type IntoIter = std::vec::IntoIter<(SmolStr, Datum)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an OVSDB row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut columns: Vec<(SmolStr, Datum)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                columns.sort_by(|a, b| a.0.cmp(&b.0));
                columns.dedup_by(|a, b| a.0 == b.0);
                columns.shrink_to_fit();
                Ok(Row(columns))
            }
        }
        deserializer.deserialize_map(RowVisitor)
    }
}
