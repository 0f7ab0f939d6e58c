//! Pods reach pods: in one node, across nodes, across subnets; ICMP, TCP and UDP, and large transfers.

use anyhow::{Result, ensure};

use crate::scenario::{Pod, Scenario, Stage, host, two_nodes};

pub const SCENARIO: Scenario = Scenario {
    name: "pods-and-pods",
    about: "pods reach pods in the same node, on another node and in another subnet, by ICMP, TCP and UDP",
    unfit: two_nodes,
    run,
};

const OTHER: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: pods-other\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: pods-other\n    ovn.kubernetes.io/cidr: 10.18.0.0/24\n    \
    ovn.kubernetes.io/gateway: 10.18.0.1\n";
const HERE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: pods-here}\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(HERE)?;
    stage.apply(OTHER)?;
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let client = stage.busybox("pods-here", "client", first)?;
    let beside = stage.server("pods-here", "beside", first)?;
    let across = stage.server("pods-here", "across", second)?;
    let other = stage.server("pods-other", "other", second)?;
    ensure!(
        other.address()?.to_string().starts_with("10.18.0."),
        "the pod of the other subnet has {}",
        other.address()?
    );
    for server in [&beside, &across, &other] {
        talk(stage, &client, server)?;
        talk_back(stage, server, &client)?;
    }
    Ok(())
}

fn talk(stage: &Stage<'_>, client: &Pod, server: &Pod) -> Result<()> {
    for address in client.reachable(server) {
        stage.pings(client, address)?;
        // The server answers with the client's address as it sees it: nobody translated it on the way.
        let seen = stage.fetches(client, &format!("http://{}:8080/clientip", host(address)))?;
        ensure!(
            client.addresses.iter().any(|own| seen.contains(&own.to_string())),
            "{} sees {seen} instead of {:?}",
            server.name,
            client.addresses
        );
        let udp = stage.sh(client, &format!("echo hostname | nc -u -w1 {address} 8081"))?;
        ensure!(udp.contains(&server.name), "no answer over UDP from {}: {udp:?}", server.name);
    }
    stage.transfers(client, server, 3_000_000)
}

fn talk_back(stage: &Stage<'_>, server: &Pod, client: &Pod) -> Result<()> {
    // The other subnet has one family only.
    server
        .reachable(client)
        .try_for_each(|address| stage.pings(server, address))
}
