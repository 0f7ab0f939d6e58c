//! Generates `src/generated/*.rs` from the checked-in schema files and [`overlay`].
//!
//! Pure text to text, shared by `examples/generate.rs` (writes) and `tests/generated.rs` (compares).

pub mod overlay;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use overlay::{Mode, Part, SOURCES, Source, Written};
use serde_json::Value as Json;

/// OVN releases whose schemas are known, oldest first: the names of the directories in `schemas/`.
const RELEASES: [&str; 2] = ["23.03", "25.03"];

/// The type of a column's keys or values.
#[derive(Clone, Debug, PartialEq)]
struct Base {
    kind: String,
    words: BTreeSet<String>,
    reference: Option<(String, bool)>,
}

/// A column over all releases.
#[derive(Clone, Debug)]
struct Column {
    key: Base,
    value: Option<Base>,
    min: u8,
    max: u32,
    releases: BTreeSet<usize>,
}

/// A table over all releases.
#[derive(Clone, Debug, Default)]
struct Table {
    root: bool,
    indexes: BTreeSet<Vec<String>>,
    columns: BTreeMap<String, Column>,
    releases: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Schema {
    name: String,
    versions: Vec<String>,
    tables: BTreeMap<String, Table>,
}

/// The generated files by name.
pub fn generate(schemas: &Path) -> BTreeMap<String, String> {
    SOURCES
        .iter()
        .map(|source| {
            let schema = load(schemas, source);
            let text = format(&module(&schema, source));
            (format!("{}.rs", source.module), text)
        })
        .collect()
}

fn load(schemas: &Path, source: &Source) -> Schema {
    let mut schema = Schema::default();
    for (release, directory) in RELEASES.iter().enumerate() {
        let path = schemas.join(directory).join(source.file);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        let json: Json = serde_json::from_str(&text).expect("a schema file is JSON");
        schema.name = string(&json["name"]);
        schema.versions.push(string(&json["version"]));
        for (name, table) in json["tables"].as_object().expect("tables") {
            let merged = schema.tables.entry(name.clone()).or_default();
            merged.root = table["isRoot"].as_bool().unwrap_or(false);
            merged.releases.insert(release);
            for index in table["indexes"].as_array().into_iter().flatten() {
                merged.indexes.insert(
                    index
                        .as_array()
                        .expect("index")
                        .iter()
                        .map(string)
                        .collect(),
                );
            }
            for (name, column) in table["columns"].as_object().expect("columns") {
                let new = column_type(&column["type"]);
                let merged = merged
                    .columns
                    .entry(name.clone())
                    .and_modify(|old| merge(old, &new))
                    .or_insert(new);
                merged.releases.insert(release);
            }
        }
    }
    schema
}

fn string(json: &Json) -> String {
    json.as_str().expect("a string").to_owned()
}

fn column_type(json: &Json) -> Column {
    let (key, value, min, max) = match json {
        Json::String(_) => (base(json), None, 1, 1),
        json => (
            base(&json["key"]),
            json.get("value").map(base),
            json.get("min").map_or(1, |m| m.as_u64().expect("min")),
            json.get("max")
                .map_or(1, |m| m.as_u64().unwrap_or(u64::from(u32::MAX))),
        ),
    };
    Column {
        key,
        value,
        min: u8::try_from(min).expect("a small minimum"),
        max: u32::try_from(max).expect("a maximum of 32 bits"),
        releases: BTreeSet::new(),
    }
}

fn base(json: &Json) -> Base {
    let Json::Object(object) = json else {
        return Base {
            kind: string(json),
            words: BTreeSet::new(),
            reference: None,
        };
    };
    let words = match object.get("enum") {
        Some(Json::Array(set)) => set[1].as_array().expect("a set").iter().collect(),
        Some(word) => vec![word],
        None => Vec::new(),
    };
    Base {
        kind: string(&object["type"]),
        words: words
            .into_iter()
            .filter_map(Json::as_str)
            .map(str::to_owned)
            .collect(),
        reference: object.get("refTable").map(|table| {
            let strong = object.get("refType").is_none_or(|t| t == "strong");
            (string(table), strong)
        }),
    }
}

/// The union of two versions of a column: what every version accepts.
fn merge(old: &mut Column, new: &Column) {
    assert_eq!(old.key.kind, new.key.kind, "a column changed its type");
    assert_eq!(old.value.is_some(), new.value.is_some());
    old.key.words.extend(new.key.words.iter().cloned());
    if let (Some(old), Some(new)) = (&mut old.value, &new.value) {
        old.words.extend(new.words.iter().cloned());
    }
    old.min = old.min.max(new.min);
    old.max = old.max.min(new.max);
}

fn module(schema: &Schema, source: &Source) -> String {
    let mut out = String::new();
    let versions = RELEASES
        .iter()
        .zip(&schema.versions)
        .map(|(release, version)| format!("{version} (OVN {release})"))
        .collect::<Vec<_>>()
        .join(", ");
    let name = &schema.name;
    writeln!(
        out,
        "// @generated by `cargo run -p ovn --example generate` from schemas/*/{}. Do not edit.\n\
         //! Tables of `{name}`: schema versions {versions}.\n\
         \n\
         // Not every module needs everything.\n\
         #![allow(unused_imports)]\n\
         \n\
         use std::collections::{{BTreeMap, BTreeSet}};\n\
         \n\
         use smol_str::SmolStr;\n\
         \n\
         use crate::model::{{\n\
             Atom, Base, Column, ColumnDef, Database, IntoValue as _, KeyPart, Mode, Ref, Row, SharedMap, SharedSet,\n\
             Table, TableDef, TableRow,\n\
         }};",
        source.file
    )
    .expect("text");
    let tables = selected(schema, source);
    for (name, table) in &tables {
        if let Some(written) = find_written(source, name) {
            row_struct(&mut out, schema, source, name, table, written);
        }
    }
    readers(&mut out, schema, &tables, source);
    definitions(&mut out, schema, &tables, source);
    out
}

fn find_written<'a>(source: &'a Source, table: &str) -> Option<&'a Written> {
    source.written.iter().find(|w| w.table == table)
}

/// The tables that the module has: those named by the overlay.
fn selected<'a>(schema: &'a Schema, source: &Source) -> Vec<(&'a str, &'a Table)> {
    for name in source
        .written
        .iter()
        .map(|w| w.table)
        .chain(source.read.iter().copied())
    {
        assert!(
            schema.tables.contains_key(name),
            "no table {name} in {}",
            schema.name
        );
    }
    schema
        .tables
        .iter()
        .filter(|(name, _)| {
            find_written(source, name).is_some() || source.read.contains(&name.as_str())
        })
        .map(|(name, table)| (name.as_str(), table))
        .collect()
}

fn mode(written: Option<&Written>, column: &str, table: &Table) -> Mode {
    let Some(written) = written else {
        return Mode::Ignored;
    };
    for (name, _) in written.columns {
        assert!(
            table.columns.contains_key(*name),
            "no column {}.{name}",
            written.table
        );
    }
    written
        .columns
        .iter()
        .find(|(name, _)| *name == column)
        .map_or(Mode::Managed, |(_, mode)| *mode)
}

fn row_struct(
    out: &mut String,
    schema: &Schema,
    source: &Source,
    name: &str,
    table: &Table,
    written: &Written,
) {
    let ty = camel(name);
    let position = |column: &str| {
        table
            .columns
            .keys()
            .position(|c| c == column)
            .expect("known")
    };
    let fields: Vec<_> = table
        .columns
        .iter()
        .filter(|(c, _)| matches!(mode(Some(written), c, table), Mode::Managed | Mode::Keys(_)))
        .collect();
    let doc = match since(schema, &table.releases) {
        Some(version) => format!(" Since schema {version}."),
        None => String::new(),
    };
    writeln!(
        out,
        "\n/// A row of `{name}`: what the unit that owns it states.{doc}\n\
         #[derive(Clone, Debug, Default, PartialEq, Eq)]\n\
         pub struct {ty} {{"
    )
    .expect("text");
    for (column, def) in &fields {
        if let Some(version) = since(schema, &def.releases) {
            writeln!(out, "/// Since schema {version}.").expect("text");
        }
        writeln!(
            out,
            "pub {}: {},",
            ident(column),
            field_type(source, name, column, def)
        )
        .expect("text");
    }
    writeln!(out, "}}\n\nimpl {ty} {{").expect("text");
    writeln!(
        out,
        "pub const TABLE: Table = Table::new(Database::{}, {});",
        database(&schema.name),
        table_index(schema, source, name)
    )
    .expect("text");
    for (column, def) in &table.columns {
        let constant = column.to_uppercase();
        let plain = format!("Column::new(Self::TABLE, {})", position(column));
        match mode(Some(written), column, table) {
            Mode::Shared => {
                let key = element_type(source, name, column, &def.key, false);
                match &def.value {
                    None => writeln!(
                        out,
                        "pub const {constant}: SharedSet<Self, {key}> = SharedSet::new({plain});"
                    ),
                    Some(value) => {
                        let value = element_type(source, name, column, value, false);
                        writeln!(
                            out,
                            "pub const {constant}: SharedMap<Self, {key}, {value}> = SharedMap::new({plain});"
                        )
                    }
                }
            }
            Mode::Managed | Mode::Keys(_) | Mode::Ignored => {
                writeln!(out, "pub const {constant}: Column = {plain};")
            }
        }
        .expect("text");
    }
    match written.key {
        [Part::Column(column)] => writeln!(
            out,
            "\n/// The row with this `{column}`.\n\
             pub fn named({0}: impl Into<SmolStr>) -> Ref<Self> {{\n\
                 Ref::new({0})\n\
             }}",
            ident(column)
        ),
        [Part::Singleton] => writeln!(
            out,
            "\n/// The only row of the table.\n\
             pub fn only() -> Ref<Self> {{\n\
                 Ref::new(\".\")\n\
             }}"
        ),
        _ => Ok(()),
    }
    .expect("text");
    writeln!(
        out,
        "}}\n\nimpl TableRow for {ty} {{\n\
         const TABLE: Table = Self::TABLE;\n\n\
         fn into_row(self) -> Row {{\n\
         Row::new(["
    )
    .expect("text");
    for (column, _) in &fields {
        writeln!(
            out,
            "(Self::{}, self.{}.into_value()),",
            column.to_uppercase(),
            ident(column)
        )
        .expect("text");
    }
    writeln!(out, "])\n}}\n}}").expect("text");
    for (column, def) in &table.columns {
        if mode(Some(written), column, table) != Mode::Ignored && !def.key.words.is_empty() {
            word_enum(out, source, name, column, def, written);
        }
    }
}

/// The type of a column that holds one of several words.
fn word_enum(
    out: &mut String,
    source: &Source,
    table: &str,
    column: &str,
    def: &Column,
    written: &Written,
) {
    let ty = element_type(source, table, column, &def.key, false);
    let words = &def.key.words;
    let required = def.value.is_none() && def.min == 1 && def.max == 1;
    let default = written
        .defaults
        .iter()
        .find(|(c, _)| *c == column)
        .map(|(_, word)| *word);
    assert!(
        !required || default.is_some_and(|d| words.contains(d)),
        "{table}.{column} needs a default of {words:?} in the overlay"
    );
    let derive = if required { ", Default" } else { "" };
    writeln!(
        out,
        "\n/// What `{table}.{column}` may hold.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord{derive})]\n\
         pub enum {ty} {{"
    )
    .expect("text");
    for word in words {
        if required && default == Some(word.as_str()) {
            writeln!(out, "#[default]").expect("text");
        }
        writeln!(out, "{},", camel(word)).expect("text");
    }
    writeln!(
        out,
        "}}\n\nimpl {ty} {{\npub fn as_str(self) -> &'static str {{\nmatch self {{"
    )
    .expect("text");
    for word in words {
        writeln!(out, "Self::{} => {word:?},", camel(word)).expect("text");
    }
    writeln!(
        out,
        "}}\n}}\n}}\n\n\
         impl std::fmt::Display for {ty} {{\n\
             fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n\
                 f.write_str(self.as_str())\n\
             }}\n\
         }}\n\n\
         impl std::str::FromStr for {ty} {{\n\
             type Err = crate::model::UnknownWord;\n\n\
             fn from_str(word: &str) -> Result<Self, Self::Err> {{\n\
                 match word {{"
    )
    .expect("text");
    for word in words {
        writeln!(out, "{word:?} => Ok(Self::{}),", camel(word)).expect("text");
    }
    writeln!(
        out,
        "_ => Err(crate::model::UnknownWord::new(word, &{:?})),\n}}\n}}\n}}\n\n\
         impl From<{ty}> for Atom {{\n\
             fn from(word: {ty}) -> Self {{\n\
                 Self::Str(SmolStr::new_static(word.as_str()))\n\
             }}\n\
         }}",
        words.iter().collect::<Vec<_>>()
    )
    .expect("text");
    if required {
        writeln!(
            out,
            "\nimpl crate::model::IntoValue for {ty} {{\n\
                 fn into_value(self) -> crate::model::Value {{\n\
                     crate::model::Value::Atom(self.into())\n\
                 }}\n\
             }}"
        )
        .expect("text");
    }
}

fn readers(out: &mut String, schema: &Schema, tables: &[(&str, &Table)], source: &Source) {
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

fn definitions(out: &mut String, schema: &Schema, tables: &[(&str, &Table)], source: &Source) {
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

fn base_def(schema: &Schema, source: &Source, base: &Base) -> String {
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
fn element_type(source: &Source, table: &str, column: &str, base: &Base, value: bool) -> String {
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

fn field_type(source: &Source, table: &str, column: &str, def: &Column) -> String {
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

fn reader_type(def: &Column) -> String {
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

fn table_index(schema: &Schema, source: &Source, name: &str) -> usize {
    selected(schema, source)
        .iter()
        .position(|(table, _)| *table == name)
        .expect("a selected table")
}

fn database(name: &str) -> &'static str {
    match name {
        "OVN_Northbound" => "Northbound",
        "OVN_Southbound" => "Southbound",
        "Open_vSwitch" => "OpenVswitch",
        other => panic!("unknown database {other}"),
    }
}

/// The first version with it, if an older one lacks it.
fn since(schema: &Schema, releases: &BTreeSet<usize>) -> Option<String> {
    let first = *releases.first()?;
    (first > 0).then(|| schema.versions[first].clone())
}

/// The first version without it again.
fn until(schema: &Schema, releases: &BTreeSet<usize>) -> Option<String> {
    let last = *releases.last()?;
    schema.versions.get(last + 1).cloned()
}

/// `Logical_Switch` -> `LogicalSwitch`, `ACL` -> `Acl`, `allow-related` -> `AllowRelated`.
fn camel(name: &str) -> String {
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

fn ident(column: &str) -> String {
    match column {
        "match" | "type" => format!("r#{column}"),
        other => other.to_owned(),
    }
}

/// Runs the text through rustfmt, so that the committed files are what `cargo fmt` makes of them.
fn format(text: &str) -> String {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("rustfmt is needed: rustup component add rustfmt");
    let mut stdin = child.stdin.take().expect("piped");
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("rustfmt runs");
    writer
        .join()
        .expect("no panic")
        .expect("rustfmt reads its input");
    assert!(
        output.status.success(),
        "rustfmt refused the generated text"
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}
