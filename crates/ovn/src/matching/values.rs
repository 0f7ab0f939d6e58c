//! What a field can be compared with.

use std::net::IpAddr;

use net::{Cidr, Family, Mac};

use super::expr::Op;
use super::symbols::Symbol;

/// How a constant is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    Number,
    Ip(Family),
    Mac,
}

/// A constant, with or without a mask.
struct Constant {
    notation: Notation,
    /// Bits that it needs.
    bits: u32,
}

/// Whether OVN's lexer takes the word for a constant.
pub(super) fn is_constant(word: &str) -> bool {
    constant(word).is_some()
}

/// Whether a field can be compared with a value, and whether that means anything: an IPv6 field is never equal to an
/// IPv4 address, which OVN takes all the same.
pub(super) fn fits(symbol: Symbol, width: Option<u32>, op: Op, value: &str) -> bool {
    match (value.chars().next(), symbol) {
        (Some('"' | '@'), symbol) => symbol == Symbol::Port,
        (Some('$'), Symbol::Address(_)) => matches!(op, Op::Eq | Op::Ne),
        (Some('$'), _) => false,
        _ => match (constant(value), width) {
            (Some(constant), Some(width)) => {
                let meant = match (symbol, constant.notation) {
                    (Symbol::Address(width), Notation::Ip(Family::V4)) => width == 32,
                    (Symbol::Address(width), Notation::Ip(Family::V6)) => width == 128,
                    (Symbol::Address(width), Notation::Mac) => width == 48,
                    _ => true,
                };
                // A protocol that is not is not expressed as 0.
                let plain = symbol != Symbol::Protocol || value == "1";
                constant.bits <= width && meant && plain
            }
            _ => false,
        },
    }
}

fn constant(word: &str) -> Option<Constant> {
    let Some((value, mask)) = word.split_once('/') else {
        return plain(word);
    };
    // A prefix length goes with an address alone.
    if let Ok(cidr) = word.parse::<Cidr>() {
        return Some(Constant {
            notation: Notation::Ip(cidr.family()),
            bits: match cidr.family() {
                Family::V4 => 32,
                Family::V6 => 128,
            },
        });
    }
    let (value, mask) = (plain(value)?, plain(mask)?);
    Some(Constant {
        notation: value.notation,
        bits: value.bits.max(mask.bits),
    })
}

/// An integer, an address or a MAC.
fn plain(text: &str) -> Option<Constant> {
    let number = |number: u128, notation| Constant {
        notation,
        bits: 128 - number.leading_zeros(),
    };
    if text.starts_with('+') {
        return None;
    }
    if let Ok(value) = text.parse::<u128>() {
        return Some(number(value, Notation::Number));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        let value = u128::from_str_radix(hex, 16).ok()?;
        return (!hex.starts_with('+')).then(|| number(value, Notation::Number));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V4(a) => number(a.to_bits().into(), Notation::Ip(Family::V4)),
            IpAddr::V6(a) => number(a.to_bits(), Notation::Ip(Family::V6)),
        });
    }
    let mac = text.parse::<Mac>().ok()?;
    let hex = mac.to_string().replace(':', "");
    let value = u128::from_str_radix(&hex, 16).ok()?;
    Some(number(value, Notation::Mac))
}
