//! CustomResourceDefinitions of the resources.
//!
//! The schemas say types, and bounds and enumerations only where upstream's do: an object that the Go implementation
//! accepts is accepted here. Everything else is judged by the controller, which can tell the user why in a condition.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{Ip, Subnet, Vpc};

/// The CustomResourceDefinitions to install, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        finish(Ip::crd(), None),
        // A subnet's name becomes a part of port group and address set names, which OVN does not let begin with a digit.
        finish(Subnet::crd(), Some("^[^0-9]")),
        finish(Vpc::crd(), None),
    ]
}

fn finish(mut crd: CustomResourceDefinition, name: Option<&str>) -> CustomResourceDefinition {
    // The API server fills it in; said here, an applied definition does not differ from the stored one.
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    for version in &mut crd.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|validation| validation.open_api_v3_schema.as_mut())
        {
            schema.title = None;
            simplify(schema);
            for column in version.additional_printer_columns.iter().flatten() {
                if column.type_ == "boolean"
                    && let Some(path) = column.json_path.strip_prefix(".spec.")
                {
                    say_false(schema, path);
                }
            }
            if let Some(pattern) = name {
                schema
                    .properties
                    .get_or_insert_default()
                    .insert("metadata".to_owned(), metadata(pattern));
            }
        }
    }
    crd
}

/// Lets the API server fill in a switch of the spec that is absent. The Go implementation always writes these out, so that
/// `kubectl get` has `false` in their columns; a typed object does not tell an absent one from one that is off, so that
/// the controller would never see that it is to be written.
fn say_false(schema: &mut JSONSchemaProps, field: &str) {
    let spec = schema
        .properties
        .as_mut()
        .and_then(|all| all.get_mut("spec"));
    let fields = spec.and_then(|spec| spec.properties.as_mut());
    if let Some(switch) = fields.and_then(|fields| fields.get_mut(field)) {
        switch.default = Some(JSON(false.into()));
    }
}

/// Metadata whose name matches a pattern; the only part of it that a definition may restrict.
fn metadata(pattern: &str) -> JSONSchemaProps {
    let name = JSONSchemaProps {
        type_: Some("string".to_owned()),
        pattern: Some(pattern.to_owned()),
        ..JSONSchemaProps::default()
    };
    JSONSchemaProps {
        type_: Some("object".to_owned()),
        properties: Some(BTreeMap::from([("name".to_owned(), name)])),
        ..JSONSchemaProps::default()
    }
}

/// Removes what the derived schemas say beyond types and our own bounds.
///
/// * Defaults would be written into stored objects, where they look like a user's wish; [`say_false`] has the exception.
/// * `nullable` would store `null`; without it the API server prunes one.
/// * Nothing is required: an absent field is an empty one, and the controller says what a spec lacks.
/// * `uint32` and the like are formats of Rust's, and `date-time` would refuse what a status holds already.
fn simplify(schema: &mut JSONSchemaProps) {
    schema.default = None;
    schema.nullable = None;
    schema.required = None;
    schema.format = None;
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|all| all.values_mut())
    {
        simplify(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => simplify(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(simplify),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        simplify(values);
    }
}
