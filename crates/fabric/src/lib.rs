//! From Kubernetes objects to OVN rows: the heart of Kube-OVN.
//!
//! ```text
//! Change ──> World ──> dirty Units ──> compile ──> Compiled { fragment, desired, problems }
//! ```
//!
//! * [`World`] holds narrow views of the objects and knows which [`Unit`]s a [`Change`] alters.
//! * [`compile`](compile::compile) turns a unit into OVN rows ([`ovn::Fragment`]), the Kubernetes state that belongs to
//!   it ([`KubeState`]), and what is wrong ([`Problem`]). It cannot fail: what is not valid has no rows and a problem.
//! * [`binding`] has the rules by which namespaces and Subnets find each other, [`spec`] those of a Subnet's values.
//!
//! Everything is a pure function of what went in: no sockets, no clock, no randomness, and no memory beyond the objects,
//! the leases and the ledger of accepted specs.

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

pub mod binding;
pub mod compile;
pub mod config;
pub mod desired;
mod input;
mod layout;
pub mod problem;
mod query;
pub mod record;
mod shared;
pub mod spec;
mod world;

pub use compile::{Compiled, compile};
pub use config::Config;
pub use desired::{KubeState, Patch, SubnetWrites, VpcWrites};
pub use input::{Accepted, Change, PortLease, PortName, PortOwner, Unit};
pub use layout::{NamespaceState, SubnetState};
pub use problem::{Kind, ObjectRef, Problem};
pub use query::StaticRequest;
pub use shared::Shared;
pub use spec::{Effective, Role};
pub use world::World;
