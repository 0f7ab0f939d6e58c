//! Value types of the network and their text forms: [`Mac`], [`Cidr`], [`IpRange`], [`RangeSet`] and [`DualStack`].
//!
//! Everything here is a small value without I/O. The text forms are those that Kube-OVN users write in resources and
//! annotations and read in a Subnet's status:
//!
//! | value | text | where |
//! |---|---|---|
//! | address | `10.16.0.5`, `fd00:10:16::5` | annotation `ip_address`, [`parse_ip`] |
//! | pair | `10.16.0.5,fd00:10:16::5` | annotations, `spec.gateway`, `spec.cidrBlock`, [`DualStack`] |
//! | CIDR | `10.16.0.0/16` | `spec.cidrBlock`, [`Cidr`] |
//! | range | `10.17.0.1..10.17.0.10` or one address | `spec.excludeIps`, [`IpRange`], [`parse_ranges`] |
//! | set | `10.16.0.5,10.16.0.8-10.16.0.20` | `status.v4availableIPrange`, [`RangeSet`] |
//! | MAC | `0e:1f:00:53:aa:01` | annotation `mac_address`, [`Mac`] |
//!
//! Printing is canonical (lower case, RFC 5952 for IPv6) and parses back to the same value. All types serialise as
//! their text. A [`ParseError`] always quotes the text that is wrong.
//!
//! ```
//! use net::{Cidr, DualStack, Family, IpRange, RangeSet, parse_ranges};
//!
//! # fn main() -> Result<(), net::ParseError> {
//! // `spec.cidrBlock` of a dual-stack Subnet, in either order.
//! let blocks: DualStack<Cidr> = "fd00:10:17::/112,10.17.0.0/24".parse()?;
//! assert_eq!(blocks.to_string(), "10.17.0.0/24,fd00:10:17::/112");
//!
//! // What can be given out of one of them.
//! let block = blocks.get(Family::V4).expect("an IPv4 block");
//! let mut free = RangeSet::from_ranges(Family::V4, [block.usable()]);
//! for excluded in parse_ranges("10.17.0.1..10.17.0.10,10.17.0.200")? {
//!     free.remove(excluded);
//! }
//! assert_eq!(free.to_string(), "10.17.0.11-10.17.0.199,10.17.0.201-10.17.0.254");
//! assert_eq!(free.count(), 243);
//!
//! let wrong = "10.17.0.9..10.17.0.1".parse::<IpRange>().unwrap_err();
//! assert!(wrong.to_string().contains("10.17.0.9..10.17.0.1"));
//! # Ok(())
//! # }
//! ```

// Pure: see clippy.toml.
#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::iter_over_hash_type
    )
)]

mod cidr;
mod dual;
mod error;
mod family;
mod mac;
mod range;
mod range_set;
mod text;

pub use cidr::Cidr;
pub use dual::{DualStack, Protocol};
pub use error::ParseError;
pub use family::{Family, HasFamily, parse_ip, to_u128};
pub use mac::Mac;
pub use range::{IpRange, parse_ranges};
pub use range_set::RangeSet;
