//! Two namespaces name the same logical switch: one subnet serves both.

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "shared-switch",
    about: "a second namespace that names the switch of the first gets addresses of the same subnet",
    unfit: any,
    run,
};

const FIRST: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: share-one\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: shared\n    ovn.kubernetes.io/cidr: 10.20.0.0/24\n    \
    ovn.kubernetes.io/gateway: 10.20.0.1\n    \
    ovn.kubernetes.io/exclude_ips: 10.20.0.1..10.20.0.5,10.20.0.7,10.20.0.9..10.20.0.20\n";
const SECOND: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: share-two\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: shared\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(FIRST)?;
    stage.apply(SECOND)?;
    let node = stage.node(0)?;
    // One after the other, so that the order of the addresses is known; the exclusions leave .6, .8, .21 first.
    let mut seen = Vec::new();
    let mut pods = Vec::new();
    for (namespace, name) in [("share-one", "a"), ("share-two", "b"), ("share-one", "c")] {
        let pod = stage.busybox(namespace, name, node)?;
        seen.push(pod.address()?.to_string());
        pods.push(pod);
    }
    ensure!(
        seen == ["10.20.0.6", "10.20.0.8", "10.20.0.21"],
        "addresses are {seen:?}; the exclusion ranges leave 10.20.0.6, .8 and .21 first"
    );
    stage.pings(&pods[0], pods[1].address()?)?;
    let switches = stage.rows("nb", "Logical_Switch", &["name=shared"])?;
    ensure!(switches == 1, "{switches} logical switches `shared`");
    Ok(())
}
