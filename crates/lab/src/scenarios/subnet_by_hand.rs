//! A Subnet resource made by hand names its namespaces; what its pods use is counted in its status.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "subnet-by-hand",
    about: "a Subnet with `namespaces` serves them, counts its addresses, and leaves nothing when it goes",
    unfit: any,
    run,
};

const SUBNET: &str = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: by-hand}\nspec:\n  \
    cidrBlock: 10.21.0.0/28\n  excludeIps: [\"10.21.0.1..10.21.0.3\", \"10.21.0.5\"]\n  natOutgoing: true\n  \
    namespaces: [by-hand]\n";
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: by-hand}\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(SUBNET)?;
    stage.apply(NAMESPACE)?;
    stage.eventually("the namespace to be bound", Duration::from_secs(10), || {
        let namespace = stage.get(&["namespace", "by-hand"])?;
        let bound = &namespace["metadata"]["annotations"]["ovn.kubernetes.io/logical_switch"];
        ensure!(bound == "by-hand", "its annotation says {bound}");
        Ok(())
    })?;
    let pod = stage.busybox("by-hand", "one", stage.node(0)?)?;
    ensure!(pod.address()?.to_string() == "10.21.0.4", "the pod has {}", pod.address()?);
    stage.eventually("the status to count", Duration::from_secs(10), || {
        let status = stage.get(&["subnet", "by-hand"])?["status"].clone();
        // A /28 has 14 hosts; 4 are excluded, 1 is in use.
        ensure!(
            status["v4usingIPs"] == 1 && status["v4availableIPs"] == 9,
            "using {}, available {}",
            status["v4usingIPs"],
            status["v4availableIPs"]
        );
        Ok(())
    })?;
    let ip = stage.get(&["ip", "one.by-hand"])?;
    ensure!(ip["spec"]["ipAddress"] == "10.21.0.4", "the IP resource says {}", ip["spec"]["ipAddress"]);
    stage.delete(NAMESPACE)?;
    stage.delete(SUBNET)?;
    stage.eventually("the switch to go", Duration::from_secs(20), || {
        let switches = stage.rows("nb", "Logical_Switch", &["name=by-hand"])?;
        ensure!(switches == 0, "the logical switch is still there");
        Ok(())
    })
}
