//! Random histories.

use std::net::IpAddr;

use ipam::{Claim, PortName, SubnetName, SubnetPool, Want};
use net::{DualStack, Family, IpRange, Mac};
use proptest::prelude::*;

const V4_CIDRS: [&str; 5] = [
    "10.0.0.0/29",
    "10.0.0.0/28",
    "10.0.0.8/29",
    "10.0.0.4/31",
    "10.0.0.0/30",
];
const V6_CIDRS: [&str; 4] = ["fd00::/125", "fd00::/124", "fd00::8/125", "fd00::4/127"];

/// Something that can happen. Numbers choose among few names and addresses, so that histories collide often.
#[derive(Clone, Debug)]
pub enum Step {
    Set {
        subnet: u8,
        pool: SubnetPool,
    },
    Remove {
        subnet: u8,
    },
    Grant {
        subnet: u8,
        owner: u8,
        v4: Want,
        v6: Want,
        mac: Option<u8>,
        skip: Vec<u8>,
        claim: Claim,
    },
    Release {
        owner: u8,
        claim: Claim,
    },
    Restore {
        owner: u8,
        subnet: u8,
        v4: Option<u8>,
        v6: Option<u8>,
        mac: Option<u8>,
        claim: Claim,
    },
}

pub fn address(family: Family, n: u8) -> IpAddr {
    let base: IpAddr = match family {
        Family::V4 => "10.0.0.0".parse().unwrap(),
        Family::V6 => "fd00::".parse().unwrap(),
    };
    family.address(net::to_u128(base) + u128::from(n)).unwrap()
}

pub fn mac(n: u8) -> Mac {
    // 3 is multicast.
    Mac::new([u8::from(n == 3), 0x16, 0x3e, 0, 0, n])
}

pub fn subnet_name(n: u8) -> SubnetName {
    ["red", "blue"][usize::from(n)].into()
}

pub fn owner_name(n: u8) -> PortName {
    format!("p{n}.ns").into()
}

fn pool() -> impl Strategy<Value = SubnetPool> {
    let range = |family| {
        (0u8..17, 0u8..6).prop_map(move |(first, more)| {
            IpRange::new(address(family, first), address(family, first + more)).unwrap()
        })
    };
    let cidr = |texts: &'static [&'static str]| {
        prop::option::weighted(0.8, prop::sample::select(texts))
            .prop_map(|t| t.map(|t| t.parse().unwrap()))
    };
    let excludes = prop::collection::vec(prop_oneof![range(Family::V4), range(Family::V6)], 0..3);
    let gateway = || prop::option::weighted(0.8, 0u8..17);
    (
        cidr(&V4_CIDRS),
        cidr(&V6_CIDRS),
        gateway(),
        gateway(),
        excludes,
        prop::option::of(0u8..3),
    )
        .prop_map(
            |(v4, v6, gateway4, gateway6, excludes, gateway_mac)| SubnetPool {
                cidrs: DualStack::new(v4, v6),
                gateways: DualStack::new(
                    gateway4.map(|n| address(Family::V4, n)),
                    gateway6.map(|n| address(Family::V6, n)),
                ),
                excludes,
                gateway_mac: gateway_mac.map(mac),
            },
        )
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![3 => Just(Claim::Port), 1 => Just(Claim::Reservation)]
}

fn step() -> impl Strategy<Value = Step> {
    let subnet = || prop_oneof![3 => Just(0u8), 1 => Just(1u8)];
    let want = |family: Family| {
        prop_oneof![
            6 => Just(Want::Any),
            2 => (0u8..18).prop_map(move |n| Want::Static(address(family, n))),
            1 => Just(Want::None),
        ]
    };
    let few_macs = || prop::option::weighted(0.15, 0u8..4);
    prop_oneof![
        2 => (subnet(), pool()).prop_map(|(subnet, pool)| Step::Set { subnet, pool }),
        1 => subnet().prop_map(|subnet| Step::Remove { subnet }),
        8 => (subnet(), 0u8..12, want(Family::V4), want(Family::V6), few_macs(), prop::collection::vec(0u8..17, 0..3), claim())
            .prop_map(|(subnet, owner, v4, v6, mac, skip, claim)| Step::Grant { subnet, owner, v4, v6, mac, skip, claim }),
        5 => (0u8..12, claim()).prop_map(|(owner, claim)| Step::Release { owner, claim }),
        2 => (0u8..12, subnet(), prop::option::of(0u8..18), prop::option::of(0u8..18), few_macs(), claim())
            .prop_map(|(owner, subnet, v4, v6, mac, claim)| Step::Restore { owner, subnet, v4, v6, mac, claim }),
    ]
}

pub fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60).prop_map(|mut steps| {
        // Most histories begin with a subnet.
        let first = SubnetPool {
            cidrs: "10.0.0.0/28,fd00::/125".parse().unwrap(),
            gateways: "10.0.0.1,fd00::1".parse().unwrap(),
            ..SubnetPool::default()
        };
        steps.insert(
            0,
            Step::Set {
                subnet: 0,
                pool: first,
            },
        );
        steps
    })
}
