//! Views of real objects, and what they leave out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::net::IpAddr;

use api::keys;
use api::v1::Ip;
use api::view::{
    IpView, NamespaceView, NamespaceWire, NodeView, NodeWire, Phase, PodKey, PodView, PodWire,
    RestartPolicy,
};
use serde_json::{Value, json};

fn upstream(kind: &str, name: &str) -> String {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("data/upstream-kubernetes.yaml")).unwrap();
    let object = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name} in the test data"));
    object.to_string()
}

fn pod(json: &str) -> PodView {
    PodView::from(&serde_json::from_str::<PodWire>(json).unwrap())
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pod_of_a_stateful_set() {
    let view = pod(&upstream("Pod", "db-0"));
    assert_eq!(view.key, PodKey::new("test-ns", "db-0"));
    assert_eq!(view.key.to_string(), "test-ns/db-0");
    assert_eq!(view.port_name(), "db-0.test-ns");
    assert_eq!(view.phase, Phase::Running);
    assert_eq!(view.restart_policy, RestartPolicy::Always);
    assert!(view.node.is_some() && view.is_alive() && view.wants_port());
    let owner = view.owner.as_ref().unwrap();
    assert_eq!(
        (&*owner.kind, &*owner.name, owner.controller),
        ("StatefulSet", "db", true)
    );
    assert!(view.is_allocated() && view.is_routed());
    assert_eq!(view.annotation(keys::LOGICAL_SWITCH), Some("test-sub"));
    assert_eq!(view.ips.len(), 2);
    assert_eq!(
        view.annotation(keys::IP_ADDRESS).unwrap(),
        format!("{},{}", view.ips[0], view.ips[1])
    );
}

#[test]
fn completed_and_host_network_pods() {
    let view = pod(&upstream("Pod", "done-0"));
    assert_eq!(view.phase, Phase::Succeeded);
    assert!(!view.is_alive());
    let view = pod(&upstream("Pod", "agent-0"));
    assert!(view.host_network && view.is_alive() && !view.wants_port());
}

#[test]
fn a_pod_that_is_being_deleted() {
    let view = pod(&json!({
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7",
            "deletionTimestamp": "2026-11-23T16:46:29Z", "deletionGracePeriodSeconds": 30,
            "finalizers": ["example.com/hold"],
        },
        "status": { "phase": "Failed", "reason": "Evicted" },
    })
    .to_string());
    let deletion = view.deletion.unwrap();
    assert_eq!(
        (deletion.timestamp_unix, deletion.grace_seconds),
        (1_795_452_389, 30)
    );
    assert_eq!(view.reason.as_deref(), Some("Evicted"));
    assert!(view.finalizers && !view.is_alive());
    assert_eq!(view.node, None);
}

#[test]
fn a_pod_wire_drops_what_no_view_uses() {
    let wire: PodWire = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "default",
            "labels": { "app": "web" },
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(10_000),
                "ovn.kubernetes.io/ingress_rate": "3",
                "net1.default.ovn.kubernetes.io/ip_address": "10.9.0.2",
            },
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
        },
        "spec": { "containers": [{ "name": "c", "env": [{ "name": "A", "value": "B" }] }] },
        "status": { "phase": "Dancing", "conditions": [{}], "podIPs": [{ "ip": "nonsense" }] },
    }))
    .unwrap();
    assert_eq!(wire.metadata.managed_fields, None);
    let view = PodView::from(&wire);
    assert_eq!(
        view.annotations.keys().collect::<Vec<_>>(),
        [
            "net1.default.ovn.kubernetes.io/ip_address",
            keys::INGRESS_RATE
        ]
    );
    assert_eq!(view.phase, Phase::Unknown, "an unknown phase is no error");
    assert!(view.ips.is_empty(), "nor is an address that is none");
    let recorded = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<PodView>(&recorded).unwrap(), view);
}

#[test]
fn a_node() {
    let wire: NodeWire = serde_json::from_str(&upstream("Node", "node-0")).unwrap();
    let view = NodeView::from(&wire);
    assert_eq!(view.name, "node-0");
    assert_eq!(view.port_name(), "node-node-0");
    assert_eq!(view.internal_ips.v4, Some(address("192.168.77.10")));
    assert!(view.ready && !view.unschedulable && !view.deleting);
    assert_eq!(view.annotation(keys::PORT_NAME), Some("node-node-0"));
    assert_eq!(view.labels["kubernetes.io/hostname"], "node-0");
}

fn namespace(annotations: &Value, managed: &Value) -> NamespaceView {
    let wire: NamespaceWire = serde_json::from_value(json!({
        "metadata": { "name": "n", "annotations": annotations, "managedFields": managed },
        "spec": { "finalizers": ["kubernetes"] },
    }))
    .unwrap();
    NamespaceView::from(&wire)
}

fn manager(name: &str, annotations: &[&str]) -> Value {
    let fields: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|key| (format!("f:{key}"), json!({})))
        .chain([(".".to_owned(), json!({}))])
        .collect();
    json!({
        "manager": name, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:annotations": fields, "f:labels": {} } }
    })
}

#[test]
fn a_users_annotations_are_inputs() {
    let annotations = json!({ "ovn.kubernetes.io/logical_switch": "test-sub", "ovn.kubernetes.io/cidr": "10.17.0.0/24", "a/b": "c" });
    let view = namespace(
        &annotations,
        &json!([
            manager(
                "kubectl-client-side-apply",
                &[keys::LOGICAL_SWITCH, keys::CIDR, "a/b"]
            ),
            { "manager": "other", "operation": "Update" },
        ]),
    );
    assert!(view.output_keys.is_empty());
    assert_eq!(
        view.inputs().into_iter().collect::<Vec<_>>(),
        [
            (keys::CIDR, "10.17.0.0/24"),
            (keys::LOGICAL_SWITCH, "test-sub")
        ]
    );
}

#[test]
fn what_the_controller_wrote_is_never_an_input() {
    let annotations = json!({
        "ovn.kubernetes.io/logical_switch": "test-sub",
        "ovn.kubernetes.io/cidr": "10.17.0.0/24",
        "ovn.kubernetes.io/exclude_ips": "10.17.0.1;10.18.0.1",
        "ovn.kubernetes.io/private": "true",
    });
    let view = namespace(
        &annotations,
        &json!([
            manager("kube-ovn-controller", &[keys::LOGICAL_SWITCH, keys::CIDR]),
            // A user who says the same as the controller owns it too.
            manager(
                "kubectl",
                &[keys::LOGICAL_SWITCH, keys::PRIVATE, keys::EXCLUDE_IPS]
            ),
        ]),
    );
    assert_eq!(view.output_keys.iter().collect::<Vec<_>>(), [keys::CIDR]);
    assert_eq!(
        view.inputs().into_keys().collect::<Vec<_>>(),
        [keys::LOGICAL_SWITCH, keys::PRIVATE],
        "neither what the controller wrote, nor a list of several subnets"
    );
}

#[test]
fn an_ip_of_a_pod_and_of_a_node() {
    let ips: Vec<Ip> = serde_saphyr::from_multiple(include_str!("data/upstream-ip.yaml")).unwrap();
    let views: Vec<IpView> = ips.iter().map(|ip| IpView::try_from(ip).unwrap()).collect();
    let named = |name: &str| {
        views
            .iter()
            .filter(|view| view.name == name)
            .collect::<Vec<_>>()
    };

    let [v4, dual] = named("static-0.test-ns")[..] else {
        panic!("two in the test data")
    };
    assert_eq!(v4.pod, Some(PodKey::new("test-ns", "static-0")));
    assert_eq!(v4.addresses.v4, Some(address("10.17.0.100")));
    assert_eq!(v4.addresses.v6, None);
    assert_eq!(dual.addresses.v6, Some(address("fd00:10:17::64")));
    assert_eq!(
        v4.mac,
        "00:00:00:53:6b:b6".parse().ok(),
        "read from capital letters"
    );
    assert!(v4.finalizer && !v4.reserved && !v4.deleting);
    assert_eq!(named("db-0.test-ns")[0].pod_type, "StatefulSet");

    let node = named("node-node-0")[0];
    assert_eq!(node.pod, None);
    assert_eq!(node.node.as_deref(), Some("node-0"));
    assert_eq!(node.subnet, "join");
}

#[test]
fn an_ip_that_nobody_can_read_says_which() {
    let mut ip = Ip::new("web.default", api::v1::IpSpec::default());
    ip.spec.ip_address = "10.16.0.5/16,fd00::5/64".into();
    let view = IpView::try_from(&ip).unwrap();
    assert_eq!(view.addresses.to_string(), "10.16.0.5,fd00::5");
    ip.spec.ip_address = String::new();
    ip.spec.v6_ip_address = "fd00::7".into();
    assert_eq!(
        IpView::try_from(&ip).unwrap().addresses.to_string(),
        "fd00::7"
    );
    for wrong in [
        "10.16.0.500",
        "10.16.0.5,10.16.0.6",
        "1.1.1.1,fd00::1,fd00::2",
    ] {
        ip.spec.ip_address = wrong.into();
        let error = IpView::try_from(&ip).unwrap_err().to_string();
        assert!(error.contains("web.default"), "{error}");
    }
    ip.spec.ip_address = String::new();
    ip.spec.mac_address = "00:11".into();
    assert!(
        IpView::try_from(&ip)
            .unwrap_err()
            .to_string()
            .contains("00:11")
    );
}

#[test]
fn wire_types_are_resources_of_a_watch() {
    fn path<K>(namespace: Option<&str>) -> String
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        K::url_path(&(), namespace)
    }
    assert_eq!(path::<PodWire>(Some("n")), "/api/v1/namespaces/n/pods");
    assert_eq!(path::<NodeWire>(None), "/api/v1/nodes");
    assert_eq!(path::<NamespaceWire>(None), "/api/v1/namespaces");
    assert_eq!(path::<Ip>(None), "/apis/kubeovn.io/v1/ips");
}
