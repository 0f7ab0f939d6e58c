//! What users see: which address a port gets, and what they are told when it gets none.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::IpAddr;

use ipam::{
    Claim, Ipam, IpamError, Lease, Record, Release, Request, Stranded, SubnetPool, Want, Why,
};
use net::{DualStack, Family, IpRange, Mac, RangeSet, parse_ip, parse_ranges};

fn ip(text: &str) -> IpAddr {
    parse_ip(text).unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn pool(cidrs: &str, gateways: &str, excludes: &str) -> SubnetPool {
    SubnetPool {
        cidrs: cidrs.parse().unwrap(),
        gateways: gateways.parse().unwrap(),
        excludes: parse_ranges(excludes).unwrap(),
        gateway_mac: None,
    }
}

/// An allocator with one subnet, `test`.
fn with(cidrs: &str, gateways: &str, excludes: &str) -> Ipam {
    let mut ipam = Ipam::new("cluster");
    assert_eq!(ipam.set_subnet("test", pool(cidrs, gateways, excludes)), []);
    ipam
}

fn any(ipam: &mut Ipam, owner: &str) -> String {
    let lease = ipam.allocate("test", owner, &Request::any()).unwrap();
    ipam.audit().unwrap();
    lease.addresses.to_string()
}

fn fixed(addresses: &str) -> Request<'static> {
    Request::fixed(addresses.parse().unwrap())
}

fn refused(ipam: &mut Ipam, owner: &str, request: &Request<'_>) -> IpamError {
    let before = format!("{ipam:?}");
    let error = ipam.allocate("test", owner, request).unwrap_err();
    assert_eq!(format!("{ipam:?}"), before, "a refusal changes nothing");
    assert!(error.to_string().starts_with(error.reason()), "{error}");
    error
}

fn status(ipam: &Ipam) -> [String; 2] {
    let ranges = ipam.ranges("test").v4.unwrap();
    let counters = ipam.counters("test").v4.unwrap();
    assert_eq!(counters.available, ranges.available.count());
    assert_eq!(counters.using, ranges.using.count());
    [ranges.available.to_string(), ranges.using.to_string()]
}

#[test]
fn the_seed_gets_its_addresses() {
    let mut ipam = with("10.17.0.0/16", "10.17.0.1", "10.17.0.1..10.17.0.10");
    assert_eq!(any(&mut ipam, "nginx-a.test-ns"), "10.17.0.11");
    assert_eq!(any(&mut ipam, "nginx-b.test-ns"), "10.17.0.12");
    assert_eq!(
        any(&mut ipam, "nginx-a.test-ns"),
        "10.17.0.11",
        "asking again"
    );

    let mut ipam = with("10.16.0.0/16", "10.16.0.1", "10.16.0.0..10.16.0.10");
    assert_eq!(any(&mut ipam, "coredns-a.kube-system"), "10.16.0.11");
    assert_eq!(any(&mut ipam, "coredns-b.kube-system"), "10.16.0.12");
}

/// The figures of a real cluster of the Go implementation, `test-sub` after some pods came and went.
#[test]
fn status_reads_as_upstreams() {
    let mut ipam = with("10.17.0.0/24", "10.17.0.1", "10.17.0.1..10.17.0.10");
    for n in 11..=21 {
        assert_eq!(any(&mut ipam, &format!("p{n}")), format!("10.17.0.{n}"));
    }
    for gone in ["p13", "p19"] {
        assert!(matches!(ipam.release(gone), Release::Freed(_)));
    }
    ipam.allocate("test", "static", &fixed("10.17.0.100"))
        .unwrap();
    assert_eq!(
        status(&ipam),
        [
            "10.17.0.13,10.17.0.19,10.17.0.22-10.17.0.99,10.17.0.101-10.17.0.254",
            "10.17.0.11-10.17.0.12,10.17.0.14-10.17.0.18,10.17.0.20-10.17.0.21,10.17.0.100"
        ]
    );
    let counters = ipam.counters("test");
    assert_eq!(counters.v4.map(|c| (c.available, c.using)), Some((234, 10)));
    assert_eq!(counters.v6, None);
}

#[test]
fn released_addresses_come_last_and_lowest_first() {
    let mut ipam = with("10.0.0.0/29", "10.0.0.1", "");
    for (owner, address) in [("a", "10.0.0.2"), ("b", "10.0.0.3"), ("c", "10.0.0.4")] {
        assert_eq!(any(&mut ipam, owner), address);
    }
    ipam.release("c");
    ipam.release("a");
    assert_eq!(any(&mut ipam, "d"), "10.0.0.5");
    assert_eq!(any(&mut ipam, "e"), "10.0.0.6");
    // The never-used part is exhausted: everything that was released is free again.
    assert_eq!(any(&mut ipam, "f"), "10.0.0.2");
    ipam.release("f");
    assert_eq!(any(&mut ipam, "g"), "10.0.0.4", ".2 was just released");
    assert_eq!(any(&mut ipam, "h"), "10.0.0.2");
    let error = refused(&mut ipam, "i", &Request::any());
    assert!(error.is_exhausted());
    assert_eq!(
        error.to_string(),
        "NoAvailableAddress: subnet test has no IPv4 address left in 10.0.0.0/29: 5 in use, 1 excluded; delete pods, \
         shorten excludeIps or use another subnet"
    );
}

#[test]
fn a_crash_forgets_what_was_released_only() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    for owner in ["a", "b", "c"] {
        any(&mut ipam, owner);
    }
    ipam.release("b");
    assert_eq!(any(&mut ipam, "d"), "10.0.0.5");
    let mut again = with("10.0.0.0/24", "10.0.0.1", "");
    for (owner, lease) in ipam.leases() {
        let restored = again.restore(owner.clone(), lease.clone().into(), Claim::Port);
        assert_eq!(restored.as_ref(), Ok(lease));
    }
    assert_eq!(status(&again), status(&ipam));
    assert_eq!(any(&mut again, "e"), "10.0.0.3");
}

#[test]
fn exclusions_change_live() {
    let mut ipam = with("10.0.0.0/28", "10.0.0.1", "10.0.0.2..10.0.0.3,10.0.0.6");
    assert_eq!(any(&mut ipam, "a"), "10.0.0.4");
    assert_eq!(any(&mut ipam, "b"), "10.0.0.5");
    assert_eq!(any(&mut ipam, "c"), "10.0.0.7", "over the second range");

    // Exclusions grow over leases: those stay, and count as used.
    let stranded = ipam.set_subnet(
        "test",
        pool("10.0.0.0/28", "10.0.0.1", "10.0.0.4..10.0.0.12"),
    );
    assert_eq!(stranded, []);
    assert_eq!(
        status(&ipam),
        [
            "10.0.0.2-10.0.0.3,10.0.0.13-10.0.0.14",
            "10.0.0.4-10.0.0.5,10.0.0.7"
        ]
    );
    assert_eq!(any(&mut ipam, "a"), "10.0.0.4");
    assert_eq!(any(&mut ipam, "d"), "10.0.0.2");
    // Given back, an excluded address is not available.
    ipam.release("a");
    assert_eq!(status(&ipam)[0], "10.0.0.3,10.0.0.13-10.0.0.14");

    // The released set survives a change.
    ipam.release("d");
    ipam.set_subnet(
        "test",
        pool("10.0.0.0/28", "10.0.0.1", "10.0.0.4..10.0.0.13"),
    );
    assert_eq!(any(&mut ipam, "e"), "10.0.0.3");
    assert_eq!(any(&mut ipam, "f"), "10.0.0.14");
    assert_eq!(any(&mut ipam, "g"), "10.0.0.2", "released, so last");
    assert!(refused(&mut ipam, "h", &Request::any()).is_exhausted());
    ipam.set_subnet("test", pool("10.0.0.0/28", "10.0.0.1", ""));
    assert_eq!(any(&mut ipam, "h"), "10.0.0.4");
    ipam.audit().unwrap();
}

#[test]
fn exclusions_outside_and_of_the_other_family_do_nothing() {
    let ipam = with("10.0.0.0/30", "10.0.0.1", "10.0.0.2..10.9.9.9,fd00::1");
    assert_eq!(status(&ipam), ["", ""]);
    let ipam = with("10.0.0.0/30", "192.168.0.1", "9.0.0.0..10.0.0.0,11.0.0.1");
    assert_eq!(status(&ipam), ["10.0.0.1-10.0.0.2", ""]);
}

#[test]
fn static_requests() {
    let mut ipam = with("10.17.0.0/16", "10.17.0.1", "10.17.0.1..10.17.0.10");
    let lease = ipam.allocate("test", "a.ns", &fixed("10.17.0.5")).unwrap();
    assert_eq!(
        lease.addresses.to_string(),
        "10.17.0.5",
        "excluded ones are allowed"
    );
    for (address, message) in [
        (
            "10.17.0.5",
            "AddressConflict: 10.17.0.5 of subnet test is held by port a.ns; choose another one or delete the holder",
        ),
        (
            "10.18.0.5",
            "AddressOutOfRange: 10.18.0.5 is not in 10.17.0.0/16 of subnet test; choose an address inside",
        ),
        (
            "10.17.0.1",
            "AddressConflict: 10.17.0.1 is the gateway of subnet test; choose another one",
        ),
        (
            "10.17.0.0",
            "AddressOutOfRange: 10.17.0.0 is the network address of 10.17.0.0/16 (subnet test) and no port can have \
             it; choose another one",
        ),
        (
            "10.17.255.255",
            "AddressOutOfRange: 10.17.255.255 is the broadcast address of 10.17.0.0/16 (subnet test) and no port can \
             have it; choose another one",
        ),
        (
            "fd00::1",
            "InvalidIPFamily: subnet test has no IPv6 CIDR; choose another subnet or another IP family",
        ),
    ] {
        let error = refused(&mut ipam, "b.ns", &fixed(address));
        assert_eq!(error.to_string(), message);
        assert_eq!(
            error.holder().map(AsRef::as_ref),
            (address == "10.17.0.5").then_some("a.ns")
        );
    }
    let error = refused(
        &mut ipam,
        "b.ns",
        &Request {
            v6: Want::Static(ip("10.17.0.9")),
            ..Request::any()
        },
    );
    assert_eq!(
        error.to_string(),
        "InvalidIPFamily: 10.17.0.9 is not an IPv6 address"
    );
}

#[test]
fn another_static_address_moves_the_lease() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    let first = ipam.allocate("test", "a", &fixed("10.0.0.50")).unwrap();
    any(&mut ipam, "b");
    refused(&mut ipam, "a", &fixed("10.0.0.2"));
    assert_eq!(
        ipam.lease("a"),
        Some(&first),
        "kept if the new one is taken"
    );
    let second = ipam.allocate("test", "a", &fixed("10.0.0.60")).unwrap();
    assert_eq!(second.mac, first.mac);
    assert_eq!(status(&ipam)[1], "10.0.0.2,10.0.0.60");
    assert_eq!(any(&mut ipam, "a"), "10.0.0.60");
    ipam.audit().unwrap();
}

#[test]
fn dual_stack_is_all_or_nothing() {
    let mut ipam = with("10.0.0.0/24,fd00::/126", "10.0.0.1,fd00::1", "");
    assert_eq!(any(&mut ipam, "a"), "10.0.0.2,fd00::2");
    let error = refused(&mut ipam, "b", &Request::any());
    assert!(
        matches!(
            error,
            IpamError::Exhausted {
                family: Family::V6,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(status(&ipam)[1], "10.0.0.2");
    // One family alone.
    let lease = ipam
        .allocate("test", "b", &Request::only(Family::V4))
        .unwrap();
    assert_eq!(lease.addresses.to_string(), "10.0.0.3");
    // The missing family is added when it is asked for.
    ipam.release("a");
    assert_eq!(any(&mut ipam, "b"), "10.0.0.3,fd00::2");
    // One fixed, the other chosen.
    ipam.set_subnet(
        "test",
        pool("10.0.0.0/24,fd00::/120", "10.0.0.1,fd00::1", ""),
    );
    let lease = ipam.allocate("test", "c", &fixed("fd00::77")).unwrap();
    assert_eq!(lease.addresses.to_string(), "10.0.0.4,fd00::77");
    ipam.audit().unwrap();
}

#[test]
fn a_single_stack_subnet_gives_its_family() {
    let mut ipam = with(
        "fd00:10:16::/112",
        "fd00:10:16::1",
        "fd00:10:16::1..fd00:10:16::a",
    );
    assert_eq!(any(&mut ipam, "a"), "fd00:10:16::b");
    let error = refused(&mut ipam, "b", &Request::only(Family::V4));
    assert_eq!(error.reason(), "InvalidIPFamily");
    assert!(error.to_string().contains("no IPv4 CIDR"), "{error}");
    let counters = ipam.counters("test").v6.unwrap();
    assert_eq!((counters.available, counters.using), (65_534 - 11, 1));
}

#[test]
fn tiny_and_huge_cidrs() {
    let mut ipam = with("10.0.0.4/31", "10.0.0.4", "");
    assert_eq!(any(&mut ipam, "a"), "10.0.0.5");
    let mut ipam = with("fd00::/8", "fd00::1", "fd00::2..fdff::");
    assert_eq!(any(&mut ipam, "a"), "fdff::1");
    assert_eq!(
        ipam.ranges("test").v6.unwrap().available.to_string(),
        "fdff::2-fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"
    );
}

#[test]
fn nodes_addresses_are_skipped() {
    let mut ipam = with("192.168.1.0/28", "192.168.1.1", "");
    let nodes = RangeSet::from_ranges(
        Family::V4,
        parse_ranges("192.168.1.2..192.168.1.3,192.168.1.5").unwrap(),
    );
    let skip = DualStack::new(Some(nodes), None);
    let request = Request {
        skip: Some(&skip),
        ..Request::any()
    };
    let next = |ipam: &mut Ipam, owner: &str| {
        let lease = ipam.allocate("test", owner, &request).unwrap();
        lease.addresses.to_string()
    };
    assert_eq!(next(&mut ipam, "a"), "192.168.1.4");
    assert_eq!(next(&mut ipam, "b"), "192.168.1.6");
    // They are not used up.
    assert_eq!(any(&mut ipam, "c"), "192.168.1.2");
    assert_eq!(
        next(&mut ipam, "c"),
        "192.168.1.7",
        "a held one is given up"
    );
    ipam.set_subnet("test", pool("192.168.1.0/29", "192.168.1.1", ""));
    let error = refused(&mut ipam, "d", &request);
    assert!(
        error.to_string().contains("3 free but used by nodes"),
        "{error}"
    );
}

#[test]
fn reservations() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    let request = Request {
        mac: Some(mac("00:16:3e:00:00:01")),
        ..fixed("10.0.0.2")
    };
    let reserved = ipam.reserve("test", "web-0.ns", &request).unwrap();
    assert_eq!(any(&mut ipam, "other.ns"), "10.0.0.3");
    let error = refused(&mut ipam, "other2.ns", &fixed("10.0.0.2"));
    assert_eq!(error.holder().unwrap(), "web-0.ns");

    // The port takes it over, and leaves it reserved.
    assert_eq!(
        ipam.allocate("test", "web-0.ns", &Request::any()).as_ref(),
        Ok(&reserved)
    );
    let error = refused(&mut ipam, "web-0.ns", &fixed("10.0.0.9"));
    assert_eq!(
        error.to_string(),
        "AddressConflict: port web-0.ns asks for 10.0.0.9, but 10.0.0.2 (00:16:3e:00:00:01) of subnet test is \
         reserved for it; ask for that or delete the IP resource web-0.ns"
    );
    assert_eq!(ipam.release("web-0.ns"), Release::Kept(reserved.clone()));
    assert_eq!(ipam.release("web-0.ns"), Release::Unknown);
    assert_eq!(ipam.lease("web-0.ns"), Some(&reserved));
    assert_eq!(ipam.unreserve("web-0.ns"), Release::Freed(reserved.clone()));

    // The reservation goes first: the running port keeps its lease.
    ipam.reserve("test", "web-0.ns", &request).unwrap();
    any(&mut ipam, "web-0.ns");
    assert_eq!(ipam.unreserve("web-0.ns"), Release::Kept(reserved.clone()));
    assert_eq!(ipam.release("web-0.ns"), Release::Freed(reserved));

    // Reserving for a port that runs holds what it has, and never moves it.
    any(&mut ipam, "late.ns");
    let error = ipam
        .reserve("test", "late.ns", &fixed("10.0.0.99"))
        .unwrap_err();
    assert!(matches!(error, IpamError::Differs { .. }), "{error}");
    ipam.reserve("test", "late.ns", &Request::any()).unwrap();
    assert!(ipam.claims("late.ns").has(Claim::Reservation));
    ipam.audit().unwrap();
}

#[test]
fn macs() {
    let mut ipam = Ipam::new("cluster");
    let gateway_mac = mac("00:00:00:00:11:22");
    let pool = SubnetPool {
        gateway_mac: Some(gateway_mac),
        ..pool("10.0.0.0/24", "10.0.0.1", "")
    };
    ipam.set_subnet("test", pool.clone());
    ipam.set_subnet("other", pool.clone());
    let a = ipam.allocate("test", "a", &Request::any()).unwrap();
    assert!(a.mac.is_local() && a.mac.is_unicast());
    assert_eq!(ipam.mac_holder("test", a.mac).unwrap(), "a");

    let with_mac = |mac| Request {
        mac: Some(mac),
        ..Request::any()
    };
    let error = refused(&mut ipam, "b", &with_mac(a.mac));
    assert_eq!(
        error.to_string(),
        format!(
            "AddressConflict: MAC {} is used in subnet test by port a; choose another one or delete the holder",
            a.mac
        )
    );
    let error = refused(&mut ipam, "b", &with_mac(gateway_mac));
    assert!(error.to_string().contains("of the gateway"), "{error}");
    let error = refused(&mut ipam, "b", &with_mac(Mac::BROADCAST));
    assert_eq!(error.reason(), "InvalidMAC");
    // Unique in the subnet, not beyond.
    let elsewhere = ipam.allocate("other", "b", &with_mac(a.mac)).unwrap();
    assert_eq!(elsewhere.mac, a.mac);

    // The MAC depends on the cluster and the name; it does not depend on what else there is.
    ipam.release("a");
    assert_eq!(any(&mut ipam, "x"), "10.0.0.3");
    let again = ipam.allocate("test", "a", &Request::any()).unwrap();
    assert_eq!(again.mac, a.mac);
    let mut foreign = Ipam::new("another cluster");
    foreign.set_subnet("test", pool.clone());
    let foreign = foreign.allocate("test", "a", &Request::any()).unwrap();
    assert_ne!(foreign.mac, a.mac);

    // If it is taken, the next attempt is as stable.
    let occupied = |()| {
        let mut ipam = Ipam::new("cluster");
        ipam.set_subnet("test", pool.clone());
        ipam.allocate("test", "thief", &with_mac(a.mac)).unwrap();
        ipam.allocate("test", "a", &Request::any()).unwrap().mac
    };
    let [second, third] = [(), ()].map(occupied);
    assert_eq!(second, third);
    assert_ne!(second, a.mac);

    // A changed MAC frees the old one.
    let other = mac("00:16:3e:00:00:02");
    let moved = ipam.allocate("test", "a", &with_mac(other)).unwrap();
    assert_eq!((moved.addresses, moved.mac), (again.addresses, other));
    assert_eq!(ipam.mac_holder("test", a.mac), None);
    ipam.audit().unwrap();
}

#[test]
fn a_subnet_without_addresses_gives_macs() {
    let mut ipam = with("", "", "");
    let lease = ipam.allocate("test", "a", &Request::any()).unwrap();
    assert!(lease.addresses.is_empty());
    assert_eq!(ipam.counters("test"), DualStack::NONE);
    assert!(!ipam.is_idle("test"));
    assert_eq!(
        refused(&mut ipam, "b", &fixed("10.0.0.1")).reason(),
        "InvalidIPFamily"
    );
    ipam.release("a");
    assert!(ipam.is_idle("test"));
}

#[test]
fn a_cidr_moves_while_ports_run() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    for owner in ["a", "b"] {
        any(&mut ipam, owner);
    }
    let stranded = ipam.set_subnet("test", pool("10.0.1.0/24", "10.0.1.1", ""));
    let outside = |owner: &str, address: &str| Stranded {
        owner: owner.into(),
        why: Why::OutsideCidr(ip(address)),
    };
    assert_eq!(
        stranded,
        [outside("a", "10.0.0.2"), outside("b", "10.0.0.3")]
    );
    assert_eq!(any(&mut ipam, "a"), "10.0.0.2", "running ports keep theirs");
    assert_eq!(any(&mut ipam, "c"), "10.0.1.2");
    assert_eq!(
        status(&ipam),
        ["10.0.1.3-10.0.1.254", "10.0.0.2-10.0.0.3,10.0.1.2"]
    );
    ipam.release("a");
    assert_eq!(any(&mut ipam, "a"), "10.0.1.3");
    assert_eq!(ipam.stranded("test"), [outside("b", "10.0.0.3")]);

    // Grown again, the old addresses are known as used and never given twice.
    let stranded = ipam.set_subnet("test", pool("10.0.0.0/23", "10.0.0.2", ""));
    assert_eq!(stranded, []);
    assert_eq!(any(&mut ipam, "d"), "10.0.0.1");
    assert_eq!(any(&mut ipam, "e"), "10.0.0.4");

    // A family goes and comes.
    ipam.set_subnet("test", pool("fd00::/64", "fd00::1", ""));
    assert_eq!(ipam.counters("test").v4.unwrap().available, 0);
    assert_eq!(ipam.counters("test").v4.unwrap().using, 5);
    assert_eq!(any(&mut ipam, "f"), "fd00::2");
    ipam.audit().unwrap();
}

#[test]
fn a_gateway_moves_onto_a_port() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    let lease = ipam.allocate("test", "a", &Request::any()).unwrap();
    let moved = SubnetPool {
        gateway_mac: Some(lease.mac),
        ..pool("10.0.0.0/24", "10.0.0.2", "")
    };
    let owner = ipam::PortName::from("a");
    assert_eq!(
        ipam.set_subnet("test", moved),
        [
            Stranded {
                owner: owner.clone(),
                why: Why::IsGateway(ip("10.0.0.2"))
            },
            Stranded {
                owner,
                why: Why::IsGatewayMac(lease.mac)
            }
        ]
    );
    assert_eq!(ipam.lease("a"), Some(&lease));
    ipam.release("a");
    assert_eq!(any(&mut ipam, "b"), "10.0.0.1");
    ipam.audit().unwrap();
}

#[test]
fn a_subnet_goes_while_ports_run() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    any(&mut ipam, "a");
    any(&mut ipam, "b");
    assert_eq!(ipam.remove_subnet("test"), 2);
    assert_eq!(ipam.pool("test"), None);
    assert_eq!(
        refused(&mut ipam, "c", &Request::any()).reason(),
        "NoSubnet"
    );
    assert_eq!(ipam.leases_of("test").count(), 2);
    assert_eq!(ipam.counters("test").v4.unwrap().using, 2);
    assert_eq!(ipam.stranded("test"), []);
    // It comes back and finds them.
    ipam.set_subnet("test", pool("10.0.0.0/24", "10.0.0.1", ""));
    assert_eq!(any(&mut ipam, "c"), "10.0.0.4");
    ipam.remove_subnet("test");
    for owner in ["a", "b", "c"] {
        assert_eq!(ipam.subnets().count(), 1);
        assert!(matches!(ipam.release(owner), Release::Freed(_)));
        ipam.audit().unwrap();
    }
    assert_eq!(ipam.subnets().count(), 0);
    assert_eq!(ipam.remove_subnet("test"), 0);
}

#[test]
fn a_port_is_in_one_subnet() {
    let mut ipam = with("10.0.0.0/24", "10.0.0.1", "");
    ipam.set_subnet("second", pool("10.0.1.0/24", "10.0.1.1", ""));
    any(&mut ipam, "a.ns");
    let error = ipam
        .allocate("second", "a.ns", &Request::any())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "AddressConflict: port a.ns cannot get an address of subnet second while it holds 10.0.0.2 of subnet test; \
         release that first"
    );
    assert_eq!(
        ipam.allocate("nowhere", "b", &Request::any())
            .unwrap_err()
            .to_string(),
        "NoSubnet: subnet nowhere does not exist; create it or name another one"
    );
}

#[test]
fn records_are_restored_and_never_overwrite() {
    let mut ipam = Ipam::new("cluster");
    let record = |addresses: &str, mac: Option<&str>| Record {
        subnet: "test".into(),
        addresses: addresses.parse().unwrap(),
        mac: mac.map(|mac| mac.parse().unwrap()),
    };
    let first = record("10.0.0.9", Some("00:16:3e:00:00:09"));
    // Before the subnet is known, and twice.
    let lease = ipam.restore("a", first.clone(), Claim::Port).unwrap();
    assert_eq!(Record::from(lease.clone()), first);
    let before = format!("{ipam:?}");
    assert_eq!(ipam.restore("a", first, Claim::Port).as_ref(), Ok(&lease));
    assert_eq!(format!("{ipam:?}"), before);

    // Conflicts: who holds it, and nothing changes.
    for (owner, record, message) in [
        (
            "b",
            record("10.0.0.9", None),
            "AddressConflict: 10.0.0.9 of subnet test is held by port a; choose another one or delete the holder",
        ),
        (
            "b",
            record("10.0.0.10", Some("00:16:3e:00:00:09")),
            "AddressConflict: MAC 00:16:3e:00:00:09 is used in subnet test by port a; choose another one or delete \
             the holder",
        ),
        (
            "a",
            record("10.0.0.10", None),
            "AddressConflict: port a holds 10.0.0.9 (00:16:3e:00:00:09) of subnet test, but a record says 10.0.0.10 \
             of subnet test; the lease stays as it is, correct or delete the record",
        ),
        (
            "a",
            Record {
                subnet: "second".into(),
                ..record("10.0.0.9", None)
            },
            "AddressConflict: port a holds 10.0.0.9 (00:16:3e:00:00:09) of subnet test, but a record says 10.0.0.9 \
             of subnet second; the lease stays as it is, correct or delete the record",
        ),
    ] {
        let error = ipam.restore(owner, record, Claim::Port).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(format!("{ipam:?}"), before);
    }

    // A record without MAC gets the one that the port would have got.
    let b = ipam
        .restore("b", record("10.0.0.3", None), Claim::Port)
        .unwrap();
    // A record that knows one family more completes the lease.
    let grown = ipam
        .restore("b", record("10.0.0.3,fd00::3", None), Claim::Reservation)
        .unwrap();
    assert_eq!(
        (grown.addresses.to_string().as_str(), grown.mac),
        ("10.0.0.3,fd00::3", b.mac)
    );
    assert_eq!(format!("{:?}", ipam.claims("b")), "{Port, Reservation}");

    ipam.set_subnet("test", pool("10.0.0.0/24", "10.0.0.1", ""));
    assert_eq!(any(&mut ipam, "c"), "10.0.0.2");
    assert_eq!(any(&mut ipam, "d"), "10.0.0.4");
    let mut fresh = with("10.0.0.0/24", "10.0.0.1", "");
    assert_eq!(
        fresh.allocate("test", "b", &Request::any()).unwrap().mac,
        b.mac
    );
    // Outside the CIDR, on the gateway, excluded: what a port uses is a fact.
    for (owner, address) in [("e", "10.9.0.1"), ("f", "10.0.0.1"), ("g", "10.0.0.0")] {
        ipam.restore(owner, record(address, None), Claim::Port)
            .unwrap();
        ipam.audit().unwrap();
    }
    assert_eq!(ipam.stranded("test").len(), 4, "fd00::3 too");
    for owner in ["e", "f", "g"] {
        ipam.release(owner);
    }
    assert_eq!(
        status(&ipam),
        [
            "10.0.0.5-10.0.0.8,10.0.0.10-10.0.0.254",
            "10.0.0.2-10.0.0.4,10.0.0.9"
        ]
    );
}

#[test]
fn values_have_a_stable_json_form() {
    let lease = Lease {
        subnet: "test".into(),
        addresses: "10.0.0.2,fd00::2".parse().unwrap(),
        mac: mac("0a:58:0a:00:00:02"),
    };
    let range: IpRange = "10.0.0.1..10.0.0.9".parse().unwrap();
    let pool = SubnetPool {
        excludes: vec![range],
        ..pool("10.0.0.0/24", "10.0.0.1", "")
    };
    assert_eq!(
        serde_json::to_string(&lease).unwrap(),
        r#"{"subnet":"test","addresses":"10.0.0.2,fd00::2","mac":"0a:58:0a:00:00:02"}"#
    );
    assert_eq!(
        serde_json::to_string(&pool).unwrap(),
        r#"{"cidrs":"10.0.0.0/24","gateways":"10.0.0.1","excludes":["10.0.0.1..10.0.0.9"],"gateway_mac":null}"#
    );
}

/// Enough leases that anything worse than O(log n) a step takes minutes in a debug build.
#[test]
fn a_large_fragmented_subnet_stays_fast() {
    let mut ipam = with("10.0.0.0/12", "10.0.0.1", "");
    let names: Vec<ipam::PortName> = (0..60_000).map(|n| format!("p{n}.ns").into()).collect();
    for name in &names {
        ipam.allocate("test", name.clone(), &Request::any())
            .unwrap();
    }
    for name in names.iter().step_by(2) {
        ipam.release(name);
    }
    for name in names.iter().step_by(2) {
        ipam.allocate("test", name.clone(), &Request::any())
            .unwrap();
    }
    let counters = ipam.counters("test").v4.unwrap();
    assert_eq!(counters.using, 60_000);
    assert_eq!(counters.available, (1 << 20) - 3 - 60_000);
    ipam.audit().unwrap();
}
