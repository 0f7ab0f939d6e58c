//! Three ovsdb-servers that hold one database by RAFT.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::server::command;
use super::{PATIENCE, Schema, appctl, tempdir};
use crate::process::{Process, program, run, wait_for};

/// A clustered database of three members. Members talk to each other and to clients over unix sockets.
#[derive(Debug)]
pub struct Cluster {
    schema: Schema,
    members: Vec<Option<Process>>,
    frozen: Vec<bool>,
    dir: TempDir,
}

const SIZE: usize = 3;

impl Cluster {
    /// Starts three members and waits until they have joined and have a leader.
    ///
    /// # Panics
    ///
    /// If a program is missing or the cluster does not come up.
    pub fn start(schema: Schema) -> Self {
        let dir = tempdir();
        let tool = program("ovsdb-tool", "openvswitch-common");
        let raft = |i: usize| format!("unix:{}", dir.path().join(format!("{i}.raft")).display());
        let file = |i: usize| dir.path().join(format!("{i}.db")).display().to_string();
        for i in 0..SIZE {
            if i == 0 {
                let path = schema.path().display().to_string();
                run(&tool, ["create-cluster", &file(0), &path, &raft(0)]);
            } else {
                let name = schema.database();
                run(&tool, ["join-cluster", &file(i), name, &raft(i), &raft(0)]);
            }
        }
        let mut cluster = Self {
            schema,
            members: (0..SIZE).map(|_| None).collect(),
            frozen: vec![false; SIZE],
            dir,
        };
        for i in 0..SIZE {
            cluster.restart(i);
        }
        wait_for("all members have joined", PATIENCE, || {
            let joined = (0..SIZE).all(|i| {
                cluster
                    .status(i)
                    .is_some_and(|s| s.contains("Status: cluster member"))
            });
            joined.then_some(())
        });
        cluster.wait_for_leader();
        cluster
    }

    fn path(&self, i: usize, what: &str) -> PathBuf {
        self.dir.path().join(format!("{i}.{what}"))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn database(&self) -> &str {
        self.schema.database()
    }

    /// `unix:PATH` of one member.
    pub fn remote(&self, i: usize) -> String {
        format!("unix:{}", self.path(i, "sock").display())
    }

    /// All members' remotes, separated by commas.
    pub fn remotes(&self) -> String {
        (0..SIZE)
            .map(|i| self.remote(i))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The member's own account (`cluster/status`); none if it does not answer.
    pub fn status(&self, i: usize) -> Option<String> {
        if self.frozen[i] || self.members[i].is_none() {
            return None;
        }
        let control = self.path(i, "ctl");
        control
            .exists()
            .then(|| appctl(&control, &["cluster/status", self.database()]))
            .flatten()
    }

    /// The member that leads, if one answers that it does.
    pub fn leader(&self) -> Option<usize> {
        (0..SIZE).find(|&i| self.status(i).is_some_and(|s| s.contains("Role: leader")))
    }

    /// # Panics
    ///
    /// If there is none for long.
    pub fn wait_for_leader(&self) -> usize {
        wait_for("the cluster has a leader", PATIENCE, || self.leader())
    }

    /// Makes the leader hand over to another member, and returns that.
    pub fn move_leader(&self) -> usize {
        let old = self.wait_for_leader();
        let control = self.path(old, "ctl");
        let mut asked: Option<Instant> = None;
        wait_for("another member leads", PATIENCE, || {
            // On a busy machine the old leader may win the election again.
            if asked.is_none_or(|at| at.elapsed() > 3 * Self::ELECTION) {
                appctl(&control, &["cluster/failure-test", "transfer-leadership"]);
                asked = Some(Instant::now());
            }
            self.leader().filter(|&new| new != old)
        })
    }

    /// Ends a member at once, as a crash would.
    pub fn kill(&mut self, i: usize) {
        self.members[i] = None;
        self.frozen[i] = false;
    }

    /// Starts a member (again) with what it has on disk.
    pub fn restart(&mut self, i: usize) {
        self.kill(i);
        let dir = self.dir.path();
        let command = command(dir, &self.path(i, "db"), &i.to_string());
        let mut process = Process::spawn(command, &self.path(i, "log"));
        // Left over from before a crash; the server makes it anew.
        let socket = self.path(i, "sock");
        wait_for("the member listens", PATIENCE, || {
            process.assert_running("ovsdb-server");
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        self.members[i] = Some(process);
    }

    /// # Panics
    ///
    /// If it was killed.
    pub fn process(&self, i: usize) -> &Process {
        self.members[i]
            .as_ref()
            .unwrap_or_else(|| panic!("member {i} was killed"))
    }

    /// Stops a member as if its machine hung.
    pub fn freeze(&mut self, i: usize) {
        self.process(i).freeze();
        self.frozen[i] = true;
    }

    pub fn thaw(&mut self, i: usize) {
        self.process(i).thaw();
        self.frozen[i] = false;
    }

    /// Runs `ovn-nbctl`, `ovn-sbctl` or `ovs-vsctl`, whichever fits, against the leader. (With all remotes the tools may
    /// get stuck at a frozen member: they send no probes over unix sockets.)
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ctl<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let args = args.into_iter().map(Into::into).collect();
        self.schema.ctl(&self.remote(self.wait_for_leader()), args)
    }

    /// How long members wait for their leader before they elect another one.
    pub const ELECTION: Duration = Duration::from_secs(1);
}
