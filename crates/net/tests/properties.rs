//! `RangeSet` against rangemap and against a naive set of addresses; text forms that parse back.

#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use net::{Cidr, DualStack, Family, IpRange, Mac, RangeSet, parse_ip, parse_ranges, to_u128};
use proptest::prelude::*;
use rangemap::RangeInclusiveSet;

/// Numbers from a small window, at the bottom, in the middle or at the very top of the family, where overflows live.
fn window(family: Family) -> impl Strategy<Value = u128> {
    prop_oneof![Just(0), Just(family.max() / 2), Just(family.max() - 63)]
}

fn range(family: Family, base: u128, a: u8, b: u8) -> IpRange {
    let end = |n: u8| family.address(base + u128::from(n)).expect("in the family");
    IpRange::new(end(a.min(b)), end(a.max(b))).expect("in order")
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

type Edits = Vec<(bool, u8, u8)>;

fn edits() -> impl Strategy<Value = (Family, u128, Edits)> {
    family().prop_flat_map(|family| {
        let edit = (any::<bool>(), 0u8..64, 0u8..64);
        (
            Just(family),
            window(family),
            prop::collection::vec(edit, 0..40),
        )
    })
}

fn apply(
    family: Family,
    base: u128,
    edits: &Edits,
) -> (RangeSet, RangeInclusiveSet<u128>, BTreeSet<u128>) {
    let mut set = RangeSet::new(family);
    let mut model = RangeInclusiveSet::new();
    let mut naive = BTreeSet::new();
    for &(insert, a, b) in edits {
        let range = range(family, base, a, b);
        let numbers = to_u128(range.first())..=to_u128(range.last());
        let before = naive.len();
        if insert {
            naive.extend(numbers.clone());
            model.insert(numbers);
            assert_eq!(set.insert(range), naive.len() > before);
        } else {
            naive.retain(|n| !numbers.contains(n));
            model.remove(numbers);
            assert_eq!(set.remove(range), naive.len() < before);
        }
    }
    (set, model, naive)
}

proptest! {
    #[test]
    fn range_set_is_the_set((family, base, edits) in edits()) {
        let (set, model, naive) = apply(family, base, &edits);
        let addresses: Vec<u128> = set.addresses().map(to_u128).collect();
        prop_assert_eq!(addresses, naive.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.count(), naive.len() as u128);
        prop_assert_eq!(set.is_empty(), naive.is_empty());
        prop_assert_eq!(set.first().map(to_u128), naive.first().copied());
        prop_assert_eq!(set.last().map(to_u128), naive.last().copied());
        // The same ranges as rangemap, which joins neighbours too.
        let ranges: Vec<_> = set.iter().map(|r| to_u128(r.first())..=to_u128(r.last())).collect();
        prop_assert_eq!(ranges, model.iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(set.range_count(), model.iter().count());
        for n in (base..base + 63).chain([base + 63]) {
            let address = family.address(n).unwrap();
            prop_assert_eq!(set.contains(address), naive.contains(&n));
            prop_assert_eq!(set.first_from(address).map(to_u128), naive.range(n..).next().copied());
        }
        // Equal however it came about.
        prop_assert_eq!(&RangeSet::from_ranges(family, set.iter()), &set);
        let mut singles = RangeSet::new(family);
        singles.extend(set.addresses());
        prop_assert_eq!(&singles, &set);
    }

    #[test]
    fn range_set_algebra((family, base, a) in edits(), b in prop::collection::vec((any::<bool>(), 0u8..64, 0u8..64), 0..40)) {
        let (a, _, naive_a) = apply(family, base, &a);
        let (b, _, naive_b) = apply(family, base, &b);
        let numbers = |set: &RangeSet| set.addresses().map(to_u128).collect::<BTreeSet<_>>();
        prop_assert_eq!(numbers(&a.union(&b)), &naive_a | &naive_b);
        prop_assert_eq!(numbers(&a.subtract(&b)), &naive_a - &naive_b);
        prop_assert_eq!(numbers(&a.intersect(&b)), &naive_a & &naive_b);
        prop_assert_eq!(a.first_outside(&b).map(to_u128), (&naive_a - &naive_b).first().copied());
        prop_assert_eq!(a.union(&b).count(), (&naive_a | &naive_b).len() as u128);
        prop_assert_eq!(a.subtract(&b).union(&a.intersect(&b)), a.clone());
        // The other family is never a member and never changes anything.
        let other = RangeSet::from_ranges(family.other(), [range(family.other(), 0, 0, 63)]);
        prop_assert_eq!(a.union(&other), a.clone());
        prop_assert_eq!(a.subtract(&other), a.clone());
        prop_assert!(a.intersect(&other).is_empty());
    }

    #[test]
    fn ranges_cover_and_overlap((family, base, edits) in edits(), x in 0u8..64, y in 0u8..64) {
        let (set, _, naive) = apply(family, base, &edits);
        let range = range(family, base, x, y);
        let members = range.iter().filter(|ip| naive.contains(&to_u128(*ip))).count() as u128;
        prop_assert_eq!(set.covers(range), members == range.count());
        prop_assert_eq!(set.overlaps(range), members > 0);
        prop_assert_eq!(set.clip(range).count(), members);
        let inside: Vec<_> = set.iter_in(range).collect();
        prop_assert!(inside.iter().all(|r| range.covers(*r) && set.covers(*r)));
        prop_assert_eq!(inside.iter().map(|r| r.count()).sum::<u128>(), members);
    }

    #[test]
    fn text_parses_back(v4: u32, v6: u128, l4 in 0u8..=32, l6 in 0u8..=128, mac: [u8; 6]) {
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::from(v4)), IpAddr::V6(Ipv6Addr::from(v6)).to_canonical());
        for ip in [v4, v6] {
            prop_assert_eq!(parse_ip(&ip.to_string()), Ok(ip));
        }
        let (c4, c6) = (Cidr::new(v4, l4).unwrap(), Cidr::new(v6, l6.min(if v6.is_ipv4() { 32 } else { 128 })).unwrap());
        for cidr in [c4, c6] {
            prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
            prop_assert!(cidr.contains(cidr.first()) && cidr.contains(cidr.last()));
            prop_assert!(cidr.all().covers(cidr.usable()));
            prop_assert_eq!(cidr.usable().to_string().parse(), Ok(cidr.usable()));
        }
        if let Ok(pair) = DualStack::from_values([v4, v6]) {
            prop_assert_eq!(pair.to_string().parse(), Ok(pair));
            let turned = format!("{v6},{v4}");
            prop_assert_eq!(turned.parse(), Ok(pair));
        }
        let mac = Mac::new(mac);
        prop_assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn cidr_agrees_with_its_range(v4: u32, other: u32, l in 8u8..=32, k in 8u8..=32) {
        let (a, b) = (IpAddr::V4(Ipv4Addr::from(v4)), IpAddr::V4(Ipv4Addr::from(other)));
        let (a, b) = (Cidr::new(a, l).unwrap(), Cidr::new(b, k).unwrap());
        prop_assert_eq!(a.overlaps(b), a.all().overlaps(b.all()));
        prop_assert_eq!(a.covers(b), a.all().covers(b.all()));
        prop_assert_eq!(a.all().count(), 1u128 << (32 - l));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "[0-9a-fA-F:./,;% -]{0,40}") {
        let _ = parse_ip(&text);
        let _ = parse_ranges(&text);
        let _ = text.parse::<Cidr>();
        let _ = text.parse::<Mac>();
        let _ = text.parse::<DualStack<IpRange>>();
    }
}

#[test]
fn all_of_ipv6_counts_as_the_largest_number() {
    let all: Cidr = "::/0".parse().unwrap();
    let mut set = RangeSet::from_ranges(Family::V6, [all.all()]);
    assert_eq!(set.count(), u128::MAX);
    assert!(set.remove(parse_ip("fd00::1").unwrap()));
    assert_eq!(set.count(), u128::MAX);
    assert!(set.remove(parse_ip("::").unwrap()));
    assert_eq!(set.count(), u128::MAX - 1);
    assert!(set.insert(all.all()));
    assert_eq!((set.count(), set.range_count()), (u128::MAX, 1));
}

#[test]
fn prints_as_a_subnet_status_does() {
    let mut set = RangeSet::from_ranges(
        Family::V4,
        ["10.17.0.0/24".parse::<Cidr>().unwrap().usable()],
    );
    assert_eq!(set.to_string(), "10.17.0.1-10.17.0.254");
    for range in parse_ranges(
        "10.17.0.1..10.17.0.12,10.17.0.14..10.17.0.18,10.17.0.20..10.17.0.21,10.17.0.100,fd00::1",
    )
    .unwrap()
    {
        set.remove(range);
    }
    assert_eq!(
        set.to_string(),
        "10.17.0.13,10.17.0.19,10.17.0.22-10.17.0.99,10.17.0.101-10.17.0.254"
    );
    assert_eq!(RangeSet::new(Family::V6).to_string(), "");
}
