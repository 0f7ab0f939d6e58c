use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::text::serde_as_text;
use crate::{Cidr, Family, HasFamily, ParseError, parse_ip, to_u128};

/// Addresses from first to last, both included. Never empty, and of one family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    /// The range between two addresses. An error if it would run backwards or mix families.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, ParseError> {
        if first.family() != last.family() {
            return Err(ParseError::MixedRange {
                text: format!("{first}..{last}"),
            });
        }
        if first > last {
            return Err(ParseError::BackwardRange { first, last });
        }
        Ok(Self { first, last })
    }

    /// For ends whose order and family are known.
    pub(crate) fn ordered(first: IpAddr, last: IpAddr) -> Self {
        debug_assert!(first.family() == last.family() && first <= last);
        Self { first, last }
    }

    /// One address.
    pub const fn single(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// The lowest address.
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub const fn last(self) -> IpAddr {
        self.last
    }

    /// The family of both ends.
    pub const fn family(self) -> Family {
        match self.first {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// How many addresses there are; all 2¹²⁸ of IPv6 count as `u128::MAX`.
    pub const fn count(self) -> u128 {
        (to_u128(self.last) - to_u128(self.first)).saturating_add(1)
    }

    /// Whether the address is one of them. Never for an address of the other family.
    pub fn contains(self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether every address of `other` is in this range.
    pub fn covers(self, other: Self) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// The addresses that both ranges have, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.family() == other.family() && first <= last).then(|| Self::ordered(first, last))
    }

    /// Whether the ranges have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// Each address, ascending.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let family = self.family();
        (to_u128(self.first)..=to_u128(self.last)).map(move |n| family.address_of(n))
    }
}

impl From<Cidr> for IpRange {
    fn from(cidr: Cidr) -> Self {
        cidr.all()
    }
}

impl From<IpAddr> for IpRange {
    fn from(address: IpAddr) -> Self {
        Self::single(address)
    }
}

/// `first..last`, or the address alone.
impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}..{}", self.first, self.last)
        }
    }
}

impl fmt::Debug for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpRange({self})")
    }
}

/// `first..last`, or the address alone, as in `spec.excludeIps`.
impl FromStr for IpRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let end = |part: &str| {
            parse_ip(part).map_err(|_| ParseError::Range {
                text: text.to_owned(),
                part: part.to_owned(),
            })
        };
        let Some((first, last)) = text.split_once("..") else {
            return parse_ip(text).map(Self::single);
        };
        let (first, last) = (end(first)?, end(last)?);
        if first.family() != last.family() {
            return Err(ParseError::MixedRange {
                text: text.to_owned(),
            });
        }
        Self::new(first, last)
    }
}

serde_as_text!(
    IpRange,
    "an address or a range such as 10.17.0.1..10.17.0.10"
);

/// Parses a list such as `10.17.0.1..10.17.0.10,10.17.0.100`, the form of the annotation `exclude_ips`. Families may
/// be mixed and the order is kept. A blank text is an empty list.
pub fn parse_ranges(text: &str) -> Result<Vec<IpRange>, ParseError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|part| match part.trim() {
            "" => Err(ParseError::EmptyPart {
                text: text.to_owned(),
            }),
            part => part.parse(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    #[test]
    fn text_forms() {
        for (text, printed, count) in [
            ("10.17.0.1..10.17.0.10", "10.17.0.1..10.17.0.10", 10),
            ("10.17.0.1", "10.17.0.1", 1),
            ("10.17.0.1..10.17.0.1", "10.17.0.1", 1),
            (
                "fd00:10:17::1..fd00:10:17::A",
                "fd00:10:17::1..fd00:10:17::a",
                10,
            ),
            (
                "0.0.0.0..255.255.255.255",
                "0.0.0.0..255.255.255.255",
                1 << 32,
            ),
        ] {
            assert_eq!(range(text).to_string(), printed);
            assert_eq!(range(text).count(), count);
            assert_eq!(range(printed), range(text));
        }
        assert_eq!(
            IpRange::from("::/0".parse::<Cidr>().unwrap()).count(),
            u128::MAX
        );
    }

    #[test]
    fn refuses_and_quotes() {
        for (bad, quoted) in [
            ("", "\"\""),
            ("10.17.0.1..", "\"\""),
            ("10.17.0.1..10.17.0", "\"10.17.0\""),
            ("10.17.0.1-10.17.0.9", "\"10.17.0.1-10.17.0.9\""),
            ("10.17.0.1...10.17.0.9", "\".10.17.0.9\""),
            ("10.17.0.1..fd00::1", "\"10.17.0.1..fd00::1\" mixes"),
            ("10.17.0.9..10.17.0.1", "10.17.0.9 comes after 10.17.0.1"),
            ("10.17.0.0/16", "\"10.17.0.0/16\""),
        ] {
            let error = bad.parse::<IpRange>().unwrap_err().to_string();
            assert!(error.contains(quoted), "{error}");
        }
    }

    #[test]
    fn lists() {
        let list = parse_ranges("10.17.0.1..10.17.0.10, 10.17.0.100,fd00::1").unwrap();
        let printed: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(printed, ["10.17.0.1..10.17.0.10", "10.17.0.100", "fd00::1"]);
        assert_eq!(parse_ranges(" ").unwrap(), []);
        let error = parse_ranges("10.17.0.1,,10.17.0.2")
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"10.17.0.1,,10.17.0.2\""), "{error}");
        let error = parse_ranges("10.17.0.1,x").unwrap_err().to_string();
        assert!(error.contains("\"x\""), "{error}");
    }

    #[test]
    fn relations() {
        let a = range("10.0.0.5..10.0.0.9");
        assert_eq!(
            a.intersection(range("10.0.0.8..10.0.0.20")),
            Some(range("10.0.0.8..10.0.0.9"))
        );
        assert_eq!(a.intersection(range("10.0.0.10..10.0.0.20")), None);
        assert_eq!(a.intersection(range("::5..::9")), None);
        assert!(a.covers(range("10.0.0.6")) && !a.covers(range("10.0.0.6..10.0.0.10")));
        assert_eq!(range("10.0.0.254..10.0.1.1").iter().count(), 4);
    }
}
