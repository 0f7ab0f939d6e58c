//! Which interface carries the tunnels, and how large a pod's packets may be.

use net::Family;
use smol_str::SmolStr;

use super::{LinkState, NodeConfig, NodeFacts};
use crate::addr::IfAddr;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Encapsulation between nodes (`--network-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkType {
    #[default]
    Geneve,
    Vxlan,
    Stt,
    /// Underlay by default; what overlay subnets there are still use Geneve.
    Vlan,
}

impl NetworkType {
    /// The value of `ovn-encap-type`.
    pub fn encap_type(self) -> &'static str {
        match self {
            Self::Geneve | Self::Vlan => "geneve",
            Self::Vxlan => "vxlan",
            Self::Stt => "stt",
        }
    }

    /// What upstream takes off the tunnel interface's MTU. Geneve with OVN's option needs 58 bytes over IPv4; the
    /// rest is room for IPsec and options.
    pub fn overhead(self) -> u32 {
        match self {
            Self::Geneve | Self::Vlan => 100,
            Self::Vxlan => 50,
            Self::Stt => 72,
        }
    }
}

impl FromStr for NetworkType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "geneve" => Ok(Self::Geneve),
            "vxlan" => Ok(Self::Vxlan),
            "stt" => Ok(Self::Stt),
            "vlan" => Ok(Self::Vlan),
            _ => Err(format!(
                "unknown network type {text:?}: use geneve, vxlan, stt or vlan"
            )),
        }
    }
}

/// The interface that carries the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelNic {
    pub name: SmolStr,
    pub ip: IpAddr,
    pub mtu: u32,
}

/// How the tunnel interface is to be found, in the order of precedence of upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelChoice {
    /// Exact name, or a comma list of patterns. Of its addresses those in `prefer` (the Node's InternalIPs) come first:
    /// the tunnel's address then does not move when the interface gets one more.
    Named {
        pattern: SmolStr,
        because: String,
        prefer: Vec<IpAddr>,
    },
    /// Whoever holds one of these addresses (the Node's InternalIPs, IPv4 first).
    HolderOf(Vec<IpAddr>),
}

impl TunnelChoice {
    pub fn of(node: &NodeFacts, config: &NodeConfig) -> Self {
        let own: Vec<IpAddr> = node.internal_ips.iter().copied().collect();
        let named = |pattern: &SmolStr, because: String| Self::Named {
            pattern: pattern.clone(),
            because,
            prefer: own.clone(),
        };
        if node.userspace_datapath {
            return named(
                &config.dpdk_tunnel_iface,
                "--dpdk-tunnel-iface, as the Node has the label ovn.kubernetes.io/ovs_dp_type=userspace".into(),
            );
        }
        if let Some(pattern) = &node.tunnel_interface {
            return named(
                pattern,
                "the Node's annotation ovn.kubernetes.io/tunnel_interface".into(),
            );
        }
        if let Some(pattern) = &config.iface {
            return named(pattern, "--iface".into());
        }
        // POD_IP is as old as this process. It says which family comes first, but not against the Node object, which
        // follows when the node gets another address.
        let pod_ip = config
            .pod_ip
            .filter(|ip| own.is_empty() || own.contains(ip));
        let others = own.iter().copied().filter(|ip| Some(*ip) != pod_ip);
        Self::HolderOf(pod_ip.into_iter().chain(others).collect())
    }
}

/// Why there is no tunnel interface (yet). The daemon waits and reports this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelError {
    NoInterface(TunnelChoice),
    NoAddress { interface: SmolStr },
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface(TunnelChoice::Named {
                pattern, because, ..
            }) => {
                write!(
                    f,
                    "a network interface {pattern:?} for the tunnels ({because})"
                )
            }
            Self::NoInterface(TunnelChoice::HolderOf(ips)) if ips.is_empty() => {
                f.write_str("an InternalIP of the Node, to find the interface for the tunnels")
            }
            Self::NoInterface(TunnelChoice::HolderOf(ips)) => {
                f.write_str("a network interface that holds the Node's address ")?;
                for (i, ip) in ips.iter().enumerate() {
                    write!(f, "{}{ip}", if i == 0 { "" } else { " or " })?;
                }
                Ok(())
            }
            Self::NoAddress { interface } => write!(
                f,
                "an address on the tunnel interface {interface} (not link-local, and not a host address unless --host-tunnel-src)"
            ),
        }
    }
}

/// Finds the tunnel interface among the node's links.
pub fn choose_tunnel(
    choice: &TunnelChoice,
    links: &BTreeMap<SmolStr, LinkState>,
    host_tunnel_src: bool,
) -> Result<TunnelNic, TunnelError> {
    let usable = |a: &&IfAddr| {
        !a.is_link_local() && !a.ip.is_loopback() && (host_tunnel_src || !a.is_host_length())
    };
    match choice {
        TunnelChoice::Named {
            pattern, prefer, ..
        } => {
            let (name, link) = links
                .get_key_value(pattern.as_str())
                .or_else(|| links.iter().find(|(name, _)| matches_any(pattern, name)))
                .ok_or_else(|| TunnelError::NoInterface(choice.clone()))?;
            let preferred = prefer
                .iter()
                .find_map(|ip| link.addresses.iter().find(|a| a.ip == *ip && usable(a)));
            // IPv4 sorts before IPv6, which is the preference as well.
            let lasting = || {
                let lasts = |a: &&IfAddr| usable(a) && !link.passing.contains(&a.ip);
                link.addresses.iter().find(lasts)
            };
            let any = || link.addresses.iter().find(usable);
            match preferred.or_else(lasting).or_else(any) {
                Some(address) => Ok(TunnelNic {
                    name: name.clone(),
                    ip: address.ip,
                    mtu: link.mtu,
                }),
                None => Err(TunnelError::NoAddress {
                    interface: name.clone(),
                }),
            }
        }
        TunnelChoice::HolderOf(ips) => ips
            .iter()
            .find_map(|ip| {
                links.iter().find_map(|(name, link)| {
                    link.addresses
                        .iter()
                        .find(|a| a.ip == *ip && !a.ip.is_loopback())
                        .map(|a| TunnelNic {
                            name: name.clone(),
                            ip: a.ip,
                            mtu: link.mtu,
                        })
                })
            })
            .ok_or_else(|| TunnelError::NoInterface(choice.clone())),
    }
}

/// A comma list of patterns: `*` stands for any text, and as upstream's patterns are regular expressions in
/// practice used as `eth.*` or `^bond`, those two forms are understood as well; a plain text matches anywhere.
fn matches_any(patterns: &str, name: &str) -> bool {
    patterns.split(',').map(str::trim).any(|pattern| {
        let (anchored_start, pattern) = match pattern.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let (anchored_end, pattern) = match pattern.strip_suffix('$') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let pattern = pattern.replace(".*", "*").replace(".+", "*");
        if pattern.is_empty() {
            return false;
        }
        let pieces: Vec<&str> = pattern.split('*').collect();
        glob(&pieces, name, anchored_start, anchored_end)
    })
}

fn glob(pieces: &[&str], name: &str, anchored_start: bool, anchored_end: bool) -> bool {
    let mut rest = name;
    for (i, piece) in pieces.iter().enumerate() {
        let last = i + 1 == pieces.len();
        if i == 0 && anchored_start {
            let Some(r) = rest.strip_prefix(piece) else {
                return false;
            };
            rest = r;
        } else if last && anchored_end {
            return rest.ends_with(piece);
        } else {
            let Some(at) = rest.find(piece) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        if last && anchored_end && !rest.is_empty() {
            return false;
        }
    }
    true
}

/// The MTU of pods: `--mtu` when given, else the tunnel interface's less the encapsulation; an IPv6 header of the
/// outer packet costs 20 bytes more.
pub fn pod_mtu(config: &NodeConfig, tunnel: &TunnelNic) -> u32 {
    if config.mtu > 0 {
        return config.mtu;
    }
    let v6 = match crate::addr::family_of(tunnel.ip) {
        Family::V4 => 0,
        Family::V6 => 20,
    };
    tunnel
        .mtu
        .saturating_sub(config.network_type.overhead() + v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::DualStack;
    use std::collections::BTreeSet;

    #[test]
    fn patterns() {
        assert!(matches_any("eth0", "eth0"));
        assert!(matches_any("bond.*, eth.*", "eth3"));
        assert!(matches_any("^ens", "ens5"));
        assert!(!matches_any("^ens", "xens5"));
        assert!(matches_any("^en.*1$", "enp0s1"));
        assert!(!matches_any("^en.*1$", "enp0s2"));
        assert!(!matches_any("", "eth0"));
    }

    #[test]
    fn a_named_interface_keeps_its_tunnel_address() {
        let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut eth0 = LinkState {
            mac: None,
            mtu: 1500,
            tx_queue_len: 1000,
            up: true,
            addresses: ["192.168.1.41/24".parse().unwrap()].into(),
            passing: BTreeSet::new(),
        };
        let chosen = |link: &LinkState, prefer: &[&str]| {
            let choice = TunnelChoice::Named {
                pattern: "eth0".into(),
                because: String::new(),
                prefer: ips(prefer),
            };
            let links = [("eth0".into(), link.clone())].into();
            choose_tunnel(&choice, &links, false)
                .unwrap()
                .ip
                .to_string()
        };
        assert_eq!(chosen(&eth0, &[]), "192.168.1.41");
        // Others that sort before it come: one that the Node does not name, one that is here for a while.
        eth0.addresses.insert("10.0.0.5/24".parse().unwrap());
        assert_eq!(chosen(&eth0, &["192.168.1.41"]), "192.168.1.41");
        eth0.passing.insert("10.0.0.5".parse().unwrap());
        assert_eq!(chosen(&eth0, &[]), "192.168.1.41");
        // The Node's own address is gone from the interface.
        eth0.addresses.pop_last();
        assert_eq!(chosen(&eth0, &["192.168.1.41"]), "10.0.0.5");
    }

    #[test]
    fn the_node_object_outlives_pod_ip() {
        let v4: IpAddr = "192.168.1.41".parse().unwrap();
        let v6: IpAddr = "fd00::41".parse().unwrap();
        let old: IpAddr = "192.168.1.7".parse().unwrap();
        let choice = |pod_ip, node: &[IpAddr]| {
            let config = NodeConfig {
                pod_ip: Some(pod_ip),
                ..NodeConfig::default()
            };
            let node = NodeFacts {
                name: "n1".into(),
                internal_ips: DualStack::from_values(node.iter().copied()).unwrap(),
                userspace_datapath: false,
                tunnel_interface: None,
                join: Err(String::new()),
            };
            TunnelChoice::of(&node, &config)
        };
        let holder = |ips: &[IpAddr]| TunnelChoice::HolderOf(ips.to_vec());
        assert_eq!(
            choice(v6, &[v4, v6]),
            holder(&[v6, v4]),
            "it says which family"
        );
        assert_eq!(choice(old, &[v4]), holder(&[v4]), "the node was renumbered");
        assert_eq!(
            choice(old, &[]),
            holder(&[old]),
            "the Node has no address yet"
        );
    }

    #[test]
    fn mtu_is_the_tunnels_less_the_encapsulation() {
        let config = NodeConfig::default();
        let nic = |ip: &str, mtu| TunnelNic {
            name: "br-phy".into(),
            ip: ip.parse().unwrap(),
            mtu,
        };
        assert_eq!(pod_mtu(&config, &nic("10.0.0.1", 1500)), 1400);
        assert_eq!(pod_mtu(&config, &nic("fd00::1", 9000)), 8880);
        let fixed = NodeConfig {
            mtu: 1280,
            ..NodeConfig::default()
        };
        assert_eq!(pod_mtu(&fixed, &nic("10.0.0.1", 1500)), 1280);
    }
}
