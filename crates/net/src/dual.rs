use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Cidr, Family, HasFamily, IpRange, ParseError, parse_ip};

/// At most one value of each family, such as the addresses of a port or the CIDRs of a subnet.
///
/// The text form of addresses, CIDRs and ranges is `v4,v6`; it is read in either order and printed with IPv4 first.
/// The pair without values has the empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DualStack<T> {
    /// The IPv4 value.
    pub v4: Option<T>,
    /// The IPv6 value.
    pub v6: Option<T>,
}

/// The families of a subnet, in the words of `spec.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// IPv4 alone
    IPv4,
    /// IPv6 alone
    IPv6,
    /// Both families
    Dual,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
            Self::Dual => "Dual",
        })
    }
}

impl<T> DualStack<T> {
    /// No value.
    pub const NONE: Self = Self { v4: None, v6: None };

    /// A value for each family or for one of them.
    pub const fn new(v4: Option<T>, v6: Option<T>) -> Self {
        Self { v4, v6 }
    }

    /// One value, in the place of the given family.
    pub fn single(family: Family, value: T) -> Self {
        let mut pair = Self::NONE;
        pair.set(family, Some(value));
        pair
    }

    /// A value for each family, made by the function.
    pub fn from_fn(mut make: impl FnMut(Family) -> Option<T>) -> Self {
        Self {
            v4: make(Family::V4),
            v6: make(Family::V6),
        }
    }

    /// The value of the family.
    pub const fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// The value of the family, for a change.
    pub const fn get_mut(&mut self, family: Family) -> Option<&mut T> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    /// Puts a value in the place of the family, or takes it away; the one that was there.
    pub fn set(&mut self, family: Family, value: Option<T>) -> Option<T> {
        let place = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        std::mem::replace(place, value)
    }

    /// Whether there is no value at all.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether both families have a value.
    pub const fn is_dual(&self) -> bool {
        self.v4.is_some() && self.v6.is_some()
    }

    /// The values, IPv4 first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.v4.iter().chain(&self.v6)
    }

    /// The values with their families, IPv4 first.
    pub fn by_family(&self) -> impl DoubleEndedIterator<Item = (Family, &T)> {
        let v4 = self.v4.iter().map(|value| (Family::V4, value));
        v4.chain(self.v6.iter().map(|value| (Family::V6, value)))
    }

    /// The families that have a value, IPv4 first.
    pub fn families(&self) -> impl DoubleEndedIterator<Item = Family> {
        self.by_family().map(|(family, _)| family)
    }

    /// The pair of the function's results.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> DualStack<U> {
        DualStack {
            v4: self.v4.map(&mut f),
            v6: self.v6.map(&mut f),
        }
    }

    /// The pair of references to the values.
    pub const fn as_ref(&self) -> DualStack<&T> {
        DualStack {
            v4: self.v4.as_ref(),
            v6: self.v6.as_ref(),
        }
    }

    /// The first value, IPv4 before IPv6.
    pub const fn primary(&self) -> Option<&T> {
        match (&self.v4, &self.v6) {
            (Some(value), _) | (None, Some(value)) => Some(value),
            (None, None) => None,
        }
    }

    /// `spec.protocol` for these families; `None` without a value.
    pub const fn protocol(&self) -> Option<Protocol> {
        match (&self.v4, &self.v6) {
            (Some(_), None) => Some(Protocol::IPv4),
            (None, Some(_)) => Some(Protocol::IPv6),
            (Some(_), Some(_)) => Some(Protocol::Dual),
            (None, None) => None,
        }
    }
}

impl<T: HasFamily> DualStack<T> {
    /// Puts each value in its place; a second value of a family is handed back.
    pub fn from_values(values: impl IntoIterator<Item = T>) -> Result<Self, T> {
        let mut pair = Self::NONE;
        for value in values {
            let family = value.family();
            if pair.get(family).is_some() {
                return Err(value);
            }
            pair.set(family, Some(value));
        }
        Ok(pair)
    }
}

impl DualStack<Cidr> {
    /// Whether the address lies in the block of its family.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.iter().any(|cidr| cidr.contains(address))
    }
}

/// No value.
impl<T> Default for DualStack<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T: HasFamily> From<T> for DualStack<T> {
    fn from(value: T) -> Self {
        Self::single(value.family(), value)
    }
}

impl<T> IntoIterator for DualStack<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::option::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.v4.into_iter().chain(self.v6)
    }
}

impl<T: fmt::Display> fmt::Display for DualStack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4},{v6}"),
            (Some(one), None) | (None, Some(one)) => one.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// A value that stands in a pair's text.
trait Part: HasFamily + Sized {
    fn parse_part(text: &str) -> Result<Self, ParseError>;
}

impl Part for IpAddr {
    fn parse_part(text: &str) -> Result<Self, ParseError> {
        parse_ip(text)
    }
}

impl Part for Cidr {
    fn parse_part(text: &str) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl Part for IpRange {
    fn parse_part(text: &str) -> Result<Self, ParseError> {
        text.parse()
    }
}

fn parse_pair<T: Part>(text: &str) -> Result<DualStack<T>, ParseError> {
    let mut pair = DualStack::NONE;
    if text.trim().is_empty() {
        return Ok(pair);
    }
    let count = text.split(',').count();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(ParseError::EmptyPart {
                text: text.to_owned(),
            });
        }
        let value = T::parse_part(part)?;
        let family = value.family();
        if count > 2 {
            return Err(ParseError::TooMany {
                text: text.to_owned(),
                count,
            });
        }
        if pair.set(family, Some(value)).is_some() {
            return Err(ParseError::SameFamily {
                text: text.to_owned(),
                family,
            });
        }
    }
    Ok(pair)
}

/// Text forms of a pair of the given type.
macro_rules! pair_text {
    ($type:ty, $expecting:literal) => {
        impl FromStr for DualStack<$type> {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                parse_pair(text)
            }
        }

        crate::text::serde_as_text!(DualStack<$type>, $expecting);
    };
}

pair_text!(
    IpAddr,
    "an address, or an IPv4 and an IPv6 address with a comma between"
);
pair_text!(
    Cidr,
    "a CIDR, or an IPv4 and an IPv6 CIDR with a comma between"
);
pair_text!(
    IpRange,
    "a range, or an IPv4 and an IPv6 range with a comma between"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        for (text, printed, protocol) in [
            ("10.16.0.0/16", "10.16.0.0/16", Some(Protocol::IPv4)),
            ("fd00:10:16::/112", "fd00:10:16::/112", Some(Protocol::IPv6)),
            (
                "fd00:10:16::/112, 10.16.0.0/16",
                "10.16.0.0/16,fd00:10:16::/112",
                Some(Protocol::Dual),
            ),
            ("", "", None),
        ] {
            let pair: DualStack<Cidr> = text.parse().unwrap();
            assert_eq!(pair.to_string(), printed);
            assert_eq!(pair.protocol(), protocol);
            assert_eq!(printed.parse::<DualStack<Cidr>>().unwrap(), pair);
            let json = serde_json::to_string(&pair).unwrap();
            assert_eq!(
                serde_json::from_str::<DualStack<Cidr>>(&json).unwrap(),
                pair
            );
        }
    }

    #[test]
    fn refuses_and_quotes() {
        for (bad, quoted) in [
            ("10.0.0.1,10.0.0.2", "two IPv4 values"),
            ("10.0.0.1,fd00::1,fd00::2", "3 parts"),
            ("10.0.0.1,", "\"10.0.0.1,\""),
            (",", "\",\""),
            ("10.0.0.1;fd00::1", "\"10.0.0.1;fd00::1\""),
            ("10.0.0.1,fd00::x", "\"fd00::x\""),
        ] {
            let error = bad.parse::<DualStack<IpAddr>>().unwrap_err().to_string();
            assert!(error.contains(quoted), "{error}");
        }
    }

    #[test]
    fn access() {
        let pair: DualStack<IpAddr> = "10.0.0.1,fd00::1".parse().unwrap();
        assert_eq!(pair.get(Family::V6), pair.v6.as_ref());
        assert!(pair.is_dual() && !pair.is_empty());
        assert_eq!(pair.families().collect::<Vec<_>>(), Family::ALL);
        assert_eq!(pair.primary(), pair.v4.as_ref());
        assert_eq!(pair.map(|ip| ip.to_string()).v6.as_deref(), Some("fd00::1"));
        assert_eq!(DualStack::from_values(pair), Ok(pair));
        let twice = pair.into_iter().chain(pair.v6);
        assert_eq!(DualStack::from_values(twice), Err(pair.v6.unwrap()));
    }
}
