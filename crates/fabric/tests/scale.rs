//! A change costs what it alters, however large the cluster is.
//!
//! Times are printed and not asserted; `cargo bench -p fabric` measures a release build against budgets.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "for tests alone")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use api::view::{PodKey, node_port_name};
use fabric::{Change, Config, PortLease, PortOwner, Unit, World, compile};
use net::{DualStack, Mac};
use testkit::objects::{namespace, node, pod, subnet};

const SUBNETS: usize = 20;

fn size(variable: &str, unset: usize) -> usize {
    std::env::var(variable).map_or(unset, |text| text.parse().unwrap())
}

fn v4(first: usize, rest: usize) -> DualStack<IpAddr> {
    let [_, b, c, d] = u32::try_from(rest).unwrap().to_be_bytes();
    let first = u8::try_from(first).unwrap();
    DualStack::from(IpAddr::V4(Ipv4Addr::new(first, b, c, d)))
}

fn cluster(pods: usize) -> Vec<Change> {
    let nodes = pods / 100;
    let mut changes = Vec::new();
    for n in 0..nodes {
        let name = format!("node-{n}");
        let addresses = v4(192, n + 1);
        let view = node(&name, &addresses.to_string()).view();
        changes.push(Change::Node(name.as_str().into(), Some(Box::new(view))));
        let port = node_port_name(&name);
        let lease = PortLease {
            subnet: "join".into(),
            addresses: "100.64.0.2".parse().unwrap(),
            mac: Mac::local_from(port.as_bytes()),
            owner: PortOwner::Node(name.into()),
        };
        changes.push(Change::Lease(port, Some(lease)));
    }
    changes.push(Change::Subnet(
        "join".into(),
        Some(Box::new(subnet("join", "100.64.0.0/16").build())),
    ));
    for s in 0..SUBNETS {
        let (name, space) = (format!("sub-{s}"), format!("ns-{s}"));
        let object = subnet(&name, &format!("10.{}.0.0/16", s + 20)).namespace(&space);
        changes.push(Change::Subnet(name.into(), Some(Box::new(object.build()))));
        let view = namespace(&space).view();
        changes.push(Change::Namespace(space.into(), Some(Box::new(view))));
    }
    for p in 0..pods {
        changes.extend(one_pod(p, nodes));
    }
    changes
}

fn one_pod(p: usize, nodes: usize) -> [Change; 2] {
    let s = p % SUBNETS;
    let key = PodKey::new(format!("ns-{s}"), format!("pod-{p}"));
    let view = pod(&key.to_string())
        .on(&format!("node-{}", p % nodes))
        .view();
    let port = key.port_name();
    let lease = PortLease {
        subnet: format!("sub-{s}").into(),
        addresses: v4(10, (s + 20) << 16 | (p / SUBNETS + 2)),
        mac: Mac::local_from(port.as_bytes()),
        owner: PortOwner::Pod(key.clone()),
    };
    [
        Change::Pod(key, Some(Box::new(view))),
        Change::Lease(port, Some(lease)),
    ]
}

#[test]
fn a_change_costs_what_it_alters() {
    let pods = size("FABRIC_PODS", 20_000);
    let changes = cluster(pods);

    let start = Instant::now();
    let mut world = World::new(Config::default());
    world.apply_all(changes);
    world.settle();
    println!("{pods} pods taken in: {:?}", start.elapsed());

    let start = Instant::now();
    let units = world.units();
    let rows: usize = units
        .iter()
        .map(|unit| compile(unit, &world).fragment.rows.len())
        .sum();
    println!(
        "{} units compiled to {rows} rows: {:?}",
        units.len(),
        start.elapsed()
    );
    assert!(rows > pods);

    // A pod alters its own port alone.
    let start = Instant::now();
    let [pod, lease] = one_pod(pods, pods / 100);
    let dirty = world.apply_all([pod, lease]);
    assert_eq!(dirty.len(), 1, "{dirty:?}");
    for unit in &dirty {
        assert_eq!(
            compile(unit, &world).fragment.members.len(),
            3,
            "switch and two groups"
        );
    }
    println!("one more pod: {:?}", start.elapsed());

    // A node alters its own units and the ports of its own pods.
    let start = Instant::now();
    let dirty = world.apply_all([Change::Node("node-0".into(), None)]);
    let of_node = |unit: &&Unit| match unit {
        Unit::Node(node) | Unit::Gateway { node, .. } => node == "node-0",
        Unit::Port(_) => true,
        _ => false,
    };
    let strangers: BTreeSet<&Unit> = dirty.iter().filter(|unit| !of_node(unit)).collect();
    assert_eq!(strangers, BTreeSet::new());
    assert!(dirty.len() <= 2 + SUBNETS + 101, "{}", dirty.len());
    println!("a node gone ({} units): {:?}", dirty.len(), start.elapsed());

    // A namespace without wishes alters itself.
    let start = Instant::now();
    let view = namespace("one-more").view();
    let dirty = world.apply(Change::Namespace("one-more".into(), Some(Box::new(view))));
    assert_eq!(dirty, [Unit::Namespace("one-more".into())]);
    println!("one more namespace: {:?}", start.elapsed());

    // A Subnet's exclusions alter the Subnet and what its namespaces are told, not its ports.
    let start = Instant::now();
    let object = subnet("sub-0", "10.20.0.0/16")
        .namespace("ns-0")
        .exclude("10.20.0.1..10.20.0.9");
    let dirty = world.apply(Change::Subnet(
        "sub-0".into(),
        Some(Box::new(object.build())),
    ));
    assert!(
        dirty.iter().all(|unit| !matches!(unit, Unit::Port(_))),
        "{dirty:?}"
    );
    println!(
        "a Subnet's exclusions ({} units): {:?}",
        dirty.len(),
        start.elapsed()
    );
}

/// Each Subnet settles before the next one comes, and alters only what has to do with it.
#[test]
fn subnets_come_one_by_one() {
    let subnets = size("FABRIC_SUBNETS", 200);
    let mut world = World::new(Config::default());
    for n in 0..200 {
        let view = namespace(&format!("ns-{n}")).view();
        world.apply(Change::Namespace(view.name.clone(), Some(Box::new(view))));
    }
    let mut last = Instant::now();
    for s in 0..subnets {
        let (name, space) = (format!("sub-{s}"), format!("ns-{}", s % 200));
        let object =
            subnet(&name, &format!("10.{}.{}.0/24", 128 + s / 250, s % 250)).namespace(&space);
        let mut dirty = world.apply(Change::Subnet(name.into(), Some(Box::new(object.build()))));
        dirty.extend(world.settle());
        assert!(dirty.len() <= 6, "{dirty:?}");
        if s % 100 == 99 {
            println!("Subnets {} to {s}: {:?}", s - 99, last.elapsed());
            last = Instant::now();
        }
    }
    assert_eq!(world.subnets().count(), subnets);
}
