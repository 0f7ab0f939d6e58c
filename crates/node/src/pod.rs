//! A pod's network interface as a value: from the annotations that the controller wrote to names, addresses, routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use net::{Cidr, DualStack, Family, Mac, parse_ip};
use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};

use crate::addr::{IfAddr, family_of};
use crate::plan::TX_QUEUE_LEN;

/// The longest name of a Linux network interface (`IFNAMSIZ` less the final zero).
pub const IFNAME_MAX: usize = 15;

/// Names of the two ends of a pod's veth pair, as upstream forms them: 12 characters of the sandbox id and `_h` or
/// `_c`; with an interface other than `eth0` its name takes part, so that a pod may have several.
///
/// The container end has its name only until it is moved into the pod.
pub fn veth_names(container_id: &str, ifname: &str) -> (SmolStr, SmolStr) {
    let id = |len: usize| container_id.chars().take(len).collect::<String>();
    if ifname == "eth0" {
        let id = id(12);
        return (format_smolstr!("{id}_h"), format_smolstr!("{id}_c"));
    }
    // "<id>_<ifname>_h" in 15 characters; a long interface name keeps its end, which tells interfaces apart.
    let tail: String = {
        let skip = ifname.chars().count().saturating_sub(8);
        ifname.chars().skip(skip).collect()
    };
    let id = id(IFNAME_MAX - 3 - tail.chars().count());
    (
        format_smolstr!("{id}_{tail}_h"),
        format_smolstr!("{id}_{tail}_c"),
    )
}

/// One more route of a pod, from the CNI configuration or the annotation `routes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExtraRoute {
    /// Empty = default.
    #[serde(default)]
    pub dst: String,
    #[serde(default)]
    pub gw: String,
}

/// What the controller decided for one interface of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    pub subnet: SmolStr,
    pub mac: Mac,
    pub addresses: Vec<IfAddr>,
    pub gateways: DualStack<IpAddr>,
    pub routes: Vec<ExtraRoute>,
    /// The text of `ip_address`, for `external_ids:ip`.
    pub ip_text: SmolStr,
}

/// The annotations of a pod do not (yet) describe its network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("kube-ovn-controller has not allocated an address yet (annotation {0})")]
    Address(String),
    #[error("kube-ovn-controller has not set up the logical port yet (annotation {0})")]
    Route(String),
    #[error("annotation {key} is malformed: {value:?}")]
    Malformed { key: String, value: String },
}

impl PodNetwork {
    /// Reads `<provider>.kubernetes.io/...` annotations. `default_route`: the interface is to carry the pod's default
    /// route, so the logical port must be complete (`routed`).
    pub fn from_annotations(
        annotations: &BTreeMap<SmolStr, SmolStr>,
        provider: &str,
        default_route: bool,
    ) -> Result<Self, NotReady> {
        let provider = if provider.is_empty() { "ovn" } else { provider };
        let key = |suffix: &str| format!("{provider}.kubernetes.io/{suffix}");
        let get = |suffix: &str| {
            annotations
                .get(key(suffix).as_str())
                .filter(|value| !value.is_empty())
        };
        let malformed = |suffix: &str, value: &SmolStr| NotReady::Malformed {
            key: key(suffix),
            value: value.to_string(),
        };
        if get("allocated").map(SmolStr::as_str) != Some("true") {
            return Err(NotReady::Address(key("allocated")));
        }
        let need = |suffix: &str| get(suffix).ok_or_else(|| NotReady::Address(key(suffix)));
        let (ip_text, cidr_text, mac_text) =
            (need("ip_address")?, need("cidr")?, need("mac_address")?);
        if default_route && get("routed").map(SmolStr::as_str) != Some("true") {
            return Err(NotReady::Route(key("routed")));
        }
        let ips = addresses(ip_text).ok_or_else(|| malformed("ip_address", ip_text))?;
        let cidrs: DualStack<Cidr> = cidr_text
            .parse()
            .map_err(|_| malformed("cidr", cidr_text))?;
        let mac = mac_text
            .parse()
            .map_err(|_| malformed("mac_address", mac_text))?;
        let gateways = match get("gateway") {
            Some(text) => addresses(text).ok_or_else(|| malformed("gateway", text))?,
            None => DualStack::NONE,
        };
        let mut if_addresses = Vec::new();
        for (family, ip) in ips.by_family() {
            let cidr = cidrs
                .get(family)
                .ok_or_else(|| malformed("cidr", cidr_text))?;
            if_addresses.push(IfAddr::in_cidr(*ip, cidr));
        }
        // A pod with one address in a dual-stack subnet has no use for the other family's gateway.
        let gateways = DualStack::from_fn(|f| ips.get(f).and_then(|_| gateways.get(f).copied()));
        let routes = match get("routes") {
            Some(text) => serde_json::from_str(text).map_err(|_| malformed("routes", text))?,
            None => Vec::new(),
        };
        Ok(Self {
            subnet: get("logical_switch").cloned().unwrap_or_default(),
            mac,
            addresses: if_addresses,
            gateways,
            routes,
            ip_text: ip_text.clone(),
        })
    }
}

/// `v4,v6`; a mask behind an address is tolerated (upstream wrote one up to v0.4).
fn addresses(text: &str) -> Option<DualStack<IpAddr>> {
    let ips: Option<Vec<IpAddr>> = text
        .split(',')
        .map(|part| parse_ip(part.trim().split('/').next()?).ok())
        .collect();
    DualStack::from_values(ips?).ok()
}

/// A route inside the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRoute {
    /// `None` = default.
    pub destination: Option<Cidr>,
    pub family: Family,
    pub gateway: IpAddr,
}

/// Whose interface a host end is, as written into its alias: the kernel then knows what OVS's database knows, and a port
/// that was lost there can be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub namespace: SmolStr,
    pub name: SmolStr,
    pub netns: String,
    /// `external_ids:ip`.
    pub ip: SmolStr,
}

impl Identity {
    /// `None` if it does not fit into an interface alias (255 bytes): such a pod has a very long name, and does without.
    pub fn alias(&self) -> Option<String> {
        let Self {
            namespace,
            name,
            netns,
            ip,
        } = self;
        let alias = format!("kube-ovn {namespace}/{name} {ip} {netns}");
        (alias.len() <= 255 && !netns.contains(' ')).then_some(alias)
    }

    pub fn from_alias(alias: &str) -> Option<Self> {
        let mut words = alias.strip_prefix("kube-ovn ")?.split(' ');
        let (namespace, name) = words.next()?.split_once('/')?;
        let identity = Self {
            namespace: namespace.into(),
            name: name.into(),
            ip: words.next()?.into(),
            netns: words.next()?.into(),
        };
        words.next().is_none().then_some(identity)
    }
}

/// Everything the kernel must be told for one interface of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNic {
    /// Host end, a port of `br-int`.
    pub host: SmolStr,
    /// Name of the container end while it is made.
    pub container: SmolStr,
    /// Its name in the pod.
    pub ifname: SmolStr,
    pub mac: Mac,
    /// 0 = the kernel's default.
    pub mtu: u32,
    pub tx_queue_len: u32,
    pub addresses: Vec<IfAddr>,
    pub routes: Vec<PodRoute>,
    /// Transmit checksums must be computed by the kernel: the userspace datapath forwards packets whose checksum was
    /// left to hardware that does not exist.
    pub tx_checksum_off: bool,
}

impl PodNic {
    /// Puts together the interface `ifname` of sandbox `container_id`.
    pub fn new(
        container_id: &str,
        ifname: &str,
        network: &PodNetwork,
        cni_routes: &[ExtraRoute],
        default_route: bool,
        mtu: u32,
        tx_checksum_off: bool,
    ) -> Self {
        let (host, container) = veth_names(container_id, ifname);
        let mut routes = Vec::new();
        if default_route {
            for (family, gateway) in network.gateways.by_family() {
                routes.push(PodRoute {
                    destination: None,
                    family,
                    gateway: *gateway,
                });
            }
        }
        for route in cni_routes.iter().chain(&network.routes) {
            // As upstream: an entry that does not parse is left out, the pod starts.
            let Some(extra) = extra_route(route, &network.gateways) else {
                continue;
            };
            let taken =
                |r: &PodRoute| r.family == extra.family && r.destination == extra.destination;
            if !routes.iter().any(taken) {
                routes.push(extra);
            }
        }
        Self {
            host,
            container,
            ifname: ifname.into(),
            mac: network.mac,
            mtu,
            tx_queue_len: TX_QUEUE_LEN,
            addresses: network.addresses.clone(),
            routes,
            tx_checksum_off,
        }
    }
}

fn extra_route(route: &ExtraRoute, gateways: &DualStack<IpAddr>) -> Option<PodRoute> {
    let destination: Option<Cidr> = match route.dst.as_str() {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    let gateway: IpAddr = match route.gw.as_str() {
        "" => *gateways.get(destination?.family())?,
        text => parse_ip(text).ok()?,
    };
    let family = family_of(gateway);
    if destination.is_some_and(|d| d.family() != family) {
        return None;
    }
    Some(PodRoute {
        destination: destination.filter(|d| d.prefix_len() > 0),
        family,
        gateway,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<SmolStr, SmolStr> {
        pairs
            .iter()
            .map(|(k, v)| (format_smolstr!("ovn.kubernetes.io/{k}"), SmolStr::new(v)))
            .collect()
    }

    fn complete() -> BTreeMap<SmolStr, SmolStr> {
        annotations(&[
            ("allocated", "true"),
            ("routed", "true"),
            ("ip_address", "10.16.0.11,fd00:10:16::b"),
            ("cidr", "10.16.0.0/16,fd00:10:16::/112"),
            ("gateway", "10.16.0.1,fd00:10:16::1"),
            ("mac_address", "0a:00:00:00:00:0b"),
            ("logical_switch", "ovn-default"),
        ])
    }

    #[test]
    fn veth_names_are_upstreams_and_never_too_long() {
        let id = "0123456789abcdef0123";
        assert_eq!(
            veth_names(id, "eth0"),
            ("0123456789ab_h".into(), "0123456789ab_c".into())
        );
        assert_eq!(veth_names(id, "net1").0, "01234567_net1_h");
        for ifname in ["a", "net12", "pod0123456789a", "averyverylongone"] {
            let (host, container) = veth_names(id, ifname);
            assert!(host.len() <= IFNAME_MAX, "{host}");
            assert_ne!(host, container);
        }
        assert_ne!(
            veth_names(id, "averyverylong1").0,
            veth_names(id, "averyverylong2").0
        );
    }

    #[test]
    fn an_identity_survives_its_alias() {
        let mut identity = Identity {
            namespace: "ns".into(),
            name: "a-0".into(),
            netns: "/run/netns/cni-1234".into(),
            ip: "10.16.0.11,fd00::b".into(),
        };
        let alias = identity.alias().unwrap();
        assert_eq!(Identity::from_alias(&alias), Some(identity.clone()));
        identity.name = "x".repeat(253).into();
        assert_eq!(identity.alias(), None);
        for other in [
            "",
            "uplink",
            "kube-ovn a b c",
            "kube-ovn ns/a ip netns more",
        ] {
            assert_eq!(Identity::from_alias(other), None, "{other}");
        }
    }

    #[test]
    fn waits_for_each_annotation_in_turn() {
        let all = complete();
        for (missing, what) in [
            ("allocated", "ovn.kubernetes.io/allocated"),
            ("ip_address", "ovn.kubernetes.io/ip_address"),
            ("routed", "ovn.kubernetes.io/routed"),
        ] {
            let mut some = all.clone();
            some.remove(what);
            let error = PodNetwork::from_annotations(&some, "", true).unwrap_err();
            assert!(error.to_string().contains(what), "{missing}: {error}");
        }
        // An interface without the default route need not wait for the router.
        let mut some = all;
        some.remove("ovn.kubernetes.io/routed");
        assert!(PodNetwork::from_annotations(&some, "ovn", false).is_ok());
    }

    #[test]
    fn malformed_annotations_name_key_and_value() {
        let mut some = complete();
        some.insert("ovn.kubernetes.io/mac_address".into(), "zz".into());
        let error = PodNetwork::from_annotations(&some, "", true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "annotation ovn.kubernetes.io/mac_address is malformed: \"zz\""
        );
    }

    #[test]
    fn one_family_of_a_dual_stack_subnet() {
        let mut some = complete();
        some.insert(
            "ovn.kubernetes.io/ip_address".into(),
            "fd00:10:16::b".into(),
        );
        let network = PodNetwork::from_annotations(&some, "", true).unwrap();
        assert_eq!(network.addresses.len(), 1);
        assert_eq!(network.addresses[0].to_string(), "fd00:10:16::b/112");
        assert_eq!(network.gateways.v4, None);
    }

    #[test]
    fn routes_of_a_pod() {
        let mut some = complete();
        some.insert(
            "ovn.kubernetes.io/routes".into(),
            r#"[{"dst":"192.0.2.0/24","gw":"10.16.0.9"},{"dst":"x","gw":"10.16.0.9"}]"#.into(),
        );
        let network = PodNetwork::from_annotations(&some, "", true).unwrap();
        let cni = [ExtraRoute {
            dst: "198.51.100.0/24".into(),
            gw: String::new(),
        }];
        let nic = PodNic::new("0123456789abcdef", "eth0", &network, &cni, true, 1400, true);
        let text: Vec<String> = nic
            .routes
            .iter()
            .map(|r| {
                let dst = r.destination.map_or("default".into(), |d| d.to_string());
                format!("{dst} via {}", r.gateway)
            })
            .collect();
        assert_eq!(
            text,
            [
                "default via 10.16.0.1",
                "default via fd00:10:16::1",
                "198.51.100.0/24 via 10.16.0.1",
                "192.0.2.0/24 via 10.16.0.9",
            ]
        );
    }
}
