//! A node joins, is deleted, and installed again under its old name; the others do not notice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;
use crate::scenario::{Scenario, Stage, two_nodes};
use crate::{down, ovn, up};

pub const SCENARIO: Scenario = Scenario {
    name: "node-comes-and-goes",
    about: "a node is added, deleted and reinstalled with a new system-id; its stale chassis goes, the others talk on",
    unfit: two_nodes,
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: comes-and-goes}\n")?;
    let first = stage.busybox("comes-and-goes", "first", stage.node(0)?)?;
    let second = stage.busybox("comes-and-goes", "second", stage.node(1)?)?;
    let number = stage.lab.nodes.iter().map(|n| n.number).max().unwrap_or(0) + 1;
    let mut lab = Lab::open(&stage.lab.name)?;
    // A chassis whose system-id was seen a moment ago would be taken for one that does not want to go.
    let fresh = u32::try_from(crate::process::now() % 1_000_000_000)?;
    let ((), pings) = stage.pings_during(&first, second.address()?, || {
        let mut old = String::new();
        for generation in fresh..fresh + 2 {
            let start = Instant::now();
            let system_id = come(stage, &mut lab, number, generation, &first)?;
            let came = start.elapsed();
            ensure!(system_id != old, "the system-id is the old one");
            if !old.is_empty() {
                gone(stage, &old)?;
            }
            let name = lab.node(&number.to_string())?.name.clone();
            down::remove_node(&mut lab, &name)?;
            stage.eventually("the node's chassis to go", Duration::from_mins(1), || gone(stage, &system_id))?;
            stage.eventually("the node's join port to go", Duration::from_secs(30), || {
                let port = format!("name=node-{name}");
                let rows = stage.rows("nb", "Logical_Switch_Port", &[&port])?;
                ensure!(rows == 0, "the join port of {name} is still there");
                Ok(())
            })?;
            stage.note(format!(
                "a pod on the new node talks after {:.1} s; the node's traces are gone {:.1} s later",
                came.as_secs_f64(),
                start.elapsed().saturating_sub(came).as_secs_f64()
            ));
            old = system_id;
        }
        Ok(())
    })
    .inspect_err(|_| {
        // Leave the lab as it was, whatever happened in between.
        if let Ok(node) = lab.node(&number.to_string()).cloned() {
            let _ = down::remove_node(&mut lab, &node.name);
        }
    })?;
    pings.without_outage("between the other nodes")?;
    stage.note(format!("between the other nodes: {}", pings.told()));
    Ok(())
}

/// Add the node, see that a pod on it talks (in the namespace of its peer), and return its system-id.
pub(super) fn come(
    stage: &Stage<'_>,
    lab: &mut Lab,
    number: u8,
    generation: u32,
    peer: &crate::scenario::Pod,
) -> Result<String> {
    let quiet = crate::progress::Progress::new(true);
    up::add_node(lab, number, generation, &quiet)?;
    let node = lab.node(&number.to_string())?.clone();
    let name = format!("there-{generation}");
    let manifest = crate::scenario::pod_manifest(
        &peer.namespace,
        &name,
        &node.name,
        crate::images::BUSYBOX,
        "[sleep, \"360000\"]",
    );
    stage.apply(&manifest)?;
    let pod = stage.pod(&peer.namespace, &name)?;
    // The stage knows the lab as it was before; the pod is reached from its peer.
    stage.pings(peer, pod.address()?)?;
    stage.delete(&manifest)?;
    let chassis = ovn::ctl(
        lab,
        "sb",
        &["--bare", "--columns=name", "find", "Chassis", &format!("hostname={}", node.name)],
    )?;
    let chassis = chassis.trim().to_owned();
    ensure!(chassis == node.system_id, "the chassis of {} is {chassis:?}", node.name);
    Some(chassis).filter(|c| !c.is_empty()).context("no chassis")
}

pub(super) fn gone(stage: &Stage<'_>, system_id: &str) -> Result<()> {
    let rows = stage.rows("sb", "Chassis", &[&format!("name={system_id}")])?;
    ensure!(rows == 0, "chassis {system_id} is still there");
    Ok(())
}
