//! Metadata as the views need it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer, de};
use smol_str::SmolStr;

use super::Keys;
use crate::keys;

/// The parts of metadata that some view uses. Everything else, `managedFields` above all, is skipped while decoding.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Slim {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Ours>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

impl From<Slim> for ObjectMeta {
    fn from(slim: Slim) -> Self {
        Self {
            name: slim.name,
            namespace: slim.namespace,
            uid: slim.uid,
            resource_version: slim.resource_version,
            generation: slim.generation,
            deletion_timestamp: slim.deletion_timestamp,
            deletion_grace_period_seconds: slim.deletion_grace_period_seconds,
            labels: slim.labels,
            annotations: slim.annotations.map(|ours| ours.0),
            owner_references: slim.owner_references,
            finalizers: slim.finalizers,
            ..Self::default()
        }
    }
}

/// Reads metadata without what no view uses.
pub(super) fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Slim::deserialize(deserializer).map(ObjectMeta::from)
}

/// Annotations, without those of others (`kubectl.kubernetes.io/last-applied-configuration` is a whole object).
#[derive(Default)]
pub(super) struct Ours(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Ours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Ours;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Ours, A::Error> {
                let mut ours = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if keys::is_ours(&key) {
                        let value = map.next_value::<Option<String>>()?;
                        ours.insert(key, value.unwrap_or_default());
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                }
                Ok(Ours(ours))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// A text of the metadata that every stored object has.
pub(super) fn text(value: Option<&String>) -> SmolStr {
    value.map(SmolStr::new).unwrap_or_default()
}

/// Our annotations, compact.
pub(super) fn annotations(meta: &ObjectMeta) -> Keys {
    meta.annotations
        .iter()
        .flatten()
        .filter(|(key, _)| keys::is_ours(key))
        .map(|(key, value)| (keys::intern(key), SmolStr::new(value)))
        .collect()
}

/// All labels, compact.
pub(super) fn labels(meta: &ObjectMeta) -> Keys {
    meta.labels
        .iter()
        .flatten()
        .map(|(key, value)| (keys::intern(key), SmolStr::new(value)))
        .collect()
}
