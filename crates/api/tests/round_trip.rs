//! Objects pass through the types unchanged: real ones of the Go implementation, and ones with every field set.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeMap;

use api::v1::{Ip, IpSpec, Subnet, SubnetSpec, Vpc, VpcSpec, unsupported};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

fn round_trip<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let text = object.to_string();
    let read: T = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in {}", object["metadata"]["name"]));
    let written = serde_json::to_string(&read).unwrap();
    serde_json::from_str(&written).unwrap()
}

fn unchanged<T: DeserializeOwned + Serialize>(yaml: &str, count: usize) {
    let objects = documents(yaml);
    assert_eq!(objects.len(), count);
    for object in objects {
        assert_eq!(round_trip::<T>(&object), object);
    }
}

#[test]
fn objects_of_the_go_implementation_are_unchanged() {
    unchanged::<Subnet>(include_str!("data/upstream-subnet.yaml"), 12);
    unchanged::<Ip>(include_str!("data/upstream-ip.yaml"), 7);
    unchanged::<Vpc>(include_str!("data/upstream-vpc.yaml"), 2);
}

/// Sets a field by its path in `fields.txt` to something that is not its default.
fn set(at: &mut Value, path: &str, kind: &str) {
    let end = path.find(['.', '[', '{']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    let field = at
        .as_object_mut()
        .unwrap()
        .entry(name)
        .or_insert(Value::Null);
    fill(field, rest, path, kind);
}

fn fill(at: &mut Value, rest: &str, path: &str, kind: &str) {
    if let Some(rest) = rest.strip_prefix("[]") {
        if at.is_null() {
            *at = json!([null]);
        }
        fill(&mut at[0], rest, path, kind);
    } else if rest == "{}" {
        *at = json!({ "key": "value" });
    } else if let Some(rest) = rest.strip_prefix('.') {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        set(at, rest, kind);
    } else {
        *at = match kind {
            "boolean" => json!(true),
            "integer" | "number" => json!(42),
            _ if path.ends_with("Time") => json!("2026-11-23T16:46:29Z"),
            _ if path == "status" => json!("True"),
            _ => json!(format!("a {path}")),
        };
    }
}

#[test]
fn objects_with_every_field_are_unchanged() {
    let mut objects: BTreeMap<&str, Value> = BTreeMap::new();
    for line in include_str!("data/fields.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [object, path, kind] = words[..] else {
            continue;
        };
        let object = objects.entry(object).or_insert_with(|| {
            json!({ "apiVersion": "kubeovn.io/v1", "kind": object, "metadata": { "name": "x" } })
        });
        set(object, path, kind);
    }
    for (kind, object) in objects {
        let after = match kind {
            "Subnet" => round_trip::<Subnet>(&object),
            "IP" => round_trip::<Ip>(&object),
            "Vpc" => round_trip::<Vpc>(&object),
            _ => continue,
        };
        assert_eq!(after, object);
    }
}

/// Fields that have their effect, or that do nothing when set alone.
const SUPPORTED: &[&str] = &[
    "Subnet default",
    "Subnet vpc",
    "Subnet protocol",
    "Subnet namespaces",
    "Subnet namespaceSelectors",
    "Subnet cidrBlock",
    "Subnet gateway",
    "Subnet excludeIps",
    // An unknown type is an invalid spec; `centralized` is what is not supported.
    "Subnet gatewayType",
    "Subnet natOutgoing",
    "Subnet mtu",
    "Subnet disableGatewayCheck",
    "Subnet disableInterConnection",
    "Subnet enableLb",
    "Vpc defaultSubnet",
    "Vpc namespaces",
    "IP podName",
    "IP namespace",
    "IP subnet",
    "IP nodeName",
    "IP ipAddress",
    "IP v4IpAddress",
    "IP v6IpAddress",
    "IP macAddress",
    "IP containerID",
    "IP podType",
];

#[test]
fn every_field_of_a_spec_is_supported_or_named() {
    let mut named = 0;
    for line in include_str!("data/fields.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, path, leaf] = words[..] else {
            continue;
        };
        let Some(path) = path.strip_prefix("spec.") else {
            continue;
        };
        let field = path.split(['.', '[', '{']).next().unwrap();
        let mut spec = json!({});
        set(&mut spec, path, leaf);
        if field == "bfdPort" {
            spec["bfdPort"]["enabled"] = json!(true);
        }
        let found = match kind {
            "Subnet" => unsupported(&serde_json::from_value::<SubnetSpec>(spec).unwrap()),
            "IP" => unsupported(&serde_json::from_value::<IpSpec>(spec).unwrap()),
            "Vpc" => unsupported(&serde_json::from_value::<VpcSpec>(spec).unwrap()),
            other => panic!("{other}"),
        };
        if SUPPORTED.contains(&format!("{kind} {field}").as_str()) {
            assert!(found.is_empty(), "{line}: {found:?}");
        } else {
            assert_eq!(found, [field], "{line}");
            named += 1;
        }
    }
    assert!(named > 30, "{named} fields");
}

#[test]
fn null_and_absence_are_the_default() {
    for spec in ["", r#", "spec": null"#, r#", "spec": {}"#] {
        let text =
            format!(r#"{{"apiVersion": "kubeovn.io/v1", "metadata": {{"name": "x"}}{spec}}}"#);
        let subnet: Subnet = serde_json::from_str(&text).unwrap();
        assert_eq!(subnet.spec, SubnetSpec::default());
        assert_eq!(
            serde_json::from_str::<Ip>(&text).unwrap().spec,
            IpSpec::default()
        );
        assert_eq!(
            serde_json::from_str::<Vpc>(&text).unwrap().spec,
            VpcSpec::default()
        );
    }

    let object = json!({
        "apiVersion": "kubeovn.io/v1", "kind": "IP", "metadata": {"name": "web.default"},
        "spec": {"podName": "web", "attachIps": null, "attachMacs": null}
    });
    let ip: Ip = serde_json::from_value(object).unwrap();
    assert!(ip.spec.attach_ips.is_empty() && ip.spec.subnet.is_empty());

    let object = json!({
        "apiVersion": "kubeovn.io/v1", "kind": "Subnet", "metadata": {"name": "s"},
        "spec": {"cidrBlock": "10.17.0.0/24", "namespaces": null, "u2oFeatures": null, "mtu": 1400.0},
        "status": {"conditions": null, "v4usingIPs": "12", "v6availableIPs": 1.2e24}
    });
    let subnet: Subnet = serde_json::from_value(object).unwrap();
    assert_eq!(
        subnet.spec.mtu, 1400,
        "the API server takes it for an integer"
    );
    let status = subnet.status.unwrap();
    assert_eq!(status.v4_using_ips.get(), 12);
    assert!(status.v6_available_ips.get() >= 1 << 79);
}
