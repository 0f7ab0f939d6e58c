//! Custom resources of the group `kubeovn.io/v1`.
//!
//! The types carry every field of the Go implementation's v1, whether or not anything here acts on it yet, and they
//! serialise as it does (the same fields are always written, the same ones are left out when empty), so that an object
//! that passes through us comes out unchanged. [`unsupported`] names what is set and has no effect yet.
//!
//! Addresses, CIDRs and enumerations stay text: a wrong value must reach the code that reports it to the user, and
//! must not make a whole list undecodable.

#![expect(
    clippy::duplicated_attributes,
    reason = "each `printcolumn` repeats the names of its settings"
)]

mod condition;
mod count;
pub mod crd;
mod ip;
mod subnet;
mod unsupported;
mod vpc;

use crate::null_is_default;

pub use condition::{Condition, ConditionStatus, condition_type, reason, set_condition};
pub use count::Count;
pub use ip::{Ip, IpSpec};
pub use subnet::{
    Acl, GatewayType, NatOutgoingPolicyMatch, NatOutgoingPolicyRule, NatOutgoingPolicyRuleStatus,
    Subnet, SubnetSpec, SubnetStatus, U2oFeatures,
};
pub use unsupported::{Unsupported, unsupported};
pub use vpc::{
    BfdPort, BfdPortStatus, PolicyRoute, StaticRoute, Vpc, VpcPeering, VpcSpec, VpcStatus,
};

/// API group of the custom resources.
pub const GROUP: &str = "kubeovn.io";
/// API version of the custom resources.
pub const VERSION: &str = "v1";

/// Reads a whole number that is not negative as leniently as [`Count`] does: `1400`, `1400.0`, `"1400"`, `null`.
fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<u128>,
{
    use serde::Deserialize;
    let count = Count::deserialize(deserializer)?;
    T::try_from(count.get())
        .map_err(|_| serde::de::Error::custom(format_args!("{count} is too large")))
}

/// Lets an object without `spec` be read as one with an empty spec, as Go does. One such object must not make the whole
/// list undecodable.
///
/// The derived functions are inherent ones (`remote = "Self"`); the trait reads an `Option` around them, which serde also
/// asks when a field is missing.
macro_rules! absent_is_default {
    ($spec:ident) => {
        impl<'de> serde::Deserialize<'de> for $spec {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Present($spec);

                impl<'de> serde::Deserialize<'de> for Present {
                    fn deserialize<D: serde::Deserializer<'de>>(
                        deserializer: D,
                    ) -> Result<Self, D::Error> {
                        $spec::deserialize(deserializer).map(Self)
                    }
                }

                let present = Option::<Present>::deserialize(deserializer)?;
                Ok(present.map(|present| present.0).unwrap_or_default())
            }
        }

        impl serde::Serialize for $spec {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $spec::serialize(self, serializer)
            }
        }
    };
}
use absent_is_default;

/// For `skip_serializing_if`: what Go's `omitempty` does with numbers and switches.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
