//! A node is deleted while its machine runs on: its ports and addresses go; its chassis comes back as long as
//! ovn-controller runs there, and is gone for good once it does not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::node_comes_and_goes::{come, gone};
use crate::lab::Lab;
use crate::scenario::{Scenario, Stage, two_nodes};
use crate::{down, ovn};

pub const SCENARIO: Scenario = Scenario {
    name: "node-deleted-first",
    about: "a node is deleted, its machine stops later: nothing of it stays, the others talk on",
    unfit: two_nodes,
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: deleted-first}\n")?;
    let first = stage.busybox("deleted-first", "first", stage.node(0)?)?;
    let second = stage.busybox("deleted-first", "second", stage.node(1)?)?;
    let number = stage.lab.nodes.iter().map(|n| n.number).max().unwrap_or(0) + 1;
    let mut lab = Lab::open(&stage.lab.name)?;
    // A system-id of its own: one that went a while ago is remembered.
    let fresh = u32::try_from(crate::process::now() % 1_000_000_000)?;
    let ((), pings) = stage.pings_during(&first, second.address()?, || {
        let system_id = come(stage, &mut lab, number, fresh, &first)?;
        let name = lab.node(&number.to_string())?.name.clone();
        let before = row_of(&lab, &system_id)?;
        ensure!(!before.is_empty(), "no chassis {system_id}");

        stage.kubectl(&["delete", "node", &name])?;
        stage.eventually("the node's join port to go", Duration::from_secs(30), || {
            let ports = stage.rows("nb", "Logical_Switch_Port", &[&format!("name=node-{name}")])?;
            ensure!(ports == 0, "the join port of {name} is still there");
            Ok(())
        })?;
        stage.eventually("the node's address to be given back", Duration::from_secs(30), || {
            let left = stage.kubectl(&["get", "ips.kubeovn.io", &format!("node-{name}"), "--ignore-not-found"])?;
            ensure!(left.trim().is_empty(), "the IP resource of {name} is still there");
            Ok(())
        })?;
        stage.eventually("the node's chassis to be removed", Duration::from_secs(30), || {
            ensure!(row_of(&lab, &system_id)? != before, "chassis {system_id} is still there");
            Ok(())
        })?;
        stage.eventually("its ovn-controller to register it again", Duration::from_secs(30), || {
            ensure!(gone(stage, &system_id).is_err(), "there is no chassis {system_id}");
            Ok(())
        })?;

        // Nobody says goodbye for it.
        let stopped = Instant::now();
        down::remove_node(&mut lab, &name)?;
        // It is left for a minute after it came back.
        stage.eventually("the node's chassis to go for good", Duration::from_secs(90), || gone(stage, &system_id))?;
        stage.note(format!(
            "its chassis went {:.0} s after the machine had stopped",
            stopped.elapsed().as_secs_f64()
        ));
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

/// The UUID of a chassis; empty if there is none.
fn row_of(lab: &Lab, system_id: &str) -> Result<String> {
    let name = format!("name={system_id}");
    let uuid = ovn::ctl(lab, "sb", &["--bare", "--columns=_uuid", "find", "Chassis", &name])?;
    Ok(uuid.trim().to_owned())
}
