//! What one node of the fabric must look like, and the hands that make it so.
//!
//! Two halves, like everything in this house:
//!
//! * [`plan`] and [`pod`] are **pure**: from the node's own facts (its Node object, the subnets, its tunnel
//!   interface) they compute a [`plan::NodePlan`], and [`plan::diff`] compares it with what was observed and
//!   gives an ordered list of operations. No sockets, no clock; golden tests cover it.
//! * [`linux`] (feature `linux`) executes: synchronous netlink sockets, network namespaces, nftables and sysctls.
//!   It contains the only `unsafe` of the programs, two system calls that have no safe wrapper: `sendto` on a packet
//!   socket and one `ioctl`. (The lint `unsafe_code` denies it everywhere else; a test of `ovn` that counts
//!   allocations is the one other exception.)
//!
//! OVS is reached through OVSDB transactions, which are values too: [`ovs`] builds and reads them.

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

pub mod addr;
pub mod ovs;
pub mod plan;
pub mod pod;

#[cfg(feature = "linux")]
#[allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the adapters are where the world begins"
)]
pub mod linux;
