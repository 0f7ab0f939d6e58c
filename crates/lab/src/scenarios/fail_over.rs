//! The leading controller is killed, frozen and stopped while pods come and go: the other one serves, and nothing is
//! given out twice or lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::components;
use crate::kubernetes;
use crate::lab::{Lab, NAMESPACE};
use crate::process::Record;
use crate::scenario::{Scenario, Stage, pod_manifest, two_nodes};

pub const SCENARIO: Scenario = Scenario {
    name: "fail-over",
    about: "the leading controller is killed, frozen, stopped: the standby serves within the lease, nothing doubled or lost",
    unfit: two_nodes,
    run,
};

const SPACE: &str = "fail-over";

/// What happens to the leader.
struct Blow {
    what: &'static str,
    signal: Signal,
    /// The longest time until a new pod has its network.
    limit: Duration,
}

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    stage.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SPACE}}}\n"))?;
    // The lease runs out, counted from when the standby saw its last renewal (it looks each second), and one second to
    // serve.
    let lease = components::LEASE + Duration::from_secs(2);
    let blows = [
        Blow { what: "killed", signal: Signal::SIGKILL, limit: lease },
        Blow { what: "frozen", signal: Signal::SIGSTOP, limit: lease },
        // It hands the lease over.
        Blow { what: "stopped", signal: Signal::SIGTERM, limit: Duration::from_secs(2) },
    ];
    let told = blows.iter().enumerate().try_for_each(|(index, blow)| {
        strike(stage, index, blow).with_context(|| format!("the leader was {}", blow.what))
    });
    // Whatever happened: both controllers run again.
    for record in controllers(stage) {
        record.signal(Signal::SIGCONT);
    }
    components::controllers(stage.lab)?;
    told?;
    none_doubled_or_lost(stage)?;
    stage.kubectl(&["delete", "pods", "-n", SPACE, "--all", "--now", "--timeout=90s"])?;
    stage.eventually("every trace of the pods to go", Duration::from_secs(30), || super::nothing_left::traces(stage, SPACE))
}

fn strike(stage: &Stage<'_>, index: usize, blow: &Blow) -> Result<()> {
    both_ready(stage)?;
    let leader = leader(stage)?;
    let over = AtomicBool::new(false);
    let (streamed, served) = std::thread::scope(|scope| {
        let lab = stage.lab;
        let stream = scope.spawn(|| stream(lab, index, &over));
        // It is in the middle of its work when it is hit.
        std::thread::sleep(Duration::from_secs(1));
        leader.signal(blow.signal);
        let served = served(stage, &format!("probe-{index}"), blow.limit);
        over.store(true, Ordering::Relaxed);
        (stream.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the stream of pods panicked"))), served)
    });
    let served = served?;
    let streamed = streamed?;
    stage.note(format!(
        "leader {}: a new pod has its network after {:.1} s ({streamed} pods came and most of them went meanwhile)",
        blow.what,
        served.as_secs_f64()
    ));
    none_doubled_or_lost(stage)?;
    if blow.signal == Signal::SIGSTOP {
        settle(stage)?;
        let before = state(stage)?;
        leader.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_secs(3));
        let after = state(stage)?;
        ensure!(after == before, "the old leader woke and changed something: {after:?}, before {before:?}");
    }
    components::controllers(stage.lab)?;
    let now = self::leader(stage)?;
    ensure!(now.key() != leader.key(), "the lease is still with {}", now.key());
    Ok(())
}

/// Pods come and go until told otherwise: every one lives for about four others. Returns how many came.
fn stream(lab: &Lab, round: usize, over: &AtomicBool) -> Result<usize> {
    let nodes = &lab.nodes;
    let name = |index: usize| format!("stream-{round}-{index}");
    let mut index = 0;
    while !over.load(Ordering::Relaxed) {
        let node = &nodes[index % nodes.len()].name;
        let manifest = pod_manifest(SPACE, &name(index), node, crate::images::PAUSE, "[]");
        kubernetes::apply(lab, &manifest.replace(", command: []", ""))?;
        if index >= 4 {
            let old = name(index - 4);
            kubernetes::kubectl(lab, &["delete", "pod", "-n", SPACE, &old, "--wait=false", "--now"])?;
        }
        index += 1;
        std::thread::sleep(Duration::from_millis(150));
    }
    Ok(index)
}

/// How long until a new pod has its network.
fn served(stage: &Stage<'_>, name: &str, limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    let manifest = pod_manifest(SPACE, name, &stage.node(0)?.name, crate::images::PAUSE, "[]");
    kubernetes::apply(stage.lab, &manifest.replace(", command: []", ""))?;
    stage.eventually("a new pod to be served", limit * 3, || {
        let pod = stage.get(&["pod", "-n", SPACE, name])?;
        let routed = &pod["metadata"]["annotations"]["ovn.kubernetes.io/routed"];
        ensure!(routed == "true", "its annotation `routed` is {routed}");
        Ok(())
    })?;
    let took = start.elapsed();
    ensure!(
        took <= limit,
        "a new pod had its network after {:.1} s; {:.1} s are allowed",
        took.as_secs_f64(),
        limit.as_secs_f64()
    );
    Ok(took)
}

/// Every pod that is there becomes ready, has an address of its own, and exactly these have IP resources and ports.
fn none_doubled_or_lost(stage: &Stage<'_>) -> Result<()> {
    stage.eventually("pods, IP resources and ports to agree", Duration::from_mins(1), || {
        let list = stage.get(&["pods", "-n", SPACE])?;
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let mut pods = Vec::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let address = pod["status"]["podIP"].as_str().unwrap_or_default();
            ensure!(pod["status"]["phase"] == "Running", "{name} does not run yet");
            if let Some(other) = owners.insert(address.to_owned(), name.to_owned()) {
                anyhow::bail!("{name} and {other} share {address}");
            }
            pods.push(format!("{name}.{SPACE}"));
        }
        pods.sort();
        let ours = |names: Vec<String>| {
            let mut ours: Vec<String> = names.into_iter().filter(|n| n.ends_with(&format!(".{SPACE}"))).collect();
            ours.sort();
            ours
        };
        let ips = stage.get(&["ips.kubeovn.io"])?;
        let ips = ours(
            ips["items"].as_array().into_iter().flatten().filter_map(|ip| ip["metadata"]["name"].as_str().map(str::to_owned)).collect(),
        );
        ensure!(ips == pods, "IP resources {ips:?}, pods {pods:?}");
        let ports = crate::ovn::ctl(stage.lab, "nb", &["--bare", "--columns=name", "list", "Logical_Switch_Port"])?;
        let ports = ours(ports.lines().map(str::to_owned).collect());
        ensure!(ports == pods, "logical switch ports {ports:?}, pods {pods:?}");
        Ok(())
    })
}

/// Wait until the stream's last pods are done.
fn settle(stage: &Stage<'_>) -> Result<()> {
    let mut last = state(stage)?;
    stage.eventually("the network to come to rest", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_secs(1));
        let now = state(stage)?;
        let same = now == last;
        last = now;
        ensure!(same, "something still changes");
        Ok(())
    })
}

/// Whatever a controller could change: the northbound database, by its contents; pods and IP resources by their version.
fn state(stage: &Stage<'_>) -> Result<BTreeMap<String, String>> {
    let mut state = BTreeMap::new();
    for table in ["Logical_Switch_Port", "Logical_Switch", "Logical_Router", "Logical_Router_Policy", "Port_Group", "NB_Global"] {
        // northd counts in `nb_cfg` and its friends; `up` is its word, too.
        let columns = match table {
            "NB_Global" => "--columns=external_ids",
            "Logical_Switch_Port" => "--columns=name,addresses,port_security,options,external_ids",
            _ => "--columns=name,external_ids,ports",
        };
        let columns = match table {
            "Logical_Router_Policy" => "--columns=match,priority,nexthops",
            _ => columns,
        };
        let rows = crate::ovn::ctl(stage.lab, "nb", &["--bare", columns, "list", table])?;
        state.insert(table.to_owned(), crate::process::fingerprint(&rows, &[], None));
    }
    for kind in ["pods", "ips.kubeovn.io", "lease"] {
        let list = stage.get(&[kind, "-A"])?;
        for item in list["items"].as_array().into_iter().flatten() {
            let meta = &item["metadata"];
            // The lease is renewed all the time; its holder is what counts.
            let version = if kind == "lease" { &item["spec"]["holderIdentity"] } else { &meta["resourceVersion"] };
            if kind == "lease" && meta["namespace"] != NAMESPACE {
                continue;
            }
            state.insert(format!("{kind} {}/{}", meta["namespace"], meta["name"]), version.to_string());
        }
    }
    Ok(state)
}

fn controllers(stage: &Stage<'_>) -> Vec<Record> {
    stage.lab.records().into_iter().filter(|r| r.component == "kube-ovn-controller").collect()
}

/// The controller that holds the lease.
pub fn leader(stage: &Stage<'_>) -> Result<Record> {
    let lease = stage.get(&["lease", "-n", NAMESPACE, "kube-ovn-controller"])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    controllers(stage)
        .into_iter()
        .find(|record| {
            let node = record.node.as_deref().and_then(|name| stage.lab.node(name).ok());
            node.is_some_and(|node| components::controller_name(node) == holder)
        })
        .with_context(|| format!("the lease is with {holder:?}, which is no controller of the lab"))
}

/// Both controllers run, and the one that does not lead could at once.
pub fn both_ready(stage: &Stage<'_>) -> Result<()> {
    stage.eventually("the controllers to be ready", Duration::from_secs(40), || {
        for record in controllers(stage) {
            let node = record.node.as_deref().context("a controller without a node")?;
            let (ready, words) = components::health(stage.lab, node, components::CONTROLLER_PORT, "/readyz")?;
            ensure!(ready, "{}: {words}", record.key());
        }
        leader(stage).map(drop)
    })
}
