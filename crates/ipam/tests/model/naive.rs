//! The rules of allocation, address by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::{Claim, Lease, PortName, Release, Request, SubnetName, SubnetPool, Want};
use net::{DualStack, Family, RangeSet};

/// One family of a subnet, address by address.
#[derive(Clone, Default)]
pub struct ModelSpace {
    pub free: BTreeSet<IpAddr>,
    pub released: BTreeSet<IpAddr>,
}

#[derive(Clone, Default)]
pub struct ModelSubnet {
    pub pool: Option<SubnetPool>,
    pub spaces: [ModelSpace; 2],
}

#[derive(Clone, Default)]
pub struct Model {
    pub subnets: BTreeMap<SubnetName, ModelSubnet>,
    pub held: BTreeMap<PortName, (Lease, BTreeSet<Claim>)>,
}

/// Addresses that [`Want::Any`] may give while nobody holds them.
pub fn open(pool: Option<&SubnetPool>, family: Family) -> BTreeSet<IpAddr> {
    let Some(pool) = pool else {
        return BTreeSet::new();
    };
    let Some(cidr) = pool.cidrs.get(family) else {
        return BTreeSet::new();
    };
    cidr.usable()
        .iter()
        .filter(|ip| pool.gateways.get(family) != Some(ip))
        .filter(|ip| !pool.excludes.iter().any(|range| range.contains(*ip)))
        .collect()
}

impl Model {
    pub fn using(&self, subnet: &str, family: Family) -> BTreeMap<IpAddr, &PortName> {
        let of_subnet = self
            .held
            .iter()
            .filter(|(_, (lease, _))| lease.subnet == subnet);
        let mut using = BTreeMap::new();
        for (owner, (lease, _)) in of_subnet {
            if let Some(address) = lease.addresses.get(family) {
                let other = using.insert(*address, owner);
                assert_eq!(other, None, "{address} has two owners");
            }
        }
        using
    }

    /// What a request must give: the addresses, and which of them the pool chose; or the reason of the refusal.
    pub fn expect(
        &self,
        name: &SubnetName,
        owner: &PortName,
        request: &Request<'_>,
        claim: Claim,
    ) -> Result<(DualStack<IpAddr>, [bool; 2]), &'static str> {
        let held = self.held.get(owner);
        if held.is_some_and(|(lease, _)| lease.subnet != *name) {
            return Err("AddressConflict");
        }
        let pool = self
            .subnets
            .get(name)
            .and_then(|subnet| subnet.pool.as_ref());
        let pool = pool.ok_or("NoSubnet")?;
        let fixed = held.is_some_and(|(_, claims)| {
            claim == Claim::Reservation || claims.contains(&Claim::Reservation)
        });
        let mut addresses = DualStack::NONE;
        let mut any = [false; 2];
        for family in Family::ALL {
            let current = held.and_then(|(lease, _)| lease.addresses.get(family).copied());
            let skip = request.skip.unwrap().get(family).unwrap();
            let cidr = pool.cidrs.get(family);
            let new = match request.want(family) {
                Want::None => current,
                Want::Any if current.is_some_and(|ip| fixed || !skip.contains(ip)) => current,
                Want::Any if cidr.is_none() => None,
                Want::Any => {
                    any[family as usize] = true;
                    Some(self.next(name, family, skip).ok_or("NoAvailableAddress")?)
                }
                Want::Static(ip) if current == Some(ip) => current,
                Want::Static(_) if fixed && current.is_some() => return Err("AddressConflict"),
                Want::Static(ip) => {
                    let cidr = cidr.ok_or("InvalidIPFamily")?;
                    if !cidr.usable().contains(ip) {
                        return Err("AddressOutOfRange");
                    }
                    let taken = self.using(name, family).contains_key(&ip);
                    if taken || pool.gateways.get(family) == Some(&ip) {
                        return Err("AddressConflict");
                    }
                    Some(ip)
                }
            };
            addresses.set(family, new);
        }
        let asks = Family::ALL
            .into_iter()
            .any(|f| request.want(f) != Want::None);
        if asks && addresses.is_empty() && !pool.cidrs.is_empty() {
            return Err("InvalidIPFamily");
        }
        if let Some(mac) = request.mac
            && held.is_none_or(|(lease, _)| lease.mac != mac)
        {
            let taken = self
                .held
                .values()
                .any(|(lease, _)| lease.subnet == *name && lease.mac == mac);
            if fixed {
                return Err("AddressConflict");
            }
            if !mac.is_unicast() {
                return Err("InvalidMAC");
            }
            if taken || pool.gateway_mac == Some(mac) {
                return Err("AddressConflict");
            }
        }
        Ok((addresses, any))
    }

    pub fn set(&mut self, name: &SubnetName, pool: Option<SubnetPool>) {
        let using = Family::ALL.map(|f| self.using(name, f).into_keys().collect::<BTreeSet<_>>());
        let subnet = self.subnets.entry(name.clone()).or_default();
        if subnet.pool == pool {
            return;
        }
        for family in Family::ALL {
            let space = &mut subnet.spaces[family as usize];
            let open = &open(pool.as_ref(), family) - &using[family as usize];
            space.released = &space.released & &open;
            space.free = &open - &space.released;
        }
        subnet.pool = pool;
    }

    /// What [`Want::Any`] gives to a port that holds nothing.
    pub fn next(&self, subnet: &str, family: Family, skip: &RangeSet) -> Option<IpAddr> {
        let space = &self.subnets.get(subnet)?.spaces[family as usize];
        let fits = |ip: &&IpAddr| !skip.contains(**ip);
        space
            .free
            .iter()
            .find(fits)
            .or_else(|| space.released.iter().find(fits))
            .copied()
    }

    /// Writes down what was granted, moving addresses between the sets as the specification says.
    pub fn record(&mut self, owner: &PortName, lease: &Lease, any: [bool; 2], claim: Claim) {
        let old = self
            .held
            .get(owner)
            .map(|(lease, _)| lease.addresses)
            .unwrap_or_default();
        let subnet = self.subnets.entry(lease.subnet.clone()).or_default();
        for family in Family::ALL {
            let (old, new) = (old.get(family), lease.addresses.get(family));
            if old == new {
                continue;
            }
            let open = open(subnet.pool.as_ref(), family);
            let space = &mut subnet.spaces[family as usize];
            if let Some(new) = new {
                if any[family as usize] && !space.free.contains(new) {
                    space.free.append(&mut space.released);
                }
                space.free.remove(new);
                space.released.remove(new);
            }
            if let Some(old) = old.filter(|old| open.contains(old)) {
                space.released.insert(*old);
            }
        }
        let (held, claims) = self
            .held
            .entry(owner.clone())
            .or_insert_with(|| (lease.clone(), BTreeSet::new()));
        *held = lease.clone();
        claims.insert(claim);
    }

    pub fn release(&mut self, owner: &PortName, claim: Claim) -> Release {
        let Some((lease, claims)) = self.held.get_mut(owner) else {
            return Release::Unknown;
        };
        if !claims.remove(&claim) {
            return Release::Unknown;
        }
        let lease = lease.clone();
        if !claims.is_empty() {
            return Release::Kept(lease);
        }
        self.held.remove(owner);
        let subnet = self.subnets.get_mut(&lease.subnet).unwrap();
        for (family, address) in lease.addresses.by_family() {
            if open(subnet.pool.as_ref(), family).contains(address) {
                subnet.spaces[family as usize].released.insert(*address);
            }
        }
        Release::Freed(lease)
    }
}
