//! Addresses as a network interface carries them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use net::{Cidr, Family, HasFamily};

/// An address together with the length of its on-link prefix, such as `10.16.0.5/16`.
/// Unlike [`Cidr`] it keeps the host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfAddr {
    pub ip: IpAddr,
    pub prefix_len: u8,
}

impl IfAddr {
    /// The address `ip` as a member of `cidr`.
    pub fn in_cidr(ip: IpAddr, cidr: &Cidr) -> Self {
        Self {
            ip,
            prefix_len: cidr.prefix_len(),
        }
    }

    pub fn family(&self) -> Family {
        family_of(self.ip)
    }

    /// fe80::/10 or 169.254.0.0/16: addresses that the kernel hands out by itself and that are nobody's plan.
    pub fn is_link_local(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }

    /// `/32` or `/128`.
    pub fn is_host_length(&self) -> bool {
        self.prefix_len == if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for IfAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// The text is not of the form `ADDRESS/LENGTH`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length such as 10.16.0.5/16")]
pub struct IfAddrError(String);

impl FromStr for IfAddr {
    type Err = IfAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || IfAddrError(text.to_owned());
        let (ip, len) = text.split_once('/').ok_or_else(error)?;
        let ip: IpAddr = ip.parse().map_err(|_| error())?;
        let prefix_len: u8 = len.parse().map_err(|_| error())?;
        if prefix_len > if ip.is_ipv4() { 32 } else { 128 } {
            return Err(error());
        }
        Ok(Self { ip, prefix_len })
    }
}

/// The family of an address.
pub fn family_of(ip: IpAddr) -> Family {
    ip.family()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_keeps_host_bits() {
        let a: IfAddr = "10.16.0.5/16".parse().unwrap();
        assert_eq!(a.to_string(), "10.16.0.5/16");
        for bad in ["10.16.0.5", "10.16.0.5/33", "x/8", "fd00::1/129"] {
            assert!(bad.parse::<IfAddr>().unwrap_err().to_string().contains(bad));
        }
    }
}
