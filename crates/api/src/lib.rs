//! The user's contract: what Kube-OVN reads from and writes to Kubernetes, and what the CNI plugin says to the daemon.
//!
//! * [`v1`]: the custom resources `kubeovn.io/v1` with every field of the Go implementation, and their CRDs ([`crds`]).
//! * [`keys`]: annotation, label and finalizer names.
//! * [`view`]: narrow views of pods, nodes, namespaces and IP resources. They are what the fabric keeps in memory, and
//!   the `*Wire` types beside them are what a watch decodes.
//! * [`cni`]: the daemon's request and response, and the network configuration list that the daemon installs.
//!
//! Nothing of it does I/O or reads a clock. Beside it, with the feature `client`, is the one connection to the API server
//! that the programs share (`client`).

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

#[cfg(feature = "client")]
#[allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the adapters are where the world begins"
)]
pub mod client;
pub mod cni;
pub mod keys;
pub mod v1;
pub mod view;

pub use v1::crd::crds;

/// Reads an absent or `null` value as the default: Go writes empty lists and maps as `null`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    use serde::Deserialize;
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
