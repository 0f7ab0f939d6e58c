//! What users see: which address a port gets, and what they are told when it gets none.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod changes;
mod requests;

use std::net::IpAddr;

use ipam::{Ipam, IpamError, Request, SubnetPool};
use net::{Mac, parse_ip, parse_ranges};

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
