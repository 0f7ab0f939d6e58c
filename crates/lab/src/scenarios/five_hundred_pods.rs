//! Five hundred pods, for the benchmark: pods per second and the controller's memory.

use std::time::Duration;

use crate::scenario::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "five-hundred-pods",
    about: "five hundred pods created at once all run with different addresses (a benchmark; not part of --all)",
    unfit: |lab| (lab.nodes.len() < 3).then_some("needs three nodes"),
    run: |stage| super::ninety_pods::many(stage, "five-hundred", 500, Duration::from_mins(10)),
};
