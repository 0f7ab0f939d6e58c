use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use net::{Cidr, DualStack, Family, IpRange, Mac};
use serde::{Deserialize, Serialize};

use crate::space::Space;
use crate::{IpamError, PortName, SubnetName};

/// What a subnet has to give. Comes from the Subnet resource; validation is not the allocator's business, so anything
/// is taken: exclusions outside the CIDR have no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// The CIDRs. A subnet without any (an underlay without addresses) gives out MACs alone.
    pub cidrs: DualStack<Cidr>,
    /// The gateways; never given out.
    pub gateways: DualStack<IpAddr>,
    /// Addresses that only a static request gets, of both families.
    pub excludes: Vec<IpRange>,
    /// The MAC of the subnet's router port; never given out.
    pub gateway_mac: Option<Mac>,
}

/// A lease that its subnet would not give out today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// The port that holds it.
    pub owner: PortName,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The address lies outside the CIDR, or is its first or last.
    OutsideCidr(IpAddr),
    /// The address became the gateway's.
    IsGateway(IpAddr),
    /// The MAC became the gateway's.
    IsGatewayMac(Mac),
}

/// The state of one subnet.
#[derive(Clone, Debug)]
pub(crate) struct Subnet {
    /// None before the subnet is known (leases were restored first) and after it was removed.
    pool: Option<SubnetPool>,
    v4: Space,
    v6: Space,
    macs: BTreeMap<Mac, PortName>,
    /// Ports with a lease here.
    owners: BTreeSet<PortName>,
}

impl Subnet {
    pub(crate) const fn new() -> Self {
        Self {
            pool: None,
            v4: Space::new(Family::V4),
            v6: Space::new(Family::V6),
            macs: BTreeMap::new(),
            owners: BTreeSet::new(),
        }
    }

    pub(crate) const fn pool(&self) -> Option<&SubnetPool> {
        self.pool.as_ref()
    }

    /// Sets the pool, or takes it away. Leases stay.
    pub(crate) fn set_pool(&mut self, pool: Option<SubnetPool>) {
        if self.pool == pool {
            return;
        }
        let none = SubnetPool::default();
        let now = pool.as_ref().unwrap_or(&none);
        for family in Family::ALL {
            let cidr = now.cidrs.get(family).copied();
            let gateway = now.gateways.get(family).copied();
            self.space_mut(family)
                .configure(cidr, gateway, &now.excludes);
        }
        self.pool = pool;
    }

    pub(crate) const fn space(&self, family: Family) -> &Space {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) const fn space_mut(&mut self, family: Family) -> &mut Space {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    pub(crate) fn mac_holder(&self, mac: Mac) -> Option<&PortName> {
        self.macs.get(&mac)
    }

    fn is_gateway_mac(&self, mac: Mac) -> bool {
        self.pool.as_ref().and_then(|pool| pool.gateway_mac) == Some(mac)
    }

    /// Whether the port may have the MAC that it names.
    pub(crate) fn check_mac(
        &self,
        subnet: &SubnetName,
        owner: &str,
        mac: Mac,
    ) -> Result<(), IpamError> {
        if !mac.is_unicast() {
            return Err(IpamError::MacNotUnicast { mac });
        }
        if self.is_gateway_mac(mac) {
            return Err(IpamError::GatewayMac {
                mac,
                subnet: subnet.clone(),
            });
        }
        self.check_mac_holder(subnet, owner, mac)
    }

    /// Whether nobody else holds the MAC.
    pub(crate) fn check_mac_holder(
        &self,
        subnet: &SubnetName,
        owner: &str,
        mac: Mac,
    ) -> Result<(), IpamError> {
        match self.macs.get(&mac) {
            Some(holder) if holder != owner => Err(IpamError::MacTaken {
                mac,
                subnet: subnet.clone(),
                holder: holder.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// A MAC for the port: a hash of the cluster, the port's name and the number of the attempt, first fit.
    pub(crate) fn derive_mac(&self, cluster: &str, owner: &str) -> Mac {
        let mut attempt = 0u64;
        loop {
            // Zero bytes keep the parts apart; no name contains one.
            let mut seed = Vec::with_capacity(cluster.len() + owner.len() + 10);
            seed.extend_from_slice(cluster.as_bytes());
            seed.push(0);
            seed.extend_from_slice(owner.as_bytes());
            if attempt > 0 {
                seed.push(0);
                seed.extend_from_slice(&attempt.to_be_bytes());
            }
            let mac = Mac::local_from(&seed);
            if self.check_mac(&SubnetName::default(), owner, mac).is_ok() {
                return mac;
            }
            attempt += 1;
        }
    }

    /// Records a lease whose addresses are recorded already.
    pub(crate) fn add_owner(&mut self, owner: &PortName, mac: Mac) {
        self.owners.insert(owner.clone());
        self.macs.insert(mac, owner.clone());
    }

    /// Replaces the MAC of a port.
    pub(crate) fn change_mac(&mut self, owner: &PortName, old: Mac, new: Mac) {
        self.macs.remove(&old);
        self.macs.insert(new, owner.clone());
    }

    /// Forgets a port and all it holds.
    pub(crate) fn remove_owner(&mut self, owner: &str, addresses: DualStack<IpAddr>, mac: Mac) {
        for (family, address) in addresses.by_family() {
            self.space_mut(family).give_back(*address);
        }
        self.macs.remove(&mac);
        self.owners.remove(owner);
    }

    pub(crate) const fn owners(&self) -> &BTreeSet<PortName> {
        &self.owners
    }

    /// Neither known nor holding anything.
    pub(crate) fn is_gone(&self) -> bool {
        self.pool.is_none() && self.owners.is_empty()
    }

    pub(crate) fn stranded(&self) -> Vec<Stranded> {
        if self.pool.is_none() {
            return Vec::new();
        }
        let mut all = Vec::new();
        for family in Family::ALL {
            let space = self.space(family);
            all.extend(space.stranded().map(|(address, owner)| Stranded {
                owner: owner.clone(),
                why: if space.is_gateway(address) {
                    Why::IsGateway(address)
                } else {
                    Why::OutsideCidr(address)
                },
            }));
        }
        let gateway_mac = self.pool.as_ref().and_then(|pool| pool.gateway_mac);
        if let Some(mac) = gateway_mac
            && let Some(owner) = self.macs.get(&mac)
        {
            all.push(Stranded {
                owner: owner.clone(),
                why: Why::IsGatewayMac(mac),
            });
        }
        all
    }

    pub(crate) fn audit(&self) -> Result<(), String> {
        self.v4.audit()?;
        self.v6.audit()?;
        if self.macs.len() != self.owners.len() {
            return Err(format!(
                "{} MACs for {} ports",
                self.macs.len(),
                self.owners.len()
            ));
        }
        Ok(())
    }
}
