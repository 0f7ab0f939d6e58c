//! What is deleted is gone everywhere: OVN, Open vSwitch, the kernel, the IP resources; and its address can be used again.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::ovn;
use crate::scenario::{Scenario, Stage, two_nodes};

pub const SCENARIO: Scenario = Scenario {
    name: "nothing-left",
    about: "deleted pods, namespaces and subnets leave nothing in OVN, Open vSwitch, the kernel and the IP resources",
    unfit: two_nodes,
    run,
};

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: nothing\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: nothing\n    ovn.kubernetes.io/cidr: 10.25.0.0/30\n    \
    ovn.kubernetes.io/gateway: 10.25.0.1\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    let before = stage.rows("nb", "Logical_Switch", &[])?;
    let links: Vec<usize> = stage.lab.nodes.iter().map(|n| links(stage, n)).collect::<Result<_>>()?;
    stage.apply(NAMESPACE)?;
    // The subnet has one address besides its gateway: each pod can only have it after its forerunner gave it back.
    for (index, node) in stage.lab.nodes.iter().take(2).enumerate() {
        let name = format!("pod-{index}");
        let pod = stage.busybox("nothing", &name, node)?;
        ensure!(pod.address()?.to_string() == "10.25.0.2", "the pod has {}", pod.address()?);
        stage.kubectl(&["delete", "pod", "-n", "nothing", &name, "--now", "--timeout=60s"])?;
        stage.eventually("every trace of the pod to go", Duration::from_secs(20), || traces(stage, "nothing"))?;
    }
    stage.delete(NAMESPACE)?;
    let _ = stage.kubectl(&["delete", "subnet", "nothing", "--ignore-not-found", "--timeout=30s"]);
    stage.eventually("the switch to go", Duration::from_secs(20), || {
        let now = stage.rows("nb", "Logical_Switch", &[])?;
        ensure!(now == before, "{now} logical switches, {before} before");
        let now: Vec<usize> = stage.lab.nodes.iter().map(|n| self::links(stage, n)).collect::<Result<_>>()?;
        ensure!(now == links, "links per node: {now:?}, {links:?} before");
        Ok(())
    })
}

fn links(stage: &Stage<'_>, node: &crate::lab::Node) -> Result<usize> {
    Ok(stage.node_sh(node, "ip -o link")?.lines().count())
}

/// Fails as long as something of the pods of a namespace is left.
pub fn traces(stage: &Stage<'_>, namespace: &str) -> Result<()> {
    let pods = stage.get(&["pods", "-n", namespace])?["items"].as_array().map_or(0, Vec::len);
    ensure!(pods == 0, "{pods} pods are left");
    let suffix = format!(".{namespace}");
    let ports = ovn::ctl(stage.lab, "nb", &["--bare", "--columns=name", "list", "Logical_Switch_Port"])?;
    let left: Vec<&str> = ports.lines().filter(|name| name.ends_with(&suffix)).collect();
    ensure!(left.is_empty(), "logical switch ports are left: {left:?}");
    for node in &stage.lab.nodes {
        let interfaces = ovn::vsctl(
            stage.lab,
            &node.name,
            &["--bare", "--columns=external_ids", "list", "Interface"],
        )?;
        let left: Vec<&str> = interfaces
            .split_ascii_whitespace()
            .filter(|pair| pair.starts_with("iface-id=") && pair.ends_with(&suffix))
            .collect();
        ensure!(left.is_empty(), "ports are left on {}: {left:?}", node.name);
    }
    let ips = stage.get(&["ips.kubeovn.io"])?;
    let left: Vec<&str> = ips["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["metadata"]["name"].as_str())
        .filter(|name| name.ends_with(&suffix))
        .collect();
    ensure!(left.is_empty(), "IP resources are left: {left:?}");
    Ok(())
}
