//! What the operator decides by flags, the same for the whole cluster.

use std::net::IpAddr;

use api::keys;
use net::{Cidr, DualStack, IpRange};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The controller's settings that have a bearing on the network. The defaults are the Go implementation's flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Identity of the cluster (the uid of the namespace `kube-system`). What must be the same in every life of the
    /// databases, and differ between clusters that share a wire, is derived from it: router ports' MACs.
    pub cluster_uid: SmolStr,
    /// The default VPC, and the name of its logical router (`--cluster-router`).
    pub cluster_router: SmolStr,
    /// The Subnet of namespaces that name none (`--default-ls` and its companions).
    pub default_subnet: DefaultSubnet,
    /// The Subnet that connects nodes and pods (`--node-switch` and its companions).
    pub join: JoinSubnet,
    /// Addresses of Services, which no pod may have (`--service-cluster-ip-range`).
    pub service_cidrs: DualStack<Cidr>,
    /// Where the controller reaches the API server (`KUBERNETES_SERVICE_HOST`); no Subnet of the default VPC may hold it.
    pub api_server: Option<IpAddr>,
    /// Whether OVN serves ClusterIPs (`--enable-lb`); the default of `spec.enableLb`.
    pub enable_lb: bool,
    /// `NB_Global` option `ls_dnat_mod_dl_dst`, known to the Go implementation's patched OVN alone; harmless elsewhere.
    pub ls_dnat_mod_dl_dst: bool,
    /// `NB_Global` option `ls_ct_skip_dst_lport_ips`, as above.
    pub ls_ct_skip_dst_lport_ips: bool,
    /// Addresses of a node-local DNS cache (`--node-local-dns-ip`); pods reach them through their own node.
    pub node_local_dns: Vec<IpAddr>,
}

/// How the default Subnet is made if there is none. One that exists is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DefaultSubnet {
    /// Name of the Subnet and its logical switch.
    pub name: SmolStr,
    /// Addresses of pods.
    pub cidrs: DualStack<Cidr>,
    /// First address of each CIDR where empty.
    pub gateways: DualStack<IpAddr>,
    /// Addresses that pods do not get by themselves; the gateway is added.
    pub exclude_ips: Vec<IpRange>,
    /// Whether pods start without having reached their gateway (`--default-gateway-check=false`).
    pub disable_gateway_check: bool,
}

/// How the join Subnet is made if there is none. One that exists is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinSubnet {
    /// Name of the Subnet and its logical switch.
    pub name: SmolStr,
    /// Addresses of the nodes' `ovn0`.
    pub cidrs: DualStack<Cidr>,
    /// First address of each CIDR where empty.
    pub gateways: DualStack<IpAddr>,
}

/// A literal of this file; they are checked by a test.
fn cidrs(v4: &str) -> DualStack<Cidr> {
    DualStack::new(v4.parse().ok(), None)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_uid: SmolStr::default(),
            cluster_router: SmolStr::new_static(keys::DEFAULT_VPC),
            default_subnet: DefaultSubnet::default(),
            join: JoinSubnet::default(),
            service_cidrs: cidrs("10.96.0.0/12"),
            api_server: None,
            enable_lb: true,
            ls_dnat_mod_dl_dst: true,
            ls_ct_skip_dst_lport_ips: true,
            node_local_dns: Vec::new(),
        }
    }
}

impl Default for DefaultSubnet {
    fn default() -> Self {
        Self {
            name: SmolStr::new_static(keys::DEFAULT_SUBNET),
            cidrs: cidrs("10.16.0.0/16"),
            gateways: DualStack::NONE,
            exclude_ips: Vec::new(),
            disable_gateway_check: false,
        }
    }
}

impl Default for JoinSubnet {
    fn default() -> Self {
        Self {
            name: SmolStr::new_static(keys::JOIN_SUBNET),
            cidrs: cidrs("100.64.0.0/16"),
            gateways: DualStack::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literals_parse() {
        let config = Config::default();
        assert_eq!(config.service_cidrs.to_string(), "10.96.0.0/12");
        assert_eq!(config.default_subnet.cidrs.to_string(), "10.16.0.0/16");
        assert_eq!(config.join.cidrs.to_string(), "100.64.0.0/16");
    }
}
