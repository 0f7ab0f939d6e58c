//! The scenarios, one file each; the name of the file is the name of the scenario. To add one: a file, a line in the
//! list.

use crate::scenario::Scenario;

macro_rules! scenarios {
    ($($module:ident),* $(,)?) => {
        $(pub mod $module;)*
        /// All of them, in the order in which they run.
        pub const ALL: &[&Scenario] = &[$(&$module::SCENARIO),*];
    };
}

scenarios![
    walk_through,
    pods_and_pods,
    nodes_and_pods,
    api_server,
    cluster_dns,
    way_out,
    mtu,
    dual_stack,
    shared_switch,
    subnet_by_hand,
    exclusions,
    live_annotations,
    wrong_input,
    kubernetes_itself,
    ninety_pods,
    nothing_left,
    quiet_restart,
    fail_over,
    node_drained,
    node_renumbered,
    node_comes_and_goes,
    node_deleted_first,
    clean_end,
    another_default,
    documents,
    five_hundred_pods,
];

/// What `--all` runs: everything but the benchmark.
pub fn usual() -> Vec<&'static Scenario> {
    ALL.iter()
        .copied()
        .filter(|scenario| scenario.name != five_hundred_pods::SCENARIO.name)
        .collect()
}

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
