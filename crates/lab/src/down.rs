//! `down`: end every process of a lab and remove what it made, also after a crash or a half-failed `up`.
//!
//! A lab has no named namespaces and no mounts of its own in the machine's view, so once its processes are gone only
//! its cgroups and its directory are left. Processes are found in four independent ways: by their records, by the mark
//! in their environment, by the lab's cgroups (containers), and by the namespaces of the lab's holders (whatever else
//! somebody started in a node).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, Node, plural, root};
use crate::process::{self, Record};
use crate::progress::{Progress, Step};
use crate::{cgroup, kubernetes};

/// How long `down` goes on while nothing gets less. The kernel takes a lab apart in its own time: on a busy machine the
/// memory and the file systems of a hundred processes take many seconds after SIGKILL.
const PATIENCE: Duration = Duration::from_mins(1);

/// Watches something become less, and gives up when it does not.
struct Shrinking {
    least: usize,
    since: Instant,
}

impl Shrinking {
    fn new() -> Self {
        Self {
            least: usize::MAX,
            since: Instant::now(),
        }
    }

    /// Whether `left` is worth waiting for any longer.
    fn goes_on(&mut self, left: usize, patience: Duration) -> bool {
        if left < self.least {
            (self.least, self.since) = (left, Instant::now());
        }
        self.since.elapsed() <= patience
    }
}

/// The first five of a list, and how many more there are.
fn some(list: &[String]) -> String {
    let shown = list.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(5) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What belongs to the lab, or to one node of it.
struct Scope {
    records: Vec<Record>,
    /// Value of the environment mark; `None` when only a node is meant (the mark names the lab).
    mark: Option<PathBuf>,
    cgroup: String,
    /// Exactly this cgroup, or all that begin with it and a number.
    exact: bool,
    /// Inodes of network and mount namespaces.
    namespaces: BTreeSet<u64>,
}

impl Scope {
    fn lab(name: &str, dir: &Path) -> Self {
        let records = records(dir);
        let marked = process::marked(|value| Path::new(value) == dir);
        let namespaces = namespaces(dir, &records, &marked);
        Self {
            records,
            mark: Some(dir.to_path_buf()),
            cgroup: format!("kube-ovn-lab-{name}-n"),
            exact: false,
            namespaces,
        }
    }

    fn node(lab: &Lab, node: &Node) -> Self {
        let records: Vec<Record> = lab
            .records()
            .into_iter()
            .filter(|r| r.node.as_deref() == Some(&node.name))
            .collect();
        let namespaces = namespaces(&lab.dir, &records, &BTreeSet::new());
        Self {
            records,
            mark: None,
            cgroup: lab.cgroup(node),
            exact: true,
            namespaces,
        }
    }

    fn owns_cgroup(&self, name: &str) -> bool {
        if self.exact {
            return name == self.cgroup;
        }
        name.strip_prefix(&self.cgroup)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    }

    fn processes(&self) -> BTreeSet<i32> {
        let mut found: BTreeSet<i32> = self
            .records
            .iter()
            .filter(|r| r.alive())
            .map(|r| r.pid)
            .collect();
        if let Some(dir) = &self.mark {
            found.extend(process::marked(|value| Path::new(value) == dir));
        }
        found.extend(cgroup::processes(|name| self.owns_cgroup(name)));
        found.extend(inside(&self.namespaces));
        for own in process::lineage() {
            found.remove(&own);
        }
        found.retain(|pid| process::stat(*pid).is_some_and(|s| s.state != 'Z' && s.state != 'X'));
        found
    }

    /// End all of them. New ones may be born while we look (a shim starting runc), so look until there are none.
    fn end(&self, step: Option<&Step>) -> Result<()> {
        let mut shrinking = Shrinking::new();
        let mut pause = Duration::from_millis(20);
        loop {
            let found = self.processes();
            if found.is_empty() {
                return Ok(());
            }
            if let Some(step) = step {
                step.now(format!("{} to end", plural(found.len(), "process")));
            }
            if !shrinking.goes_on(found.len(), PATIENCE) {
                let names: Vec<String> = found
                    .iter()
                    .map(|pid| format!("{} ({pid})", name_of(*pid)))
                    .collect();
                bail!(
                    "{} did not end after SIGKILL: {}. The machine is very busy, or they wait for a disk: run it again",
                    plural(names.len(), "process"),
                    some(&names)
                );
            }
            for pid in found {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(pause);
            pause = (pause * 3 / 2).min(Duration::from_millis(200));
        }
    }

    fn remove_cgroups(&self, step: Option<&Step>) -> Result<()> {
        let mut shrinking = Shrinking::new();
        loop {
            let left = cgroup::remove(|name| self.owns_cgroup(name));
            if left.is_empty() {
                return Ok(());
            }
            if let Some(step) = step {
                step.now(format!("{} to remove", plural(left.len(), "cgroup")));
            }
            if !shrinking.goes_on(left.len(), PATIENCE) {
                let names: Vec<String> = left.iter().map(|p| p.display().to_string()).collect();
                bail!("cgroups cannot be removed: {}; run it again", some(&names));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn records(dir: &Path) -> Vec<Record> {
    fs::read_dir(dir.join("proc"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| serde_json::from_str(&fs::read_to_string(entry.path()).ok()?).ok())
        .collect()
}

/// Namespaces that the lab made, found by the processes that live in them. The machine's own are never among them, nor
/// those of whoever called `up`: the relay lives there, and so does a holder until it has made its own.
fn namespaces(dir: &Path, records: &[Record], marked: &BTreeSet<i32>) -> BTreeSet<u64> {
    let recorded = records.iter().filter(|r| r.alive()).filter(|r| {
        if matches!(r.component.as_str(), "node" | "fabric" | "ext") {
            dir.join("proc").join(r.key() + ".ready").exists()
        } else {
            r.node.is_some()
        }
    });
    let marked = marked.iter().filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let verb = line.split(|b| *b == 0).nth(1).unwrap_or_default();
        verb != b"relay" && verb != b"holder"
    });
    let mut found: BTreeSet<u64> = recorded
        .map(|r| &r.pid)
        .chain(marked)
        .flat_map(|pid| inodes(&pid.to_string()))
        .collect();
    for own in inodes("self").into_iter().chain(inodes("1")) {
        found.remove(&own);
    }
    found
}

fn inodes(pid: &str) -> Vec<u64> {
    ["net", "mnt"]
        .iter()
        .filter_map(|kind| fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok())
        .map(|meta| meta.ino())
        .collect()
}

fn inside(namespaces: &BTreeSet<u64>) -> BTreeSet<i32> {
    if namespaces.is_empty() {
        return BTreeSet::new();
    }
    process::all()
        .into_iter()
        .filter(|pid| {
            inodes(&pid.to_string())
                .iter()
                .any(|inode| namespaces.contains(inode))
        })
        .collect()
}

/// Take a lab down. Says whether there was anything.
pub fn down(name: &str) -> Result<bool> {
    down_with(name, None)
}

/// The same before the eyes of a reader.
pub fn down_showing(name: &str, progress: &Progress) -> Result<bool> {
    let step = progress.step(format!("lab {name}"));
    let gone = down_with(name, Some(&step));
    if gone.is_err() {
        step.failed();
    }
    gone
}

fn down_with(name: &str, step: Option<&Step>) -> Result<bool> {
    crate::lab::check_name(name)?;
    let dir = Lab::dir_of(name);
    let there = dir.exists();
    let scope = Scope::lab(name, &dir);
    if !there && scope.processes().is_empty() {
        // Cgroups may be left of a lab whose directory somebody removed by hand.
        scope.remove_cgroups(step)?;
        return Ok(false);
    }
    let lock = crate::lab::lock(&dir)?;
    let scope = Scope::lab(name, &dir);
    scope.end(step)?;
    scope.remove_cgroups(step)?;
    unmount(&dir)?;
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    drop(lock);
    // Only the last lab's end removes the common folder; not empty is fine.
    let _ = fs::remove_dir(root());
    Ok(true)
}

/// Take all labs down; returns their names.
pub fn all(progress: &Progress) -> Result<Vec<String>> {
    let mut names = crate::lab::names();
    // Labs whose directory is gone but whose processes are not.
    let base = root();
    for pid in process::marked(|value| Path::new(value).parent() == Some(&base)) {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let prefix = format!("{}=", process::MARK);
        let name = environment
            .split(|b| *b == 0)
            .filter_map(|e| std::str::from_utf8(e).ok()?.strip_prefix(&prefix))
            .find_map(|dir| Some(Path::new(dir).file_name()?.to_str()?.to_owned()));
        names.extend(name);
    }
    names.sort();
    names.dedup();
    for name in &names {
        down_showing(name, progress)?;
    }
    let _ = fs::remove_dir(root());
    Ok(names)
}

/// Nothing is mounted below a lab in the machine's own view unless something went very wrong; then it goes too.
fn unmount(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    points.sort_unstable();
    for point in points.into_iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {point}"))?;
    }
    Ok(())
}

/// Remove a node from a running lab as if the machine had been switched off, and delete it from Kubernetes.
pub fn remove_node(lab: &mut Lab, name: &str) -> Result<()> {
    let _lock = lab.lock()?;
    let node = lab.node(name)?.clone();
    if lab.first()? == &node {
        bail!(
            "{} carries the control plane; take the lab down instead",
            node.name
        );
    }
    power_off(lab, &node)?;
    lab.nodes.retain(|n| n != &node);
    lab.save()?;
    kubernetes::kubectl(
        lab,
        &[
            "delete",
            "node",
            &node.name,
            "--ignore-not-found",
            "--wait=false",
        ],
    )?;
    Ok(())
}

/// End everything on a node and remove its files; Kubernetes still has its Node.
pub fn power_off(lab: &Lab, node: &Node) -> Result<()> {
    let scope = Scope::node(lab, node);
    scope.end(None)?;
    scope.remove_cgroups(None)?;
    for record in &scope.records {
        lab.forget(record);
    }
    let home = lab.node_path(&node.name, "");
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    Ok(())
}

/// What a lab of that name has left on the machine; empty after `down`.
pub fn leftovers(name: &str) -> Vec<String> {
    let dir = Lab::dir_of(name);
    let scope = Scope::lab(name, &dir);
    let mut left: Vec<String> = scope
        .processes()
        .iter()
        .map(|pid| format!("process {pid} ({})", name_of(*pid)))
        .collect();
    if dir.exists() {
        left.push(format!("folder {}", dir.display()));
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(
        table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| Path::new(point).starts_with(&dir))
            .map(|point| format!("mount {point}")),
    );
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_after_five() {
        let list = |n: usize| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&list(2)), "1, 2");
        assert_eq!(some(&list(5)), "1, 2, 3, 4, 5");
        assert_eq!(some(&list(100)), "1, 2, 3, 4, 5 and 95 more");
    }

    #[test]
    fn waiting_goes_on_while_something_gets_less() {
        let mut shrinking = Shrinking::new();
        let patience = Duration::from_millis(50);
        for left in (1..6).rev() {
            std::thread::sleep(Duration::from_millis(30));
            assert!(shrinking.goes_on(left, patience));
        }
        std::thread::sleep(Duration::from_millis(80));
        assert!(!shrinking.goes_on(1, patience));
    }

    #[test]
    fn a_lab_owns_its_cgroups_and_not_those_of_a_longer_name() {
        let scope = Scope {
            records: Vec::new(),
            mark: None,
            cgroup: "kube-ovn-lab-a-n".into(),
            exact: false,
            namespaces: BTreeSet::new(),
        };
        assert!(scope.owns_cgroup("kube-ovn-lab-a-n12"));
        for other in [
            "kube-ovn-lab-a-n",
            "kube-ovn-lab-a-n1-n2",
            "kube-ovn-lab-b-n1",
            "kubepods",
        ] {
            assert!(!scope.owns_cgroup(other), "{other}");
        }
    }
}
