//! Where rows of ours come from.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;
use uuid::Uuid;

use super::{Diff, Owner};
use crate::fragment::SOURCE_KEY;
use crate::model::RowKey;

impl<U: Ord + Clone> Diff<U> {
    /// The object and the rule that a row says it comes from.
    pub(crate) fn source(&self, uuid: Uuid) -> Option<&str> {
        let row = self.actual.get(uuid)?;
        row.wire.map_str("external_ids", SOURCE_KEY)
    }

    /// The unit that last wanted a row which nobody wants now.
    pub(crate) fn former_unit(&self, uuid: Uuid) -> Option<&U> {
        let row = self.actual.get(uuid)?;
        let mut keys = row.natural.into_iter().chain(self.keys.of_uuid(uuid));
        keys.find_map(|key| self.former_rows.get(&self.keys[key].key))
    }

    /// Whether no unit has wanted a row since this difference is kept.
    pub(crate) fn is_stranger(&self, uuid: Uuid) -> bool {
        self.former_unit(uuid).is_none()
    }

    /// The objects behind rows of ours that nobody wants, and whether a unit has wanted such a row since this difference
    /// is kept.
    pub fn surplus_objects(&mut self) -> BTreeMap<SmolStr, bool> {
        self.evaluate();
        let mut objects = BTreeMap::new();
        for uuid in &self.pending.surplus {
            if let Some(source) = self.source(*uuid) {
                let is_known = objects.entry(object(source).into()).or_insert(false);
                *is_known |= !self.is_stranger(*uuid);
            }
        }
        objects
    }

    /// The units that last wanted the rows of ours that nobody wants now.
    pub fn surplus_units(&mut self) -> BTreeSet<U> {
        self.evaluate();
        let rows = self.pending.surplus.iter();
        rows.filter_map(|uuid| self.former_unit(*uuid).cloned())
            .collect()
    }

    /// The objects behind all rows of ours.
    pub fn objects(&self) -> BTreeSet<SmolStr> {
        let rows = self.actual.iter();
        rows.filter(|(_, row)| row.owner == Owner::Ours)
            .filter_map(|(uuid, _)| Some(object(self.source(uuid)?).into()))
            .collect()
    }

    /// Rows of the Go implementation that no unit claims: reported and left alone.
    pub fn unclaimed(&mut self) -> Vec<(RowKey, Uuid)> {
        self.evaluate();
        let mut rows: Vec<_> = self
            .actual
            .iter()
            .filter(|(_, row)| row.owner == Owner::Vendor)
            .filter_map(|(uuid, row)| {
                let key = row.natural?;
                let (embodied, _) = self.locate(key);
                let claimed = !self.keys[key].claims.is_empty() && embodied == Some(uuid);
                (!claimed).then(|| (self.keys[key].key.clone(), uuid))
            })
            .collect();
        rows.sort();
        rows
    }
}

/// The object of a provenance: all before the rule.
pub(crate) fn object(source: &str) -> &str {
    source.split_once(' ').map_or(source, |(object, _)| object)
}
