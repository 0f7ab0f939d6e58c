//! Match expressions (ovn-sb(5), "Logical_Flow, match"): built from typed parts, printed in one canonical form.
//!
//! A match that OVN cannot parse is accepted by the northbound database and by ovn-northd; only ovn-controller logs it
//! and leaves the flow out, so that **a rule fails open**. Here such a match cannot be built, and a user's own text is
//! checked by [`Match::parse`] before it is written:
//!
//! * ports, protocols and codes (`ip.proto`, `icmp6.type`, ...) can only be tested for equality, and not under `!`;
//! * `&&` and `||` are never mixed without parentheses;
//! * names of port groups and address sets follow OVN's rules for identifiers.
//!
//! ```
//! use ovn::matching::{Match, OutPort, Proto, dst, ip, src_set};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pods = OutPort::group("np.default")?;
//! assert_eq!(pods.and(ip()).to_string(), "outport == @np.default && ip");
//! assert_eq!(dst("10.16.0.0/16".parse::<net::Cidr>()?).to_string(), "ip4.dst == 10.16.0.0/16");
//! let web = src_set(net::Family::V4, "web_ip4")?.and(Proto::Tcp.dst_ports(80, 90));
//! assert_eq!(web.to_string(), "ip4.src == $web_ip4 && 80 <= tcp.dst <= 90");
//! assert!(Match::parse("outport != \"s2-r0\" && ip").is_err());
//! # Ok(())
//! # }
//! ```

mod expr;
mod fields;
mod parse;
mod symbols;
mod values;

use std::fmt;

use expr::Expr;
use smol_str::{SmolStr, format_smolstr};

pub use fields::{
    Code, Field, InPort, Operand, OutPort, Proto, arp, dst, dst_field, dst_set, group_addresses,
    icmp4, icmp6, identifier, ip, ip_of, src, src_field, src_set,
};

/// A match expression that OVN understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Match(Expr);

/// Why a text is no match expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    #[error(
        "{name:?} is no name of a port group or address set: letters, digits, '_' and '.', not beginning with a digit"
    )]
    Name { name: SmolStr },
    #[error(
        "{field} may only be tested for equality and not under '!': OVN leaves such a rule out when it is installed, and what it should close stays open"
    )]
    NotEqual { field: SmolStr },
    #[error("at {at:?}: {reason}")]
    Syntax { at: SmolStr, reason: &'static str },
    #[error("unknown field {field:?}")]
    UnknownField { field: SmolStr },
    #[error("{field} cannot be compared with {value}")]
    Value { field: SmolStr, value: SmolStr },
}

impl Match {
    /// Every packet.
    pub fn always() -> Self {
        Self(Expr::Constant(true))
    }

    /// Reads a match that a user wrote, and refuses what OVN would refuse later and silently.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        parse::parse(text).map(Self)
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: impl Into<Self>) -> Self {
        Self::all([self, other.into()])
    }

    /// At least one holds.
    #[must_use]
    pub fn or(self, other: impl Into<Self>) -> Self {
        Self::any([self, other.into()])
    }

    /// All hold; of nothing: always. The order is kept.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut terms = Vec::new();
        for Self(part) in parts {
            match part {
                Expr::Constant(true) => {}
                Expr::All(inner) => terms.extend(inner),
                other => terms.push(other),
            }
        }
        match terms.len() {
            0 => Self::always(),
            1 => Self(terms.swap_remove(0)),
            _ => Self(Expr::All(terms)),
        }
    }

    /// At least one holds; of nothing: never. The order is kept.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut terms = Vec::new();
        for Self(part) in parts {
            match part {
                Expr::Constant(false) => {}
                Expr::Any(inner) => terms.extend(inner),
                other => terms.push(other),
            }
        }
        match terms.len() {
            0 => Self(Expr::Constant(false)),
            1 => Self(terms.swap_remove(0)),
            _ => Self(Expr::Any(terms)),
        }
    }

    /// It does not hold. Refused for tests of ports, protocols and codes, which OVN does not allow under `!`.
    ///
    /// What a field needs stays: `!(ip4.src == 10.0.0.1)` is every other IPv4 packet, and no IPv6 packet (ovn-sb(5),
    /// "prerequisites").
    pub fn negated(self) -> Result<Self, MatchError> {
        if let Some(field) = self.0.nominal() {
            return Err(MatchError::NotEqual { field });
        }
        Ok(Self(match self.0 {
            Expr::Constant(value) => Expr::Constant(!value),
            Expr::Not(inner) => *inner,
            other => Expr::Not(Box::new(other)),
        }))
    }
}
impl From<Match> for SmolStr {
    fn from(expression: Match) -> Self {
        format_smolstr!("{expression}")
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
