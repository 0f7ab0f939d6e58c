//! How a schema stands in a recording: as in an `.ovsschema` file (RFC 7047, section 3.2). A server without some table or
//! column is one of the things that a repeated run must meet again.

use std::sync::Arc;

use ovsdb::wire::{AtomicType, BaseType, ColumnType, DatabaseSchema, Datum, RefType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

#[expect(clippy::ref_option, reason = "serde asks for this signature")]
pub(crate) fn serialize<S: Serializer>(
    schema: &Option<Arc<DatabaseSchema>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    schema.as_deref().map(text).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Arc<DatabaseSchema>>, D::Error> {
    Ok(Option::<DatabaseSchema>::deserialize(deserializer)?.map(Arc::new))
}

fn text(schema: &DatabaseSchema) -> Value {
    let tables: Map<String, Value> = schema
        .tables
        .iter()
        .map(|(name, table)| {
            let columns: Map<String, Value> = table
                .columns
                .iter()
                .map(|(name, column)| {
                    let column = json!({ "type": column_type(&column.ty), "ephemeral": column.ephemeral, "mutable": column.mutable });
                    (name.to_string(), column)
                })
                .collect();
            let table = json!({ "columns": columns, "maxRows": table.max_rows, "isRoot": table.is_root, "indexes": table.indexes });
            (name.to_string(), table)
        })
        .collect();
    json!({ "name": schema.name, "version": schema.version, "cksum": schema.cksum, "tables": tables })
}

fn column_type(ty: &ColumnType) -> Value {
    let max = ty.max.map_or_else(|| json!("unlimited"), |max| json!(max));
    json!({ "key": base_type(&ty.key), "value": ty.value.as_ref().map(base_type), "min": ty.min, "max": max })
}

fn base_type(ty: &BaseType) -> Value {
    let name = match ty.ty {
        AtomicType::Integer => "integer",
        AtomicType::Real => "real",
        AtomicType::Boolean => "boolean",
        AtomicType::String => "string",
        AtomicType::Uuid => "uuid",
    };
    let strength = match ty.ref_type {
        RefType::Strong => "strong",
        RefType::Weak => "weak",
    };
    let allowed = (!ty.allowed.is_empty()).then(|| Datum::set(ty.allowed.iter().cloned()));
    json!({
        "type": name,
        "enum": allowed,
        "minInteger": ty.min_integer,
        "maxInteger": ty.max_integer,
        "minReal": ty.min_real,
        "maxReal": ty.max_real,
        "minLength": ty.min_length,
        "maxLength": ty.max_length,
        "refTable": ty.ref_table,
        "refType": strength,
    })
}
