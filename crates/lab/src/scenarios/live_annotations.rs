//! A namespace's annotations change while its pods run: new pods follow, running pods keep what they have.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "live-annotations",
    about: "exclusions of a namespace change while pods run: running pods keep their address, new ones follow",
    unfit: any,
    run,
};

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: live\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: live\n    ovn.kubernetes.io/cidr: 10.22.0.0/24\n    \
    ovn.kubernetes.io/gateway: 10.22.0.1\n    ovn.kubernetes.io/exclude_ips: 10.22.0.1..10.22.0.10\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(NAMESPACE)?;
    let node = stage.node(0)?;
    let first = stage.busybox("live", "first", node)?;
    ensure!(first.address()?.to_string() == "10.22.0.11", "the first pod has {}", first.address()?);
    let (second, pings) = stage.pings_during(&first, "10.22.0.1".parse()?, || {
        stage.kubectl(&[
            "annotate",
            "namespace",
            "live",
            "--overwrite",
            "ovn.kubernetes.io/exclude_ips=10.22.0.1..10.22.0.30",
        ])?;
        stage.eventually("the subnet to follow", Duration::from_secs(10), || {
            let subnet = stage.get(&["subnet", "live"])?;
            let excluded = subnet["spec"]["excludeIps"].to_string();
            ensure!(excluded.contains("10.22.0.30"), "excludeIps is {excluded}");
            Ok(())
        })?;
        stage.busybox("live", "second", node)
    })?;
    ensure!(second.address()?.to_string() == "10.22.0.31", "the second pod has {}", second.address()?);
    pings.all_answered("of the running pod")?;
    let again = stage.pod("live", "first")?;
    ensure!(again.addresses == first.addresses, "the running pod changed to {:?}", again.addresses);
    Ok(())
}
