//! What must be remembered of an older installation before its rows become ours.
//!
//! Pods have the MAC of their gateway in their neighbour tables. A router port that the Go implementation made keeps its
//! MAC: the Subnet remembers it first, and until that is stored the Subnet's rows are not touched. (Afterwards nothing
//! would tell an adopted MAC from one that somebody changed by hand.)

use net::Mac;
use ovn::Owner;
use smol_str::SmolStr;

use crate::Engine;
use crate::event::{Kind, ObjectKey};

impl Engine {
    /// Looks whether a Subnet has a MAC to remember.
    pub(crate) fn note_adoption(&mut self, subnet: &SmolStr) {
        if let Some(mac) = self.foreign_mac(subnet) {
            self.adopting.insert(subnet.clone(), mac);
            self.touch(ObjectKey::cluster(Kind::Subnet, subnet.clone()));
        } else if self.adopting.remove(subnet).is_some() {
            self.nb.stale();
        }
    }

    fn foreign_mac(&self, subnet: &str) -> Option<Mac> {
        let derived = self.world.gateway_mac(subnet)?;
        if !self.is_active() || self.world.subnet_record(subnet)?.gateway_mac.is_some() {
            return None;
        }
        let port = self.world.router_port(subnet)?;
        let (_, owner, row) = self.nb.diff.row(&port)?;
        let mac = row.str("mac").parse().ok()?;
        (owner == Owner::Vendor && mac != derived).then_some(mac)
    }
}
