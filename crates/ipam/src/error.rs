use std::net::IpAddr;

use net::{Cidr, DualStack, Family, Mac};

use crate::{Lease, PortName, SubnetName};

/// Why an address is not given. An error leaves the state as it was.
///
/// The message begins with the word that upstream uses (users search for it), says which address, which subnet and who
/// holds it, and what can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The subnet is not known, or not any more.
    #[error("NoSubnet: subnet {subnet} does not exist; create it or name another one")]
    NoSubnet {
        /// The subnet that was asked.
        subnet: SubnetName,
    },
    /// The request is for families that the subnet does not have.
    #[error(
        "InvalidIPFamily: subnet {subnet} has no {family} CIDR; choose another subnet or another IP family"
    )]
    NoFamily {
        /// The subnet that was asked.
        subnet: SubnetName,
        /// The family that it lacks.
        family: Family,
    },
    /// A static address is given in the place of the other family.
    #[error("InvalidIPFamily: {address} is not an {family} address")]
    WrongFamily {
        /// The address that was asked for.
        address: IpAddr,
        /// The family in whose place it stands.
        family: Family,
    },
    /// A static address lies outside the subnet.
    #[error(
        "AddressOutOfRange: {address} is not in {cidr} of subnet {subnet}; choose an address inside"
    )]
    OutOfRange {
        /// The address that was asked for.
        address: IpAddr,
        /// The subnet that was asked.
        subnet: SubnetName,
        /// The subnet's CIDR of that family.
        cidr: Cidr,
    },
    /// A static address is the first or the last of the CIDR.
    #[error(
        "AddressOutOfRange: {address} is the {} address of {cidr} (subnet {subnet}) and no port can have it; \
         choose another one",
        end_name(*address, *cidr)
    )]
    EndOfRange {
        /// The address that was asked for.
        address: IpAddr,
        /// The subnet that was asked.
        subnet: SubnetName,
        /// The subnet's CIDR of that family.
        cidr: Cidr,
    },
    /// A static address is the gateway's.
    #[error("AddressConflict: {address} is the gateway of subnet {subnet}; choose another one")]
    Gateway {
        /// The address that was asked for.
        address: IpAddr,
        /// The subnet that was asked.
        subnet: SubnetName,
    },
    /// Another port holds the address.
    #[error(
        "AddressConflict: {address} of subnet {subnet} is held by port {holder}; choose another one or delete \
         the holder"
    )]
    AddressTaken {
        /// The address that was asked for.
        address: IpAddr,
        /// The subnet that was asked.
        subnet: SubnetName,
        /// The port that holds it.
        holder: PortName,
    },
    /// Another port of the subnet holds the MAC.
    #[error(
        "AddressConflict: MAC {mac} is used in subnet {subnet} by port {holder}; choose another one or delete \
         the holder"
    )]
    MacTaken {
        /// The MAC that was asked for.
        mac: Mac,
        /// The subnet that was asked.
        subnet: SubnetName,
        /// The port that holds it.
        holder: PortName,
    },
    /// The MAC is that of the subnet's router port.
    #[error(
        "AddressConflict: MAC {mac} is that of the gateway of subnet {subnet}; choose another one"
    )]
    GatewayMac {
        /// The MAC that was asked for.
        mac: Mac,
        /// The subnet that was asked.
        subnet: SubnetName,
    },
    /// The MAC cannot be a port's.
    #[error(
        "InvalidMAC: {mac} is a multicast or zero address; choose a unicast one (the first byte must be even)"
    )]
    MacNotUnicast {
        /// The MAC that was asked for.
        mac: Mac,
    },
    /// Nothing is left to give.
    #[error(
        "NoAvailableAddress: subnet {subnet} has no {family} address left in {cidr}: {using} in use, {excluded} \
         excluded{}; delete pods, shorten excludeIps or use another subnet",
        skipped_note(*skipped)
    )]
    Exhausted {
        /// The subnet that was asked.
        subnet: SubnetName,
        /// The family that is used up.
        family: Family,
        /// The subnet's CIDR of that family.
        cidr: Cidr,
        /// Addresses that ports hold.
        using: u128,
        /// Addresses that are excluded, the gateway among them.
        excluded: u128,
        /// Addresses that are free but on the request's skip list.
        skipped: u128,
    },
    /// The port holds a lease in another subnet.
    #[error(
        "AddressConflict: port {owner} cannot get an address of subnet {subnet} while it holds {} of subnet {}; \
         release that first",
        show(&held.addresses),
        held.subnet
    )]
    HeldElsewhere {
        /// The port that asks.
        owner: PortName,
        /// The subnet that was asked.
        subnet: SubnetName,
        /// What the port holds.
        held: Box<Lease>,
    },
    /// The port's addresses are reserved, and it asks for others.
    #[error(
        "AddressConflict: port {owner} asks for {asked}, but {} ({}) of subnet {} is reserved for it; ask for \
         that or delete the IP resource {owner}",
        show(&held.addresses),
        held.mac,
        held.subnet
    )]
    Reserved {
        /// The port that asks.
        owner: PortName,
        /// The address or the MAC that it asks for.
        asked: String,
        /// What is reserved for it.
        held: Box<Lease>,
    },
    /// A record or a reservation names something else than the port holds.
    #[error(
        "AddressConflict: port {owner} holds {} ({}) of subnet {}, but a record says {claimed}; the lease stays \
         as it is, correct or delete the record",
        show(&held.addresses),
        held.mac,
        held.subnet
    )]
    Differs {
        /// The port that the record names.
        owner: PortName,
        /// What the port holds.
        held: Box<Lease>,
        /// What the record says.
        claimed: String,
    },
}

impl IpamError {
    /// Upstream's word for the error, for events, conditions and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoSubnet { .. } => "NoSubnet",
            Self::NoFamily { .. } | Self::WrongFamily { .. } => "InvalidIPFamily",
            Self::OutOfRange { .. } | Self::EndOfRange { .. } => "AddressOutOfRange",
            Self::Exhausted { .. } => "NoAvailableAddress",
            Self::MacNotUnicast { .. } => "InvalidMAC",
            Self::Gateway { .. }
            | Self::AddressTaken { .. }
            | Self::MacTaken { .. }
            | Self::GatewayMac { .. }
            | Self::HeldElsewhere { .. }
            | Self::Reserved { .. }
            | Self::Differs { .. } => "AddressConflict",
        }
    }

    /// The port that is in the way.
    pub const fn holder(&self) -> Option<&PortName> {
        match self {
            Self::AddressTaken { holder, .. } | Self::MacTaken { holder, .. } => Some(holder),
            _ => None,
        }
    }

    /// Whether the subnet has nothing left, so that another one is worth a try.
    pub const fn is_exhausted(&self) -> bool {
        matches!(self, Self::Exhausted { .. })
    }
}

fn end_name(address: IpAddr, cidr: Cidr) -> &'static str {
    if address == cidr.network() {
        "network"
    } else if cidr.family() == Family::V4 {
        "broadcast"
    } else {
        "last"
    }
}

fn skipped_note(skipped: u128) -> String {
    match skipped {
        0 => String::new(),
        n => format!(", {n} free but used by nodes"),
    }
}

fn show(addresses: &DualStack<IpAddr>) -> String {
    if addresses.is_empty() {
        "a MAC".to_owned()
    } else {
        addresses.to_string()
    }
}
