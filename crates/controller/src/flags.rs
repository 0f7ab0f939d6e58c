//! Flags and environment: the Go implementation's names and forms, so that its manifests start this program unchanged.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Parser};
use net::{Cidr, DualStack, parse_ip, parse_ranges};
use smol_str::SmolStr;

use crate::inventory::Groups;

/// Kube-OVN's controller: makes OVN's northbound database follow the cluster.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kube-ovn-controller",
    version,
    about,
    args_override_self = true
)]
pub struct Flags {
    /// Addresses of the northbound database, separated by commas: tcp:HOST:PORT, ssl:HOST:PORT, unix:PATH.
    #[arg(long, value_name = "REMOTES", default_value = "")]
    pub ovn_nb_addr: String,
    /// Addresses of the southbound database, separated by commas.
    #[arg(long, value_name = "REMOTES", default_value = "")]
    pub ovn_sb_addr: String,
    /// Hosts of the databases, where the addresses are not given (ports 6641 and 6642).
    #[arg(long, env = "OVN_DB_IPS", default_value = "", hide = true)]
    pub ovn_db_ips: String,
    /// Use TLS for hosts from OVN_DB_IPS, with the files of --tls-*.
    #[arg(long, env = "ENABLE_SSL", default_value = "false", action = ArgAction::Set, hide = true)]
    pub enable_ssl: bool,
    /// Certificate authority of the databases.
    #[arg(long, default_value = "/var/run/tls/cacert")]
    pub tls_ca: PathBuf,
    /// Our certificate for the databases.
    #[arg(long, default_value = "/var/run/tls/cert")]
    pub tls_cert: PathBuf,
    /// Our private key for the databases.
    #[arg(long, default_value = "/var/run/tls/key")]
    pub tls_key: PathBuf,
    /// A database that is silent for so many seconds is asked, and left if it does not answer.
    #[arg(long, default_value_t = 10)]
    pub ovsdb_inactivity_timeout: u64,
    /// How to reach the API server; without it, as a pod does.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the default Subnet.
    #[arg(long, default_value = "ovn-default")]
    pub default_ls: String,
    /// CIDR (or v4,v6) of the default Subnet.
    #[arg(long, default_value = "10.16.0.0/16")]
    pub default_cidr: String,
    /// Gateway of the default Subnet; the first address if empty.
    #[arg(long, default_value = "")]
    pub default_gateway: String,
    /// Whether pods of the default Subnet check their gateway.
    #[arg(long, default_value = "true", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub default_gateway_check: bool,
    /// Addresses that pods of the default Subnet do not get, `a..b,c`; the gateway is always among them.
    #[arg(long, default_value = "")]
    pub default_exclude_ips: String,
    /// Name of the default VPC's logical router.
    #[arg(long, default_value = "ovn-cluster")]
    pub cluster_router: String,
    /// Name of the join Subnet.
    #[arg(long, default_value = "join")]
    pub node_switch: String,
    /// CIDR (or v4,v6) of the join Subnet.
    #[arg(long, default_value = "100.64.0.0/16")]
    pub node_switch_cidr: String,
    /// Gateway of the join Subnet; the first address if empty.
    #[arg(long, default_value = "")]
    pub node_switch_gateway: String,
    /// CIDR (or v4,v6) of Services.
    #[arg(long, default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: String,
    /// Addresses of a node-local DNS cache.
    #[arg(long, default_value = "")]
    pub node_local_dns_ip: String,
    /// Whether Subnets use OVN's load balancers unless they say otherwise.
    #[arg(long, default_value = "true", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_lb: bool,
    /// NB_Global option of the Go implementation's OVN.
    #[arg(long, default_value = "true", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub ls_dnat_mod_dl_dst: bool,
    /// NB_Global option of the Go implementation's OVN.
    #[arg(long, default_value = "true", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub ls_ct_skip_dst_lport_ips: bool,
    /// Lets a flush delete an unusual share of a table without asking (see /brakes of the admin port).
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// Takes a network of the Go implementation over although it uses what this version does not have yet; without it,
    /// nothing is written, and /readyz names all that is in use.
    #[arg(long, env = "ACCEPT_UNSUPPORTED", default_value = "false", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub accept_unsupported: bool,

    /// Identity in the Lease.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-ovn")]
    pub pod_namespace: String,
    /// How long a leader that does not renew is respected: 30s, 1m, or seconds.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// A leader that could not renew for so long stops writing.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// Time between two tries to take or renew the Lease.
    #[arg(long, default_value = "6s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,

    /// Address of /healthz, /livez, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0", env = "BIND_ADDRESS")]
    pub bind_address: IpAddr,
    /// Port of /healthz, /livez, /readyz and /metrics.
    #[arg(long, default_value_t = 10660)]
    pub pprof_port: u16,
    /// What is logged: error, warn, info, debug, or a filter as in RUST_LOG.
    #[arg(long, default_value = "info", env = "RUST_LOG")]
    pub log_level: String,
    /// text or json.
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Where the API server is, as pods are told; no Subnet may hold it.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", default_value = "", hide = true)]
    pub kubernetes_service_host: String,

    #[command(flatten)]
    pub upstream: Upstream,
}

macro_rules! upstream_flags {
    ($($field:ident = $default:literal $(, alias $alias:literal)?;)*) => {
        /// Flags of the Go implementation that have no effect here yet (or never: logging to files). They are accepted,
        /// and one that is set to something else is named in a warning.
        #[derive(Clone, Debug, clap::Args)]
        pub struct Upstream {
            $(
                #[arg(long, $(alias = $alias,)? default_value = $default, hide = true, num_args = 0..=1, default_missing_value = "true")]
                pub $field: String,
            )*
        }

        impl Upstream {
            /// Flags that are set to something else than their default.
            pub fn without_effect(&self) -> Vec<String> {
                let mut set = Vec::new();
                $(
                    if self.$field != $default {
                        set.push(format!("--{}={}", stringify!($field).replace('_', "-"), self.$field));
                    }
                )*
                set
            }
        }
    };
}

upstream_flags! {
    default_logical_gateway = "false";
    default_u2o_interconnection = "false";
    cluster_tcp_loadbalancer = "cluster-tcp-loadbalancer";
    cluster_udp_loadbalancer = "cluster-udp-loadbalancer";
    cluster_sctp_loadbalancer = "cluster-sctp-loadbalancer";
    cluster_tcp_session_loadbalancer = "cluster-tcp-session-loadbalancer";
    cluster_udp_session_loadbalancer = "cluster-udp-session-loadbalancer";
    cluster_sctp_session_loadbalancer = "cluster-sctp-session-loadbalancer";
    worker_num = "3";
    enable_pprof = "false";
    secure_serving = "false";
    nodepg_probe_time = "1";
    network_type = "geneve";
    default_provider_name = "provider";
    default_interface_name = "";
    default_exchange_link_name = "false";
    default_vlan_name = "ovn-vlan";
    default_vlan_id = "1";
    default_vlan_range = "1,4095";
    pod_nic_type = "veth-pair";
    enable_np = "true";
    np_enforcement = "standard";
    enable_eip_snat = "true";
    enable_external_vpc = "false";
    enable_ecmp = "false";
    keep_vm_ip = "true";
    enable_lb_svc = "false";
    enable_ovn_lb_prefer_local = "false";
    enable_metrics = "true";
    enable_anp = "false";
    enable_dns_name_resolver = "false";
    enable_ovn_ipsec = "false";
    cert_manager_ipsec_cert = "false";
    enable_live_migration_optimize = "true";
    external_gateway_config_ns = "kube-system";
    external_gateway_switch = "external";
    external_gateway_net = "external";
    external_gateway_vlanid = "0";
    gc_interval = "360";
    inspect_interval = "20";
    bfd_min_tx = "100";
    bfd_min_rx = "100";
    detect_mult = "3";
    ovn_timeout = "60";
    ovsdb_con_timeout = "3";
    ovsdb_con_maxretry = "60";
    cust_crd_retry_min_delay = "1";
    cust_crd_retry_max_delay = "20";
    log_perm = "640";
    non_primary_cni_mode = "false";
    skip_conntrack_dst_cidrs = "";
    image = "";
    frr_image = "";
    tls_min_version = "";
    tls_max_version = "";
    tls_cipher_suites = "";
    kubeovn_images = "";
    logtostderr = "true";
    alsologtostderr = "true";
    stderrthreshold = "";
    log_file = "", alias "log_file";
    log_file_max_size = "0", alias "log_file_max_size";
    v = "3";
}

impl Flags {
    /// Remotes of the northbound database.
    pub fn northbound(&self) -> anyhow::Result<String> {
        self.remotes("--ovn-nb-addr", &self.ovn_nb_addr, 6641)
    }

    /// Remotes of the southbound database.
    pub fn southbound(&self) -> anyhow::Result<String> {
        self.remotes("--ovn-sb-addr", &self.ovn_sb_addr, 6642)
    }

    fn remotes(&self, flag: &str, given: &str, port: u16) -> anyhow::Result<String> {
        if !given.trim().is_empty() {
            return Ok(given.trim().to_owned());
        }
        let scheme = if self.enable_ssl { "ssl" } else { "tcp" };
        let hosts: Vec<&str> = self
            .ovn_db_ips
            .split(',')
            .map(str::trim)
            .filter(|h| !h.is_empty())
            .collect();
        if hosts.is_empty() {
            bail!(
                "{flag} is not set (for example {flag}=tcp:192.168.1.41:{port}), and OVN_DB_IPS is not either"
            );
        }
        let host = |host: &str| {
            if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            }
        };
        Ok(hosts
            .into_iter()
            .map(|h| format!("{scheme}:{}:{port}", host(h)))
            .collect::<Vec<_>>()
            .join(","))
    }

    /// Who we are in the Lease.
    pub fn identity(&self) -> SmolStr {
        if self.pod_name.is_empty() {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            SmolStr::new(host.trim())
        } else {
            SmolStr::new(&self.pod_name)
        }
    }

    /// The network's settings.
    pub fn fabric(&self) -> anyhow::Result<fabric::Config> {
        let cidrs = |flag: &str, text: &str| -> anyhow::Result<DualStack<Cidr>> {
            let cidrs: DualStack<Cidr> = text.parse().with_context(|| format!("{flag}={text}"))?;
            if cidrs.is_empty() {
                bail!("{flag} is empty");
            }
            Ok(cidrs)
        };
        let addresses = |flag: &str, text: &str| -> anyhow::Result<DualStack<IpAddr>> {
            text.parse().with_context(|| format!("{flag}={text}"))
        };
        let api_server = parse_ip(&self.kubernetes_service_host)
            .ok()
            .filter(|ip| *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(fabric::Config {
            cluster_router: SmolStr::new(&self.cluster_router),
            default_subnet: fabric::config::DefaultSubnet {
                name: SmolStr::new(&self.default_ls),
                cidrs: cidrs("--default-cidr", &self.default_cidr)?,
                gateways: addresses("--default-gateway", &self.default_gateway)?,
                exclude_ips: parse_ranges(&self.default_exclude_ips).with_context(|| {
                    format!("--default-exclude-ips={}", self.default_exclude_ips)
                })?,
                disable_gateway_check: !self.default_gateway_check,
            },
            join: fabric::config::JoinSubnet {
                name: SmolStr::new(&self.node_switch),
                cidrs: cidrs("--node-switch-cidr", &self.node_switch_cidr)?,
                gateways: addresses("--node-switch-gateway", &self.node_switch_gateway)?,
            },
            service_cidrs: cidrs("--service-cluster-ip-range", &self.service_cluster_ip_range)?,
            api_server,
            enable_lb: self.enable_lb,
            ls_dnat_mod_dl_dst: self.ls_dnat_mod_dl_dst,
            ls_ct_skip_dst_lport_ips: self.ls_ct_skip_dst_lport_ips,
            // The cluster is asked for it; see `engine::Config::cluster`.
            cluster_uid: SmolStr::default(),
            node_local_dns: self
                .node_local_dns_ip
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(|text| parse_ip(text).with_context(|| format!("--node-local-dns-ip={text}")))
                .collect::<anyhow::Result<_>>()?,
        })
    }

    /// The API groups in which the Go implementation, with these flags, finds its work.
    pub fn groups(&self) -> Groups {
        let mut groups = Groups::from([(api::v1::GROUP, &[][..])]);
        if self.upstream.enable_np == "true" {
            groups.insert("networking.k8s.io", &["networkpolicies"]);
        }
        if self.upstream.enable_anp == "true" {
            groups.insert("policy.networking.k8s.io", &[]);
        }
        groups
    }

    /// Times of the election.
    pub fn election(&self) -> anyhow::Result<engine::lease::Timing> {
        let timing = engine::lease::Timing {
            duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry: self.leader_elect_retry_period,
        };
        if timing.renew_deadline >= timing.duration {
            bail!(
                "--leader-elect-renew-deadline must be shorter than --leader-elect-lease-duration"
            );
        }
        if timing.retry >= timing.renew_deadline || timing.retry.is_zero() {
            bail!(
                "--leader-elect-retry-period must be shorter than --leader-elect-renew-deadline, and not 0"
            );
        }
        Ok(timing)
    }
}

/// `90s`, `1m30s`, `500ms` as Go prints them, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is no duration; write for example 30s, 1m30s, 500ms, or 30 (seconds)");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u32 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return Err(wrong()),
        };
        total += unit * count;
        rest = &rest[end..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Flags {
        Flags::try_parse_from(std::iter::once("kube-ovn-controller").chain(args.iter().copied()))
            .unwrap()
    }

    #[test]
    fn the_go_implementations_manifest_is_understood() {
        let flags = parse(&[
            "--default-ls=ovn-default",
            "--default-cidr=10.16.0.0/16,fd00:10:16::/112",
            "--default-gateway=10.16.0.1,fd00:10:16::1",
            "--default-gateway-check=true",
            "--default-logical-gateway=false",
            "--default-u2o-interconnection=false",
            "--default-exclude-ips=",
            "--cluster-router=ovn-cluster",
            "--node-switch=join",
            "--node-switch-cidr=100.64.0.0/16,fd00:100:64::/112",
            "--service-cluster-ip-range=10.96.0.0/12,fd00:10:96::/108",
            "--network-type=geneve",
            "--default-provider-name=provider",
            "--default-vlan-id=1",
            "--ls-dnat-mod-dl-dst=true",
            "--pod-nic-type=veth-pair",
            "--enable-lb=true",
            "--enable-np=true",
            "--enable-eip-snat=true",
            "--gc-interval=360",
            "--inspect-interval=20",
            "--log_file=/var/log/kube-ovn/kube-ovn-controller.log",
            "--log_file_max_size=200",
            "--logtostderr=false",
            "--alsologtostderr=true",
            "--keep-vm-ip=true",
            "--secure-serving=false",
        ]);
        let config = flags.fabric().unwrap();
        assert_eq!(
            config.default_subnet.cidrs.to_string(),
            "10.16.0.0/16,fd00:10:16::/112"
        );
        assert_eq!(
            config.join.cidrs.to_string(),
            "100.64.0.0/16,fd00:100:64::/112"
        );
        assert_eq!(flags.election().unwrap(), engine::lease::Timing::default());
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let flags = parse(&["--enable-anp=true", "--enable-np=true"]);
        assert_eq!(flags.upstream.without_effect(), ["--enable-anp=true"]);
    }

    #[test]
    fn what_the_go_implementation_does_not_enforce_is_not_in_use() {
        let groups = |args: &[&str]| {
            let groups = parse(args).groups();
            groups.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(groups(&[]), ["kubeovn.io", "networking.k8s.io"]);
        assert_eq!(groups(&["--enable-np=false"]), ["kubeovn.io"]);
        let all = [
            "kubeovn.io",
            "networking.k8s.io",
            "policy.networking.k8s.io",
        ];
        assert_eq!(groups(&["--enable-anp=true"]), all);
    }

    #[test]
    fn a_wrong_value_names_the_flag() {
        let error = parse(&["--default-cidr=10.16.0.0/99"])
            .fabric()
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("--default-cidr=10.16.0.0/99"),
            "{error:#}"
        );
        assert!(
            parse(&["--leader-elect-renew-deadline=40s"])
                .election()
                .is_err()
        );
    }

    #[test]
    fn database_hosts_become_remotes() {
        let mut flags = parse(&["--ovn-db-ips=192.168.1.41,fd00::1"]);
        assert_eq!(
            flags.northbound().unwrap(),
            "tcp:192.168.1.41:6641,tcp:[fd00::1]:6641"
        );
        flags.enable_ssl = true;
        assert_eq!(
            flags.southbound().unwrap(),
            "ssl:192.168.1.41:6642,ssl:[fd00::1]:6642"
        );
        assert!(
            parse(&[])
                .northbound()
                .unwrap_err()
                .to_string()
                .contains("--ovn-nb-addr")
        );
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("soon").is_err());
        assert!(duration("").is_err());
    }
}
