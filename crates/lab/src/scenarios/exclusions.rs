//! Addresses that are left out, in every way that the annotation and the Subnet allow to say it.

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage, any, pod_manifest};

pub const SCENARIO: Scenario = Scenario {
    name: "exclusions",
    about: "ranges and single addresses, out of order and overlapping, leave exactly the addresses between them",
    unfit: any,
    run,
};

/// Leaves .3, .6, .9 and .16 below .21.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: excluding\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: excluding\n    ovn.kubernetes.io/cidr: 10.33.0.0/24\n    \
    ovn.kubernetes.io/gateway: 10.33.0.1\n    \
    ovn.kubernetes.io/exclude_ips: \"10.33.0.17..10.33.0.20,10.33.0.2,10.33.0.4..10.33.0.5,10.33.0.10..10.33.0.13,\
    10.33.0.12..10.33.0.15,10.33.0.7..10.33.0.8\"\n";

/// The same by a list; the gateway is not the first address and need not be named. Leaves .1, .4, .5 and .8.
const SUBNET: &str = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: excluding-too}\nspec:\n  \
    cidrBlock: 10.34.0.0/28\n  gateway: 10.34.0.14\n  \
    excludeIps: [\"10.34.0.6..10.34.0.7\", \"10.34.0.2\", \"10.34.0.9..10.34.0.13\", \"10.34.0.3\", \"10.34.0.2..10.34.0.3\"]\n  \
    namespaces: [excluding-too]\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: excluding-too}\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(NAMESPACE)?;
    stage.apply(SUBNET)?;
    fill(stage, "excluding", &["10.33.0.3", "10.33.0.6", "10.33.0.9", "10.33.0.16", "10.33.0.21"])?;
    fill(stage, "excluding-too", &["10.34.0.1", "10.34.0.4", "10.34.0.5", "10.34.0.8"])?;
    // All addresses of the second subnet are taken now: one more pod waits and says why, and an excluded address is
    // given to nobody.
    stage.apply(&pod_manifest(
        "excluding-too",
        "late",
        &stage.node(0)?.name,
        crate::images::BUSYBOX,
        "[sleep, \"360000\"]",
    ))?;
    stage.eventually("a word about the full subnet", std::time::Duration::from_secs(15), || {
        let said = stage.kubectl(&[
            "get", "events", "-n", "excluding-too", "--field-selector=involvedObject.name=late,type=Warning", "-o",
            "custom-columns=M:.message", "--no-headers",
        ])?;
        ensure!(said.contains("excluding-too"), "the warnings are {said:?}");
        Ok(())
    })?;
    let late = stage.get(&["pod", "-n", "excluding-too", "late"])?;
    let address = &late["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"];
    ensure!(address.is_null(), "the subnet is full, and yet `late` has {address}");
    stage.kubectl(&["delete", "pod", "-n", "excluding-too", "pod-1", "--now", "--timeout=60s"])?;
    let late = stage.pod("excluding-too", "late")?;
    ensure!(late.address()?.to_string() == "10.34.0.4", "`late` has {} instead of the released 10.34.0.4", late.address()?);
    Ok(())
}

/// One pod after the other, so that the order is known.
fn fill(stage: &Stage<'_>, namespace: &str, expected: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    for index in 0..expected.len() {
        let node = stage.node(index % stage.lab.nodes.len())?;
        seen.push(stage.busybox(namespace, &format!("pod-{index}"), node)?.address()?.to_string());
    }
    ensure!(seen == expected, "pods of {namespace} have {seen:?} instead of {expected:?}");
    Ok(())
}
