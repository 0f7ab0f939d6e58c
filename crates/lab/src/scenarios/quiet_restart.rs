//! The controller starts again on a network that is as it should be: it writes its lease and its epoch, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::changes::{RowChange, Watch};
use crate::command::capture;
use crate::components::{self, CONTROLLER_PORT};
use crate::lab::{NAMESPACE, Place};
use crate::process::Record;
use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "quiet-restart",
    about: "controllers that start again with nothing to do write nothing but their lease and one transaction, their epoch's",
    unfit: any,
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: quiet}\n")?;
    for (index, node) in stage.lab.nodes.iter().enumerate() {
        stage.busybox("quiet", &format!("pod-{index}"), node)?;
    }
    let before = settle(stage)?;
    let north = Watch::start(stage.lab, "OVN_Northbound", 6641)?;
    let south = Watch::start(stage.lab, "OVN_Southbound", 6642)?;
    let restarted = restart(stage);
    let (north, south) = (north.end()?, south.end()?);
    let controllers = restarted?;

    let told = |changes: &[RowChange]| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    ensure!(
        matches!(&north[..], [change] if is_epoch(change)),
        "not only the epoch was written into the northbound database after a restart with nothing to do:\n{}",
        told(&north)
    );
    ensure!(south.is_empty(), "rows of the southbound database changed:\n{}", told(&south));
    let after = objects(stage)?;
    let changed: BTreeSet<_> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key) && (after.contains_key(*key) || !is_event(key)))
        .collect();
    ensure!(changed.is_empty(), "objects were written after a restart with nothing to do: {changed:?}");
    // What a write leaves as it was shows nowhere else.
    let (mut transactions, mut writes) = (0, 0);
    for record in &controllers {
        let (sent, written) = counts(stage, record)?;
        transactions += sent;
        writes += written;
    }
    ensure!(
        (transactions, writes) == (1, 0),
        "the controllers count {transactions} transactions and {writes} writes to the API server instead of 1 and 0"
    );
    stage.note("1 northbound transaction, the epoch's; 0 southbound; 0 writes to the API server");
    Ok(())
}

/// Stop all controllers and start them again; returns when each is ready and the new leader has had its turn.
fn restart(stage: &Stage<'_>) -> Result<Vec<Record>> {
    let controllers: Vec<_> =
        stage.lab.records().into_iter().filter(|r| r.component == "kube-ovn-controller").collect();
    ensure!(!controllers.is_empty(), "no controller runs");
    // The standby first: otherwise it leads for a moment, which is a transaction of its own.
    let holder = stage.get(&["lease", "-n", NAMESPACE, "kube-ovn-controller"])?;
    let holder = holder["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let leads = |record: &Record| {
        let node = record.node.as_deref().and_then(|name| stage.lab.node(name).ok());
        node.is_some_and(|node| components::controller_name(node) == holder)
    };
    for record in controllers.iter().filter(|r| !leads(r)).chain(controllers.iter().filter(|r| leads(r))) {
        record.stop(Duration::from_secs(10));
    }
    components::controllers(stage.lab)?;
    stage.eventually("the controllers to be ready", Duration::from_secs(40), || {
        for record in &controllers {
            let node = record.node.as_deref().context("a controller without a node")?;
            let (ready, words) = components::health(stage.lab, node, CONTROLLER_PORT, "/readyz")?;
            ensure!(ready, "{}: {words}", record.key());
        }
        Ok(())
    })?;
    // Longer than the lease.
    std::thread::sleep(components::LEASE + Duration::from_secs(4));
    Ok(controllers)
}

/// The only row that may change, in these two keys: who leads, and the number of that term.
fn is_epoch(change: &RowChange) -> bool {
    change.table == "NB_Global"
        && change.columns.len() == 1
        && change.keys("external_ids").is_some_and(|keys| {
            keys.contains(&"leader-epoch".to_owned()) && keys.iter().all(|key| ["leader", "leader-epoch"].contains(&key.as_str()))
        })
}

/// Database transactions and writes to the API server (but for the lease) of a controller since it started.
fn counts(stage: &Stage<'_>, record: &Record) -> Result<(u64, u64)> {
    let node = record.node.as_deref().context("a controller without a node")?;
    let url = format!("http://127.0.0.1:{CONTROLLER_PORT}/metrics");
    let page = capture(stage.lab.command(Place::Node(node), "curl")?.args(["-sf", "-m", "5", &url]))?;
    let sum = |name: &str| {
        page.lines()
            .filter(|line| line.starts_with(name) && !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum()
    };
    Ok((sum("kube_ovn_controller_transactions_total"), sum("kube_ovn_controller_kube_writes_total")))
}

/// Wait until nothing changes any more by itself.
fn settle(stage: &Stage<'_>) -> Result<BTreeMap<String, Value>> {
    let mut last = objects(stage)?;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(2));
        let now = objects(stage)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    bail!("the network does not come to rest: something writes all the time")
}

/// Every object that the controllers may write, as far as it is theirs to write.
fn objects(stage: &Stage<'_>) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for kind in ["pods", "namespaces", "nodes", "events", "subnets.kubeovn.io", "ips.kubeovn.io", "vpcs.kubeovn.io"] {
        let list = stage.get(&[kind, "-A"])?;
        for item in list["items"].as_array().into_iter().flatten() {
            let meta = &item["metadata"];
            let state = match kind {
                // Its kubelet reports now and then.
                "nodes" => json!([meta["labels"], meta["annotations"], meta["finalizers"], item["spec"]]),
                "events" if !is_ours(item) => continue,
                _ => meta["resourceVersion"].clone(),
            };
            let (namespace, name) = (meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap_or(""));
            found.insert(format!("{kind} {namespace}/{name}"), state);
        }
    }
    Ok(found)
}

fn is_ours(event: &Value) -> bool {
    [&event["reportingComponent"], &event["source"]["component"]]
        .iter()
        .any(|component| component.as_str().is_some_and(|name| name.starts_with("kube-ovn")))
}

/// Kubernetes forgets events by itself.
fn is_event(key: &str) -> bool {
    key.starts_with("events ")
}
