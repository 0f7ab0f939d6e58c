//! `<operation>`, `<condition>`, `<mutation>` (sections 5.1 and 5.2).

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Atom, Datum, Row};

/// How a condition compares a column (`<function>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Function {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    GreaterOrEqual,
    #[serde(rename = "includes")]
    Includes,
    #[serde(rename = "excludes")]
    Excludes,
}

/// One clause of a `where`. The clauses of a transaction's `where` are joined by *and*, those of a monitor's by *or*.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    Clause {
        column: SmolStr,
        function: Function,
        value: Datum,
    },
    /// Every row or no row (ovsdb-server(7), section 5.1).
    Always(bool),
}

impl Condition {
    pub fn new(column: impl Into<SmolStr>, function: Function, value: impl Into<Datum>) -> Self {
        Self::Clause {
            column: column.into(),
            function,
            value: value.into(),
        }
    }

    pub fn eq(column: impl Into<SmolStr>, value: impl Into<Datum>) -> Self {
        Self::new(column, Function::Equal, value)
    }

    pub fn includes(column: impl Into<SmolStr>, value: impl Into<Datum>) -> Self {
        Self::new(column, Function::Includes, value)
    }

    /// The row with this UUID.
    pub fn row(uuid: Uuid) -> Self {
        Self::eq("_uuid", uuid)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Clause {
                column,
                function,
                value,
            } => (column, function, value).serialize(serializer),
            Self::Always(b) => serializer.serialize_bool(*b),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConditionVisitor;
        impl<'de> Visitor<'de> for ConditionVisitor {
            type Value = Condition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[column, function, value] or a boolean")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Condition, E> {
                Ok(Condition::Always(v))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Condition, A::Error> {
                let (Some(column), Some(function), Some(value)) = (
                    seq.next_element()?,
                    seq.next_element()?,
                    seq.next_element()?,
                ) else {
                    return Err(A::Error::custom("a condition has three elements"));
                };
                Ok(Condition::Clause {
                    column,
                    function,
                    value,
                })
            }
        }
        deserializer.deserialize_any(ConditionVisitor)
    }
}

/// How a mutation changes a column (`<mutator>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mutator {
    #[serde(rename = "+=")]
    Add,
    #[serde(rename = "-=")]
    Subtract,
    #[serde(rename = "*=")]
    Multiply,
    #[serde(rename = "/=")]
    Divide,
    #[serde(rename = "%=")]
    Remainder,
    /// Adds elements or pairs; a key that the map has already keeps its value.
    #[serde(rename = "insert")]
    Insert,
    /// Removes elements or pairs; of a map also keys, given as a set.
    #[serde(rename = "delete")]
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mutation {
    pub column: SmolStr,
    pub mutator: Mutator,
    pub value: Datum,
}

impl Mutation {
    pub fn new(column: impl Into<SmolStr>, mutator: Mutator, value: impl Into<Datum>) -> Self {
        Self {
            column: column.into(),
            mutator,
            value: value.into(),
        }
    }

    pub fn insert(column: impl Into<SmolStr>, value: impl Into<Datum>) -> Self {
        Self::new(column, Mutator::Insert, value)
    }

    pub fn delete(column: impl Into<SmolStr>, value: impl Into<Datum>) -> Self {
        Self::new(column, Mutator::Delete, value)
    }

    /// Deletes keys of a map, whatever their values.
    pub fn delete_keys<K: Into<Atom>>(
        column: impl Into<SmolStr>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        // Always a set, also for one key: a bare atom would be read as a pair that is not one.
        let keys = keys.into_iter().map(Into::into).collect();
        Self::new(column, Mutator::Delete, Datum::Set(keys))
    }
}

impl Serialize for Mutation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut triple = serializer.serialize_tuple(3)?;
        triple.serialize_element(&self.column)?;
        triple.serialize_element(&self.mutator)?;
        triple.serialize_element(&self.value)?;
        triple.end()
    }
}

impl<'de> Deserialize<'de> for Mutation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (column, mutator, value) = Deserialize::deserialize(deserializer)?;
        Ok(Self {
            column,
            mutator,
            value,
        })
    }
}

/// What a `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Until {
    /// The selected rows are exactly the given ones.
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    Insert {
        table: SmolStr,
        row: Row,
        /// The new row's UUID, chosen by the client (ovsdb-server(7), section 5.2.1; Open vSwitch 2.13 and later).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<Uuid>,
        #[serde(default, rename = "uuid-name", skip_serializing_if = "Option::is_none")]
        uuid_name: Option<SmolStr>,
    },
    Select {
        table: SmolStr,
        #[serde(rename = "where")]
        conditions: Vec<Condition>,
        /// All columns if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        columns: Option<Vec<SmolStr>>,
    },
    Update {
        table: SmolStr,
        #[serde(rename = "where")]
        conditions: Vec<Condition>,
        row: Row,
    },
    Mutate {
        table: SmolStr,
        #[serde(rename = "where")]
        conditions: Vec<Condition>,
        mutations: Vec<Mutation>,
    },
    Delete {
        table: SmolStr,
        #[serde(rename = "where")]
        conditions: Vec<Condition>,
    },
    Wait {
        /// Milliseconds; 0 fails at once (the transaction becomes a compare-and-swap); absent waits for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<u64>,
        table: SmolStr,
        #[serde(rename = "where")]
        conditions: Vec<Condition>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        columns: Option<Vec<SmolStr>>,
        until: Until,
        rows: Vec<Row>,
    },
    Commit {
        durable: bool,
    },
    Abort,
    Comment {
        comment: String,
    },
    Assert {
        lock: SmolStr,
    },
}

impl Operation {
    pub fn insert(table: impl Into<SmolStr>, uuid: Uuid, row: Row) -> Self {
        Self::Insert {
            table: table.into(),
            row,
            uuid: Some(uuid),
            uuid_name: None,
        }
    }

    pub fn insert_named(
        table: impl Into<SmolStr>,
        uuid_name: impl Into<SmolStr>,
        row: Row,
    ) -> Self {
        Self::Insert {
            table: table.into(),
            row,
            uuid: None,
            uuid_name: Some(uuid_name.into()),
        }
    }

    pub fn update(table: impl Into<SmolStr>, condition: Condition, row: Row) -> Self {
        Self::Update {
            table: table.into(),
            conditions: vec![condition],
            row,
        }
    }

    pub fn mutate(
        table: impl Into<SmolStr>,
        condition: Condition,
        mutations: Vec<Mutation>,
    ) -> Self {
        Self::Mutate {
            table: table.into(),
            conditions: vec![condition],
            mutations,
        }
    }

    pub fn delete(table: impl Into<SmolStr>, condition: Condition) -> Self {
        Self::Delete {
            table: table.into(),
            conditions: vec![condition],
        }
    }

    /// Fails the transaction with `timed out` unless the rows that match are exactly `rows` (in `columns`).
    pub fn require(
        table: impl Into<SmolStr>,
        conditions: Vec<Condition>,
        columns: Vec<SmolStr>,
        until: Until,
        rows: Vec<Row>,
    ) -> Self {
        Self::Wait {
            timeout: Some(0),
            table: table.into(),
            conditions,
            columns: Some(columns),
            until,
            rows,
        }
    }

    pub fn comment(comment: impl Into<String>) -> Self {
        Self::Comment {
            comment: comment.into(),
        }
    }

    /// The `op` member.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Select { .. } => "select",
            Self::Update { .. } => "update",
            Self::Mutate { .. } => "mutate",
            Self::Delete { .. } => "delete",
            Self::Wait { .. } => "wait",
            Self::Commit { .. } => "commit",
            Self::Abort => "abort",
            Self::Comment { .. } => "comment",
            Self::Assert { .. } => "assert",
        }
    }

    /// The table it reads or writes.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Insert { table, .. }
            | Self::Select { table, .. }
            | Self::Update { table, .. }
            | Self::Mutate { table, .. }
            | Self::Delete { table, .. }
            | Self::Wait { table, .. } => Some(table),
            Self::Commit { .. } | Self::Abort | Self::Comment { .. } | Self::Assert { .. } => None,
        }
    }

    /// Whether it can change the database.
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Self::Insert { .. } | Self::Update { .. } | Self::Mutate { .. } | Self::Delete { .. }
        )
    }
}
