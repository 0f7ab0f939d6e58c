//! Subnets that change under their ports, and restarts.

use ipam::{Claim, Ipam, Record, Release, Request, Stranded, SubnetPool, Why};

use crate::{any, ip, pool, refused, status, with};

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
