//! The adapters against the real kernel, in network namespaces of their own. Needs root and the programs `nft`,
//! `iptables` and `ping`; without them the tests fail and say so.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod firewall;
mod harness;
mod nat;
mod node;
mod pod;
