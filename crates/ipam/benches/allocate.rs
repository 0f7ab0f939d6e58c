//! What the allocator costs at the sizes of large clusters.
//!
//! `cargo bench -p ipam` takes about half a minute once it is built. One iteration of `churn` is one allocation and one release.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipam::{Claim, Ipam, PortName, Record, Request, SubnetPool};
use net::parse_ranges;

fn pool(cidrs: &str, excludes: &str) -> SubnetPool {
    SubnetPool {
        cidrs: cidrs.parse().unwrap(),
        excludes: parse_ranges(excludes).unwrap(),
        ..SubnetPool::default()
    }
}

fn names(count: usize) -> Vec<PortName> {
    (0..count)
        .map(|n| format!("web-{n}.default").into())
        .collect()
}

/// A million addresses, half of them in use with a hole after each: the worst fragmentation.
fn fragmented(names: &[PortName]) -> Ipam {
    let mut ipam = Ipam::new("bench");
    ipam.set_subnet("large", pool("10.0.0.0/12", ""));
    for name in names {
        ipam.allocate("large", name.clone(), &Request::any())
            .unwrap();
    }
    for name in names.iter().step_by(2) {
        ipam.release(name);
    }
    ipam
}

fn large_subnet(c: &mut Criterion) {
    let names = names((1 << 20) - 2);
    let mut ipam = fragmented(&names);
    let mut group = c.benchmark_group("1M addresses, 500k leases, 500k holes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("churn", |b| {
        b.iter(|| {
            let lease = ipam.allocate("large", "new.default", &Request::any());
            black_box(lease.unwrap());
            ipam.release("new.default")
        });
    });
    group.bench_function("ask again", |b| {
        b.iter(|| ipam.allocate("large", names[1].clone(), &Request::any()));
    });
    group.bench_function("counters", |b| b.iter(|| ipam.counters("large")));
    group.sample_size(10);
    let mut wide = false;
    group.bench_function("change of exclusions", |b| {
        b.iter(|| {
            wide = !wide;
            let excludes = if wide { "10.0.0.1..10.3.0.0" } else { "" };
            ipam.set_subnet("large", pool("10.0.0.0/12", excludes))
        });
    });
    group.finish();
}

fn many_subnets(c: &mut Criterion) {
    let mut ipam = Ipam::new("bench");
    let subnets = names(1000);
    for (n, subnet) in subnets.iter().enumerate() {
        let cidrs = format!("10.{}.{}.0/24,fd00:{n:x}::/64", n / 256, n % 256);
        ipam.set_subnet(subnet.clone(), pool(&cidrs, ""));
    }
    let owners = names(100_000);
    for (n, owner) in owners.iter().enumerate() {
        ipam.allocate(subnets[n % 1000].clone(), owner.clone(), &Request::any())
            .unwrap();
    }
    let mut group = c.benchmark_group("1000 dual-stack subnets, 100k leases");
    group.throughput(Throughput::Elements(1));
    let mut next = 0;
    group.bench_function("churn", |b| {
        b.iter(|| {
            next = (next + 1) % 1000;
            let lease = ipam.allocate(subnets[next].clone(), "new.default", &Request::any());
            black_box(lease.unwrap());
            ipam.release("new.default")
        });
    });
    group.finish();
}

fn bulk(c: &mut Criterion) {
    let names = names(65_534);
    let empty = || {
        let mut ipam = Ipam::new("bench");
        ipam.set_subnet("default", pool("10.16.0.0/16", ""));
        ipam
    };
    let fill = |mut ipam: Ipam| {
        for name in &names {
            ipam.allocate("default", name.clone(), &Request::any())
                .unwrap();
        }
        ipam
    };
    let full = fill(empty());
    let records: Vec<(PortName, Record)> = full
        .leases()
        .map(|(owner, lease)| (owner.clone(), lease.clone().into()))
        .collect();
    let mut group = c.benchmark_group("a /16");
    group.sample_size(10);
    group.throughput(Throughput::Elements(names.len() as u64));
    group.bench_function("fill", |b| {
        b.iter_batched(empty, fill, BatchSize::LargeInput);
    });
    group.bench_function("restore", |b| {
        b.iter_batched(
            || (empty(), records.clone()),
            |(mut ipam, records)| {
                for (owner, record) in records {
                    ipam.restore(owner, record, Claim::Port).unwrap();
                }
                ipam
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = large_subnet, many_subnets, bulk
}
criterion_main!(benches);
