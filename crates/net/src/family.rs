use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Cidr, IpRange, ParseError, RangeSet};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both families, in the order in which pairs are printed.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Bits of an address: 32 or 128. This is also the longest prefix.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The highest address as a number.
    pub const fn max(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }

    /// The address with this number, if the family has one.
    pub fn address(self, number: u128) -> Option<IpAddr> {
        match self {
            Self::V4 => u32::try_from(number)
                .ok()
                .map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
            Self::V6 => Some(IpAddr::V6(Ipv6Addr::from_bits(number))),
        }
    }

    /// As [`Family::address`] for a number that is known to fit; excess bits are cut off.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "callers derive the number from addresses of this family"
    )]
    pub(crate) const fn address_of(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }

    /// The word that OVN match expressions use for the family's packets: `ip4` or `ip6`.
    pub const fn ovn_prefix(self) -> &'static str {
        match self {
            Self::V4 => "ip4",
            Self::V6 => "ip6",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// `IPv4` or `IPv6`, as in a Subnet's `spec.protocol`.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A value that belongs to one address family.
pub trait HasFamily {
    /// The family that the value belongs to.
    fn family(&self) -> Family;
}

impl HasFamily for IpAddr {
    fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }
}

impl HasFamily for Cidr {
    fn family(&self) -> Family {
        Self::family(*self)
    }
}

impl HasFamily for IpRange {
    fn family(&self) -> Family {
        Self::family(*self)
    }
}

impl HasFamily for RangeSet {
    fn family(&self) -> Family {
        Self::family(self)
    }
}

/// The address as a number; the order of numbers is the order of addresses of one family.
pub const fn to_u128(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Parses an address as upstream does (Go's `net.ParseIP`): dotted quad without leading zeros, or IPv6 without zone;
/// an IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address. Space around the text is ignored.
pub fn parse_ip(text: &str) -> Result<IpAddr, ParseError> {
    text.trim()
        .parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| ParseError::Address {
            text: text.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_go_does() {
        assert_eq!(parse_ip("10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!(parse_ip(" FD00:0::1 ").unwrap().to_string(), "fd00::1");
        assert_eq!(parse_ip("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1");
        // RFC 5952 §5 leaves other embedded IPv4 addresses in hexadecimal.
        assert_eq!(parse_ip("::10.0.0.1").unwrap().to_string(), "::a00:1");
        for bad in [
            "",
            "10.0.0",
            "010.0.0.1",
            "10.0.0.256",
            "fe80::1%eth0",
            "10.0.0.1/24",
            "a",
            "1:2:3",
        ] {
            let error = parse_ip(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn numbers_and_addresses() {
        assert_eq!(Family::V4.address(1 << 32), None);
        for text in ["0.0.0.0", "255.255.255.255", "::", "fd00::1"] {
            let ip = parse_ip(text).unwrap();
            assert_eq!(ip.family().address(to_u128(ip)), Some(ip));
            assert_eq!(ip.family().address_of(to_u128(ip)), ip);
        }
    }
}
