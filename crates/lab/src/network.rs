//! The wires: two bridges in the `fabric` namespace, the nodes on both, the host outside on the first.
//!
//! ```text
//!   fabric:  br-nodes 192.168.1.0/24 (management)      br-tunnel 192.168.2.0/24 (Geneve)
//!   node:    eth0 192.168.1.41                         tun0 in br-phy, 192.168.2.41 on br-phy
//!   ext:     eth0 192.168.1.1, 198.51.100.1 behind it: default gateway of the nodes, the world outside
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use crate::command::{capture, capture_with_input};
use crate::lab::{FAR, FAR6, Lab, Node, OUTSIDE, OUTSIDE6, Place};

/// Namespace with the bridges.
pub const FABRIC: &str = "fabric";
/// Namespace of the host outside.
pub const EXT: &str = "ext";

/// Make the bridges and the host outside.
pub fn base(lab: &Lab) -> Result<()> {
    if crate::holder::net(lab, FABRIC)? {
        ip(
            lab,
            Place::Net(FABRIC),
            "link set lo up\n\
             link add br-nodes type bridge\n\
             link set br-nodes up\n\
             link add br-tunnel type bridge\n\
             link set br-tunnel up\n",
        )?;
        // Bridged packets must not run through the firewall of a namespace that only plays the cable.
        sysctl(
            lab,
            Place::Net(FABRIC),
            &["net.bridge.bridge-nf-call-iptables=0"],
        )
        .ok();
        crate::holder::finished(lab, FABRIC, None)?;
    }
    if crate::holder::net(lab, EXT)? {
        wire(lab, EXT, None, "eth0", "br-nodes", "ext-eth0")?;
        let mut batch = format!(
            "link set lo up\naddr add {FAR}/32 dev lo\naddr add {OUTSIDE}/24 dev eth0\nlink set eth0 up\n"
        );
        if lab.spec.dual_stack {
            let _ = write!(
                batch,
                "addr add {FAR6}/128 dev lo\naddr add {OUTSIDE6}/64 dev eth0 nodad\n"
            );
        }
        ip(lab, Place::Net(EXT), &batch)?;
        let mut settings = vec!["net.ipv4.ip_forward=1"];
        if lab.spec.dual_stack {
            settings.push("net.ipv6.conf.all.forwarding=1");
        }
        sysctl(lab, Place::Net(EXT), &settings)?;
        crate::holder::finished(lab, EXT, None)?;
    }
    Ok(())
}

/// Make a node's namespaces and plug it in. Says whether the node is new.
pub fn node(lab: &Lab, node: &Node) -> Result<bool> {
    if !crate::holder::node(lab, node)? {
        return Ok(false);
    }
    let short = node.short();
    wire(
        lab,
        "node",
        Some(&node.name),
        "eth0",
        "br-nodes",
        &format!("{short}-eth0"),
    )?;
    wire(
        lab,
        "node",
        Some(&node.name),
        "tun0",
        "br-tunnel",
        &format!("{short}-tun0"),
    )?;
    let mut batch = format!(
        "link set lo up\n\
         addr add {}/24 dev eth0\n\
         link set eth0 up\n\
         link set tun0 up\n\
         route add default via {OUTSIDE}\n",
        node.address()
    );
    if lab.spec.dual_stack {
        let _ = write!(
            batch,
            "addr add {}/64 dev eth0 nodad\nroute add default via {OUTSIDE6}\n",
            node.address6()
        );
    }
    let place = Place::Node(&node.name);
    ip(lab, place, &batch)?;
    sysctl(lab, place, &["net.ipv4.ip_forward=1"])?;
    if lab.spec.dual_stack {
        sysctl(lab, place, &["net.ipv6.conf.all.forwarding=1"])?;
    }
    // Open vSwitch takes every frame off tun0, and so does the kernel, which would answer ARP for the address of br-phy
    // with tun0's own MAC: tunnels to this node would go astray whenever that answer is the last one to arrive.
    let quiet = [
        "net.ipv4.conf.tun0.arp_ignore=8",
        "net.ipv6.conf.tun0.disable_ipv6=1",
    ];
    sysctl(lab, place, &quiet)?;
    // The userspace datapath reads packets off the wire before any checksum offload is finished.
    capture(
        lab.command(place, "ethtool")?
            .args(["-K", "tun0", "tx", "off", "rx", "off"]),
    )?;
    crate::holder::finished(lab, "node", Some(&node.name))?;
    Ok(true)
}

/// Addresses of a node, as its network has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In the management network.
    pub v4: Ipv4Addr,
    /// In the second family of it, used by a lab of two families.
    pub v6: Ipv6Addr,
    /// Where its tunnels end.
    pub tunnel: Ipv4Addr,
}

impl Addresses {
    /// What a node has from the start.
    pub fn of(node: &Node) -> Self {
        Self {
            v4: node.address(),
            v6: node.address6(),
            tunnel: node.tunnel(),
        }
    }
}

/// Give a node other addresses, as a machine gets them from DHCP in another lease. Whoever used the old ones loses them.
pub fn renumber(lab: &Lab, node: &Node, from: Addresses, to: Addresses) -> Result<()> {
    let mut batch = format!(
        "addr del {}/24 dev eth0\naddr add {}/24 dev eth0\nroute replace default via {OUTSIDE}\n\
         addr del {}/24 dev {bridge}\naddr add {}/24 dev {bridge}\n",
        from.v4,
        to.v4,
        from.tunnel,
        to.tunnel,
        bridge = crate::ovn::TUNNEL_BRIDGE,
    );
    if lab.spec.dual_stack {
        let _ = write!(
            batch,
            "addr del {}/64 dev eth0\naddr add {}/64 dev eth0 nodad\nroute replace default via {OUTSIDE6}\n",
            from.v6, to.v6
        );
    }
    ip(lab, Place::Node(&node.name), &batch)
}

/// A veth pair from a holder's namespace to a bridge of `fabric`.
fn wire(
    lab: &Lab,
    holder: &str,
    node: Option<&str>,
    name: &str,
    bridge: &str,
    far: &str,
) -> Result<()> {
    let pid = lab
        .record(holder, node)
        .context("the namespace has no holder")?
        .pid;
    // A link with that name is a leftover of a node that went a moment ago: the kernel removes it in its own time.
    let _ = ip(lab, Place::Net(FABRIC), &format!("link del {far}\n"));
    ip(
        lab,
        Place::Net(FABRIC),
        &format!(
            "link add {far} type veth peer name {name} netns {pid}\nlink set {far} master {bridge} up\n"
        ),
    )
}

/// Run several `ip` commands in one process.
pub fn ip(lab: &Lab, place: Place<'_>, batch: &str) -> Result<()> {
    capture_with_input(lab.command(place, "ip")?.args(["-batch", "-"]), batch)
        .with_context(|| format!("ip, in one go:\n{}", batch.trim()))?;
    Ok(())
}

/// Set sysctls of a network namespace.
pub fn sysctl(lab: &Lab, place: Place<'_>, settings: &[&str]) -> Result<()> {
    capture(lab.command(place, "sysctl")?.arg("-qw").args(settings))?;
    Ok(())
}
