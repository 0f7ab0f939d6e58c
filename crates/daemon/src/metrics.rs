//! Metrics; names as upstream's where they mean the same.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabels {
    node_name: String,
    method: &'static str,
    status_code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node_name: String,
}

type Seconds = Counter<f64, AtomicU64>;

/// The daemon's metrics.
#[derive(Debug)]
pub struct Metrics {
    node: String,
    registry: Registry,
    cni: Family<OpLabels, Histogram, fn() -> Histogram>,
    wait_address: Family<NodeLabels, Seconds>,
    wait_connectivity: Family<NodeLabels, Seconds>,
    ready: Gauge,
    waiting: Gauge,
    pods: Gauge,
    operations: Gauge,
}

impl Metrics {
    pub fn new(node: &str) -> Self {
        // 1 ms to half a second, as upstream; ours go further, since an ADD may wait.
        let cni = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.001, 2.0, 16))) as fn() -> Histogram,
        );
        let (wait_address, wait_connectivity) = (Family::default(), Family::default());
        let (ready, waiting, pods, operations) = Default::default();
        let mut registry = Registry::default();
        registry.register(
            "cni_op_latency_seconds",
            "Time that CNI requests took",
            Clone::clone(&cni),
        );
        registry.register(
            "cni_wait_address_seconds",
            "Time that ADD waited for kube-ovn-controller to allocate addresses and set up the port",
            Clone::clone(&wait_address),
        );
        registry.register(
            "cni_wait_connectivity_seconds",
            "Time that ADD waited for OVN to install the port",
            Clone::clone(&wait_connectivity),
        );
        registry.register(
            "kube_ovn_daemon_ready",
            "1 if the node is completely set up",
            Clone::clone(&ready),
        );
        registry.register(
            "kube_ovn_daemon_waiting",
            "Number of things that the daemon waits for; /readyz names them",
            Clone::clone(&waiting),
        );
        registry.register(
            "kube_ovn_daemon_pods",
            "Pods of this node that are not in the host's network",
            Clone::clone(&pods),
        );
        registry.register(
            "kube_ovn_daemon_kernel_operations",
            "Changes made to links, addresses, routes, sysctls and nftables of the node since the start",
            Clone::clone(&operations),
        );
        Self {
            node: node.to_owned(),
            registry,
            cni,
            wait_address,
            wait_connectivity,
            ready,
            waiting,
            pods,
            operations,
        }
    }

    pub fn cni(&self, method: &'static str, status: u16, time: Duration) {
        let labels = OpLabels {
            node_name: self.node.clone(),
            method,
            status_code: status.to_string(),
        };
        self.cni.get_or_create(&labels).observe(time.as_secs_f64());
    }

    fn node_labels(&self) -> NodeLabels {
        NodeLabels {
            node_name: self.node.clone(),
        }
    }

    pub fn waited_for_address(&self, time: Duration) {
        self.wait_address
            .get_or_create(&self.node_labels())
            .inc_by(time.as_secs_f64());
    }

    pub fn waited_for_ovn(&self, time: Duration) {
        self.wait_connectivity
            .get_or_create(&self.node_labels())
            .inc_by(time.as_secs_f64());
    }

    /// The text form, with the owner's figures of this moment.
    pub fn encode(&self, readiness: &crate::owner::Readiness) -> Result<String, fmt::Error> {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.ready.set(i64::from(readiness.waiting.is_empty()));
        self.waiting.set(number(readiness.waiting.len()));
        self.pods.set(number(readiness.pods));
        self.operations
            .set(i64::try_from(readiness.operations).unwrap_or(i64::MAX));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        let metrics = Metrics::new("n1");
        metrics.cni(api::cni::PATH_ADD, 200, Duration::from_millis(30));
        metrics.waited_for_address(Duration::from_secs(1));
        let text = metrics
            .encode(&crate::owner::Readiness {
                waiting: vec!["x".into()],
                operations: 3,
                pods: 2,
                serving: true,
            })
            .unwrap();
        for line in [
            r#"cni_op_latency_seconds_count{node_name="n1",method="/api/v1/add",status_code="200"} 1"#,
            r#"cni_wait_address_seconds_total{node_name="n1"} 1"#,
            "kube_ovn_daemon_ready 0",
            "kube_ovn_daemon_pods 2",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
