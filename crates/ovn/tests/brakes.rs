//! What a plan holds back: brakes, the barrier, parked units; and how a refused batch is parted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use ovn::plan::Held;
use ovn::{Brakes, Fragment, Options, nb};
use ovsdb::wire::Operation;
use smol_str::SmolStr;
use support::fixture::{Fixture, basics, port};

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
fn brakes_hold_a_mass_removal_of_members_from_rows_that_stay() {
    let names = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"];
    let selects = |ports: &[&str], addresses: u8| {
        let mut f = Fragment::new("NetworkPolicy/ns/np");
        let set = f.row(nb::AddressSet {
            name: "as".into(),
            ..Default::default()
        });
        for address in 0..addresses {
            f.member(&set, nb::AddressSet::ADDRESSES, format!("10.0.0.{address}"));
        }
        for port in ports {
            let port = nb::LogicalSwitchPort::named(*port);
            f.member(&nb::PortGroup::named("g"), nb::PortGroup::PORTS, port);
        }
        f
    };
    let mut fixture = Fixture::with_basics();
    for name in names {
        let mut f = port(name, "s", "a");
        f.members
            .retain(|m| m.column != nb::PortGroup::PORTS.column());
        fixture.diff.set(name, f);
    }
    fixture.diff.set("policy", selects(&names, 12));
    fixture.flush();
    let braked = Options {
        brakes: Some(Brakes {
            rows: 5,
            percent: 50,
        }),
        ..Options::default()
    };
    // A few may go, also if that is all of them; and many, if more remain.
    fixture.diff.set("policy", selects(&names[5..], 12));
    assert!(fixture.diff.plan(&braked).held.is_empty());
    fixture.diff.set("policy", selects(&names, 6));
    assert!(fixture.diff.plan(&braked).held.is_empty());
    fixture.diff.set("policy", selects(&names[6..], 5));
    let plan = fixture.diff.plan(&braked);
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(
        plan.to_string(),
        "held back:\n  \
         ! 7 of 12 elements of Address_Set.addresses would be removed at once (the first from as); this needs consent\n  \
         ! 6 of 10 elements of Port_Group.ports would be removed at once (the first from g); this needs consent\n"
    );
    assert!(!fixture.diff.is_clean(&"policy"));
    // What goes with its row is for the row's brake.
    fixture.diff.set("policy", selects(&names, 12));
    for name in &names[..5] {
        fixture.diff.remove(name);
    }
    fixture.diff.set("policy", selects(&names[5..], 12));
    assert!(fixture.diff.plan(&braked).held.is_empty());
    fixture.diff.set("policy", selects(&[], 0));
    let consent = fixture.diff.plan(&Options {
        brakes: None,
        ..Options::default()
    });
    assert!(consent.held.is_empty());
    for batch in &consent.batches {
        fixture.commit(&batch.ops);
    }
    assert!(fixture.diff.is_empty());
    let (_, group) = fixture.memory.find("Port_Group", "name", "g").unwrap();
    assert_eq!(group.uuids("ports").count(), 0);
}

#[test]
fn a_row_that_moves_is_no_loss() {
    let mut fixture = Fixture::with_basics();
    let mut f = Fragment::new("Subnet/t");
    f.row(nb::LogicalSwitch {
        name: "t".into(),
        ..Default::default()
    });
    fixture.diff.set("t", f);
    for switch in ["s", "t"] {
        for name in ["a", "b", "c"] {
            fixture.diff.set(name, port(name, switch, "a"));
        }
        let plan = fixture.diff.plan(&Options {
            brakes: Some(Brakes {
                rows: 0,
                percent: 0,
            }),
            ..Options::default()
        });
        assert!(plan.held.is_empty(), "{plan}");
        for batch in &plan.batches {
            fixture.commit(&batch.ops);
        }
    }
    assert!(fixture.diff.is_empty());
}

#[test]
fn what_a_user_deleted_is_not_counted() {
    let names = ["p0", "p1", "p2", "p3", "p4", "p5"];
    let mut fixture = Fixture::with_basics();
    for name in names {
        fixture.diff.set(name, port(name, "s", "a"));
    }
    fixture.flush();
    for name in names {
        fixture.diff.remove(&name);
    }
    let told = |objects: &[&str], units: &[&'static str]| Options {
        brakes: Some(Brakes {
            rows: 3,
            percent: 30,
        }),
        told: Arc::new(objects.iter().map(|o| SmolStr::new(*o)).collect()),
        told_units: units.iter().copied().collect(),
        ..Options::default()
    };
    let plan = fixture
        .diff
        .plan(&told(&["Pod/ns/p0", "Pod/ns/p9"], &["p1"]));
    assert_eq!(plan.batches[0].units(), BTreeSet::from(["p0", "p1"]));
    assert!(
        plan.to_string()
            .contains("4 of 6 rows of Logical_Switch_Port"),
        "{plan}"
    );
    let plan = fixture
        .diff
        .plan(&told(&["Pod/ns/p0", "Pod/ns/p2"], &["p1"]));
    assert!(plan.held.is_empty(), "three are few: {plan}");
}

#[test]
fn strangers_stay_while_it_is_in_doubt_what_they_were_for() {
    let mut fixture = Fixture::with_basics();
    for name in ["p0", "p1", "p2"] {
        fixture.diff.set(name, port(name, "s", "a"));
    }
    fixture.flush();
    // Another process finds these rows, and wants one of them for a moment.
    let mut found = Fixture::new();
    found.memory = fixture.memory;
    let rows: Vec<_> = found
        .memory
        .all()
        .map(|(table, uuid, row)| ovsdb::RowDelta {
            table: table.into(),
            uuid,
            old: None,
            new: Some(Arc::new(row.clone())),
        })
        .collect();
    found.diff.apply(&rows);
    found.diff.set("basics", basics());
    found.diff.set("p1", port("p1", "s", "a"));
    found.diff.remove(&"p1");
    let objects = found.diff.surplus_objects();
    let known: Vec<_> = objects
        .iter()
        .map(|(o, known)| (o.as_str(), *known))
        .collect();
    assert_eq!(
        known,
        [
            ("Pod/ns/p0", false),
            ("Pod/ns/p1", true),
            ("Pod/ns/p2", false)
        ]
    );
    let doubt = Options {
        strangers: false,
        told: Arc::new(BTreeSet::from(["Pod/ns/p2".into()])),
        ..Options::default()
    };
    let plan = found.diff.plan(&doubt);
    for batch in &plan.batches {
        found.commit(&batch.ops);
    }
    let ports = found.memory.rows("Logical_Switch_Port").values();
    let names: Vec<_> = ports.map(|row| row.str("name")).collect();
    assert_eq!(names, ["p0"], "{plan}");
    found.flush();
    assert!(found.memory.rows("Logical_Switch_Port").is_empty());
}
