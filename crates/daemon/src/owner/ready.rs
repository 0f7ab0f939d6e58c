//! What is still missing, in words.

use node::plan::INTEGRATION_BRIDGE;

use super::{Owner, STUCK};

impl Owner {
    /// What keeps pods from being attached.
    pub(super) fn unready(&self) -> Vec<String> {
        let mut waiting: Vec<String> = self.cni_problem.iter().cloned().collect();
        if let Some(problem) = &self.ovs_problem {
            waiting.push(format!("Open vSwitch's database: {problem}"));
        } else if self.ovs.external_ids().is_none() {
            waiting.push("Open vSwitch's database to be initialised (ovs-vsctl init)".into());
        } else if !self.ovs.has_integration_bridge() {
            waiting.push(format!(
                "bridge {INTEGRATION_BRIDGE} (made by ovn-controller)"
            ));
        }
        for (kind, problem) in &self.api {
            waiting.push(format!("the API server ({kind}): {problem}"));
        }
        if self.node.is_none() && !self.api.contains_key("nodes") {
            waiting.push(format!("Node {}", self.parts.node_name));
        }
        if !self.pods_listed && !self.api.contains_key("pods") {
            waiting.push("the list of this node's pods from the API server".into());
        }
        if self.node.is_some() {
            waiting.extend(self.compiled.waiting.iter().map(|w| w.0.clone()));
        }
        if self.compiled.plan.join_port.is_some() {
            waiting.extend(self.join_problem());
        }
        if self.kernel_busy && self.kernel_since.elapsed() > STUCK {
            waiting.push("the kernel thread, which is stuck (in nft or iptables?)".into());
        }
        if let Some(error) = self.kernel_error.as_ref().or(self.ovs_error.as_ref()) {
            waiting.push(error.clone());
        }
        waiting
    }

    /// What keeps the node from being complete.
    pub(super) fn waiting(&self) -> Vec<String> {
        let mut waiting = self.unready();
        if waiting.is_empty() && self.parts.conflist.is_some() {
            match &self.conflist {
                Some(Err(problem)) => waiting.push(problem.clone()),
                None => waiting.push("the CNI configuration list".into()),
                Some(Ok(())) => {}
            }
        }
        if waiting.is_empty() {
            match &self.gateway {
                Some(Err(problem)) => waiting.push(problem.clone()),
                None => waiting.push("an answer of the join subnet's gateway".into()),
                Some(Ok(())) => {}
            }
        }
        waiting
    }
}
