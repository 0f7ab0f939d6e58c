//! The controller starts again on a network that is as it should be: it writes its lease and its epoch, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::capture;
use crate::components;
use crate::lab::Place;
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
    for record in &controllers {
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

/// The transactions of the northbound database, one text each.
fn records(stage: &Stage<'_>) -> Result<Vec<String>> {
    let log = capture(stage.lab.command(Place::Node(&stage.lab.first()?.name), "ovsdb-tool")?.args([
        "-m",
        "show-log",
        "/var/lib/ovn/ovnnb_db.db",
    ]))?;
    let mut records: Vec<String> = Vec::new();
    for line in log.lines() {
        if line.starts_with("record ") {
            records.push(line.to_owned());
        } else if let Some(record) = records.last_mut() {
            record.push_str("\n  ");
            record.push_str(line.trim());
        }
    }
    // northd reports its progress (nb_cfg, sb_cfg, hv_cfg and their times) there too; that is not ours.
    records.retain(|record| !northd_only(record));
    Ok(records)
}

fn northd_only(record: &str) -> bool {
    let changes: Vec<&str> = record.lines().skip(1).filter(|line| line.contains('=')).collect();
    !changes.is_empty()
        && changes.iter().all(|line| {
            ["sb_cfg", "hv_cfg", "nb_cfg", "timestamp", "ipsec=", "up="]
                .iter()
                .any(|column| line.trim().starts_with(column))
        })
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
