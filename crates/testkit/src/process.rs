//! Programs of the system as children of a test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Finds a program in PATH, /usr/sbin and /sbin.
///
/// # Panics
///
/// If it is not there; the message names the Debian package to install.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("the program {name} is missing: install the Debian package {package} (apt-get install {package})")
        })
}

/// A file that a package brings.
///
/// # Panics
///
/// If it is not there; the message names the Debian package to install.
pub fn package_file(path: &str, package: &str) -> PathBuf {
    let path = PathBuf::from(path);
    assert!(
        path.is_file(),
        "the file {} is missing: install the Debian package {package} (apt-get install {package})",
        path.display()
    );
    path
}

/// Runs a program to its end and returns what it printed.
///
/// # Panics
///
/// If it fails.
pub fn run<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program);
    command.args(args);
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Calls `probe` until it gives something.
///
/// # Panics
///
/// After `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            start.elapsed() < patience,
            "{what}: not within {patience:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running program. It ends with this value, and also if the test's process is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// A shell that kills the child when the other end of its standard input closes.
    watchdog: Child,
    _lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let errors = output
            .try_clone()
            .unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        // A group of its own: Ctrl-C on the terminal is for the test, which then ends its children.
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -KILL \"$1\"", "watchdog"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("/bin/sh: {e}"));
        let lifeline = watchdog.stdin.take();
        Self {
            child,
            watchdog,
            _lifeline: lifeline,
            log: log.to_owned(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended on its own.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Stops it as if its machine hung: its sockets stay open, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Asks it to end, and waits for it.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        let start = Instant::now();
        while self.is_running() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails the test with the program's own words if it ended.
    pub fn assert_running(&mut self, what: &str) {
        if !self.is_running() {
            // The log is what a developer needs; a broken stderr would not matter.
            let _ = writeln!(std::io::stderr(), "{}", self.log());
            panic!("{what} has ended; its log is above");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog first: once the child is reaped, its number may belong to another process.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
