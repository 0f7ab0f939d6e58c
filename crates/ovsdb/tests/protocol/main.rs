//! Servers that a distribution does not have: older ones, wrong ones, and ones that stop at the worst moment. Each is a
//! script of requests and replies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod members;
mod outcomes;
mod resume;
mod script;
mod versions;
