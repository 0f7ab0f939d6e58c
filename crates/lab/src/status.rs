//! `status`: what runs where, how it is, in which version.

use std::io::IsTerminal as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::command::output;
use crate::components::{CONTROLLER_PORT, DAEMON_PORT, health};
use crate::kubernetes;
use crate::lab::{Cni, Lab, NAMESPACE, Place};
use crate::process::{self, Record};
use crate::table::{age, heading, mib, plain};

/// Everything that `status -o json` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The lab's name.
    pub lab: String,
    /// Its directory.
    pub directory: String,
    /// Does everything run and answer?
    pub healthy: bool,
    /// Versions of the programs, by name.
    #[serde(serialize_with = "as_object")]
    pub versions: Vec<(String, String)>,
    /// Processes.
    pub components: Vec<Component>,
    /// Kubernetes' nodes.
    pub nodes: Vec<Row>,
    /// Kubernetes' pods.
    pub pods: Vec<Row>,
    /// Memory of all processes, containers included, shared pages counted once, in bytes.
    pub memory: u64,
}

/// One process.
#[derive(Debug, Serialize)]
pub struct Component {
    /// `kubelet`, ...
    pub name: String,
    /// Where it runs.
    pub node: Option<String>,
    /// Process id.
    pub pid: i32,
    /// Does it run?
    pub running: bool,
    /// Does it say that it is ready? `None` if it has no such endpoint.
    pub ready: Option<bool>,
    /// What it waits for, in its own words.
    pub message: String,
    /// Seconds since its start.
    pub age: u64,
    /// How often it was started again.
    pub restarts: u32,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Where its output goes.
    pub log: String,
}

/// A row of one of kubectl's tables.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Namespace, empty for nodes.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `1/1`, or `True` for a node.
    pub ready: String,
    /// Phase or reason.
    pub status: String,
    /// Restarts of its containers.
    pub restarts: u64,
    /// Age in seconds.
    pub age: u64,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Node.
    pub node: String,
}

fn as_object<S: serde::Serializer>(
    pairs: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, version)| (name, version)))
}

/// Gather it.
pub fn gather(lab: &Lab) -> Result<Status> {
    let mut components: Vec<Component> = lab
        .records()
        .iter()
        .filter(|record| !matches!(record.component.as_str(), "node" | "fabric" | "ext"))
        .map(|record| component(lab, record))
        .collect();
    components.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
    let api = kubernetes::get(lab, &["nodes"]);
    let (nodes, pods) = match &api {
        Ok(list) => (
            list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(node_row)
                .collect(),
            kubernetes::get(lab, &["pods", "-A"])?["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(pod_row)
                .collect(),
        ),
        Err(_) => (Vec::new(), Vec::new()),
    };
    let healthy = api.is_ok()
        && components
            .iter()
            .all(|c| c.running && c.ready != Some(false))
        && nodes.iter().all(|n: &Row| n.ready == "True")
        && nodes.len() == lab.nodes.len();
    Ok(Status {
        lab: lab.name.clone(),
        directory: lab.dir.display().to_string(),
        healthy,
        versions: versions(lab),
        memory: total_memory(lab),
        components,
        nodes,
        pods,
    })
}

fn component(lab: &Lab, record: &Record) -> Component {
    let running = record.alive();
    let port = match record.component.as_str() {
        "kube-ovn-controller" => Some(CONTROLLER_PORT),
        "kube-ovn-cni" => Some(DAEMON_PORT),
        _ => None,
    };
    let (mut ready, mut message) = (None, String::new());
    if let (true, Some(port), Some(node)) = (running, port, &record.node) {
        match health(lab, node, port, "/readyz") {
            Ok((yes, words)) => {
                ready = Some(yes);
                if !yes {
                    message = words.lines().collect::<Vec<_>>().join("; ");
                }
            }
            Err(error) => message = format!("{error:#}"),
        }
    } else if !running {
        message = process::tail(&record.log, 1);
    }
    Component {
        name: record.component.clone(),
        node: record.node.clone(),
        pid: record.pid,
        running,
        ready,
        message,
        age: process::now().saturating_sub(record.since),
        restarts: record.restarts,
        memory: record.memory(),
        log: record.log.display().to_string(),
    }
}

/// Memory of the lab's processes and of its containers.
pub fn total_memory(lab: &Lab) -> u64 {
    let mut all: std::collections::BTreeSet<i32> = lab
        .records()
        .iter()
        .filter(|r| r.alive())
        .map(|r| r.pid)
        .collect();
    all.extend(process::marked(|value| {
        std::path::Path::new(value) == lab.dir
    }));
    let groups: Vec<String> = lab.nodes.iter().map(|n| lab.cgroup(n)).collect();
    all.extend(crate::cgroup::processes(|name| {
        groups.iter().any(|g| g == name)
    }));
    all.into_iter().map(process::own_memory).sum()
}

fn versions(lab: &Lab) -> Vec<(String, String)> {
    let mut versions = vec![("kube-ovn".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    let kubernetes = kubernetes::get(lab, &["--raw", "/version"])
        .or_else(|_| {
            kubernetes::kubectl(lab, &["get", "--raw", "/version"])
                .and_then(|text| Ok(serde_json::from_str::<Value>(&text)?))
        })
        .ok()
        .and_then(|v| v["gitVersion"].as_str().map(str::to_owned));
    versions.push((
        "kubernetes".into(),
        kubernetes.unwrap_or_else(|| "does not answer".into()),
    ));
    let place = lab.first().map_or(Place::Host, |n| Place::Node(&n.name));
    for (name, program) in [
        ("openvswitch", "ovs-vswitchd"),
        ("ovn", "ovn-controller"),
        ("containerd", "containerd"),
    ] {
        if lab.spec.cni != Cni::KubeOvn && name != "containerd" {
            continue;
        }
        let line = lab
            .command(place, program)
            .and_then(|mut c| output(c.arg("--version")))
            .map(|o| {
                String::from_utf8_lossy(&o.stdout)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .unwrap_or_default();
        let version = line
            .split_ascii_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .unwrap_or("?");
        versions.push((name.into(), version.to_owned()));
    }
    versions
}

fn seconds_since(stamp: &Value) -> u64 {
    stamp
        .as_str()
        .and_then(parse_time)
        .map_or(0, |then| process::now().saturating_sub(then))
}

/// Seconds since 1970 of `2026-01-02T03:04:05Z` (Kubernetes' form; RFC 3339 in UTC).
pub fn parse_time(text: &str) -> Option<u64> {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(str::parse::<i64>);
    let mut next = || numbers.next()?.ok();
    let (year, month, day, hour, minute, second) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    // Days from civil, Howard Hinnant's algorithm: the year begins in March, so that the leap day comes last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

fn node_row(node: &Value) -> Row {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ready = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Ready");
    Row {
        namespace: String::new(),
        name: text(&node["metadata"]["name"]),
        ready: ready.map_or_else(|| "Unknown".into(), |c| text(&c["status"])),
        status: ready.map_or_else(String::new, |c| text(&c["reason"])),
        restarts: 0,
        age: seconds_since(&node["metadata"]["creationTimestamp"]),
        addresses: node["status"]["addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|a| a["type"] == "InternalIP")
            .map(|a| text(&a["address"]))
            .collect(),
        node: text(&node["status"]["nodeInfo"]["kubeletVersion"]),
    }
}

fn pod_row(pod: &Value) -> Row {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let containers: Vec<&Value> = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let ready = containers.iter().filter(|c| c["ready"] == true).count();
    let wanted = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let waiting = containers
        .iter()
        .find_map(|c| c["state"]["waiting"]["reason"].as_str());
    let status = if pod["metadata"]["deletionTimestamp"].is_string() {
        "Terminating".to_owned()
    } else {
        waiting.map_or_else(|| text(&pod["status"]["phase"]), str::to_owned)
    };
    Row {
        namespace: text(&pod["metadata"]["namespace"]),
        name: text(&pod["metadata"]["name"]),
        ready: format!("{ready}/{wanted}"),
        status,
        restarts: containers
            .iter()
            .filter_map(|c| c["restartCount"].as_u64())
            .sum(),
        age: seconds_since(&pod["metadata"]["creationTimestamp"]),
        addresses: pod["status"]["podIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|a| text(&a["ip"]))
            .collect(),
        node: text(&pod["spec"]["nodeName"]),
    }
}

/// Components, add-ons and pods, with their addresses, as `kubectl get pods -A -o wide` shows them.
///
/// The fabric's own components run as processes here; each has the row that it would have as a pod, and OVN's and Open
/// vSwitch's processes of one node share the row of the pod that would carry them.
pub fn overview(status: &Status) -> String {
    // A person gets one address below the other, so that two families do not break the lines; a program one line a pod.
    let terminal = std::io::stdout().is_terminal();
    pods_table(status, if terminal { "\n" } else { "," })
}

fn pods_table(status: &Status, between: &str) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let components = |names: &[&str]| -> Vec<&Component> {
        status
            .components
            .iter()
            .filter(|c| names.contains(&c.name.as_str()))
            .collect()
    };
    let mut group = |pod: &str, names: &[&str]| {
        let members = components(names);
        let mut nodes: Vec<&str> = members.iter().filter_map(|c| c.node.as_deref()).collect();
        nodes.dedup();
        for node in nodes {
            let here: Vec<_> = members
                .iter()
                .filter(|c| c.node.as_deref() == Some(node))
                .collect();
            let fine = here.iter().all(|c| c.running && c.ready != Some(false));
            let short = node.rsplit('.').next().unwrap_or(node);
            rows.push(vec![
                NAMESPACE.into(),
                format!("{pod}-{short}"),
                if fine { "1/1" } else { "0/1" }.into(),
                if here.iter().all(|c| c.running) {
                    "Running"
                } else {
                    "Stopped"
                }
                .into(),
                here.iter().map(|c| c.restarts).sum::<u32>().to_string(),
                age(here.iter().map(|c| c.age).max().unwrap_or(0)),
                node.into(),
                node.into(),
            ]);
        }
    };
    group("kube-ovn-cni", &["kube-ovn-cni"]);
    group("kube-ovn-controller", &["kube-ovn-controller"]);
    group("ovn-central", &["nb-ovsdb", "sb-ovsdb", "ovn-northd"]);
    group("ovs-ovn", &["ovsdb", "ovs-vswitchd", "ovn-controller"]);
    rows.extend(status.pods.iter().map(|pod| {
        vec![
            pod.namespace.clone(),
            pod.name.clone(),
            pod.ready.clone(),
            pod.status.clone(),
            pod.restarts.to_string(),
            age(pod.age),
            pod.addresses.join(between),
            pod.node.clone(),
        ]
    }));
    // As kubectl sorts: by namespace, then by name.
    rows.sort_by(|a, b| (&a[0], &a[1]).cmp(&(&b[0], &b[1])));
    plain(
        &[
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
        ],
        rows,
    )
}

/// The same for people.
pub fn print(status: &Status) {
    let versions: Vec<String> = status
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    println!(
        "{}  {}",
        heading(&format!("lab {}", status.lab)),
        versions.join(", ")
    );
    println!(
        "{}  memory of all processes: {}",
        status.directory,
        mib(status.memory)
    );
    println!("\n{}", heading("components"));
    println!(
        "{}",
        plain(
            &[
                "COMPONENT",
                "NODE",
                "PID",
                "STATE",
                "RESTARTS",
                "AGE",
                "MEMORY",
                "MESSAGE"
            ],
            status.components.iter().map(|c| {
                let state = match (c.running, c.ready) {
                    (false, _) => "stopped",
                    (true, Some(true)) => "ready",
                    (true, Some(false)) => "not ready",
                    (true, None) => "running",
                };
                vec![
                    c.name.clone(),
                    c.node.clone().unwrap_or_else(|| "-".into()),
                    c.pid.to_string(),
                    state.into(),
                    c.restarts.to_string(),
                    age(c.age),
                    mib(c.memory),
                    c.message.clone(),
                ]
            })
        )
    );
    println!("\n{}", heading("nodes"));
    println!(
        "{}",
        plain(
            &["NAME", "READY", "REASON", "AGE", "ADDRESSES", "VERSION"],
            status.nodes.iter().map(|n| {
                vec![
                    n.name.clone(),
                    n.ready.clone(),
                    n.status.clone(),
                    age(n.age),
                    n.addresses.join(","),
                    n.node.clone(),
                ]
            })
        )
    );
    println!("\n{}", heading("pods"));
    println!("{}", overview(status));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str, addresses: &[&str]) -> Row {
        Row {
            namespace: namespace.into(),
            name: name.into(),
            ready: "1/1".into(),
            status: "Running".into(),
            restarts: 0,
            age: 7,
            addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
            node: "192.168.1.43".into(),
        }
    }

    #[test]
    fn two_families_fit_a_terminal_of_a_hundred_columns() {
        let status = Status {
            lab: "lab".into(),
            directory: String::new(),
            healthy: true,
            versions: Vec::new(),
            components: Vec::new(),
            nodes: Vec::new(),
            pods: vec![
                pod(
                    "kube-system",
                    "coredns-76d6f8b8f5-gqmfh",
                    &["10.16.0.11", "fd00:10:16::b"],
                ),
                pod(
                    "test-ns",
                    "nginx-7c5d8bf9f7-x2x7l",
                    &["10.17.0.12", "fd00:10:17::c"],
                ),
            ],
            memory: 0,
        };
        let lines: Vec<String> = pods_table(&status, "\n")
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(lines.len(), 1 + 2 * 2, "{lines:#?}");
        assert!(lines.iter().all(|l| l.chars().count() <= 100), "{lines:#?}");
        assert!(pods_table(&status, ",").contains("10.16.0.11,fd00:10:16::b"));
    }

    #[test]
    fn times_of_kubernetes_are_read() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_time("2000-03-01T00:00:00Z"), Some(951_868_800));
        assert_eq!(parse_time("2026-11-23T17:45:00Z"), Some(1_795_455_900));
        assert_eq!(parse_time("soon"), None);
    }
}
