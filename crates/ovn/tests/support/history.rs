//! Histories: what units want, what people do to the database, and what must hold all the time.

use std::collections::{BTreeMap, BTreeSet};

use ovn::{Database, Diff, Fragment, Identity, Options, Ref, nb};
use ovsdb::RowDelta;
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use proptest::prelude::*;
use uuid::Uuid;

use super::Memory;

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

fn switch(i: u8) -> Ref<nb::LogicalSwitch> {
    nb::LogicalSwitch::named(format!("s{i}"))
}

fn router() -> Ref<nb::LogicalRouter> {
    nb::LogicalRouter::named("ovn-cluster")
}

fn vpc(options: u8) -> Fragment {
    let mut f = Fragment::new("Vpc/ovn-cluster");
    let router = f.row(nb::LogicalRouter {
        name: "ovn-cluster".into(),
        options: ovn::map([("age", options.to_string())]),
        ..Default::default()
    });
    f.row(nb::NbGlobal {
        options: ovn::map([("use_ct_inv_match", "false")]),
        ..Default::default()
    });
    f.rule("default route").child(
        &router,
        nb::LogicalRouter::STATIC_ROUTES,
        nb::LogicalRouterStaticRoute {
            ip_prefix: "0.0.0.0/0".into(),
            nexthop: format!("100.64.0.{options}").into(),
            ..Default::default()
        },
    );
    f
}

/// A switch with its router port, a policy, two ACLs, a group of services and DHCP.
fn subnet(i: u8, variant: u8) -> Fragment {
    let mut f = Fragment::new(format!("Subnet/s{i}"));
    let switch = f.rule("switch").row(nb::LogicalSwitch {
        name: format!("s{i}").into(),
        other_config: ovn::map([("mcast_snoop", variant.is_multiple_of(2).to_string())]),
        ..Default::default()
    });
    f.rule("router port").child(
        &router(),
        nb::LogicalRouter::PORTS,
        nb::LogicalRouterPort {
            name: format!("ovn-cluster-s{i}").into(),
            mac: "00:00:00:00:00:01".into(),
            networks: ovn::set((0..=variant % 3).map(|n| format!("10.{i}.{n}.1/24"))),
            ..Default::default()
        },
    );
    f.rule("policy").child(
        &router(),
        nb::LogicalRouter::POLICIES,
        nb::LogicalRouterPolicy {
            priority: 31000,
            r#match: format!("ip4.dst == 10.{i}.{variant}.0/24").into(),
            action: nb::LogicalRouterPolicyAction::Allow,
            ..Default::default()
        },
    );
    for priority in 0..variant % 4 {
        f.rule("acl").child(
            &switch,
            nb::LogicalSwitch::ACLS,
            nb::Acl {
                priority: i64::from(priority),
                r#match: "ip".into(),
                name: Some(format!("v{variant}").into()),
                ..Default::default()
            },
        );
    }
    if variant > 3 {
        f.rule("dhcp").row(nb::DhcpOptions {
            cidr: format!("10.{i}.0.0/24").into(),
            external_ids: ovn::map([("ls", format!("s{i}").as_str()), ("protocol", "IPv4")]),
            ..Default::default()
        });
        let group = f.rule("services").row(nb::LoadBalancerGroup {
            name: format!("lbg{i}").into(),
        });
        f.member(&switch, nb::LogicalSwitch::LOAD_BALANCER_GROUP, &group);
    }
    f
}

fn group(i: u8) -> Ref<nb::PortGroup> {
    nb::PortGroup::named(format!("g{i}"))
}

fn port(i: u8, subnet: u8, address: u8, groups: u8) -> Fragment {
    let mut f = Fragment::new(format!("Pod/ns/p{i}"));
    let dhcp = Ref::<nb::DhcpOptions>::new(format!("s{subnet} - IPv4"));
    let port = f.rule("port").child(
        &switch(subnet),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: format!("p{i}.ns").into(),
            addresses: ovn::set([format!(
                "00:00:00:00:00:{address:02} 10.{subnet}.0.{address}"
            )]),
            dhcpv4_options: (groups & 8 != 0).then_some(dhcp),
            external_ids: ovn::map([("pod", format!("ns/p{i}"))]),
            ..Default::default()
        },
    );
    for g in 0..3 {
        if groups & (1 << g) != 0 {
            f.member(&group(g), nb::PortGroup::PORTS, &port);
        }
    }
    f
}

/// A policy: group, ACLs, address set; and a service on a shared load balancer.
fn policy(i: u8, rules: u8, addresses: u8) -> Fragment {
    let mut f = Fragment::new(format!("NetworkPolicy/ns/g{i}"));
    let group = f.row(nb::PortGroup {
        name: format!("g{i}").into(),
        ..Default::default()
    });
    let set = f.row(nb::AddressSet {
        name: format!("as{i}").into(),
        ..Default::default()
    });
    for address in 0..addresses {
        f.member(&set, nb::AddressSet::ADDRESSES, format!("10.0.0.{address}"));
    }
    for rule in 0..rules % 4 {
        f.rule("rule").child(
            &group,
            nb::PortGroup::ACLS,
            nb::Acl {
                priority: 2001,
                r#match: format!("outport == @g{i} && ip4.src == $as{rule}").into(),
                action: nb::AclAction::AllowRelated,
                tier: i64::from(rules % 3),
                ..Default::default()
            },
        );
    }
    if rules > 3 {
        let meter = f.rule("log").row(nb::Meter {
            name: format!("m{i}").into(),
            ..Default::default()
        });
        f.child(
            &meter,
            nb::Meter::BANDS,
            nb::MeterBand {
                rate: i64::from(rules),
                ..Default::default()
            },
        );
    }
    f
}

fn service(i: u8, vips: u8) -> Fragment {
    let mut f = Fragment::new(format!("Service/ns/v{i}"));
    let lb = nb::LoadBalancer::named("lb");
    if i == 0 {
        f.row(nb::LoadBalancer {
            name: "lb".into(),
            ..Default::default()
        });
    }
    for vip in 0..vips % 4 {
        f.entry(
            &lb,
            nb::LoadBalancer::VIPS,
            // Two services may want one address.
            format!("10.96.0.{}:80", vip + i / 2),
            format!("10.0.0.{vips}:80"),
        );
    }
    f
}

#[derive(Clone, Debug)]
pub enum Event {
    Vpc(Option<u8>),
    Subnet(u8, Option<u8>),
    Port(u8, Option<(u8, u8, u8)>),
    /// Another unit wants the same port, elsewhere.
    Twin(u8, Option<(u8, u8, u8)>),
    Policy(u8, Option<(u8, u8)>),
    Service(u8, Option<u8>),
    /// Somebody edits the database.
    Human(Human),
    Flush(usize),
}

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

pub fn events() -> impl Strategy<Value = Vec<Event>> {
    let opt = |s: std::ops::Range<u8>| proptest::option::weighted(0.8, s);
    let human = prop_oneof![
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
    ];
    let event = prop_oneof![
        1 => opt(0..3).prop_map(Event::Vpc),
        3 => (0..3u8, opt(0..6)).prop_map(|(i, v)| Event::Subnet(i, v)),
        6 => (0..4u8, proptest::option::weighted(0.8, (0..3u8, 0..9u8, 0..16u8)))
            .prop_map(|(i, p)| Event::Port(i, p)),
        1 => (0..4u8, proptest::option::weighted(0.5, (0..3u8, 0..9u8, 0..16u8)))
            .prop_map(|(i, p)| Event::Twin(i, p)),
        3 => (0..3u8, proptest::option::weighted(0.8, (0..6u8, 0..5u8)))
            .prop_map(|(i, p)| Event::Policy(i, p)),
        2 => (0..4u8, opt(0..6)).prop_map(|(i, v)| Event::Service(i, v)),
        5 => human.prop_map(Event::Human),
        4 => prop_oneof![Just(1usize), Just(4), Just(500)].prop_map(Event::Flush),
    ];
    proptest::collection::vec(event, 1..40)
}

/// Where transactions go.
pub trait Backend {
    fn memory(&self) -> &Memory;
    fn transact(&mut self, ops: &[Operation]) -> Result<Vec<RowDelta>, String>;
}

impl Backend for Memory {
    fn memory(&self) -> &Memory {
        self
    }

    fn transact(&mut self, ops: &[Operation]) -> Result<Vec<RowDelta>, String> {
        self.run(ops)
    }
}

pub struct World<B> {
    backend: B,
    pub diff: Diff<String>,
    next: u128,
}

impl<B: Backend> World<B> {
    pub fn new(backend: B) -> Self {
        let mut diff = Diff::new(Database::Northbound, Identity::new(CLUSTER));
        diff.support(&backend.memory().schema);
        let mut world = Self {
            backend,
            diff,
            next: 1,
        };
        world.others(&[Operation::insert(
            "NB_Global",
            Uuid::from_u128(0xff),
            Row::from([("options", Datum::map([("northd_probe_interval", "5000")]))]),
        )]);
        world
    }

    fn uuid(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    /// A transaction of somebody else; the database may refuse it.
    fn others(&mut self, ops: &[Operation]) {
        if let Ok(deltas) = self.backend.transact(ops) {
            self.diff.apply(&deltas);
        }
    }

    pub fn step(&mut self, event: &Event) {
        let mut set = |unit: String, fragment: Option<Fragment>| match fragment {
            Some(fragment) => self.diff.set(unit, fragment),
            None => self.diff.remove(&unit),
        };
        match event {
            Event::Vpc(v) => set("vpc".into(), v.map(vpc)),
            Event::Subnet(i, v) => set(format!("subnet/{i}"), v.map(|v| subnet(*i, v))),
            Event::Port(i, p) => set(format!("port/{i}"), p.map(|(s, a, g)| port(*i, s, a, g))),
            // The one sorts before, the other behind the port that it copies.
            Event::Twin(i, p) => set(
                format!("{}/{i}", if i % 2 == 0 { "a" } else { "z" }),
                p.map(|(s, a, g)| port(*i, s, a, g)),
            ),
            Event::Policy(i, p) => set(format!("policy/{i}"), p.map(|(r, a)| policy(*i, r, a))),
            Event::Service(i, v) => set(format!("service/{i}"), v.map(|v| service(*i, v))),
            Event::Human(human) => self.human(human),
            Event::Flush(max_ops) => self.flush(*max_ops),
        }
    }

    fn nth(&self, n: usize) -> Option<(String, Uuid, Row)> {
        let all: Vec<_> = self.backend.memory().all().collect();
        let (table, uuid, row) = all.get(n % all.len().max(1))?;
        Some(((*table).to_owned(), *uuid, (*row).clone()))
    }

    fn human(&mut self, human: &Human) {
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

    /// Rows that are not ours, without what goes by itself when rows of ours go.
    fn foreign(&self) -> BTreeMap<Uuid, Row> {
        let wanted: BTreeSet<Uuid> = self
            .diff
            .rows()
            .into_iter()
            .filter(|(key, ..)| self.diff.wanted(key).is_some())
            .map(|(_, uuid, _)| uuid)
            .collect();
        self.backend
            .memory()
            .all()
            .filter(|(table, uuid, row)| {
                *table != "NB_Global"
                    && row.map_str("external_ids", "kube-ovn.io/source").is_none()
                    && self.backend.memory().schema.tables[*table]
                        .columns
                        .contains_key("external_ids")
                    && !wanted.contains(uuid)
                    && !Self::named_by_us(*uuid)
            })
            .map(|(_, uuid, row)| {
                let mut row = row.clone();
                for column in ["ports", "acls", "static_routes", "policies"] {
                    row.remove(column);
                }
                (uuid, row)
            })
            .collect()
    }

    /// The load balancers of others that switches have, without those that go with their switch.
    fn attached(&self) -> BTreeMap<Uuid, BTreeSet<Uuid>> {
        let balancers = self.backend.memory().rows("Load_Balancer");
        let others = |uuid: &Uuid| balancers[uuid].str("name") == "other";
        let switches = self.backend.memory().rows("Logical_Switch");
        switches
            .iter()
            .map(|(uuid, row)| (*uuid, row.uuids("load_balancer").filter(others).collect()))
            .collect()
    }

    /// A row that we made and somebody stripped of its provenance; if it is wanted it is repaired.
    fn named_by_us(uuid: Uuid) -> bool {
        uuid.get_version_num() == 5
    }

    pub fn flush(&mut self, max_ops: usize) {
        let before = self.foreign();
        let attached = self.attached();
        let options = Options {
            max_ops,
            ..Options::default()
        };
        // What was held may come once the reason for it has gone with the first plan.
        let mut texts = Vec::new();
        for round in 0.. {
            let plan = self.diff.plan(&options);
            assert_eq!(plan, self.diff.plan(&options), "plans are deterministic");
            texts.push(plan.to_string());
            if plan.is_empty() {
                if plan.held.is_empty() {
                    assert_eq!(
                        self.diff.describe(),
                        BTreeSet::new(),
                        "{}",
                        texts.join("and then ")
                    );
                    assert!(self.diff.pending_units().is_empty());
                }
                break;
            }
            assert!(round < 3, "no end: {}", texts.join("and then "));
            for batch in &plan.batches {
                let deltas = self
                    .backend
                    .transact(&batch.ops)
                    .unwrap_or_else(|e| panic!("{e}\n{plan}"));
                self.diff.apply(&deltas);
                assert!(self.diff.audit().is_empty());
            }
            if plan.held.is_empty() {
                let again = self.diff.plan(&options);
                assert!(again.batches.is_empty(), "{plan}and then {again}");
            }
        }
        let text = texts.join("and then ");
        let mut places = BTreeMap::new();
        for switch in self.backend.memory().rows("Logical_Switch").values() {
            for port in switch.uuids("ports") {
                *places.entry(port).or_insert(0) += 1;
            }
        }
        assert!(
            places.values().all(|n| *n == 1),
            "a port in two switches: {text}"
        );
        let still = self.attached();
        for (switch, balancers) in attached {
            assert!(still.get(&switch).is_none_or(|b| *b == balancers), "{text}");
        }
        let after = self.foreign();
        for (uuid, row) in before {
            assert_eq!(after.get(&uuid), Some(&row), "{text}");
        }
    }
}

/// Plays a history and checks after each event what must always hold.
pub fn check<B: Backend>(backend: B, events: &[Event]) -> B {
    let mut world = World::new(backend);
    for event in events {
        world.step(event);
        assert_eq!(world.diff.audit(), Vec::<String>::new());
    }
    world.flush(500);
    if !world.diff.plan(&Options::default()).held.is_empty() {
        return world.backend;
    }
    // Everything that units want says where it comes from.
    for (key, uuid, owner) in world.diff.rows() {
        let Some((unit, row)) = world.diff.wanted(&key) else {
            continue;
        };
        if owner == ovn::Owner::Ours {
            let (_, _, wire) = world.diff.row(&key).unwrap();
            assert!(
                row.external_id("kube-ovn.io/source")
                    == wire.map_str("external_ids", "kube-ovn.io/source"),
                "{unit} {uuid}"
            );
        }
    }
    world.backend
}
