//! Which rows and elements of ours go, and which must not.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::wire;
use smol_str::SmolStr;
use uuid::Uuid;

use super::Held;
use super::build::{Builder, GroupKey};
use crate::diff::{ElementId, object};
use crate::model::{Column, Table};

impl<U: Ord + Clone> Builder<'_, U> {
    /// The rows of ours that go.
    pub fn choose_deletes(&mut self) -> BTreeSet<Uuid> {
        let diff = self.diff;
        let mut tables: BTreeMap<Table, Vec<Uuid>> = BTreeMap::new();
        for uuid in &diff.pending.surplus {
            if let Some(row) = diff.actual.get(*uuid) {
                tables.entry(row.table).or_default().push(*uuid);
            }
        }
        let mut going = BTreeSet::new();
        for (table, uuids) in tables {
            for uuid in self.brake(table, uuids) {
                let allowed = match self.former(uuid) {
                    GroupKey::Unit(unit) => self.allowed(&unit),
                    GroupKey::Object(_) => self.options.only.is_none(),
                };
                if allowed {
                    going.insert(uuid);
                }
            }
        }
        // A row takes all that it contains with it: not if any of that is to stay. And it cannot go while a row that
        // stays refers to it strongly.
        loop {
            let reasons: Vec<_> = going
                .iter()
                .filter_map(|uuid| {
                    let row = diff.actual.get(*uuid)?;
                    let key = row.natural.map(|key| diff.keys[key].key.clone());
                    let inhabitants = self.inhabitants(*uuid, &going);
                    let holder = self.holder(*uuid, &going);
                    if let Some((parent, column)) = self.last_in(*uuid, &going) {
                        let reason = Held::Last {
                            key,
                            uuid: *uuid,
                            parent,
                            column,
                        };
                        return Some((*uuid, reason));
                    }
                    let reason = match (inhabitants.is_empty(), holder) {
                        (false, _) => Held::Inhabited {
                            key,
                            uuid: *uuid,
                            inhabitants,
                        },
                        (true, Some((by, column))) => Held::Referenced {
                            key,
                            uuid: *uuid,
                            by,
                            column,
                        },
                        (true, None) => return None,
                    };
                    Some((*uuid, reason))
                })
                .collect();
            if reasons.is_empty() {
                return going;
            }
            for (uuid, reason) in reasons {
                going.remove(&uuid);
                self.held.insert(reason);
            }
        }
    }

    /// The rows of a table that the brakes let go; the others are noted.
    fn brake(&mut self, table: Table, uuids: Vec<Uuid>) -> Vec<Uuid> {
        let Some(brakes) = self.options.brakes else {
            return uuids;
        };
        let diff = self.diff;
        let owned = diff.actual.owned(table);
        let (mut free, counted): (Vec<_>, Vec<_>) = uuids.into_iter().partition(|uuid| {
            let source = diff.source(*uuid);
            let unit = || diff.former_unit(*uuid);
            source.is_some_and(|source| self.options.told.contains(object(source)))
                || unit().is_some_and(|unit| self.options.told_units.contains(unit))
        });
        let all = brakes.hold(counted.len(), owned);
        let (held, known): (Vec<_>, Vec<_>) = counted
            .into_iter()
            .partition(|uuid| all || !self.options.strangers && diff.is_stranger(*uuid));
        free.extend(known);
        if !held.is_empty() {
            let keys = held.iter().filter_map(|uuid| {
                let key = diff.actual.get(*uuid)?.natural?;
                Some(&diff.keys[key].key)
            });
            self.held.insert(Held::Brake {
                table,
                deletes: held.len(),
                owned,
                example: keys.min().cloned(),
            });
        }
        free
    }

    /// Takes out the elements that nobody contributes.
    pub fn remove_elements(&mut self) {
        let diff = self.diff;
        let mut columns: BTreeMap<Column, Vec<(&ElementId, GroupKey<U>)>> = BTreeMap::new();
        for element in diff.removes() {
            let (parent, column, atom) = element;
            let child = atom.as_uuid().filter(|_| column.refers().is_some());
            // Rows that nobody wants keep their memberships until they go: a port that has to stay keeps its policies.
            if child.is_some_and(|child| diff.pending.surplus.contains(&child)) {
                continue;
            }
            let moved = child.and_then(|child| diff.claimed(child));
            if diff.pending.surplus.contains(parent)
                && (moved.is_none() || column.contains().is_none())
            {
                continue;
            }
            if column.contains().is_some()
                && let Some(key) = moved
                && !self.stays(key, element)
            {
                continue;
            }
            let unit = moved
                .and_then(|key| self.claimant(key))
                .filter(|_| column.contains().is_some())
                .or_else(|| diff.former_contributor(element).cloned())
                .or_else(|| self.claimant(diff.claimed(*parent)?));
            let group = match unit {
                Some(unit) if self.allowed(&unit) => GroupKey::Unit(unit),
                None if self.options.only.is_none() => GroupKey::Object(SmolStr::default()),
                _ => continue,
            };
            columns.entry(*column).or_default().push((element, group));
        }
        for (column, mut elements) in columns {
            // A row that moves is not lost, however many do.
            if column.contains().is_none()
                && let Some(brake) = self.element_brake(column, &mut elements)
            {
                self.held.insert(brake);
            }
            for (element, group) in elements {
                let group = self.groups.entry(group).or_default();
                group.removes.insert(element.clone());
            }
        }
    }

    /// Takes those elements of a column out of the list whose removal is held back; returns the reason.
    fn element_brake(
        &self,
        column: Column,
        elements: &mut Vec<(&ElementId, GroupKey<U>)>,
    ) -> Option<Held<U>> {
        let brakes = self.options.brakes?;
        // The count of all is a walk over the rows: only where it matters.
        let owned = || self.diff.actual.owned_elements(column);
        let all = elements.len() > brakes.rows && brakes.hold(elements.len(), owned());
        let (held, free): (Vec<_>, Vec<_>) =
            std::mem::take(elements)
                .into_iter()
                .partition(|(element, _)| {
                    let is_stranger = || self.diff.former_contributor(element).is_none();
                    all || !self.options.strangers && is_stranger()
                });
        *elements = free;
        let names = held.iter().filter_map(|((parent, ..), _)| {
            let key = self.diff.key_of(*parent)?;
            Some(&self.diff.keys[key].key)
        });
        let example = names.min().cloned();
        (!held.is_empty()).then(|| Held::ElementBrake {
            column,
            removes: held.len(),
            owned: owned(),
            example,
        })
    }

    /// A column that must not be empty, would be without this row, and stays.
    fn last_in(&self, uuid: Uuid, going: &BTreeSet<Uuid>) -> Option<(Uuid, Column)> {
        let diff = self.diff;
        let parents = diff.actual.parents(uuid).iter().copied();
        parents
            .filter(|(parent, column)| column.def().min > 0 && !going.contains(parent))
            .find(|(parent, column)| {
                let Some(row) = diff.actual.get(*parent) else {
                    return false;
                };
                let emptied = row
                    .wire
                    .uuids(column.name())
                    .all(|element| going.contains(&element));
                let refilled = || {
                    diff.claimed(*parent).is_some_and(|key| {
                        let mut adds = self.groups.values().flat_map(|group| &group.adds);
                        adds.any(|(k, c, _)| (*k, *c) == (key, *column))
                    })
                };
                emptied && !refilled()
            })
    }

    /// A strong reference to a row that will still be there when it is to go.
    fn holder(&self, uuid: Uuid, going: &BTreeSet<Uuid>) -> Option<(Uuid, Column)> {
        let diff = self.diff;
        diff.actual
            .holders(uuid)
            .iter()
            .copied()
            .find(|(holder, column)| {
                let element = (*holder, *column, wire::Atom::Uuid(uuid));
                let removed = diff.pending.removes.contains(&element);
                let updated = || {
                    diff.claimed(*holder).is_some_and(|key| {
                        self.groups.values().any(|group| {
                            group.updates.get(&key).is_some_and(|(_, changes)| {
                                changes.iter().any(|change| change.column == *column)
                            })
                        })
                    })
                };
                !going.contains(holder) && !removed && !updated()
            })
    }

    /// The rows in a row that would be lost with it and must not be.
    fn inhabitants(&self, uuid: Uuid, going: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let mut children = Vec::new();
        self.diff.actual.children(uuid, &mut children);
        children.retain(|child| {
            if going.contains(child) {
                return false;
            }
            let elsewhere = self
                .diff
                .actual
                .parents(*child)
                .iter()
                .any(|(parent, _)| *parent != uuid && !going.contains(parent));
            let moves = self.diff.claimed(*child).is_some_and(|key| {
                let mut places = self.diff.desired.places(&self.diff.keys, key);
                places.any(|(parent, _)| {
                    self.takes(parent) && self.diff.locate(parent).0 != Some(uuid)
                })
            });
            !elsewhere && !moves
        });
        children
    }

    /// The group that a row which nobody wants belongs to.
    pub fn former(&self, uuid: Uuid) -> GroupKey<U> {
        let diff = self.diff;
        if let Some(unit) = diff.former_unit(uuid) {
            return GroupKey::Unit(unit.clone());
        }
        let object = object(diff.source(uuid).unwrap_or_default());
        match self.objects.get(object) {
            Some(unit) => GroupKey::Unit(unit.clone()),
            None => GroupKey::Object(object.into()),
        }
    }
}
