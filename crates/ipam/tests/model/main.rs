//! Random histories against a naive model: sets of single addresses and the rules as the specification words them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests"
)]

mod naive;
mod strategy;

use std::collections::BTreeSet;

use ipam::{Claim, Ipam, IpamError, PortName, Record, Request};
use net::{DualStack, Family, HasFamily, RangeSet};
use proptest::prelude::*;

use naive::Model;
use strategy::{Step, address, history, mac, owner_name, subnet_name};

/// The allocator and the model side by side.
struct Pair {
    ipam: Ipam,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        Self {
            ipam: Ipam::new("cluster"),
            model: Model::default(),
        }
    }

    fn apply_all(&mut self, steps: &[Step]) {
        for step in steps {
            self.apply(step);
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Set { subnet, pool } => {
                let name = subnet_name(*subnet);
                self.ipam.set_subnet(name.clone(), pool.clone());
                self.model.set(&name, Some(pool.clone()));
            }
            Step::Remove { subnet } => {
                let name = subnet_name(*subnet);
                self.ipam.remove_subnet(&name);
                self.model.set(&name, None);
            }
            Step::Release { owner, claim } => {
                let owner = owner_name(*owner);
                let released = match claim {
                    Claim::Port => self.ipam.release(&owner),
                    Claim::Reservation => self.ipam.unreserve(&owner),
                };
                assert_eq!(released, self.model.release(&owner, *claim));
            }
            Step::Grant { .. } => self.grant(step),
            Step::Restore {
                owner,
                subnet,
                v4,
                v6,
                mac: m,
                claim,
            } => {
                let record = Record {
                    subnet: subnet_name(*subnet),
                    addresses: DualStack::new(
                        v4.map(|n| address(Family::V4, n)),
                        v6.map(|n| address(Family::V6, n)),
                    ),
                    mac: m.map(mac),
                };
                self.restore(&owner_name(*owner), &record, *claim);
            }
        }
        self.compare();
    }

    fn grant(&mut self, step: &Step) {
        let Step::Grant {
            subnet,
            owner,
            v4,
            v6,
            mac: m,
            skip,
            claim,
        } = step
        else {
            return;
        };
        let (name, owner) = (subnet_name(*subnet), owner_name(*owner));
        let skip = DualStack::from_fn(|family| {
            let ranges = skip.iter().map(|n| address(family, *n).into());
            Some(RangeSet::from_ranges(family, ranges))
        });
        let request = Request {
            v4: *v4,
            v6: *v6,
            mac: m.map(mac),
            skip: Some(&skip),
        };
        let before = format!("{:?}", self.ipam);
        let expected = self.model.expect(&name, &owner, &request, *claim);
        let result = match claim {
            Claim::Port => self.ipam.allocate(name.clone(), owner.clone(), &request),
            Claim::Reservation => self.ipam.reserve(name.clone(), owner.clone(), &request),
        };
        match (result, expected) {
            (Ok(lease), Ok((addresses, any))) => {
                assert_eq!(lease.addresses, addresses);
                assert_eq!(lease.subnet, name);
                if let Some(asked) = request.mac {
                    assert_eq!(lease.mac, asked);
                }
                self.model.record(&owner, &lease, any, *claim);
            }
            (Err(error), Err(reason)) => {
                assert_eq!(error.reason(), reason, "{error}");
                assert_eq!(format!("{:?}", self.ipam), before, "{error}");
            }
            (result, expected) => panic!("{result:?}, but the model says {expected:?}"),
        }
    }

    fn restore(&mut self, owner: &PortName, record: &Record, claim: Claim) {
        let before = format!("{:?}", self.ipam);
        let held = self.model.held.get(owner).map(|(lease, _)| lease);
        let differs = held.is_some_and(|lease| {
            let mut families = Family::ALL.into_iter();
            lease.subnet != record.subnet
                || record.mac.is_some_and(|mac| mac != lease.mac)
                || families.any(|f| {
                    let (old, new) = (lease.addresses.get(f), record.addresses.get(f));
                    old.is_some() && new.is_some() && old != new
                })
        });
        let others = || {
            self.model
                .held
                .iter()
                .filter(|(name, (lease, _))| *name != owner && lease.subnet == record.subnet)
        };
        let taken = others().any(|(_, (lease, _))| {
            record.mac == Some(lease.mac)
                || record
                    .addresses
                    .iter()
                    .any(|ip| lease.addresses.get(ip.family()) == Some(ip))
        });
        let known = held.map(|lease| lease.addresses).unwrap_or_default();
        match self.ipam.restore(owner.clone(), record.clone(), claim) {
            Ok(lease) => {
                assert!(!differs && !taken);
                assert_eq!(lease.addresses.v4, known.v4.or(record.addresses.v4));
                assert_eq!(lease.addresses.v6, known.v6.or(record.addresses.v6));
                assert!(record.mac.is_none_or(|mac| mac == lease.mac));
                self.model.record(owner, &lease, [false; 2], claim);
                let again = format!("{:?}", self.ipam);
                let second = self.ipam.restore(owner.clone(), record.clone(), claim);
                assert_eq!(second, Ok(lease), "idempotent");
                assert_eq!(format!("{:?}", self.ipam), again, "idempotent");
            }
            Err(error) => {
                assert!(differs || taken, "{error}");
                if let Some(holder) = error.holder() {
                    assert!(others().any(|(name, _)| name == holder), "{error}");
                } else {
                    assert!(matches!(error, IpamError::Differs { .. }), "{error}");
                }
                assert_eq!(format!("{:?}", self.ipam), before, "{error}");
            }
        }
    }

    /// Nothing lost, nothing doubled, and every figure is that of the sets.
    fn compare(&self) {
        self.ipam.audit().expect("consistent");
        let leases: Vec<_> = self.ipam.leases().collect();
        let expected: Vec<_> = self
            .model
            .held
            .iter()
            .map(|(name, (lease, _))| (name, lease))
            .collect();
        assert_eq!(leases, expected);
        let macs: BTreeSet<_> = expected
            .iter()
            .map(|(_, lease)| (&lease.subnet, lease.mac))
            .collect();
        assert_eq!(macs.len(), expected.len(), "a MAC has two owners");
        for name in self.ipam.subnets() {
            let counters = self.ipam.counters(name);
            let ranges = self.ipam.ranges(name);
            for family in Family::ALL {
                let using = self.model.using(name, family);
                let space = self
                    .model
                    .subnets
                    .get(name)
                    .map(|s| &s.spaces[family as usize]);
                let available = space.map(|s| &s.free | &s.released).unwrap_or_default();
                let Some(counters) = counters.get(family) else {
                    assert!(using.is_empty() && available.is_empty());
                    continue;
                };
                let ranges = ranges.get(family).unwrap();
                assert_eq!(counters.using, using.len() as u128);
                assert_eq!(counters.available, available.len() as u128);
                assert!(ranges.using.addresses().eq(using.keys().copied()));
                assert!(ranges.available.addresses().eq(available));
                for (address, owner) in using {
                    assert_eq!(self.ipam.holder(name, address), Some(owner));
                }
            }
        }
        for (name, subnet) in &self.model.subnets {
            let used = self
                .model
                .held
                .values()
                .any(|(lease, _)| lease.subnet == *name);
            assert_eq!(self.ipam.is_idle(name), !used);
            assert_eq!(self.ipam.pool(name), subnet.pool.as_ref());
        }
    }
}

/// All that outlives a crash: what everybody can see of the state.
fn visible(ipam: &Ipam) -> String {
    let leases: Vec<_> = ipam
        .leases()
        .map(|(name, lease)| (name, lease, ipam.claims(name)))
        .collect();
    let sets: Vec<_> = ipam
        .subnets()
        .map(|name| {
            (
                name,
                ipam.pool(name),
                ipam.ranges(name),
                ipam.stranded(name),
            )
        })
        .collect();
    format!("{leases:#?} {sets:#?}")
}

/// A step of a restart.
type Event<'a> = Box<dyn Fn(&mut Ipam) + 'a>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_the_models(steps in history()) {
        let mut pair = Pair::new();
        pair.apply_all(&steps);
    }

    #[test]
    fn the_same_history_gives_the_same_state(steps in history()) {
        let run = || {
            let mut pair = Pair::new();
            pair.apply_all(&steps);
            format!("{:?}", pair.ipam)
        };
        prop_assert_eq!(run(), run());
    }

    /// The records come in any order, before, between and after the subnets.
    #[test]
    fn a_crash_loses_the_released_set_alone(steps in history(), order in any::<[u8; 16]>()) {
        let mut pair = Pair::new();
        pair.apply_all(&steps);
        let mut events: Vec<Event<'_>> = Vec::new();
        for (owner, lease) in pair.ipam.leases() {
            for claim in [Claim::Port, Claim::Reservation] {
                if pair.ipam.claims(owner).has(claim) {
                    events.push(Box::new(move |ipam| {
                        let restored = ipam.restore(owner.clone(), lease.clone().into(), claim);
                        assert_eq!(restored.as_ref(), Ok(lease));
                    }));
                }
            }
        }
        for name in pair.ipam.subnets() {
            if let Some(pool) = pair.ipam.pool(name) {
                events.push(Box::new(move |ipam| {
                    ipam.set_subnet(name.clone(), pool.clone());
                }));
            }
        }
        let mut restored = Ipam::new("cluster");
        for pick in order.iter().cycle() {
            if events.is_empty() {
                break;
            }
            events.swap_remove(usize::from(*pick) % events.len())(&mut restored);
        }
        restored.audit().expect("consistent");
        prop_assert_eq!(visible(&restored), visible(&pair.ipam));
    }

    /// Every open address is given out exactly once before one is given twice or refused.
    #[test]
    fn nothing_is_lost(steps in history()) {
        let mut pair = Pair::new();
        pair.apply_all(&steps);
        let ipam = &mut pair.ipam;
        for name in [0, 1].map(subnet_name) {
            if ipam.pool(&name).is_none_or(|pool| pool.cidrs.v4.is_none()) {
                continue;
            }
            let counters = ipam.counters(&name).v4.unwrap();
            let request = Request::only(Family::V4);
            let mut given = BTreeSet::new();
            for n in 0..counters.available {
                let lease = ipam.allocate(name.clone(), format!("{name}{n}"), &request).unwrap();
                prop_assert!(given.insert(lease.addresses));
            }
            prop_assert!(ipam.allocate(name.clone(), "late", &request).is_err());
            prop_assert_eq!(ipam.counters(&name).v4.unwrap().available, 0);
        }
    }
}
