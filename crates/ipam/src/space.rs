use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};

use net::{Cidr, Family, IpRange, RangeSet};

use crate::pool::Pool;
use crate::{IpamError, PortName, SubnetName};

/// How many addresses of one family a subnet has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Addresses that may be given out without being named: usable, not excluded, not in use.
    pub available: u128,
    /// Addresses that ports hold, excluded ones and those outside the CIDR among them.
    pub using: u128,
}

/// The sets behind [`Counters`]; their text is that of a Subnet's status (`10.16.0.5,10.16.0.8-10.16.0.20`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Addresses that may be given out without being named.
    pub available: RangeSet,
    /// Addresses that ports hold.
    pub using: RangeSet,
}

/// The addresses of one family of a subnet.
///
/// `pool` holds exactly the open addresses that are not in use; see [`Space::audit`].
#[derive(Clone, Debug)]
pub(crate) struct Space {
    family: Family,
    /// None while the subnet does not have the family, though ports may still hold addresses of it.
    cidr: Option<Cidr>,
    gateway: Option<IpAddr>,
    /// What [`Space::next`] may name: usable addresses but for the excluded ones and the gateway. Few ranges.
    open: RangeSet,
    /// The open addresses that nobody uses.
    pool: Pool,
    /// Who holds what. Addresses may lie outside the CIDR if it was changed.
    holders: BTreeMap<IpAddr, PortName>,
    /// The keys of `holders`.
    using: RangeSet,
}

impl Space {
    pub(crate) const fn new(family: Family) -> Self {
        Self {
            family,
            cidr: None,
            gateway: None,
            open: RangeSet::new(family),
            pool: Pool::new(family),
            holders: BTreeMap::new(),
            using: RangeSet::new(family),
        }
    }

    /// Sets what may be given out. Takes time in the number of ranges in the part that changes; what was released in
    /// the rest stays released.
    pub(crate) fn configure(
        &mut self,
        cidr: Option<Cidr>,
        gateway: Option<IpAddr>,
        excludes: &[IpRange],
    ) {
        self.cidr = cidr;
        self.gateway = gateway;
        let mut open = RangeSet::from_ranges(self.family, cidr.map(Cidr::usable));
        for range in excludes {
            open.remove(*range);
        }
        if let Some(gateway) = gateway {
            open.remove(gateway);
        }
        for range in self.open.subtract(&open).iter() {
            self.pool.close(range);
        }
        for range in open.subtract(&self.open).iter() {
            self.pool.open(range);
            for used in self.using.iter_in(range) {
                self.pool.close(used);
            }
        }
        self.open = open;
    }

    pub(crate) const fn has_cidr(&self) -> bool {
        self.cidr.is_some()
    }

    pub(crate) fn holder(&self, address: IpAddr) -> Option<&PortName> {
        self.holders.get(&address)
    }

    /// The address that the next request for any address gets.
    pub(crate) fn next(
        &self,
        subnet: &SubnetName,
        skip: Option<&RangeSet>,
    ) -> Result<IpAddr, IpamError> {
        let cidr = self.cidr.ok_or_else(|| self.no_family(subnet))?;
        self.pool.next(skip).ok_or_else(|| IpamError::Exhausted {
            subnet: subnet.clone(),
            family: self.family,
            cidr,
            using: self.using.count(),
            excluded: cidr.usable().count().saturating_sub(self.open.count()),
            skipped: self.pool.count(),
        })
    }

    /// Whether the port may have the address that it names.
    pub(crate) fn check(
        &self,
        subnet: &SubnetName,
        owner: &str,
        address: IpAddr,
    ) -> Result<(), IpamError> {
        let cidr = self.cidr.ok_or_else(|| self.no_family(subnet))?;
        let subnet = || subnet.clone();
        if !cidr.contains(address) {
            return Err(IpamError::OutOfRange {
                address,
                subnet: subnet(),
                cidr,
            });
        }
        if !cidr.usable().contains(address) {
            return Err(IpamError::EndOfRange {
                address,
                subnet: subnet(),
                cidr,
            });
        }
        if self.gateway == Some(address) {
            return Err(IpamError::Gateway {
                address,
                subnet: subnet(),
            });
        }
        self.check_holder(&subnet(), owner, address)
    }

    /// Whether nobody else holds the address.
    pub(crate) fn check_holder(
        &self,
        subnet: &SubnetName,
        owner: &str,
        address: IpAddr,
    ) -> Result<(), IpamError> {
        match self.holder(address) {
            Some(holder) if holder != owner => Err(IpamError::AddressTaken {
                address,
                subnet: subnet.clone(),
                holder: holder.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn no_family(&self, subnet: &SubnetName) -> IpamError {
        IpamError::NoFamily {
            subnet: subnet.clone(),
            family: self.family,
        }
    }

    /// Records the holder of an address that [`Space::next`] named.
    pub(crate) fn take_next(&mut self, address: IpAddr, owner: PortName) {
        self.pool.take_next(address);
        self.hold(address, owner);
    }

    /// Records the holder of an address that somebody named and nobody else holds.
    pub(crate) fn take(&mut self, address: IpAddr, owner: PortName) {
        self.pool.take(address);
        self.hold(address, owner);
    }

    fn hold(&mut self, address: IpAddr, owner: PortName) {
        self.using.insert(address);
        self.holders.insert(address, owner);
    }

    /// Takes an address back. It is released if it may be given out again, else it is only forgotten.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.holders.remove(&address);
        self.using.remove(address);
        if self.open.contains(address) {
            self.pool.give_back(address);
        }
    }

    pub(crate) fn counters(&self) -> Option<Counters> {
        let known = self.cidr.is_some() || !self.using.is_empty();
        known.then(|| Counters {
            available: self.pool.count(),
            using: self.using.count(),
        })
    }

    pub(crate) fn ranges(&self) -> Option<Ranges> {
        let known = self.cidr.is_some() || !self.using.is_empty();
        known.then(|| Ranges {
            available: self.pool.available(),
            using: self.using.clone(),
        })
    }

    /// Holders of addresses that no port can have (any more): outside the usable range, or the gateway's.
    pub(crate) fn stranded(&self) -> impl Iterator<Item = (IpAddr, &PortName)> {
        let usable = self.cidr.map(Cidr::usable);
        let below = usable.map_or(Unbounded, |usable| Excluded(usable.first()));
        let gateway = self
            .gateway
            .filter(|gateway| usable.is_some_and(|usable| usable.contains(*gateway)));
        let above = usable.map(|usable| (Excluded(usable.last()), Unbounded));
        // Without a CIDR all of them are below.
        self.holders
            .range((Unbounded, below))
            .chain(gateway.and_then(|gateway| self.holders.get_key_value(&gateway)))
            .chain(
                above
                    .into_iter()
                    .flat_map(|above| self.holders.range(above)),
            )
            .map(|(address, owner)| (*address, owner))
    }

    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateway == Some(address)
    }

    pub(crate) fn held_count(&self) -> usize {
        self.holders.len()
    }

    /// Checks that the sets fit together.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let mut held = RangeSet::new(self.family);
        held.extend(self.holders.keys().copied());
        if held != self.using {
            return Err(format!("{held} is held, but {} is in use", self.using));
        }
        let idle = self.open.subtract(&self.using);
        let available = self.pool.available();
        if available != idle {
            return Err(format!("{idle} is idle, but {available} is available"));
        }
        if available.count() != self.pool.count() {
            return Err("an address is both free and released".to_owned());
        }
        Ok(())
    }
}
