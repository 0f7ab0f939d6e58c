//! The processes really run, and really end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::ovn::{Cluster, Northd, Schema, Server};
use testkit::process::{program, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn northd_translates_between_two_servers() {
    let nb = Server::start(Schema::Northbound);
    let sb = Server::start(Schema::Southbound);
    let northd = Northd::start(&nb.remote(), &sb.remote());
    nb.ctl(["ls-add", "sw0"]);
    wait_for("the datapath of sw0", PATIENCE, || {
        sb.ctl([
            "--bare",
            "--columns=external_ids",
            "list",
            "Datapath_Binding",
        ])
        .contains("name=sw0")
        .then_some(())
    });
    northd.pause();
    nb.ctl(["ls-add", "sw1"]);
    std::thread::sleep(Duration::from_millis(200));
    let datapaths = || {
        sb.ctl(["--bare", "--columns=_uuid", "list", "Datapath_Binding"])
            .split_whitespace()
            .count()
    };
    assert_eq!(datapaths(), 1);
    northd.resume();
    wait_for("the datapath of sw1", PATIENCE, || {
        (datapaths() == 2).then_some(())
    });
}

#[test]
fn the_database_of_a_node_starts() {
    let server = Server::start(Schema::OpenVSwitch);
    assert_eq!(server.database(), "Open_vSwitch");
    // No vswitchd is there to wait for.
    server.ctl(["--no-wait", "add-br", "br-int"]);
    assert_eq!(server.ctl(["list-br"]).trim(), "br-int");
}

#[test]
fn a_cluster_gets_over_the_death_of_its_leader() {
    let mut cluster = Cluster::start(Schema::Southbound);
    let leader = cluster.wait_for_leader();
    cluster.kill(leader);
    assert_eq!(cluster.status(leader), None);
    assert_ne!(cluster.wait_for_leader(), leader);
    cluster.restart(leader);
    wait_for("it joins again", PATIENCE, || {
        cluster
            .status(leader)
            .filter(|s| s.contains("Role: follower"))
    });
    let leader = cluster.wait_for_leader();
    assert_ne!(cluster.move_leader(), leader);
}

fn alive(pid: u32) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
}

#[test]
fn nothing_is_left_behind() {
    let server = Server::start(Schema::Northbound);
    let (pid, dir) = (server.process().pid(), server.dir().to_owned());
    server.freeze();
    assert!(alive(pid) && dir.exists());
    drop(server);
    assert!(!alive(pid) && !dir.exists());
}

/// This program again, killed in the middle of a test.
#[test]
fn nothing_runs_on_after_a_test_that_was_killed() {
    const INNER: &str = "TESTKIT_INNER";
    if let Ok(file) = std::env::var(INNER) {
        let server = Server::start(Schema::Northbound);
        let text = format!("{} {}", server.process().pid(), server.dir().display());
        std::fs::write(file, text).unwrap();
        std::thread::sleep(PATIENCE);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_runs_on_after_a_test_that_was_killed"])
        .env(INNER, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = wait_for("the inner test runs", PATIENCE, || {
        std::fs::read_to_string(&file)
            .ok()
            .filter(|t| t.contains('/'))
    });
    let (pid, left) = text.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(alive(pid));
    inner.kill().unwrap();
    inner.wait().unwrap();
    wait_for("its server ends", PATIENCE, || (!alive(pid)).then_some(()));
    std::fs::remove_dir_all(Path::new(left)).unwrap();
}

#[test]
#[should_panic(expected = "install the Debian package no-such-package")]
fn a_missing_program_says_what_to_install() {
    program("no-such-program", "no-such-package");
}
