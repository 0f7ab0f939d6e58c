//! Cluster DNS: service names and pod records, asked from inside containers on every node.

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "cluster-dns",
    about: "containers on every node resolve service names through the cluster DNS service",
    unfit: |lab| (!lab.spec.dns || !lab.spec.kube_proxy).then_some("needs cluster DNS and kube-proxy"),
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: cluster-dns}\n")?;
    for (index, node) in stage.lab.nodes.iter().enumerate() {
        let pod = stage.server("cluster-dns", &format!("pod-{index}"), node)?;
        for (transport, flag) in [("UDP", "+notcp"), ("TCP", "+tcp")] {
            let answer = stage.exec(
                &pod,
                &["dig", "+short", "+tries=2", "+time=2", flag, "kubernetes.default.svc.cluster.local"],
            )?;
            ensure!(answer.contains("10.68.0.1"), "{transport} on {}: {answer:?}", node.name);
        }
        // By the search list of resolv.conf, as programs do.
        let host = stage.exec(&pod, &["getent", "ahosts", "kube-dns.kube-system"])?;
        ensure!(host.contains("10.68.0.10"), "getent on {}: {host:?}", node.name);
    }
    Ok(())
}
