//! The scenarios, one file each; the name of the file is the name of the scenario. To add one: a file, a line in the
//! list.

use crate::scenario::Scenario;

macro_rules! scenarios {
    ($($module:ident),* $(,)?) => {
        $(pub mod $module;)*
        /// All of them, in the order in which `--all` runs them.
        pub const ALL: &[&Scenario] = &[$(&$module::SCENARIO),*];
    };
}

scenarios![
    seed_walkthrough,
    pods_and_pods,
    nodes_and_pods,
    api_server,
    cluster_dns,
];

pub use seed_walkthrough as seed;

/// A scenario by name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_command_line() {
        let mut names: Vec<_> = ALL.iter().map(|s| s.name).collect();
        for name in &names {
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
