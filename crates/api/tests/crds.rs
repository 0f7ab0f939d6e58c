//! The definitions: what is installed is what the types generate, and the types have every field of upstream's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

const UPDATE: &str = "UPDATE_CRDS=1 cargo test -p api --test crds";

fn yaml(crd: &CustomResourceDefinition) -> String {
    let body = serde_saphyr::to_string(crd).unwrap();
    format!("# Generated from crates/api/src/v1; after a change: {UPDATE}\n---\n{body}")
}

fn path(crd: &CustomResourceDefinition) -> PathBuf {
    let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/crds")
        .join(name)
}

#[test]
fn deployed_definitions_are_current() {
    for crd in api::crds() {
        let (path, generated) = (path(&crd), yaml(&crd));
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &generated).unwrap();
        }
        let deployed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            deployed == generated,
            "{} is not what the types generate; run {UPDATE}",
            path.display()
        );
        // What is printed reads back as the same definition.
        let read: CustomResourceDefinition = serde_saphyr::from_str(&deployed).unwrap();
        assert_eq!(read, crd);
    }
}

/// `path type` of every leaf below a schema.
fn leaves(prefix: &str, schema: &JSONSchemaProps, found: &mut BTreeSet<String>) {
    let properties = schema.properties.iter().flatten();
    for (name, property) in properties {
        leaves(&format!("{prefix}.{name}"), property, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        leaves(&format!("{prefix}[]"), items, found);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        leaves(&format!("{prefix}{{}}"), values, found);
    }
    match schema.type_.as_deref() {
        Some("object" | "array") => {}
        other => {
            found.insert(format!("{prefix} {}", other.unwrap_or("any")));
        }
    }
}

#[test]
fn schemas_have_the_fields_of_the_go_implementation() {
    let wanted: BTreeSet<String> = include_str!("data/fields.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let mut found = BTreeSet::new();
    for crd in api::crds() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap();
        let schema = schema.open_api_v3_schema.as_ref().unwrap();
        for part in ["spec", "status"] {
            if let Some(schema) = schema.properties.as_ref().unwrap().get(part) {
                leaves(
                    &format!("{} {part}", crd.spec.names.kind),
                    schema,
                    &mut found,
                );
            }
        }
    }
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    assert!(missing.is_empty(), "missing: {missing:#?}");
    assert!(
        surplus.is_empty(),
        "not in tests/data/fields.txt: {surplus:#?}"
    );
}

#[test]
fn kubectl_shows_the_columns_of_the_go_implementation() {
    let columns = |plural: &str| {
        let crd = api::crds()
            .into_iter()
            .find(|crd| crd.spec.names.plural == plural)
            .unwrap();
        assert_eq!(crd.spec.scope, "Cluster");
        assert_eq!(
            crd.spec.names.short_names,
            Some(vec![plural.trim_end_matches('s').to_owned()])
        );
        let version = crd.spec.versions[0].clone();
        assert_eq!(
            version.subresources.is_some_and(|sub| sub.status.is_some()),
            plural != "ips",
            "status subresource of {plural}"
        );
        version
            .additional_printer_columns
            .unwrap()
            .into_iter()
            .map(|column| format!("{} {} {}", column.name, column.type_, column.json_path))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        columns("subnets"),
        [
            "Provider string .spec.provider",
            "Vpc string .spec.vpc",
            "Vlan string .spec.vlan",
            "Protocol string .spec.protocol",
            "CIDR string .spec.cidrBlock",
            "Private boolean .spec.private",
            "NAT boolean .spec.natOutgoing",
            "Default boolean .spec.default",
            "GatewayType string .spec.gatewayType",
            "V4Used number .status.v4usingIPs",
            "V4Available number .status.v4availableIPs",
            "V6Used number .status.v6usingIPs",
            "V6Available number .status.v6availableIPs",
            "ExcludeIPs string .spec.excludeIps",
            "U2OInterconnectionIP string .status.u2oInterconnectionIP",
        ]
    );
    assert_eq!(
        columns("ips"),
        [
            "V4IP string .spec.v4IpAddress",
            "V6IP string .spec.v6IpAddress",
            "Mac string .spec.macAddress",
            "Node string .spec.nodeName",
            "Subnet string .spec.subnet",
        ]
    );
    assert_eq!(
        columns("vpcs"),
        [
            "EnableExternal boolean .status.enableExternal",
            "EnableBfd boolean .status.enableBfd",
            "Standby boolean .status.standby",
            "Subnets string .status.subnets",
            "ExtraExternalSubnets string .status.extraExternalSubnets",
            "Namespaces string .spec.namespaces",
            "DefaultSubnet string .status.defaultLogicalSwitch",
            "Age date .metadata.creationTimestamp",
        ]
    );
}

/// `PRIVATE`, `NAT` and `DEFAULT` are `false` and not empty where a user left them out, and nothing else is filled in.
#[test]
fn switches_in_a_column_are_filled_in_and_no_other_field_is() {
    fn defaults(prefix: &str, schema: &JSONSchemaProps, found: &mut Vec<String>) {
        if let Some(default) = &schema.default {
            found.push(format!("{prefix} {}", default.0));
        }
        for (name, property) in schema.properties.iter().flatten() {
            defaults(&format!("{prefix}.{name}"), property, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            defaults(&format!("{prefix}[]"), items, found);
        }
    }
    let mut found = Vec::new();
    for crd in api::crds() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap();
        let schema = schema.open_api_v3_schema.as_ref().unwrap();
        defaults(&crd.spec.names.kind, schema, &mut found);
    }
    assert_eq!(
        found,
        [
            "Subnet.spec.default false",
            "Subnet.spec.natOutgoing false",
            "Subnet.spec.private false",
        ]
    );
}

/// A definition must stay structural: the API server refuses one that leaves a type open.
#[test]
fn every_schema_node_has_a_type() {
    fn check(path: &str, schema: &JSONSchemaProps) {
        assert!(schema.type_.is_some(), "{path} has no type");
        assert!(schema.nullable.is_none(), "{path} is nullable");
        assert!(schema.any_of.is_none() && schema.one_of.is_none(), "{path}");
        for (name, property) in schema.properties.iter().flatten() {
            check(&format!("{path}.{name}"), property);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            check(&format!("{path}[]"), items);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            check(&format!("{path}{{}}"), values);
        }
    }
    for crd in api::crds() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap();
        check(
            &crd.spec.names.kind,
            schema.open_api_v3_schema.as_ref().unwrap(),
        );
    }
}
