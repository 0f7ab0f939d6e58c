//! What plans look like, case by case.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use std::collections::BTreeSet;

use ovn::{Database, Diff, Fragment, Identity, Options, nb};
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use support::fixture::{CLUSTER, Fixture, basics, port};

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
fn a_row_is_deleted_after_the_row_that_refers_to_it() {
    let mut fixture = Fixture::new();
    let mut f = Fragment::new("Service/a");
    let group = f.row(nb::LoadBalancerGroup { name: "lbg".into() });
    fixture.diff.set("a-group", f);
    let mut f = Fragment::new("Subnet/z");
    let switch = f.row(nb::LogicalSwitch {
        name: "z".into(),
        ..Default::default()
    });
    f.member(&switch, nb::LogicalSwitch::LOAD_BALANCER_GROUP, &group);
    fixture.diff.set("z-switch", f);
    fixture.flush();
    fixture.diff.remove(&"a-group");
    fixture.diff.remove(&"z-switch");
    let plan = fixture.diff.plan(&Options {
        max_ops: 1,
        ..Options::default()
    });
    assert_eq!(
        plan.to_string(),
        "transaction 1 of 2: 1 operations\n  - Logical_Switch z\n\
         transaction 2 of 2: 1 operations\n  - Load_Balancer_Group lbg\n"
    );
    for batch in &plan.batches {
        fixture.commit(&batch.ops);
    }
    assert!(fixture.diff.is_empty());
}
