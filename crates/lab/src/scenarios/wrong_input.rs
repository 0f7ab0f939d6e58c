//! Mistakes get an answer and harm nothing else.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "wrong-input",
    about: "overlapping and malformed subnets get a condition or an event that says so, and nothing else is touched",
    unfit: any,
    run,
};

const OVERLAP: &str = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: overlap}\nspec: {cidrBlock: 10.16.128.0/24}\n";
const GATEWAY: &str = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: gateway}\nspec: {cidrBlock: 10.27.0.0/24, gateway: 10.99.0.1}\n";
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: wrong\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: wrong\n    ovn.kubernetes.io/cidr: 10.28.0.0/33\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    let switches = stage.rows("nb", "Logical_Switch", &[])?;
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: bystander}\n")?;
    let node = stage.node(0)?;
    let bystander = stage.busybox("bystander", "pod", node)?;
    for (manifest, name, word) in [(OVERLAP, "overlap", "10.16."), (GATEWAY, "gateway", "10.99.0.1")] {
        stage.apply(manifest)?;
        stage.eventually("a condition", Duration::from_secs(15), || {
            let subnet = stage.get(&["subnet", name])?;
            let conditions = subnet["status"]["conditions"].clone();
            let told = conditions.as_array().into_iter().flatten().any(|c| {
                c["type"] == "Validated" && c["status"] == "False" && c["message"].as_str().is_some_and(|m| m.contains(word))
            });
            ensure!(told, "conditions of {name}: {conditions}");
            Ok(())
        })?;
    }
    stage.apply(NAMESPACE)?;
    stage.eventually("an event", Duration::from_secs(15), || {
        let events = stage.kubectl(&[
            "get", "events", "-A", "-o", "custom-columns=O:.involvedObject.name,M:.message", "--no-headers",
        ])?;
        ensure!(
            events.lines().any(|line| line.starts_with("wrong") && line.contains("10.28.0.0/33")),
            "no event about the CIDR 10.28.0.0/33"
        );
        Ok(())
    })?;
    let now = stage.rows("nb", "Logical_Switch", &[])?;
    ensure!(now == switches, "{now} logical switches, {switches} before: a mistake became a switch");
    stage.pings(&bystander, "10.16.0.1".parse()?)?;
    let other = stage.busybox("bystander", "other", node)?;
    stage.pings(&bystander, other.address()?)
}
