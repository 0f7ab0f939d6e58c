//! Processes of a lab: started detached, recorded by pid and start time, ended only after both agree.
//!
//! A pid alone may belong to a stranger by the time we come back to it; a pid together with its start time
//! (`/proc/PID/stat`, field 22, in clock ticks since boot) never does.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The variable that marks every process of a lab; its value is the lab's directory.
pub const MARK: &str = "KUBE_OVN_LAB_OWNER";

/// One process as it was started; lives in `<lab>/proc/<key>.json`, written by the one who started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it is: `kubelet`, `ovn-northd`, `kube-ovn-controller`, ...
    pub component: String,
    /// The node it belongs to, if it belongs to one.
    pub node: Option<String>,
    /// Process id in the machine's own namespace.
    pub pid: i32,
    /// Clock ticks between boot and the start of the process.
    pub ticks: u64,
    /// Seconds since 1970 at the start.
    pub since: u64,
    /// Digest of the command line and of the program: another one means "start it anew".
    pub fingerprint: String,
    /// The command line as a reader would type it.
    pub command: String,
    /// Where its output goes.
    pub log: PathBuf,
    /// How often it was started before under this key.
    pub restarts: u32,
}

impl Record {
    /// File name and display name: `kubelet@192.168.1.41`.
    pub fn key(&self) -> String {
        key(&self.component, self.node.as_deref())
    }

    /// Is this very process (not another one with its pid) still there, and not a zombie?
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.ticks == self.ticks && s.state != 'Z' && s.state != 'X')
    }

    /// Send a signal if the process is still the one that was recorded.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// End it: TERM, and KILL after `grace`.
    pub fn stop(&self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        // A stopped process takes TERM only when it continues.
        self.signal(Signal::SIGCONT);
        let start = Instant::now();
        while self.alive() {
            if start.elapsed() > grace {
                self.signal(Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
            if start.elapsed() > grace + Duration::from_secs(5) {
                break;
            }
        }
    }

    /// Resident memory in bytes, 0 if it is gone.
    pub fn memory(&self) -> u64 {
        if !self.alive() {
            return 0;
        }
        memory(self.pid)
    }
}

/// The key of a component: `NAME@NODE` or `NAME`.
pub fn key(component: &str, node: Option<&str>) -> String {
    match node {
        Some(node) => format!("{component}@{node}"),
        None => component.to_owned(),
    }
}

/// State letter and start time of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z`, ... as in proc(5).
    pub state: char,
    /// Parent's pid.
    pub parent: i32,
    /// Start time in clock ticks since boot.
    pub ticks: u64,
}

/// Read `/proc/PID/stat`; `None` if there is no such process.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        ticks,
    })
}

/// Resident memory of a process in bytes.
pub fn memory(pid: i32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Memory of a process in bytes, with pages that it shares with others divided among them: these add up.
pub fn own_memory(pid: i32) -> u64 {
    let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
        return memory(pid);
    };
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map_or_else(|| memory(pid), |kib| kib * 1024)
}

/// All process ids of the machine.
pub fn all() -> Vec<i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Processes whose environment carries our mark with a value that `belongs` accepts.
pub fn marked(belongs: impl Fn(&str) -> bool) -> BTreeSet<i32> {
    let prefix = format!("{MARK}=");
    all()
        .into_iter()
        .filter(|pid| {
            let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
                return false;
            };
            environment.split(|b| *b == 0).any(|entry| {
                std::str::from_utf8(entry)
                    .ok()
                    .and_then(|entry| entry.strip_prefix(&prefix))
                    .is_some_and(&belongs)
            })
        })
        .collect()
}

/// This process and all its ancestors: never to be ended by ourselves.
pub fn lineage() -> BTreeSet<i32> {
    let mut line = BTreeSet::new();
    let mut pid = i32::try_from(std::process::id()).unwrap_or(0);
    while pid > 1 && line.insert(pid) {
        let Some(stat) = stat(pid) else { break };
        pid = stat.parent;
    }
    line
}

/// Start `command` in a session of its own with its output in `log`; the caller says what it is.
pub fn detach(command: &mut Command, log: &Path) -> Result<(i32, u64)> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start `{}`", crate::command::shown(command)))?;
    let pid = i32::try_from(child.id()).context("a process id beyond i32")?;
    let ticks = stat(pid)
        .with_context(|| format!("process {pid} vanished at its start"))?
        .ticks;
    Ok((pid, ticks))
}

/// Digest of a command line and, if given, of size and time of its program.
pub fn fingerprint(
    command: &str,
    environment: &[(String, String)],
    program: Option<&Path>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(command);
    for (name, value) in environment {
        hash.update(name);
        hash.update("=");
        hash.update(value);
        hash.update("\n");
    }
    if let Some(meta) = program.and_then(|path| fs::metadata(path).ok()) {
        hash.update(format!(
            "{} {} {}",
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
    }
    hex(&hash.finalize())[..16].to_owned()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// The last lines of a file, for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = File::open(path)
        .ok()
        .and_then(|file| {
            use std::io::{Read as _, Seek as _, SeekFrom};
            let mut file = file;
            let size = file.metadata().ok()?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(16 << 10)))
                .ok()?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        })
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let line = "12 (a) b (c)) S 7 12 12 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 1 0 987654 1 2";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.ticks), ('S', 7, 987_654));
    }

    #[test]
    fn a_record_does_not_match_a_stranger_with_the_same_pid() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut record = Record {
            component: "test".into(),
            node: None,
            pid,
            ticks: stat(pid).unwrap().ticks,
            since: 0,
            fingerprint: String::new(),
            command: String::new(),
            log: PathBuf::new(),
            restarts: 0,
        };
        assert!(record.alive());
        record.ticks += 1;
        assert!(!record.alive());
    }

    #[test]
    fn stopping_ends_the_process_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let (pid, ticks) = detach(&mut command, &folder.path().join("log")).unwrap();
        let record = Record {
            component: "sleep".into(),
            node: None,
            pid,
            ticks,
            since: 0,
            fingerprint: String::new(),
            command: String::new(),
            log: PathBuf::new(),
            restarts: 0,
        };
        assert!(record.alive());
        record.stop(Duration::from_secs(1));
        assert!(!record.alive());
    }
}
