use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::text::serde_as_text;
use crate::{Family, HasFamily, IpRange, ParseError, to_u128};

/// A block of addresses: a network address and a prefix length. Host bits are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// The block of this length that contains the address; `None` if the length exceeds the family's.
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let family = address.family();
        (prefix_len <= family.bits()).then(|| Self {
            network: family.address_of(to_u128(address) & !host_mask(family, prefix_len)),
            prefix_len,
        })
    }

    /// The block that holds this address alone (/32 or /128).
    pub fn host(address: IpAddr) -> Self {
        Self {
            network: address,
            prefix_len: address.family().bits(),
        }
    }

    /// The network address, that is, the first address.
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// Leading bits that all addresses share.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The family of all its addresses.
    pub const fn family(self) -> Family {
        match self.network {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The first address; the same as [`Cidr::network`].
    pub const fn first(self) -> IpAddr {
        self.network
    }

    /// The last address; in IPv4 the broadcast address.
    pub const fn last(self) -> IpAddr {
        let family = self.family();
        family.address_of(to_u128(self.network) | host_mask(family, self.prefix_len))
    }

    /// All addresses, with the first and the last.
    pub fn all(self) -> IpRange {
        IpRange::ordered(self.first(), self.last())
    }

    /// The addresses that a port can have: all but the first and the last, in both families. A block of one or two
    /// addresses has no room for that and is usable as a whole (RFC 3021, RFC 6164).
    pub fn usable(self) -> IpRange {
        let family = self.family();
        if family.bits() - self.prefix_len < 2 {
            return self.all();
        }
        IpRange::ordered(
            family.address_of(to_u128(self.first()) + 1),
            family.address_of(to_u128(self.last()) - 1),
        )
    }

    /// Whether the address is one of the block's. Never for an address of the other family.
    pub fn contains(self, address: IpAddr) -> bool {
        let family = self.family();
        address.family() == family
            && to_u128(address) & !host_mask(family, self.prefix_len) == to_u128(self.network)
    }

    /// Whether every address of `other` is one of this block's.
    pub fn covers(self, other: Self) -> bool {
        self.prefix_len <= other.prefix_len && self.contains(other.network)
    }

    /// Whether the blocks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

/// The bits below the prefix.
const fn host_mask(family: Family, prefix_len: u8) -> u128 {
    match family.max().checked_shr(prefix_len as u32) {
        Some(mask) => mask,
        None => 0, // an IPv6 prefix of 128 bits
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cidr({self})")
    }
}

/// `address/length`. Host bits may be set and are dropped, as upstream does when it normalises `spec.cidrBlock`.
/// An IPv4-mapped IPv6 prefix is refused: upstream has no meaning for it.
impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::Cidr {
            text: text.to_owned(),
        };
        let (address, length) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        if address != address.to_canonical() {
            return Err(malformed());
        }
        let max = address.family().bits();
        // `u8::from_str` alone would take a sign.
        length
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| length.parse().ok())
            .flatten()
            .and_then(|length| Self::new(address, length))
            .ok_or_else(|| ParseError::PrefixLength {
                text: text.to_owned(),
                length: length.to_owned(),
                max,
            })
    }
}

serde_as_text!(Cidr, "a CIDR such as 10.16.0.0/16");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_ip;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_normalised() {
        for (text, printed) in [
            ("10.16.5.9/16", "10.16.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.0.0.1/32", "10.0.0.1/32"),
            ("FD00:10:16::5/112", "fd00:10:16::/112"),
            ("::/0", "::/0"),
            ("fd00::1/128", "fd00::1/128"),
        ] {
            assert_eq!(cidr(text).to_string(), printed);
            assert_eq!(cidr(printed), cidr(text));
        }
    }

    #[test]
    fn refuses_and_quotes() {
        for (bad, quoted) in [
            ("", "\"\""),
            ("10.16.0.0", "\"10.16.0.0\""),
            ("10.16.0/16", "\"10.16.0/16\""),
            ("10.16.0.0/33", "\"33\""),
            ("10.16.0.0/+8", "\"+8\""),
            ("10.16.0.0/", "\"\""),
            ("10.16.0.0/16/8", "\"16/8\""),
            ("fd00::/129", "\"129\""),
            ("fd00::/256", "\"256\""),
            ("::ffff:10.0.0.0/104", "\"::ffff:10.0.0.0/104\""),
        ] {
            let error = bad.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(quoted), "{error}");
        }
    }

    #[test]
    fn ends_and_usable() {
        for (text, last, usable) in [
            ("10.17.0.0/16", "10.17.255.255", "10.17.0.1..10.17.255.254"),
            ("10.0.0.0/30", "10.0.0.3", "10.0.0.1..10.0.0.2"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.0..10.0.0.1"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
            ("0.0.0.0/0", "255.255.255.255", "0.0.0.1..255.255.255.254"),
            (
                "fd00:10:16::/112",
                "fd00:10:16::ffff",
                "fd00:10:16::1..fd00:10:16::fffe",
            ),
            ("fd00::4/127", "fd00::5", "fd00::4..fd00::5"),
            (
                "::/0",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "::1..ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
            ),
        ] {
            assert_eq!(cidr(text).last().to_string(), last);
            assert_eq!(cidr(text).usable().to_string(), usable);
        }
    }

    #[test]
    fn containment() {
        let a = cidr("10.16.0.0/16");
        assert!(a.contains(parse_ip("10.16.255.255").unwrap()));
        assert!(!a.contains(parse_ip("10.17.0.0").unwrap()));
        assert!(!a.contains(parse_ip("::a10:1").unwrap()));
        assert!(!cidr("::/0").contains(parse_ip("10.0.0.1").unwrap()));
        assert!(a.covers(cidr("10.16.4.0/24")) && !cidr("10.16.4.0/24").covers(a));
        assert!(a.overlaps(cidr("10.0.0.0/8")) && !a.overlaps(cidr("10.17.0.0/16")));
        assert!(!cidr("0.0.0.0/0").overlaps(cidr("::/0")));
    }
}
