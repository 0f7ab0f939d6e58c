//! A cluster in a few hundred lines: an API server without a socket, the simplest allocator, and the loop that a
//! controller turns. It carries out what `compile` asks for until nothing is left to do.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "for tests alone")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::keys;
use api::v1::{Subnet, Vpc};
use api::view::{
    NamespaceView, NamespaceWire, NodeView, NodeWire, PodKey, PodView, PodWire, node_port_name,
};
use fabric::{
    Change, Compiled, Config, Effective, KubeState, Patch, PortLease, PortOwner, Unit, World,
    compile,
};
use net::{DualStack, Mac};
use serde_json::{Value, json};
use smol_str::SmolStr;

const USER: &str = "kubectl";

/// `Subnet/blue`, `Pod/default/web-0`.
type ObjectKey = String;

pub struct Cluster {
    pub world: World,
    pub objects: BTreeMap<ObjectKey, Value>,
    pub compiled: BTreeMap<Unit, Compiled>,
    /// Whether the allocator runs. Otherwise addresses come from IP resources alone.
    pub allocates: bool,
    /// Problems of this step, also those that are over.
    pub events: BTreeSet<String>,
    born: u32,
}

impl Cluster {
    pub fn new(config: Config) -> Self {
        Self {
            world: World::new(config),
            objects: BTreeMap::new(),
            compiled: BTreeMap::new(),
            allocates: true,
            events: BTreeSet::new(),
            born: 0,
        }
    }

    /// Does what the documents of a YAML file say: objects are merged into what there is, as `kubectl apply` does;
    /// `delete: [Pod/default/web-0]` deletes. Then the controller works until it is done. Returns the units that were dirty.
    pub fn step(&mut self, yaml: &str) -> BTreeSet<Unit> {
        self.events.clear();
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
        let mut dirty = BTreeSet::new();
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            if let Some(list) = document.get("delete").and_then(Value::as_array) {
                for key in list.iter().filter_map(Value::as_str) {
                    dirty.extend(self.delete(key));
                }
            } else if document["kind"] == "List" {
                for item in document["items"].as_array().into_iter().flatten() {
                    dirty.extend(self.apply(item.clone()));
                }
            } else {
                dirty.extend(self.apply(document));
            }
        }
        self.work(dirty)
    }

    /// Merges an object into the store, as a user.
    pub fn apply(&mut self, object: Value) -> Vec<Unit> {
        let key = key_of(&object);
        let mut stored = self
            .objects
            .remove(&key)
            .unwrap_or_else(|| self.newborn(&key));
        if object["kind"] == "Namespace" {
            manage(&mut stored, USER, &object["metadata"]["annotations"]);
        }
        merge(&mut stored, object);
        self.put(key, stored)
    }

    pub fn delete(&mut self, key: &str) -> Vec<Unit> {
        let object = self
            .objects
            .get_mut(key)
            .unwrap_or_else(|| panic!("no {key}"));
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|finalizers| !finalizers.is_empty());
        if held {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
            let object = object.clone();
            return self.put(key.to_owned(), object);
        }
        self.objects.remove(key);
        self.gone(key)
    }

    fn newborn(&mut self, key: &str) -> Value {
        self.born += 1;
        let (minutes, seconds) = (self.born / 60, self.born % 60);
        json!({ "metadata": {
            "uid": format!("uid-{key}-{}", self.born),
            "creationTimestamp": format!("2026-01-01T00:{minutes:02}:{seconds:02}Z"),
            "resourceVersion": "1",
        } })
    }

    fn put(&mut self, key: ObjectKey, object: Value) -> Vec<Unit> {
        let change = change_of(&object);
        self.objects.insert(key, object);
        change.map_or_else(Vec::new, |change| self.world.apply(change))
    }

    fn gone(&mut self, key: &str) -> Vec<Unit> {
        let (kind, name) = key.split_once('/').expect("Kind/name");
        let name = SmolStr::new(name);
        self.world.apply(match kind {
            "Pod" => {
                let (namespace, name) = name.split_once('/').expect("namespace/name");
                Change::Pod(PodKey::new(namespace, name), None)
            }
            "Node" => Change::Node(name, None),
            "Namespace" => Change::Namespace(name, None),
            "Subnet" => Change::Subnet(name, None),
            "Vpc" => Change::Vpc(name, None),
            "IP" => Change::Lease(name, None),
            other => panic!("{other}?"),
        })
    }

    /// The controller's loop.
    fn work(&mut self, mut dirty: BTreeSet<Unit>) -> BTreeSet<Unit> {
        if self.compiled.is_empty() {
            // As a controller does when its lists are complete.
            dirty.extend(self.world.units());
        }
        let mut all = dirty.clone();
        for _ in 0..50 {
            dirty.extend(self.world.settle());
            dirty.extend(self.lease());
            dirty.extend(self.world.settle());
            all.extend(dirty.iter().cloned());
            for unit in std::mem::take(&mut dirty) {
                let compiled = compile(&unit, &self.world);
                self.events
                    .extend(compiled.problems.iter().map(ToString::to_string));
                if compiled.is_empty() {
                    self.compiled.remove(&unit);
                } else {
                    self.compiled.insert(unit, compiled);
                }
            }
            let wanted: Vec<KubeState> = self
                .compiled
                .values()
                .flat_map(|compiled| compiled.desired.clone())
                .collect();
            for state in wanted {
                dirty.extend(self.carry_out(state));
            }
            if dirty.is_empty() && self.lease().is_empty() {
                return all;
            }
        }
        panic!("the controller does not come to rest: {dirty:?}");
    }

    fn carry_out(&mut self, state: KubeState) -> Vec<Unit> {
        match state {
            KubeState::CreateSubnet(subnet) => self.create(serde_json::to_value(*subnet)),
            KubeState::CreateVpc(vpc) => self.create(serde_json::to_value(*vpc)),
            KubeState::Namespace { name, annotations } => {
                let key = format!("Namespace/{name}");
                self.write(&key, |object| {
                    manage(object, keys::FIELD_MANAGER, &json(&annotations));
                    patch_keys(object, "annotations", &annotations);
                })
            }
            KubeState::Vpc(writes) => {
                let key = format!("Vpc/{}", writes.name);
                if !writes.finalizer {
                    self.objects.remove(&key);
                    return self.gone(&key);
                }
                self.write(&key, |object| {
                    object["metadata"]["finalizers"] = json!([keys::FINALIZER]);
                    object["status"] = serde_json::to_value(&writes.status).expect("status");
                })
            }
            KubeState::Subnet(writes) => {
                let key = format!("Subnet/{}", writes.name);
                if !writes.finalizer {
                    self.objects.remove(&key);
                    return self.gone(&key);
                }
                let mut dirty = self.write(&key, |object| {
                    object["spec"] = serde_json::to_value(&writes.spec).expect("spec");
                    object["metadata"]["finalizers"] = json!([keys::FINALIZER]);
                    patch_keys(object, "annotations", &writes.annotations);
                    object["status"] = json!({
                        "conditions": serde_json::to_value(&writes.conditions).expect("conditions")
                    });
                });
                if writes.delete {
                    dirty.extend(self.delete(&key));
                }
                dirty
            }
        }
    }

    fn create(&mut self, object: serde_json::Result<Value>) -> Vec<Unit> {
        let object = object.expect("an object");
        let key = key_of(&object);
        if self.objects.contains_key(&key) {
            return Vec::new();
        }
        let mut stored = self.newborn(&key);
        merge(&mut stored, object);
        self.put(key, stored)
    }

    fn write(&mut self, key: &str, edit: impl FnOnce(&mut Value)) -> Vec<Unit> {
        let Some(object) = self.objects.get(key) else {
            return Vec::new();
        };
        let mut edited = object.clone();
        edit(&mut edited);
        if edited == *object {
            return Vec::new();
        }
        self.put(key.to_owned(), edited)
    }

    /// Gives addresses to nodes and pods that need some, lowest first, and takes back those of owners that are gone.
    fn lease(&mut self) -> Vec<Unit> {
        if !self.allocates {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for (port, lease) in self.world.leases() {
            let kept = match &lease.owner {
                PortOwner::Pod(key) => self.world.wants_port(key),
                PortOwner::Node(node) => self.world.node(node).is_some(),
            };
            if !kept {
                changes.push(Change::Lease(port.clone(), None));
            }
        }
        let join = self.world.config().join.name.clone();
        let nodes: Vec<SmolStr> = self.world.nodes().map(|node| node.name.clone()).collect();
        let pods: Vec<PodKey> = self.world.pods().map(|pod| pod.key.clone()).collect();
        let mut dirty: Vec<Unit> = self.world.apply_all(changes).into_iter().collect();
        for node in nodes {
            let port = node_port_name(&node);
            if self.world.lease(&port).is_none()
                && let Some(subnet) = self.world.subnet(&join)
            {
                let lease = self.free(subnet, &port, PortOwner::Node(node), DualStack::NONE);
                dirty.extend(self.world.apply(Change::Lease(port, Some(lease))));
            }
        }
        for key in pods {
            let port = key.port_name();
            if !self.world.wants_port(&key) || self.world.lease(&port).is_some() {
                continue;
            }
            let (Ok(subnet), Ok(request)) = (self.world.subnet_for(&key), self.world.request(&key))
            else {
                continue;
            };
            let wanted = request.choices.first().copied().unwrap_or_default();
            let lease = self.free(subnet, &port, PortOwner::Pod(key), wanted);
            dirty.extend(self.world.apply(Change::Lease(port, Some(lease))));
        }
        dirty
    }

    fn free(
        &self,
        subnet: &Effective,
        port: &SmolStr,
        owner: PortOwner,
        wanted: DualStack<IpAddr>,
    ) -> PortLease {
        let taken: BTreeSet<IpAddr> = self
            .world
            .leases()
            .flat_map(|(_, lease)| lease.addresses)
            .collect();
        let addresses = DualStack::from_fn(|family| {
            let cidr = subnet.cidrs.get(family)?;
            wanted.get(family).copied().or_else(|| {
                cidr.usable().iter().find(|address| {
                    !taken.contains(address)
                        && !subnet.excludes.iter().any(|range| range.contains(*address))
                })
            })
        });
        PortLease {
            subnet: subnet.name.clone(),
            addresses,
            mac: Mac::local_from(port.as_bytes()),
            owner,
        }
    }

    // Printing

    /// Everything that there is, one fact a line, sorted within each part.
    pub fn lines(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut parts: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        parts.insert("1 northbound", northbound(&self.compiled));
        let kubernetes = parts.entry("2 kubernetes").or_default();
        for (key, object) in &self.objects {
            kubernetes.extend(describe(key, object));
        }
        for (port, lease) in self.world.leases() {
            kubernetes.insert(format!(
                "lease {port}: {} {} {}",
                lease.subnet, lease.addresses, lease.mac
            ));
        }
        for pod in self.world.pods() {
            if let Err(problem) = self.world.candidates(&pod.key) {
                kubernetes.insert(format!("waits {problem}"));
            }
            if let Err(problem) = self.world.request(&pod.key) {
                kubernetes.insert(format!("waits {problem}"));
            }
        }
        let problems = parts.entry("3 problems").or_default();
        for compiled in self.compiled.values() {
            problems.extend(compiled.problems.iter().map(ToString::to_string));
        }
        parts
    }
}

/// All rows with their provenance, and all contributions, one a line.
pub fn northbound(compiled: &BTreeMap<Unit, Compiled>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut rows = BTreeSet::new();
    for fragment in compiled.values().map(|compiled| &compiled.fragment) {
        assert_eq!(fragment.undeclared_ids(), BTreeSet::new());
        for (key, row) in &fragment.rows {
            assert!(rows.insert(key.clone()), "{key} is stated twice");
            let text = row.to_string().replace('\n', " ");
            lines.insert(format!("{key}: {text}"));
        }
    }
    for fragment in compiled.values().map(|compiled| &compiled.fragment) {
        for member in &fragment.members {
            assert!(
                rows.contains(&member.parent),
                "{member}: the parent is not there"
            );
            lines.insert(member.to_string());
        }
    }
    lines
}

fn describe(key: &str, object: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let meta = &object["metadata"];
    let mut head = key.to_owned();
    if !meta["deletionTimestamp"].is_null() {
        head.push_str(" (deleting)");
    }
    if key.starts_with("Subnet/") || key.starts_with("Vpc/") {
        lines.push(format!("{head} spec: {}", object["spec"]));
        for condition in object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let word = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            lines.push(format!(
                "{head} condition {}={} {} {}",
                word("type"),
                word("status"),
                word("reason"),
                word("message")
            ));
        }
    }
    if key.starts_with("Vpc/") {
        lines.push(format!(
            "{head} status: standby={} default={} defaultLogicalSwitch={} subnets={}",
            object["status"]["standby"],
            object["status"]["default"],
            object["status"]["defaultLogicalSwitch"],
            object["status"]["subnets"]
        ));
    }
    for what in ["annotations", "labels"] {
        for (name, value) in meta[what].as_object().into_iter().flatten() {
            // The accepted spec repeats the spec.
            let shown = keys::is_ours(name) && name != fabric::Accepted::ANNOTATION;
            if shown && !key.starts_with("Pod/") {
                let value = value.as_str().unwrap_or_default();
                lines.push(format!("{head} {what} {name}: {value}"));
            }
        }
    }
    lines
}

// Objects

fn key_of(object: &Value) -> ObjectKey {
    let kind = object["kind"].as_str().expect("kind");
    let name = object["metadata"]["name"].as_str().expect("name");
    match (kind, object["metadata"]["namespace"].as_str()) {
        ("Pod", namespace) => format!("Pod/{}/{name}", namespace.unwrap_or("default")),
        _ => format!("{kind}/{name}"),
    }
}

pub fn change_of(object: &Value) -> Option<Change> {
    let name: SmolStr = object["metadata"]["name"].as_str()?.into();
    let read = |error: serde_json::Error| -> ! { panic!("{name}: {error}") };
    Some(match object["kind"].as_str()? {
        "Pod" => {
            let mut object = object.clone();
            if object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = json!("default");
            }
            let wire: PodWire = serde_json::from_value(object).unwrap_or_else(|error| read(error));
            let view = PodView::from(&wire);
            Change::Pod(view.key.clone(), Some(Box::new(view)))
        }
        "Node" => {
            let wire: NodeWire =
                serde_json::from_value(object.clone()).unwrap_or_else(|error| read(error));
            Change::Node(name, Some(Box::new(NodeView::from(&wire))))
        }
        "Namespace" => {
            let wire: NamespaceWire =
                serde_json::from_value(object.clone()).unwrap_or_else(|error| read(error));
            Change::Namespace(name, Some(Box::new(NamespaceView::from(&wire))))
        }
        "Subnet" => {
            let subnet: Subnet =
                serde_json::from_value(object.clone()).unwrap_or_else(|error| read(error));
            Change::Subnet(name, Some(Box::new(subnet)))
        }
        "Vpc" => {
            let vpc: Vpc =
                serde_json::from_value(object.clone()).unwrap_or_else(|error| read(error));
            Change::Vpc(name, Some(Box::new(vpc)))
        }
        "IP" => {
            let ip: api::v1::Ip =
                serde_json::from_value(object.clone()).unwrap_or_else(|error| read(error));
            let view = api::view::IpView::try_from(&ip).expect("an IP");
            let owner = match (view.pod, view.node) {
                (Some(pod), _) => PortOwner::Pod(pod),
                (None, Some(node)) => PortOwner::Node(node),
                (None, None) => return None,
            };
            Change::Lease(
                name,
                Some(PortLease {
                    subnet: view.subnet,
                    addresses: view.addresses,
                    mac: view.mac.expect("a MAC"),
                    owner,
                }),
            )
        }
        _ => return None,
    })
}

fn json(patch: &Patch) -> Value {
    Value::Object(
        patch
            .iter()
            .map(|(key, value)| (key.to_string(), json!(value.as_deref())))
            .collect(),
    )
}

fn patch_keys(object: &mut Value, what: &str, patch: &Patch) {
    if !patch.is_empty() {
        merge(&mut object["metadata"][what], json(patch));
    }
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(&key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Keeps `managedFields` of a namespace's annotations: the last writer of a new value owns the key.
fn manage(object: &mut Value, manager: &str, annotations: &Value) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for entry in object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for field in entry["fieldsV1"]["f:metadata"]["f:annotations"]
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
        {
            owners.insert(
                field.clone(),
                entry["manager"].as_str().expect("a manager").to_owned(),
            );
        }
    }
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if value.is_null() {
            owners.remove(&format!("f:{key}"));
        } else if object["metadata"]["annotations"][key] != *value {
            owners.insert(format!("f:{key}"), manager.to_owned());
        }
    }
    let fields: Vec<Value> = owners
        .into_iter()
        .map(|(field, manager)| {
            json!({ "manager": manager, "fieldsV1": { "f:metadata": { "f:annotations": { field: {} } } } })
        })
        .collect();
    object["metadata"]["managedFields"] = json!(fields);
    // Indexing for comparison may have left nulls behind.
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|_, value| !value.is_null());
    }
}
