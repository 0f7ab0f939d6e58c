//! Whatever units want and whatever others do to the database: plans bring it to what is wanted, touch nothing that is
//! not ours, and the difference that is kept up to date is the one that is computed from scratch.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use support::Memory;
use support::history::{check, events};

/// The same histories each time, so that a change is judged by itself; `PROPTEST_CASES` asks for so many others.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        rng_seed: match cases {
            Some(_) => RngSeed::Random,
            None => RngSeed::Fixed(1),
        },
        cases: cases.and_then(|n| n.parse().ok()).unwrap_or(128),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn plans_bring_the_database_to_what_is_wanted(events in events()) {
        check(Memory::northbound("25.03"), &events);
    }

    #[test]
    fn also_on_an_ovn_that_lacks_columns(events in events()) {
        check(Memory::northbound("23.03"), &events);
    }
}
