//! Whose a row is, and who gets it: adoption, rows of others, drift, conflicts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use ovn::model::TableRow as _;
use ovn::plan::Held;
use ovn::{Fragment, Identity, Owner, Ref, nb};
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row};
use support::fixture::{Fixture, basics, port};
use uuid::Uuid;

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

#[test]
fn references_to_rows_of_others_stay_in_rows_of_ours() {
    let mut fixture = Fixture::with_basics();
    let switch = fixture.uuid("Logical_Switch", "s");
    let row =
        |name: &str, ids: Datum| Row::from([("name", Datum::from(name)), ("external_ids", ids)]);
    let (go, theirs, stale) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let vendor = Datum::map([("vendor", "kube-ovn")]);
    let ours = Datum::map([("kube-ovn.io/source", "Service/ns/gone")]);
    fixture.commit(&[
        Operation::insert("Load_Balancer", go, row("go", vendor)),
        Operation::insert("Load_Balancer", theirs, row("theirs", Datum::empty_map())),
        Operation::insert("Load_Balancer", stale, row("stale", ours)),
        Operation::mutate(
            "Logical_Switch",
            Condition::row(switch),
            vec![Mutation::insert(
                "load_balancer",
                Datum::set([go, theirs, stale]),
            )],
        ),
    ]);
    fixture.flush();
    assert!(fixture.diff.is_empty());
    let balancers = |fixture: &Fixture| -> Vec<Uuid> {
        let row = &fixture.memory.rows("Logical_Switch")[&switch];
        row.uuids("load_balancer").collect()
    };
    assert_eq!(
        balancers(&fixture),
        [go, theirs],
        "ours, which nobody wants, went"
    );
    // A unit adopts one: from then on it is ours to place.
    let mut f = Fragment::new("Service/ns/s");
    let lb = f.row(nb::LoadBalancer {
        name: "go".into(),
        ..Default::default()
    });
    let placed = f.clone();
    f.member(
        &nb::LogicalSwitch::named("s"),
        nb::LogicalSwitch::LOAD_BALANCER,
        &lb,
    );
    fixture.diff.set("service", f);
    fixture.flush();
    assert_eq!(balancers(&fixture), [go, theirs]);
    fixture.diff.set("service", placed);
    fixture.flush();
    assert_eq!(balancers(&fixture), [theirs]);
    assert!(fixture.diff.is_empty());
}

#[test]
fn nothing_is_put_into_a_row_that_nobody_of_ours_states() {
    let mut fixture = Fixture::with_basics();
    let row =
        |name: &str, ids: Datum| Row::from([("name", Datum::from(name)), ("external_ids", ids)]);
    let vendor = Datum::map([("vendor", "kube-ovn")]);
    fixture.commit(&[
        Operation::insert(
            "Logical_Switch",
            Uuid::from_u128(1),
            row("go", vendor.clone()),
        ),
        Operation::insert("Port_Group", Uuid::from_u128(2), row("go", vendor)),
        Operation::insert(
            "Port_Group",
            Uuid::from_u128(3),
            row("theirs", Datum::empty_map()),
        ),
    ]);
    fixture.diff.set("into", port("q", "go", "a"));
    let mut f = port("p", "s", "a");
    for group in ["go", "theirs"] {
        let port = nb::LogicalSwitchPort::named("p");
        f.member(&nb::PortGroup::named(group), nb::PortGroup::PORTS, port);
    }
    fixture.diff.set("pod", f);
    let plan = fixture.flush();
    assert!(plan.contains("! Logical_Switch_Port q of into"), "{plan}");
    for group in ["go", "theirs"] {
        let held = format!("! Port_Group {group} ports: p of pod");
        assert!(plan.contains(&held), "{plan}");
        let (_, row) = fixture.memory.find("Port_Group", "name", group).unwrap();
        assert_eq!(row.uuids("ports").count(), 0);
    }
    assert!(
        fixture
            .memory
            .find("Logical_Switch_Port", "name", "p")
            .is_some()
    );
    assert!(
        fixture
            .memory
            .find("Logical_Switch_Port", "name", "q")
            .is_none()
    );
    assert!(!fixture.diff.is_clean(&"pod"));
}

#[test]
fn a_renamed_row_does_not_take_its_name_back_from_another() {
    let mut fixture = Fixture::with_basics();
    let group = fixture.uuid("Port_Group", "g");
    let named = |name: &str| Row::from([("name", Datum::from(name))]);
    let other = Uuid::from_u128(7);
    fixture.commit(&[
        Operation::update("Port_Group", Condition::row(group), named("old")),
        Operation::insert("Port_Group", other, named("g")),
    ]);
    let plan = fixture.flush();
    assert_eq!(
        plan,
        format!(
            "held back:\n  ! Port_Group g of basics: another row has this name ({other}); remove or rename it\n"
        )
    );
    fixture.commit(&[Operation::delete("Port_Group", Condition::row(other))]);
    fixture.flush();
    assert_eq!(fixture.uuid("Port_Group", "g"), group);
    assert!(fixture.diff.is_empty());
}

#[test]
fn who_refers_to_a_row_is_right_when_the_row_gets_its_name() {
    let mut fixture = Fixture::with_basics();
    fixture.diff.set("pod", port("p", "s", "a"));
    fixture.flush();
    // DHCP options of the Go implementation, on our port, without what names them.
    let (options, port) = (Uuid::from_u128(7), fixture.uuid("Logical_Switch_Port", "p"));
    let ids =
        |switch: &str| Datum::map([("vendor", "kube-ovn"), ("ls", switch), ("protocol", "IPv4")]);
    let row = |switch: &str| Row::from([("external_ids", ids(switch))]);
    fixture.commit(&[
        Operation::insert(
            "DHCP_Options",
            options,
            Row::new().with("external_ids", Datum::map([("vendor", "kube-ovn")])),
        ),
        Operation::update(
            "Logical_Switch_Port",
            Condition::row(port),
            Row::new().with("dhcpv4_options", options),
        ),
    ]);
    let mut f = support::fixture::port("p", "s", "a");
    let (_, row_of_port) = &mut f.rows[0];
    *row_of_port = nb::LogicalSwitchPort {
        name: "p".into(),
        addresses: ovn::set(["a"]),
        dhcpv4_options: Some(Ref::new("s - IPv4")),
        external_ids: ovn::map([
            ("vendor", "kube-ovn"),
            ("kube-ovn.io/source", "Pod/ns/p port"),
        ]),
        ..Default::default()
    }
    .into_row();
    fixture.diff.set("pod", f);
    assert!(!fixture.diff.is_clean(&"pod"));
    fixture.commit(&[Operation::update(
        "DHCP_Options",
        Condition::row(options),
        row("s"),
    )]);
    assert!(fixture.diff.is_clean(&"pod"), "{}", fixture.plan());
    assert_eq!(fixture.diff.audit(), Vec::<String>::new());
}

#[test]
fn what_a_row_contains_is_named_after_it() {
    let mut fixture = Fixture::new();
    let (switch, acl) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let vendor = || Datum::map([("vendor", "kube-ovn")]);
    let named = |name: &str| Row::from([("name", Datum::from(name))]);
    fixture.commit(&[
        Operation::insert(
            "ACL",
            acl,
            Row::new()
                .with("direction", "to-lport")
                .with("priority", 7_i64)
                .with("match", "ip")
                .with("action", "drop")
                .with("external_ids", vendor()),
        ),
        Operation::insert(
            "Logical_Switch",
            switch,
            named("old")
                .with("external_ids", vendor())
                .with("acls", acl),
        ),
    ]);
    let key = |fixture: &Fixture| {
        let rows = fixture.diff.rows();
        let (key, ..) = rows.iter().find(|(_, uuid, _)| *uuid == acl).unwrap();
        key.to_string()
    };
    assert_eq!(key(&fixture), "ACL old to-lport 7 ip");
    fixture.commit(&[Operation::update(
        "Logical_Switch",
        Condition::row(switch),
        named("s"),
    )]);
    assert_eq!(key(&fixture), "ACL s to-lport 7 ip");
    // Both are adopted, none is made twice.
    let mut f = basics();
    f.child(
        &nb::LogicalSwitch::named("s"),
        nb::LogicalSwitch::ACLS,
        nb::Acl {
            priority: 7,
            r#match: "ip".into(),
            ..Default::default()
        },
    );
    fixture.diff.set("basics", f);
    fixture.flush();
    assert!(fixture.diff.is_empty());
    let acls: Vec<_> = fixture.memory.rows("ACL").keys().copied().collect();
    assert_eq!(acls, [acl]);
}
