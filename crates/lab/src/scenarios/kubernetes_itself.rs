//! What people do with a cluster all day: exec, logs, port-forward, probes, rolling updates, DaemonSets, hostPort.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "kubernetes-itself",
    about: "exec, logs, port-forward, probes, a rolling update, a DaemonSet and a hostPort work",
    unfit: any,
    run,
};

const DAEMON_SET: &str = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: each, namespace: itself}\nspec:\n  \
    selector: {matchLabels: {app: each}}\n  template:\n    metadata: {labels: {app: each}}\n    spec:\n      \
    terminationGracePeriodSeconds: 0\n      containers:\n      - name: main\n        image: nginx\n        \
    ports: [{containerPort: 80, hostPort: 18080}]\n        \
    readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}\n        \
    livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 2}\n";

const ROLLING: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: rolling, namespace: itself}\nspec:\n  \
    replicas: 3\n  selector: {matchLabels: {app: rolling}}\n  template:\n    metadata: {labels: {app: rolling}}\n    \
    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - {name: main, image: nginx}\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: itself}\n")?;
    let server = stage.server("itself", "server", stage.node(0)?)?;
    let hostname = stage.exec(&server, &["hostname"])?;
    ensure!(hostname.trim() == "server", "exec says {hostname:?}");
    stage.fetches(&server, "http://127.0.0.1:8080/hostname")?;
    stage.eventually("the log", Duration::from_secs(5), || {
        let log = stage.kubectl(&["logs", "-n", "itself", "server"])?;
        ensure!(log.contains("hostname"), "the log says {log:?}");
        Ok(())
    })?;
    port_forward(stage)?;

    stage.apply(DAEMON_SET)?;
    let pods = stage.pods("itself", "app=each", stage.lab.nodes.len())?;
    ensure!(!pods.is_empty(), "no pod");
    for node in &stage.lab.nodes {
        let fetch = format!("curl -sS -f -m 5 http://{}:18080/", node.name);
        let page = stage.outside_sh(&fetch).with_context(|| format!("hostPort of {} from outside", node.name))?;
        ensure!(page.contains("nginx"), "hostPort of {} answers {page:?}", node.name);
        for from in &stage.lab.nodes {
            stage
                .node_sh(from, &fetch)
                .with_context(|| format!("hostPort of {} from node {}", node.name, from.name))?;
        }
    }

    stage.apply(ROLLING)?;
    stage.pods("itself", "app=rolling", 3)?;
    stage.kubectl(&["set", "env", "-n", "itself", "deployment/rolling", "GENERATION=2"])?;
    stage.kubectl(&["rollout", "status", "-n", "itself", "deployment/rolling", "--timeout=60s"])?;
    Ok(())
}

fn port_forward(stage: &Stage<'_>) -> Result<()> {
    let mut child = stage
        .lab
        .kubectl()?
        .args(["port-forward", "-n", "itself", "pod/server", "18081:8080"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let page = stage.eventually("port-forward", Duration::from_secs(10), || {
        stage
            .node_sh(stage.node(0)?, "curl -sf -m 2 http://127.0.0.1:18081/hostname")
            .map(drop)
    });
    let _ = child.kill();
    let _ = child.wait();
    page
}
