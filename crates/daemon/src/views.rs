//! From Kubernetes objects to the facts that the node plan is made of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::keys;
use api::v1::{ConditionStatus, Subnet, SubnetSpec, condition_type};
use api::view::NodeView;
use net::{DualStack, parse_ip};
use node::plan::{GatewayType, JoinPort, NodeFacts, SubnetFacts};
use serde::Deserialize;
use smol_str::SmolStr;

/// The Node as the plan needs it.
pub fn node_facts(node: &NodeView) -> NodeFacts {
    NodeFacts {
        name: node.name.clone(),
        internal_ips: node.internal_ips,
        userspace_datapath: node
            .labels
            .get(keys::OVS_DP_TYPE)
            .is_some_and(|value| value == "userspace"),
        tunnel_interface: node.annotation(keys::TUNNEL_INTERFACE).map(SmolStr::new),
        join: JoinPort::from_annotations(&node.annotations),
    }
}

/// The record that kube-ovn-controller keeps of the spec that is in effect; the user's own spec may be a later one that
/// was refused.
#[derive(Debug, Deserialize)]
struct Accepted {
    uid: String,
    spec: SubnetSpec,
}

const ACCEPTED: &str = "ovn.kubernetes.io/accepted";

/// The Subnet as the plan needs it, by the spec in effect. `None` while the controller has accepted none: a refused
/// Subnet (it may overlap with anything) gets no routes here.
///
/// Upstream's controller keeps no record; with it, the spec counts once the Subnet is `Ready`.
pub fn subnet_facts(subnet: &Subnet, node: &str) -> Option<SubnetFacts> {
    let meta = &subnet.metadata;
    let accepted = meta
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(ACCEPTED))
        .and_then(|text| serde_json::from_str::<Accepted>(text).ok())
        .filter(|accepted| meta.uid.as_deref() == Some(accepted.uid.as_str()));
    let ready = subnet.status.as_ref().is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|c| c.kind == condition_type::READY && c.status == ConditionStatus::True)
    });
    let spec = match &accepted {
        Some(accepted) => &accepted.spec,
        None if ready => &subnet.spec,
        None => return None,
    };
    let cidrs: DualStack<_> = spec.cidr_block.parse().ok()?;
    let active: BTreeSet<&str> = subnet
        .status
        .as_ref()
        .map(|status| status.activate_gateway.split(',').map(str::trim).collect())
        .unwrap_or_default();
    let gateway_type = match api::v1::GatewayType::parse(&spec.gateway_type) {
        Some(api::v1::GatewayType::Centralized) => GatewayType::Centralized,
        _ => GatewayType::Distributed,
    };
    Some(SubnetFacts {
        name: meta.name.as_deref().unwrap_or_default().into(),
        vpc: if spec.vpc.is_empty() {
            keys::DEFAULT_VPC.into()
        } else {
            spec.vpc.as_str().into()
        },
        cidrs: cidrs.iter().copied().collect(),
        vlan: !spec.vlan.is_empty(),
        logical_gateway: spec.logical_gateway,
        u2o_interconnection: spec.u2o_interconnection,
        nat_outgoing: spec.nat_outgoing,
        gateway_type,
        egress_ips: egress_ips(spec, node, &active),
        mtu: (spec.mtu > 0).then_some(spec.mtu),
    })
}

/// Elements `node:address` of `gatewayNode` that name this node. With ECMP every listed node takes part, otherwise the
/// active one.
fn egress_ips(spec: &SubnetSpec, node: &str, active: &BTreeSet<&str>) -> Vec<IpAddr> {
    spec.gateway_node
        .split(',')
        .map(str::trim)
        .filter_map(|item| {
            let rest = item.strip_prefix(node)?.strip_prefix(':')?;
            (spec.enable_ecmp || active.contains(node)).then_some(rest)
        })
        .flat_map(|ips| ips.split(';'))
        .filter_map(|ip| parse_ip(ip.trim()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(json: serde_json::Value) -> Subnet {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_refused_subnet_does_not_count_and_an_accepted_one_stays() {
        let refused = subnet(serde_json::json!({
            "apiVersion": "kubeovn.io/v1", "kind": "Subnet",
            "metadata": {"name": "s", "uid": "u1"},
            "spec": {"cidrBlock": "0.0.0.0/0", "gateway": "0.0.0.1"}
        }));
        assert_eq!(subnet_facts(&refused, "n1"), None);
        let edited = subnet(serde_json::json!({
            "apiVersion": "kubeovn.io/v1", "kind": "Subnet",
            "metadata": {"name": "s", "uid": "u1", "annotations": {
                "ovn.kubernetes.io/accepted": r#"{"uid":"u1","spec":{"cidrBlock":"10.17.0.0/16","natOutgoing":true}}"#
            }},
            "spec": {"cidrBlock": "0.0.0.0/0"}
        }));
        let facts = subnet_facts(&edited, "n1").unwrap();
        assert_eq!(facts.cidrs[0].to_string(), "10.17.0.0/16");
        assert!(facts.nat_outgoing);
        // A record of an earlier object of that name says nothing.
        let mut other = edited;
        other.metadata.uid = Some("u2".into());
        assert_eq!(subnet_facts(&other, "n1"), None);
    }

    #[test]
    fn upstreams_ready_subnet_counts() {
        let ready = subnet(serde_json::json!({
            "apiVersion": "kubeovn.io/v1", "kind": "Subnet",
            "metadata": {"name": "s", "uid": "u1"},
            "spec": {"cidrBlock": "10.17.0.0/16", "gatewayType": "centralized", "gatewayNode": "n1:192.0.2.7,n2", "natOutgoing": true},
            "status": {"activateGateway": "n1", "conditions": [{"type": "Ready", "status": "True"}]}
        }));
        let facts = subnet_facts(&ready, "n1").unwrap();
        assert_eq!(facts.egress_ips[0].to_string(), "192.0.2.7");
        assert!(subnet_facts(&ready, "n2").unwrap().egress_ips.is_empty());
    }
}
