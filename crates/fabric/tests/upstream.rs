//! The Go implementation's objects in, and our rows against the rows that it wrote.
//!
//! `upstream/<case>/` holds what a real run of it left behind, shortened to what concerns us. Every difference is listed
//! in `difference.txt` (`-` only there, `+` only here); `README.md` beside it says why they are as they are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use fabric::Config;
use fabric::config::JoinSubnet;
use ovn::{Atom, Row, RowKey};
use serde_json::{Value, json};
use support::Cluster;

/// Columns and keys that are ours, or whose values are not decided by the objects.
const OURS: &str = "kube-ovn.io/source";

#[test]
fn basic() {
    compare("basic", Config::default());
}

#[test]
fn dualstack() {
    let config = Config {
        service_cidrs: "10.68.0.0/16,fd00:10:68::/112".parse().unwrap(),
        join: JoinSubnet {
            cidrs: "100.64.0.0/16,fd00:100:64::/112".parse().unwrap(),
            ..JoinSubnet::default()
        },
        ..Config::default()
    };
    compare("dualstack", config);
}

fn compare(case: &str, mut config: Config) {
    config.cluster_uid = "cluster".into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/upstream")
        .join(case);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();

    let mut cluster = Cluster::new(config);
    cluster.allocates = false;
    cluster.step(&read("objects.yaml"));
    specs_stay(&cluster, &read("objects.yaml"));

    let theirs = upstream_lines(&serde_json::from_str(&read("nb.json")).unwrap());
    let ours = our_lines(&cluster);
    let mut text = String::new();
    for event in &cluster.events {
        writeln!(text, "! {event}").unwrap();
    }
    for line in theirs.union(&ours) {
        match (theirs.contains(line), ours.contains(line)) {
            (true, false) => writeln!(text, "- {line}").unwrap(),
            (false, true) => writeln!(text, "+ {line}").unwrap(),
            _ => {}
        }
    }
    let path = folder.join("difference.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text);
}

/// Subnets of an adopted cluster have their defaults already: nothing is written into their specs.
fn specs_stay(cluster: &Cluster, yaml: &str) {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    for subnet in documents.iter().filter(|object| object["kind"] == "Subnet") {
        let key = format!("Subnet/{}", subnet["metadata"]["name"].as_str().unwrap());
        assert_eq!(cluster.objects[&key]["spec"], subnet["spec"], "{key}");
    }
}

/// One line for each column of each row.
fn upstream_lines(tables: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (table, rows) in tables.as_object().unwrap() {
        for row in rows.as_array().unwrap() {
            let row = row.as_object().unwrap();
            let text = |column: &str| row.get(column).map_or(String::new(), ToString::to_string);
            let name = match table.as_str() {
                "Logical_Router_Policy" => format!("{} {}", text("priority"), text("match")),
                "Logical_Router_Static_Route" => text("ip_prefix"),
                "NB_Global" => ".".to_owned(),
                _ => text("name"),
            };
            for (column, value) in row {
                let values = match value {
                    Value::Array(values) => values.clone(),
                    Value::Object(map) => map.iter().map(|(k, v)| json!({ k: v })).collect(),
                    single => vec![single.clone()],
                };
                for value in values {
                    lines.insert(format!("{table} {name} {column}={value}"));
                }
            }
        }
    }
    lines
}

fn our_lines(cluster: &Cluster) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut names: BTreeMap<RowKey, String> = BTreeMap::new();
    for fragment in cluster.compiled.values().map(|compiled| &compiled.fragment) {
        for (key, row) in &fragment.rows {
            names.insert(key.clone(), line_name(key, row));
            for (column, value) in row.iter() {
                let name = format!("{} {} {}", key.table, names[key], column.name());
                for atom in value.atoms() {
                    lines.insert(format!("{name}={}", atom_json(atom)));
                }
                for (id, value) in value.entries() {
                    if id.as_str() != Some(OURS) {
                        let entry = json!({ id.to_string(): atom_json(value) });
                        lines.insert(format!("{name}={entry}"));
                    }
                }
            }
        }
    }
    for fragment in cluster.compiled.values().map(|compiled| &compiled.fragment) {
        for member in &fragment.members {
            // Their containers name only what has a name of its own.
            if member.column.name() == "ports" {
                let name = format!("{} {}", member.parent.table, names[&member.parent]);
                let element = json!(member.element.to_string());
                lines.insert(format!("{name} ports={element}"));
            }
        }
    }
    lines
}

fn line_name(key: &RowKey, row: &Row) -> String {
    let column = |name: &str| {
        key.table
            .column(name)
            .and_then(|column| row.scalar(column))
            .map_or(String::new(), |atom| atom_json(atom).to_string())
    };
    match key.table.name() {
        "Logical_Router_Policy" => format!("{} {}", column("priority"), column("match")),
        "Logical_Router_Static_Route" => column("ip_prefix"),
        "NB_Global" => ".".to_owned(),
        _ => column("name"),
    }
}

fn atom_json(atom: &Atom) -> Value {
    match atom {
        Atom::Int(number) => json!(number),
        Atom::Bool(flag) => json!(flag),
        other => json!(other.to_string()),
    }
}
