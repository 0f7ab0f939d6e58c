use std::net::IpAddr;

use crate::Family;

/// Why a text is not the value that was asked for. The message always quotes the offending part of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an IP address.
    #[error("{text:?} is not an IP address")]
    Address {
        /// The text as it was given.
        text: String,
    },
    /// Not six bytes of hexadecimal digits.
    #[error("{text:?} is not a MAC address (want six bytes such as 0a:58:0a:10:00:05)")]
    Mac {
        /// The text as it was given.
        text: String,
    },
    /// Not `address/prefix length`.
    #[error("{text:?} is not a CIDR (want an address and a prefix length such as {example})", example = example_cidr(text))]
    Cidr {
        /// The text as it was given.
        text: String,
    },
    /// The prefix length does not fit the family.
    #[error("prefix length {length:?} of CIDR {text:?} is not a number from 0 to {max}")]
    PrefixLength {
        /// The whole CIDR as it was given.
        text: String,
        /// The part behind the slash.
        length: String,
        /// The longest prefix of the family.
        max: u8,
    },
    /// Not `a` or `a..b`.
    #[error("{part:?} in range {text:?} is not an IP address (want one address, or first..last)")]
    Range {
        /// The whole range as it was given.
        text: String,
        /// The end of the range that is wrong.
        part: String,
    },
    /// The ends of a range are of two families.
    #[error("range {text:?} mixes IPv4 and IPv6")]
    MixedRange {
        /// The whole range as it was given.
        text: String,
    },
    /// A range runs backwards.
    #[error("range {first}..{last} is backwards: {first} comes after {last}")]
    BackwardRange {
        /// The end that was written first.
        first: IpAddr,
        /// The end that was written last.
        last: IpAddr,
    },
    /// A pair names one family twice.
    #[error("{text:?} has two {family} values (want at most one of each family)")]
    SameFamily {
        /// The whole pair as it was given.
        text: String,
        /// The family that occurs twice.
        family: Family,
    },
    /// A pair has more than two parts.
    #[error(
        "{text:?} has {count} parts (want one value, or an IPv4 and an IPv6 value with a comma between)"
    )]
    TooMany {
        /// The whole pair as it was given.
        text: String,
        /// How many parts it has.
        count: usize,
    },
    /// Nothing between two commas, or a comma at an end.
    #[error("{text:?} has an empty part between commas")]
    EmptyPart {
        /// The whole list as it was given.
        text: String,
    },
}

fn example_cidr(text: &str) -> &'static str {
    if text.contains(':') {
        "fd00:10:16::/112"
    } else {
        "10.16.0.0/16"
    }
}
