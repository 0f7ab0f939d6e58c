//! A node is drained: its pods move and talk on, their addresses are given back, nobody else notices; then it returns.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::scenario::{Pod, Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "node-drained",
    about: "the pods of a drained node move and talk on, their addresses are reused, the other nodes talk on",
    unfit: |lab| (lab.nodes.len() < 3).then_some("needs three nodes"),
    run,
};

/// Eleven addresses beside gateway and exclusions: the two of `steady` and the nine of `moving` are all of them. Who moves can only
/// have an address that somebody gave back.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: drained\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: drained\n    ovn.kubernetes.io/cidr: 10.29.0.0/28\n    \
    ovn.kubernetes.io/gateway: 10.29.0.1\n    ovn.kubernetes.io/exclude_ips: 10.29.0.13..10.29.0.14\n";
const MOVING: usize = 9;

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    stage.apply(NAMESPACE)?;
    let drained = stage.node(stage.lab.nodes.len() - 1)?.name.clone();
    let steady = [
        stage.busybox("drained", "steady-0", stage.node(0)?)?,
        stage.busybox("drained", "steady-1", stage.node(1)?)?,
    ];
    stage.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: moving, namespace: drained}}\nspec:\n  \
         replicas: {MOVING}\n  selector: {{matchLabels: {{app: moving}}}}\n  template:\n    \
         metadata: {{labels: {{app: moving}}}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      \
         affinity: {{nodeAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, preference: \
         {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [\"{drained}\"]}}]}}}}]}}}}\n      \
         containers:\n      - {{name: main, image: \"{}\", command: [/agnhost, netexec, --http-port=8080]}}\n",
        crate::images::AGNHOST
    ))?;
    let before = stage.pods("drained", "app=moving", MOVING)?;
    let there = before.iter().filter(|pod| pod.node == drained).count();
    ensure!(there > 0, "the scheduler put no pod on {drained}: there is nothing to drain");
    let told = stage.pings_during(&steady[0], steady[1].address()?, || {
        stage.kubectl(&["drain", &drained, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"])?;
        moved(stage, &drained, &before, &steady[0])
    });
    stage.kubectl(&["uncordon", &drained])?;
    let ((), pings) = told?;
    pings.without_outage("between the other nodes")?;
    stage.note(format!("{there} pods moved; between the other nodes: {}", pings.told()));
    // It is a node like the others again. Another namespace: this subnet is full.
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: drained-after}\n")?;
    let back = stage.busybox("drained-after", "back", stage.lab.node(&drained)?)?;
    stage.pings(&steady[0], back.address()?)?;
    if stage.lab.spec.dns {
        stage.kubectl(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s"])?;
    }
    Ok(())
}

fn moved(stage: &Stage<'_>, drained: &str, before: &[Pod], peer: &Pod) -> Result<()> {
    let after = stage.pods("drained", "app=moving", MOVING)?;
    for pod in &after {
        ensure!(pod.node != drained, "{} is still on the drained node", pod.name);
        stage.pings(peer, pod.address()?)?;
        let page = stage.fetches(peer, &format!("http://{}:8080/hostname", pod.address()?))?;
        ensure!(page == pod.name, "{} answered for {}", page, pod.name);
    }
    let addresses = |pods: &[Pod]| pods.iter().flat_map(|pod| pod.addresses.clone()).collect::<BTreeSet<_>>();
    ensure!(addresses(&after).len() == MOVING, "two pods share an address: {:?}", addresses(&after));
    let gone: BTreeSet<&str> = before.iter().filter(|old| old.node == drained).map(|old| old.name.as_str()).collect();
    stage.eventually("the traces of the pods on the old node to go", Duration::from_secs(20), || {
        let ips = stage.get(&["ips.kubeovn.io"])?;
        let left: Vec<&Value> = ips["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|ip| &ip["metadata"]["name"])
            .filter(|name| name.as_str().and_then(|n| n.strip_suffix(".drained")).is_some_and(|n| gone.contains(n)))
            .collect();
        ensure!(left.is_empty(), "IP resources are left: {left:?}");
        for name in &gone {
            let ports = stage.rows("nb", "Logical_Switch_Port", &[&format!("name={name}.drained")])?;
            ensure!(ports == 0, "the logical switch port of {name} is left");
        }
        Ok(())
    })
}
