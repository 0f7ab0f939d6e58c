//! Settings of the engine.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

/// What the engine must be told from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// This process, as in the Lease; written beside the epoch for people to read.
    pub identity: SmolStr,
    /// Uid of the namespace `kube-system`: the identity of the cluster. Row UUIDs and MAC addresses are derived from it.
    pub cluster: Uuid,
    /// Settings of the network.
    pub fabric: fabric::Config,
    /// Operations in one northbound transaction: bounds its size and northd's work for it.
    pub batch_ops: usize,
    /// How many deletions stop a flush.
    pub brakes: ovn::Brakes,
    /// Kubernetes writes under way at once; more wait. Bounds what an API server has to bear after a restart.
    pub kube_writes: usize,
    /// Shortest time between two status writes of one object.
    pub status_interval: Duration,
    /// From the end of one audit to the begin of the next.
    pub audit_interval: Duration,
    /// Whether a flush may delete an unusual share of a table (`--allow-mass-delete`).
    pub allow_mass_delete: bool,
    /// Whether a network of the Go implementation is taken over that uses what this version does not have
    /// (`--accept-unsupported`).
    pub accept_unsupported: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: SmolStr::new_static("kube-ovn-controller"),
            cluster: Uuid::nil(),
            fabric: fabric::Config::default(),
            batch_ops: 500,
            brakes: ovn::Brakes::default(),
            kube_writes: 64,
            status_interval: Duration::from_secs(1),
            audit_interval: Duration::from_mins(10),
            allow_mass_delete: false,
            accept_unsupported: false,
        }
    }
}
