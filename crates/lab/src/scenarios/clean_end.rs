//! `down` leaves nothing: after a whole life, after a half-failed `up`, after the loss of its own records.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::down;
use crate::lab::{Cni, Lab, Spec};
use crate::progress::Progress;
use crate::scenario::{Scenario, Stage, any};
use crate::up;

pub const SCENARIO: Scenario = Scenario {
    name: "clean-end",
    about: "a second lab beside this one, ended whole, half-made and without its records, leaves the machine as it was",
    unfit: any,
    run,
};

fn run(stage: &Stage<'_>) -> Result<()> {
    let name = format!("{:.17}-x", stage.lab.name);
    let before = Machine::look()?;
    let told = lives(stage, &name, &before);
    if told.is_err() {
        down::down(&name)?;
    }
    told
}

fn lives(stage: &Stage<'_>, name: &str, before: &Machine) -> Result<()> {
    let quiet = Progress::new(true);
    let spec = Spec {
        dual_stack: false,
        cni: Cni::Bridge,
        dns: false,
        kube_proxy: true,
        ..stage.lab.spec.clone()
    };

    // A whole life, with a pod in it.
    let lab = Lab::plan(name, spec, 2)?;
    make(&lab, &quiet)?;
    let there = Stage::new(&lab, &quiet);
    let pod = there.busybox("default", "pod", there.node(0)?)?;
    there.node_pings(there.node(0)?, pod.address()?)?;
    there.keep();
    down::down(name)?;
    before.unchanged(name, "after a whole life")?;

    // Half-made: namespaces and a control plane that was shot while starting.
    make_half(&lab)?;
    down::down(name)?;
    before.unchanged(name, "after a half-failed `up`")?;

    // Its records lost: the mark in the environment is enough.
    make_half(&lab)?;
    fs::remove_dir_all(lab.dir.join("proc"))?;
    down::down(name)?;
    before.unchanged(name, "after the loss of its records")?;
    ensure!(!down::down(name)?, "a second `down` found something");
    Ok(())
}

fn make(lab: &Lab, progress: &Progress) -> Result<()> {
    let _lock = lab.lock()?;
    lab.save()?;
    up::bring_up(lab, progress)
}

fn make_half(lab: &Lab) -> Result<()> {
    let _lock = lab.lock()?;
    lab.save()?;
    crate::pki::ensure(lab)?;
    crate::network::base(lab)?;
    for node in &lab.nodes {
        crate::network::node(lab, node)?;
        crate::kubernetes::containerd(lab, node)?;
    }
    crate::kubernetes::managers(lab)?;
    let record = lab.record("containerd", Some(&lab.nodes[0].name)).context("containerd was not started")?;
    record.signal(Signal::SIGKILL);
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

/// What `down` promises to leave alone.
struct Machine {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    sysctls: Vec<(String, String)>,
    folders: BTreeSet<PathBuf>,
}

impl Machine {
    fn look() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?
            .lines()
            .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
            .collect();
        let links = fs::read_dir("/sys/class/net")?
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        let mut cgroups = BTreeSet::new();
        for root in fs::read_dir("/sys/fs/cgroup")?.flatten() {
            for group in fs::read_dir(root.path()).into_iter().flatten().flatten() {
                if group.file_type().is_ok_and(|t| t.is_dir()) {
                    cgroups.insert(group.path());
                }
            }
        }
        let mut sysctls = Vec::new();
        for name in ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"] {
            let value = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
            sysctls.push((name.to_owned(), value));
        }
        let mut folders = BTreeSet::new();
        for parent in ["/var/lib", "/etc", "/opt", "/var/log", "/run", "/run/netns"] {
            folders.extend(fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()));
        }
        Ok(Self {
            mounts,
            links,
            cgroups,
            sysctls,
            folders,
        })
    }

    fn unchanged(&self, name: &str, when: &str) -> Result<()> {
        let left = down::leftovers(name);
        ensure!(left.is_empty(), "{when}: {}", left.join(", "));
        let now = Self::look()?;
        let ours = |path: &&PathBuf| path.to_string_lossy().contains(name);
        ensure!(now.mounts.is_subset(&self.mounts), "{when}: mounts {:?}", now.mounts.difference(&self.mounts));
        ensure!(now.links.is_subset(&self.links), "{when}: links {:?}", now.links.difference(&self.links));
        let groups: Vec<_> = now.cgroups.iter().filter(ours).collect();
        ensure!(groups.is_empty(), "{when}: cgroups {groups:?}");
        ensure!(now.sysctls == self.sysctls, "{when}: sysctls {:?}, before {:?}", now.sysctls, self.sysctls);
        let fresh: Vec<_> = now.folders.difference(&self.folders).collect();
        ensure!(fresh.is_empty(), "{when}: files {fresh:?}");
        Ok(())
    }
}
