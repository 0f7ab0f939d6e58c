//! What people do to the database.

use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use proptest::prelude::*;
use uuid::Uuid;

use super::{Backend, World};

#[derive(Clone, Debug)]
pub enum Human {
    Delete(usize),
    Detach(usize),
    Rename(usize, u8),
    StripIds(usize),
    EditAddresses(u8, u8),
    ClearGroup(u8),
    FillGroup(u8),
    ForeignSwitch(u8),
    VendorSwitch(u8, bool),
    ForeignAcl(u8),
    ForeignPort(u8, u8),
    VendorPort(u8, u8),
    ForeignRoute,
    /// A load balancer of somebody else's on a switch.
    Balancer(u8, bool),
    /// A port group of the Go implementation.
    VendorGroup(u8),
    NbGlobalOption,
    Vip(u8),
}

pub(super) fn humans() -> impl Strategy<Value = Human> {
    prop_oneof![
        any::<usize>().prop_map(Human::Delete),
        any::<usize>().prop_map(Human::Detach),
        (any::<usize>(), 0..4u8).prop_map(|(n, i)| Human::Rename(n, i)),
        any::<usize>().prop_map(Human::StripIds),
        (0..4u8, 0..9u8).prop_map(|(p, a)| Human::EditAddresses(p, a)),
        (0..3u8).prop_map(Human::ClearGroup),
        (0..3u8).prop_map(Human::FillGroup),
        (0..3u8).prop_map(Human::ForeignSwitch),
        (0..3u8, any::<bool>()).prop_map(|(s, p)| Human::VendorSwitch(s, p)),
        (0..3u8).prop_map(Human::ForeignAcl),
        (0..3u8, 0..5u8).prop_map(|(s, p)| Human::ForeignPort(s, p)),
        (0..3u8, 0..4u8).prop_map(|(s, p)| Human::VendorPort(s, p)),
        Just(Human::ForeignRoute),
        (0..3u8, any::<bool>()).prop_map(|(s, vendor)| Human::Balancer(s, vendor)),
        (0..3u8).prop_map(Human::VendorGroup),
        Just(Human::NbGlobalOption),
        (0..5u8).prop_map(Human::Vip),
    ]
}

impl<B: Backend> World<B> {
    pub(super) fn human(&mut self, human: &Human) {
        let ids = |pairs: &[(&str, &str)]| Datum::map(pairs.iter().copied());
        let vendor = ids(&[("vendor", "kube-ovn")]);
        let uuid = self.uuid();
        let switch_named = |world: &Self, i: u8| {
            let name = format!("s{i}");
            world
                .backend
                .memory()
                .find("Logical_Switch", "name", &name)
                .map(|(u, _)| u)
        };
        let ops = match human {
            Human::Delete(n) => self
                .nth(*n)
                .filter(|(table, ..)| table != "NB_Global")
                .map(|(table, uuid, _)| vec![Operation::delete(table, Condition::row(uuid))]),
            Human::Detach(n) => self.nth(*n).and_then(|(table, uuid, row)| {
                let (column, datum) = row
                    .iter()
                    .find(|(c, _)| ["ports", "acls", "policies"].contains(&c.as_str()))?;
                let first = datum.atoms().first()?.clone();
                let mutation = Mutation::delete(column.clone(), Datum::Atom(first));
                Some(vec![Operation::mutate(
                    table,
                    Condition::row(uuid),
                    vec![mutation],
                )])
            }),
            Human::Rename(n, i) => self
                .nth(*n)
                .filter(|(_, _, row)| row.contains_key("name"))
                .map(|(table, uuid, row)| {
                    // Often to the name of another row.
                    let name = match row.str("name").split_at_checked(1) {
                        Some(("p", _)) => format!("p{i}.ns"),
                        Some((kind, _)) => format!("{kind}{i}"),
                        None => "x".to_owned(),
                    };
                    let row = Row::from([("name", Datum::from(name.as_str()))]);
                    vec![Operation::update(table, Condition::row(uuid), row)]
                }),
            Human::StripIds(n) => self
                .nth(*n)
                .filter(|(_, _, row)| row.contains_key("external_ids"))
                .map(|(table, uuid, _)| {
                    let row = Row::from([("external_ids", Datum::empty_map())]);
                    vec![Operation::update(table, Condition::row(uuid), row)]
                }),
            Human::EditAddresses(p, a) => self
                .backend
                .memory()
                .find("Logical_Switch_Port", "name", &format!("p{p}.ns"))
                .map(|(uuid, _)| {
                    let row = Row::from([("addresses", Datum::set([format!("edit{a}")]))]);
                    vec![Operation::update(
                        "Logical_Switch_Port",
                        Condition::row(uuid),
                        row,
                    )]
                }),
            Human::ClearGroup(g) => self
                .backend
                .memory()
                .find("Port_Group", "name", &format!("g{g}"))
                .map(|(uuid, _)| {
                    let row = Row::from([("ports", Datum::empty()), ("acls", Datum::empty())]);
                    vec![Operation::update("Port_Group", Condition::row(uuid), row)]
                }),
            Human::FillGroup(g) => self
                .backend
                .memory()
                .find("Port_Group", "name", &format!("g{g}"))
                .map(|(uuid, _)| {
                    let ports = self
                        .backend
                        .memory()
                        .rows("Logical_Switch_Port")
                        .keys()
                        .copied();
                    let row = Row::from([("ports", Datum::set(ports))]);
                    vec![Operation::update("Port_Group", Condition::row(uuid), row)]
                }),
            Human::ForeignSwitch(i) => Some(vec![Operation::insert(
                "Logical_Switch",
                uuid,
                Row::from([("name", Datum::from(format!("s{i}").as_str()))]),
            )]),
            Human::VendorSwitch(i, stranger) => {
                let name = if *stranger {
                    "old".into()
                } else {
                    format!("s{i}")
                };
                Some(vec![Operation::insert(
                    "Logical_Switch",
                    uuid,
                    Row::from([
                        ("name", Datum::from(name.as_str())),
                        ("external_ids", vendor),
                    ]),
                )])
            }
            Human::ForeignAcl(i) => switch_named(self, *i).map(|switch| {
                vec![
                    Operation::insert(
                        "ACL",
                        uuid,
                        Row::from([
                            ("match", Datum::from("arp")),
                            ("action", Datum::from("allow")),
                            ("direction", Datum::from("to-lport")),
                        ]),
                    ),
                    Operation::mutate(
                        "Logical_Switch",
                        Condition::row(switch),
                        vec![Mutation::insert("acls", uuid)],
                    ),
                ]
            }),
            Human::ForeignPort(i, p) => switch_named(self, *i).map(|switch| {
                let name = format!("p{p}.ns");
                vec![
                    Operation::insert(
                        "Logical_Switch_Port",
                        uuid,
                        Row::from([("name", Datum::from(name.as_str()))]),
                    ),
                    Operation::mutate(
                        "Logical_Switch",
                        Condition::row(switch),
                        vec![Mutation::insert("ports", uuid)],
                    ),
                ]
            }),
            Human::VendorPort(i, p) => switch_named(self, *i).map(|switch| {
                let name = format!("p{p}.ns");
                vec![
                    Operation::insert(
                        "Logical_Switch_Port",
                        uuid,
                        Row::from([
                            ("name", Datum::from(name.as_str())),
                            ("external_ids", vendor),
                        ]),
                    ),
                    Operation::mutate(
                        "Logical_Switch",
                        Condition::row(switch),
                        vec![Mutation::insert("ports", uuid)],
                    ),
                ]
            }),
            Human::ForeignRoute => self
                .backend
                .memory()
                .find("Logical_Router", "name", "ovn-cluster")
                .map(|(router, _)| {
                    vec![
                        Operation::insert(
                            "Logical_Router_Static_Route",
                            uuid,
                            Row::from([
                                ("ip_prefix", Datum::from("10.99.0.0/16")),
                                ("nexthop", Datum::from("169.254.0.1")),
                                ("external_ids", ids(&[("ic-learned-route", "x")])),
                            ]),
                        ),
                        Operation::mutate(
                            "Logical_Router",
                            Condition::row(router),
                            vec![Mutation::insert("static_routes", uuid)],
                        ),
                    ]
                }),
            Human::Balancer(i, is_vendor) => switch_named(self, *i).map(|switch| {
                let ids = if *is_vendor {
                    vendor
                } else {
                    Datum::empty_map()
                };
                vec![
                    Operation::insert(
                        "Load_Balancer",
                        uuid,
                        Row::from([("name", Datum::from("other")), ("external_ids", ids)]),
                    ),
                    Operation::mutate(
                        "Logical_Switch",
                        Condition::row(switch),
                        vec![Mutation::insert("load_balancer", uuid)],
                    ),
                ]
            }),
            Human::VendorGroup(g) => Some(vec![Operation::insert(
                "Port_Group",
                uuid,
                Row::from([
                    ("name", Datum::from(format!("g{g}").as_str())),
                    ("external_ids", vendor),
                ]),
            )]),
            Human::NbGlobalOption => Some(vec![Operation::mutate(
                "NB_Global",
                Condition::row(Uuid::from_u128(0xff)),
                vec![Mutation::insert(
                    "options",
                    Datum::map([("mac_prefix", "aa:bb"), ("use_ct_inv_match", "true")]),
                )],
            )]),
            Human::Vip(i) => self
                .backend
                .memory()
                .find("Load_Balancer", "name", "lb")
                .map(|(lb, _)| {
                    vec![Operation::mutate(
                        "Load_Balancer",
                        Condition::row(lb),
                        vec![Mutation::insert(
                            "vips",
                            Datum::map([(format!("10.96.0.{i}:80"), "drift".to_owned())]),
                        )],
                    )]
                }),
        };
        self.others(&ops.unwrap_or_default());
    }
}
