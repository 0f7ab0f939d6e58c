//! The program against a daemon that the test plays: what a runtime gives it, what the daemon sees, what comes back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod faults;
mod harness;
mod inputs;
mod results;
