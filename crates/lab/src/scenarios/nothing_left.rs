//! What is deleted is gone everywhere: OVN, Open vSwitch, the kernel, the resources; and its address can be used again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::ovn;
use crate::scenario::{Scenario, Stage, two_nodes};

pub const SCENARIO: Scenario = Scenario {
    name: "nothing-left",
    about: "deleted pods, Deployments, namespaces and subnets leave nothing in OVN, Open vSwitch, the kernel and Kubernetes",
    unfit: two_nodes,
    run,
};

/// One address besides the gateway: each pod can only have it after its forerunner gave it back.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: nothing\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: nothing\n    ovn.kubernetes.io/cidr: 10.25.0.0/30\n    \
    ovn.kubernetes.io/gateway: 10.25.0.1\n";

/// Made by hand, for a namespace that has no annotation.
const BY_HAND: &str = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: nothing-hand}\nspec:\n  \
    cidrBlock: 10.35.0.0/29\n  natOutgoing: true\n  namespaces: [nothing-hand]\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata: {name: nothing-hand}\n";

/// IPv6 alone.
const SIX: &str = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: nothing-six}\nspec:\n  \
    cidrBlock: \"fd00:10:35::/125\"\n  natOutgoing: true\n  namespaces: [nothing-six]\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata: {name: nothing-six}\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    let before = footprint(stage)?;
    stage.apply(NAMESPACE)?;
    for (index, node) in stage.lab.nodes.iter().take(2).enumerate() {
        let name = format!("pod-{index}");
        let pod = stage.busybox("nothing", &name, node)?;
        ensure!(pod.address()?.to_string() == "10.25.0.2", "the pod has {}", pod.address()?);
        stage.kubectl(&["delete", "pod", "-n", "nothing", &name, "--now", "--timeout=60s"])?;
        stage.eventually("every trace of the pod to go", Duration::from_secs(20), || traces(stage, "nothing"))?;
    }
    // Twice the same: what the first one left would be in the way of the second.
    let mut manifest = BY_HAND.to_owned();
    let mut namespaces = vec!["nothing-hand"];
    if stage.lab.spec.dual_stack {
        manifest = format!("{manifest}---\n{SIX}");
        namespaces.push("nothing-six");
    }
    let mut seen = Vec::new();
    for _ in 0..2 {
        stage.apply(&manifest)?;
        let addresses: Vec<_> = namespaces.iter().map(|name| deployed(stage, name)).collect::<Result<_>>()?;
        seen.push(addresses);
        stage.delete(&manifest)?;
    }
    ensure!(seen[0] == seen[1], "pods had {:?} and, after everything was made again, {:?}", seen[0], seen[1]);
    stage.delete(NAMESPACE)?;
    stage.eventually("everything to be as before", Duration::from_secs(30), || {
        let now = footprint(stage)?;
        for (place, things) in &now {
            let fresh: Vec<_> = before.get(place).map_or_else(|| things.iter().collect(), |old| things.difference(old).collect());
            ensure!(fresh.is_empty(), "left in {place}: {fresh:?}");
        }
        for (place, things) in &before {
            let lost: Vec<_> = now.get(place).map_or_else(|| things.iter().collect(), |new| things.difference(new).collect());
            ensure!(lost.is_empty(), "{place} lost what was there before: {lost:?}");
        }
        Ok(())
    })
}

/// A Deployment of three, its addresses, and no trace of it after its end; its namespace stays.
fn deployed(stage: &Stage<'_>, namespace: &str) -> Result<BTreeSet<std::net::IpAddr>> {
    stage.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: some, namespace: {namespace}}}\nspec:\n  \
         replicas: 3\n  selector: {{matchLabels: {{app: some}}}}\n  template:\n    metadata: {{labels: {{app: some}}}}\n    \
         spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - {{name: main, image: \"{}\"}}\n",
        crate::images::PAUSE
    ))?;
    let pods = stage.pods(namespace, "app=some", 3)?;
    let inside = stage.rows("nb", "Logical_Switch", &[&format!("name={namespace}")])?;
    ensure!(inside == 1, "no logical switch `{namespace}`");
    stage.kubectl(&["delete", "deployment", "some", "-n", namespace, "--cascade=foreground", "--timeout=60s"])?;
    stage.eventually("every trace of the Deployment to go", Duration::from_secs(20), || traces(stage, namespace))?;
    Ok(pods.into_iter().flat_map(|pod| pod.addresses).collect())
}

/// Names of all that the fabric makes, by the place where it is.
fn footprint(stage: &Stage<'_>) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found = BTreeMap::new();
    let mut put = |place: String, text: String| {
        let things: BTreeSet<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
        found.insert(place, things);
    };
    for (database, table, column) in [
        ("nb", "Logical_Switch", "name"),
        ("nb", "Logical_Switch_Port", "name"),
        ("nb", "Logical_Router", "name"),
        ("nb", "Logical_Router_Port", "name"),
        ("nb", "Logical_Router_Policy", "match"),
        ("nb", "Logical_Router_Static_Route", "ip_prefix"),
        ("nb", "Port_Group", "name"),
        ("nb", "Address_Set", "name"),
        ("nb", "ACL", "match"),
        ("nb", "DHCP_Options", "cidr"),
        ("sb", "Port_Binding", "logical_port"),
        ("sb", "Datapath_Binding", "external_ids"),
    ] {
        let column = format!("--columns={column}");
        put(format!("{database} {table}"), ovn::ctl(stage.lab, database, &["--bare", &column, "list", table])?);
    }
    for kind in ["subnets.kubeovn.io", "ips.kubeovn.io", "vpcs.kubeovn.io"] {
        put(kind.to_owned(), stage.kubectl(&["get", kind, "-o", "name"])?);
    }
    for node in &stage.lab.nodes {
        let on = |what: &str| format!("{what} of {}", node.name);
        put(on("ports"), ovn::vsctl(stage.lab, &node.name, &["list-ports", "br-int"])?);
        // A new number does not make a new link.
        put(on("links"), stage.node_sh(node, "ip -o link | cut -d ' ' -f 2 | cut -d @ -f 1")?);
        put(on("routes"), stage.node_sh(node, "ip route; ip -6 route | sed /fe80/d")?);
        put(on("firewall"), stage.node_sh(node, "nft list table inet kube_ovn")?);
        put(on("namespaces"), stage.node_sh(node, "ls /run/netns")?);
    }
    Ok(found)
}

/// Fails as long as something of the pods of a namespace is left.
pub fn traces(stage: &Stage<'_>, namespace: &str) -> Result<()> {
    let pods = stage.get(&["pods", "-n", namespace])?["items"].as_array().map_or(0, Vec::len);
    ensure!(pods == 0, "{pods} pods are left");
    let suffix = format!(".{namespace}");
    let ports = ovn::ctl(stage.lab, "nb", &["--bare", "--columns=name", "list", "Logical_Switch_Port"])?;
    let left: Vec<&str> = ports.lines().filter(|name| name.ends_with(&suffix)).collect();
    ensure!(left.is_empty(), "logical switch ports are left: {left:?}");
    for node in &stage.lab.nodes {
        let interfaces = ovn::vsctl(
            stage.lab,
            &node.name,
            &["--bare", "--columns=external_ids", "list", "Interface"],
        )?;
        let left: Vec<&str> = interfaces
            .split_ascii_whitespace()
            .filter(|pair| pair.starts_with("iface-id=") && pair.ends_with(&suffix))
            .collect();
        ensure!(left.is_empty(), "ports are left on {}: {left:?}", node.name);
    }
    let ips = stage.get(&["ips.kubeovn.io"])?;
    let left: Vec<&str> = ips["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["metadata"]["name"].as_str())
        .filter(|name| name.ends_with(&suffix))
        .collect();
    ensure!(left.is_empty(), "IP resources are left: {left:?}");
    Ok(())
}
