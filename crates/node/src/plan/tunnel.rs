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
    /// Exact name, or a comma list of patterns.
    Named { pattern: SmolStr, because: String },
    /// Whoever holds one of these addresses (the Node's InternalIPs, IPv4 first).
    HolderOf(Vec<IpAddr>),
}

impl TunnelChoice {
    pub fn of(node: &NodeFacts, config: &NodeConfig) -> Self {
        let named = |pattern: &SmolStr, because: String| Self::Named {
            pattern: pattern.clone(),
            because,
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
        let mut ips: Vec<IpAddr> = config.pod_ip.into_iter().collect();
        ips.extend(node.internal_ips.iter().copied());
        Self::HolderOf(ips)
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
            Self::NoInterface(TunnelChoice::Named { pattern, because }) => {
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
        TunnelChoice::Named { pattern, .. } => {
            let (name, link) = links
                .get_key_value(pattern.as_str())
                .or_else(|| links.iter().find(|(name, _)| matches_any(pattern, name)))
                .ok_or_else(|| TunnelError::NoInterface(choice.clone()))?;
            // IPv4 sorts before IPv6, which is the preference as well.
            let address = link.addresses.iter().find(usable);
            match address {
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
