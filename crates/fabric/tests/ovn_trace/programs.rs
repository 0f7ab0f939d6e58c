//! The OVN that the tests run on: where its programs and schemas are, and what its logs must not say.
//!
//! Programs are found in PATH. To run on another release, unpack it and put it in front:
//! `PATH=PREFIX/bin:$PATH cargo test -p fabric --test ovn_trace`.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::ovn::Schema;
use testkit::process::{program, run};

/// A schema of the release that is used: beside the program if it was unpacked somewhere, else the installed one.
pub fn schema(which: Schema) -> Schema {
    let (tool, package, file) = match which {
        Schema::Northbound => ("ovn-northd", "ovn-central", "ovn/ovn-nb.ovsschema"),
        Schema::Southbound => ("ovn-northd", "ovn-central", "ovn/ovn-sb.ovsschema"),
        Schema::OpenVSwitch => (
            "ovs-vswitchd",
            "openvswitch-switch",
            "openvswitch/vswitch.ovsschema",
        ),
        Schema::File { .. } => return which,
    };
    let name = which.database().to_owned();
    let program = program(tool, package);
    let prefix = program.parent().and_then(Path::parent);
    prefix
        .map(|prefix| prefix.join("root/usr/share").join(file))
        .filter(|path| path.is_file())
        .map_or(which, |path| Schema::File { name, path })
}

/// A command line tool of OVN or Open vSwitch against a database.
pub fn ctl(tool: &str, package: &str, remote: &str, args: &[&str]) -> String {
    let (db, timeout) = (format!("--db={remote}"), "--timeout=60");
    let fixed = [db.as_str(), timeout];
    run(&program(tool, package), fixed.iter().chain(args))
}

pub fn nbctl(remote: &str, args: &[&str]) -> String {
    ctl("ovn-nbctl", "ovn-common", remote, args)
}

pub fn sbctl(remote: &str, args: &[&str]) -> String {
    ctl("ovn-sbctl", "ovn-common", remote, args)
}

pub fn vsctl(remote: &str, args: &[&str]) -> String {
    ctl("ovs-vsctl", "openvswitch-switch", remote, args)
}

/// Asks a daemon over its control socket.
pub fn appctl(control: &Path, args: &[&str]) -> String {
    let target = ["--timeout=30", "-t"].map(str::to_owned);
    let control = control.display().to_string();
    let args = args.iter().map(ToString::to_string);
    run(
        &program("ovs-appctl", "openvswitch-common"),
        target.into_iter().chain([control]).chain(args),
    )
}

/// A program that is started for a while, with its files in one directory.
pub fn daemon(name: &str, package: &str, dir: &Path) -> Command {
    let mut command = Command::new(program(name, package));
    command
        .args(["--no-chdir", "-vconsole:info", "-vsyslog:off", "-vfile:off"])
        .env("OVS_RUNDIR", dir)
        .env("OVN_RUNDIR", dir)
        .current_dir(dir);
    command
}

/// All rows of a database as its server prints them.
pub fn dump(remote: &str, database: &str, tables_and_columns: &[&str]) -> String {
    let tool = program("ovsdb-client", "openvswitch-common");
    let head = ["--timeout=60", "-f", "csv", "dump", remote, database];
    run(&tool, head.iter().chain(tables_and_columns))
}

/// Lines of a daemon's log that speak of trouble, without those that contain one of `harmless`.
pub fn complaints(log: &str, harmless: &[&str]) -> Vec<String> {
    let trouble = [
        "|WARN|",
        "|ERR|",
        "|EMER|",
        "error parsing match",
        "syntax error",
    ];
    log.lines()
        .filter(|line| trouble.iter().any(|word| line.contains(word)))
        .filter(|line| !harmless.iter().any(|word| line.contains(word)))
        .map(str::to_owned)
        .collect()
}

/// A temporary directory with a name short enough for unix sockets.
pub fn tempdir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new()
        .prefix("ovn-")
        .tempdir_in("/tmp")
        .expect("a temporary directory");
    let path = dir.path().to_owned();
    (dir, path)
}
