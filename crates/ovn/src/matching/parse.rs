//! Reads match expressions that users write (`acls` of a Subnet) as strictly as ovn-controller will.

use std::net::IpAddr;

use net::{Cidr, Mac};
use smol_str::SmolStr;

use super::{Expr, MatchError, Op, identifier, is_port, quoted};

/// Fields and predicates of ovn-sb(5); those that end with `*` stand for a family of names.
const SYMBOLS: &[&str] = &[
    "arp",
    "arp.*",
    "bfd.*",
    "ct.*",
    "ct_label",
    "ct_label.*",
    "ct_mark",
    "ct_mark.*",
    "ct_state",
    "eth.bcast",
    "eth.dst",
    "eth.mcast",
    "eth.mcastv6",
    "eth.src",
    "eth.type",
    "flags.*",
    "garp",
    "garp_*",
    "icmp",
    "icmp4",
    "icmp4.*",
    "icmp6",
    "icmp6.*",
    "igmp",
    "inport",
    "ip",
    "ip.dscp",
    "ip.ecn",
    "ip.first_frag",
    "ip.frag",
    "ip.is_frag",
    "ip.later_frag",
    "ip.proto",
    "ip.ttl",
    "ip4",
    "ip4.bcast",
    "ip4.dst",
    "ip4.mcast",
    "ip4.src",
    "ip4.src_mcast",
    "ip6",
    "ip6.dst",
    "ip6.label",
    "ip6.mcast",
    "ip6.src",
    "mldv1",
    "mldv2",
    "nd",
    "nd.*",
    "nd_na",
    "nd_na_rsp",
    "nd_ns",
    "nd_ns_mcast",
    "nd_ra",
    "nd_rs",
    "outport",
    "pkt.mark",
    "rarp",
    "rarp.*",
    "reg*",
    "sctp",
    "sctp.*",
    "tcp",
    "tcp.*",
    "udp",
    "udp.*",
    "vlan.pcp",
    "vlan.present",
    "vlan.tci",
    "vlan.vid",
    "xreg*",
    "xxreg*",
];

/// Deep enough for any rule, shallow enough for the stack.
const MAX_DEPTH: usize = 64;

pub(super) fn parse(text: &str) -> Result<Expr, MatchError> {
    let mut parser = Parser { rest: text.trim() };
    let expr = parser.expression(0)?;
    if !parser.rest.is_empty() {
        return Err(parser.error("expected the end, && or ||"));
    }
    Ok(expr)
}

struct Parser<'a> {
    rest: &'a str,
}

/// One side of a comparison.
enum Side {
    Field(SmolStr),
    Values(Vec<SmolStr>),
}

impl<'a> Parser<'a> {
    fn error(&self, reason: &'static str) -> MatchError {
        MatchError::Syntax {
            at: self.rest.chars().take(20).collect(),
            reason,
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expression(&mut self, depth: usize) -> Result<Expr, MatchError> {
        if depth > MAX_DEPTH {
            return Err(self.error("too many parentheses"));
        }
        let first = self.term(depth)?;
        let (operator, other, all) = if self.rest.starts_with("&&") {
            ("&&", "||", true)
        } else if self.rest.starts_with("||") {
            ("||", "&&", false)
        } else {
            return Ok(first);
        };
        let mut terms = vec![first];
        while self.eat(operator) {
            terms.push(self.term(depth)?);
        }
        if self.rest.starts_with(other) {
            return Err(self.error("&& and || must not be mixed without parentheses"));
        }
        Ok(if all {
            Expr::All(terms)
        } else {
            Expr::Any(terms)
        })
    }

    fn term(&mut self, depth: usize) -> Result<Expr, MatchError> {
        if self.rest.starts_with('!') && !self.rest.starts_with("!=") {
            self.eat("!");
            if depth > MAX_DEPTH {
                return Err(self.error("too many negations"));
            }
            let inner = self.term(depth + 1)?;
            return match inner.port() {
                Some(field) => Err(MatchError::PortNotEqual { field }),
                None => Ok(Expr::Not(Box::new(inner))),
            };
        }
        if self.eat("(") {
            let inner = self.expression(depth + 1)?;
            if !self.eat(")") {
                return Err(self.error("expected )"));
            }
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, MatchError> {
        let left = self.side()?;
        let Some(op) = self.operator() else {
            return match left {
                Side::Field(field) if is_port(&field) => {
                    Err(self.error("a port has to be compared with a name"))
                }
                Side::Field(field) => Ok(Expr::Bare(field)),
                Side::Values(values) => match values.as_slice() {
                    [one] if one == "1" => Ok(Expr::Constant(true)),
                    [zero] if zero == "0" => Ok(Expr::Constant(false)),
                    _ => Err(self.error("expected a comparison")),
                },
            };
        };
        let right = self.side()?;
        match (left, right) {
            (Side::Field(field), Side::Values(values)) => self.compare(field, op, values),
            (Side::Values(values), Side::Field(field)) => {
                if matches!(op, Op::Lt | Op::Le)
                    && let Some(second) = self.operator()
                {
                    if !matches!(second, Op::Lt | Op::Le) {
                        return Err(self.error("a range goes upwards: low <= field <= high"));
                    }
                    return self.range(&values, op, field, second);
                }
                self.compare(field, flipped(op), values)
            }
            (Side::Field(_), Side::Field(_)) => Err(self.error("one side has to be a constant")),
            (Side::Values(_), Side::Values(_)) => Err(self.error("one side has to be a field")),
        }
    }

    fn range(
        &mut self,
        low: &[SmolStr],
        first: Op,
        field: SmolStr,
        second: Op,
    ) -> Result<Expr, MatchError> {
        let high = self.side()?;
        match (low, high) {
            ([low], Side::Values(values)) if values.len() == 1 && !is_port(&field) => {
                let high = values[0].clone();
                if first == Op::Le && second == Op::Le {
                    return Ok(Expr::Range {
                        field,
                        low: low.clone(),
                        high,
                    });
                }
                let part = |op, value: &SmolStr| Expr::Compare {
                    field: field.clone(),
                    op,
                    values: vec![value.clone()],
                };
                Ok(Expr::All(vec![
                    part(flipped(first), low),
                    part(second, &high),
                ]))
            }
            _ => Err(self.error("a range has one number at each end")),
        }
    }

    fn compare(&self, field: SmolStr, op: Op, values: Vec<SmolStr>) -> Result<Expr, MatchError> {
        let names = |v: &SmolStr| v.starts_with('"') || v.starts_with('@');
        if is_port(&field) {
            if op != Op::Eq {
                return Err(MatchError::PortNotEqual { field });
            }
            if !values.iter().all(names) {
                return Err(self.error("a port is compared with a name in quotes or a @group"));
            }
        } else if values.iter().any(names) {
            return Err(self.error("only inport and outport are compared with names"));
        } else if !matches!(op, Op::Eq | Op::Ne) && values.len() != 1 {
            return Err(self.error("only == and != take a set"));
        }
        Ok(Expr::Compare { field, op, values })
    }

    fn operator(&mut self) -> Option<Op> {
        const OPERATORS: [(&str, Op); 6] = [
            ("==", Op::Eq),
            ("!=", Op::Ne),
            ("<=", Op::Le),
            (">=", Op::Ge),
            ("<", Op::Lt),
            (">", Op::Gt),
        ];
        OPERATORS
            .into_iter()
            .find(|(token, _)| self.eat(token))
            .map(|(_, op)| op)
    }

    fn side(&mut self) -> Result<Side, MatchError> {
        if self.eat("{") {
            let mut values = Vec::new();
            loop {
                if self.eat("}") {
                    break;
                }
                values.push(self.constant()?);
                self.eat(",");
            }
            if values.is_empty() {
                return Err(self.error("an empty set"));
            }
            return Ok(Side::Values(values));
        }
        if self
            .rest
            .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && !self.looks_like_address()
        {
            return self.field().map(Side::Field);
        }
        self.constant().map(|value| Side::Values(vec![value]))
    }

    /// `fd00::1` and `ab:cd:...` begin like names.
    fn looks_like_address(&self) -> bool {
        let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '/'));
        word.contains(':')
    }

    fn word(&self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    fn field(&mut self) -> Result<SmolStr, MatchError> {
        let name = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let known = SYMBOLS.iter().any(|symbol| match symbol.strip_suffix('*') {
            Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
            None => *symbol == name,
        });
        if !known {
            return Err(MatchError::UnknownField { field: name.into() });
        }
        let mut field = name.to_owned();
        self.rest = self.rest[name.len()..].trim_start();
        if self.rest.starts_with('[') {
            let bits = self.word(|c| c != ']');
            let inner = bits[1..].trim();
            let number = |s: &str| s.trim().parse::<u16>().is_ok();
            let good = match inner.split_once("..") {
                Some((low, high)) => number(low) && number(high),
                None => number(inner),
            };
            if !good || is_port(name) || !self.rest[bits.len()..].starts_with(']') {
                return Err(self.error("bits are written [3] or [0..7]"));
            }
            field.push('[');
            field.push_str(&inner.replace(' ', ""));
            field.push(']');
            self.rest = self.rest[bits.len() + 1..].trim_start();
        }
        Ok(field.into())
    }

    fn constant(&mut self) -> Result<SmolStr, MatchError> {
        if let Some(rest) = self.rest.strip_prefix('"') {
            let mut stream = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let Some(Ok(text)) = stream.next() else {
                return Err(self.error("a text without its closing quote"));
            };
            let _ = rest;
            self.rest = self.rest[stream.byte_offset()..].trim_start();
            return Ok(quoted(&text));
        }
        if self.rest.starts_with(['$', '@']) {
            let name = self.word_after_sigil();
            identifier(&name[1..])?;
            self.rest = self.rest[name.len()..].trim_start();
            return Ok(name.into());
        }
        let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '/'));
        if !is_constant(word) {
            return Err(self.error("expected an address, a number, a $set, a @group or a field"));
        }
        self.rest = self.rest[word.len()..].trim_start();
        Ok(word.into())
    }

    fn word_after_sigil(&self) -> &'a str {
        let end = self.rest[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
            .map_or(self.rest.len(), |i| i + 1);
        &self.rest[..end]
    }
}

/// Whether OVN's lexer takes the word for an integer, an address or a MAC, each with an optional mask.
fn is_constant(word: &str) -> bool {
    let (value, mask) = match word.split_once('/') {
        Some((value, mask)) => (value, Some(mask)),
        None => (word, None),
    };
    let number = |s: &str| {
        s.parse::<u128>().is_ok()
            || s.strip_prefix("0x")
                .is_some_and(|hex| u128::from_str_radix(hex, 16).is_ok())
    };
    let plain = |s: &str| number(s) || s.parse::<IpAddr>().is_ok() || s.parse::<Mac>().is_ok();
    plain(value) && mask.is_none_or(|m| plain(m) || word.parse::<Cidr>().is_ok())
}

fn flipped(op: Op) -> Op {
    match op {
        Op::Lt => Op::Gt,
        Op::Le => Op::Ge,
        Op::Gt => Op::Lt,
        Op::Ge => Op::Le,
        same => same,
    }
}
