//! Which blocks of addresses are taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::keys;
use net::Cidr;
use smol_str::SmolStr;

use crate::Config;
use crate::spec::Effective;

/// Address blocks that are taken, by the world that they must be unique in. Blocks of one world never overlap.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<(SmolStr, IpAddr), (Cidr, SmolStr)>);

impl Claims {
    /// A block that overlaps one of the Subnet's, and whose it is.
    pub(super) fn overlapping(&self, subnet: &Effective) -> Option<(Cidr, &SmolStr)> {
        let world = world(&subnet.provider, &subnet.vpc);
        subnet.cidrs.iter().find_map(|cidr| {
            let to = (world.clone(), cidr.last());
            // Disjoint blocks: only the last one that begins before our end can reach into us.
            self.0
                .range((world.clone(), cidr.first().family_floor())..=to)
                .next_back()
                .filter(|(_, (other, _))| other.overlaps(*cidr))
                .map(|(_, (other, owner))| (*other, owner))
        })
    }

    /// The block of the default VPC that holds the address, and whose it is.
    pub(super) fn holding(&self, address: IpAddr, config: &Config) -> Option<(Cidr, &SmolStr)> {
        let world = world(keys::PROVIDER, &config.cluster_router);
        self.0
            .range((world.clone(), address.family_floor())..=(world, address))
            .next_back()
            .filter(|(_, (cidr, _))| cidr.contains(address))
            .map(|(_, (cidr, owner))| (*cidr, owner))
    }

    pub(super) fn insert(&mut self, subnet: &Effective) {
        let world = world(&subnet.provider, &subnet.vpc);
        for cidr in subnet.cidrs {
            self.0
                .insert((world.clone(), cidr.first()), (cidr, subnet.name.clone()));
        }
    }

    pub(super) fn remove(&mut self, subnet: &Effective) {
        let world = world(&subnet.provider, &subnet.vpc);
        for cidr in subnet.cidrs {
            let key = (world.clone(), cidr.first());
            if self
                .0
                .get(&key)
                .is_some_and(|(_, owner)| *owner == subnet.name)
            {
                self.0.remove(&key);
            }
        }
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
