//! Names and types of the generated code.

use super::overlay::Source;
use super::schema::{Base, Column, Schema};
use super::{find_written, selected};

pub(super) fn base_def(schema: &Schema, source: &Source, base: &Base) -> String {
    match (&base.reference, base.kind.as_str()) {
        // References to tables that the module leaves out are plain UUIDs.
        (Some((table, strong)), _) if selected(schema, source).iter().any(|(t, _)| t == table) => {
            format!(
                "Base::Ref {{ table: Table::new(Database::{}, {}), strong: {strong} }}",
                database(&schema.name),
                table_index(schema, source, table)
            )
        }
        (_, "integer") => "Base::Int".to_owned(),
        (_, "real") => "Base::Real".to_owned(),
        (_, "boolean") => "Base::Bool".to_owned(),
        (_, "string") => "Base::Str".to_owned(),
        (_, "uuid") => "Base::Uuid".to_owned(),
        (_, other) => panic!("unknown type {other}"),
    }
}

/// Rust type of one element of a column of a row that we write.
pub(super) fn element_type(
    source: &Source,
    table: &str,
    column: &str,
    base: &Base,
    value: bool,
) -> String {
    if let Some((target, _)) = &base.reference {
        assert!(
            find_written(source, target).is_some(),
            "{table}.{column} refers to {target}, which the overlay does not write: ignore the column or add the table"
        );
        return format!("Ref<{}>", camel(target));
    }
    match base.kind.as_str() {
        "string" if !base.words.is_empty() && !value => {
            format!("{}{}", camel(table), camel(column))
        }
        "string" => "SmolStr".to_owned(),
        "integer" => "i64".to_owned(),
        "boolean" => "bool".to_owned(),
        other => panic!("{table}.{column}: no field of type {other}; ignore the column"),
    }
}

pub(super) fn field_type(source: &Source, table: &str, column: &str, def: &Column) -> String {
    let key = element_type(source, table, column, &def.key, false);
    match &def.value {
        Some(value) => {
            let value = element_type(source, table, column, value, true);
            format!("BTreeMap<{key}, {value}>")
        }
        None if (def.min, def.max) == (1, 1) => key,
        None if def.max == 1 => format!("Option<{key}>"),
        None => format!("BTreeSet<{key}>"),
    }
}

pub(super) fn reader_type(def: &Column) -> String {
    let element = |base: &Base| match base.kind.as_str() {
        "string" => "SmolStr",
        "integer" => "i64",
        "boolean" => "bool",
        "real" => "f64",
        "uuid" => "Uuid",
        other => panic!("unknown type {other}"),
    };
    let key = element(&def.key);
    match &def.value {
        Some(value) => format!("BTreeMap<{key}, {}>", element(value)),
        None if (def.min, def.max) == (1, 1) => key.to_owned(),
        None if def.max == 1 => format!("Option<{key}>"),
        None => format!("BTreeSet<{key}>"),
    }
}

pub(super) fn table_index(schema: &Schema, source: &Source, name: &str) -> usize {
    selected(schema, source)
        .iter()
        .position(|(table, _)| *table == name)
        .expect("a selected table")
}

pub(super) fn database(name: &str) -> &'static str {
    match name {
        "OVN_Northbound" => "Northbound",
        "OVN_Southbound" => "Southbound",
        "Open_vSwitch" => "OpenVswitch",
        other => panic!("unknown database {other}"),
    }
}

/// `Logical_Switch` -> `LogicalSwitch`, `ACL` -> `Acl`, `allow-related` -> `AllowRelated`.
pub(super) fn camel(name: &str) -> String {
    if name == "Open_vSwitch" {
        return "OpenVswitch".to_owned();
    }
    name.split(['_', '-'])
        .map(|part| {
            let mut letters = part.chars();
            let first = letters.next().map(|c| c.to_ascii_uppercase());
            first
                .into_iter()
                .chain(letters.map(|c| c.to_ascii_lowercase()))
                .collect::<String>()
        })
        .collect()
}

pub(super) fn ident(column: &str) -> String {
    match column {
        "match" | "type" => format!("r#{column}"),
        other => other.to_owned(),
    }
}
