//! The result array of a `transact` (section 4.1.3).

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Row;

/// What a successful operation gives back; which members are there depends on the operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpResult {
    /// Rows that an `update`, `mutate` or `delete` matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The new row of an `insert`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "tagged_uuid")]
    pub uuid: Option<Uuid>,
    /// What a `select` found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<Row>>,
}

mod tagged_uuid {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use uuid::Uuid;

    use super::super::Atom;

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub fn serialize<S: Serializer>(uuid: &Option<Uuid>, s: S) -> Result<S::Ok, S::Error> {
        uuid.map(Atom::Uuid).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Uuid>, D::Error> {
        Ok(Atom::deserialize(d)?.as_uuid())
    }
}

/// `<error>` (section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpError {
    /// A short constant such as `constraint violation`.
    pub error: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for OpError {}

/// One element of the result array. The array is one longer than the operations when the commit itself failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OpOutcome {
    Error(OpError),
    Done(OpResult),
    /// `null`: not run, because an earlier operation failed.
    NotRun(()),
}
