//! The structs of the tables that we write, and the enums of their columns.

use std::fmt::Write as _;

use super::mode;
use super::names::{camel, database, element_type, field_type, ident, table_index};
use super::overlay::{Mode, Part, Source, Written};
use super::schema::{Column, Schema, Table, since};

pub(super) fn row_struct(
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
