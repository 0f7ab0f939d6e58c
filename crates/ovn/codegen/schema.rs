//! The schema files of all releases as one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use super::overlay::Source;

/// OVN releases whose schemas are known, oldest first: the names of the directories in `schemas/`.
pub(super) const RELEASES: [&str; 2] = ["23.03", "25.03"];

/// The type of a column's keys or values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Base {
    pub kind: String,
    pub words: BTreeSet<String>,
    pub reference: Option<(String, bool)>,
}

/// A column over all releases.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub key: Base,
    pub value: Option<Base>,
    pub min: u8,
    pub max: u32,
    pub releases: BTreeSet<usize>,
}

/// A table over all releases.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub root: bool,
    pub indexes: BTreeSet<Vec<String>>,
    pub columns: BTreeMap<String, Column>,
    pub releases: BTreeSet<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Schema {
    pub name: String,
    pub versions: Vec<String>,
    pub tables: BTreeMap<String, Table>,
}

pub(super) fn load(schemas: &Path, source: &Source) -> Schema {
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

/// The first version with it, if an older one lacks it.
pub(super) fn since(schema: &Schema, releases: &BTreeSet<usize>) -> Option<String> {
    let first = *releases.first()?;
    (first > 0).then(|| schema.versions[first].clone())
}

/// The first version without it again.
pub(super) fn until(schema: &Schema, releases: &BTreeSet<usize>) -> Option<String> {
    let last = *releases.last()?;
    schema.versions.get(last + 1).cloned()
}
