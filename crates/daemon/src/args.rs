//! Command line and environment. Names and defaults are upstream's where the meaning is the same.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};
use net::Cidr;
use node::plan::{NetworkType, NodeConfig};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The node agent of Kube-OVN: sets up this node for the fabric and its pods' network interfaces.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-ovn-daemon", version)]
pub struct Args {
    /// Socket of the node's own OVSDB server.
    #[arg(long, default_value = "/run/openvswitch/db.sock")]
    pub ovs_socket: PathBuf,
    /// Socket on which the CNI plugin is served.
    #[arg(long, default_value = api::cni::SOCKET)]
    pub bind_socket: PathBuf,
    /// Kubernetes configuration file; without it the in-cluster service account.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Where the container runtime looks for network configurations; empty = write none.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Source of the configuration list; the built-in one if the file does not exist.
    #[arg(long, default_value = "/kube-ovn/01-kube-ovn.conflist")]
    pub cni_conf_file: PathBuf,
    /// Its name in `--cni-conf-dir`.
    #[arg(long, default_value = api::cni::CONFLIST_NAME)]
    pub cni_conf_name: String,
    /// Interface of the tunnels: a name, or a comma list of patterns.
    #[arg(long, default_value = "")]
    pub iface: String,
    /// Interface of the tunnels where the Node has the label ovn.kubernetes.io/ovs_dp_type=userspace.
    #[arg(long, default_value = "br-phy")]
    pub dpdk_tunnel_iface: String,
    /// Allow host addresses (/32, /128) as source of the tunnels.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub host_tunnel_src: bool,
    /// MTU of the pods; 0 = that of the tunnel interface less the encapsulation.
    #[arg(long, default_value_t = 0)]
    pub mtu: u32,
    /// Encapsulation: geneve, vxlan, stt, vlan.
    #[arg(long, default_value = "geneve")]
    pub network_type: NetworkType,
    /// UDP checksums on tunnel packets.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub encap_checksum: bool,
    /// CIDRs of Services, comma separated.
    #[arg(long, default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: String,
    /// Name of the default VPC.
    #[arg(long, default_value = "ovn-cluster")]
    pub cluster_router: String,
    /// Name of the join subnet.
    #[arg(long, default_value = "join")]
    pub node_switch: String,
    /// Port of health checks and metrics.
    #[arg(long, default_value_t = 10665)]
    pub pprof_port: u16,
    /// Longest wait, in seconds, of a CNI ADD for the pod's annotations, and again for OVN.
    #[arg(long, default_value_t = 30)]
    pub cni_wait_seconds: u64,
    /// `RUST_LOG` has precedence.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Write the CNI configuration list and exit (for an init container, as upstream's image uses it).
    #[arg(long, default_value_t = false)]
    pub install_cni_config: bool,

    /// Address of this host-network pod as Kubernetes gives it.
    #[arg(long, env = "POD_IP", hide = true)]
    pub pod_ip: Option<IpAddr>,
    #[arg(long, env = "POD_IPS", hide = true, value_delimiter = ',')]
    pub pod_ips: Vec<IpAddr>,
    #[arg(long, env = "ENABLE_BIND_LOCAL_IP", hide = true, default_value_t = false, action = ArgAction::Set)]
    pub enable_bind_local_ip: bool,

    // Accepted so that upstream's manifests work unchanged; they have no effect here.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub logtostderr: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub alsologtostderr: Option<String>,
    #[arg(long = "log_file", hide = true)]
    pub log_file: Option<String>,
    #[arg(long = "log_file_max_size", hide = true)]
    pub log_file_max_size: Option<String>,
    #[arg(long = "v", hide = true)]
    pub verbosity: Option<String>,
    #[arg(long, hide = true)]
    pub log_perm: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_pprof: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_metrics: Option<String>,
    #[arg(long, hide = true)]
    pub ovs_vsctl_concurrency: Option<String>,
    #[arg(long, hide = true)]
    pub kubelet_dir: Option<String>,
    #[arg(long, hide = true)]
    pub default_provider_name: Option<String>,
    #[arg(long, hide = true)]
    pub default_interface_name: Option<String>,
    #[arg(long, hide = true)]
    pub mirror_iface: Option<String>,
    #[arg(long, hide = true)]
    pub external_gateway_config_ns: Option<String>,
    #[arg(long, hide = true)]
    pub external_gateway_switch: Option<String>,
    #[arg(long, hide = true)]
    pub tcp_conn_check_port: Option<String>,
    #[arg(long, hide = true)]
    pub udp_conn_check_port: Option<String>,
    #[arg(long, hide = true)]
    pub ovn_ipsec_cert_duration: Option<String>,
    #[arg(long, hide = true)]
    pub cert_manager_issuer_name: Option<String>,
    #[arg(long, hide = true)]
    pub tls_min_version: Option<String>,
    #[arg(long, hide = true)]
    pub tls_max_version: Option<String>,
    #[arg(long, hide = true)]
    pub tls_cipher_suites: Option<String>,

    // Upstream's features that do not exist here yet: accepted when off, named in a warning when on.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_mirror: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub mac_learning_fallback: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_arp_detect_ip_conflict: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_verbose_conn_check: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_tproxy: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_ovn_ipsec: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cert_manager_ipsec_cert: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub set_vxlan_tx_off: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub secure_serving: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub non_primary_cni_mode: Option<String>,
}

impl Args {
    /// The node's name: flag or `NODE_NAME`, else the host name in lower case (as the kubelet registers it).
    pub fn node(&self) -> anyhow::Result<String> {
        match &self.node_name {
            Some(name) if !name.is_empty() => Ok(name.clone()),
            _ => Ok(nix::unistd::gethostname()?.to_string_lossy().to_lowercase()),
        }
    }

    pub fn node_config(&self) -> anyhow::Result<NodeConfig> {
        let mut service_cidrs = Vec::new();
        for text in self.service_cluster_ip_range.split(',') {
            let text = text.trim();
            if !text.is_empty() {
                service_cidrs.push(
                    text.parse::<Cidr>()
                        .map_err(|e| anyhow::anyhow!("--service-cluster-ip-range: {e}"))?,
                );
            }
        }
        Ok(NodeConfig {
            default_vpc: self.cluster_router.as_str().into(),
            join_subnet: self.node_switch.as_str().into(),
            network_type: self.network_type,
            encap_checksum: self.encap_checksum,
            mtu: self.mtu,
            iface: (!self.iface.is_empty()).then(|| self.iface.as_str().into()),
            dpdk_tunnel_iface: self.dpdk_tunnel_iface.as_str().into(),
            host_tunnel_src: self.host_tunnel_src,
            service_cidrs,
            pod_ip: self.pod_ip,
        })
    }

    /// Flags that ask for something that is not there.
    pub fn without_effect(&self) -> Vec<&'static str> {
        [
            ("--enable-mirror", &self.enable_mirror),
            ("--mac-learning-fallback", &self.mac_learning_fallback),
            (
                "--enable-verbose-conn-check",
                &self.enable_verbose_conn_check,
            ),
            ("--enable-tproxy", &self.enable_tproxy),
            ("--enable-ovn-ipsec", &self.enable_ovn_ipsec),
            ("--cert-manager-ipsec-cert", &self.cert_manager_ipsec_cert),
            ("--set-vxlan-tx-off", &self.set_vxlan_tx_off),
            ("--secure-serving", &self.secure_serving),
            ("--non-primary-cni-mode", &self.non_primary_cni_mode),
        ]
        .into_iter()
        .filter(|(_, value)| value.as_deref() == Some("true"))
        .map(|(flag, _)| flag)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_manifest_is_understood() {
        // The arguments of the DaemonSet kube-ovn-cni as upstream's install.sh writes them.
        let args = Args::try_parse_from([
            "kube-ovn-daemon",
            "--ovs-socket=/run/openvswitch/db.sock",
            "--bind-socket=/run/openvswitch/kube-ovn-daemon.sock",
            "--enable-mirror=false",
            "--mirror-iface=mirror0",
            "--node-switch=join",
            "--encap-checksum=true",
            "--service-cluster-ip-range=10.96.0.0/12,fd00:10:96::/112",
            "--iface=",
            "--dpdk-tunnel-iface=br-phy",
            "--network-type=geneve",
            "--default-interface-name=",
            "--logtostderr=false",
            "--alsologtostderr=true",
            "--log_file=/var/log/kube-ovn/kube-ovn-cni.log",
            "--log_file_max_size=200",
            "--enable-metrics=true",
            "--kubelet-dir=/var/lib/kubelet",
            "--enable-tproxy=false",
            "--ovs-vsctl-concurrency=100",
            "--secure-serving=false",
            "--enable-ovn-ipsec=true",
            "--set-vxlan-tx-off=false",
            "--host-tunnel-src=true",
        ])
        .unwrap();
        assert!(args.host_tunnel_src && args.encap_checksum);
        assert_eq!(args.without_effect(), ["--enable-ovn-ipsec"]);
        let config = args.node_config().unwrap();
        assert_eq!(config.service_cidrs.len(), 2);
        assert_eq!(config.iface, None);
    }

    #[test]
    fn a_wrong_service_range_is_named() {
        let args = Args::try_parse_from(["x", "--service-cluster-ip-range=10.96.0.0/99"]).unwrap();
        let error = args.node_config().unwrap_err().to_string();
        assert!(error.contains("10.96.0.0/99"), "{error}");
    }
}
