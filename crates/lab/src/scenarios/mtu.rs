//! A packet of exactly the MTU passes with DF set; a larger one is refused with a word, never swallowed.

use anyhow::{Context as _, Result, ensure};

use crate::command::output;
use crate::lab::Place;
use crate::network::EXT;
use crate::scenario::{Pod, Scenario, Stage, two_nodes};

pub const SCENARIO: Scenario = Scenario {
    name: "mtu",
    about: "a packet of exactly the MTU passes with DF, a larger one gets EMSGSIZE inside and a word of its node from outside, both families",
    unfit: two_nodes,
    run,
};

fn namespace(dual_stack: bool) -> String {
    let (cidr, gateway) = if dual_stack {
        ("10.24.0.0/24,fd00:10:24::/112", "10.24.0.1,fd00:10:24::1")
    } else {
        ("10.24.0.0/24", "10.24.0.1")
    };
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: mtu\n  annotations:\n    \
         ovn.kubernetes.io/logical_switch: mtu\n    ovn.kubernetes.io/cidr: \"{cidr}\"\n    \
         ovn.kubernetes.io/gateway: \"{gateway}\"\n    ovn.kubernetes.io/gateway_nat: \"false\"\n"
    )
}

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.apply(&namespace(stage.lab.spec.dual_stack))?;
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let client = stage.busybox("mtu", "client", first)?;
    let across = stage.busybox("mtu", "across", second)?;
    let mtu = mtu_of(stage, &client)?;
    stage.note(format!("MTU of pods: {mtu}"));
    for address in &across.addresses {
        // IP header (20 or 40 bytes) and ICMP header (8 bytes) are part of the packet.
        let payload = mtu - if address.is_ipv4() { 28 } else { 48 };
        stage
            .sh(&client, &format!("ping -q -M do -c 2 -i 0.2 -W 2 -s {payload} {address}"))
            .with_context(|| format!("a packet of {mtu} bytes does not pass to {address}"))?;
        let too_long = output(stage.in_pod(&client, "ping")?.args([
            "-M",
            "do",
            "-c",
            "1",
            "-W",
            "2",
            "-s",
            &(payload + 1).to_string(),
            &address.to_string(),
        ]))?;
        let words = String::from_utf8_lossy(&too_long.stderr).to_lowercase();
        ensure!(
            !too_long.status.success() && words.contains("message too long"),
            "a packet of {} bytes to {address}: ping said {words:?} instead of \"message too long\"",
            mtu + 1
        );
    }
    from_outside(stage, &across, mtu)
}

/// The host outside sends 1500 bytes to the pod: its node must say what fits.
fn from_outside(stage: &Stage<'_>, pod: &Pod, mtu: u32) -> Result<()> {
    let node = stage.node_of(pod)?.clone();
    for address in &pod.addresses {
        let (via, whole, header) = if address.is_ipv4() {
            (node.address().to_string(), format!("{address}/32"), 28)
        } else {
            (node.address6().to_string(), format!("{address}/128"), 48)
        };
        stage.outside_sh(&format!("ip route replace {whole} via {via}"))?;
        let told = (|| {
            let small = format!("ping -q -M do -c 2 -i 0.2 -W 2 -s {} {address}", mtu - header);
            stage
                .outside_sh(&small)
                .with_context(|| format!("{mtu} bytes from outside do not pass to {address}"))?;
            let large = output(stage.lab.command(Place::Net(EXT), "ping")?.args([
                "-M",
                "do",
                "-c",
                "2",
                "-i",
                "0.3",
                "-W",
                "2",
                "-s",
                &(1500 - header).to_string(),
                &address.to_string(),
            ]))?;
            let words = format!(
                "{}{}",
                String::from_utf8_lossy(&large.stdout),
                String::from_utf8_lossy(&large.stderr)
            );
            ensure!(
                words.contains(&format!("mtu = {mtu}")) || words.contains(&format!("mtu={mtu}")),
                "nobody told the host outside that {mtu} bytes fit to {address}: {words}"
            );
            Ok(())
        })();
        stage.outside_sh(&format!("ip route del {whole}; ip route flush cache"))?;
        told?;
    }
    Ok(())
}

fn mtu_of(stage: &Stage<'_>, pod: &Pod) -> Result<u32> {
    let text = stage.sh(pod, "ip -o link show eth0")?;
    text.split_once(" mtu ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .with_context(|| format!("no MTU in {text:?}"))
}
