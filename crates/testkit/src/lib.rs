//! Builders, real OVN and OVS processes for tests (dev-dependency only)
#![expect(clippy::panic, reason = "a test kit fails the test that uses it")]

#[cfg(feature = "objects")]
pub mod objects;
pub mod ovn;
pub mod process;
