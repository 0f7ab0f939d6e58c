//! What README.md and docs/*.md tell a reader to do, done as it is printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::documents;
use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "documents",
    about: "the demo, the README's tour and the commands of the pages in docs do what they say",
    unfit: |lab| {
        (lab.nodes.len() != 3 || !lab.spec.is_plain()).then_some("needs a lab of three nodes without options")
    },
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    let pages = documents::pages()?;
    // Each page for a reader of that page alone; the README with its demo and tour is the last one.
    for page in &pages {
        stage.calm()?;
        let before = objects(stage)?;
        let told = play(stage, page);
        let last = pages.last() == Some(page);
        // Then all others for a reader who began with the README, as most will.
        let again = told.and_then(|()| pages.iter().filter(|other| last && *other != page).try_for_each(|other| {
            play(stage, other).with_context(|| "after the README")
        }));
        sweep(stage, &before)?;
        again?;
    }
    Ok(())
}

fn play(stage: &Stage<'_>, page: &Path) -> Result<()> {
    let steps = documents::run(stage.lab, page)?;
    let name = page.file_name().unwrap_or_default().to_string_lossy();
    stage.note(format!("{name}: {steps} steps"));
    Ok(())
}

/// Take away what a page made.
fn sweep(stage: &Stage<'_>, before: &BTreeSet<(String, String)>) -> Result<()> {
    for (kind, name) in objects(stage)?.difference(before) {
        stage.kubectl(&["delete", kind, name, "--ignore-not-found", "--now", "--wait=false"])?;
    }
    stage.eventually("what the page made to go", Duration::from_mins(1), || {
        let left = objects(stage)?;
        let left: Vec<_> = left.difference(before).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// What the documents make, namespaces first.
fn objects(stage: &Stage<'_>) -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    for kind in ["namespaces", "pods", "subnets.kubeovn.io"] {
        for item in stage.get(&[kind])?["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            found.insert((kind.to_owned(), name.to_owned()));
        }
    }
    Ok(found)
}
