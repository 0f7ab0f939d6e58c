//! A node gets another address, as a machine that was renumbered by DHCP: everything that knew the old one follows.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::kubernetes;
use crate::lab::Node;
use crate::network::{self, Addresses};
use crate::ovn;
use crate::scenario::{Pod, Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "node-renumbered",
    about: "a node gets another address: tunnels, policies and routes follow, its pods talk, the others talk on",
    unfit: |lab| (lab.nodes.len() < 3).then_some("needs three nodes"),
    run,
};

/// How long everything may take to follow. Kubernetes alone needs up to ten seconds to tell the new address, and our
/// programs on the node up to twenty to notice that their connections to the API server, from the old one, are dead.
const LIMIT: Duration = Duration::from_secs(45);

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    stage.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: renumbered}\n")?;
    let first = stage.server("renumbered", "first", stage.node(0)?)?;
    let second = stage.server("renumbered", "second", stage.node(1)?)?;
    let node = stage.node(stage.lab.nodes.len() - 1)?;
    let on_it = stage.server("renumbered", "on-it", node)?;
    stage.pings(&first, on_it.address()?)?;
    let old = Addresses::of(node);
    let new = Addresses {
        v4: moved(old.v4),
        v6: format!("{:x}:{:x}:{:x}:{:x}::1{}", 0xfd00, 0x192, 0x168, 1, old.v4.octets()[3]).parse()?,
        tunnel: moved(old.tunnel),
    };
    let told = stage.pings_during(&first, second.address()?, || {
        let there = become_another(stage, node, old, new, &[&first, &second], &on_it);
        // Back, whatever happened, and with the same care.
        let back = become_another(stage, node, new, old, &[&first, &second], &on_it);
        there.and(back)
    });
    let ((), pings) = told?;
    pings.without_outage("between the other nodes")?;
    stage.note(format!("between the other nodes: {}", pings.told()));
    Ok(())
}

/// 192.168.1.43 becomes 192.168.1.143.
fn moved(address: std::net::Ipv4Addr) -> std::net::Ipv4Addr {
    let [a, b, c, d] = address.octets();
    [a, b, c, d.wrapping_add(100)].into()
}

fn become_another(
    stage: &Stage<'_>,
    node: &Node,
    from: Addresses,
    to: Addresses,
    others: &[&Pod],
    on_it: &Pod,
) -> Result<()> {
    let start = Instant::now();
    network::renumber(stage.lab, node, from, to)?;
    let addresses = stage.lab.spec.families(&to.v4.to_string(), &to.v6.to_string());
    kubernetes::kubelet_at(stage.lab, node, &addresses)?;
    stage.eventually("Kubernetes to know the new address", LIMIT, || {
        let said = stage.get(&["node", &node.name])?["status"]["addresses"].to_string();
        ensure!(said.contains(&format!("\"{}\"", to.v4)), "addresses of the node: {said}");
        Ok(())
    })?;
    // Ours find out by themselves. kube-proxy's connection to the API server is dead without a word until it times out.
    if stage.lab.spec.kube_proxy {
        if let Some(record) = stage.lab.record("kube-proxy", Some(&node.name)) {
            record.stop(Duration::from_secs(10));
        }
        kubernetes::proxy(stage.lab, node)?;
    }
    stage.eventually("everything to follow the new address", LIMIT, || follows(stage, node, from, to))?;
    for other in others {
        for address in other.reachable(on_it) {
            stage.pings(other, address)?;
        }
        for address in on_it.reachable(other) {
            stage.pings(on_it, address)?;
        }
        // The node itself, by its new address, and back.
        stage.pings(other, to.v4.into())?;
        stage.node_pings(node, other.address()?)?;
        stage.transfers(on_it, other, 500_000)?;
    }
    for neighbour in stage.lab.nodes.iter().filter(|n| n.number != node.number) {
        stage.node_pings(neighbour, on_it.address()?)?;
    }
    stage.note(format!("{} became {} in {:.1} s", from.v4, to.v4, start.elapsed().as_secs_f64()));
    Ok(())
}

/// Nobody knows the old addresses any more, everybody the new ones.
fn follows(stage: &Stage<'_>, node: &Node, from: Addresses, to: Addresses) -> Result<()> {
    let encap = ovn::ctl(stage.lab, "sb", &["--bare", "--columns=ip", "find", "Encap", &format!("chassis_name={}", node.system_id)])?;
    ensure!(encap.trim() == to.tunnel.to_string(), "the chassis of {} is at {:?} instead of {}", node.name, encap.trim(), to.tunnel);
    let mut olds = vec![from.v4.to_string(), from.tunnel.to_string()];
    let mut policies = vec![format!("ip4.dst == {}", to.v4)];
    if stage.lab.spec.dual_stack {
        olds.push(from.v6.to_string());
        policies.push(format!("ip6.dst == {}", to.v6));
    }
    let matches = ovn::ctl(stage.lab, "nb", &["--bare", "--columns=match", "find", "Logical_Router_Policy", "priority=30000"])?;
    for policy in &policies {
        ensure!(matches.lines().any(|line| line == policy), "no policy `{policy}`; there are {matches:?}");
    }
    // Where an address stands by itself: the node's name, which may look like one, is part of other words.
    let told: [(&str, String); 3] = [
        ("the policies of the router", matches),
        ("the address sets", ovn::ctl(stage.lab, "nb", &["--bare", "--columns=addresses", "list", "Address_Set"])?),
        ("the encapsulations", ovn::ctl(stage.lab, "sb", &["--bare", "--columns=ip", "list", "Encap"])?),
    ];
    for (whose, text) in &told {
        no_trace(whose, text, &olds)?;
    }
    for other in &stage.lab.nodes {
        let tunnels = ovn::vsctl(stage.lab, &other.name, &["--bare", "--columns=options", "find", "Interface", "type=geneve"])?;
        no_trace(&format!("the tunnels of {}", other.name), &tunnels.replace(['"', '=', ','], " "), &olds)?;
        if other.number != node.number {
            ensure!(
                tunnels.contains(&format!("remote_ip={}", to.tunnel)),
                "{} has no tunnel to {}: {tunnels:?}",
                other.name,
                to.tunnel
            );
        }
        let kernel = stage.node_sh(other, "ip route; ip -6 route; ip rule; nft list table inet kube_ovn")?;
        no_trace(&format!("routes and firewall of {}", other.name), &kernel.replace([',', '/'], " "), &olds)?;
    }
    Ok(())
}

fn no_trace(whose: &str, text: &str, olds: &[String]) -> Result<()> {
    for line in text.lines() {
        if let Some(old) = olds.iter().find(|old| line.split_ascii_whitespace().any(|word| word == old.as_str())) {
            bail!("{whose} still know {old}: {}", line.trim());
        }
    }
    Ok(())
}
