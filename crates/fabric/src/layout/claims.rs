//! Which blocks of addresses are taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::keys;
use net::{Cidr, DualStack};
use smol_str::SmolStr;

use crate::Config;
use crate::compile::names::{router_port, switch_port};
use crate::spec::Effective;

/// What Subnets have taken.
#[derive(Default)]
pub(super) struct Claims {
    /// Address blocks, by the world that they must be unique in. Blocks of one world never overlap.
    blocks: BTreeMap<(SmolStr, IpAddr), (Cidr, SmolStr)>,
    /// Names of ports between switch and router, which two pairs can share: `a-b` with `c`, and `a` with `b-c`.
    ports: BTreeMap<SmolStr, SmolStr>,
    /// Blocks of the default VPC that are kept for one of the cluster's own Subnets, which is not in force now.
    kept: Vec<(Cidr, SmolStr)>,
}

/// Both ends of a Subnet's link, the router's first; none if OVN has no part in it.
///
/// Ports of switches and of routers share one space of names: each is a `Port_Binding` of the southbound database, and
/// ovn-northd leaves out the second of a name.
pub(super) fn ports(subnet: &Effective) -> impl Iterator<Item = SmolStr> {
    let names = subnet.is_ovn().then(|| {
        [
            router_port(&subnet.vpc, &subnet.name),
            switch_port(&subnet.name, &subnet.vpc),
        ]
    });
    names.into_iter().flatten()
}

impl Claims {
    /// A block that overlaps one of the Subnet's, and whose it is.
    pub(super) fn overlapping(&self, subnet: &Effective) -> Option<(Cidr, &SmolStr)> {
        let world = world(&subnet.provider, &subnet.vpc);
        subnet.cidrs.iter().find_map(|cidr| {
            let to = (world.clone(), cidr.last());
            // Disjoint blocks: only the last one that begins before our end can reach into us.
            self.blocks
                .range((world.clone(), cidr.first().family_floor())..=to)
                .next_back()
                .filter(|(_, (other, _))| other.overlaps(*cidr))
                .map(|(_, (other, owner))| (*other, owner))
        })
    }

    /// The block of the default VPC that holds the address, and whose it is.
    pub(super) fn holding(&self, address: IpAddr, config: &Config) -> Option<(Cidr, &SmolStr)> {
        let world = world(keys::PROVIDER, &config.cluster_router);
        self.blocks
            .range((world.clone(), address.family_floor())..=(world, address))
            .next_back()
            .filter(|(_, (cidr, _))| cidr.contains(address))
            .map(|(_, (cidr, owner))| (*cidr, owner))
    }

    pub(super) fn insert(&mut self, subnet: &Effective) {
        let world = world(&subnet.provider, &subnet.vpc);
        for cidr in subnet.cidrs {
            self.blocks
                .insert((world.clone(), cidr.first()), (cidr, subnet.name.clone()));
        }
        for port in ports(subnet) {
            self.ports.insert(port, subnet.name.clone());
        }
    }

    pub(super) fn remove(&mut self, subnet: &Effective) {
        let world = world(&subnet.provider, &subnet.vpc);
        for cidr in subnet.cidrs {
            let key = (world.clone(), cidr.first());
            let owner = self.blocks.get(&key).map(|(_, owner)| owner);
            if owner == Some(&subnet.name) {
                self.blocks.remove(&key);
            }
        }
        for port in ports(subnet) {
            if self.ports.get(&port) == Some(&subnet.name) {
                self.ports.remove(&port);
            }
        }
    }

    /// A port that the Subnet would share with another one, and whose it is.
    pub(super) fn sharing(&self, subnet: &Effective) -> Option<(SmolStr, &SmolStr)> {
        ports(subnet).find_map(|port| {
            let owner = self.ports.get(&port)?;
            Some((port, owner))
        })
    }

    /// Keeps blocks for a Subnet. Blocks that others have stay theirs.
    pub(super) fn keep(&mut self, cidrs: DualStack<Cidr>, subnet: &SmolStr) {
        let blocks = cidrs.into_iter().map(|cidr| (cidr, subnet.clone()));
        self.kept.extend(blocks);
    }

    /// A kept block that overlaps the CIDR, and for which Subnet it is kept.
    pub(super) fn kept(&self, cidr: Cidr) -> Option<(Cidr, &SmolStr)> {
        let (block, owner) = self.kept.iter().find(|(block, _)| block.overlaps(cidr))?;
        Some((*block, owner))
    }

    /// Whether nothing of the Subnet's is taken.
    pub(super) fn admit(&self, subnet: &Effective) -> bool {
        self.overlapping(subnet).is_none() && self.sharing(subnet).is_none()
    }
}

/// Provider and VPC: two Subnets that differ in one of them may have the same addresses.
fn world(provider: &str, vpc: &str) -> SmolStr {
    smol_str::format_smolstr!("{provider}/{vpc}")
}

/// The lowest address of an address's family: where a range query over one family begins.
trait FamilyFloor {
    fn family_floor(&self) -> IpAddr;
}

impl FamilyFloor for IpAddr {
    fn family_floor(&self) -> IpAddr {
        match self {
            Self::V4(_) => Self::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6(_) => Self::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}
