//! Builders, real OVN and OVS processes for tests (dev-dependency only)

#[cfg(feature = "objects")]
pub mod objects;
