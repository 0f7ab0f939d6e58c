//! An API server for tests: objects as JSON, versions, uids, finalizers, merge patches, preconditions, watch events.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};

use api::v1::{Ip, Subnet, Vpc};
use api::view::{NamespaceView, NamespaceWire, NodeView, NodeWire, PodView, PodWire};
use engine::{Event, Kind, KubeEvent, KubeOutcome, KubeWrite, Object, ObjectKey};
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub struct Kube {
    objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    /// What the watches have to say.
    pub news: Vec<KubeEvent>,
    /// Writes of the controller that succeeded: verb and object.
    pub writes: Vec<(&'static str, ObjectKey)>,
    /// Objects that the server lets nobody write.
    pub refused: BTreeSet<ObjectKey>,
    /// Writes that were refused.
    pub refusals: usize,
}

impl Kube {
    fn bump(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    pub fn annotation(&self, key: &ObjectKey, name: &str) -> Option<&str> {
        self.get(key)?["metadata"]["annotations"]
            .get(name)?
            .as_str()
    }

    /// A user creates or replaces an object.
    pub fn put(&mut self, key: ObjectKey, mut object: Value) {
        let version = self.bump();
        let uid = match self.objects.get(&key) {
            Some(old) => old["metadata"]["uid"].clone(),
            None => json!(format!("uid-{version}")),
        };
        object["apiVersion"] = key.kind.api_version().into();
        object["kind"] = key.kind.name().into();
        object["metadata"]["name"] = key.name.as_str().into();
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = key.namespace.as_str().into();
        }
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        self.news.push(KubeEvent::Apply(decode(key.kind, &object)));
        self.objects.insert(key, object);
    }

    /// A user edits an object.
    pub fn edit(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut Value)) {
        let mut object = self
            .objects
            .get(key)
            .unwrap_or_else(|| panic!("no {key}"))
            .clone();
        edit(&mut object);
        self.put(key.clone(), object);
    }

    /// A user (or the kubelet) deletes an object.
    pub fn delete(&mut self, key: &ObjectKey) {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return;
        };
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        let version = self.bump();
        if held {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                object["metadata"]["resourceVersion"] = version.to_string().into();
                self.news.push(KubeEvent::Apply(decode(key.kind, &object)));
                self.objects.insert(key.clone(), object);
            }
        } else {
            self.objects.remove(key);
            self.news.push(KubeEvent::Delete {
                key: key.clone(),
                resource_version: version.to_string().into(),
            });
        }
    }

    /// An object is lost with all that held it, and no watch says so.
    pub fn lose(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// What the controller asks for.
    pub fn write(&mut self, write: &KubeWrite) -> KubeOutcome {
        let (key, verb) = (write.key(), write.verb());
        if self.refused.contains(&key) {
            self.refusals += 1;
            return KubeOutcome::Refused("admission denied".into());
        }
        let outcome = self.execute(write);
        if matches!(outcome, KubeOutcome::Done(_)) {
            self.writes.push((verb, key));
        }
        outcome
    }

    fn execute(&mut self, write: &KubeWrite) -> KubeOutcome {
        match write {
            KubeWrite::Create(object) => {
                let key = object.key();
                if self.objects.contains_key(&key) {
                    return KubeOutcome::Conflict("already exists".into());
                }
                let value = match object {
                    Object::Subnet(o) => json!(o),
                    Object::Vpc(o) => json!(o),
                    Object::Ip(o) => json!(o),
                    other => panic!("unexpected creation of {}", other.key()),
                };
                self.put(key.clone(), value);
                KubeOutcome::Done(Some(decode(key.kind, &self.objects[&key])))
            }
            KubeWrite::Patch { key, body, .. } => {
                let Some(held) = self.objects.get(key) else {
                    return KubeOutcome::NotFound;
                };
                let meta = &body["metadata"];
                for field in ["uid", "resourceVersion"] {
                    if !meta[field].is_null() && meta[field] != held["metadata"][field] {
                        return KubeOutcome::Conflict(format!("{field} differs"));
                    }
                }
                let mut object = held.clone();
                merge(&mut object, body);
                let going = !object["metadata"]["deletionTimestamp"].is_null()
                    && object["metadata"]["finalizers"]
                        .as_array()
                        .is_none_or(Vec::is_empty);
                if key.kind == Kind::Namespace {
                    object["metadata"]["managedFields"] = managed(&object, body);
                }
                self.put(key.clone(), object);
                let shown = decode(key.kind, &self.objects[key]);
                if going {
                    self.news.pop();
                    self.objects.remove(key);
                    let version = self.bump();
                    self.news.push(KubeEvent::Delete {
                        key: key.clone(),
                        resource_version: version.to_string().into(),
                    });
                }
                KubeOutcome::Done(Some(shown))
            }
            KubeWrite::Delete {
                key,
                uid,
                resource_version,
            } => {
                let Some(held) = self.objects.get(key) else {
                    return KubeOutcome::NotFound;
                };
                let meta = &held["metadata"];
                let differs = meta["uid"] != uid.as_str()
                    || resource_version
                        .as_ref()
                        .is_some_and(|v| meta["resourceVersion"] != v.as_str());
                if differs {
                    return KubeOutcome::Conflict("precondition".into());
                }
                self.delete(key);
                KubeOutcome::Done(self.objects.get(key).map(|o| decode(key.kind, o)))
            }
        }
    }

    /// The first events of every watch.
    pub fn lists(&self) -> Vec<Event> {
        let list = |kind| self.list(kind).into_iter().map(Event::Kube);
        Kind::ALL.into_iter().flat_map(list).collect()
    }

    /// What a list of a kind answers now.
    pub fn list(&self, kind: Kind) -> Vec<KubeEvent> {
        let objects = self
            .of(kind)
            .map(|(_, o)| KubeEvent::Apply(decode(kind, o)));
        std::iter::once(KubeEvent::Begin(kind))
            .chain(objects)
            .chain([KubeEvent::End(kind)])
            .collect()
    }
}

/// managedFields as the server keeps them: annotations that this patch set are ours.
fn managed(object: &Value, body: &Value) -> Value {
    let mut ours: BTreeMap<String, Value> = BTreeMap::new();
    for entry in object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if entry["manager"] == api::keys::FIELD_MANAGER {
            let held = entry["fieldsV1"]["f:metadata"]["f:annotations"]
                .as_object()
                .cloned()
                .unwrap_or_default();
            ours.extend(held);
        }
    }
    for (key, value) in body["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if value.is_null() {
            ours.remove(&format!("f:{key}"));
        } else {
            ours.insert(format!("f:{key}"), json!({}));
        }
    }
    json!([{
        "manager": api::keys::FIELD_MANAGER,
        "operation": "Update",
        "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:annotations": ours } },
    }])
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn decode(kind: Kind, object: &Value) -> Object {
    fn from<T: serde::de::DeserializeOwned>(object: &Value) -> T {
        serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{e}: {object}"))
    }
    match kind {
        Kind::Pod => Object::Pod(Box::new(PodView::from(&from::<PodWire>(object)))),
        Kind::Node => Object::Node(Box::new(NodeView::from(&from::<NodeWire>(object)))),
        Kind::Namespace => Object::Namespace(Box::new(NamespaceView::from(
            &from::<NamespaceWire>(object),
        ))),
        Kind::Subnet => Object::Subnet(Box::new(from::<Subnet>(object))),
        Kind::Vpc => Object::Vpc(Box::new(from::<Vpc>(object))),
        Kind::Ip => Object::Ip(Box::new(from::<Ip>(object))),
    }
}
