//! A lab: its parameters, its directory, its processes.
//!
//! ```text
//! /run/kube-ovn-lab/<name>/
//!   lab.json              parameters and nodes (written by `up` and by whoever adds or removes a node)
//!   proc/<key>.json       one record per process (written by whoever starts it)
//!   log/<key>.log         output of each process
//!   pki/                  certificates and kubeconfigs
//!   etcd/  registry.yaml  state of the control plane, configuration of the image registry
//!   nodes/<node>/run      /run of that node      nodes/<node>/log   its /var/log
//!   nodes/<node>/conf     configuration of containerd, kubelet, kube-proxy
//! ```
//! There are no named network namespaces and no mounts outside the nodes: a namespace lives as long as its holder
//! process does, so that the end of the processes is the end of everything else.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::command::{hint, shown, wait_for};
use crate::process::{self, MARK, Record};

pub use crate::plan::*;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the machine's own namespaces.
    Host,
    /// In the network namespace of a helper (`fabric` or `ext`), with the machine's files.
    Net(&'a str),
    /// In a node: its network, mount and host name.
    Node(&'a str),
}

/// A process to start.
pub struct Launch<'a> {
    /// `kubelet`, ...
    pub component: &'a str,
    /// The node it is accounted to.
    pub node: Option<&'a str>,
    /// Where it runs.
    pub place: Place<'a>,
    /// Program: a name looked up in the place's PATH, or a path.
    pub program: &'a str,
    /// Arguments.
    pub args: Vec<String>,
    /// Additional environment.
    pub env: Vec<(String, String)>,
    /// Start it anew if the program file was replaced since.
    pub watch_program: bool,
}

impl<'a> Launch<'a> {
    /// A program of a node.
    pub fn on(node: &'a Node, component: &'a str, program: &'a str) -> Self {
        Self {
            component,
            node: Some(&node.name),
            place: Place::Node(&node.name),
            program,
            args: Vec::new(),
            env: Vec::new(),
            watch_program: false,
        }
    }

    /// Add an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Add several arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Add a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// The handle to a lab, up or not.
#[derive(Clone, Debug)]
pub struct Lab {
    /// Its name (`--name`, default `lab`).
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What it is; changes only while the lock is held.
    pub spec: Spec,
    /// Its nodes, in order.
    pub nodes: Vec<Node>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    name: String,
    spec: Spec,
    nodes: Vec<Node>,
}

/// The lab that is meant when none is named.
pub const DEFAULT: &str = "lab";

/// `1 node`, `3 nodes`, `2 processes`.
pub fn plural(count: usize, what: &str) -> String {
    let ending = match (count, what.ends_with('s')) {
        (1, _) => "",
        (_, false) => "s",
        (_, true) => "es",
    };
    format!("{count} {what}{ending}")
}

/// The folder that holds all labs of this machine.
pub fn root() -> PathBuf {
    std::env::var_os("KUBE_OVN_LAB_ROOT").map_or_else(|| "/run/kube-ovn-lab".into(), PathBuf::from)
}

/// Names of all labs that have a directory.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A lab's name becomes part of link, cgroup and file names.
pub fn check_name(name: &str) -> Result<()> {
    let fine = (1..=20).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-');
    if !fine {
        bail!("lab name `{name}`: 1 to 20 of a-z, 0-9 and -, not starting with -");
    }
    Ok(())
}

impl Lab {
    /// The directory of a lab by name.
    pub fn dir_of(name: &str) -> PathBuf {
        root().join(name)
    }

    /// A lab that is about to be made.
    pub fn plan(name: &str, spec: Spec, nodes: u8) -> Result<Self> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            dir: Self::dir_of(name),
            spec,
            nodes: (1..=nodes).map(|number| Node::new(number, 0)).collect(),
        })
    }

    /// The lab of that name as it was last saved.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let dir = Self::dir_of(name);
        let file = dir.join("lab.json");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("no lab `{name}` is up; start it with: {}", hint(name, "up"))
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let saved: Saved = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `up` writes", file.display()))?;
        Ok(Self {
            name: saved.name,
            dir,
            spec: saved.spec,
            nodes: saved.nodes,
        })
    }

    /// Save the parameters (atomically).
    pub fn save(&self) -> Result<()> {
        let saved = Saved {
            name: self.name.clone(),
            spec: self.spec.clone(),
            nodes: self.nodes.clone(),
        };
        write_atomic(
            &self.dir.join("lab.json"),
            &serde_json::to_string_pretty(&saved)?,
        )
    }

    /// Make the directory and take the lock that keeps two `up` or `down` of one lab apart.
    pub fn lock(&self) -> Result<Flock<fs::File>> {
        lock(&self.dir)
    }

    /// Find a node by name, short name (`n2`) or number.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|n| n.name == name || n.short() == name || n.number.to_string() == name)
            .with_context(|| {
                let known: Vec<_> = self.nodes.iter().map(|n| n.name.as_str()).collect();
                format!(
                    "lab `{}` has no node `{name}`; it has {}",
                    self.name,
                    known.join(", ")
                )
            })
    }

    /// The node that carries the control plane.
    pub fn first(&self) -> Result<&Node> {
        self.nodes.first().context("the lab has no node")
    }

    /// The first node's address, where the API server and the OVN databases are.
    pub fn control_address(&self) -> Result<IpAddr> {
        Ok(self.first()?.address().into())
    }

    /// A file or folder of a node, below `nodes/<node>/`.
    pub fn node_path(&self, node: &str, below: &str) -> PathBuf {
        self.dir.join("nodes").join(node).join(below)
    }

    /// A file below `pki/`.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// The cgroup of a node in every hierarchy.
    pub fn cgroup(&self, node: &Node) -> String {
        format!("kube-ovn-lab-{}-{}", self.name, node.short())
    }

    /// The nodes that carry OVN's databases.
    pub fn central(&self) -> &[Node] {
        let count = if self.spec.ovn_ha { 3 } else { 1 };
        &self.nodes[..count.min(self.nodes.len())]
    }

    /// `tcp:A:PORT,tcp:B:PORT` of all members of a database.
    pub fn database(&self, port: u16) -> String {
        self.central()
            .iter()
            .map(|node| format!("tcp:{}:{port}", node.address()))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// PATH of everything that runs in the lab.
    pub fn path(&self) -> String {
        let mut path = self.spec.kubernetes.display().to_string();
        if let Some(prefix) = &self.spec.ovn_prefix {
            path = format!("{}/bin:{path}", prefix.display());
        }
        format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// A command in a place, not yet run.
    pub fn command(&self, place: Place<'_>, program: &str) -> Result<Command> {
        let mut command = match place {
            Place::Host => Command::new(program),
            Place::Net(holder) => self.enter(holder, None, &["-n"], program)?,
            Place::Node(node) => self.enter("node", Some(node), &["-n", "-m", "-u"], program)?,
        };
        command.env("PATH", self.path());
        Ok(command)
    }

    fn enter(
        &self,
        holder: &str,
        node: Option<&str>,
        flags: &[&str],
        program: &str,
    ) -> Result<Command> {
        let record = self
            .record(holder, node)
            .filter(Record::alive)
            .with_context(|| match node {
                Some(node) => format!("node {node} of lab `{}` is not up", self.name),
                None => format!("namespace `{holder}` of lab `{}` is not up", self.name),
            })?;
        // `nsenter`, not `ip netns exec`: the latter remounts /sys and hides the cgroups.
        let mut command = Command::new("nsenter");
        command
            .arg("-t")
            .arg(record.pid.to_string())
            .args(flags)
            .arg("--")
            .arg(program);
        Ok(command)
    }

    /// kubectl against this lab, run in the first node's network.
    pub fn kubectl(&self) -> Result<Command> {
        let program = self.spec.kubernetes.join("kubectl");
        let first = self.first()?;
        let mut command = self.enter(
            "node",
            Some(&first.name),
            &["-n"],
            &program.to_string_lossy(),
        )?;
        command
            .env("PATH", self.path())
            .env("KUBECONFIG", self.pki("admin.kubeconfig"))
            .env("KUBECACHEDIR", self.kubectl_cache());
        Ok(command)
    }

    fn kubectl_cache(&self) -> PathBuf {
        self.dir.join("kubectl-cache")
    }

    /// Lets kubectl ask anew what the API server serves. What it learnt before our CRDs were there would make it take
    /// `ip` for the short name of Kubernetes' own IPAddress, for as long as its cache lives.
    pub fn forget_discovery(&self) -> Result<()> {
        match fs::remove_dir_all(self.kubectl_cache()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove kubectl's cache")
            }
            _ => Ok(()),
        }
    }

    /// The record of a process, if it was ever started.
    pub fn record(&self, component: &str, node: Option<&str>) -> Option<Record> {
        let file = self
            .dir
            .join("proc")
            .join(process::key(component, node) + ".json");
        serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
    }

    /// All records, by key.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = fs::read_dir(self.dir.join("proc"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| serde_json::from_str(&fs::read_to_string(entry.path()).ok()?).ok())
            .collect();
        records.sort_by_key(Record::key);
        records
    }

    /// Forget a process (its log stays).
    pub fn forget(&self, record: &Record) {
        let _ = fs::remove_file(self.dir.join("proc").join(record.key() + ".json"));
    }

    /// Start a process unless the same one runs already. Says whether it was started.
    ///
    /// "The same" means the same command line, environment and, with `watch_program`, the same program file; otherwise
    /// the old one is stopped first.
    pub fn ensure(&self, launch: &Launch<'_>) -> Result<bool> {
        let line = std::iter::once(launch.program)
            .chain(launch.args.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ");
        let program = launch.watch_program.then(|| Path::new(launch.program));
        let fingerprint = process::fingerprint(&line, &launch.env, program);
        let before = self.record(launch.component, launch.node);
        if let Some(before) = &before {
            if before.alive() && before.fingerprint == fingerprint {
                return Ok(false);
            }
            before.stop(Duration::from_secs(5));
        }
        self.start(launch, fingerprint, before.map_or(0, |r| r.restarts + 1))?;
        Ok(true)
    }

    fn start(&self, launch: &Launch<'_>, fingerprint: String, restarts: u32) -> Result<Record> {
        let inner = self.command(launch.place, launch.program)?;
        let mut command = Command::new("setsid");
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
            .args(&launch.args)
            .env(MARK, &self.dir)
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/");
        let key = process::key(launch.component, launch.node);
        let log = self.dir.join("log").join(format!("{key}.log"));
        // Before the process: a holder says there that it is ready, and may be quicker than its record.
        let folder = self.dir.join("proc");
        fs::create_dir_all(&folder)?;
        let (pid, ticks) = process::detach(&mut command, &log)?;
        let mut line = Command::new(launch.program);
        line.args(&launch.args);
        let record = Record {
            component: launch.component.to_owned(),
            node: launch.node.map(str::to_owned),
            pid,
            ticks,
            since: process::now(),
            fingerprint,
            command: shown(&line),
            log,
            restarts,
        };
        write_atomic(
            &folder.join(key + ".json"),
            &serde_json::to_string_pretty(&record)?,
        )?;
        Ok(record)
    }

    /// Wait for something that some processes bring about; the end of one of them ends the waiting.
    pub fn wait_with<T>(
        &self,
        processes: &[(&str, &String)],
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_for(what, limit, || {
            for (component, node) in processes {
                if let Err(error) = self.must_live(component, Some(node)) {
                    return Ok(Some(Err(error)));
                }
            }
            ready().map(|value| value.map(Ok))
        })?
    }

    /// Fail with the end of its log if a process has ended.
    pub fn must_live(&self, component: &str, node: Option<&str>) -> Result<()> {
        let Some(record) = self.record(component, node) else {
            bail!("{} was never started", process::key(component, node));
        };
        if !record.alive() {
            bail!(
                "{} ended; the end of {}:\n{}",
                record.key(),
                record.log.display(),
                process::tail(&record.log, 8)
            );
        }
        Ok(())
    }
}

/// Take the lock of a lab's directory, making the directory if needed.
pub fn lock(dir: &Path) -> Result<Flock<fs::File>> {
    loop {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let file = fs::File::open(dir)?;
        let taken = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(taken) => taken,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                eprintln!(
                    "waiting for another kube-ovn-lab that works on {}",
                    dir.display()
                );
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, error)| error)
                    .context("cannot lock the lab")?
            }
            Err((_, error)) => return Err(error).context("cannot lock the lab"),
        };
        // While we waited, `down` may have removed the directory: then the lock is on nothing.
        if same_file(&taken, dir) {
            return Ok(taken);
        }
    }
}

fn same_file(file: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Write a file unless it says the same already: kube-proxy ends when its configuration is touched.
pub fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write_atomic(path, text)
}

/// Write a file so that a reader sees the old or the new text, never half of it.
pub fn write_atomic(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_not_fit_are_refused() {
        for name in ["", "-a", "A", "a/b", "a_b", "abcdefghijklmnopqrstu"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("lab-2").is_ok());
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(plural(1, "node"), "1 node");
        assert_eq!(plural(3, "node"), "3 nodes");
        assert_eq!(plural(2, "process"), "2 processes");
    }

    #[test]
    fn socket_paths_stay_short_enough() {
        let dir = PathBuf::from("/run/kube-ovn-lab").join("abcdefghijklmnopqrst");
        let socket = dir.join("nodes/192.168.1.254/run/openvswitch/kube-ovn-daemon.sock");
        assert!(socket.as_os_str().len() < 107);
    }
}
