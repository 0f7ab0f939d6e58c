//! What a lab is: its networks, its options, its nodes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use net::Cidr;
use serde::{Deserialize, Serialize};

use crate::process;

/// The gateway of the nodes and the host "outside" (namespace `ext`).
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// An address behind that host, which no node has a connected route to (TEST-NET-2, RFC 5737).
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The same for IPv6 (documentation prefix, RFC 3849).
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The address of the outside host in the nodes' IPv6 network.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x192, 0x168, 1, 0, 0, 0, 1);
/// Where the image registry listens.
pub const REGISTRY: &str = "192.168.1.1:5000";
/// Cluster DNS.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 68, 0, 10);
/// Cluster DNS of a dual-stack lab.
pub const DNS6: &str = "fd00:10:68::a";
/// Service addresses.
pub const SERVICES: &str = "10.68.0.0/16";
/// Service addresses of the second family.
pub const SERVICES6: &str = "fd00:10:68::/112";
/// Pod addresses (the default subnet).
pub const PODS: &str = "10.16.0.0/16";
/// Pod addresses of the second family.
pub const PODS6: &str = "fd00:10:16::/112";
/// Namespace of the fabric's own components and of their lease.
pub const NAMESPACE: &str = "kube-ovn";

/// What [`Spec::options`] calls a lab that was made without options.
const PLAIN: &str = "no options";

/// Which plugin gives pods their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cni {
    /// Kube-OVN: this project.
    KubeOvn,
    /// The plain bridge plugin with host routes: a baseline to compare with. No OVN runs.
    Bridge,
}

/// What a lab was asked to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// IPv4 and IPv6 for nodes, pods and services.
    pub dual_stack: bool,
    /// OVN databases as a RAFT cluster on the first three nodes.
    pub ovn_ha: bool,
    /// OVS and OVN of another version: a folder with `bin` (see `tools/ovn-prefix`).
    pub ovn_prefix: Option<PathBuf>,
    /// Folder with etcd, kube-apiserver, ... kubectl.
    pub kubernetes: PathBuf,
    /// IPv4 addresses of the default subnet, if not [`PODS`].
    #[serde(default)]
    pub pods: Option<Cidr>,
    /// Run kube-proxy on every node.
    pub kube_proxy: bool,
    /// Run CoreDNS.
    pub dns: bool,
    /// The network plugin.
    pub cni: Cni,
}

impl Spec {
    /// Whether `up` made it without options.
    pub fn is_plain(&self) -> bool {
        self.options() == PLAIN
    }

    /// The options of `up` that make such a lab.
    pub fn options(&self) -> String {
        let mut words = Vec::new();
        for (set, option) in [
            (self.dual_stack, "--dual-stack"),
            (self.ovn_ha, "--ovn-ha"),
            (!self.kube_proxy, "--no-kube-proxy"),
            (!self.dns, "--no-dns"),
            (self.cni == Cni::Bridge, "--cni bridge"),
        ] {
            if set {
                words.push(option.to_owned());
            }
        }
        if let Some(prefix) = &self.ovn_prefix {
            words.push(format!("--ovn-prefix {}", prefix.display()));
        }
        if let Some(pods) = &self.pods {
            words.push(format!("--pod-cidr {pods}"));
        }
        if words.is_empty() {
            PLAIN.to_owned()
        } else {
            words.join(" ")
        }
    }

    /// One text for a lab of one family, both joined by a comma for a lab of two.
    pub fn families(&self, v4: &str, v6: &str) -> String {
        if self.dual_stack {
            format!("{v4},{v6}")
        } else {
            v4.to_owned()
        }
    }

    /// Addresses of the services.
    pub fn services(&self) -> String {
        self.families(SERVICES, SERVICES6)
    }

    /// Addresses of the default subnet.
    pub fn pods(&self) -> String {
        let own = self.pods.map(|cidr| cidr.to_string());
        self.families(own.as_deref().unwrap_or(PODS), PODS6)
    }

    /// What the default subnet does not hand out by itself. Kube-OVN's first releases left ten addresses out, so that
    /// the first pod of a walk-through has .11; another subnet keeps what the controller does by itself.
    pub fn excluded(&self) -> Option<String> {
        self.pods
            .is_none()
            .then(|| self.families("10.16.0.0..10.16.0.10", "fd00:10:16::1..fd00:10:16::a"))
    }
}

/// One node. All its values follow from its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// 1, 2, 3, ...
    pub number: u8,
    /// Its Kubernetes name, which is its address (192.168.1.41 is number 1).
    pub name: String,
    /// The system-id of its Open vSwitch; a reinstalled node gets another one.
    pub system_id: String,
}

impl Node {
    /// The highest number: 192.168.1.254.
    pub const MOST: u8 = 214;

    /// Node number `number` as it is after its `generation`-th installation.
    pub fn new(number: u8, generation: u32) -> Self {
        let name = Ipv4Addr::new(192, 168, 1, 40 + number).to_string();
        let digest = process::fingerprint(&format!("{name} {generation}"), &[], None);
        Self {
            number,
            system_id: format!(
                "{}-{}-4{}-8{}-{:012x}",
                &digest[..8],
                &digest[8..12],
                &digest[12..15],
                &digest[1..4],
                number
            ),
            name,
        }
    }

    /// Address in the management network 192.168.1.0/24.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 1, 40 + self.number)
    }

    /// The same in the dual-stack lab's fd00:192:168:1::/64; written so that it reads like the first one.
    pub fn address6(&self) -> Ipv6Addr {
        let host = u16::from_str_radix(&(40 + u16::from(self.number)).to_string(), 16).unwrap_or(0);
        Ipv6Addr::new(0xfd00, 0x192, 0x168, 1, 0, 0, 0, host)
    }

    /// Address on `br-phy`, where the tunnels end: 192.168.2.0/24.
    pub fn tunnel(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 2, 40 + self.number)
    }

    /// A short name for links and cgroups.
    pub fn short(&self) -> String {
        format!("n{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_as_they_were_given() {
        let mut spec = Spec {
            dual_stack: false,
            ovn_ha: false,
            ovn_prefix: None,
            kubernetes: "/x".into(),
            pods: None,
            kube_proxy: true,
            dns: true,
            cni: Cni::KubeOvn,
        };
        assert_eq!(spec.options(), "no options");
        spec.dual_stack = true;
        spec.dns = false;
        spec.pods = "10.20.0.0/16".parse().ok();
        assert_eq!(
            spec.options(),
            "--dual-stack --no-dns --pod-cidr 10.20.0.0/16"
        );
    }

    #[test]
    fn nodes_are_named_by_their_addresses() {
        let names: Vec<_> = (1..=3).map(|n| Node::new(n, 0).name).collect();
        assert_eq!(names, ["192.168.1.41", "192.168.1.42", "192.168.1.43"]);
        assert_eq!(Node::new(3, 0).address6().to_string(), "fd00:192:168:1::43");
    }

    #[test]
    fn a_reinstalled_node_has_another_system_id() {
        let (first, second) = (Node::new(2, 0), Node::new(2, 1));
        assert_eq!(first.name, second.name);
        assert_ne!(first.system_id, second.system_id);
        assert_eq!(first.system_id.len(), 36);
    }
}
