//! What 20 000 ports cost in memory (200 MiB for 100 000), and that one more costs nothing that grows with them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unsafe_code,
    reason = "for tests alone; counting memory needs an allocator"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ovn::{Database, Diff, Fragment, Identity, Options, nb};
use ovsdb::RowDelta;
use ovsdb::wire::{Atom, Datum, Operation, Row};
use smol_str::SmolStr;
use uuid::Uuid;

struct Counting;

static HEAP: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HEAP.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn mebibytes() -> usize {
    HEAP.load(Ordering::Relaxed) >> 20
}

const PORTS: usize = 20_000;
/// MiB for what units want, and together with the replica's rows.
const LIMIT_DESIRED: usize = 40;
const LIMIT_ALL: usize = 60;
const SWITCHES: usize = 20;
const NODES: usize = 200;

fn basics() -> Fragment {
    let mut f = Fragment::new("Cluster/all");
    for i in 0..SWITCHES {
        f.row(nb::LogicalSwitch {
            name: format!("subnet-{i}").into(),
            ..Default::default()
        });
    }
    for i in 0..NODES {
        f.row(nb::PortGroup {
            name: format!("node.{i}").into(),
            ..Default::default()
        });
    }
    f
}

fn port(i: usize) -> (SmolStr, Fragment) {
    let (name, namespace) = (
        format!("web-7d4b9c8f6d-{i:05}"),
        format!("team-{}", i % 100),
    );
    let mut f = Fragment::new(format!("Pod/{namespace}/{name}"));
    let address = format!(
        "00:00:00:{:02x}:{:02x}:{:02x} 10.{}.{}.{}",
        i >> 16,
        (i >> 8) & 255,
        i & 255,
        16 + (i >> 16),
        (i >> 8) & 255,
        i & 255
    );
    let lsp = f.rule("port").child(
        &nb::LogicalSwitch::named(format!("subnet-{}", i % SWITCHES)),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: format!("{name}.{namespace}").into(),
            addresses: ovn::set([address]),
            external_ids: ovn::map([
                ("pod", format!("{namespace}/{name}")),
                ("ls", format!("subnet-{}", i % SWITCHES)),
            ]),
            ..Default::default()
        },
    );
    f.member(
        &nb::PortGroup::named(format!("node.{}", i % NODES)),
        nb::PortGroup::PORTS,
        &lsp,
    );
    (format!("port/{namespace}/{name}").into(), f)
}

/// The rows that a plan which only inserts leaves, as one event.
fn committed(ops: impl Iterator<Item = Operation>) -> Vec<RowDelta> {
    let mut rows: BTreeMap<Uuid, (SmolStr, Row)> = BTreeMap::new();
    let mut sets: BTreeMap<(Uuid, SmolStr), Vec<Atom>> = BTreeMap::new();
    for op in ops {
        match op {
            Operation::Insert {
                table, row, uuid, ..
            } => {
                rows.insert(uuid.unwrap(), (table, row));
            }
            Operation::Mutate {
                conditions,
                mutations,
                ..
            } => {
                let [ovsdb::wire::Condition::Clause { value, .. }] = conditions.as_slice() else {
                    panic!("{conditions:?}");
                };
                let uuid = value.single().and_then(Atom::as_uuid).unwrap();
                for mutation in mutations {
                    let set = sets.entry((uuid, mutation.column)).or_default();
                    set.extend(mutation.value.atoms().iter().cloned());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    for ((uuid, column), atoms) in sets {
        rows.get_mut(&uuid)
            .unwrap()
            .1
            .insert(column, Datum::set(atoms));
    }
    rows.into_iter()
        .map(|(uuid, (table, row))| RowDelta {
            table,
            uuid,
            old: None,
            new: Some(Arc::new(row)),
        })
        .collect()
}

#[test]
fn many_ports_fit_and_one_more_is_cheap() {
    let mut diff: Diff<SmolStr> =
        Diff::new(Database::Northbound, Identity::new(Uuid::from_u128(1)));
    let start = mebibytes();
    let clock = Instant::now();
    diff.set("cluster".into(), basics());
    for i in 0..PORTS {
        let (unit, fragment) = port(i);
        diff.set(unit, fragment);
    }
    let desired = mebibytes() - start;
    eprintln!("desired: {desired} MiB, {:?}", clock.elapsed());
    let clock = Instant::now();
    let plan = diff.plan(&Options::default());
    assert!(plan.held.is_empty());
    assert_eq!(plan.ops(), SWITCHES + NODES + 3 * PORTS);
    eprintln!(
        "plan of everything: {} batches, {:?}",
        plan.batches.len(),
        clock.elapsed()
    );
    let deltas = committed(plan.batches.into_iter().flat_map(|batch| batch.ops));
    let replica = mebibytes() - start;
    let clock = Instant::now();
    diff.apply(&deltas);
    assert!(diff.is_empty());
    drop(deltas);
    let all = mebibytes() - start;
    eprintln!(
        "with the replica's rows: {all} MiB (before: {replica}), {:?}",
        clock.elapsed()
    );
    // More ports on a full cluster. The best of some: the first may make a table grow, and the machine is shared.
    let mut best = Duration::MAX;
    for i in 0..5 {
        let clock = Instant::now();
        let (unit, fragment) = port(PORTS + i);
        diff.set(unit.clone(), fragment);
        let plan = diff.plan(&Options::default());
        best = best.min(clock.elapsed());
        assert_eq!(plan.ops(), 3);
        assert!(!diff.is_clean(&unit));
        diff.remove(&unit);
        assert!(diff.plan(&Options::default()).is_empty());
    }
    eprintln!("one more: {best:?}");
    assert!(best < Duration::from_millis(5), "{best:?}");
    assert!(desired < LIMIT_DESIRED, "{desired} MiB for what is wanted");
    assert!(all < LIMIT_ALL, "{all} MiB with the replica");
}
