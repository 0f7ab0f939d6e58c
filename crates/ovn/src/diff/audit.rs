//! The difference computed anew, piece by piece, and compared with the one that is kept.
//!
//! Incremental bookkeeping that is wrong stays wrong until somebody looks. [`Diff::drift`] looks at what is kept of a
//! unit, [`Diff::recheck`] at what is known about some of the rows; both cost as much as the piece is large.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::actual::Touched;
use super::desired::UnitId;
use super::evaluate::element_atoms;
use super::keys::{Elem, KeyId};
use super::{Diff, Fragment};
use crate::model::{Atom, Mode};

impl<U: Ord + Clone> Diff<U> {
    /// All units that want something.
    pub fn units(&self) -> impl Iterator<Item = &U> {
        self.desired.units().map(|(unit, _)| unit)
    }

    /// What a unit wants, put together from the indexes.
    pub(super) fn fragment(&self, id: UnitId) -> Fragment {
        let mut fragment = Fragment::default();
        for key in self.desired.rows_of(id) {
            let record = &self.keys[*key];
            let claim = record.claims.iter().find(|(unit, _)| *unit == id);
            let row = claim.map(|(_, row)| (**row).clone());
            fragment
                .rows
                .extend(row.map(|row| (record.key.clone(), row)));
        }
        for (key, column, elem) in self.desired.members_of(id) {
            let owners = self.desired.owners(*key, *column, elem);
            let Some(owner) = owners.and_then(|o| o.iter().find(|o| o.unit == id)) else {
                continue;
            };
            fragment.members.push(crate::Member {
                parent: self.keys[*key].key.clone(),
                column: *column,
                element: match elem {
                    Elem::Row(target) => Atom::Row(self.keys[*target].key.clone()),
                    Elem::Value(atom) => atom.clone(),
                },
                value: owner.value.as_deref().cloned(),
            });
        }
        fragment
    }

    /// How what is kept of a unit differs from what it wants, in words; nothing if it does not.
    pub fn drift(&self, unit: &U, wanted: &Fragment) -> Vec<String> {
        let kept = self.desired.id(unit).map(|id| self.fragment(id));
        let kept = kept.unwrap_or_default();
        let rows = |fragment: &Fragment| -> BTreeMap<_, _> {
            fragment.rows.iter().cloned().collect::<BTreeMap<_, _>>()
        };
        let members = |fragment: &Fragment| -> BTreeMap<_, _> {
            let members = fragment.members.iter().cloned();
            members
                .map(|m| ((m.parent, m.column, m.element), m.value))
                .collect()
        };
        let mut lines = Vec::new();
        let (have, want) = (rows(&kept), rows(wanted));
        compare(&have, &want, |key, what| {
            lines.push(format!("{key} {what}"));
        });
        let (have, want) = (members(&kept), members(wanted));
        compare(&have, &want, |(parent, column, element), what| {
            lines.push(format!("{parent} {}: {element} {what}", column.name()));
        });
        lines
    }

    /// Evaluates the rows of some of the keys anew, `count` from number `from` on: where to go on (nowhere: that was all),
    /// and what was known wrongly, in words. It is known rightly from then on.
    pub fn recheck(&mut self, from: usize, count: usize) -> (Option<usize>, Vec<String>) {
        self.evaluate();
        let (keys, next) = self.keys.slice(from, count);
        let mut uuids: BTreeSet<Uuid> = BTreeSet::new();
        for key in &keys {
            let record = &self.keys[*key];
            uuids.extend(record.natural.iter().copied());
            uuids.insert(record.uuid);
        }
        let mut lines = Vec::new();
        if next.is_none() {
            uuids.extend(self.actual.unlisted(&self.keys));
            self.drop_dead(&mut lines);
        }
        let keys: BTreeSet<KeyId> = keys.into_iter().collect();
        let before = self.part(&keys, &uuids);
        let mut touched = Touched::default();
        for uuid in &uuids {
            if self.actual.check(&mut self.keys, *uuid, &mut touched) {
                lines.push(format!("row {uuid} was taken for another"));
            }
        }
        self.dirty.keys.extend(touched.keys);
        self.dirty.rows.extend(touched.rows);
        self.mark(&keys, &uuids);
        self.evaluate();
        let after = self.part(&keys, &uuids);
        lines.extend(after.difference(&before).map(|l| format!("missed: {l}")));
        lines.extend(before.difference(&after).map(|l| format!("stale: {l}")));
        (next, lines)
    }

    /// Marks all that is known about some rows.
    fn mark(&mut self, keys: &BTreeSet<KeyId>, uuids: &BTreeSet<Uuid>) {
        for key in keys {
            let record = &self.keys[*key];
            for (parent, column) in &record.memberships {
                self.dirty.adds.push((*parent, *column, Elem::Row(*key)));
            }
            for (column, elements) in self.desired.sets_of(*key, &self.keys) {
                let members = elements.keys().map(|elem| (*key, column, elem.clone()));
                self.dirty.adds.extend(members);
            }
        }
        let adds = self.pending.adds.iter().filter(|m| keys.contains(&m.0));
        self.dirty.adds.extend(adds.cloned());
        let removes = self.pending.removes.iter();
        let removes = removes.filter(|element| uuids.contains(&element.0));
        self.dirty.removes.extend(removes.cloned());
        for uuid in uuids {
            let Some(row) = self.actual.get(*uuid) else {
                continue;
            };
            for column in row.table.columns().filter(|c| c.mode() == Mode::Shared) {
                for atom in element_atoms(&row.wire, column) {
                    self.dirty.removes.push((*uuid, column, atom));
                }
            }
        }
        self.dirty.keys.extend(keys);
        self.dirty.rows.extend(uuids);
    }

    /// Drops what is pending for keys and rows that are no more.
    fn drop_dead(&mut self, lines: &mut Vec<String>) {
        let Self {
            keys,
            actual,
            pending,
            ..
        } = self;
        let lives = |elem: &Elem| match elem {
            Elem::Row(key) => keys.is_live(*key),
            Elem::Value(_) => true,
        };
        let before = pending.rows.len() + pending.adds.len();
        pending.rows.retain(|key, _| keys.is_live(*key));
        pending
            .adds
            .retain(|(key, _, elem)| keys.is_live(*key) && lives(elem));
        let dead = before - pending.rows.len() - pending.adds.len();
        let before = pending.removes.len() + pending.surplus.len();
        pending
            .removes
            .retain(|(row, ..)| actual.get(*row).is_some());
        pending.surplus.retain(|row| actual.get(*row).is_some());
        let gone = before - pending.removes.len() - pending.surplus.len();
        if dead + gone > 0 {
            lines.push(format!(
                "stale: {dead} of keys and {gone} of rows that are no more"
            ));
        }
    }

    /// What is pending for some rows, as text.
    fn part(&self, keys: &BTreeSet<KeyId>, uuids: &BTreeSet<Uuid>) -> BTreeSet<String> {
        self.lines(|key| keys.contains(&key), |uuid| uuids.contains(&uuid))
    }
}

fn compare<K: Ord, V: PartialEq>(
    have: &BTreeMap<K, V>,
    want: &BTreeMap<K, V>,
    mut differs: impl FnMut(&K, &str),
) {
    for (key, value) in want {
        match have.get(key) {
            None => differs(key, "was missing"),
            Some(held) if held != value => differs(key, "was another"),
            Some(_) => {}
        }
    }
    for key in have.keys().filter(|key| !want.contains_key(*key)) {
        differs(key, "was too much");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ovsdb::RowDelta;
    use ovsdb::wire::{Datum, Row};

    use super::*;
    use crate::diff::RowState;
    use crate::model::{Database, Identity, RowKey};
    use crate::{Options, nb};

    type Units = Diff<&'static str>;

    fn wanted() -> Fragment {
        let mut f = Fragment::new("Subnet/s");
        let switch = f.row(nb::LogicalSwitch {
            name: "s".into(),
            ..Default::default()
        });
        for port in ["a", "b"] {
            f.rule("port").child(
                &switch,
                nb::LogicalSwitch::PORTS,
                nb::LogicalSwitchPort {
                    name: port.into(),
                    ..Default::default()
                },
            );
        }
        f
    }

    /// A database that holds what is wanted.
    fn quiet() -> Units {
        let mut diff = Units::new(Database::Northbound, Identity::new(Uuid::from_u128(1)));
        diff.set("s", wanted());
        let plan = diff.plan(&Options::default());
        let mut rows = BTreeMap::new();
        for op in plan.batches.into_iter().flat_map(|batch| batch.ops) {
            match op {
                ovsdb::wire::Operation::Insert {
                    table, row, uuid, ..
                } => {
                    rows.insert(uuid.unwrap(), (table, row));
                }
                ovsdb::wire::Operation::Mutate { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let ports: Vec<Uuid> = rows
            .iter()
            .filter(|(_, (table, _))| table == "Logical_Switch_Port")
            .map(|(uuid, _)| *uuid)
            .collect();
        for (table, row) in rows.values_mut() {
            if table == "Logical_Switch" {
                row.insert("ports", Datum::set(ports.clone()));
            }
        }
        let deltas: Vec<_> = rows
            .into_iter()
            .map(|(uuid, (table, row))| delta(uuid, &table, row))
            .collect();
        diff.apply(&deltas);
        assert!(diff.is_empty());
        diff
    }

    fn delta(uuid: Uuid, table: &str, row: Row) -> RowDelta {
        RowDelta {
            table: table.into(),
            uuid,
            old: None,
            new: Some(Arc::new(row)),
        }
    }

    /// One round in small pieces.
    fn round(diff: &mut Units) -> Vec<String> {
        let (mut from, mut lines) = (Some(0), Vec::new());
        while let Some(at) = from {
            let (next, found) = diff.recheck(at, 2);
            lines.extend(found);
            from = next;
        }
        lines
    }

    fn key(diff: &Units, name: &str) -> KeyId {
        let key: RowKey = nb::LogicalSwitchPort::named(name).into_key();
        diff.keys.find(&key).unwrap()
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let mut diff = quiet();
        assert_eq!(round(&mut diff), Vec::<String>::new());
        assert_eq!(diff.drift(&"s", &wanted()), Vec::<String>::new());
        assert!(diff.is_empty());
    }

    #[test]
    fn what_is_kept_of_a_unit_is_compared_with_what_it_wants() {
        let mut diff = quiet();
        let id = diff.desired.id(&"s").unwrap();
        let (a, b) = (key(&diff, "a"), key(&diff, "b"));
        // A claim is lost, another is wrong.
        diff.keys[a].claims.remove(|(unit, _)| *unit == id);
        let other = Arc::clone(&diff.keys[key_of_switch(&diff)].claims.as_slice()[0].1);
        diff.keys[b].claims.find_mut(|_| true).unwrap().1 = other;
        assert_eq!(
            diff.drift(&"s", &wanted()),
            [
                "Logical_Switch_Port a was missing",
                "Logical_Switch_Port b was another"
            ]
        );
        assert_eq!(diff.drift(&"t", &wanted()).len(), 5, "all of it is missing");
        let mut diff = quiet();
        assert_eq!(
            diff.drift(&"s", &Fragment::default()).len(),
            5,
            "all of it is too much"
        );
        diff.set("s", Fragment::default());
        assert_eq!(diff.drift(&"s", &Fragment::default()).len(), 0);
    }

    fn key_of_switch(diff: &Units) -> KeyId {
        diff.keys
            .find(&nb::LogicalSwitch::named("s").into_key())
            .unwrap()
    }

    #[test]
    fn what_is_known_wrongly_of_rows_is_found_and_mended() {
        type Damage = fn(&mut Units);
        let damages: [(&str, Damage); 7] = [
            ("a row is taken for missing", |diff| {
                let key = key(diff, "a");
                diff.pending.rows.insert(key, RowState::Insert);
            }),
            ("a difference is forgotten", |diff| {
                let uuid = diff.keys[key(diff, "a")].uuid;
                let row = (*diff.actual.get(uuid).unwrap().wire).clone();
                let mut edited = row.clone();
                edited.insert("type", "router");
                diff.apply(&[delta(uuid, "Logical_Switch_Port", edited)]);
                diff.evaluate();
                assert_eq!(diff.pending.rows.len(), 1);
                diff.pending.rows.clear();
            }),
            ("a wanted row is taken for surplus", |diff| {
                let uuid = diff.keys[key(diff, "b")].uuid;
                diff.pending.surplus.insert(uuid);
            }),
            ("a row of ours that nobody wants is forgotten", |diff| {
                let uuid = diff.keys[key(diff, "a")].uuid;
                let port = Arc::clone(&diff.actual.get(uuid).unwrap().wire);
                // In no switch, so it has no key.
                let ids = port.get("external_ids").unwrap().clone();
                let row = Row::from([("external_ids", ids)]);
                let other = Uuid::from_u128(9);
                diff.apply(&[delta(other, "ACL", row)]);
                diff.evaluate();
                assert!(diff.pending.surplus.remove(&other));
            }),
            ("a row that is no more is taken for surplus", |diff| {
                diff.pending.surplus.insert(Uuid::from_u128(7));
            }),
            ("a row is lost from the index of names", |diff| {
                let key = key(diff, "b");
                let uuid = diff.keys[key].uuid;
                diff.keys[key].natural.remove(|u| *u == uuid);
            }),
            ("a place is taken for missing", |diff| {
                let (switch, port) = (key_of_switch(diff), key(diff, "a"));
                let column = nb::LogicalSwitch::PORTS.column();
                diff.pending.adds.insert((switch, column, Elem::Row(port)));
            }),
        ];
        for (what, damage) in damages {
            let mut diff = quiet();
            damage(&mut diff);
            let found = round(&mut diff);
            assert_eq!(found.len(), 1, "{what}: {found:#?}");
            let mut full = diff.recomputed();
            assert_eq!(diff.describe(), full.describe(), "{what}");
            assert_eq!(round(&mut diff), Vec::<String>::new(), "{what}");
        }
    }
}
