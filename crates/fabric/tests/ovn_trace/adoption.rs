//! A cluster of the Go implementation is taken over while it runs: `tests/upstream` has its objects and its rows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fabric::record::GATEWAY_MAC;
use fabric::{Config, config::JoinSubnet};
use ovsdb::wire::{Datum, Operation, Row};
use serde_json::{Map, Value, json};
use testkit::objects::pod;
use testkit::ovn::{Schema, Server};
use uuid::Uuid;

use crate::network::{CLUSTER, Network, Writer};
use crate::programs::schema;
use crate::support::Cluster;
use crate::trace::{Checks, Expect, Packet};

struct Upstream {
    objects: Vec<Value>,
    rows: Map<String, Value>,
}

impl Upstream {
    fn read(case: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/upstream")
            .join(case);
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let mut upstream = Self {
            objects: serde_saphyr::from_multiple(&read("objects.yaml")).unwrap(),
            rows: serde_json::from_str(&read("nb.json")).unwrap(),
        };
        upstream.record_gateway_macs();
        upstream
    }

    fn table(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.rows[name].as_array().into_iter().flatten()
    }

    /// As the controller does before it takes over: pods have these MACs in their neighbour tables.
    fn record_gateway_macs(&mut self) {
        let text = |row: &Value, column: &str| row[column].as_str().unwrap().to_owned();
        let macs: BTreeMap<String, String> = self
            .table("Logical_Router_Port")
            .map(|port| (text(port, "name"), text(port, "mac")))
            .collect();
        for object in &mut self.objects {
            if object["kind"] == "Subnet" {
                let port = format!(
                    "ovn-cluster-{}",
                    object["metadata"]["name"].as_str().unwrap()
                );
                object["metadata"]["annotations"][GATEWAY_MAC] = json!(macs[&port]);
            }
        }
    }

    /// The rows as they were in the database, with UUIDs of their own.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (table, rows) in self.rows.iter().filter(|(table, _)| *table != "NB_Global") {
            for row in rows.as_array().into_iter().flatten() {
                let columns = row.as_object().unwrap().iter();
                let mut wire: Row = columns
                    .map(|(column, value)| {
                        (column.as_str().into(), self.datum(table, column, value))
                    })
                    .collect();
                if table == "Logical_Router" {
                    for (column, children) in [
                        ("policies", "Logical_Router_Policy"),
                        ("static_routes", "Logical_Router_Static_Route"),
                    ] {
                        let ids = self.table(children).map(|row| id(children, row));
                        wire.insert(column, Datum::set(ids));
                    }
                }
                operations.push(Operation::insert(table.as_str(), id(table, row), wire));
            }
        }
        operations
    }

    fn datum(&self, table: &str, column: &str, value: &Value) -> Datum {
        let target = match (table, column) {
            ("Logical_Router", "ports") => Some("Logical_Router_Port"),
            (_, "ports") => Some("Logical_Switch_Port"),
            _ => None,
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if let Some(target) = target {
            // A set of one is written without brackets.
            let names = value
                .as_array()
                .map_or(std::slice::from_ref(value), Vec::as_slice);
            return Datum::set(names.iter().map(|name| {
                let row = self.table(target).find(|row| row["name"] == *name);
                id(target, row.unwrap_or_else(|| panic!("no {target} {name}")))
            }));
        }
        match value {
            Value::Array(values) => Datum::set(values.iter().map(text)),
            Value::Object(map) => Datum::map(map.iter().map(|(k, v)| (k.clone(), text(v)))),
            Value::Number(number) => Datum::from(number.as_i64().unwrap()),
            Value::Bool(flag) => Datum::from(*flag),
            single => Datum::from(text(single).as_str()),
        }
    }
}

/// Another identity than ours.
fn id(table: &str, row: &Value) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{table} {row}").as_bytes())
}

fn config(join: &str) -> Config {
    Config {
        cluster_uid: CLUSTER.to_string().into(),
        service_cidrs: "10.68.0.0/16,fd00:10:68::/112".parse().unwrap(),
        join: JoinSubnet {
            cidrs: join.parse().unwrap(),
            ..JoinSubnet::default()
        },
        ..Config::default()
    }
}

fn take_over(case: &str, join: &str) {
    let upstream = Upstream::read(case);
    let nb = Server::start(schema(Schema::Northbound));
    let mut before = Writer::connect(&nb.remote());
    before.commit(upstream.operations());
    let rows = before.rows();
    assert!(rows.len() > 60, "{rows:#?}");

    // Addresses come from the IP resources.
    let mut cluster = Cluster::new(config(join));
    cluster.allocates = false;
    let mut network = Network::on(nb, cluster, []);
    let list = json!({ "kind": "List", "items": upstream.objects });
    network.step(&list);

    // Every row is the one that it was, or northd would give out new tunnel keys, and packets would be lost.
    let mut after = network.restarted();
    let deny_all = "Port_Group ovn.sg.kubeovn_deny_all";
    let global = |(key, _): &(String, Uuid)| !key.starts_with("NB_Global");
    let kept: Vec<_> = after.rows().into_iter().filter(global).collect();
    let rows: Vec<_> = rows.into_iter().filter(global).collect();
    assert_eq!(kept, rows);
    let unclaimed = after.diff.unclaimed();
    let unclaimed: Vec<String> = unclaimed.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(unclaimed, [deny_all], "reported and left alone");
    let plan = after.plan();
    assert!(plan.is_empty(), "{plan}");

    let ip = |text: &str| text.parse().unwrap();
    let mut checks = Checks::on(&network);
    for (packet, expect) in [
        (
            Packet::echo("web-0.default", network.v4("web-1.default")),
            Expect::Switched("web-1.default"),
        ),
        (
            Packet::echo("web-0.default", network.v4("api-0.test-ns")),
            Expect::Routed("api-0.test-ns"),
        ),
        (
            Packet::echo("static-0.test-ns", ip("203.0.113.7")),
            Expect::Rerouted(29000, "node-node-2"),
        ),
        (
            Packet::tcp("web-0.default", ip("192.168.77.11"), 6443),
            Expect::Rerouted(30000, "node-node-1"),
        ),
    ] {
        checks.packet(&packet, &expect);
    }
    checks.done();

    // From then on it is ours: what goes away leaves nothing behind, what comes is new.
    network.delete(&["Pod/default/web-0"]);
    network.cluster.allocates = true;
    network.apply([pod("default/new").on("node-1").json()]);
    let rows = network.restarted().rows();
    let has = |key: &str| rows.iter().any(|(row, _)| row == key);
    assert!(!has("Logical_Switch_Port web-0.default"));
    assert!(has("Logical_Switch_Port new.default"));
    network.assert_northd_is_content();
}

#[test]
fn an_ipv4_cluster_is_taken_over() {
    take_over("basic", "100.64.0.0/16");
}

#[test]
fn a_dual_stack_cluster_is_taken_over() {
    take_over("dualstack", "100.64.0.0/16,fd00:100:64::/112");
}
