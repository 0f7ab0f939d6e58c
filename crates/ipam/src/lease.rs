use std::fmt;
use std::net::IpAddr;

use net::{DualStack, Family, HasFamily, Mac, RangeSet};
use serde::{Deserialize, Serialize};

use crate::SubnetName;

/// What a port holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The subnet that the addresses belong to.
    pub subnet: SubnetName,
    /// The addresses, at most one of each family.
    pub addresses: DualStack<IpAddr>,
    /// The MAC, unique in the subnet.
    pub mac: Mac,
}

/// A lease as something persistent (an IP resource, a pod's annotations) tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The subnet that the addresses belong to.
    pub subnet: SubnetName,
    /// The addresses, at most one of each family.
    pub addresses: DualStack<IpAddr>,
    /// The MAC; one is derived if the record has none.
    pub mac: Option<Mac>,
}

impl From<Lease> for Record {
    fn from(lease: Lease) -> Self {
        Self {
            subnet: lease.subnet,
            addresses: lease.addresses,
            mac: Some(lease.mac),
        }
    }
}

/// `10.17.0.5 (0a:58:0a:11:00:05) of subnet test`
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addresses.fmt(f)?;
        if let Some(mac) = self.mac {
            write!(f, " ({mac})")?;
        }
        write!(f, " of subnet {}", self.subnet)
    }
}

/// What is asked for in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Want {
    /// What the port holds already, else the lowest free address; nothing if the subnet lacks the family.
    #[default]
    Any,
    /// This address. It may be excluded from [`Want::Any`].
    Static(IpAddr),
    /// Nothing new; what the port holds already stays.
    None,
}

/// What a port asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The IPv4 address.
    pub v4: Want,
    /// The IPv6 address.
    pub v6: Want,
    /// The MAC; without one the port keeps the MAC it has, or one is derived from its name.
    pub mac: Option<Mac>,
    /// Addresses that [`Want::Any`] passes over, such as those of nodes; they are not used up by that. A port that
    /// holds such an address gets another one, unless it is reserved for it: leave the list out for a port that runs.
    pub skip: Option<&'a DualStack<RangeSet>>,
}

impl Request<'_> {
    /// Any address in every family of the subnet.
    pub fn any() -> Self {
        Self::default()
    }

    /// These addresses, and any address in the other family.
    pub fn fixed(addresses: DualStack<IpAddr>) -> Self {
        let want = |address: Option<IpAddr>| address.map_or(Want::Any, Want::Static);
        Self {
            v4: want(addresses.v4),
            v6: want(addresses.v6),
            ..Self::default()
        }
    }

    /// Any address of one family alone.
    pub fn only(family: Family) -> Self {
        let want = |f| if f == family { Want::Any } else { Want::None };
        Self {
            v4: want(Family::V4),
            v6: want(Family::V6),
            ..Self::default()
        }
    }

    /// What is asked for in the family.
    pub const fn want(&self, family: Family) -> Want {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub(crate) fn skips(&self, address: IpAddr) -> bool {
        self.skip(address.family())
            .is_some_and(|skip| skip.contains(address))
    }

    pub(crate) fn skip(&self, family: Family) -> Option<&RangeSet> {
        self.skip.and_then(|skip| skip.get(family))
    }
}

/// A reason for which a lease is held. What else may hold one (a StatefulSet that keeps its pods' addresses) is a
/// further claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Claim {
    /// The port exists.
    Port,
    /// A user reserved the addresses for the port, whether it exists or not.
    Reservation,
}

impl Claim {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// All reasons for which a lease is held. There is at least one as long as there is a lease.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Claims(u8);

impl Claims {
    /// Whether this is one of the reasons.
    pub const fn has(self, claim: Claim) -> bool {
        self.0 & claim.bit() != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn add(&mut self, claim: Claim) {
        self.0 |= claim.bit();
    }

    pub(crate) const fn remove(&mut self, claim: Claim) {
        self.0 &= !claim.bit();
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [Claim::Port, Claim::Reservation];
        f.debug_set()
            .entries(all.iter().filter(|claim| self.has(**claim)))
            .finish()
    }
}

/// What became of a lease when a claim on it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// That was the last claim: the addresses and the MAC are free again.
    Freed(Lease),
    /// Another claim holds the lease.
    Kept(Lease),
    /// There was no such claim.
    Unknown,
}
