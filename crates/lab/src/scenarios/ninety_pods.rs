//! Ninety pods at once: all run, all with different addresses, and all of it goes again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "ninety-pods",
    about: "ninety pods created at once all run with different addresses, and leave no port and no IP resource behind",
    unfit: |lab| (lab.nodes.len() < 3).then_some("needs three nodes"),
    run: |stage| many_then(stage, "ninety", 90, Duration::from_mins(2), || Ok(())),
};

/// `count` pods of one Deployment, timed; `then` something while they run; then none of them.
pub fn many_then(
    stage: &Stage<'_>,
    name: &str,
    count: usize,
    limit: Duration,
    then: impl FnOnce() -> Result<()>,
) -> Result<()> {
    stage.calm()?;
    stage.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"))?;
    let start = Instant::now();
    stage.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many, namespace: {name}}}\nspec:\n  \
         replicas: {count}\n  selector: {{matchLabels: {{app: many}}}}\n  template:\n    \
         metadata: {{labels: {{app: many}}}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      \
         containers:\n      - {{name: main, image: \"{}\"}}\n",
        crate::images::PAUSE
    ))?;
    let pods = stage.pods_within(name, "app=many", count, limit)?;
    let took = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred pods")]
    let rate = count as f64 / took;
    stage.note(format!("{count} pods ready after {took:.1} s ({rate:.1} pods/s)"));
    for record in stage.lab.records().iter().filter(|r| r.component == "kube-ovn-controller") {
        stage.note(format!("{}: {}", record.key(), crate::table::mib(record.memory())));
    }
    then()?;
    let addresses: BTreeSet<_> = pods.iter().flat_map(|p| &p.addresses).collect();
    let families = if stage.lab.spec.dual_stack { 2 } else { 1 };
    ensure!(
        addresses.len() == count * families,
        "{count} pods have {} different addresses",
        addresses.len()
    );
    // One client, everybody else: a sample of them, spread over the nodes.
    for to in pods.iter().skip(1).step_by((count / 10).max(1)) {
        stage.pings(&pods[0], to.address()?)?;
    }
    let start = Instant::now();
    stage.kubectl(&["delete", "deployment", "many", "-n", name, "--cascade=foreground", "--timeout=180s"])?;
    stage.eventually("every trace of the pods to go", Duration::from_mins(1), || {
        super::nothing_left::traces(stage, name)
    })?;
    stage.note(format!("deleted after {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}
