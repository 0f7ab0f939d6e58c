//! The way out: with NAT a pod leaves with the address of its own node, without it with its own address.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::lab::{FAR, FAR6, Node};
use crate::scenario::{Pod, Scenario, Stage, any, host};

pub const SCENARIO: Scenario = Scenario {
    name: "way-out",
    about: "pods reach a host outside: with NAT as their own node, without NAT as themselves",
    unfit: any,
    run,
};

const NAT: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: out-nat}\n";

/// A namespace whose pods leave with their own addresses.
fn plain(cidr: &str, gateway: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: out-plain\n  annotations:\n    \
         ovn.kubernetes.io/logical_switch: out-plain\n    ovn.kubernetes.io/cidr: {cidr}\n    \
         ovn.kubernetes.io/gateway: {gateway}\n    ovn.kubernetes.io/gateway_nat: \"false\"\n"
    )
}

/// The subnet without NAT, of each family.
const PLAIN: [&str; 2] = ["10.23.0.0/24", "fd00:10:23::/112"];

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.outside_server()?;
    let families = |v4: &str, v6: &str| stage.lab.spec.families(v4, v6);
    stage.apply(NAT)?;
    stage.apply(&plain(&families(PLAIN[0], PLAIN[1]), &families("10.23.0.1", "fd00:10:23::1")))?;
    for (index, node) in stage.lab.nodes.iter().take(2).enumerate() {
        let pod = stage.busybox("out-nat", &format!("pod-{index}"), node)?;
        seen_outside(stage, &pod, |address| own(node, address.is_ipv6()))?;
    }
    let node = stage.node(stage.lab.nodes.len() - 1)?;
    let pod = stage.busybox("out-plain", "pod", node)?;
    ensure!(
        pod.addresses.len() == if stage.lab.spec.dual_stack { 2 } else { 1 },
        "the pod has {:?}",
        pod.addresses
    );
    // Without NAT the outside must know the way back; here it learns it by a static route.
    for (cidr, v6) in PLAIN.iter().zip([false, true]).take(pod.addresses.len()) {
        stage.outside_sh(&format!("ip route replace {cidr} via {}", own(node, v6)))?;
    }
    let told = seen_outside(stage, &pod, |address| address).and_then(|()| {
        // And the other way round: the outside reaches the pod.
        pod.addresses
            .iter()
            .try_for_each(|own| stage.outside_sh(&format!("ping -q -c 3 -i 0.2 -W 2 {own}")).map(drop))
    });
    for cidr in PLAIN.iter().take(pod.addresses.len()) {
        stage.outside_sh(&format!("ip route del {cidr}"))?;
    }
    told
}

/// The node's address of a family.
fn own(node: &Node, v6: bool) -> IpAddr {
    if v6 { node.address6().into() } else { node.address().into() }
}

/// The pod reaches the host outside over each of its families, and is seen there as `expected` says of its address.
fn seen_outside(stage: &Stage<'_>, pod: &Pod, expected: impl Fn(IpAddr) -> IpAddr) -> Result<()> {
    for address in &pod.addresses {
        let far: IpAddr = if address.is_ipv6() { FAR6.into() } else { FAR.into() };
        stage.pings(pod, far)?;
        let seen = stage.fetches(pod, &format!("http://{}:8080/clientip", host(far)))?;
        let wanted = host(expected(*address));
        ensure!(seen.starts_with(&format!("{wanted}:")), "the host outside sees {seen} instead of {wanted}");
    }
    Ok(())
}
