//! Whatever units want and whatever others do to the database: plans bring it to what is wanted, touch nothing that is
//! not ours, and the difference that is kept up to date is the one that is computed from scratch.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

mod support;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use support::Memory;
use support::history::{Event, Human, check, events};

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

/// A row of ours has another name, its own is the Go implementation's now, and the other name is wanted: nothing can be
/// done about any of the three until somebody takes one of the names away.
#[test]
fn a_renamed_row_that_cannot_have_its_name_back_keeps_the_other() {
    for release in ["23.03", "25.03"] {
        let before = |last: &[Event]| {
            let mut history = vec![
                Event::Policy(1, Some((0, 0))),
                Event::Flush(500),
                // The third row of all is the group g1: it is called g0 from now on.
                Event::Human(Human::Rename(2, 0)),
                Event::Human(Human::VendorGroup(1)),
                Event::Policy(0, Some((0, 0))),
            ];
            history.extend_from_slice(last);
            check(Memory::northbound(release), &history)
        };
        let names = |memory: Memory| -> Vec<String> {
            let groups = memory.rows("Port_Group").values();
            let mut names: Vec<_> = groups.map(|row| row.str("name").to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(before(&[Event::Flush(500)])), ["g0", "g1"]);
        assert_eq!(names(before(&[Event::Flush(1)])), ["g0", "g1"]);
        // The group that was renamed is not wanted any more: its row becomes the other one.
        let end = [Event::Policy(1, None), Event::Flush(500)];
        assert_eq!(names(before(&end)), ["g0", "g1"]);
        // Two groups of ours exchange their names.
        let swap = [
            Event::Policy(0, Some((0, 0))),
            Event::Policy(1, Some((0, 0))),
            Event::Flush(500),
            Event::Human(Human::Rename(3, 2)),
            Event::Human(Human::Rename(4, 0)),
            Event::Human(Human::Rename(3, 1)),
            Event::Flush(1),
        ];
        let memory = check(Memory::northbound(release), &swap);
        assert_eq!(names(memory), ["g0", "g1"]);
    }
}
