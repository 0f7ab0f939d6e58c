//! Kubernetes objects for tests, as short as a sentence.
//!
//! ```
//! use testkit::objects::{namespace, node, pod, subnet};
//!
//! let pod = pod("shop/web").on("n1").annotate("ingress_rate", "3").view();
//! let node = node("n1", "192.168.1.41,fd00::41").view();
//! let namespace = namespace("shop").annotate("logical_switch", "shop-sub").view();
//! let subnet = subnet("shop-sub", "10.17.0.0/24").exclude("10.17.0.1..10.17.0.10").build();
//! # assert_eq!(pod.port_name(), "web.shop");
//! # assert_eq!(node.internal_ips.to_string(), "192.168.1.41,fd00::41");
//! # assert_eq!(namespace.inputs().len(), 1);
//! # assert_eq!(subnet.spec.cidr_block, "10.17.0.0/24");
//! ```
//!
//! A builder holds the object as the API server would send it, so that a view comes out of the same decoding as in
//! production, and a fake API server can serve it ([`PodBuilder::json`] and the like). Annotation keys without a slash
//! are ours: `cidr` is `ovn.kubernetes.io/cidr`. UIDs follow from kind and name; resource versions are 1.

use api::keys;
use api::v1::{Ip, IpSpec, Subnet, SubnetSpec, Vpc, VpcSpec};
use api::view::{
    IpView, NamespaceView, NamespaceWire, NodeView, NodeWire, PodKey, PodView, PodWire,
};
use serde_json::{Map, Value, json};

/// The field manager that a user's annotations have (`kubectl apply`).
const USER: &str = "kubectl-client-side-apply";

/// A running pod, `namespace/name` or a name in `default`; unscheduled until [`PodBuilder::on`].
pub fn pod(key: &str) -> PodBuilder {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    PodBuilder(Object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name,
            "uid": format!("pod-{namespace}-{name}"), "resourceVersion": "1",
        },
        "spec": { "restartPolicy": "Always" },
        "status": { "phase": "Pending" },
    })))
}

/// A ready node with its internal address, or `v4,v6`.
pub fn node(name: &str, addresses: &str) -> NodeBuilder {
    let addresses: Vec<Value> = addresses
        .split(',')
        .map(|address| json!({ "type": "InternalIP", "address": address }))
        .chain([json!({ "type": "Hostname", "address": name })])
        .collect();
    NodeBuilder(Object(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "uid": format!("node-{name}"), "resourceVersion": "1",
            "labels": { "kubernetes.io/hostname": name },
        },
        "spec": {},
        "status": {
            "addresses": addresses,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })))
}

/// A namespace.
pub fn namespace(name: &str) -> NamespaceBuilder {
    NamespaceBuilder(Object(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "uid": format!("namespace-{name}"), "resourceVersion": "1",
            "labels": { "kubernetes.io/metadata.name": name },
            "managedFields": [],
        },
    })))
}

/// A Subnet as a user writes it: a name and a CIDR (or `v4,v6`).
pub fn subnet(name: &str, cidr: &str) -> SubnetBuilder {
    let mut subnet = Subnet::new(
        name,
        SubnetSpec {
            cidr_block: cidr.to_owned(),
            ..SubnetSpec::default()
        },
    );
    subnet.metadata.uid = Some(format!("subnet-{name}"));
    subnet.metadata.resource_version = Some("1".to_owned());
    subnet.metadata.generation = Some(1);
    SubnetBuilder(subnet)
}

/// A Vpc with an empty spec.
pub fn vpc(name: &str) -> Vpc {
    let mut vpc = Vpc::new(name, VpcSpec::default());
    vpc.metadata.uid = Some(format!("vpc-{name}"));
    vpc.metadata.resource_version = Some("1".to_owned());
    vpc.metadata.generation = Some(1);
    vpc
}

/// The IP resource of a pod, with an address or `v4,v6`.
pub fn pod_ip(pod: &str, subnet: &str, addresses: &str, mac: &str) -> IpBuilder {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    IpBuilder::new(
        &format!("{name}.{namespace}"),
        subnet,
        addresses,
        mac,
        |spec| {
            name.clone_into(&mut spec.pod_name);
            namespace.clone_into(&mut spec.namespace);
        },
    )
}

/// The IP resource of a node's join port, with an address or `v4,v6`.
pub fn node_ip(node: &str, subnet: &str, addresses: &str, mac: &str) -> IpBuilder {
    IpBuilder::new(&format!("node-{node}"), subnet, addresses, mac, |spec| {
        node.clone_into(&mut spec.pod_name);
        node.clone_into(&mut spec.node_name);
    })
}

/// An object as the API server sends it.
#[derive(Clone, Debug)]
struct Object(Value);

impl Object {
    /// Sets the value at a path of keys, creating objects on the way.
    fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let mut at = &mut self.0;
        for key in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[*key];
        }
        *at = value.into();
    }

    fn annotate(&mut self, key: &str, value: &str) -> String {
        let key = if key.contains('/') {
            key.to_owned()
        } else {
            format!("{}{key}", keys::PREFIX)
        };
        self.set(&["metadata", "annotations", &key], value);
        key
    }

    fn label(&mut self, key: &str, value: &str) {
        self.set(&["metadata", "labels", key], value);
    }

    fn delete(&mut self, timestamp: &str, grace_seconds: i64) {
        self.set(&["metadata", "deletionTimestamp"], timestamp);
        self.set(&["metadata", "deletionGracePeriodSeconds"], grace_seconds);
    }
}

/// When the builders' objects are deleted.
const DELETION: &str = "2026-01-01T00:00:30Z";
/// [`DELETION`] in seconds since 1970.
pub const DELETION_UNIX: i64 = 1_767_225_630;

/// What every builder has: annotations, labels, identity.
macro_rules! builder {
    ($name:ident, $view:ty, $wire:ty) => {
        impl $name {
            /// Adds a label.
            #[must_use]
            pub fn label(mut self, key: &str, value: &str) -> Self {
                self.0.label(key, value);
                self
            }

            /// Replaces the UID: another object of the same name.
            #[must_use]
            pub fn uid(mut self, uid: &str) -> Self {
                self.0.set(&["metadata", "uid"], uid);
                self
            }

            /// Replaces the resource version.
            #[must_use]
            pub fn version(mut self, version: u64) -> Self {
                self.0
                    .set(&["metadata", "resourceVersion"], version.to_string());
                self
            }

            /// The object as the API server sends it.
            pub fn json(&self) -> Value {
                self.0.0.clone()
            }

            /// The object as a watch decodes it.
            pub fn wire(&self) -> $wire {
                serde_json::from_value(self.json()).expect("a builder's object is valid")
            }

            /// What the fabric keeps of it.
            pub fn view(&self) -> $view {
                <$view>::from(&self.wire())
            }
        }

        impl From<$name> for $view {
            fn from(builder: $name) -> Self {
                builder.view()
            }
        }
    };
}

/// See [`pod`].
#[derive(Clone, Debug)]
pub struct PodBuilder(Object);

builder!(PodBuilder, PodView, PodWire);

impl PodBuilder {
    /// Scheduled on this node, and running.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.0.set(&["spec", "nodeName"], node);
        self.phase("Running")
    }

    /// In the node's network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.0.set(&["spec", "hostNetwork"], true);
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.0.annotate(key, value);
        self
    }

    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[must_use]
    pub fn phase(mut self, phase: &str) -> Self {
        self.0.set(&["status", "phase"], phase);
        self
    }

    /// `Always`, `OnFailure` or `Never`.
    #[must_use]
    pub fn restart(mut self, policy: &str) -> Self {
        self.0.set(&["spec", "restartPolicy"], policy);
        self
    }

    /// Failed for a reason, such as `Evicted`.
    #[must_use]
    pub fn failed(mut self, reason: &str) -> Self {
        self.0.set(&["status", "reason"], reason);
        self.phase("Failed")
    }

    /// Addresses that the kubelet reports, `v4` or `v4,v6`.
    #[must_use]
    pub fn reports(mut self, addresses: &str) -> Self {
        let ips: Vec<Value> = addresses.split(',').map(|ip| json!({ "ip": ip })).collect();
        self.0.set(&["status", "podIPs"], ips);
        self
    }

    /// Managed by a controller, such as `("StatefulSet", "db")`.
    #[must_use]
    pub fn owned_by(mut self, kind: &str, name: &str) -> Self {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true,
            "uid": format!("{}-{name}", kind.to_lowercase()),
        });
        self.0.set(&["metadata", "ownerReferences"], json!([owner]));
        self
    }

    /// Held by a finalizer.
    #[must_use]
    pub fn finalizer(mut self, name: &str) -> Self {
        self.0.set(&["metadata", "finalizers"], json!([name]));
        self
    }

    /// Terminating; the grace period of so many seconds ends at [`DELETION_UNIX`].
    #[must_use]
    pub fn deleting(mut self, grace_seconds: i64) -> Self {
        self.0.delete(DELETION, grace_seconds);
        self
    }

    /// The pod's name.
    pub fn key(&self) -> PodKey {
        self.view().key
    }
}

/// See [`node`].
#[derive(Clone, Debug)]
pub struct NodeBuilder(Object);

builder!(NodeBuilder, NodeView, NodeWire);

impl NodeBuilder {
    /// Adds an annotation.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.0.annotate(key, value);
        self
    }

    /// The daemon has named its chassis.
    #[must_use]
    pub fn chassis(self, system_id: &str) -> Self {
        self.annotate(keys::CHASSIS, system_id)
    }

    /// The kubelet is not ready, or silent.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        let conditions = json!([{ "type": "Ready", "status": "Unknown" }]);
        self.0.set(&["status", "conditions"], conditions);
        self
    }

    /// `kubectl cordon`.
    #[must_use]
    pub fn cordoned(mut self) -> Self {
        self.0.set(&["spec", "unschedulable"], true);
        self
    }

    /// Being deleted.
    #[must_use]
    pub fn deleting(mut self) -> Self {
        self.0.delete(DELETION, 0);
        self
    }
}

/// See [`namespace`].
#[derive(Clone, Debug)]
pub struct NamespaceBuilder(Object);

builder!(NamespaceBuilder, NamespaceView, NamespaceWire);

impl NamespaceBuilder {
    /// Adds an annotation that a user wrote.
    #[must_use]
    pub fn annotate(self, key: &str, value: &str) -> Self {
        self.managed(USER, key, value)
    }

    /// Adds an annotation that the controller wrote.
    #[must_use]
    pub fn output(self, key: &str, value: &str) -> Self {
        self.managed(keys::FIELD_MANAGER, key, value)
    }

    fn managed(mut self, manager: &str, key: &str, value: &str) -> Self {
        let key = self.0.annotate(key, value);
        if let Some(Value::Array(entries)) = self.0.0["metadata"].get_mut("managedFields") {
            let field = format!("f:{key}");
            entries.push(json!({
                "manager": manager, "operation": "Update", "apiVersion": "v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": { "f:metadata": { "f:annotations": { field: {} } } },
            }));
        }
        self
    }

    /// Being deleted.
    #[must_use]
    pub fn deleting(mut self) -> Self {
        self.0.delete(DELETION, 0);
        self
    }
}

/// See [`subnet`].
#[derive(Clone, Debug)]
pub struct SubnetBuilder(Subnet);

impl SubnetBuilder {
    /// The gateway, or `v4,v6`.
    #[must_use]
    pub fn gateway(mut self, gateway: &str) -> Self {
        gateway.clone_into(&mut self.0.spec.gateway);
        self
    }

    /// Adds an excluded address or range.
    #[must_use]
    pub fn exclude(mut self, range: &str) -> Self {
        self.0.spec.exclude_ips.push(range.to_owned());
        self
    }

    /// Adds a namespace.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        self.0.spec.namespaces.push(name.to_owned());
        self
    }

    /// The cluster's default subnet.
    #[must_use]
    pub fn default_subnet(mut self) -> Self {
        self.0.spec.default = true;
        self
    }

    /// Masquerades what leaves the cluster.
    #[must_use]
    pub fn nat(mut self) -> Self {
        self.0.spec.nat_outgoing = true;
        self
    }

    /// Changes anything else in the spec.
    #[must_use]
    pub fn spec(mut self, change: impl FnOnce(&mut SubnetSpec)) -> Self {
        change(&mut self.0.spec);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        let labels = self.0.metadata.labels.get_or_insert_default();
        labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Made from the annotations of this namespace.
    #[must_use]
    pub fn from_namespace(self, name: &str) -> Self {
        self.label(keys::SUBNET_FROM_NAMESPACE, name)
    }

    /// With the controller's finalizer.
    #[must_use]
    pub fn finalizer(mut self) -> Self {
        self.0.metadata.finalizers = Some(vec![keys::FINALIZER.to_owned()]);
        self
    }

    /// Being deleted.
    #[must_use]
    pub fn deleting(mut self) -> Self {
        self.0.metadata.deletion_timestamp = deletion();
        self
    }

    /// The Subnet.
    pub fn build(self) -> Subnet {
        self.0
    }
}

/// See [`pod_ip`] and [`node_ip`].
#[derive(Clone, Debug)]
pub struct IpBuilder(Ip);

impl IpBuilder {
    fn new(
        name: &str,
        subnet: &str,
        addresses: &str,
        mac: &str,
        holder: impl FnOnce(&mut IpSpec),
    ) -> Self {
        let family = |v6: bool| {
            addresses
                .split(',')
                .find(|address| address.contains(':') == v6)
                .unwrap_or_default()
                .to_owned()
        };
        let mut spec = IpSpec {
            subnet: subnet.to_owned(),
            ip_address: addresses.to_owned(),
            v4_ip_address: family(false),
            v6_ip_address: family(true),
            mac_address: mac.to_owned(),
            ..IpSpec::default()
        };
        holder(&mut spec);
        let mut ip = Ip::new(name, spec);
        ip.metadata.uid = Some(format!("ip-{name}"));
        ip.metadata.resource_version = Some("1".to_owned());
        ip.metadata.finalizers = Some(vec![keys::FINALIZER.to_owned()]);
        let labels = [
            (keys::SUBNET, subnet),
            (keys::IP_RESERVED, keys::FALSE),
            (subnet, ""),
        ];
        ip.metadata.labels = Some(
            labels
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        );
        Self(ip)
    }

    /// On this node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        node.clone_into(&mut self.0.spec.node_name);
        self
    }

    /// A user's reservation: without finalizer and labels.
    #[must_use]
    pub fn reserved(mut self) -> Self {
        self.0.metadata.finalizers = None;
        self.0.metadata.labels = None;
        self
    }

    /// Being deleted.
    #[must_use]
    pub fn deleting(mut self) -> Self {
        self.0.metadata.deletion_timestamp = deletion();
        self
    }

    /// The IP resource.
    pub fn build(self) -> Ip {
        self.0
    }

    /// What the engine keeps of it.
    #[expect(clippy::expect_used, reason = "a test's own text")]
    pub fn view(&self) -> IpView {
        IpView::try_from(&self.0).expect("addresses of a test are valid")
    }
}

/// [`DELETION`] as metadata has it.
fn deletion<T: serde::de::DeserializeOwned>() -> Option<T> {
    serde_json::from_value(json!(DELETION)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::view::Phase;

    #[test]
    fn builders_say_what_they_are_told() {
        let view = pod("shop/web")
            .on("n1")
            .annotate("ip_address", "10.17.0.11")
            .reports("10.17.0.11,fd00::b")
            .owned_by("StatefulSet", "web")
            .deleting(30)
            .version(7)
            .view();
        assert_eq!(view.key.to_string(), "shop/web");
        assert_eq!(view.phase, Phase::Running);
        assert_eq!(view.annotation(keys::IP_ADDRESS), Some("10.17.0.11"));
        assert_eq!(view.ips.len(), 2);
        assert_eq!(view.deletion.unwrap().timestamp_unix, DELETION_UNIX);
        assert_eq!(view.resource_version, "7");
        assert!(view.owner.unwrap().controller);

        let view = namespace("shop")
            .annotate("cidr", "10.17.0.0/24")
            .output("logical_switch", "shop-sub")
            .view();
        assert_eq!(view.inputs().into_keys().collect::<Vec<_>>(), [keys::CIDR]);

        let view = node("n1", "192.168.1.41").not_ready().chassis("c1").view();
        assert!(!view.ready);
        assert_eq!(view.annotation(keys::CHASSIS), Some("c1"));

        let ip = pod_ip(
            "shop/web",
            "shop-sub",
            "10.17.0.11,fd00::b",
            "00:00:00:00:00:01",
        )
        .deleting();
        assert_eq!(ip.view().pod, Some(PodKey::new("shop", "web")));
        assert_eq!(ip.build().spec.v6_ip_address, "fd00::b");
    }
}
