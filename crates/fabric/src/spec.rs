//! What a Subnet's spec means: defaults, checks, and the effective values that everything else works with.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::keys;
use api::v1::{GatewayType, SubnetSpec};
use net::{Cidr, DualStack, HasFamily, IpRange, parse_ip, parse_ranges};
use smol_str::SmolStr;

use crate::compile::names::{router_port, switch_port};
use crate::{Config, Shared};

/// IPv6 asks every link to carry packets of this size (RFC 8200, section 5).
const IPV6_MINIMUM_MTU: u32 = 1280;

/// What a Subnet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Pods of namespaces that name no Subnet, and of those that name this one.
    Default,
    /// The nodes' `ovn0`. No pod gets in.
    Join,
    /// Pods.
    Pods,
}

/// A Subnet's spec, parsed and with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    pub name: SmolStr,
    pub role: Role,
    /// The logical router; empty for a provider that is not OVN.
    pub vpc: SmolStr,
    pub provider: SmolStr,
    /// At least one.
    pub cidrs: DualStack<Cidr>,
    /// One for each CIDR.
    pub gateways: DualStack<IpAddr>,
    /// Addresses that pods do not get by themselves, the gateways among them. Sorted, IPv4 first, none overlaps another.
    pub excludes: Vec<IpRange>,
    pub gateway_type: GatewayType,
    pub nat_outgoing: bool,
    /// Whether other subnets are kept out, `allow` excepted.
    pub private: bool,
    /// Sorted.
    pub allow: Vec<Cidr>,
    /// MTU of pods in bytes; `None` takes the node's.
    pub mtu: Option<u32>,
}

impl Effective {
    /// Whether pods of this Subnet are ports of OVN (other providers take addresses alone).
    pub fn is_ovn(&self) -> bool {
        self.provider == keys::PROVIDER
    }

    /// Whether pods leave the cluster through their own node.
    ///
    /// Centralized gateways are not built yet: such a Subnet is served as a distributed one, and its condition
    /// `Unsupported` says so.
    pub fn has_distributed_gateway(&self, config: &Config) -> bool {
        self.role != Role::Join && self.is_in_default_vpc(config)
    }

    /// Whether the Subnet hangs on the cluster's own router, the one that nodes are connected to.
    pub fn is_in_default_vpc(&self, config: &Config) -> bool {
        self.is_ovn() && self.vpc == config.cluster_router
    }

    /// `a..b,c`, as in the namespace's annotation.
    pub fn excludes_text(&self) -> String {
        join(&self.excludes)
    }
}

/// The values, separated by commas.
pub(crate) fn join<T: ToString>(values: &[T]) -> String {
    values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// The role that a Subnet of this name has.
fn role(name: &str, config: &Config) -> Role {
    if name == config.join.name {
        Role::Join
    } else if name == config.default_subnet.name {
        Role::Default
    } else {
        Role::Pods
    }
}

/// A block of addresses that no Subnet may overlap, and what it is.
struct Reserved(IpAddr, u8, &'static str);

const fn v4(a: u8, b: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, 0, 0))
}

const fn v6(first: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last))
}

/// IANA special-purpose blocks that cannot be routed to a pod (RFC 6890).
const RESERVED: &[Reserved] = &[
    Reserved(v4(224, 0), 4, "multicast"),
    Reserved(v4(127, 0), 8, "loopback"),
    Reserved(IpAddr::V4(Ipv4Addr::BROADCAST), 32, "broadcast"),
    Reserved(v4(0, 0), 32, "the unspecified address"),
    Reserved(v4(169, 254), 16, "link-local"),
    Reserved(v6(0, 0), 128, "the unspecified address"),
    Reserved(v6(0, 1), 128, "loopback"),
    Reserved(v6(0xff00, 0), 8, "multicast"),
    Reserved(v6(0xfe80, 0), 10, "link-local"),
];

/// Collects what is wrong, one sentence each, so that a user can repair all at once.
struct Checks {
    errors: Vec<String>,
}

impl Checks {
    fn that(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.errors.push(otherwise());
        }
    }

    fn ok<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.errors.push(format!("{field}: {error}")))
            .ok()
    }
}

/// Reads a spec. The errors are sentences that name the field and the value.
///
/// Conflicts with other objects and with the settings are not looked at here.
pub fn resolve(name: &str, spec: &SubnetSpec, config: &Config) -> Result<Effective, Vec<String>> {
    let mut checks = Checks { errors: Vec::new() };
    let role = role(name, config);
    let provider = provider(spec);
    let vpc = vpc(spec, config);
    let cidrs = read_cidrs(spec, &mut checks);
    let gateways = cidrs.as_ref().map_or(DualStack::NONE, |cidrs| {
        read_gateways(spec, cidrs, &mut checks)
    });
    let excludes = cidrs.as_ref().map_or_else(Vec::new, |cidrs| {
        let ranges = read_excludes(spec, cidrs, &mut checks);
        merge(ranges.into_iter().chain(gateways.map(IpRange::single)))
    });
    let mut allow = Vec::new();
    for text in &spec.allow_subnets {
        allow.extend(checks.ok("allowSubnets", text.trim().parse::<Cidr>()));
    }
    allow.sort_unstable();
    allow.dedup();
    let gateway_type = GatewayType::parse(&spec.gateway_type);
    checks.that(gateway_type.is_some(), || {
        format!(
            "gatewayType is {:?}, but must be \"distributed\" or \"centralized\"",
            spec.gateway_type
        )
    });
    checks.that(
        matches!(&*spec.protocol, "" | "IPv4" | "IPv6" | "Dual"),
        || {
            format!(
                "protocol is {:?}, but must be \"IPv4\", \"IPv6\" or \"Dual\"",
                spec.protocol
            )
        },
    );
    checks.that(router_port(&vpc, name) != switch_port(name, &vpc), || {
        format!(
            "the Subnet must not have the name of its VPC {vpc:?}, or one that repeats in it: both ends of the link between them would be called the same"
        )
    });
    checks.that(
        role == Role::Pods || (vpc == config.cluster_router && provider == keys::PROVIDER),
        || format!(
            "the Subnet {name:?} is the cluster's own and stays in the VPC {:?} with the provider {:?}",
            config.cluster_router,
            keys::PROVIDER
        ),
    );
    if let Some(cidrs) = &cidrs {
        checks.that(
            spec.mtu == 0 || cidrs.v6.is_none() || spec.mtu >= IPV6_MINIMUM_MTU,
            || {
                format!(
                    "mtu {} is too small for IPv6, which needs {IPV6_MINIMUM_MTU}",
                    spec.mtu
                )
            },
        );
        for text in &spec.vips {
            let vip = parse_ip(text);
            if let Some(vip) = checks.ok("vips", vip) {
                checks.that(cidrs.contains(vip), || {
                    format!("vips: {vip} is outside of the CIDR {cidrs}")
                });
            }
        }
    }
    match (cidrs, gateway_type) {
        (Some(cidrs), Some(gateway_type)) if checks.errors.is_empty() => Ok(Effective {
            name: name.into(),
            role,
            vpc,
            provider,
            cidrs,
            gateways,
            excludes,
            gateway_type,
            nat_outgoing: spec.nat_outgoing,
            private: spec.private,
            allow,
            mtu: (spec.mtu != 0).then_some(spec.mtu),
        }),
        _ => Err(checks.errors),
    }
}

fn provider(spec: &SubnetSpec) -> SmolStr {
    if spec.provider.is_empty() {
        SmolStr::new_static(keys::PROVIDER)
    } else {
        spec.provider.as_str().into()
    }
}

fn vpc(spec: &SubnetSpec, config: &Config) -> SmolStr {
    match (spec.vpc.as_str(), provider(spec).as_str()) {
        ("", keys::PROVIDER) => config.cluster_router.clone(),
        (vpc, _) => vpc.into(),
    }
}

fn read_cidrs(spec: &SubnetSpec, checks: &mut Checks) -> Option<DualStack<Cidr>> {
    if spec.cidr_block.trim().is_empty() {
        checks
            .errors
            .push("cidrBlock is empty; give a CIDR such as 10.20.0.0/16".to_owned());
        return None;
    }
    let cidrs: DualStack<Cidr> = checks.ok("cidrBlock", spec.cidr_block.parse())?;
    for cidr in cidrs {
        checks.that(cidr.prefix_len() < cidr.family().bits(), || {
            format!("cidrBlock: {cidr} has room for one address only, which the gateway needs")
        });
        for Reserved(address, length, what) in RESERVED {
            let block = Cidr::new(*address, *length);
            checks.that(block.is_none_or(|block| !block.overlaps(cidr)), || {
                format!("cidrBlock: {cidr} overlaps {address}/{length} ({what})")
            });
        }
    }
    Some(cidrs)
}

fn read_gateways(
    spec: &SubnetSpec,
    cidrs: &DualStack<Cidr>,
    checks: &mut Checks,
) -> DualStack<IpAddr> {
    let given: DualStack<IpAddr> = checks
        .ok("gateway", spec.gateway.parse())
        .unwrap_or_default();
    for gateway in given {
        let Some(cidr) = cidrs.get(gateway.family()) else {
            checks.errors.push(format!(
                "gateway: {gateway} has no CIDR of its family in {cidrs}"
            ));
            continue;
        };
        checks.that(cidr.contains(gateway), || {
            format!("gateway: {gateway} is outside of the CIDR {cidr}")
        });
        checks.that(
            !cidr.contains(gateway) || cidr.usable().contains(gateway),
            || format!("gateway: {gateway} is the first or the last address of {cidr}, which no port can have"),
        );
    }
    DualStack::from_fn(|family| {
        given
            .get(family)
            .copied()
            .filter(|_| cidrs.get(family).is_some())
            .or_else(|| cidrs.get(family).map(|cidr| cidr.usable().first()))
    })
}

fn read_excludes(spec: &SubnetSpec, cidrs: &DualStack<Cidr>, checks: &mut Checks) -> Vec<IpRange> {
    let mut ranges = Vec::new();
    for text in &spec.exclude_ips {
        ranges.extend(
            checks
                .ok("excludeIps", parse_ranges(text))
                .unwrap_or_default(),
        );
    }
    for range in &ranges {
        let inside = cidrs
            .get(range.family())
            .is_some_and(|cidr| cidr.all().covers(*range));
        checks.that(inside, || {
            format!("excludeIps: {range} is outside of the CIDR {cidrs}")
        });
    }
    ranges
}

/// Sorted, IPv4 first, overlapping ranges made one. Neighbours stay apart, as the user wrote them.
pub(crate) fn merge(ranges: impl IntoIterator<Item = IpRange>) -> Vec<IpRange> {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let mut merged: Vec<IpRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if let Some(last) = merged.last_mut()
            && last.overlaps(range)
        {
            if let Ok(both) = IpRange::new(last.first(), last.last().max(range.last())) {
                *last = both;
            }
        } else {
            merged.push(range);
        }
    }
    merged
}

/// What stands against the CIDRs of a Subnet in the default VPC, which shares the nodes' world; others may use any.
pub(crate) fn cluster_conflict(cidr: Cidr, config: &Config) -> Option<String> {
    if let Some(services) = config.service_cidrs.get(cidr.family())
        && services.overlaps(cidr)
    {
        return Some(format!(
            "the CIDR {cidr} overlaps {services}, the addresses of Services; choose another one"
        ));
    }
    let server = config.api_server.filter(|server| cidr.contains(*server))?;
    Some(format!(
        "the CIDR {cidr} holds {server}, the API server's address, which would be cut off; choose another one"
    ))
}

/// Fills in what a user left out, as the Go implementation does, so that `kubectl get subnet` shows it.
///
/// What is malformed stays as it is, for its owner to see.
pub fn defaults(name: &str, spec: &SubnetSpec, config: &Config) -> SubnetSpec {
    fill(
        name,
        spec,
        resolve(name, spec, config).as_ref().ok(),
        config,
    )
}

/// [`defaults`], for a spec that was resolved already.
fn fill(
    name: &str,
    spec: &SubnetSpec,
    effective: Option<&Effective>,
    config: &Config,
) -> SubnetSpec {
    let mut filled = spec.clone();
    filled.provider = provider(spec).into();
    filled.vpc = vpc(spec, config).into();
    let role = role(name, config);
    filled.default = role == Role::Default;
    if filled.gateway_type.is_empty() && role != Role::Join && filled.vpc == config.cluster_router {
        GatewayType::Distributed
            .as_str()
            .clone_into(&mut filled.gateway_type);
    }
    if filled.enable_lb.is_none() && role != Role::Join && filled.provider == keys::PROVIDER {
        filled.enable_lb = Some(config.enable_lb);
    }
    if let Some(effective) = effective {
        filled.cidr_block = effective.cidrs.to_string();
        filled.gateway = effective.gateways.to_string();
        filled.exclude_ips = effective.excludes.iter().map(ToString::to_string).collect();
        filled.protocol = effective
            .cidrs
            .protocol()
            .map(|protocol| protocol.to_string())
            .unwrap_or_default();
    }
    filled
}

/// A spec with what it means.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) spec: Shared<SubnetSpec>,
    pub(crate) parsed: Result<Shared<Effective>, Vec<String>>,
    /// The spec with defaults.
    pub(crate) filled: Shared<SubnetSpec>,
}

/// Readings of before: most specs are what they were when one of them changes. It must be dropped with the settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo(BTreeMap<(SmolStr, Slot), Reading>);

/// What a reading is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// The object's spec, with its namespace's values.
    Wanted,
    /// The accepted spec.
    Accepted,
}

impl Memo {
    /// What the spec of a Subnet means.
    pub(crate) fn read(
        &mut self,
        name: &SmolStr,
        slot: Slot,
        spec: &SubnetSpec,
        config: &Config,
    ) -> Reading {
        let fresh = || {
            let parsed = resolve(name, spec, config);
            let filled = fill(name, spec, parsed.as_ref().ok(), config);
            Reading {
                spec: Shared::new(spec.clone()),
                parsed: parsed.map(Shared::new),
                filled: Shared::new(filled),
            }
        };
        match self.0.entry((name.clone(), slot)) {
            Entry::Vacant(place) => place.insert(fresh()).clone(),
            Entry::Occupied(mut place) => {
                if *place.get().spec != *spec {
                    place.insert(fresh());
                }
                place.get().clone()
            }
        }
    }

    /// Forgets Subnets that are gone.
    pub(crate) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _), _| exists(name));
    }
}

/// The address with its subnet's prefix length, as a router port has it.
pub(crate) fn with_prefix(address: IpAddr, cidrs: &DualStack<Cidr>) -> String {
    let length = cidrs
        .get(address.family())
        .map_or(address.family().bits(), |cidr| cidr.prefix_len());
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cidr: &str) -> SubnetSpec {
        SubnetSpec {
            cidr_block: cidr.into(),
            ..SubnetSpec::default()
        }
    }

    fn errors(spec: &SubnetSpec) -> String {
        resolve("blue", spec, &Config::default())
            .unwrap_err()
            .join("; ")
    }

    #[test]
    fn defaults_are_filled_in_as_upstream_does() {
        let config = Config::default();
        let filled = defaults("blue", &spec("10.17.0.9/24"), &config);
        assert_eq!(filled.cidr_block, "10.17.0.0/24");
        assert_eq!(filled.gateway, "10.17.0.1");
        assert_eq!(filled.exclude_ips, ["10.17.0.1"]);
        assert_eq!(filled.protocol, "IPv4");
        assert_eq!(filled.provider, "ovn");
        assert_eq!(filled.vpc, "ovn-cluster");
        assert_eq!(filled.gateway_type, "distributed");
        assert_eq!(filled.enable_lb, Some(true));
        assert!(!filled.default);
        assert_eq!(defaults("blue", &filled, &config), filled, "idempotent");

        let join = defaults("join", &spec("100.64.0.0/16"), &config);
        assert_eq!((join.gateway_type.as_str(), join.enable_lb), ("", None));
        assert!(defaults("ovn-default", &spec("10.16.0.0/16"), &config).default);
    }

    #[test]
    fn the_missing_family_of_a_gateway_is_appended() {
        let mut dual = spec("fd00:10:17::/120,10.17.0.0/24");
        dual.gateway = "10.17.0.254".into();
        dual.exclude_ips = vec![
            "fd00:10:17::1..fd00:10:17::a".into(),
            "10.17.0.1..10.17.0.10".into(),
        ];
        let filled = defaults("blue", &dual, &Config::default());
        assert_eq!(filled.cidr_block, "10.17.0.0/24,fd00:10:17::/120");
        assert_eq!(filled.gateway, "10.17.0.254,fd00:10:17::1");
        assert_eq!(filled.protocol, "Dual");
        assert_eq!(
            filled.exclude_ips,
            [
                "10.17.0.1..10.17.0.10",
                "10.17.0.254",
                "fd00:10:17::1..fd00:10:17::a"
            ]
        );
    }

    #[test]
    fn overlapping_exclusions_become_one_and_neighbours_stay() {
        let mut sub = spec("10.17.0.0/24");
        sub.exclude_ips = vec![
            "10.17.0.20..10.17.0.30".into(),
            "10.17.0.5..10.17.0.10,10.17.0.11".into(),
            "10.17.0.25..10.17.0.40".into(),
        ];
        let effective = resolve("blue", &sub, &Config::default()).unwrap();
        assert_eq!(
            effective.excludes_text(),
            "10.17.0.1,10.17.0.5..10.17.0.10,10.17.0.11,10.17.0.20..10.17.0.40"
        );
    }

    #[test]
    fn every_error_names_its_field_and_value() {
        assert!(errors(&spec("")).contains("cidrBlock is empty"));
        assert!(errors(&spec("10.17.0.0")).contains("10.17.0.0"));
        assert!(errors(&spec("10.17.0.0/32")).contains("one address only"));
        assert!(errors(&spec("169.254.1.0/24")).contains("link-local"));
        assert!(errors(&spec("0.0.0.0/1")).contains("loopback"));
        let services = "10.96.3.0/24".parse().unwrap();
        let conflict = cluster_conflict(services, &Config::default()).unwrap();
        assert!(conflict.contains("addresses of Services"));

        let mut sub = spec("10.17.0.0/24");
        sub.gateway = "10.18.0.1".into();
        assert!(errors(&sub).contains("10.18.0.1 is outside of the CIDR 10.17.0.0/24"));
        sub.gateway = "10.17.0.255".into();
        assert!(errors(&sub).contains("first or the last address"));
        sub.gateway = "fd00::1".into();
        assert!(errors(&sub).contains("no CIDR of its family"));
        sub.gateway = String::new();

        sub.exclude_ips = vec!["10.17.0.9..10.17.0.2".into()];
        assert!(errors(&sub).contains("10.17.0.9"));
        sub.exclude_ips = vec!["10.17.1.1".into()];
        assert!(errors(&sub).contains("10.17.1.1 is outside"));
        sub.exclude_ips = vec![];

        sub.gateway_type = "central".into();
        sub.allow_subnets = vec!["nonsense".into()];
        let both = errors(&sub);
        assert!(
            both.contains("central") && both.contains("nonsense"),
            "{both}"
        );
    }

    #[test]
    fn a_point_to_point_block_is_usable() {
        let effective = resolve("blue", &spec("10.17.0.0/31"), &Config::default()).unwrap();
        assert_eq!(effective.gateways.to_string(), "10.17.0.0");
    }

    #[test]
    fn a_custom_vpc_may_reuse_the_cluster_ranges() {
        let mut sub = spec("10.96.0.0/24");
        sub.vpc = "red".into();
        assert!(resolve("blue", &sub, &Config::default()).is_ok());
        sub.vpc = "blue".into();
        assert!(errors(&sub).contains("name of its VPC"));
        sub.vpc = "blue-blue".into();
        assert!(errors(&sub).contains("called the same"));
    }
}
