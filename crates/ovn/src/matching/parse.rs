//! Reads match expressions that users write (`acls` of a Subnet) as strictly as ovn-controller will.

use smol_str::SmolStr;

use super::MatchError;
use super::expr::{Expr, Op};
use super::fields::{identifier, quoted};
use super::symbols::{Symbol, symbol};
use super::values::{fits, is_constant};

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

/// A field, or some bits of one.
struct Field {
    name: SmolStr,
    symbol: Symbol,
    /// Bits of the values.
    width: Option<u32>,
}

/// One side of a comparison.
enum Side {
    Field(Field),
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
            return match inner.nominal() {
                Some(field) => Err(MatchError::NotEqual { field }),
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
                Side::Field(field) if field.width == Some(1) => Ok(Expr::Bare(field.name)),
                Side::Field(_) => Err(self.error("this field has to be compared with something")),
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
        field: Field,
        second: Op,
    ) -> Result<Expr, MatchError> {
        let high = self.side()?;
        let (Side::Values(high), [_]) = (high, low) else {
            return Err(self.error("a range has one number at each end"));
        };
        let [low, high] = [low, &high].map(<[SmolStr]>::to_vec);
        let name = field.name.clone();
        let ends = (low.first().cloned(), high.first().cloned());
        let below = Field {
            name: field.name.clone(),
            ..field
        };
        let low = self.compare(below, flipped(first), low)?;
        let high = self.compare(field, second, high)?;
        Ok(match ends {
            (Some(low), Some(high)) if (first, second) == (Op::Le, Op::Le) => Expr::Range {
                field: name,
                low,
                high,
            },
            _ => Expr::All(vec![low, high]),
        })
    }

    fn compare(&self, field: Field, op: Op, values: Vec<SmolStr>) -> Result<Expr, MatchError> {
        let order = !matches!(op, Op::Eq | Op::Ne);
        if field.symbol.is_nominal() && op != Op::Eq {
            return Err(MatchError::NotEqual { field: field.name });
        }
        if order && (field.symbol == Symbol::Flag || values.len() != 1) {
            return Err(self.error("only numbers have an order"));
        }
        for value in &values {
            if !fits(field.symbol, field.width, op, value) {
                return Err(MatchError::Value {
                    field: field.name,
                    value: value.clone(),
                });
            }
        }
        Ok(Expr::Compare {
            field: field.name,
            op,
            values,
        })
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

    fn field(&mut self) -> Result<Field, MatchError> {
        let name = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let Some(symbol) = symbol(name) else {
            return Err(MatchError::UnknownField { field: name.into() });
        };
        let mut field = Field {
            name: name.into(),
            symbol,
            width: symbol.width(),
        };
        self.rest = self.rest[name.len()..].trim_start();
        if !self.eat("[") {
            return Ok(field);
        }
        let end = self.rest.find(']').unwrap_or(0);
        let (inner, rest) = self.rest.split_at(end);
        let (low, high) = inner.split_once("..").unwrap_or((inner, inner));
        let (low, high) = (low.trim().parse::<u32>(), high.trim().parse::<u32>());
        match (low, high, symbol) {
            (Ok(low), Ok(high), Symbol::Number(width) | Symbol::Address(width))
                if low <= high && high < width =>
            {
                let bits = inner.replace(' ', "");
                field.name = format!("{name}[{bits}]").into();
                field.width = Some(high - low + 1);
                // Some bits are a number, not an address.
                field.symbol = Symbol::Number(high - low + 1);
            }
            _ => return Err(self.error("bits are written [3] or [0..7], of a number")),
        }
        self.rest = rest.trim_start_matches(']').trim_start();
        Ok(field)
    }

    fn constant(&mut self) -> Result<SmolStr, MatchError> {
        if self.rest.starts_with('"') {
            let mut stream = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let Some(Ok(text)) = stream.next() else {
                return Err(self.error("a text without its closing quote"));
            };
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

fn flipped(op: Op) -> Op {
    match op {
        Op::Lt => Op::Gt,
        Op::Le => Op::Ge,
        Op::Gt => Op::Lt,
        Op::Ge => Op::Le,
        same => same,
    }
}
