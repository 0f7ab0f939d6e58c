//! Monitor requests and updates (section 4.1.5 and following; ovsdb-server(7), sections 4.1.12 to 4.1.16).

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Condition, Row};

/// What to monitor of one table (`<monitor-request>`, `<monitor-cond-request>`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorRequest {
    pub columns: Vec<SmolStr>,
    /// Rows that match any of these; all rows if empty. Plain `monitor` does not know it.
    #[serde(default, rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A change of one row in `update2` and `update3` (`<row-update2>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowUpdate2 {
    /// Columns that hold their default are left out.
    Initial(Row),
    /// Columns that hold their default are left out.
    Insert(Row),
    /// Differences: see [`TableSchema::apply_modify`](super::TableSchema::apply_modify).
    Modify(Row),
    Delete,
}

/// A change of one row in `update` (`<row-update>`): `old` holds the columns that changed, `new` all monitored ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowUpdate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Row>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Row>,
}

/// `<table-updates>`: tables, and in each the rows that changed, both in the order of the message.
pub type TableUpdates = Members<SmolStr, Members<Uuid, RowUpdate>>;

/// `<table-updates2>`.
pub type TableUpdates2 = Members<SmolStr, Members<Uuid, RowUpdate2>>;

/// The members of a JSON object in the order of the message. Decoding a dump of a whole database into this takes no
/// look-up and no rebalancing per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for Members<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> IntoIterator for Members<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K, V> FromIterator<(K, V)> for Members<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Members<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for MembersVisitor<K, V> {
            type Value = Members<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

/// Result of `monitor_cond_since`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MonitorCondSinceReply(
    /// Whether the server knows the transaction of the request: if not, the updates are the whole content.
    pub bool,
    /// The last transaction in the updates.
    pub Uuid,
    pub TableUpdates2,
);

/// Parameters of `update`: monitor, updates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct UpdateParams(pub SmolStr, pub TableUpdates);

/// Parameters of `update2`: monitor, updates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Update2Params(pub SmolStr, pub TableUpdates2);

/// Parameters of `update3`: monitor, last transaction, updates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Update3Params(pub SmolStr, pub Uuid, pub TableUpdates2);

impl<'de> Deserialize<'de> for RowUpdate2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Kind {
            Initial,
            Insert,
            Modify,
            Delete,
        }
        struct UpdateVisitor;
        impl<'de> Visitor<'de> for UpdateVisitor {
            type Value = RowUpdate2;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one of initial, insert, modify, delete")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RowUpdate2, A::Error> {
                let kind: Kind = map
                    .next_key()?
                    .ok_or_else(|| A::Error::custom("a row update without its kind"))?;
                let update = match kind {
                    Kind::Initial => RowUpdate2::Initial(map.next_value()?),
                    Kind::Insert => RowUpdate2::Insert(map.next_value()?),
                    Kind::Modify => RowUpdate2::Modify(map.next_value()?),
                    Kind::Delete => {
                        map.next_value::<IgnoredAny>()?;
                        RowUpdate2::Delete
                    }
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(update),
                    Some(_) => Err(A::Error::custom("a row update of two kinds")),
                }
            }
        }
        deserializer.deserialize_map(UpdateVisitor)
    }
}
