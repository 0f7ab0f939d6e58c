use std::collections::BTreeMap;
use std::net::IpAddr;

use net::{DualStack, Family, HasFamily, Mac};
use smol_str::SmolStr;

use crate::subnet::Subnet;
use crate::{
    Claim, Claims, Counters, IpamError, Lease, PortName, Ranges, Record, Release, Request,
    Stranded, SubnetName, SubnetPool, Want,
};

/// The allocator. See the crate's documentation for its rules.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    /// Seeds the MACs.
    cluster: SmolStr,
    /// Subnets that are known or hold leases. Written by everything below.
    subnets: BTreeMap<SubnetName, Subnet>,
    /// What each port holds: the one truth; a subnet's sets follow it.
    held: BTreeMap<PortName, Held>,
}

/// A lease and the reasons for it; there is at least one.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    claims: Claims,
}

/// How an address of a new lease is come by.
#[derive(Clone, Copy)]
enum Choice {
    /// The port holds it already.
    Held(IpAddr),
    /// The pool names it.
    Next(IpAddr),
    /// The request names it.
    Named(IpAddr),
}

impl Choice {
    const fn address(self) -> IpAddr {
        match self {
            Self::Held(address) | Self::Next(address) | Self::Named(address) => address,
        }
    }
}

impl Ipam {
    /// An allocator without subnets. The cluster's UID goes into the MACs, so that ports of the same name in two
    /// clusters on one wire differ.
    pub fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.into(),
            ..Self::default()
        }
    }

    /// Makes a subnet known or changes its pool; the same pool again changes nothing. Leases stay as they are. Returns
    /// those that the subnet would not give out (any more).
    pub fn set_subnet(&mut self, name: impl Into<SubnetName>, pool: SubnetPool) -> Vec<Stranded> {
        let subnet = self.subnets.entry(name.into()).or_insert_with(Subnet::new);
        subnet.set_pool(Some(pool));
        subnet.stranded()
    }

    /// Forgets a subnet's pool: it gives out nothing more. Its leases stay valid until they are released; the number
    /// of these is returned. If the subnet comes back first, it finds them.
    pub fn remove_subnet(&mut self, name: &str) -> usize {
        let Some(subnet) = self.subnets.get_mut(name) else {
            return 0;
        };
        subnet.set_pool(None);
        let left = subnet.owners().len();
        if left == 0 {
            self.subnets.remove(name);
        }
        left
    }

    /// Gives a port what it asks for.
    ///
    /// Asking again gives the same lease. A static address or a MAC other than the held one moves the lease, and what
    /// it leaves is released; a family that the port does not have yet is added. The claim of the port is set, also
    /// on a lease that was reserved for it.
    ///
    /// Either all of the request is granted or nothing changes.
    pub fn allocate(
        &mut self,
        subnet: impl Into<SubnetName>,
        owner: impl Into<PortName>,
        request: &Request<'_>,
    ) -> Result<Lease, IpamError> {
        self.grant(subnet.into(), owner.into(), request, Claim::Port)
    }

    /// Sets addresses aside for a port, which need not exist; it gets them when it asks for any address. As
    /// [`Ipam::allocate`] otherwise.
    pub fn reserve(
        &mut self,
        subnet: impl Into<SubnetName>,
        owner: impl Into<PortName>,
        request: &Request<'_>,
    ) -> Result<Lease, IpamError> {
        self.grant(subnet.into(), owner.into(), request, Claim::Reservation)
    }

    fn grant(
        &mut self,
        name: SubnetName,
        owner: PortName,
        request: &Request<'_>,
        claim: Claim,
    ) -> Result<Lease, IpamError> {
        let held = self.held.get(&owner);
        if let Some(held) = held
            && held.lease.subnet != name
        {
            return Err(IpamError::HeldElsewhere {
                owner,
                subnet: name,
                held: Box::new(held.lease.clone()),
            });
        }
        let Some(subnet) = self.subnets.get_mut(&name) else {
            return Err(IpamError::NoSubnet { subnet: name });
        };
        let (choices, mac) = plan(subnet, &name, &owner, held, request, claim, &self.cluster)?;

        // From here on nothing fails.
        let lease = Lease {
            subnet: name,
            addresses: choices.map(Choice::address),
            mac,
        };
        // What is left comes after what is taken, so that it is not among the first to be taken again.
        for (family, choice) in choices.by_family() {
            match *choice {
                Choice::Held(_) => {}
                Choice::Next(address) => subnet.space_mut(family).take_next(address, owner.clone()),
                Choice::Named(address) => subnet.space_mut(family).take(address, owner.clone()),
            }
        }
        if let Some(held) = held {
            for (family, old) in held.lease.addresses.by_family() {
                if lease.addresses.get(family) != Some(old) {
                    subnet.space_mut(family).give_back(*old);
                }
            }
            if held.lease.mac != mac {
                subnet.change_mac(&owner, held.lease.mac, mac);
            }
        } else {
            subnet.add_owner(&owner, mac);
        }
        self.record(owner, lease.clone(), claim);
        Ok(lease)
    }

    fn record(&mut self, owner: PortName, lease: Lease, claim: Claim) {
        let held = self.held.entry(owner).or_insert_with(|| Held {
            lease: lease.clone(),
            claims: Claims::default(),
        });
        held.lease = lease;
        held.claims.add(claim);
    }

    /// Takes over a lease that was persisted: after a restart, or when another controller gave it out.
    ///
    /// The subnet need not be known yet, and the addresses need not lie in it (any more): what a port uses is a fact.
    /// A record that says what is known already (or less) adds its claim; one that says more adds the address. A
    /// record that contradicts a lease is an error that names the lease, and changes nothing.
    pub fn restore(
        &mut self,
        owner: impl Into<PortName>,
        record: Record,
        claim: Claim,
    ) -> Result<Lease, IpamError> {
        let owner = owner.into();
        let held = self.held.get(&owner);
        if let Some(held) = held {
            let contradicts = |family| {
                let (old, new) = (
                    held.lease.addresses.get(family),
                    record.addresses.get(family),
                );
                matches!((old, new), (Some(old), Some(new)) if old != new)
            };
            if held.lease.subnet != record.subnet
                || record.mac.is_some_and(|mac| mac != held.lease.mac)
                || Family::ALL.into_iter().any(contradicts)
            {
                return Err(IpamError::Differs {
                    owner,
                    held: Box::new(held.lease.clone()),
                    claimed: record.to_string(),
                });
            }
        }
        if let Some(subnet) = self.subnets.get(&record.subnet) {
            for (family, address) in record.addresses.by_family() {
                subnet
                    .space(family)
                    .check_holder(&record.subnet, &owner, *address)?;
            }
            if let Some(mac) = record.mac {
                subnet.check_mac_holder(&record.subnet, &owner, mac)?;
            }
        }

        // From here on nothing fails.
        let subnet = self
            .subnets
            .entry(record.subnet.clone())
            .or_insert_with(Subnet::new);
        let known = held.map_or(DualStack::NONE, |held| held.lease.addresses);
        for (family, address) in record.addresses.by_family() {
            subnet.space_mut(family).take(*address, owner.clone());
        }
        let mac = held
            .map(|held| held.lease.mac)
            .or(record.mac)
            .unwrap_or_else(|| subnet.derive_mac(&self.cluster, &owner));
        if held.is_none() {
            subnet.add_owner(&owner, mac);
        }
        let lease = Lease {
            subnet: record.subnet,
            addresses: DualStack {
                v4: known.v4.or(record.addresses.v4),
                v6: known.v6.or(record.addresses.v6),
            },
            mac,
        };
        self.record(owner, lease.clone(), claim);
        Ok(lease)
    }

    /// The port is gone. What it held is free unless it is reserved.
    pub fn release(&mut self, owner: &str) -> Release {
        self.drop_claim(owner, Claim::Port)
    }

    /// The reservation is gone. What was reserved is free unless the port exists.
    pub fn unreserve(&mut self, owner: &str) -> Release {
        self.drop_claim(owner, Claim::Reservation)
    }

    fn drop_claim(&mut self, owner: &str, claim: Claim) -> Release {
        let Some(held) = self.held.get_mut(owner) else {
            return Release::Unknown;
        };
        if !held.claims.has(claim) {
            return Release::Unknown;
        }
        held.claims.remove(claim);
        if !held.claims.is_empty() {
            return Release::Kept(held.lease.clone());
        }
        let Some(Held { lease, .. }) = self.held.remove(owner) else {
            return Release::Unknown;
        };
        if let Some(subnet) = self.subnets.get_mut(&lease.subnet) {
            subnet.remove_owner(owner, lease.addresses, lease.mac);
            if subnet.is_gone() {
                self.subnets.remove(&lease.subnet);
            }
        }
        Release::Freed(lease)
    }

    /// What the port holds.
    pub fn lease(&self, owner: &str) -> Option<&Lease> {
        self.held.get(owner).map(|held| &held.lease)
    }

    /// Why the port holds it; empty if it holds nothing.
    pub fn claims(&self, owner: &str) -> Claims {
        self.held
            .get(owner)
            .map_or(Claims::default(), |held| held.claims)
    }

    /// All leases, by port.
    pub fn leases(&self) -> impl Iterator<Item = (&PortName, &Lease)> {
        self.held.iter().map(|(owner, held)| (owner, &held.lease))
    }

    /// The leases of one subnet, by port.
    pub fn leases_of(&self, subnet: &str) -> impl Iterator<Item = (&PortName, &Lease)> {
        let owners = self.subnets.get(subnet).map(Subnet::owners);
        owners
            .into_iter()
            .flatten()
            .filter_map(|owner| Some((owner, self.lease(owner)?)))
    }

    /// Who holds the address.
    pub fn holder(&self, subnet: &str, address: IpAddr) -> Option<&PortName> {
        let family = address.family();
        self.subnets.get(subnet)?.space(family).holder(address)
    }

    /// Who holds the MAC.
    pub fn mac_holder(&self, subnet: &str, mac: Mac) -> Option<&PortName> {
        self.subnets.get(subnet)?.mac_holder(mac)
    }

    /// How many addresses are available and in use, for each family that the subnet has or holds leases of. O(1).
    pub fn counters(&self, subnet: &str) -> DualStack<Counters> {
        DualStack::from_fn(|family| self.subnets.get(subnet)?.space(family).counters())
    }

    /// Which addresses are available and in use. Takes time in the number of ranges.
    pub fn ranges(&self, subnet: &str) -> DualStack<Ranges> {
        DualStack::from_fn(|family| self.subnets.get(subnet)?.space(family).ranges())
    }

    /// Leases that the subnet would not give out (any more).
    pub fn stranded(&self, subnet: &str) -> Vec<Stranded> {
        self.subnets
            .get(subnet)
            .map_or_else(Vec::new, Subnet::stranded)
    }

    /// The pool of a known subnet.
    pub fn pool(&self, subnet: &str) -> Option<&SubnetPool> {
        self.subnets.get(subnet)?.pool()
    }

    /// Known subnets and those that still hold leases.
    pub fn subnets(&self) -> impl Iterator<Item = &SubnetName> {
        self.subnets.keys()
    }

    /// Whether no port holds a lease of the subnet.
    pub fn is_idle(&self, subnet: &str) -> bool {
        self.subnets
            .get(subnet)
            .is_none_or(|subnet| subnet.owners().is_empty())
    }

    /// Compares every set with the leases. For tests and simulators; takes time in the number of leases.
    pub fn audit(&self) -> Result<(), String> {
        for (name, subnet) in &self.subnets {
            let context = |error: String| format!("subnet {name}: {error}");
            subnet.audit().map_err(context)?;
            if subnet.is_gone() {
                return Err(context("is gone but still known".to_owned()));
            }
            let held: usize = Family::ALL
                .map(|f| subnet.space(f).held_count())
                .iter()
                .sum();
            let leased: usize = self
                .leases_of(name)
                .map(|(_, lease)| lease.addresses.iter().count())
                .sum();
            if held != leased {
                return Err(context(format!("{held} addresses held, {leased} leased")));
            }
        }
        for (owner, Held { lease, claims }) in &self.held {
            let context = |error: &str| format!("port {owner}: {error}");
            if claims.is_empty() {
                return Err(context("a lease without a claim"));
            }
            let subnet = self
                .subnets
                .get(&lease.subnet)
                .ok_or_else(|| context("a lease without a subnet"))?;
            if !subnet.owners().contains(owner) || subnet.mac_holder(lease.mac) != Some(owner) {
                return Err(context("the subnet does not know it"));
            }
            for (family, address) in lease.addresses.by_family() {
                if subnet.space(family).holder(*address) != Some(owner) {
                    return Err(context(&format!("{address} is not its own")));
                }
            }
        }
        let owners: usize = self.subnets.values().map(|s| s.owners().len()).sum();
        if owners != self.held.len() {
            return Err(format!("{owners} owners, {} leases", self.held.len()));
        }
        Ok(())
    }
}

/// Decides on all addresses and the MAC of a request, without a change.
fn plan(
    subnet: &Subnet,
    name: &SubnetName,
    owner: &PortName,
    held: Option<&Held>,
    request: &Request<'_>,
    claim: Claim,
    cluster: &str,
) -> Result<(DualStack<Choice>, Mac), IpamError> {
    let Some(pool) = subnet.pool() else {
        return Err(IpamError::NoSubnet {
            subnet: name.clone(),
        });
    };
    // A reserved lease is not moved, and neither is a lease moved by a reservation.
    let reserved = held.is_some_and(|held| held.claims.has(Claim::Reservation));
    let pinned = held.filter(|_| reserved || claim == Claim::Reservation);
    let refuse = |held: &Held, asked: String| {
        let (owner, held) = (owner.clone(), Box::new(held.lease.clone()));
        if reserved {
            IpamError::Reserved { owner, asked, held }
        } else {
            let claimed = asked;
            IpamError::Differs {
                owner,
                held,
                claimed,
            }
        }
    };

    let mut choices = DualStack::NONE;
    for family in Family::ALL {
        let space = subnet.space(family);
        let current = held.and_then(|held| held.lease.addresses.get(family).copied());
        let choice = match request.want(family) {
            Want::None => current.map(Choice::Held),
            Want::Any => match current {
                Some(address) if pinned.is_some() || !request.skips(address) => {
                    Some(Choice::Held(address))
                }
                _ if !space.has_cidr() => None,
                _ => Some(Choice::Next(space.next(name, request.skip(family))?)),
            },
            Want::Static(address) => {
                if address.family() != family {
                    return Err(IpamError::WrongFamily { address, family });
                }
                if current == Some(address) {
                    Some(Choice::Held(address))
                } else if let Some(held) = pinned.filter(|_| current.is_some()) {
                    return Err(refuse(held, address.to_string()));
                } else {
                    space.check(name, owner, address)?;
                    Some(Choice::Named(address))
                }
            }
        };
        choices.set(family, choice);
    }
    // A request for nothing, and any request to a subnet without CIDRs, is for a MAC alone.
    if choices.is_empty()
        && !pool.cidrs.is_empty()
        && let Some(family) = Family::ALL
            .into_iter()
            .find(|family| request.want(*family) != Want::None)
    {
        return Err(IpamError::NoFamily {
            subnet: name.clone(),
            family,
        });
    }

    let current = held.map(|held| held.lease.mac);
    let mac = match (request.mac, current) {
        (None, Some(current)) => current,
        (Some(asked), Some(current)) if asked == current => current,
        (None, None) => subnet.derive_mac(cluster, owner),
        (Some(asked), _) => {
            if let Some(held) = pinned {
                return Err(refuse(held, asked.to_string()));
            }
            subnet.check_mac(name, owner, asked)?;
            asked
        }
    };
    Ok((choices, mac))
}
