//! Conditions of a status: what is true about an object, since when, and why.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{is_default, number};

/// Types of conditions. The first three are the Go implementation's.
pub mod condition_type {
    /// The object is valid and in effect.
    pub const READY: &str = "Ready";
    /// The spec is valid.
    pub const VALIDATED: &str = "Validated";
    /// Something failed.
    pub const ERROR: &str = "Error";
    /// The spec sets fields that have no effect yet; the message names them.
    pub const UNSUPPORTED: &str = "Unsupported";
    /// A deletion was asked for, and something keeps the object; the message says what.
    pub const TERMINATING: &str = "Terminating";
}

/// Reasons of conditions and events that tools look for (the Go implementation's names), and ours.
pub mod reason {
    /// A condition that nobody has set yet.
    pub const INIT: &str = "Init";
    pub const VALIDATE_LOGICAL_SWITCH_FAILED: &str = "ValidateLogicalSwitchFailed";
    pub const VALIDATE_LOGICAL_SWITCH_SUCCESS: &str = "ValidateLogicalSwitchSuccess";
    pub const RESET_LOGICAL_SWITCH_ACL_SUCCESS: &str = "ResetLogicalSwitchAclSuccess";
    pub const SET_PRIVATE_LOGICAL_SWITCH_SUCCESS: &str = "SetPrivateLogicalSwitchSuccess";
    pub const CIDR_CONFLICT: &str = "CidrConflict";
    pub const NODE_ADDRESS_CONFLICT: &str = "NodeAddressConflictWithSubnet";
    pub const VALIDATE_POD_NETWORK_FAILED: &str = "ValidatePodNetworkFailed";
    pub const ACQUIRE_ADDRESS_FAILED: &str = "AcquireAddressFailed";
    /// Fields are set that have no effect yet.
    pub const FIELDS_NOT_SUPPORTED: &str = "FieldsNotSupported";
    /// Nothing unsupported is set any more.
    pub const ALL_FIELDS_SUPPORTED: &str = "AllFieldsSupported";
}

/// The state of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionStatus {
    True,
    False,
    /// Also what an unknown text is read as.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about, such as `Ready`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Whether it holds.
    #[serde(default)]
    #[schemars(with = "String")]
    pub status: ConditionStatus,
    /// Why, in one word for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in words for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When anything about it changed last.
    #[serde(
        deserialize_with = "time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_update_time: Option<Time>,
    /// When `status` changed last.
    #[serde(
        deserialize_with = "time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_transition_time: Option<Time>,
    /// The generation of the spec that it speaks of.
    #[serde(
        deserialize_with = "number",
        default,
        skip_serializing_if = "is_default"
    )]
    pub observed_generation: i64,
}

/// Reads a time; what is none counts as absent. The definitions let any text pass, and one status that somebody edited
/// must not make a whole list undecodable.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()).map(Time))
}

impl Condition {
    /// A condition without times; [`set_condition`] adds them.
    pub fn new(kind: &str, status: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            status: if status {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            },
            reason: reason.to_owned(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// Says which fields are set and have no effect yet.
    pub fn unsupported(fields: &[&str]) -> Self {
        if fields.is_empty() {
            return Self::new(
                condition_type::UNSUPPORTED,
                false,
                reason::ALL_FIELDS_SUPPORTED,
                "",
            );
        }
        Self::new(
            condition_type::UNSUPPORTED,
            true,
            reason::FIELDS_NOT_SUPPORTED,
            format!(
                "set in the spec but without effect in this version: {}",
                fields.join(", ")
            ),
        )
    }

    /// Speaks of this generation of the spec.
    #[must_use]
    pub fn observed(mut self, generation: i64) -> Self {
        self.observed_generation = generation;
        self
    }

    /// Whether both say the same, whenever they said it.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.status == other.status
            && self.reason == other.reason
            && self.message == other.message
            && self.observed_generation == other.observed_generation
    }
}

/// Puts `wanted` among `conditions`, with `now` as its times where it says something new. Returns whether it did.
pub fn set_condition(conditions: &mut Vec<Condition>, mut wanted: Condition, now: &Time) -> bool {
    let Some(held) = conditions.iter_mut().find(|held| held.kind == wanted.kind) else {
        wanted.last_update_time = Some(now.clone());
        wanted.last_transition_time = Some(now.clone());
        conditions.push(wanted);
        return true;
    };
    if held.says_the_same(&wanted) {
        return false;
    }
    wanted.last_update_time = Some(now.clone());
    wanted.last_transition_time = if held.status == wanted.status {
        held.last_transition_time.clone()
    } else {
        None
    }
    .or_else(|| Some(now.clone()));
    *held = wanted;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time(text.parse().unwrap())
    }

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let (t1, t2, t3) = (
            at("2026-01-01T00:00:01Z"),
            at("2026-01-01T00:00:02Z"),
            at("2026-01-01T00:00:03Z"),
        );
        let mut held = vec![];
        assert!(set_condition(
            &mut held,
            Condition::new("Ready", true, "A", ""),
            &t1
        ));
        assert!(!set_condition(
            &mut held,
            Condition::new("Ready", true, "A", ""),
            &t2
        ));
        assert!(set_condition(
            &mut held,
            Condition::new("Ready", true, "B", ""),
            &t2
        ));
        assert_eq!(held[0].last_transition_time, Some(t1));
        assert_eq!(held[0].last_update_time, Some(t2));
        assert!(set_condition(
            &mut held,
            Condition::new("Ready", false, "B", ""),
            &t3
        ));
        assert_eq!(held[0].last_transition_time, Some(t3));
        assert_eq!(held.len(), 1);
    }

    #[test]
    fn an_unknown_status_is_no_error() {
        let read: Condition =
            serde_json::from_str(r#"{"type":"Ready","status":"Maybe","lastUpdateTime":null}"#)
                .unwrap();
        assert_eq!(read.status, ConditionStatus::Unknown);
    }

    #[test]
    fn a_time_that_is_none_is_no_error() {
        let read = |time: &str| -> Condition {
            serde_json::from_value(serde_json::json!({"type": "Ready", "lastTransitionTime": time}))
                .unwrap()
        };
        for nonsense in ["", "yesterday", "2026-13-01T00:00:00Z"] {
            assert_eq!(read(nonsense).last_transition_time, None, "{nonsense}");
        }
        let held = Some(at("2026-01-01T00:00:01Z"));
        for text in ["2026-01-01T00:00:01Z", "2026-01-01T01:00:01+01:00"] {
            assert_eq!(read(text).last_transition_time, held);
        }
    }
}
