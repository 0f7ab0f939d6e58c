//! The program itself, on a node where nothing else runs yet.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use node::linux::NetNs;
use testkit::ovn::{Schema, Server};

const PATIENCE: Duration = Duration::from_secs(20);

struct Daemon {
    ns: NetNs,
    process: Child,
}

impl Daemon {
    fn start(dir: &Path, ovs: &str) -> Self {
        let ns = NetNs::new().unwrap();
        let flag = |name: &str, path: &str| format!("--{name}={}", dir.join(path).display());
        let process = ns
            .run(|| {
                let up = Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .status();
                assert!(up.unwrap().success());
                Command::new(env!("CARGO_BIN_EXE_kube-ovn-daemon"))
                    .args([
                        "--node-name=n1",
                        &format!("--ovs-socket={ovs}"),
                        &flag("bind-socket", "run/cni.sock"),
                        &flag("kubeconfig", "kubeconfig"),
                        &flag("cni-conf-dir", "net.d"),
                    ])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .unwrap();
        Self { ns, process }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let ask = || {
            let mut stream = TcpStream::connect("127.0.0.1:10665")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let answer = self.ns.run(ask).unwrap().ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until `/readyz` is not ready because of all these and not of those.
    fn waits_for(&self, wanted: &[&str], unwanted: &[&str]) {
        let start = Instant::now();
        loop {
            let answer = self.get("/readyz");
            if let Some((503, text)) = &answer
                && wanted.iter().all(|w| text.contains(w))
                && !unwanted.iter().any(|w| text.contains(w))
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{wanted:?}: {answer:?}");
            sleep(Duration::from_millis(50));
        }
    }

    fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none() && self.get("/livez").unwrap().0 == 200
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_daemon_that_is_the_first_on_its_node_waits_and_says_for_what() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root"
    );
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let mut ovs = Server::start(Schema::OpenVSwitch);
    ovs.kill();
    let remote = ovs.remote();
    // What is to be the directory of the socket is something else.
    let run = dir.path().join("run");
    fs::write(&run, "").unwrap();
    let mut daemon = Daemon::start(dir.path(), remote.strip_prefix("unix:").unwrap());
    let api = "the API server (configuration): kubeconfig";
    let database = "Open vSwitch's database: ";
    daemon.waits_for(&["the CNI socket", api, database, "Node n1"], &[]);
    assert!(
        daemon.is_alive(),
        "a restart would not bring what is missing"
    );
    let metrics = daemon.get("/metrics").unwrap().1;
    assert!(metrics.contains("kube_ovn_daemon_ready 0"), "{metrics}");

    // One after the other they come.
    fs::remove_file(&run).unwrap();
    daemon.waits_for(&[api, database], &["the CNI socket"]);
    ovs.restart();
    let uninitialised = "Open vSwitch's database to be initialised";
    daemon.waits_for(&[api, uninitialised], &[database]);
    ovs.ctl(["--no-wait", "init"]);
    daemon.waits_for(&[api, "bridge br-int"], &[uninitialised]);
    let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
    daemon.waits_for(&["the API server (pods): ", "onnection refused"], &[api]);
    // And go.
    ovs.kill();
    daemon.waits_for(&[database], &[]);
    assert!(daemon.is_alive());
    assert!(!dir.path().join("net.d").exists(), "no pod can be attached");

    let pid = daemon.process.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = daemon.process.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}
