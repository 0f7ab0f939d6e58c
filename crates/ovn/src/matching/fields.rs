//! The terms of a match: fields with what each may be compared with, ports, protocols, addresses.

use std::net::IpAddr;

use net::{Cidr, Family, HasFamily, Mac};
use smol_str::{SmolStr, format_smolstr};

use super::expr::{Expr, Op};
use super::symbols::symbol;
use super::values::fits;
use super::{Match, MatchError};

mod sealed {
    pub trait Sealed {}
}

/// A value that a field can be compared with.
pub trait Operand: sealed::Sealed {
    fn operand(self) -> SmolStr;
}

macro_rules! operand {
    ($($ty:ty),*) => {
        $(impl sealed::Sealed for $ty {}

        impl Operand for $ty {
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

    /// Refused if the code has fewer bits than the value.
    pub fn eq(self, value: impl Operand) -> Result<Match, MatchError> {
        checked(self.as_str(), Op::Eq, vec![value.operand()])
    }

    /// One of the values; of no values: never.
    pub fn one_of(
        self,
        values: impl IntoIterator<Item = impl Operand>,
    ) -> Result<Match, MatchError> {
        match sorted(values) {
            values if values.is_empty() => Ok(Match(Expr::Constant(false))),
            values => checked(self.as_str(), Op::Eq, values),
        }
    }
}

/// A comparison that is right by the types of its callers.
fn compare(field: &'static str, op: Op, values: Vec<SmolStr>) -> Match {
    Match(Expr::Compare {
        field: SmolStr::new_static(field),
        op,
        values,
    })
}

/// A comparison of values that may be too large for the field, or of another kind.
fn checked(field: &'static str, op: Op, values: Vec<SmolStr>) -> Result<Match, MatchError> {
    let symbol = symbol(field).ok_or_else(|| MatchError::UnknownField {
        field: field.into(),
    })?;
    match values.iter().find(|v| !fits(symbol, symbol.width(), op, v)) {
        Some(value) => Err(MatchError::Value {
            field: field.into(),
            value: value.clone(),
        }),
        None => Ok(compare(field, op, values)),
    }
}

/// A field with a number or an address as value. A value that is too large for the field, or of another kind (an IPv6
/// address for `ip4.src`), is refused: OVN would leave the rule out.
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

    pub fn eq(self, value: impl Operand) -> Result<Match, MatchError> {
        checked(self.as_str(), Op::Eq, vec![value.operand()])
    }

    pub fn ne(self, value: impl Operand) -> Result<Match, MatchError> {
        checked(self.as_str(), Op::Ne, vec![value.operand()])
    }

    /// One of the values; of no values: never.
    pub fn one_of(
        self,
        values: impl IntoIterator<Item = impl Operand>,
    ) -> Result<Match, MatchError> {
        match sorted(values) {
            values if values.is_empty() => Ok(Match(Expr::Constant(false))),
            values => checked(self.as_str(), Op::Eq, values),
        }
    }

    /// None of the values; of no values: always.
    pub fn none_of(
        self,
        values: impl IntoIterator<Item = impl Operand>,
    ) -> Result<Match, MatchError> {
        match sorted(values) {
            values if values.is_empty() => Ok(Match::always()),
            values => checked(self.as_str(), Op::Ne, values),
        }
    }

    /// One of the elements of an address set. Refused for numbers, which cannot be in one.
    pub fn in_set(self, name: &str) -> Result<Match, MatchError> {
        checked(self.as_str(), Op::Eq, vec![set_name(name)?])
    }

    /// None of the elements of an address set.
    pub fn not_in_set(self, name: &str) -> Result<Match, MatchError> {
        checked(self.as_str(), Op::Ne, vec![set_name(name)?])
    }

    /// From `low` to `high`, both included. Refused if nothing lies between them.
    pub fn between(self, low: u32, high: u32) -> Result<Match, MatchError> {
        let field = self.as_str();
        checked(field, Op::Le, vec![low.operand(), high.operand()])?;
        if low > high {
            return Err(MatchError::Value {
                field: field.into(),
                value: format_smolstr!("{low}..{high}"),
            });
        }
        Ok(between(self, low, high))
    }
}

fn between(field: Field, low: u32, high: u32) -> Match {
    if low == high {
        return compare(field.as_str(), Op::Eq, vec![low.operand()]);
    }
    Match(Expr::Range {
        field: SmolStr::new_static(field.as_str()),
        low: low.operand(),
        high: high.operand(),
    })
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
pub(super) fn quoted(text: &str) -> SmolStr {
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
        compare(self.destination().as_str(), Op::Eq, vec![port.operand()])
    }

    pub fn src(self, port: u16) -> Match {
        compare(self.source().as_str(), Op::Eq, vec![port.operand()])
    }

    /// Destination ports from `first` to `last`, both included.
    pub fn dst_ports(self, first: u16, last: u16) -> Match {
        between(self.destination(), first.into(), last.into())
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
    compare(field.as_str(), Op::Eq, vec![address.operand()])
}

/// To this address or network.
pub fn dst(address: impl Operand + HasFamily) -> Match {
    let field = dst_field(address.family());
    compare(field.as_str(), Op::Eq, vec![address.operand()])
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
