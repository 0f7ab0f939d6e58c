//! What is set in a spec and has no effect yet.
//!
//! One line per field; whoever implements a field deletes its line.

use super::{GatewayType, IpSpec, SubnetSpec, VpcSpec};
use crate::keys;

/// A spec that can name those of its fields that are set and have no effect yet.
pub trait Unsupported {
    /// The fields' names as a user writes them; empty if everything has its effect.
    fn unsupported(&self) -> Vec<&'static str>;
}

/// See [`Unsupported::unsupported`].
pub fn unsupported<T: Unsupported>(spec: &T) -> Vec<&'static str> {
    spec.unsupported()
}

/// A field's name and whether a spec sets it to something that we do not do.
type Rule<T> = (&'static str, fn(&T) -> bool);

fn matching<T>(spec: &T, rules: &[Rule<T>]) -> Vec<&'static str> {
    rules
        .iter()
        .filter(|(_, is_set)| is_set(spec))
        .map(|(name, _)| *name)
        .collect()
}

// `enableLb: true`, `disableInterConnection` and `disableGatewayCheck` are what the Go implementation writes by itself
// or permissions to do less; nothing is missing without them.
const SUBNET: &[Rule<SubnetSpec>] = &[
    ("provider", |s| {
        !s.provider.is_empty() && s.provider != keys::PROVIDER
    }),
    ("gatewayType", |s| {
        GatewayType::parse(&s.gateway_type) == Some(GatewayType::Centralized)
    }),
    ("gatewayNode", |s| !s.gateway_node.is_empty()),
    ("gatewayNodeSelectors", |s| {
        !s.gateway_node_selectors.is_empty()
    }),
    ("natOutgoingPolicyRules", |s| {
        !s.nat_outgoing_policy_rules.is_empty()
    }),
    ("externalEgressGateway", |s| {
        !s.external_egress_gateway.is_empty()
    }),
    ("policyRoutingPriority", |s| s.policy_routing_priority != 0),
    ("policyRoutingTableID", |s| s.policy_routing_table_id != 0),
    ("private", |s| s.private),
    ("allowSubnets", |s| !s.allow_subnets.is_empty()),
    ("vlan", |s| !s.vlan.is_empty()),
    ("vips", |s| !s.vips.is_empty()),
    ("logicalGateway", |s| s.logical_gateway),
    ("enableDHCP", |s| s.enable_dhcp),
    ("dhcpV4Options", |s| !s.dhcp_v4_options.is_empty()),
    ("dhcpV6Options", |s| !s.dhcp_v6_options.is_empty()),
    ("enableIPv6RA", |s| s.enable_ipv6_ra),
    ("ipv6RAConfigs", |s| !s.ipv6_ra_configs.is_empty()),
    ("acls", |s| !s.acls.is_empty()),
    ("allowEWTraffic", |s| s.allow_ew_traffic),
    ("u2oInterconnection", |s| s.u2o_interconnection),
    ("u2oInterconnectionIP", |s| {
        !s.u2o_interconnection_ip.is_empty()
    }),
    ("u2oFeatures", |s| s.u2o_features.overlay_only_routing),
    ("enableEcmp", |s| s.enable_ecmp),
    ("enableMulticastSnoop", |s| s.enable_multicast_snoop),
    ("enableExternalLBAddress", |s| s.enable_external_lb_address),
    ("routeTable", |s| !s.route_table.is_empty()),
    ("nodeNetwork", |s| !s.node_network.is_empty()),
];

impl Unsupported for SubnetSpec {
    fn unsupported(&self) -> Vec<&'static str> {
        matching(self, SUBNET)
    }
}

const VPC: &[Rule<VpcSpec>] = &[
    ("staticRoutes", |v| !v.static_routes.is_empty()),
    ("policyRoutes", |v| !v.policy_routes.is_empty()),
    ("vpcPeerings", |v| !v.vpc_peerings.is_empty()),
    ("enableExternal", |v| v.enable_external),
    ("extraExternalSubnets", |v| {
        !v.extra_external_subnets.is_empty()
    }),
    ("enableBfd", |v| v.enable_bfd),
    ("bfdPort", |v| {
        v.bfd_port.as_ref().is_some_and(|port| port.enabled)
    }),
];

impl Unsupported for VpcSpec {
    fn unsupported(&self) -> Vec<&'static str> {
        matching(self, VPC)
    }
}

const IP: &[Rule<IpSpec>] = &[
    ("attachSubnets", |i| !i.attach_subnets.is_empty()),
    ("attachIps", |i| !i.attach_ips.is_empty()),
    ("attachMacs", |i| !i.attach_macs.is_empty()),
];

impl Unsupported for IpSpec {
    fn unsupported(&self) -> Vec<&'static str> {
        matching(self, IP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_subnet_has_nothing_unsupported() {
        let spec = SubnetSpec {
            default: true,
            vpc: "ovn-cluster".into(),
            provider: "ovn".into(),
            gateway_type: "distributed".into(),
            enable_lb: Some(true),
            disable_inter_connection: true,
            nat_outgoing: true,
            mtu: 1400,
            ..SubnetSpec::default()
        };
        assert!(unsupported(&spec).is_empty());
        assert!(unsupported(&VpcSpec::default()).is_empty());
        assert!(unsupported(&IpSpec::default()).is_empty());
    }

    #[test]
    fn set_fields_are_named_as_the_user_writes_them() {
        let spec = SubnetSpec {
            vlan: "v1".into(),
            enable_dhcp: true,
            vpc: "blue".into(),
            ..SubnetSpec::default()
        };
        assert_eq!(unsupported(&spec), ["vlan", "enableDHCP"]);
    }
}
