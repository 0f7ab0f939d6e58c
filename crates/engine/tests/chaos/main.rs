//! Two engines, one of which leads, in a world where answers get lost, writes come late, processes die, leases move while
//! the old holder sleeps, and users do what they like. Whatever happens: no address is ever in use twice, what a pod was
//! told never changes, and when peace comes everything is as it should be.
//!
//! `KUBE_OVN_CHAOS_SEED=n` repeats one history, `KUBE_OVN_CHAOS_RUNS=n` plays more of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

#[path = "../common/mod.rs"]
mod common;

mod rules;
mod users;
mod world;

use world::World;

fn play(seed: u64) {
    let mut world = World::new(seed);
    let length = 300 + world.dice.below(1500);
    for _ in 0..length {
        if world.dice.percent(15) {
            world.disturb();
        } else {
            world.turn();
        }
    }
    world.rest();
    world.check_end();
}

#[test]
fn no_history_breaks_the_rules() {
    if let Ok(seed) = std::env::var("KUBE_OVN_CHAOS_SEED") {
        play(seed.parse().unwrap());
        return;
    }
    let runs = std::env::var("KUBE_OVN_CHAOS_RUNS").map_or(60, |n| n.parse().unwrap());
    for seed in 1..=runs {
        let result = std::panic::catch_unwind(|| play(seed));
        assert!(
            result.is_ok(),
            "seed {seed}: run again with KUBE_OVN_CHAOS_SEED={seed}"
        );
    }
}
