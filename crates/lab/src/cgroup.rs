//! A node's cgroup in each hierarchy of the machine, for version 1, version 2 and the mixture of both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// What a kubelet needs of version 1.
const V1: [&str; 9] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
];
/// What it needs of version 2.
const V2: [&str; 4] = ["cpuset", "cpu", "memory", "pids"];

/// How the machine has its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// What the machine has.
pub fn version() -> Version {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        Version::V2
    } else {
        Version::V1
    }
}

/// Controllers that a kubelet needs and the machine does not offer.
pub fn missing() -> Vec<String> {
    match version() {
        Version::V1 => V1
            .iter()
            .filter(|name| **name != "systemd" && !Path::new(ROOT).join(name).exists())
            .map(|name| (*name).to_owned())
            .collect(),
        Version::V2 => {
            let offered =
                fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
            let offered: BTreeSet<_> = offered.split_ascii_whitespace().collect();
            V2.iter()
                .filter(|name| !offered.contains(**name))
                .map(|name| (*name).to_owned())
                .collect()
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    match version() {
        Version::V1 => V1
            .iter()
            .map(|name| Path::new(ROOT).join(name))
            .filter(|path| path.exists())
            .collect(),
        Version::V2 => vec![ROOT.into()],
    }
}

/// Make a node's cgroup.
pub fn make(name: &str) -> Result<()> {
    for root in hierarchies() {
        let own = root.join(name);
        fs::create_dir_all(&own)
            .with_context(|| format!("cannot make the cgroup {}", own.display()))?;
        // A cpuset of version 1 starts without processors and memory, and refuses tasks until it has both.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if version() == Version::V1 && root.join(file).exists() {
                let value = fs::read_to_string(root.join(file))?;
                fs::write(own.join(file), value.trim())?;
            }
        }
    }
    if version() == Version::V2 {
        delegate(Path::new(ROOT))?;
    }
    Ok(())
}

/// Version 2: children get the controllers that the parent hands down. systemd machines have done so already.
fn delegate(parent: &Path) -> Result<()> {
    let file = parent.join("cgroup.subtree_control");
    let now = fs::read_to_string(&file)?;
    let now: BTreeSet<_> = now.split_ascii_whitespace().collect();
    for controller in V2 {
        if !now.contains(controller) {
            fs::write(&file, format!("+{controller}")).with_context(|| {
                format!(
                    "cannot hand the controller {controller} down from {}",
                    parent.display()
                )
            })?;
        }
    }
    Ok(())
}

/// All processes in the cgroups whose first component `belongs` accepts.
pub fn processes(belongs: impl Fn(&str) -> bool) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for own in ours(belongs) {
        collect(&own, &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut BTreeSet<i32>) {
    if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

fn ours(belongs: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut roots = hierarchies();
    // With version 1, runc also uses the unified hierarchy beside it where there is one.
    for extra in [
        "unified",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
    ] {
        roots.push(Path::new(ROOT).join(extra));
    }
    roots.sort();
    roots.dedup();
    roots
        .iter()
        .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_str().is_some_and(&belongs))
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Remove the (by now empty) cgroups whose first component `belongs` accepts; returns what could not be removed.
pub fn remove(belongs: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for own in ours(belongs) {
        prune(&own);
        if own.exists() {
            left.push(own);
        }
    }
    left
}

fn prune(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            prune(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The processes of a pod's containers, wherever the kubelet put its cgroup.
pub fn of_pod(belongs: impl Fn(&str) -> bool, uid: &str) -> BTreeSet<i32> {
    let plain = format!("pod{uid}");
    let mut found = BTreeSet::new();
    for own in ours(belongs) {
        find(&own, &plain, &mut found);
    }
    found
}

fn find(folder: &Path, name: &str, found: &mut BTreeSet<i32>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            collect(&entry.path(), found);
        } else {
            find(&entry.path(), name, found);
        }
    }
}
