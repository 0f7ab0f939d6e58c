//! What changes in an OVN database while something else happens, as the database's own monitor tells it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::lab::{Lab, Place};

/// How long a database may take to send what it holds.
const FIRST: Duration = Duration::from_secs(10);

/// A monitor of a whole database, from [`Watch::start`] to [`Watch::end`].
pub struct Watch {
    client: Child,
    reader: JoinHandle<Vec<Update>>,
}

/// One row that came, went or changed.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// Its table.
    pub table: String,
    /// `insert`, `delete` or `modify`.
    pub action: String,
    /// For `modify`: the columns that changed, with the old and the new value in OVSDB's JSON (RFC 7047, section 5.1).
    pub columns: BTreeMap<String, (Value, Value)>,
}

type Update = Vec<RowChange>;

impl Watch {
    /// Listen to `OVN_Northbound` on port 6641 or `OVN_Southbound` on 6642; returns when the present rows are known.
    pub fn start(lab: &Lab, database: &str, port: u16) -> Result<Self> {
        let mut client = lab
            .command(Place::Node(&lab.first()?.name), "ovsdb-client")?
            .args([
                "-f",
                "json",
                "monitor",
                &lab.database(port),
                database,
                "ALL",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ovsdb-client")?;
        let output = client.stdout.take().context("ovsdb-client has no output")?;
        let (known, first): (_, Receiver<()>) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut updates = Vec::new();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(table) = serde_json::from_str(&line) else {
                    continue;
                };
                let _ = known.send(());
                updates.push(changes(&table));
            }
            updates
        });
        let watch = Self { client, reader };
        first
            .recv_timeout(FIRST)
            .with_context(|| format!("{database} sent nothing"))?;
        Ok(watch)
    }

    /// Stop listening; what changed, in order.
    pub fn end(mut self) -> Result<Vec<RowChange>> {
        if let Some(status) = self.client.try_wait()? {
            bail!("ovsdb-client did not listen to the end ({status})");
        }
        let _ = self.client.kill();
        let _ = self.client.wait();
        let updates = self
            .reader
            .join()
            .ok()
            .context("the reader of ovsdb-client panicked")?;
        Ok(updates.into_iter().flatten().collect())
    }
}

impl RowChange {
    /// The keys of a map column whose values changed, came or went; `None` if that column did not change.
    pub fn keys(&self, column: &str) -> Option<Vec<String>> {
        let (old, new) = self.columns.get(column)?;
        let (old, new) = (pairs(old), pairs(new));
        let mut keys: Vec<String> = old
            .iter()
            .filter(|(key, value)| new.get(*key) != Some(value))
            .map(|(key, _)| key.clone())
            .chain(new.keys().filter(|key| !old.contains_key(*key)).cloned())
            .collect();
        keys.sort();
        Some(keys)
    }
}

impl fmt::Display for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.table)?;
        for (column, (old, new)) in &self.columns {
            write!(f, " {column}: {old} -> {new}")?;
        }
        Ok(())
    }
}

fn pairs(map: &Value) -> BTreeMap<String, String> {
    map[1]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].to_string())))
        .collect()
}

/// The rows of one table of `ovsdb-client monitor`: headings `row`, `action` and the columns; a changed row is two, `old`
/// with the former values of the columns that changed, then `new`. What was there at the beginning is `initial`.
fn changes(table: &Value) -> Update {
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let headings = rows(&table["headings"]);
    let data = rows(&table["data"]);
    let mut found = Vec::new();
    for (index, row) in data.iter().enumerate() {
        let action = row[1].as_str().unwrap_or_default();
        let (action, columns) = match action {
            "insert" | "delete" => (action, BTreeMap::new()),
            "old" => {
                let new = data.get(index + 1).unwrap_or(&Value::Null);
                let changed = headings
                    .iter()
                    .enumerate()
                    .skip(2)
                    .filter_map(|(at, name)| {
                        let (name, old) = (name.as_str()?, &row[at]);
                        (!old.is_null() && name != "_version")
                            .then(|| (name.to_owned(), (old.clone(), new[at].clone())))
                    });
                ("modify", changed.collect())
            }
            _ => continue,
        };
        found.push(RowChange {
            table: table["caption"].as_str().unwrap_or_default().to_owned(),
            action: action.to_owned(),
            columns,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_monitor_prints_is_read() {
        let table = json!({
            "caption": "NB_Global",
            "headings": ["row", "action", "external_ids", "nb_cfg", "_version"],
            "data": [
                ["a", "initial", ["map", []], 0, ["uuid", "1"]],
                ["b", "insert", ["map", []], 0, ["uuid", "2"]],
                ["a", "old", ["map", [["leader", "x"], ["epoch", "1"], ["z", "z"]]], null, ["uuid", "1"]],
                ["", "new", ["map", [["leader", "y"], ["epoch", "2"], ["z", "z"]]], 0, ["uuid", "3"]],
                ["b", "delete", ["map", []], 0, ["uuid", "2"]],
            ]
        });
        let found = changes(&table);
        let actions: Vec<&str> = found.iter().map(|change| change.action.as_str()).collect();
        assert_eq!(actions, ["insert", "modify", "delete"]);
        assert_eq!(
            found[1].columns.keys().collect::<Vec<_>>(),
            ["external_ids"]
        );
        assert_eq!(found[1].keys("external_ids").unwrap(), ["epoch", "leader"]);
        assert_eq!(found[1].keys("nb_cfg"), None);
        assert!(
            found[1]
                .to_string()
                .starts_with("modify NB_Global external_ids: "),
            "{}",
            found[1]
        );
    }

    #[test]
    fn keys_that_come_and_go_are_changes() {
        let change = RowChange {
            table: "T".into(),
            action: "modify".into(),
            columns: BTreeMap::from([(
                "m".to_owned(),
                (json!(["map", [["a", "1"]]]), json!(["map", [["b", "1"]]])),
            )]),
        };
        assert_eq!(change.keys("m").unwrap(), ["a", "b"]);
    }
}
