//! What the World costs at a hundred thousand pods and a thousand Subnets: `cargo bench -p fabric`.
//!
//! Times are of the processor, so that they mean the same on a busy machine. Budgets are those of a controller that
//! starts on a large cluster; a figure over its budget ends with an error.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints figures"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use api::view::{PodKey, node_port_name};
use fabric::{Change, Config, PortLease, PortOwner, Unit, World, compile};
use net::{DualStack, Mac};
use testkit::objects::{namespace, node, pod, subnet};

const PODS: u32 = 100_000;
const NODES: u32 = 1_000;
const SUBNETS: u32 = 20;
/// Of the second part, where Subnets and namespaces come one by one.
const MANY: u32 = 1_000;

/// What this thread has had of the processor so far (Linux, Documentation/scheduler/sched-stats.rst).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Prints a figure; whether it is within its budget.
fn figure(what: &str, budget: Duration, work: impl FnOnce() -> String) -> bool {
    let start = processor_time();
    let result = work();
    let took = processor_time().saturating_sub(start);
    let verdict = if took <= budget { "" } else { "  OVER BUDGET" };
    println!("{what:<52} {took:>12.3?}  (budget {budget:?}) {result}{verdict}");
    took <= budget
}

fn v4(bits: u32) -> DualStack<IpAddr> {
    DualStack::from(IpAddr::V4(Ipv4Addr::from(bits)))
}

fn lease(subnet: &str, addresses: DualStack<IpAddr>, port: &str, owner: PortOwner) -> Change {
    let lease = PortLease {
        subnet: subnet.into(),
        addresses,
        mac: Mac::local_from(port.as_bytes()),
        owner,
    };
    Change::Lease(port.into(), Some(lease))
}

fn put_subnet(name: &str, cidr: &str, namespace: Option<&str>) -> Change {
    let mut builder = subnet(name, cidr);
    if let Some(namespace) = namespace {
        builder = builder.namespace(namespace);
    }
    Change::Subnet(name.into(), Some(Box::new(builder.build())))
}

fn one_pod(n: u32) -> [Change; 2] {
    let s = n % SUBNETS;
    let key = PodKey::new(format!("ns-{s}"), format!("pod-{n}"));
    let view = pod(&key.to_string())
        .on(&format!("node-{}", n % NODES))
        .view();
    let address = v4(10 << 24 | (s + 20) << 16 | (n / SUBNETS + 2));
    let lease = lease(
        &format!("sub-{s}"),
        address,
        &key.port_name(),
        PortOwner::Pod(key.clone()),
    );
    [Change::Pod(key, Some(Box::new(view))), lease]
}

fn cluster() -> Vec<Change> {
    let mut changes = vec![put_subnet("join", "100.64.0.0/16", None)];
    for n in 0..NODES {
        let name = format!("node-{n}");
        let view = node(&name, &v4(192 << 24 | (n + 1)).to_string()).view();
        changes.push(Change::Node(name.as_str().into(), Some(Box::new(view))));
        let port = node_port_name(&name);
        let address = v4(100 << 24 | 64 << 16 | (n + 2));
        changes.push(lease("join", address, &port, PortOwner::Node(name.into())));
    }
    for s in 0..SUBNETS {
        let (name, space) = (format!("sub-{s}"), format!("ns-{s}"));
        changes.push(put_subnet(
            &name,
            &format!("10.{}.0.0/16", s + 20),
            Some(&space),
        ));
        let view = namespace(&space).view();
        changes.push(Change::Namespace(space.into(), Some(Box::new(view))));
    }
    changes.extend((0..PODS).flat_map(one_pod));
    changes
}

fn main() {
    let mut good = true;
    let mut check = |what: &str, budget_ms: u64, work: &mut dyn FnMut() -> String| {
        good &= figure(what, Duration::from_millis(budget_ms), work);
    };
    let mut changes = cluster();
    let mut world = World::new(Config::default());
    check(
        "100 000 pods, 1000 nodes taken in at once",
        1_000,
        &mut || {
            world.apply_all(std::mem::take(&mut changes));
            world.settle();
            String::new()
        },
    );
    let units = world.units();
    let ports: Vec<&Unit> = units
        .iter()
        .filter(|unit| matches!(unit, Unit::Port(_)))
        .collect();
    check("their ports compiled", 500, &mut || {
        let rows: usize = ports
            .iter()
            .map(|unit| compile(unit, &world).fragment.rows.len())
            .sum();
        assert_eq!(rows, PODS as usize);
        format!("{rows} rows")
    });
    check("everything compiled", 1_000, &mut || {
        let rows: usize = units
            .iter()
            .map(|unit| compile(unit, &world).fragment.rows.len())
            .sum();
        format!("{rows} rows")
    });
    check("one more pod, compiled", 1, &mut || {
        let dirty = world.apply_all(one_pod(PODS));
        assert_eq!(dirty.len(), 1);
        for unit in &dirty {
            compile(unit, &world);
        }
        String::new()
    });

    let mut world = World::new(Config::default());
    check(
        "1000 Subnets, each settled before the next",
        10_000,
        &mut || {
            for n in 0..MANY {
                let cidr = format!("10.{}.{}.0/24", 128 + n / 250, n % 250);
                world.apply(put_subnet(&format!("sub-{n}"), &cidr, None));
                world.settle();
            }
            assert_eq!(world.subnets().count(), MANY as usize);
            String::new()
        },
    );
    check(
        "1000 namespaces that name one of them, one by one",
        20_000,
        &mut || {
            for n in 0..MANY {
                let name = format!("ns-{n}");
                let view = namespace(&name).annotate("logical_switch", "sub-0").view();
                world.apply(Change::Namespace(name.into(), Some(Box::new(view))));
                world.settle();
            }
            String::new()
        },
    );
    if !good {
        std::process::exit(1);
    }
}
