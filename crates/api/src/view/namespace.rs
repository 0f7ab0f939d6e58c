//! Namespaces, and which of their annotations are a user's words.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize, de};
use smol_str::SmolStr;

use super::{Keys, meta};
use crate::keys;

/// A namespace as a watch decodes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Resource)]
#[resource(inherit = Namespace)]
pub struct NamespaceWire {
    pub metadata: ObjectMeta,
    /// Annotations of ours by the field managers that wrote them (`metadata.managedFields`).
    #[serde(skip)]
    pub managers: BTreeMap<SmolStr, BTreeSet<String>>,
}

impl<'de> Deserialize<'de> for NamespaceWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Meta,
        }

        // The same fields as `meta::slim`, and managedFields; the two cannot share one pass over the map.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            generation: Option<i64>,
            deletion_timestamp: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
            labels: Option<BTreeMap<String, String>>,
            annotations: Option<meta::Ours>,
            #[serde(default)]
            managed_fields: Option<Vec<Managed>>,
        }

        let meta = Object::deserialize(deserializer)?.metadata;
        let mut managers: BTreeMap<SmolStr, BTreeSet<String>> = BTreeMap::new();
        for entry in meta.managed_fields.unwrap_or_default() {
            for key in entry.fields_v1.metadata.annotations.0 {
                managers
                    .entry(keys::intern(&key))
                    .or_default()
                    .insert(entry.manager.clone());
            }
        }
        Ok(Self {
            metadata: ObjectMeta {
                name: meta.name,
                uid: meta.uid,
                resource_version: meta.resource_version,
                generation: meta.generation,
                deletion_timestamp: meta.deletion_timestamp,
                labels: meta.labels,
                annotations: meta.annotations.map(|ours| ours.0),
                ..ObjectMeta::default()
            },
            managers,
        })
    }
}

/// An entry of `metadata.managedFields`, down to the annotations.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Managed {
    manager: String,
    fields_v1: ManagedFields,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ManagedFields {
    #[serde(rename = "f:metadata")]
    metadata: ManagedMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ManagedMetadata {
    #[serde(rename = "f:annotations")]
    annotations: ManagedKeys,
}

/// Our keys in `f:annotations`, without the `f:`.
#[derive(Default)]
struct ManagedKeys(Vec<String>);

impl<'de> Deserialize<'de> for ManagedKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ManagedKeys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a field set")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<ManagedKeys, A::Error> {
                let mut ours = Vec::new();
                while let Some(field) = map.next_key::<String>()? {
                    map.next_value::<de::IgnoredAny>()?;
                    if let Some(key) = field.strip_prefix("f:")
                        && keys::is_ours(key)
                    {
                        ours.push(key.to_owned());
                    }
                }
                Ok(ManagedKeys(ours))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// What the fabric keeps of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceView {
    pub name: SmolStr,
    pub uid: SmolStr,
    pub resource_version: SmolStr,
    pub labels: Keys,
    /// Our annotations, a user's and the controller's.
    pub annotations: Keys,
    /// Annotations that the controller alone has written (ours or the Go implementation's; both use one field manager).
    pub output_keys: BTreeSet<SmolStr>,
    /// Whether a deletion was asked for.
    pub deleting: bool,
}

impl NamespaceView {
    /// The annotations that are a user's words.
    ///
    /// Up to v0.5 namespace annotations were inputs, since then they are what the controller publishes. Both are
    /// understood, and what a controller wrote is never taken for a wish: a key whose only field manager is the
    /// controller, and a value that lists several subnets (`a;b`), are outputs.
    pub fn inputs(&self) -> BTreeMap<&'static str, &str> {
        keys::NAMESPACE_INPUTS
            .iter()
            .filter(|key| !self.output_keys.contains(**key))
            .filter_map(|key| Some((*key, self.annotations.get(*key)?.as_str())))
            .filter(|(_, value)| !value.contains(';'))
            .collect()
    }
}

impl From<&NamespaceWire> for NamespaceView {
    fn from(wire: &NamespaceWire) -> Self {
        let meta = &wire.metadata;
        Self {
            name: meta::text(meta.name.as_ref()),
            uid: meta::text(meta.uid.as_ref()),
            resource_version: meta::text(meta.resource_version.as_ref()),
            labels: meta::labels(meta),
            annotations: meta::annotations(meta),
            output_keys: wire
                .managers
                .iter()
                .filter(|(_, managers)| managers.iter().all(|name| name == keys::FIELD_MANAGER))
                .map(|(key, _)| key.clone())
                .collect(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}
