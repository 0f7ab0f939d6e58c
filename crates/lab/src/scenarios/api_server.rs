//! A pod reaches the API server by the node's address and by its ClusterIP.

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "api-server",
    about: "a pod on every node reaches the API server by its node address and by its ClusterIP 10.68.0.1",
    unfit: |lab| (!lab.spec.kube_proxy).then_some("needs kube-proxy"),
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: api-server}\n")?;
    for (index, node) in stage.lab.nodes.iter().enumerate() {
        let pod = stage.busybox("api-server", &format!("pod-{index}"), node)?;
        let control = stage.lab.first()?;
        let mut doors = vec![format!("{}:6443", control.address()), "10.68.0.1".into()];
        if stage.lab.spec.dual_stack {
            // The Service `kubernetes` has one family, the node has both.
            doors.push(format!("[{}]:6443", control.address6()));
        }
        for host in doors {
            let version = stage.fetches(&pod, &format!("https://{host}/version"))?;
            ensure!(version.contains("gitVersion"), "{host} answered {version:?}");
        }
    }
    Ok(())
}
