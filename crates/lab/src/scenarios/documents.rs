//! What README.md and docs/*.md tell a reader to do, done as it is printed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::documents;
use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "documents",
    about: "the demo, the README's tour and the commands of the pages in docs do what they say",
    unfit: |lab| {
        (lab.nodes.len() != 3 || lab.spec.options() != "no options").then_some("needs a lab of three nodes without options")
    },
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    for page in documents::pages()? {
        stage.calm()?;
        let before = objects(stage)?;
        let told = documents::run(stage.lab, &page);
        sweep(stage, &before)?;
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        stage.note(format!("{name}: {} steps", told?));
    }
    Ok(())
}

/// Each page begins where a reader of that page alone would.
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
