//! What is generated for every table: the readers and the definitions that the model consults.

use std::fmt::Write as _;

use super::names::{base_def, camel, database, ident, reader_type, table_index};
use super::overlay::{Mode, Part, Source};
use super::schema::{Schema, Table, since, until};
use super::{find_written, mode};

pub(super) fn readers(
    out: &mut String,
    schema: &Schema,
    tables: &[(&str, &Table)],
    source: &Source,
) {
    writeln!(
        out,
        "\n/// Every column of every table, for reading. References are UUIDs.\n\
         pub mod read {{\n\
         use std::collections::{{BTreeMap, BTreeSet}};\n\n\
         use ovsdb::wire;\n\
         use smol_str::SmolStr;\n\
         use uuid::Uuid;\n\n\
         use crate::model::{{Database, FromDatum as _, ReadRow, Table}};"
    )
    .expect("text");
    for (name, table) in tables {
        let ty = camel(name);
        writeln!(
            out,
            "\n/// A row of `{name}`.\n\
             #[derive(Clone, Debug, Default, PartialEq)]\n\
             pub struct {ty} {{\n\
             pub uuid: Uuid,"
        )
        .expect("text");
        for (column, def) in &table.columns {
            if let Some(version) = since(schema, &def.releases) {
                writeln!(out, "/// Since schema {version}.").expect("text");
            }
            writeln!(out, "pub {}: {},", ident(column), reader_type(def)).expect("text");
        }
        writeln!(
            out,
            "}}\n\n\
             impl ReadRow for {ty} {{\n\
             const TABLE: Table = Table::new(Database::{}, {});\n\n\
             fn read(uuid: Uuid, row: &wire::Row) -> Self {{\n\
             Self {{\n\
             uuid,",
            database(&schema.name),
            table_index(schema, source, name)
        )
        .expect("text");
        for (column, def) in &table.columns {
            writeln!(
                out,
                "{}: <{}>::from_datum(row.get({column:?})),",
                ident(column),
                reader_type(def)
            )
            .expect("text");
        }
        writeln!(out, "}}\n}}\n}}").expect("text");
    }
    writeln!(out, "}}").expect("text");
}

pub(super) fn definitions(
    out: &mut String,
    schema: &Schema,
    tables: &[(&str, &Table)],
    source: &Source,
) {
    writeln!(
        out,
        "\npub(crate) static TABLES: [TableDef; {}] = [",
        tables.len()
    )
    .expect("text");
    for (name, table) in tables {
        let written = find_written(source, name);
        let key = written.map_or(&[][..], |w| w.key);
        let parts: Vec<_> = key
            .iter()
            .map(|part| match part {
                Part::Parent => "KeyPart::Parent".to_owned(),
                Part::Singleton => "KeyPart::Singleton".to_owned(),
                Part::External(id) => format!("KeyPart::External({id:?})"),
                Part::Column(column) => {
                    let index = table.columns.keys().position(|c| c == column);
                    format!("KeyPart::Column({})", index.expect("a key column"))
                }
            })
            .collect();
        let indexes: Vec<_> = table
            .indexes
            .iter()
            .map(|columns| format!("&{columns:?}"))
            .collect();
        writeln!(
            out,
            "TableDef {{ name: {name:?}, root: {}, key: &[{}], indexes: &[{}], since: {:?}, columns: &[",
            table.root,
            parts.join(", "),
            indexes.join(", "),
            since(schema, &table.releases),
        )
        .expect("text");
        for (column, def) in &table.columns {
            let mode = match mode(written, column, table) {
                Mode::Keys(keys) => format!("Mode::Keys(&{keys:?})"),
                mode => format!("Mode::{mode:?}"),
            };
            let value = match &def.value {
                Some(value) => format!("Some({})", base_def(schema, source, value)),
                None => "None".to_owned(),
            };
            writeln!(
                out,
                "ColumnDef {{ name: {column:?}, key: {}, value: {value}, min: {}, max: {}, mode: {mode}, \
                 since: {:?}, until: {:?}, essential: {} }},",
                base_def(schema, source, &def.key),
                def.min,
                if def.max == u32::MAX { "u32::MAX".to_owned() } else { def.max.to_string() },
                since(schema, &def.releases),
                until(schema, &def.releases),
                written.is_some_and(|w| w.essential.contains(&column.as_str())),
            )
            .expect("text");
        }
        writeln!(out, "] }},").expect("text");
    }
    writeln!(out, "];").expect("text");
}
