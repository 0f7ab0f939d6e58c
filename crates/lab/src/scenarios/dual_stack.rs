//! Both families at once: pods, nodes and DNS; and a subnet of IPv6 alone.

use anyhow::{Result, ensure};

use crate::lab::FAR6;
use crate::scenario::{Pod, Scenario, Stage, host};

pub const SCENARIO: Scenario = Scenario {
    name: "dual-stack",
    about: "pods use both families in both directions, in and between nodes and subnets; a subnet of IPv6 alone works too",
    unfit: crate::scenario::dual_stack,
    run,
};

const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: both}\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata:\n  name: six\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: six\n    ovn.kubernetes.io/cidr: fd00:10:26::/112\n    \
    ovn.kubernetes.io/gateway: fd00:10:26::1\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(NAMESPACES)?;
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let here = stage.server("both", "here", first)?;
    let there = stage.server("both", "there", second)?;
    ensure!(
        there.addresses.len() == 2 && there.addresses[0].is_ipv4() && there.addresses[1].is_ipv6(),
        "the pod has {:?}",
        there.addresses
    );
    both_ways(stage, &here, &there, 2)?;
    let six = [stage.server("six", "a", first)?, stage.server("six", "b", second)?];
    ensure!(
        six.iter().all(|p| p.addresses.len() == 1 && p.addresses[0].is_ipv6()),
        "pods of the IPv6 subnet have {:?}",
        six.iter().map(|p| &p.addresses).collect::<Vec<_>>()
    );
    both_ways(stage, &six[0], &six[1], 1)?;
    // Between the two subnets, on one node and across.
    both_ways(stage, &here, &six[0], 1)?;
    both_ways(stage, &here, &six[1], 1)?;
    for pod in [&there, &six[1]] {
        for node in &stage.lab.nodes {
            for address in &pod.addresses {
                stage.node_pings(node, *address)?;
            }
            stage.pings(pod, node.address6().into())?;
        }
    }
    // The IPv6 subnet made by annotation has NAT, too: the host outside sees the pod's node.
    stage.outside_server()?;
    for pod in [&here, &six[1]] {
        let seen = stage.fetches(pod, &format!("http://[{FAR6}]:8080/clientip"))?;
        let node = stage.node_of(pod)?.address6();
        ensure!(seen.starts_with(&format!("[{node}]:")), "the host outside sees {seen} instead of the node's {node}");
    }
    Ok(())
}

/// Ping, fetch and transfer in both directions over `families` families.
fn both_ways(stage: &Stage<'_>, one: &Pod, other: &Pod, families: usize) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let addresses: Vec<_> = from.reachable(to).collect();
        ensure!(addresses.len() == families, "{} and {} share {} families", from.name, to.name, addresses.len());
        for address in addresses {
            stage.pings(from, address)?;
            let page = stage.fetches(from, &format!("http://{}:8080/hostname", host(address)))?;
            ensure!(page == to.name, "{address} answered {page:?} instead of {}", to.name);
        }
        stage.transfers(from, to, 500_000)?;
    }
    Ok(())
}
