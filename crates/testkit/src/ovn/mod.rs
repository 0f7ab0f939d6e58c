//! Real OVSDB servers and ovn-northd, each in a temporary directory, for tests.
//!
//! ```no_run
//! use testkit::ovn::{Cluster, Northd, Schema, Server};
//!
//! let nb = Server::start(Schema::Northbound);
//! let sb = Server::start(Schema::Southbound);
//! let northd = Northd::start(&nb.remote(), &sb.remote());
//! nb.ctl(["ls-add", "sw0"]);
//!
//! let mut cluster = Cluster::start(Schema::Northbound);
//! let leader = cluster.wait_for_leader();
//! cluster.kill(leader);
//! ```
//!
//! Everything ends with its value, also when a test panics or is killed. A program that is missing fails the test and
//! names the Debian package to install.

mod cluster;
mod server;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

pub use cluster::Cluster;
pub use server::{Server, ServerOptions, Tls};

use crate::process::{Process, package_file, program, run, wait_for};

/// Where Debian's packages put their data, unless the variable that OVN's and Open vSwitch's own programs know says
/// otherwise: with it and `PATH`, tests run on another release (`tools/ovn-prefix`).
fn schema_file(variable: &str, default: &str, file: &str, package: &str) -> PathBuf {
    let dir = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    package_file(&format!("{dir}/{file}"), package)
}

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    Northbound,
    Southbound,
    OpenVSwitch,
    /// An `.ovsschema` file.
    File {
        name: String,
        path: PathBuf,
    },
}

impl Schema {
    /// The database's name.
    pub fn database(&self) -> &str {
        match self {
            Self::Northbound => "OVN_Northbound",
            Self::Southbound => "OVN_Southbound",
            Self::OpenVSwitch => "Open_vSwitch",
            Self::File { name, .. } => name,
        }
    }

    /// The schema as the distribution installs it, or below `OVN_PKGDATADIR` and `OVS_PKGDATADIR`.
    pub fn path(&self) -> PathBuf {
        let ovn = |file| schema_file("OVN_PKGDATADIR", "/usr/share/ovn", file, "ovn-central");
        match self {
            Self::Northbound => ovn("ovn-nb.ovsschema"),
            Self::Southbound => ovn("ovn-sb.ovsschema"),
            Self::OpenVSwitch => schema_file(
                "OVS_PKGDATADIR",
                "/usr/share/openvswitch",
                "vswitch.ovsschema",
                "openvswitch-switch",
            ),
            Self::File { path, .. } => path.clone(),
        }
    }

    /// The command line tool that goes with it, and its package.
    fn tool(&self) -> (&'static str, &'static str) {
        match self {
            Self::Northbound => ("ovn-nbctl", "ovn-common"),
            Self::Southbound => ("ovn-sbctl", "ovn-common"),
            Self::OpenVSwitch | Self::File { .. } => ("ovs-vsctl", "openvswitch-switch"),
        }
    }

    fn ctl(&self, remote: &str, args: Vec<String>) -> String {
        let (tool, package) = self.tool();
        let mut command = vec![format!("--db={remote}"), "--timeout=30".to_owned()];
        command.extend(args);
        run(&program(tool, package), command)
    }
}

fn tempdir() -> TempDir {
    // Short: the path of a unix socket must fit into 107 bytes.
    tempfile::Builder::new()
        .prefix("ovn-")
        .tempdir_in("/tmp")
        .unwrap_or_else(|e| panic!("a temporary directory: {e}"))
}

/// Asks a daemon over its control socket (ovs-appctl(8)).
fn appctl(control: &std::path::Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program("ovs-appctl", "openvswitch-common"))
        .arg("--timeout=5")
        .arg("-t")
        .arg(control)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("ovs-appctl: {e}"));
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running ovn-northd.
#[derive(Debug)]
pub struct Northd {
    process: Process,
    control: PathBuf,
    _dir: TempDir,
}

impl Northd {
    /// Starts it between two databases, each given as a list of remotes.
    pub fn start(northbound: &str, southbound: &str) -> Self {
        let dir = tempdir();
        let control = dir.path().join("northd.ctl");
        let mut command = Command::new(program("ovn-northd", "ovn-central"));
        command
            .arg(format!("--ovnnb-db={northbound}"))
            .arg(format!("--ovnsb-db={southbound}"))
            .arg(format!("--unixctl={}", control.display()))
            .args(["--no-chdir", "-vconsole:info", "-vsyslog:off", "-vfile:off"])
            .env("OVN_RUNDIR", dir.path())
            .env("OVS_RUNDIR", dir.path());
        let mut process = Process::spawn(command, &dir.path().join("northd.log"));
        wait_for("ovn-northd becomes active", PATIENCE, || {
            process.assert_running("ovn-northd");
            let status = control
                .exists()
                .then(|| appctl(&control, &["status"]))
                .flatten()?;
            status.contains("Status: ").then_some(())
        });
        Self {
            process,
            control,
            _dir: dir,
        }
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Keeps it from computing; `resume` lets it go on.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn pause(&self) {
        self.command("pause");
    }

    /// Lets it go on, with all that changed meanwhile: by itself, ovn-northd 23.03 often forgets what it saw while it was
    /// paused.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn resume(&self) {
        self.command("resume");
        self.command("inc-engine/recompute");
    }

    fn command(&self, command: &str) {
        assert!(
            appctl(&self.control, &[command]).is_some(),
            "ovn-northd does not take the command {command}"
        );
    }
}
