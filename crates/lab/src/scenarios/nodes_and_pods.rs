//! Nodes reach pods and pods reach nodes, on the same node and on another one.

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage, two_nodes};

pub const SCENARIO: Scenario = Scenario {
    name: "nodes-and-pods",
    about: "every node reaches every pod (so probes and the control plane work), every pod every node",
    unfit: two_nodes,
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: nodes-and-pods}\n")?;
    for (index, node) in stage.lab.nodes.iter().take(2).enumerate() {
        let pod = stage.server("nodes-and-pods", &format!("pod-{index}"), node)?;
        for other in &stage.lab.nodes {
            for address in &pod.addresses {
                stage.node_pings(other, *address)?;
            }
            let page = stage.node_sh(
                other,
                &format!("curl -sS -f -m 5 http://{}:8080/hostname", pod.address()?),
            )?;
            ensure!(page.contains(&pod.name), "node {} got {page:?}", other.name);
            stage.pings(&pod, other.address().into())?;
            if stage.lab.spec.dual_stack {
                stage.pings(&pod, other.address6().into())?;
            }
        }
    }
    Ok(())
}
