//! The way out: with NAT a pod leaves with the address of its own node, without it with its own address.

use anyhow::{Result, ensure};

use crate::lab::{FAR, FAR6};
use crate::scenario::{Scenario, Stage, any};

pub const SCENARIO: Scenario = Scenario {
    name: "way-out",
    about: "pods reach a host outside: with NAT as their own node, without NAT as themselves",
    unfit: any,
    run,
};

const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: out-nat}\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata:\n  name: out-plain\n  annotations:\n    \
    ovn.kubernetes.io/logical_switch: out-plain\n    ovn.kubernetes.io/cidr: 10.23.0.0/24\n    \
    ovn.kubernetes.io/gateway: 10.23.0.1\n    ovn.kubernetes.io/gateway_nat: \"false\"\n";

fn run(stage: &Stage<'_>) -> Result<()> {
    let server = stage.outside_server()?;
    stage.apply(NAMESPACES)?;
    for (index, node) in stage.lab.nodes.iter().take(2).enumerate() {
        let pod = stage.busybox("out-nat", &format!("pod-{index}"), node)?;
        stage.pings(&pod, FAR.into())?;
        let seen = stage.fetches(&pod, &format!("http://{server}/clientip"))?;
        ensure!(
            seen.starts_with(&format!("{}:", node.name)),
            "the host outside sees {seen}; the pod's node is {}",
            node.name
        );
        if stage.lab.spec.dual_stack {
            stage.pings(&pod, FAR6.into())?;
            let seen = stage.fetches(&pod, &format!("http://[{FAR6}]:8080/clientip"))?;
            ensure!(
                seen.starts_with(&format!("[{}]:", node.address6())),
                "the host outside sees {seen}; the pod's node is {}",
                node.address6()
            );
        }
    }
    let node = stage.node(stage.lab.nodes.len() - 1)?;
    let pod = stage.busybox("out-plain", "pod", node)?;
    // Without NAT the outside must know the way back; here it learns it by a static route.
    stage.outside_sh(&format!("ip route replace 10.23.0.0/24 via {}", node.name))?;
    let told = stage
        .fetches(&pod, &format!("http://{server}/clientip"))
        .and_then(|seen| {
            let own = pod.address()?;
            ensure!(seen.starts_with(&format!("{own}:")), "the host outside sees {seen} instead of {own}");
            // And the other way round: the outside reaches the pod.
            stage.outside_sh(&format!("ping -q -c 3 -i 0.2 -W 2 {own}")).map(drop)
        });
    stage.outside_sh("ip route del 10.23.0.0/24")?;
    told
}
