//! Scenarios: short stories about what a user does with the network, told on a running lab.
//!
//! A scenario is one file in `scenarios/` with a [`Scenario`] constant; it is listed in `scenarios/mod.rs`. It gets a
//! [`Stage`](crate::stage::Stage): the lab, and verbs that wait as long as a person would and fail with what was seen. Kubernetes objects
//! that it makes through the stage are deleted when it ends, whether it held or not.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::lab::Lab;
use crate::progress::Progress;
pub use crate::stage::{Pod, Stage, find_pod, host, in_pod, pod_manifest};

/// One story.
pub struct Scenario {
    /// What it is called on the command line: words joined by `-`.
    pub name: &'static str,
    /// What holds when it passes, in one line.
    pub about: &'static str,
    /// What it needs of the lab; `None` if it fits, else why not.
    pub unfit: fn(&Lab) -> Option<&'static str>,
    /// The story itself.
    pub run: fn(&Stage<'_>) -> Result<()>,
}

/// For scenarios that fit every lab.
pub fn any(_: &Lab) -> Option<&'static str> {
    None
}

/// For scenarios that need two nodes.
pub fn two_nodes(lab: &Lab) -> Option<&'static str> {
    (lab.nodes.len() < 2).then_some("needs two nodes")
}

/// For scenarios that need IPv6.
pub fn dual_stack(lab: &Lab) -> Option<&'static str> {
    (!lab.spec.dual_stack).then_some("needs a lab with --dual-stack")
}

/// How a scenario went.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// `held`, `failed` or `unfit`.
    pub result: &'static str,
    /// Why it failed or does not fit.
    pub reason: Option<String>,
    /// Seconds it took.
    pub seconds: f64,
    /// What it measured.
    pub notes: Vec<String>,
}

/// Run scenarios one after the other.
pub fn run(lab: &Lab, which: &[&Scenario], progress: &Progress) -> Vec<Outcome> {
    which
        .iter()
        .map(|scenario| one(lab, scenario, progress))
        .collect()
}

fn one(lab: &Lab, scenario: &Scenario, progress: &Progress) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome {
        name: scenario.name,
        about: scenario.about,
        result: "held",
        reason: None,
        seconds: 0.0,
        notes: Vec::new(),
    };
    if let Some(why) = (scenario.unfit)(lab) {
        outcome.result = "unfit";
        outcome.reason = Some(why.to_owned());
        return outcome;
    }
    // Scenarios may add and remove nodes, so each starts from the lab as it is on disk.
    let lab = match Lab::open(&lab.name) {
        Ok(lab) => lab,
        Err(error) => {
            outcome.result = "failed";
            outcome.reason = Some(format!("{error:#}"));
            return outcome;
        }
    };
    let stage = Stage::new(&lab, progress);
    let step = progress.step(format!("{}: {}", scenario.name, scenario.about));
    let told = (scenario.run)(&stage);
    let swept = stage.sweep();
    outcome.notes = stage.take_notes();
    outcome.seconds = start.elapsed().as_secs_f64();
    match told.and(swept) {
        Ok(()) => step.done(),
        Err(error) => {
            step.failed();
            outcome.result = "failed";
            outcome.reason = Some(format!("{error:#}"));
            progress.say(&format!("      {error:#}"));
        }
    }
    for note in &outcome.notes {
        progress.say(&format!("      {note}"));
    }
    outcome
}
