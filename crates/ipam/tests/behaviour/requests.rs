//! Requests of ports and of users, and their answers.

use ipam::{Claim, Ipam, IpamError, Lease, Release, Request, SubnetPool, Want};
use net::{DualStack, Family, IpRange, Mac, RangeSet, parse_ranges};

use crate::{any, fixed, ip, mac, pool, refused, status, with};

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
