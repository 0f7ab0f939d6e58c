//! The controller starts again on a network that is as it should be: it writes its lease and its epoch, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::capture;
use crate::components;
use crate::lab::{NAMESPACE, Place};
use crate::process::Record;
use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "quiet-restart",
    about: "controllers that start again with nothing to do write nothing but their lease and one transaction",
    unfit: |lab| lab.spec.ovn_ha.then_some("counts the records of a standalone database"),
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: quiet}\n")?;
    for (index, node) in stage.lab.nodes.iter().enumerate() {
        stage.busybox("quiet", &format!("pod-{index}"), node)?;
    }
    settle(stage)?;
    let (records, objects) = (records(stage)?, objects(stage)?);
    let controllers: Vec<_> = stage
        .lab
        .records()
        .into_iter()
        .filter(|r| r.component == "kube-ovn-controller")
        .collect();
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
            let (ready, words) = components::health(stage.lab, node, components::CONTROLLER_PORT, "/readyz")?;
            ensure!(ready, "{}: {words}", record.key());
        }
        Ok(())
    })?;
    // Longer than the lease: the new leader has had its turn.
    std::thread::sleep(Duration::from_secs(10));
    let now = self::records(stage)?;
    let new = &now[records.len().min(now.len())..];
    ensure!(
        new.len() <= 1,
        "{} transactions in the northbound database after a restart with nothing to do:\n{}",
        new.len(),
        new.join("\n")
    );
    stage.note(format!("{} northbound transaction(s) after the restart", new.len()));
    let after = self::objects(stage)?;
    let changed: Vec<_> = after.iter().filter(|(key, version)| objects.get(*key) != Some(version)).collect();
    if !changed.is_empty() {
        bail!("objects were written after a restart with nothing to do: {changed:?}");
    }
    Ok(())
}

/// Wait until nothing changes any more by itself.
fn settle(stage: &Stage<'_>) -> Result<()> {
    let mut last = (records(stage)?.len(), objects(stage)?);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(2));
        let now = (records(stage)?.len(), objects(stage)?);
        if now == last {
            return Ok(());
        }
        last = now;
    }
    bail!("the network does not come to rest: something writes all the time")
}

/// The transactions of the northbound database, as its file has them: one line of JSON each, northd's own left out.
fn records(stage: &Stage<'_>) -> Result<Vec<String>> {
    let text = capture(
        stage
            .lab
            .command(Place::Node(&stage.lab.first()?.name), "cat")?
            .arg("/var/lib/ovn/ovnnb_db.db"),
    )?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with('{'))
        .filter(|line| {
            // northd reports what is up and how far it has come, and says so in the comment of its transactions.
            serde_json::from_str::<Value>(line).is_ok_and(|record| record["_comment"] != "ovn-northd")
        })
        .map(str::to_owned)
        .collect())
}

/// Name and version of every object that the controllers may write.
fn objects(stage: &Stage<'_>) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for kind in ["pods", "namespaces", "subnets.kubeovn.io", "ips.kubeovn.io", "vpcs.kubeovn.io"] {
        let list = stage.get(&[kind, "-A"])?;
        for item in list["items"].as_array().into_iter().flatten() {
            let meta = &item["metadata"];
            versions.insert(
                format!("{kind} {}/{}", meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap_or("")),
                meta["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            );
        }
    }
    Ok(versions)
}
