//! Golden cases: Kubernetes objects in, rows and Kubernetes state out, in numbered steps.
//!
//! `cases/<name>/NN-in.yaml` is what a user does in step NN (see `Cluster::step`); `NN-out.txt` is what changed then:
//! lines that came (`+`) and went (`-`), and the units that were looked at. `config.yaml` holds settings, if any.
//! `UPDATE_GOLDEN=1 cargo test -p fabric --test golden` writes the outputs anew; review them with `git diff`.

#![allow(clippy::unwrap_used, reason = "for tests alone")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use fabric::{Config, Unit, World, compile};
use support::Cluster;

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut failures = String::new();
    let mut cases: Vec<PathBuf> = entries(&root);
    cases.retain(|path| path.is_dir());
    assert!(!cases.is_empty(), "no cases in {}", root.display());
    for case in cases {
        run(&case, &mut failures);
    }
    assert!(
        failures.is_empty(),
        "{failures}\nIf this is as it should be: UPDATE_GOLDEN=1 cargo test -p fabric --test golden"
    );
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

fn run(case: &Path, failures: &mut String) {
    let config = case.join("config.yaml");
    let mut config: Config = if config.exists() {
        serde_saphyr::from_str(&fs::read_to_string(config).unwrap()).unwrap()
    } else {
        Config::default()
    };
    config.cluster_uid = "cluster".into();
    let mut cluster = Cluster::new(config);
    let mut before = BTreeMap::new();
    for input in entries(case) {
        let name = input.file_name().unwrap().to_str().unwrap();
        let Some(step) = name.strip_suffix("-in.yaml") else {
            continue;
        };
        let dirty = cluster.step(&fs::read_to_string(&input).unwrap());
        let after = cluster.lines();
        let mut text = difference(&dirty, &before, &after);
        // What was wrong for a moment only is an event all the same.
        let known = |event: &String| {
            [&before, &after].iter().any(|lines: &&Lines| {
                lines
                    .get("3 problems")
                    .is_some_and(|lines| lines.contains(event))
            })
        };
        for event in cluster.events.iter().filter(|event| !known(event)) {
            writeln!(text, "! {event}").unwrap();
        }
        before = after;
        full_recompute_agrees(&cluster);
        compare(&case.join(format!("{step}-out.txt")), &text, failures);
    }
}

type Lines = BTreeMap<&'static str, BTreeSet<String>>;

fn difference(dirty: &BTreeSet<Unit>, before: &Lines, after: &Lines) -> String {
    let mut text = String::from("# units\n");
    for unit in dirty {
        writeln!(text, "  {unit}").unwrap();
    }
    let none = BTreeSet::new();
    for (part, lines) in after {
        let old = before.get(part).unwrap_or(&none);
        writeln!(text, "# {}", part.split_once(' ').unwrap().1).unwrap();
        for line in old.union(lines) {
            match (old.contains(line), lines.contains(line)) {
                (true, false) => writeln!(text, "- {line}").unwrap(),
                (false, true) => writeln!(text, "+ {line}").unwrap(),
                _ => {}
            }
        }
    }
    text
}

/// What the steps came to is what a World filled anew would come to.
fn full_recompute_agrees(cluster: &Cluster) {
    let mut fresh = World::new(cluster.world.config().clone());
    fresh.apply_all(support_changes(cluster));
    fresh.settle();
    let full: BTreeMap<_, _> = fresh
        .units()
        .into_iter()
        .map(|unit| {
            let compiled = compile(&unit, &fresh);
            (unit, compiled)
        })
        .filter(|(_, compiled)| !compiled.is_empty())
        .collect();
    assert_eq!(cluster.compiled, full);
}

fn support_changes(cluster: &Cluster) -> Vec<fabric::Change> {
    let accepted = cluster.world.accepted().iter().map(|(name, accepted)| {
        fabric::Change::Accepted(name.clone(), Some(Box::new(accepted.clone())))
    });
    let objects = cluster.objects.values().filter_map(support::change_of);
    let leases = cluster
        .world
        .leases()
        .map(|(port, lease)| fabric::Change::Lease(port.clone(), Some(lease.clone())));
    objects.chain(leases).chain(accepted).collect()
}

fn compare(path: &Path, text: &str, failures: &mut String) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != text {
        let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
            (expected.lines().collect(), text.lines().collect());
        writeln!(failures, "{}:", path.display()).unwrap();
        for line in old.difference(&new) {
            writeln!(failures, "  expected  {line}").unwrap();
        }
        for line in new.difference(&old) {
            writeln!(failures, "  got       {line}").unwrap();
        }
    }
}
