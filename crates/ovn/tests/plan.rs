//! What plans look like, case by case.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use std::collections::BTreeSet;

use ovn::plan::Held;
use ovn::{Brakes, Database, Diff, Fragment, Identity, Options, Owner, Plan, nb};
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use support::Memory;
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

struct Fixture {
    memory: Memory,
    diff: Diff<&'static str>,
}

impl Fixture {
    fn new() -> Self {
        Self::release("25.03")
    }

    fn release(release: &str) -> Self {
        let memory = Memory::northbound(release);
        let mut diff = Diff::new(Database::Northbound, Identity::new(CLUSTER));
        diff.support(&memory.schema);
        Self { memory, diff }
    }

    /// A switch `s`, a group `g`, a router `r`.
    fn with_basics() -> Self {
        let mut fixture = Self::new();
        fixture.diff.set("basics", basics());
        fixture.flush();
        fixture
    }

    fn plan(&mut self) -> Plan<&'static str> {
        self.diff.plan(&Options::default())
    }

    fn commit(&mut self, ops: &[Operation]) {
        let deltas = self.memory.run(ops).unwrap();
        self.diff.apply(&deltas);
    }

    fn flush(&mut self) -> String {
        let plan = self.plan();
        for batch in &plan.batches {
            self.commit(&batch.ops);
        }
        plan.to_string()
    }

    fn uuid(&self, table: &str, name: &str) -> Uuid {
        self.memory.find(table, "name", name).unwrap().0
    }
}

fn basics() -> Fragment {
    let mut f = Fragment::new("Subnet/s");
    f.row(nb::LogicalSwitch {
        name: "s".into(),
        ..Default::default()
    });
    f.row(nb::PortGroup {
        name: "g".into(),
        ..Default::default()
    });
    f.row(nb::LogicalRouter {
        name: "r".into(),
        ..Default::default()
    });
    f
}

fn port(name: &str, switch: &str, address: &str) -> Fragment {
    let mut f = Fragment::new(format!("Pod/ns/{name}"));
    let port = f.rule("port").child(
        &nb::LogicalSwitch::named(switch),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: name.into(),
            addresses: ovn::set([address]),
            ..Default::default()
        },
    );
    f.member(&nb::PortGroup::named("g"), nb::PortGroup::PORTS, &port);
    f
}

fn policy(rule: &str, priority: i64, expression: &str) -> Fragment {
    let mut f = Fragment::new("Subnet/s");
    f.rule(rule).child(
        &nb::LogicalRouter::named("r"),
        nb::LogicalRouter::POLICIES,
        nb::LogicalRouterPolicy {
            priority,
            r#match: expression.into(),
            action: nb::LogicalRouterPolicyAction::Allow,
            ..Default::default()
        },
    );
    f
}

#[test]
fn a_port_comes_with_its_memberships_in_one_transaction() {
    let mut fixture = Fixture::with_basics();
    fixture.diff.set("pod", port("p", "s", "a"));
    let plan = fixture.plan();
    assert_eq!(plan.batches.len(), 1);
    let ops: Vec<_> = plan.batches[0]
        .ops
        .iter()
        .map(|op| (op.name(), op.table().unwrap()))
        .collect();
    assert_eq!(
        ops,
        [
            ("insert", "Logical_Switch_Port"),
            ("mutate", "Logical_Switch"),
            ("mutate", "Port_Group")
        ]
    );
    assert_eq!(
        plan.to_string(),
        r#"transaction 1 of 1: 3 operations
  + Logical_Switch_Port p: addresses=["a"] external_ids={kube-ovn.io/source: "Pod/ns/p port", vendor: "kube-ovn"} name="p"
  + Logical_Switch s: ports p
  + Port_Group g: ports p
"#
    );
    fixture.flush();
    assert!(fixture.diff.is_empty());
    assert_eq!(fixture.plan().to_string(), "nothing to do\n");
}

#[test]
fn a_policy_that_selects_a_new_port_is_there_when_the_port_comes() {
    let mut fixture = Fixture::with_basics();
    let mut f = Fragment::new("Pod/ns/p");
    let switch = nb::LogicalSwitch::named("s");
    let port = f.child(
        &switch,
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: "p".into(),
            ..Default::default()
        },
    );
    fixture.diff.set("pod", f);
    // Another unit's group, with a rule, that takes the port in.
    let mut f = Fragment::new("NetworkPolicy/ns/np");
    let group = f.row(nb::PortGroup {
        name: "np".into(),
        ..Default::default()
    });
    f.child(
        &group,
        nb::PortGroup::ACLS,
        nb::Acl {
            priority: 2000,
            r#match: "outport == @np && ip".into(),
            ..Default::default()
        },
    );
    f.member(&group, nb::PortGroup::PORTS, &port);
    fixture.diff.set("policy", f);
    let plan = fixture.diff.plan(&Options {
        max_ops: 1,
        ..Options::default()
    });
    // The group and its rule first, then the port together with its membership, although the policy states that.
    assert_eq!(plan.batches.len(), 2);
    assert_eq!(plan.batches[0].units(), BTreeSet::from(["policy"]));
    assert_eq!(plan.batches[1].units(), BTreeSet::from(["pod", "policy"]));
    assert!(
        plan.batches[1]
            .to_string()
            .contains("+ Port_Group np: ports p")
    );
}

#[test]
fn an_edited_match_is_replaced_in_one_transaction() {
    let mut fixture = Fixture::with_basics();
    fixture
        .diff
        .set("subnet", policy("allow", 100, "ip4.dst == 10.0.0.0/24"));
    fixture.flush();
    fixture
        .diff
        .set("subnet", policy("allow", 100, "ip4.dst == 10.0.0.0/23"));
    let plan = fixture.plan();
    assert_eq!(plan.batches.len(), 1);
    let [insert, mutate] = plan.batches[0].ops.as_slice() else {
        panic!("{plan}");
    };
    assert_eq!(insert.name(), "insert");
    let Operation::Mutate { mutations, .. } = mutate else {
        panic!("{plan}");
    };
    assert_eq!(mutations.len(), 2, "in and out with one stroke");
    fixture.flush();
    assert_eq!(fixture.memory.rows("Logical_Router_Policy").len(), 1);
    assert!(fixture.diff.is_empty());
}

#[test]
fn also_after_a_restart_the_old_and_the_new_rule_change_together() {
    let mut fixture = Fixture::with_basics();
    fixture
        .diff
        .set("subnet", policy("allow", 100, "ip4.dst == 10.0.0.0/24"));
    fixture.flush();
    // A new process knows the rows, not the units that they were made for.
    let mut fresh = Fixture::new();
    fresh.memory = fixture.memory;
    let all: Vec<_> = fixture.diff.rows();
    let deltas: Vec<_> = all
        .iter()
        .map(|(key, uuid, _)| ovsdb::RowDelta {
            table: key.table.name().into(),
            uuid: *uuid,
            old: None,
            new: fixture
                .diff
                .row(key)
                .map(|(_, _, row)| std::sync::Arc::clone(row)),
        })
        .collect();
    fresh.diff.apply(&deltas);
    fresh.diff.set("basics", basics());
    fresh
        .diff
        .set("subnet", policy("allow", 100, "ip4.dst == 10.0.0.0/23"));
    let plan = fresh.diff.plan(&Options {
        max_ops: 1,
        ..Options::default()
    });
    assert_eq!(plan.batches.len(), 1, "{plan}");
    assert!(plan.held.is_empty());
    fresh.flush();
    assert!(fresh.diff.is_empty());
}

#[test]
fn edits_are_the_smallest_that_do() {
    let mut fixture = Fixture::with_basics();
    let row = |networks: &[&str], mac: &str, options: &[(&str, &str)]| {
        let mut f = Fragment::new("Subnet/s");
        f.child(
            &nb::LogicalRouter::named("r"),
            nb::LogicalRouter::PORTS,
            nb::LogicalRouterPort {
                name: "r-s".into(),
                mac: mac.into(),
                networks: ovn::set(networks.iter().copied()),
                options: ovn::map(options.iter().copied()),
                ..Default::default()
            },
        );
        f
    };
    fixture.diff.set(
        "lrp",
        row(&["10.0.0.1/24"], "m1", &[("a", "1"), ("b", "2")]),
    );
    fixture.flush();
    fixture.diff.set(
        "lrp",
        row(
            &["10.0.0.1/24", "fd00::1/64"],
            "m2",
            &[("a", "1"), ("b", "3"), ("c", "4")],
        ),
    );
    let plan = fixture.plan();
    let uuid = fixture.uuid("Logical_Router_Port", "r-s");
    assert_eq!(
        plan.batches[0].ops,
        [
            Operation::update(
                "Logical_Router_Port",
                Condition::row(uuid),
                Row::from([("mac", Datum::from("m2"))])
            ),
            Operation::mutate(
                "Logical_Router_Port",
                Condition::row(uuid),
                vec![
                    Mutation::insert("networks", Datum::set(["fd00::1/64"])),
                    Mutation::delete_keys("options", ["b"]),
                    Mutation::insert("options", Datum::map([("b", "3"), ("c", "4")])),
                ]
                .into_iter()
                .collect()
            )
        ]
    );
    fixture.flush();
    assert!(fixture.diff.is_empty());
}

#[test]
fn a_port_moves_with_one_stroke_and_keeps_its_uuid() {
    let mut fixture = Fixture::with_basics();
    let mut f = Fragment::new("Subnet/t");
    f.row(nb::LogicalSwitch {
        name: "t".into(),
        ..Default::default()
    });
    fixture.diff.set("t", f);
    fixture.diff.set("pod", port("p", "s", "a"));
    fixture.flush();
    let before = fixture.uuid("Logical_Switch_Port", "p");
    fixture.diff.set("pod", port("p", "t", "a"));
    assert_eq!(
        fixture.flush(),
        "transaction 1 of 1: 2 operations\n  + Logical_Switch t: ports p\n  - Logical_Switch s: ports p\n"
    );
    assert_eq!(fixture.uuid("Logical_Switch_Port", "p"), before);
    assert!(fixture.diff.is_empty());
}

#[test]
fn the_same_rows_get_the_same_uuids_in_a_new_database() {
    let uuids = |fixture: &mut Fixture| {
        fixture.diff.set("basics", basics());
        fixture.diff.set("pod", port("p", "s", "a"));
        fixture.flush();
        fixture.diff.rows()
    };
    let (mut a, mut b) = (Fixture::new(), Fixture::new());
    assert_eq!(uuids(&mut a), uuids(&mut b));
    // And another cluster gets others.
    let other = Identity::new(Uuid::from_u128(0xc2));
    let key = nb::LogicalSwitch::named("s").into_key();
    assert_ne!(other.uuid(&key), a.diff.identity().uuid(&key));
    assert_eq!(
        a.diff.identity().uuid(&key).to_string(),
        a.diff.row(&key).unwrap().0.to_string()
    );
}

#[test]
fn a_row_of_the_go_implementation_is_adopted_when_it_is_claimed() {
    let mut fixture = Fixture::new();
    let ids = Datum::map([("vendor", "kube-ovn"), ("note", "mine")]);
    let row = |name: &str| Row::from([("name", Datum::from(name)), ("external_ids", ids.clone())]);
    fixture.commit(&[
        Operation::insert("Logical_Switch", Uuid::from_u128(1), row("s")),
        Operation::insert("Logical_Switch", Uuid::from_u128(2), row("old")),
    ]);
    fixture.diff.set("basics", basics());
    let plan = fixture.flush();
    assert!(
        plan.contains(
            "~ Logical_Switch s: (adopted) external_ids +kube-ovn.io/source=\"Subnet/s\""
        ),
        "{plan}"
    );
    let (uuid, owner, row) = fixture
        .diff
        .row(nb::LogicalSwitch::named("s").key())
        .unwrap();
    assert_eq!((uuid, owner), (Uuid::from_u128(1), Owner::Ours));
    assert_eq!(
        row.map_str("external_ids", "note"),
        Some("mine"),
        "not ours to remove"
    );
    // The other one is reported and left alone, also when nothing of ours is wanted any more.
    let old = nb::LogicalSwitch::named("old").into_key();
    assert_eq!(fixture.diff.unclaimed(), [(old, Uuid::from_u128(2))]);
    fixture.diff.remove(&"basics");
    fixture.flush();
    assert_eq!(fixture.memory.rows("Logical_Switch").len(), 1);
}

#[test]
fn somebody_elses_row_is_not_overwritten() {
    let mut fixture = Fixture::new();
    fixture.commit(&[Operation::insert(
        "Logical_Switch",
        Uuid::from_u128(1),
        Row::from([("name", Datum::from("s"))]),
    )]);
    fixture.diff.set("basics", basics());
    fixture.diff.set("pod", port("p", "s", "a"));
    let plan = fixture.plan();
    assert!(plan.held.contains(&Held::Foreign {
        key: nb::LogicalSwitch::named("s").into_key(),
        uuid: Uuid::from_u128(1),
        unit: "basics",
    }));
    // What would go into it waits too; the rest goes on.
    assert!(
        plan.to_string().contains("! Logical_Switch_Port p of pod"),
        "{plan}"
    );
    fixture.flush();
    assert!(fixture.memory.find("Logical_Router", "name", "r").is_some());
    assert!(!fixture.diff.is_clean(&"basics"));
    assert!(!fixture.diff.is_clean(&"pod"));
    // It is enough to rename it.
    fixture.commit(&[Operation::update(
        "Logical_Switch",
        Condition::row(Uuid::from_u128(1)),
        Row::from([("name", Datum::from("theirs"))]),
    )]);
    fixture.flush();
    assert!(fixture.diff.is_empty());
}

#[test]
fn drift_is_repaired() {
    let mut fixture = Fixture::with_basics();
    fixture.diff.set("pod", port("p", "s", "a"));
    fixture.flush();
    let (port, group) = (
        fixture.uuid("Logical_Switch_Port", "p"),
        fixture.uuid("Port_Group", "g"),
    );
    fixture.commit(&[
        Operation::update(
            "Logical_Switch_Port",
            Condition::row(port),
            Row::from([
                ("name", Datum::from("q")),
                ("addresses", Datum::set(["evil"])),
                ("external_ids", Datum::empty_map()),
                // Written by OVN, and not compared.
                ("up", Datum::from(true)),
            ]),
        ),
        Operation::update(
            "Port_Group",
            Condition::row(group),
            Row::from([("ports", Datum::empty())]),
        ),
    ]);
    assert_eq!(
        fixture.flush(),
        r#"transaction 1 of 1: 3 operations
  ~ Logical_Switch_Port p: addresses -"evil" +"a" external_ids +kube-ovn.io/source="Pod/ns/p port" +vendor="kube-ovn" name="q"->"p"
  + Port_Group g: ports p
"#
    );
    assert!(fixture.diff.is_empty());
    // The whole switch goes; it comes back with the same UUIDs.
    let switch = fixture.uuid("Logical_Switch", "s");
    fixture.commit(&[Operation::delete("Logical_Switch", Condition::row(switch))]);
    fixture.flush();
    assert_eq!(fixture.uuid("Logical_Switch_Port", "p"), port);
    assert_eq!(fixture.uuid("Logical_Switch", "s"), switch);
    assert!(fixture.diff.is_empty());
}

#[test]
fn brakes_hold_mass_deletes_and_keep_the_policies_of_what_stays() {
    let mut fixture = Fixture::with_basics();
    for i in 0..10 {
        let name: &'static str = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"][i];
        fixture.diff.set(name, port(name, "s", "a"));
    }
    fixture.flush();
    for i in ["p0", "p1", "p2", "p3", "p4", "p5"] {
        fixture.diff.remove(&i);
    }
    let braked = Options {
        brakes: Some(Brakes {
            rows: 5,
            percent: 50,
        }),
        ..Options::default()
    };
    let plan = fixture.diff.plan(&braked);
    assert!(plan.is_empty());
    assert_eq!(
        plan.to_string(),
        "held back:\n  ! 6 of 10 rows of Logical_Switch_Port would be deleted at once (the first is p0); this needs \
         consent\n"
    );
    let one_less = fixture.diff.plan(&Options {
        brakes: Some(Brakes {
            rows: 6,
            percent: 50,
        }),
        ..Options::default()
    });
    assert!(one_less.held.is_empty());
    let consent = fixture.diff.plan(&Options {
        brakes: None,
        ..Options::default()
    });
    for batch in &consent.batches {
        fixture.commit(&batch.ops);
    }
    assert_eq!(fixture.memory.rows("Logical_Switch_Port").len(), 4);
    assert!(fixture.diff.is_empty());
}

#[test]
fn nothing_is_removed_behind_the_barrier() {
    let mut fixture = Fixture::with_basics();
    fixture.diff.set("pod", port("p", "s", "a"));
    fixture.flush();
    fixture.diff.remove(&"pod");
    fixture.diff.set("new", port("q", "s", "b"));
    let plan = fixture.diff.plan(&Options {
        deletes: false,
        ..Options::default()
    });
    assert_eq!(
        plan.held,
        [Held::Barrier {
            rows: 1,
            elements: 2
        }]
    );
    assert_eq!(plan.batches[0].units(), BTreeSet::from(["new"]));
}

#[test]
fn parked_units_wait_and_so_does_what_needs_them() {
    let mut fixture = Fixture::new();
    fixture.diff.set("basics", basics());
    fixture.diff.set("pod", port("p", "s", "a"));
    let mut f = Fragment::new("Vpc/other");
    f.row(nb::LogicalRouter {
        name: "other".into(),
        ..Default::default()
    });
    fixture.diff.set("other", f);
    let plan = fixture.diff.plan(&Options {
        parked: BTreeSet::from(["basics"]),
        ..Options::default()
    });
    assert_eq!(plan.batches[0].units(), BTreeSet::from(["other"]));
    assert!(plan.held.contains(&Held::Parked { unit: "basics" }));
    assert!(plan.to_string().contains("! Logical_Switch_Port p of pod"));
}

#[test]
fn a_refused_batch_can_be_parted_down_to_the_unit() {
    let mut fixture = Fixture::with_basics();
    for unit in ["a", "b", "c"] {
        fixture.diff.set(unit, port(unit, "s", "a"));
    }
    let plan = fixture.plan();
    let batch = &plan.batches[0];
    let (first, second) = batch.halves().unwrap();
    assert_eq!((first.len(), second.len()), (1, 2));
    let only = fixture.diff.plan(&Options {
        only: Some(second.clone()),
        ..Options::default()
    });
    assert_eq!(only.batches[0].units(), second);
    // Each operation knows its unit.
    for (i, op) in batch.ops.iter().enumerate() {
        if let Operation::Insert { row, .. } = op {
            assert_eq!(
                batch.units_of(i).copied().collect::<Vec<_>>(),
                [row.str("name")]
            );
        }
    }
    let single = fixture.diff.plan(&Options {
        only: Some(BTreeSet::from(["a"])),
        ..Options::default()
    });
    assert_eq!(single.batches[0].halves(), None);
}

#[test]
fn batches_are_bounded_and_units_stay_whole() {
    let mut fixture = Fixture::new();
    fixture.diff.set("z-basics", basics());
    for unit in ["a", "b", "c", "d"] {
        fixture.diff.set(unit, port(unit, "s", "a"));
    }
    let plan = fixture.diff.plan(&Options {
        max_ops: 6,
        ..Options::default()
    });
    // What ports need comes first, whatever the names of the units are.
    let units: Vec<_> = plan.batches.iter().map(ovn::Batch::units).collect();
    assert_eq!(
        units,
        [
            BTreeSet::from(["a", "z-basics"]),
            BTreeSet::from(["b", "c"]),
            BTreeSet::from(["d"])
        ]
    );
    for batch in &plan.batches {
        assert!(batch.ops.len() <= 6);
        fixture.commit(&batch.ops);
    }
    assert!(fixture.diff.is_empty());
}

#[test]
fn a_claim_on_a_claimed_row_is_a_conflict_with_one_winner() {
    let mut fixture = Fixture::with_basics();
    fixture.diff.set("pod-b", port("p", "s", "b"));
    fixture.diff.set("pod-a", port("p", "s", "a"));
    let conflicts = fixture.diff.conflicts();
    assert_eq!(
        conflicts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["Logical_Switch_Port p is wanted by pod-a and pod-b; pod-a has it"]
    );
    let plan = fixture.flush();
    assert!(plan.contains(r#"addresses=["a"]"#), "{plan}");
    assert!(
        plan.contains("! Logical_Switch_Port p of pod-b: pod-a wants it too and has it"),
        "{plan}"
    );
    assert!(fixture.diff.is_clean(&"pod-a"));
    assert!(!fixture.diff.is_clean(&"pod-b"));
    // The loser takes over when the winner goes.
    fixture.diff.remove(&"pod-a");
    assert_eq!(fixture.diff.conflicts(), []);
    let plan = fixture.flush();
    assert!(plan.contains(r#"addresses -"a" +"b""#), "{plan}");
    assert!(fixture.diff.is_empty());
}

#[test]
fn entries_of_shared_maps_are_counted_and_replaced() {
    let mut fixture = Fixture::new();
    let mut f = Fragment::new("Vpc/v");
    let lb = f.row(nb::LoadBalancer {
        name: "lb".into(),
        ..Default::default()
    });
    fixture.diff.set("lb", f);
    let service = |backends: &str| {
        let mut f = Fragment::new("Service/ns/s");
        f.entry(&lb, nb::LoadBalancer::VIPS, "10.96.0.1:80", backends);
        f
    };
    fixture.diff.set("s1", service("10.0.0.1:80"));
    fixture.diff.set("s2", service("10.0.0.2:80"));
    assert_eq!(fixture.diff.conflicts().len(), 1);
    fixture.flush();
    let vips = |fixture: &Fixture| {
        let (_, row) = fixture.memory.find("Load_Balancer", "name", "lb").unwrap();
        row.map_str("vips", "10.96.0.1:80").map(str::to_owned)
    };
    assert_eq!(vips(&fixture).as_deref(), Some("10.0.0.1:80"));
    fixture.diff.remove(&"s1");
    let plan = fixture.plan();
    let uuid = fixture.uuid("Load_Balancer", "lb");
    assert_eq!(
        plan.batches[0].ops,
        [Operation::mutate(
            "Load_Balancer",
            Condition::row(uuid),
            vec![
                Mutation::delete_keys("vips", ["10.96.0.1:80"]),
                Mutation::insert("vips", Datum::map([("10.96.0.1:80", "10.0.0.2:80")])),
            ]
        )]
    );
    fixture.flush();
    fixture.diff.remove(&"s2");
    fixture.flush();
    assert_eq!(vips(&fixture), None);
    assert!(fixture.diff.is_empty());
}

#[test]
fn only_our_keys_of_shared_settings_are_touched() {
    let mut fixture = Fixture::new();
    let global = Uuid::from_u128(9);
    fixture.commit(&[Operation::insert(
        "NB_Global",
        global,
        Row::from([
            (
                "options",
                Datum::map([("mac_prefix", "aa:bb"), ("ic-route-adv", "true")]),
            ),
            (
                "external_ids",
                Datum::map([("kube-ovn.io/leader-epoch", "7")]),
            ),
        ]),
    )]);
    let mut f = Fragment::new("Global");
    f.row(nb::NbGlobal {
        options: ovn::map([("use_ct_inv_match", "false")]),
        ..Default::default()
    });
    fixture.diff.set("global", f);
    assert_eq!(
        fixture.flush(),
        "transaction 1 of 1: 1 operations\n  ~ NB_Global .: options -ic-route-adv +use_ct_inv_match=\"false\"\n"
    );
    assert!(fixture.diff.is_empty());
    let row = &fixture.memory.rows("NB_Global")[&global];
    assert_eq!(
        row.map_str("external_ids", "kube-ovn.io/leader-epoch"),
        Some("7")
    );
    assert_eq!(row.map_str("options", "mac_prefix"), Some("aa:bb"));
}

#[test]
fn an_older_ovn_gets_what_it_understands() {
    let mut fixture = Fixture::release("23.03");
    let mut schema_only: Diff<&str> = Diff::new(Database::Northbound, Identity::new(CLUSTER));
    let lines: Vec<_> = schema_only
        .support(&fixture.memory.schema)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(lines.contains(
        &"OVN_Northbound 7.0.0 has no column ACL.tier (since 7.11.0): rows that need it are not written".to_owned()
    ));
    assert!(lines.contains(
        &"OVN_Northbound 7.0.0 has no column DNS.options (since 7.11.0): rows are written without it".to_owned()
    ));
    let acl = |tier| {
        let mut f = basics();
        f.child(
            &nb::LogicalSwitch::named("s"),
            nb::LogicalSwitch::ACLS,
            nb::Acl {
                r#match: "ip".into(),
                tier,
                ..Default::default()
            },
        );
        f
    };
    fixture.diff.set("basics", acl(2));
    let plan = fixture.plan();
    assert_eq!(plan.held.len(), 1, "{plan}");
    assert!(
        plan.to_string()
            .contains("has no ACL.tier, without which it would mean something else")
    );
    fixture.diff.set("basics", acl(0));
    assert!(fixture.plan().held.is_empty());
    fixture.flush();
    assert!(fixture.diff.is_empty());
    // A table that this version does not have.
    let schema = &mut fixture.memory.schema;
    schema.tables.remove("Meter");
    let report = fixture.diff.support(schema);
    assert!(
        report
            .iter()
            .any(|m| m.to_string().contains("has no table Meter"))
    );
}

#[test]
fn a_unit_is_clean_when_the_database_holds_what_it_wants_and_nothing_it_wanted_before() {
    let mut fixture = Fixture::with_basics();
    assert!(fixture.diff.is_clean(&"pod"), "wants nothing");
    fixture.diff.set("pod", port("p", "s", "a"));
    assert!(!fixture.diff.is_clean(&"pod"));
    assert!(fixture.diff.is_clean(&"basics"));
    assert_eq!(fixture.diff.pending_units(), BTreeSet::from(["pod"]));
    fixture.flush();
    assert!(fixture.diff.is_clean(&"pod"));
    fixture.diff.remove(&"pod");
    assert!(
        !fixture.diff.is_clean(&"pod"),
        "its address is still in use"
    );
    assert_eq!(fixture.diff.pending_units(), BTreeSet::from(["pod"]));
    assert_eq!(
        fixture.flush(),
        "transaction 1 of 1: 2 operations\n  - Logical_Switch_Port p\n"
    );
    assert!(fixture.diff.is_clean(&"pod"));
    // Only a membership went.
    fixture.diff.set("pod", port("p", "s", "a"));
    fixture.flush();
    let mut f = port("p", "s", "a");
    f.members
        .retain(|m| m.column != nb::PortGroup::PORTS.column());
    fixture.diff.set("pod", f);
    assert!(!fixture.diff.is_clean(&"pod"));
    let plan = fixture.plan();
    assert_eq!(plan.batches[0].units(), BTreeSet::from(["pod"]));
    fixture.flush();
    assert!(fixture.diff.is_clean(&"pod"));
}

#[test]
fn a_switch_with_ports_of_others_is_not_deleted_under_them() {
    let mut fixture = Fixture::with_basics();
    let switch = fixture.uuid("Logical_Switch", "s");
    let theirs = Uuid::from_u128(5);
    fixture.commit(&[
        Operation::insert(
            "Logical_Switch_Port",
            theirs,
            Row::from([("name", Datum::from("theirs"))]),
        ),
        Operation::mutate(
            "Logical_Switch",
            Condition::row(switch),
            vec![Mutation::insert("ports", theirs)],
        ),
    ]);
    assert!(fixture.diff.is_empty(), "theirs to have, in a row of ours");
    fixture.diff.remove(&"basics");
    let plan = fixture.plan();
    assert_eq!(
        plan.held,
        [Held::Inhabited {
            key: Some(nb::LogicalSwitch::named("s").into_key()),
            uuid: switch,
            inhabitants: vec![theirs],
        }]
    );
    fixture.flush();
    assert!(
        fixture
            .memory
            .rows("Logical_Switch_Port")
            .contains_key(&theirs)
    );
    assert!(fixture.memory.find("Logical_Router", "name", "r").is_none());
}

#[test]
fn the_loser_of_a_row_does_not_say_where_it_belongs() {
    let mut fixture = Fixture::with_basics();
    let mut f = Fragment::new("Subnet/t");
    f.row(nb::LogicalSwitch {
        name: "t".into(),
        ..Default::default()
    });
    fixture.diff.set("t", f);
    fixture.flush();
    // First alone, then against a winner: the port moves to the winner's switch and leaves the loser's group.
    fixture.diff.set("pod-b", port("p", "s", "b"));
    fixture.flush();
    let mut winner = port("p", "t", "a");
    winner
        .members
        .retain(|m| m.column != nb::PortGroup::PORTS.column());
    fixture.diff.set("pod-a", winner);
    fixture.flush();
    let (port, _) = fixture
        .memory
        .find("Logical_Switch_Port", "name", "p")
        .unwrap();
    let ports = |table: &str, name: &str| {
        let (_, row) = fixture.memory.find(table, "name", name).unwrap();
        row.uuids("ports").collect::<Vec<_>>()
    };
    assert_eq!(ports("Logical_Switch", "t"), [port]);
    assert!(ports("Logical_Switch", "s").is_empty());
    assert!(ports("Port_Group", "g").is_empty());
    // And back when the winner goes.
    fixture.diff.remove(&"pod-a");
    fixture.flush();
    assert!(fixture.diff.is_empty());
    assert!(fixture.diff.is_clean(&"pod-b"));
    let (_, group) = fixture.memory.find("Port_Group", "name", "g").unwrap();
    assert_eq!(group.uuids("ports").count(), 1);
}
