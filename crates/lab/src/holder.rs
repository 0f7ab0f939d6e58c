//! Holders: the processes that keep a lab's namespaces alive.
//!
//! `fabric` and `ext` hold a network namespace each. A node's holder holds its network, its host name and its own view
//! of the file system: the machine's root with private copies of everything that a node writes to. The machine itself
//! is never written: what would be a machine-wide setting (the sysctls that kubelet sets) is covered by plain files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::sethostname;

use crate::lab::{Lab, Launch, Node, Place};
use crate::process::Record;

/// Folders of the machine that a node sees with its own changes on top.
const LAYERED: [&str; 3] = ["/etc", "/opt", "/var/lib"];
/// Folders that are empty in a fresh node, whatever the machine has there.
const EMPTY: [&str; 9] = [
    "/etc/cni",
    "/etc/containerd",
    "/etc/openvswitch",
    "/etc/ovn",
    "/opt/cni",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/lib/openvswitch",
    "/var/lib/ovn",
];
/// Machine-wide settings that a kubelet insists on; in a node they are plain files.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Start the holder of a plain network namespace.
pub fn net(lab: &Lab, name: &str) -> Result<bool> {
    start(lab, name, None, Place::Host, &["net"])
}

/// Start the holder of a node's namespaces.
pub fn node(lab: &Lab, node: &Node) -> Result<bool> {
    for folder in ["run", "log", "conf", "scratch"] {
        fs::create_dir_all(lab.node_path(&node.name, folder))?;
    }
    start(
        lab,
        "node",
        Some(&node.name),
        Place::Host,
        &["node", &node.name],
    )
}

fn start(
    lab: &Lab,
    component: &str,
    node: Option<&str>,
    place: Place<'_>,
    what: &[&str],
) -> Result<bool> {
    let finished = file(lab, component, node, "finished");
    if let Some(record) = lab.record(component, node).filter(Record::alive) {
        if finished.exists() {
            return Ok(false);
        }
        // Whoever made it was interrupted before it was set up; there is nothing in it worth keeping.
        record.stop(Duration::from_secs(1));
    }
    let _ = fs::remove_file(&finished);
    let ready = file(lab, component, node, "ready");
    let _ = fs::remove_file(&ready);
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let program = program.to_string_lossy();
    lab.ensure(&Launch {
        component,
        node,
        place,
        program: &program,
        args: [
            "holder",
            &lab.dir.to_string_lossy(),
            &ready.to_string_lossy(),
        ]
        .iter()
        .copied()
        .chain(what.iter().copied())
        .map(str::to_owned)
        .collect(),
        env: Vec::new(),
        watch_program: false,
    })?;
    crate::command::wait_for("a namespace", Duration::from_secs(10), || {
        // A holder that ended has said why.
        Ok(match lab.must_live(component, node) {
            Err(error) => Some(Err(error)),
            Ok(()) => ready.exists().then_some(Ok(())),
        })
    })??;
    Ok(true)
}

/// Note that the namespace is set up: wired, with addresses. Only then it survives the next `up`.
pub fn finished(lab: &Lab, component: &str, node: Option<&str>) -> Result<()> {
    fs::write(file(lab, component, node, "finished"), "")
        .context("cannot note that a namespace is set up")
}

fn file(lab: &Lab, component: &str, node: Option<&str>, what: &str) -> PathBuf {
    let key = crate::process::key(component, node);
    lab.dir.join("proc").join(format!("{key}.{what}"))
}

/// The body of a holder process (`kube-ovn-lab holder ...`): make the namespaces, say so, sleep until told to end.
pub fn main(dir: &Path, ready: &Path, node: Option<&str>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    if let Some(node) = node {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
            .context("cannot make a mount namespace")?;
        sethostname(node).context("cannot set the host name")?;
        mounts(dir, &dir.join("nodes").join(node), node)?;
    }
    // In a node the lab's directory is visible under its own path, so this works in both cases.
    fs::write(ready, "")?;
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    end.thread_block()?;
    end.wait()?;
    Ok(())
}

fn mounts(dir: &Path, home: &Path, node: &str) -> Result<()> {
    change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    own_sysfs(&home.join("scratch"))?;

    let scratch = home.join("scratch");
    special("tmpfs", &scratch, Some("mode=0755"))?;
    for path in LAYERED {
        let name = path.trim_start_matches('/').replace('/', "-");
        let (upper, work) = (
            scratch.join("upper").join(&name),
            scratch.join("work").join(&name),
        );
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let options = format!(
            "lowerdir={path},upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        special("overlay", Path::new(path), Some(&options))?;
    }
    for path in EMPTY {
        let own = scratch
            .join("own")
            .join(path.trim_start_matches('/').replace('/', "-"));
        fs::create_dir_all(&own)?;
        fs::create_dir_all(path)?;
        bind(&own, Path::new(path))?;
    }
    // Images and container roots live in memory: nothing to clean up, and three nodes do not fight for one disk.
    fs::create_dir_all("/var/lib/containerd")?;
    special("tmpfs", Path::new("/var/lib/containerd"), Some("mode=0711"))?;
    for folder in ["/etc/cni/net.d", "/opt/cni/bin", "/var/lib/openvswitch/pki"] {
        fs::create_dir_all(folder)?;
    }
    fs::write("/etc/hostname", format!("{node}\n"))?;
    fs::write(
        "/etc/hosts",
        format!("127.0.0.1 localhost\n::1 localhost\n{node} {node}\n"),
    )?;
    // A resolv.conf that is a link into /run would dangle in here.
    let _ = fs::remove_file("/etc/resolv.conf");
    fs::write(
        "/etc/resolv.conf",
        format!("nameserver {}\n", crate::lab::DNS),
    )?;

    for name in SYSCTLS {
        let real = Path::new("/proc/sys").join(name);
        let Ok(value) = fs::read(&real) else { continue };
        let own = scratch.join("sysctl").join(name.replace('/', "-"));
        fs::create_dir_all(scratch.join("sysctl"))?;
        fs::write(&own, value)?;
        bind(&own, &real)?;
    }

    bind(&home.join("log"), Path::new("/var/log"))?;
    // /run comes last. The lab's directory lies below it and must stay visible under its own path.
    let run = home.join("run");
    for folder in ["netns", "containerd", "lock", "openvswitch", "ovn"] {
        fs::create_dir_all(run.join(folder))?;
    }
    if let Ok(below) = dir.strip_prefix("/run") {
        let inside = run.join(below);
        fs::create_dir_all(&inside)?;
        bind(dir, &inside)?;
        mount(
            Some(&run),
            "/run",
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .context("cannot bind /run")?;
    } else {
        bind(&run, Path::new("/run"))?;
    }
    // Everything was private until here, so each mount becomes a peer group of its own: kubelet's mounts propagate
    // into its containers, and nowhere else.
    change("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// A sysfs that shows this network namespace, with the machine's cgroups in their place.
fn own_sysfs(aside: &Path) -> Result<()> {
    let cgroup = Path::new("/sys/fs/cgroup");
    let recursive = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(cgroup), aside, None::<&str>, recursive, None::<&str>)
        .context("cannot set the cgroups aside")?;
    special("sysfs", Path::new("/sys"), None)?;
    mount(Some(aside), cgroup, None::<&str>, recursive, None::<&str>)
        .context("cannot put the cgroups back")?;
    umount2(aside, MntFlags::MNT_DETACH).context("cannot drop the copy of the cgroups")?;
    let bpf = Path::new("/sys/fs/bpf");
    if bpf.exists() {
        // Not every kernel has it; kubelet and runc do without.
        let _ = special("bpf", bpf, None);
    }
    Ok(())
}

fn change(path: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot change the propagation of {path}"))
}

fn special(kind: &str, path: &Path, options: Option<&str>) -> Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} on {}", path.display()))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind {} on {}", from.display(), to.display()))
}
