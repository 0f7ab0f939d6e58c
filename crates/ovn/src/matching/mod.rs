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

mod parse;
mod symbols;

use std::fmt;
use std::net::IpAddr;

use net::{Cidr, Family, HasFamily, Mac};
use smol_str::{SmolStr, format_smolstr};
use symbols::{Symbol, symbol};

/// A match expression that OVN understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Match(Expr);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Expr {
    /// `1` or `0`.
    Constant(bool),
    /// A predicate, or a one-bit field.
    Bare(SmolStr),
    Compare {
        field: SmolStr,
        op: Op,
        values: Vec<SmolStr>,
    },
    /// `low <= field <= high`.
    Range {
        field: SmolStr,
        low: SmolStr,
        high: SmolStr,
    },
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

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

impl Expr {
    /// The first field that must not be under `!`.
    fn nominal(&self) -> Option<SmolStr> {
        match self {
            Self::Bare(field) | Self::Compare { field, .. } | Self::Range { field, .. } => {
                let name = field.split('[').next().unwrap_or_default();
                symbol(name)
                    .is_none_or(Symbol::is_nominal)
                    .then(|| field.clone())
            }
            Self::Not(inner) => inner.nominal(),
            Self::All(terms) | Self::Any(terms) => terms.iter().find_map(Self::nominal),
            Self::Constant(_) => None,
        }
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

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => f.write_str(if *value { "1" } else { "0" }),
            Self::Bare(name) => f.write_str(name),
            Self::Compare { field, op, values } => {
                write!(f, "{field} {} ", op.as_str())?;
                match values.as_slice() {
                    [value] => f.write_str(value),
                    values => write!(f, "{{{}}}", values.join(", ")),
                }
            }
            Self::Range { field, low, high } => write!(f, "{low} <= {field} <= {high}"),
            Self::Not(inner) => match **inner {
                Self::Bare(_) => write!(f, "!{inner}"),
                _ => write!(f, "!({inner})"),
            },
            Self::All(terms) => join(f, terms, " && "),
            Self::Any(terms) => join(f, terms, " || "),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, terms: &[Expr], operator: &str) -> fmt::Result {
    for (i, term) in terms.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        match term {
            Expr::All(_) | Expr::Any(_) => write!(f, "({term})")?,
            term => write!(f, "{term}")?,
        }
    }
    Ok(())
}

/// A value that a field can be compared with.
pub trait Operand {
    fn operand(self) -> SmolStr;
}

macro_rules! operand {
    ($($ty:ty),*) => {
        $(impl Operand for $ty {
            fn operand(self) -> SmolStr {
                format_smolstr!("{self}")
            }
        })*
    };
}

operand!(u8, u16, u32, u64, IpAddr, Cidr, Mac);

/// A field with a code as value. There is no "is not": OVN has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    ArpOp,
    EthType,
    Icmp4Code,
    Icmp4Type,
    Icmp6Code,
    Icmp6Type,
    IpDscp,
    IpProto,
    IpTtl,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ArpOp => "arp.op",
            Self::EthType => "eth.type",
            Self::Icmp4Code => "icmp4.code",
            Self::Icmp4Type => "icmp4.type",
            Self::Icmp6Code => "icmp6.code",
            Self::Icmp6Type => "icmp6.type",
            Self::IpDscp => "ip.dscp",
            Self::IpProto => "ip.proto",
            Self::IpTtl => "ip.ttl",
        }
    }

    pub fn eq(self, value: impl Operand) -> Match {
        compare(self.as_str(), Op::Eq, vec![value.operand()])
    }

    /// One of the values; of no values: never.
    pub fn one_of(self, values: impl IntoIterator<Item = impl Operand>) -> Match {
        match sorted(values) {
            values if values.is_empty() => Match(Expr::Constant(false)),
            values => compare(self.as_str(), Op::Eq, values),
        }
    }
}

fn compare(field: &'static str, op: Op, values: Vec<SmolStr>) -> Match {
    Match(Expr::Compare {
        field: SmolStr::new_static(field),
        op,
        values,
    })
}

/// A field with a number or an address as value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    ArpSpa,
    ArpTpa,
    CtMark,
    EthDst,
    EthSrc,
    Ip4Dst,
    Ip4Src,
    Ip6Dst,
    Ip6Src,
    NdTarget,
    PktMark,
    SctpDst,
    SctpSrc,
    TcpDst,
    TcpSrc,
    UdpDst,
    UdpSrc,
    VlanVid,
}

impl Field {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ArpSpa => "arp.spa",
            Self::ArpTpa => "arp.tpa",
            Self::CtMark => "ct_mark",
            Self::EthDst => "eth.dst",
            Self::EthSrc => "eth.src",
            Self::Ip4Dst => "ip4.dst",
            Self::Ip4Src => "ip4.src",
            Self::Ip6Dst => "ip6.dst",
            Self::Ip6Src => "ip6.src",
            Self::NdTarget => "nd.target",
            Self::PktMark => "pkt.mark",
            Self::SctpDst => "sctp.dst",
            Self::SctpSrc => "sctp.src",
            Self::TcpDst => "tcp.dst",
            Self::TcpSrc => "tcp.src",
            Self::UdpDst => "udp.dst",
            Self::UdpSrc => "udp.src",
            Self::VlanVid => "vlan.vid",
        }
    }

    pub fn eq(self, value: impl Operand) -> Match {
        self.compare(Op::Eq, vec![value.operand()])
    }

    pub fn ne(self, value: impl Operand) -> Match {
        self.compare(Op::Ne, vec![value.operand()])
    }

    /// One of the values; of no values: never.
    pub fn one_of(self, values: impl IntoIterator<Item = impl Operand>) -> Match {
        match sorted(values) {
            values if values.is_empty() => Match(Expr::Constant(false)),
            values => self.compare(Op::Eq, values),
        }
    }

    /// None of the values; of no values: always.
    pub fn none_of(self, values: impl IntoIterator<Item = impl Operand>) -> Match {
        match sorted(values) {
            values if values.is_empty() => Match::always(),
            values => self.compare(Op::Ne, values),
        }
    }

    /// One of the elements of an address set.
    pub fn in_set(self, name: &str) -> Result<Match, MatchError> {
        Ok(self.compare(Op::Eq, vec![set_name(name)?]))
    }

    /// None of the elements of an address set.
    pub fn not_in_set(self, name: &str) -> Result<Match, MatchError> {
        Ok(self.compare(Op::Ne, vec![set_name(name)?]))
    }

    /// From `low` to `high`, both included.
    pub fn between(self, low: u32, high: u32) -> Match {
        if low == high {
            return self.eq(low);
        }
        Match(Expr::Range {
            field: SmolStr::new_static(self.as_str()),
            low: low.operand(),
            high: high.operand(),
        })
    }

    fn compare(self, op: Op, values: Vec<SmolStr>) -> Match {
        compare(self.as_str(), op, values)
    }
}

/// Distinct values in the order of their numbers where they are numbers, else of their texts.
fn sorted(values: impl IntoIterator<Item = impl Operand>) -> Vec<SmolStr> {
    let mut values: Vec<_> = values.into_iter().map(Operand::operand).collect();
    values.sort_by(|a, b| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    });
    values.dedup();
    values
}

fn set_name(name: &str) -> Result<SmolStr, MatchError> {
    identifier(name)?;
    Ok(format_smolstr!("${name}"))
}

/// Checks the name of a port group or an address set.
pub fn identifier(name: &str) -> Result<(), MatchError> {
    let mut letters = name.chars();
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '.';
    let good =
        letters.next().is_some_and(letter) && letters.all(|c| letter(c) || c.is_ascii_digit());
    if good {
        Ok(())
    } else {
        Err(MatchError::Name { name: name.into() })
    }
}

macro_rules! port_field {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        pub struct $name;

        impl $name {
            /// Exactly this logical port.
            pub fn is(name: &str) -> Match {
                Self::values(vec![quoted(name)])
            }

            /// One of these logical ports; of none: never.
            pub fn one_of<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Match {
                let mut values: Vec<_> = names.into_iter().map(|n| quoted(n.as_ref())).collect();
                values.sort();
                values.dedup();
                if values.is_empty() {
                    return Match(Expr::Constant(false));
                }
                Self::values(values)
            }

            /// A member of this port group.
            pub fn group(name: &str) -> Result<Match, MatchError> {
                identifier(name)?;
                Ok(Self::values(vec![format_smolstr!("@{name}")]))
            }

            fn values(values: Vec<SmolStr>) -> Match {
                Match(Expr::Compare {
                    field: SmolStr::new_static($field),
                    op: Op::Eq,
                    values,
                })
            }
        }
    };
}

port_field! {
    /// The logical port that a packet came in by. There is no "is not": OVN has none.
    InPort, "inport"
}

port_field! {
    /// The logical port that a packet leaves by. There is no "is not": OVN has none.
    OutPort, "outport"
}

/// A text constant as OVN's lexer reads it (JSON's escapes).
fn quoted(text: &str) -> SmolStr {
    serde_json::Value::String(text.to_owned())
        .to_string()
        .into()
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    Tcp,
    Udp,
    Sctp,
}

impl Proto {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Every packet of the protocol.
    pub fn any(self) -> Match {
        bare(self.as_str())
    }

    pub fn dst(self, port: u16) -> Match {
        self.destination().eq(port)
    }

    pub fn src(self, port: u16) -> Match {
        self.source().eq(port)
    }

    /// Destination ports from `first` to `last`, both included.
    pub fn dst_ports(self, first: u16, last: u16) -> Match {
        self.destination().between(first.into(), last.into())
    }

    fn destination(self) -> Field {
        match self {
            Self::Tcp => Field::TcpDst,
            Self::Udp => Field::UdpDst,
            Self::Sctp => Field::SctpDst,
        }
    }

    fn source(self) -> Field {
        match self {
            Self::Tcp => Field::TcpSrc,
            Self::Udp => Field::UdpSrc,
            Self::Sctp => Field::SctpSrc,
        }
    }
}

fn bare(name: &'static str) -> Match {
    Match(Expr::Bare(SmolStr::new_static(name)))
}

/// Every IP packet of either family.
pub fn ip() -> Match {
    bare("ip")
}

/// Every IP packet of one family.
pub fn ip_of(family: Family) -> Match {
    bare(match family {
        Family::V4 => "ip4",
        Family::V6 => "ip6",
    })
}

pub fn arp() -> Match {
    bare("arp")
}

pub fn icmp4() -> Match {
    bare("icmp4")
}

pub fn icmp6() -> Match {
    bare("icmp6")
}

/// The source address field of a family.
pub fn src_field(family: Family) -> Field {
    match family {
        Family::V4 => Field::Ip4Src,
        Family::V6 => Field::Ip6Src,
    }
}

/// The destination address field of a family.
pub fn dst_field(family: Family) -> Field {
    match family {
        Family::V4 => Field::Ip4Dst,
        Family::V6 => Field::Ip6Dst,
    }
}

/// From this address or network.
pub fn src(address: impl Operand + HasFamily) -> Match {
    let field = src_field(address.family());
    field.eq(address)
}

/// To this address or network.
pub fn dst(address: impl Operand + HasFamily) -> Match {
    let field = dst_field(address.family());
    field.eq(address)
}

/// From an address in the address set.
pub fn src_set(family: Family, name: &str) -> Result<Match, MatchError> {
    src_field(family).in_set(name)
}

/// To an address in the address set.
pub fn dst_set(family: Family, name: &str) -> Result<Match, MatchError> {
    dst_field(family).in_set(name)
}

/// The address set of one family that OVN keeps for a port group.
pub fn group_addresses(family: Family, group: &str) -> SmolStr {
    match family {
        Family::V4 => format_smolstr!("{group}_ip4"),
        Family::V6 => format_smolstr!("{group}_ip6"),
    }
}
