//! Kubernetes objects: what each should look like, and the one write that brings it there.
//!
//! Objects that may need a write are in `todo`. Each is compared as a whole with what the API server last showed, and at
//! most one write is under way for it; the answer (or a newer version from the watch) puts it into `todo` again. So it
//! does not matter which event made a write necessary, and a lost answer costs a comparison and no more.

use std::collections::BTreeMap;

use api::view::Keys;
use fabric::{KubeState, Patch, SubnetWrites, Unit, VpcWrites};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use crate::Engine;
use crate::effect::{Effect, KubeWrite, LogLine, Part};
use crate::event::{Kind, KubeOutcome, Object, ObjectKey};
use crate::notices::Source;
use crate::ports::PortState;
use crate::writes::{Ended, Finished, Purpose};

/// What compiled units want of Kubernetes.
#[derive(Debug, Default)]
pub(crate) struct States {
    /// Objects that a unit's states speak of; written by `set`.
    by_unit: BTreeMap<Unit, Vec<ObjectKey>>,
    /// Objects to make where they are missing, by the unit that asks.
    pub(crate) create: BTreeMap<ObjectKey, BTreeMap<Unit, Object>>,
    pub(crate) subnets: BTreeMap<SmolStr, SubnetWrites>,
    pub(crate) vpcs: BTreeMap<SmolStr, VpcWrites>,
    pub(crate) namespaces: BTreeMap<SmolStr, Patch>,
}

impl States {
    /// Replaces what `unit` wants; returns the objects that may have to change.
    pub(crate) fn set(&mut self, unit: &Unit, states: Vec<KubeState>) -> Vec<ObjectKey> {
        let mut touched = self.by_unit.remove(unit).unwrap_or_default();
        for key in &touched {
            if let Some(asking) = self.create.get_mut(key) {
                asking.remove(unit);
                if asking.is_empty() {
                    self.create.remove(key);
                }
            }
            match (unit, key.kind) {
                (Unit::Subnet(_), Kind::Subnet) => drop(self.subnets.remove(&key.name)),
                (Unit::Vpc(_), Kind::Vpc) => drop(self.vpcs.remove(&key.name)),
                (Unit::Namespace(_), Kind::Namespace) => drop(self.namespaces.remove(&key.name)),
                _ => {}
            }
        }
        let mut keys = Vec::new();
        for state in states {
            let key = match state {
                KubeState::CreateSubnet(subnet) => self.ask(unit, Object::Subnet(subnet)),
                KubeState::CreateVpc(vpc) => self.ask(unit, Object::Vpc(vpc)),
                KubeState::Subnet(state) => {
                    let key = ObjectKey::cluster(Kind::Subnet, state.name.clone());
                    self.subnets.insert(state.name.clone(), *state);
                    key
                }
                KubeState::Vpc(state) => {
                    let key = ObjectKey::cluster(Kind::Vpc, state.name.clone());
                    self.vpcs.insert(state.name.clone(), *state);
                    key
                }
                KubeState::Namespace { name, annotations } => {
                    let key = ObjectKey::cluster(Kind::Namespace, name.clone());
                    self.namespaces.insert(name, annotations);
                    key
                }
            };
            keys.push(key);
        }
        touched.extend(keys.iter().cloned());
        if !keys.is_empty() {
            self.by_unit.insert(unit.clone(), keys);
        }
        touched
    }

    fn ask(&mut self, unit: &Unit, object: Object) -> ObjectKey {
        let key = object.key();
        self.create
            .entry(key.clone())
            .or_default()
            .insert(unit.clone(), object);
        key
    }
}

impl Engine {
    /// `key` may need a write.
    pub(crate) fn touch(&mut self, key: ObjectKey) {
        self.todo.insert(key);
    }

    /// Writes what is due, as far as the limit of writes under way allows.
    pub(crate) fn write_objects(&mut self) {
        if !self.is_active() {
            return;
        }
        self.todo.extend(self.writes.take_due(self.now));
        while self.writes.in_flight() < self.config.kube_writes
            && let Some(key) = self.todo.pop_first()
        {
            // What is not free comes back with the end of its write or of its pause. What needs no write (any more), and
            // does not wait for its hour either, has no failures to remember.
            if self.writes.is_free(&key, self.now)
                && !self.reconcile(&key)
                && !self.later.contains(&key)
            {
                self.writes.clear(&key);
            }
        }
    }

    /// Sends the write that an object needs, if any.
    fn reconcile(&mut self, key: &ObjectKey) -> bool {
        let write = match key.kind {
            Kind::Pod | Kind::Node => self.annotate(key),
            Kind::Namespace => self.annotate_namespace(key),
            Kind::Subnet => self.reconcile_subnet(key),
            Kind::Vpc => self.reconcile_vpc(key),
            Kind::Ip => self.reconcile_ip(key),
        };
        let Some((purpose, write)) = write else {
            return false;
        };
        self.send(key.clone(), purpose, write);
        true
    }

    fn send(&mut self, key: ObjectKey, purpose: Purpose, write: KubeWrite) {
        let id = self.next_id();
        let based_on = self.watches.seen(&key).map(|seen| seen.version.clone());
        self.writes.begin(key, id, purpose, write.verb(), based_on);
        self.out.push(Effect::Kube { id, write });
    }

    /// Metadata of a patch that must not meet a version that we have not seen.
    pub(crate) fn precondition(&self, key: &ObjectKey) -> Option<Map<String, Value>> {
        let seen = self.watches.seen(key)?;
        let mut metadata = Map::new();
        metadata.insert("uid".into(), seen.uid.as_str().into());
        metadata.insert("resourceVersion".into(), seen.version.as_str().into());
        Some(metadata)
    }

    /// A pod or node whose port is ready is told everything in one patch.
    fn annotate(&self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let port = match key.kind {
            Kind::Pod => {
                api::view::PodKey::new(key.namespace.clone(), key.name.clone()).port_name()
            }
            _ => api::view::node_port_name(&key.name),
        };
        let told = matches!(
            self.ports.get(&port)?.state,
            PortState::Announcing | PortState::Ready
        );
        if !told {
            return None;
        }
        let annotations = self.annotation_patch(key)?;
        let mut metadata = self.precondition(key)?;
        metadata.insert("annotations".into(), annotations.into());
        Some((
            Purpose::Patch,
            patch(key, Part::Main, json!({ "metadata": metadata })),
        ))
    }

    pub(crate) fn annotations_differ(&self, key: &ObjectKey) -> bool {
        self.annotation_patch(key).is_some()
    }

    fn annotation_patch(&self, key: &ObjectKey) -> Option<Map<String, Value>> {
        if key.kind == Kind::Pod {
            let pod = api::view::PodKey::new(key.namespace.clone(), key.name.clone());
            differing(
                &self.world.pod_annotations(&pod)?,
                &self.world.pod(&pod)?.annotations,
            )
        } else {
            differing(
                &self.world.node_annotations(&key.name)?,
                &self.world.node(&key.name)?.annotations,
            )
        }
    }

    fn annotate_namespace(&self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let wanted = self.states.namespaces.get(&key.name)?;
        let view = self.world.namespace(&key.name)?;
        if view.deleting {
            return None;
        }
        let annotations = differing(wanted, &view.annotations)?;
        let mut metadata = self.precondition(key)?;
        metadata.insert("annotations".into(), annotations.into());
        Some((
            Purpose::Patch,
            patch(key, Part::Main, json!({ "metadata": metadata })),
        ))
    }

    /// Something to create, if a unit asks for it (the first one, where several do).
    pub(crate) fn creation(&self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let object = self.states.create.get(key)?.values().next()?;
        Some((Purpose::Create, KubeWrite::Create(object.clone())))
    }

    /// The end of a write.
    pub(crate) fn kube_done(&mut self, id: crate::EffectId, outcome: KubeOutcome) {
        let how = match &outcome {
            KubeOutcome::Done(_) => Ended::Done,
            KubeOutcome::NotFound => Ended::NotFound,
            KubeOutcome::Conflict(_) => Ended::Conflict,
            KubeOutcome::Refused(_) => Ended::Refused,
            KubeOutcome::Retry(_) => Ended::Retry,
            KubeOutcome::Unknown(_) => Ended::Unknown,
        };
        // The answer of a write that a former leadership began comes too late to be believed.
        let Some(Finished {
            id,
            key,
            purpose,
            based_on,
            overtaken,
        }) = self.writes.end(id, how)
        else {
            return;
        };
        let ends = matches!(purpose, Purpose::Delete | Purpose::Unfinalize);
        // What the server holds now is a fact; we need not wait for the watch to say so. But where the watch has shown
        // the end of the object meanwhile, the answer would bring it back from the dead.
        if let KubeOutcome::Done(Some(object)) = &outcome
            && !(ends && is_going(object))
            && !overtaken
            && !self.watches.is_listing(key.kind)
        {
            self.apply(object.clone());
        }
        // The object has changed since the write was asked for: the watch has seen all of before when it shows this.
        if let KubeOutcome::Done(Some(object)) = &outcome
            && matches!(purpose, Purpose::Create | Purpose::Patch | Purpose::Status)
            && based_on.as_deref() != Some(object.resource_version())
            && self.takeover.is_of_term(id)
        {
            self.watches.wrote(key.kind, object.resource_version());
        }
        let source = Source::Writes(key.to_string());
        match outcome {
            KubeOutcome::Done(object) => {
                // A write after which the object is the one that it was: the same write again would do no more.
                let version = object.as_ref().map(Object::resource_version);
                if version.is_some() && version == based_on.as_deref() {
                    self.writes.pause_until_news(&key, based_on, self.now);
                } else {
                    self.writes.clear(&key);
                }
                self.notices.set(source, std::collections::BTreeSet::new());
                // A deletion without an object in its answer, and the last finalizer of a deleted object, end it.
                if ends && !overtaken && object.as_ref().is_none_or(is_going) {
                    self.bury(&key, object.as_ref());
                }
            }
            KubeOutcome::NotFound => self.writes.await_news(&key, based_on, self.now),
            KubeOutcome::Conflict(_) => {
                // Often the watch has shown the newer version by now. Else it will soon; a second is enough for it in
                // all but the worst case.
                if self.watches.seen(&key).map(|seen| &seen.version) == based_on.as_ref() {
                    self.writes.await_news(&key, based_on, self.now);
                }
            }
            KubeOutcome::Refused(error) => {
                self.write_failed(&key, &error);
                let notice = crate::effect::Notice {
                    uid: self
                        .watches
                        .seen(&key)
                        .map(|s| s.uid.clone())
                        .unwrap_or_default(),
                    object: key.clone(),
                    warning: true,
                    reason: SmolStr::new_static("WriteRefused"),
                    message: format!(
                        "the API server refused what kube-ovn-controller wrote: {error}"
                    ),
                };
                if self.watches.seen(&key).is_some() {
                    self.notices
                        .set(source, std::collections::BTreeSet::from([notice]));
                }
            }
            KubeOutcome::Retry(error) | KubeOutcome::Unknown(error) => {
                self.write_failed(&key, &error);
            }
        }
        if key.kind == Kind::Ip {
            self.todo_ports.insert(key.name.clone());
        }
        self.touch(key);
    }

    fn write_failed(&mut self, key: &ObjectKey, error: &str) {
        let pause = self.writes.pause(key, self.now);
        if key.kind == Kind::Subnet && self.states.create.contains_key(key) {
            // Who waits for it in silence should hear of it.
            self.wake_waiting();
        }
        self.log(LogLine::WriteFailed {
            write: key.to_string(),
            error: error.to_owned(),
            retry_in_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// An answer says that `key` is gone. The watch will say so too; waiting for it would only delay the next step.
    fn bury(&mut self, key: &ObjectKey, last: Option<&Object>) {
        if key.kind == Kind::Ip && self.watches.seen(key).is_some() {
            self.watches.bury(key, last.map(Object::resource_version));
            self.erase(&key.name);
        }
    }
}

/// A patch of `key`.
pub(crate) fn patch(key: &ObjectKey, part: Part, body: Value) -> KubeWrite {
    KubeWrite::Patch {
        key: key.clone(),
        part,
        body,
    }
}

/// Whether an object that is being deleted has nothing left that holds it.
fn is_going(object: &Object) -> bool {
    let meta = match object {
        Object::Subnet(o) => &o.metadata,
        Object::Vpc(o) => &o.metadata,
        Object::Ip(o) => &o.metadata,
        Object::Pod(_) | Object::Node(_) | Object::Namespace(_) => return false,
    };
    meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
}

/// The annotations to patch so that `held` becomes `wanted`; `None` if nothing differs.
pub(crate) fn differing(wanted: &Patch, held: &Keys) -> Option<Map<String, Value>> {
    let map: Map<String, Value> = wanted
        .iter()
        .filter(|(key, value)| held.get(*key) != value.as_ref())
        .map(|(key, value)| {
            (
                key.to_string(),
                value.as_ref().map_or(Value::Null, |v| v.as_str().into()),
            )
        })
        .collect();
    (!map.is_empty()).then_some(map)
}

/// The merge patch (RFC 7386) that turns `from` into `to`; `None` if they are equal.
pub(crate) fn merge_diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return Some(to.clone());
    };
    let mut diff = Map::new();
    for (key, value) in to {
        match from.get(key) {
            None => drop(diff.insert(key.clone(), value.clone())),
            Some(old) => {
                if let Some(inner) = merge_diff(old, value) {
                    diff.insert(key.clone(), inner);
                }
            }
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        diff.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(diff))
}
