//! Our one nftables table, as text for `nft -f -`.
//!
//! The table is written whole, in one transaction of the kernel, so no packet ever sees half a rule set. Translations that
//! are in use live in conntrack and survive it.
//!
//! Semantics follow upstream's iptables chains (`OVN-PREROUTING`, `OVN-POSTROUTING`, `OVN-MASQUERADE`) as far as
//! `natOutgoing` and a kube-proxy in iptables or nftables mode need them:
//!
//! * pod to pod traffic passes OVN and is never seen here, **except** when the node translated its destination (a
//!   Service through kube-proxy): then the answer must come back through this node, so the source becomes ours;
//! * pod to Service traffic is marked with kube-proxy's own mark on its way in, whatever the endpoint is, for the
//!   same reason (it matters where `natOutgoing` is off);
//! * what another **node** sends to a port of this one that is translated to a pod (`hostPort`, a NodePort of
//!   `externalTrafficPolicy: Local`) gets our source too: OVN would bring the answer to that node's own `ovn0`, past the
//!   translation here. Senders from outside the cluster keep their address: the answer to them leaves by this node;
//! * pods of a subnet with `natOutgoing` get the node's address when they leave the fabric;
//! * nodes reach pods, and pods reach nodes, untranslated: OVN routes them through the node's own `ovn0`.
//!
//! Only the first packet of a connection passes a `nat` chain, and only the first chain that decides counts, so a
//! kube-proxy that masquerades the same packet a little later does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use net::{Cidr, DualStack, Family};

use super::JOIN_INTERFACE;

/// Name of the table, family `inet`.
pub const TABLE: &str = "kube_ovn";
/// The packet mark by which kube-proxy asks for masquerade (its `--masquerade-bit` default, 14).
pub const MASQUERADE_MARK: u32 = 0x4000;
/// Comment of our accept rule in a host chain that drops: packets from pods.
pub const ACCEPT_FROM_PODS: &str = "kube-ovn: from pods";
/// Comment of our accept rule in a host's forward chain that drops: packets to pods.
pub const ACCEPT_TO_PODS: &str = "kube-ovn: to pods";

/// What the table depends on. Sets are ordered, so equal inputs give equal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftInputs {
    pub node_ips: DualStack<IpAddr>,
    /// Addresses of the other nodes.
    pub other_nodes: BTreeSet<IpAddr>,
    /// Service CIDRs.
    pub services: BTreeSet<Cidr>,
    /// All CIDRs of the fabric behind the nodes, the join subnet included.
    pub subnets: BTreeSet<Cidr>,
    /// Those with `natOutgoing`.
    pub nat: BTreeSet<Cidr>,
    /// CIDRs that leave through this node with an address of their own.
    pub egress: BTreeMap<Cidr, IpAddr>,
}

impl Default for NftInputs {
    fn default() -> Self {
        Self {
            node_ips: DualStack { v4: None, v6: None },
            other_nodes: BTreeSet::new(),
            services: BTreeSet::new(),
            subnets: BTreeSet::new(),
            nat: BTreeSet::new(),
            egress: BTreeMap::new(),
        }
    }
}

/// Renders the table, as a definition that takes the place of what there was.
pub fn render(inputs: &NftInputs) -> String {
    let mut text = String::new();
    let families: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| inputs.subnets.iter().any(|cidr| cidr.family() == *family))
        .collect();
    let mark = MASQUERADE_MARK;
    let keep = !MASQUERADE_MARK;
    // `writeln!` into a String cannot fail; the macro keeps the lines below readable.
    macro_rules! line {
        ($($arg:tt)*) => {{ let _ = writeln!(text, $($arg)*); }};
    }
    line!("table inet {TABLE} {{");
    for family in &families {
        for (name, members) in [
            ("services", &inputs.services),
            ("subnets", &inputs.subnets),
            ("nat", &inputs.nat),
        ] {
            let members = disjoint(members.iter().filter(|c| c.family() == *family));
            set(&mut text, *family, name, "interval", &members);
        }
        let nodes: Vec<Cidr> = inputs
            .other_nodes
            .iter()
            .map(|ip| Cidr::host(*ip))
            .filter(|c| c.family() == *family)
            .collect();
        set(&mut text, *family, "nodes", "", &nodes);
    }
    line!("\tchain prerouting {{");
    line!("\t\ttype nat hook prerouting priority dstnat - 5; policy accept;");
    for family in &families {
        let (ip, n) = names(*family);
        line!(
            "\t\tiifname \"{JOIN_INTERFACE}\" {ip} saddr @subnets{n} {ip} daddr @services{n} meta mark set meta mark | {mark:#x} comment \"pod to service\""
        );
    }
    line!("\t}}");
    line!("\tchain postrouting {{");
    line!("\t\ttype nat hook postrouting priority srcnat - 5; policy accept;");
    for family in &families {
        let (ip, n) = names(*family);
        if let Some(node_ip) = inputs.node_ips.get(*family) {
            line!(
                "\t\tmeta mark & {mark:#x} == {mark:#x} {ip} saddr @services{n} {ip} daddr @subnets{n} meta mark set meta mark & {keep:#x} snat {ip} to {node_ip} comment \"service address of this node to pod\""
            );
        }
    }
    line!(
        "\t\tmeta mark & {mark:#x} == {mark:#x} goto own_address comment \"as kube-proxy asked\""
    );
    for family in &families {
        let (ip, n) = names(*family);
        line!(
            "\t\t{ip} saddr @subnets{n} {ip} daddr @subnets{n} goto own_address comment \"service traffic between pods\""
        );
    }
    for family in &families {
        let (ip, n) = names(*family);
        line!(
            "\t\t{ip} saddr @nodes{n} {ip} daddr @subnets{n} ct status dnat goto own_address comment \"another node to a port of this one\""
        );
    }
    line!("\t\ttcp flags & syn == 0 ct state new return comment \"not the start of a connection\"");
    for (cidr, ip_addr) in &inputs.egress {
        let (ip, n) = names(cidr.family());
        line!(
            "\t\t{ip} saddr {cidr} {ip} daddr != @subnets{n} snat {ip} to {ip_addr} comment \"egress address of a centralized subnet\""
        );
    }
    for family in &families {
        let (ip, n) = names(*family);
        line!(
            "\t\t{ip} saddr @nat{n} {ip} daddr != @subnets{n} goto own_address comment \"natOutgoing\""
        );
    }
    line!("\t}}");
    line!("\tchain own_address {{");
    // A mark that stays would be copied to the tunnel packet, and kube-proxy would masquerade that one as well.
    line!("\t\tmeta mark set meta mark & {keep:#x}");
    line!("\t\tmasquerade fully-random");
    line!("\t}}");
    line!("\tchain tunnels {{");
    line!("\t\ttype filter hook output priority mangle; policy accept;");
    line!(
        "\t\tudp dport {{ 4789, 6081 }} meta mark set 0x0 comment \"VXLAN and Geneve: no mark of the packet within\""
    );
    line!("\t}}");
    line!("\tchain orphans {{");
    line!("\t\ttype filter hook postrouting priority mangle; policy accept;");
    for family in &families {
        let (ip, n) = names(*family);
        line!(
            "\t\t{ip} saddr @subnets{n} tcp flags & rst == rst ct state invalid drop comment \"a reset that cannot be translated\""
        );
    }
    line!("\t}}");
    line!("}}");
    text
}

/// The nftables keyword of a family and the suffix of our sets.
fn names(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("ip", "4"),
        Family::V6 => ("ip6", "6"),
    }
}

fn set(text: &mut String, family: Family, name: &str, flags: &str, members: &[Cidr]) {
    let (kind, n) = match family {
        Family::V4 => ("ipv4_addr", "4"),
        Family::V6 => ("ipv6_addr", "6"),
    };
    let flags = match flags {
        "" => String::new(),
        flags => format!(" flags {flags};"),
    };
    let _ = writeln!(text, "\tset {name}{n} {{");
    let _ = writeln!(text, "\t\ttype {kind};{flags}");
    if !members.is_empty() {
        let elements: Vec<String> = members
            .iter()
            .map(|member| match flags.as_str() {
                "" => member.network().to_string(),
                _ => member.to_string(),
            })
            .collect();
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    let _ = writeln!(text, "\t}}");
}

/// An interval set refuses members that overlap; of nested prefixes the outer one says it all.
fn disjoint<'a>(cidrs: impl Iterator<Item = &'a Cidr>) -> Vec<Cidr> {
    let mut out: Vec<Cidr> = Vec::new();
    let mut sorted: Vec<Cidr> = cidrs.copied().collect();
    sorted.sort_by_key(|cidr| cidr.prefix_len());
    for cidr in sorted {
        if !out.iter().any(|kept| kept.contains(cidr.network())) {
            out.push(cidr);
        }
    }
    out.sort();
    out
}
