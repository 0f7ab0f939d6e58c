//! What the watches, the OVSDB session and the kernel tell, taken into the state.
//!
//! A watch says of each object that it was deleted; a list only lacks objects. A list that lacks too much (see
//! [`crate::trust`]) comes from an API server that was emptied or restored: what it lacks stays as it was known.

use std::collections::BTreeMap;
use std::time::Duration;

use api::keys::CHASSIS;
use api::view::{NodeView, PodKey, PodView};
use net::Cidr;
use node::linux::Noticed;
use node::ovs::Touched;
use node::plan::{JOIN_INTERFACE, SubnetFacts};
use ovsdb::client::ReplicaEvent;
use smol_str::SmolStr;
use tokio::time::Instant;
use tracing::warn;

use super::asks::is_mirror;
use super::{Owner, RULES_CALM, Watch};
use crate::kernel::Report;
use crate::leftovers;
use crate::trust;
use crate::views::node_facts;

/// Takes a new list, and keeps what it lacks if that is too much.
fn relist<V>(what: &str, known: &mut BTreeMap<SmolStr, V>, list: BTreeMap<SmolStr, V>) {
    let mut old = std::mem::replace(known, list);
    let all = old.len();
    old.retain(|name, _| !known.contains_key(name));
    if !trust::is_too_much(old.len(), all) {
        return;
    }
    warn!(
        "a new list from the API server lacks {} of {all} {what}: they are kept as they were until it shows them again \
         or says of each that it was deleted",
        old.len()
    );
    known.append(&mut old);
}

impl Owner {
    /// Nodes change often (their kubelets report); the plan is made again only when it may differ.
    pub(super) fn nodes_changed(&mut self, change: Watch<NodeView>) {
        let own = self.parts.node_name.clone();
        match change {
            Watch::Apply(node) if node.name == own => self.set_node(Some(node)),
            Watch::Apply(node) => {
                let ips = node.internal_ips;
                self.stale |= self.other_nodes.insert(node.name, ips) != Some(ips);
            }
            Watch::Delete(_, name) if name == own => self.set_node(None),
            Watch::Delete(_, name) => self.stale |= self.other_nodes.remove(&name).is_some(),
            Watch::Replace(list) => {
                let (mine, others) = list.into_iter().partition::<Vec<_>, _>(|n| n.name == own);
                let others = others.into_iter().map(|n| (n.name, n.internal_ips));
                relist("other Nodes", &mut self.other_nodes, others.collect());
                self.set_node(mine.into_iter().next());
                self.stale = true;
            }
        }
    }

    fn set_node(&mut self, node: Option<NodeView>) {
        // A Node that was deleted and registered again lacks what we wrote to the one before.
        let uid = |node: Option<&NodeView>| node.map(|n| n.uid.clone());
        if uid(node.as_ref()) != uid(self.node.as_ref()) {
            (self.chassis, self.condition) = (None, None);
        }
        // Somebody has edited it.
        let chassis = |node: Option<&NodeView>| node?.annotation(CHASSIS).map(str::to_owned);
        if chassis(node.as_ref()) != chassis(self.node.as_ref()) {
            self.chassis = None;
        }
        self.stale |= node.as_ref().map(node_facts) != self.node.as_ref().map(node_facts);
        self.node = node;
    }

    pub(super) fn subnets_changed(&mut self, change: Watch<SubnetFacts>) {
        self.stale = true;
        match change {
            Watch::Apply(subnet) => {
                self.subnets_listed = true;
                self.subnets.insert(subnet.name.clone(), subnet);
            }
            Watch::Delete(_, name) => {
                self.subnets.remove(&name);
            }
            Watch::Replace(list) => {
                // The controller makes two before anything else: a list without any is not the whole truth, and what a
                // daemon before this one made for them stays.
                self.subnets_listed |= !list.is_empty();
                let list = list.into_iter().map(|s| (s.name.clone(), s));
                relist("Subnets", &mut self.subnets, list.collect());
            }
        }
    }

    pub(super) fn pods_changed(&mut self, change: Watch<PodView>) {
        match change {
            Watch::Apply(pod) => {
                self.went.remove(&pod.key);
                self.pods.insert(pod.key.clone(), pod);
            }
            Watch::Delete(namespace, name) => {
                let pod = self.pods.remove(&PodKey::new(namespace, name));
                self.pod_went(pod);
            }
            Watch::Replace(list) => {
                let new = list.into_iter().map(|p| (p.key.clone(), p)).collect();
                self.pods = new;
                self.pods_listed = true;
                // Nobody said that those which it lacks were deleted: `sweep` is patient with their ports.
                self.sweep_soon(leftovers::FORCED);
                self.went.retain(|key, _| !self.pods.contains_key(key));
            }
        }
    }

    /// The API server says that a pod is no more.
    fn pod_went(&mut self, pod: Option<PodView>) {
        if let Some(pod) = pod.filter(|pod| !is_mirror(pod)) {
            self.went.insert(pod.key, Instant::now());
        }
        // The kubelet's DEL usually comes first; this is for the one that never does.
        self.sweep_soon(leftovers::FORCED);
    }

    pub(super) fn replica(&mut self, event: ReplicaEvent) {
        match event {
            ReplicaEvent::Update(deltas) => {
                let before = self.datapath_known();
                for delta in deltas {
                    let touched = self
                        .ovs
                        .apply(&delta.table, delta.uuid, delta.new.as_deref());
                    if let Touched::Interface(name) = touched {
                        self.look |= name == JOIN_INTERFACE;
                        if delta.new.is_none() {
                            self.sweep_soon(Duration::from_secs(1));
                        }
                    }
                }
                self.stale |= self.datapath_known() != before;
            }
            ReplicaEvent::Synced => self.ovs_problem = None,
            ReplicaEvent::Disconnected(reason) => self.ovs_problem = Some(reason.clone()),
            _ => {}
        }
    }

    pub(super) fn kernel(&mut self, report: Report) {
        self.kernel_busy = false;
        self.operations += report.done;
        if !report.links.is_empty() && self.links != report.links {
            self.links = report.links;
            self.stale = true;
        }
        if report.error.is_none() {
            self.reached = Some(report.plan);
        } else {
            self.look = true;
            self.kernel_retry = Instant::now() + Duration::from_secs(1);
        }
        self.kernel_error = report.error;
    }

    pub(super) fn service_cidrs_changed(&mut self, change: Watch<(SmolStr, Vec<Cidr>)>) {
        self.stale = true;
        match change {
            Watch::Apply((name, cidrs)) => {
                self.service_cidrs.insert(name, cidrs);
            }
            Watch::Delete(_, name) => {
                self.service_cidrs.remove(&name);
            }
            Watch::Replace(list) => {
                relist(
                    "ServiceCIDRs",
                    &mut self.service_cidrs,
                    list.into_iter().collect(),
                );
            }
        }
    }

    pub(super) fn kernel_changed(&mut self, noticed: Noticed) {
        if noticed.links {
            self.look = true;
            self.sweep_soon(Duration::from_secs(1));
        }
        if noticed.rules {
            // `nft flush ruleset`, or Docker or firewalld writing theirs anew: ours may be gone with it.
            let soon = Instant::now().max(self.audited + RULES_CALM);
            self.audit_due = self.audit_due.min(soon);
        }
    }
}
