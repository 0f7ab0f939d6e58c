//! The daemon's loop, kernel thread and CNI server together: with a real `ovsdb-server`, the real kernel in a network
//! namespace of its own, and the test in the places of the API server, ovs-vswitchd and ovn-controller.
//!
//! Needs root, `openvswitch-switch` and `nftables`; fails without.

mod api_server;
mod gc;
mod harness;
mod leftovers;
mod namesakes;
mod node;
mod pods;
