//! From a unit to its rows: one module per feature.
//!
//! | module | unit | rows |
//! |---|---|---|
//! | `options` | Global | `NB_Global` options |
//! | `vpc` | Vpc | logical router, default routes |
//! | `subnet` | Subnet | logical switch, router port, the policy that keeps its traffic inside |
//! | `node` | Node | port in the join switch, port group, the way to the node |
//! | `gateway` | Gateway | port group of a subnet's pods on a node, their way out |
//! | `namespace` | Namespace | none: annotations, Subnets to make |
//! | `port` | Port | a pod's port and its memberships |

mod gateway;
pub(crate) mod names;
mod namespace;
mod node;
mod options;
mod port;
mod subnet;
mod vpc;

use net::{DualStack, Family};
use ovn::matching::Match;
use ovn::{Fragment, Ref, nb};
use smol_str::ToSmolStr;

use crate::{KubeState, Problem, Unit, World};

/// What a unit comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Rows of OVN, and contributions to rows of other units.
    pub fragment: Fragment,
    /// What Kubernetes should hold.
    pub desired: Vec<KubeState>,
    /// What is wrong with the unit's objects.
    pub problems: Vec<Problem>,
}

impl Compiled {
    /// Nothing at all: the unit is gone.
    pub fn is_empty(&self) -> bool {
        self.fragment.is_empty() && self.desired.is_empty() && self.problems.is_empty()
    }
}

/// Compiles a unit. A unit that does not exist (any more) comes to nothing.
///
/// A fragment never contributes to a row that no unit states: what its parent lacks, it leaves out, and the parent's
/// arrival makes the unit dirty.
pub fn compile(unit: &Unit, world: &World) -> Compiled {
    match unit {
        Unit::Global => options::compile(world),
        Unit::Vpc(name) => vpc::compile(name, world),
        Unit::Subnet(name) => subnet::compile(name, world),
        Unit::Node(name) => node::compile(name, world),
        Unit::Gateway { subnet, node } => gateway::compile(subnet, node, world),
        Unit::Namespace(name) => namespace::compile(name, world),
        Unit::Port(name) => port::compile(name, world),
    }
}

/// Priorities of router policies, the Go implementation's.
mod priority {
    /// Traffic that stays in the VPC is not sent out.
    pub const INSIDE: i64 = 31000;
    /// The way to a node, and to its node-local DNS cache.
    pub const NODE: i64 = 30000;
    /// The way out of a subnet.
    pub const GATEWAY: i64 = 29000;
}

type Ids<'a> = &'a [(&'static str, &'a str)];

/// Adds a policy that lets traffic take its ordinary route.
fn allow(
    fragment: &mut Fragment,
    router: &Ref<nb::LogicalRouter>,
    priority: i64,
    matches: Match,
    ids: Ids<'_>,
) {
    let policy = nb::LogicalRouterPolicy {
        priority,
        r#match: matches.into(),
        action: nb::LogicalRouterPolicyAction::Allow,
        external_ids: ovn::map(ids.iter().copied()),
        ..Default::default()
    };
    fragment.child(router, nb::LogicalRouter::POLICIES, policy);
}

/// Adds a policy that sends traffic to a next hop.
fn reroute(
    fragment: &mut Fragment,
    router: &Ref<nb::LogicalRouter>,
    priority: i64,
    matches: Match,
    nexthop: std::net::IpAddr,
    ids: Ids<'_>,
) {
    let policy = nb::LogicalRouterPolicy {
        priority,
        r#match: matches.into(),
        action: nb::LogicalRouterPolicyAction::Reroute,
        nexthops: ovn::set([nexthop.to_smolstr()]),
        external_ids: ovn::map(ids.iter().copied()),
        ..Default::default()
    };
    fragment.child(router, nb::LogicalRouter::POLICIES, policy);
}

/// The families that both sides have, IPv4 first.
fn common<A, B>(a: &DualStack<A>, b: &DualStack<B>) -> impl Iterator<Item = Family> {
    Family::ALL
        .into_iter()
        .filter(|family| a.get(*family).is_some() && b.get(*family).is_some())
}
