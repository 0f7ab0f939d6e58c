//! Names of annotations, labels and finalizers. They are the contract with users and tools, so they never change.
//!
//! Where a key exists on several kinds (`logical_switch` on pods, namespaces and nodes), it has one constant.

use smol_str::SmolStr;

/// Every annotation of the primary network starts with this.
pub const PREFIX: &str = "ovn.kubernetes.io/";
/// Domain of the annotations of attached networks: `<nad>.<namespace>.ovn.kubernetes.io/<key>`.
const ATTACHED_DOMAIN: &str = ".ovn.kubernetes.io";

/// Finalizer that the controller keeps on its custom resources.
pub const FINALIZER: &str = "kubeovn.io/kube-ovn-controller";
/// How releases before 1.13 spelled [`FINALIZER`]; replaced when it is met.
pub const FINALIZER_OLD: &str = "kube-ovn-controller";
/// The field manager of everything that the controller writes (metadata.managedFields); also upstream's.
pub const FIELD_MANAGER: &str = "kube-ovn-controller";
/// The field manager of the node daemon.
pub const FIELD_MANAGER_DAEMON: &str = "kube-ovn-daemon";

/// The provider of the primary network (`subnet.spec.provider`).
pub const PROVIDER: &str = "ovn";
/// The default VPC, and its logical router.
pub const DEFAULT_VPC: &str = "ovn-cluster";
/// The default Subnet's name unless a flag says otherwise.
pub const DEFAULT_SUBNET: &str = "ovn-default";
/// The join Subnet (nodes' `ovn0`) unless a flag says otherwise.
pub const JOIN_SUBNET: &str = "join";

macro_rules! annotations {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $value;)*
        /// All annotation keys of the primary network, for [`intern`]. Kept sorted (a test checks it).
        static KNOWN: &[&str] = &[$($value),*];
    };
}

annotations! {
    /// Pod, out: `true` once addresses are allocated.
    ALLOCATED = "ovn.kubernetes.io/allocated";
    /// Namespace, in (up to v0.5): CIDRs that may reach a private subnet.
    ALLOW = "ovn.kubernetes.io/allow";
    /// Node, out by the daemon: the chassis (OVS system-id).
    CHASSIS = "ovn.kubernetes.io/chassis";
    /// Namespace in and out, pod and node out: CIDR or `v4,v6`.
    CIDR = "ovn.kubernetes.io/cidr";
    /// Pod, in: whether this network owns the default route.
    DEFAULT_ROUTE = "ovn.kubernetes.io/default_route";
    /// Pod and node, in: Mbit.
    EGRESS_BURST = "ovn.kubernetes.io/egress_burst";
    /// Pod and node, in: Mbit/s from the pod.
    EGRESS_RATE = "ovn.kubernetes.io/egress_rate";
    /// Namespace, in and out: `a,b..c`.
    EXCLUDE_IPS = "ovn.kubernetes.io/exclude_ips";
    /// Namespace in, pod and node out: address or `v4,v6`.
    GATEWAY = "ovn.kubernetes.io/gateway";
    /// Namespace, in: empty or `true` masquerades, `false` routes.
    GATEWAY_NAT = "ovn.kubernetes.io/gateway_nat";
    /// Namespace, in: node of a centralized gateway.
    GATEWAY_NODE = "ovn.kubernetes.io/gateway_node";
    /// Namespace, in: `distributed` or `centralized`.
    GATEWAY_TYPE = "ovn.kubernetes.io/gateway_type";
    /// Pod and node, in: Mbit.
    INGRESS_BURST = "ovn.kubernetes.io/ingress_burst";
    /// Pod and node, in: Mbit/s towards the pod.
    INGRESS_RATE = "ovn.kubernetes.io/ingress_rate";
    /// Pod in (static address) and out, node out: address or `v4,v6`.
    IP_ADDRESS = "ovn.kubernetes.io/ip_address";
    /// Pod, in: `ipv4` or `ipv6`, one family of a dual-stack subnet.
    IP_FAMILY = "ovn.kubernetes.io/ip_family";
    /// Pod in: list of addresses or an IPPool; namespace out.
    IP_POOL = "ovn.kubernetes.io/ip_pool";
    /// Label of an IP: `true` is a user's reservation, `false` belongs to a pod.
    IP_RESERVED = "ovn.kubernetes.io/ip_reserved";
    /// Pod, out: the VPC.
    LOGICAL_ROUTER = "ovn.kubernetes.io/logical_router";
    /// Namespace in and out, pod in and out, node out: the Subnet.
    LOGICAL_SWITCH = "ovn.kubernetes.io/logical_switch";
    /// Pod in (static MAC) and out, node out.
    MAC_ADDRESS = "ovn.kubernetes.io/mac_address";
    /// Pod, in: mirror this pod's traffic.
    MIRROR = "ovn.kubernetes.io/mirror";
    /// Label of an IP: the node.
    NODE_NAME = "ovn.kubernetes.io/node-name";
    /// Node, in: JSON map of network name to encapsulation address.
    NODE_NETWORKS = "ovn.kubernetes.io/node_networks";
    /// Node label, in: `userspace` where OVS runs the userspace datapath.
    OVS_DP_TYPE = "ovn.kubernetes.io/ovs_dp_type";
    /// Pod, out: `veth-pair`.
    POD_NIC_TYPE = "ovn.kubernetes.io/pod_nic_type";
    /// Node, out: the node's logical switch port.
    PORT_NAME = "ovn.kubernetes.io/port_name";
    /// Pod, in: restrict the port to its addresses.
    PORT_SECURITY = "ovn.kubernetes.io/port_security";
    /// Namespace, in: close the subnet to others.
    PRIVATE = "ovn.kubernetes.io/private";
    /// Pod, out: `true` once the port and its policies exist.
    ROUTED = "ovn.kubernetes.io/routed";
    /// Pod, in: JSON list of `{dst, gw}`.
    ROUTES = "ovn.kubernetes.io/routes";
    /// Pod, in: security groups.
    SECURITY_GROUPS = "ovn.kubernetes.io/security_groups";
    /// Label of an IP: its Subnet.
    SUBNET = "ovn.kubernetes.io/subnet";
    /// Label of a Subnet that was made from a namespace's annotations; its value is that namespace. While it stands the
    /// namespace wins; without it the Subnet's own spec does.
    SUBNET_FROM_NAMESPACE = "ovn.kubernetes.io/subnet_from_namespace";
    /// Node, in: name or pattern of the encapsulation interface.
    TUNNEL_INTERFACE = "ovn.kubernetes.io/tunnel_interface";
}

/// Value of [`POD_NIC_TYPE`] for an ordinary pod.
pub const NIC_TYPE_VETH: &str = "veth-pair";
/// Value of annotations and labels that are switches.
pub const TRUE: &str = "true";
/// The opposite of [`TRUE`].
pub const FALSE: &str = "false";

/// Namespace annotations that a user may set (up to v0.5 they made subnets; see [`crate::view::NamespaceView::inputs`]).
pub const NAMESPACE_INPUTS: &[&str] = &[
    ALLOW,
    CIDR,
    EXCLUDE_IPS,
    GATEWAY,
    GATEWAY_NAT,
    GATEWAY_NODE,
    GATEWAY_TYPE,
    LOGICAL_SWITCH,
    PRIVATE,
];

/// Whether a key belongs to Kube-OVN: `ovn.kubernetes.io/x`, or `<nad>.<namespace>.ovn.kubernetes.io/x` of an attached network.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX)
        || key
            .split_once('/')
            .is_some_and(|(domain, _)| domain.ends_with(ATTACHED_DOMAIN))
}

/// The key as a string that costs no allocation if it is a known one: 100 000 pods carry the same ten keys.
pub fn intern(key: &str) -> SmolStr {
    match KNOWN.binary_search(&key) {
        Ok(index) => SmolStr::new_static(KNOWN[index]),
        Err(_) => SmolStr::new(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_sorted_and_ours() {
        assert!(KNOWN.is_sorted());
        assert!(KNOWN.iter().all(|key| is_ours(key)));
    }

    #[test]
    fn keys_of_attached_networks_are_ours() {
        assert!(is_ours("net1.default.ovn.kubernetes.io/ip_address"));
        assert!(!is_ours("kubernetes.io/hostname"));
        assert!(!is_ours("evilovn.kubernetes.io/ip_address"));
        assert!(!is_ours("ovn.kubernetes.io"));
        assert!(!is_ours("example.com/x.ovn.kubernetes.io"));
    }

    #[test]
    fn interning_keeps_the_text() {
        assert_eq!(intern(IP_ADDRESS), IP_ADDRESS);
        assert!(!intern(IP_ADDRESS).is_heap_allocated());
        assert_eq!(
            intern("net1.default.ovn.kubernetes.io/cidr"),
            "net1.default.ovn.kubernetes.io/cidr"
        );
    }
}
