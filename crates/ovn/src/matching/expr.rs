//! The form in which a match is kept, and its text.

use std::fmt;

use smol_str::SmolStr;

use super::symbols::{Symbol, symbol};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Expr {
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
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    pub fn as_str(self) -> &'static str {
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

impl Expr {
    /// The first field that must not be under `!`.
    pub fn nominal(&self) -> Option<SmolStr> {
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
