//! A daemon to talk to, and a runtime that runs the program.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use api::cni::{Response, ResponseIp};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the plugin sent: the request line and the body.
pub type Seen = (String, Value);

/// A daemon that gives the same answer to everything.
pub struct Daemon {
    directory: TempDir,
    seen: Receiver<Seen>,
}

impl Daemon {
    pub fn answering(status: u16, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap();
        Self::serving(move |stream| {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            // Keeps the connection open, as a server may: the plugin must not wait for its end.
            thread::sleep(Duration::from_millis(200));
        })
    }

    pub fn done() -> Self {
        Self::serving(|stream| {
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap();
        })
    }

    pub fn serving(answer: impl Fn(&mut UnixStream) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (sender, seen) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = sender.send(read_request(&stream));
                answer(&mut stream);
            }
        });
        Self { directory, seen }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// A configuration that names this daemon.
    pub fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "kube-ovn", "type": "kube-ovn",
            "server_socket": self.socket(),
        })
    }

    /// The body of the one request that was sent to this path.
    pub fn saw<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (line, body) = self.seen.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(line, format!("POST {path} HTTP/1.1"));
        serde_json::from_value(body).unwrap()
    }
}

pub fn read_request(stream: &UnixStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let (mut length, mut host) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().unwrap(),
            Some(("Host", _)) => host = true,
            Some(_) => {}
            None => break,
        }
    }
    assert!(host, "HTTP/1.1 demands a Host");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (
        first.trim_end().to_owned(),
        serde_json::from_slice(&body).unwrap(),
    )
}

/// What the plugin printed.
#[derive(Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn result(&self) -> Value {
        assert!(self.success, "{self:?}");
        self.json()
    }

    /// The code of an error, and its message and details in one text.
    pub fn error(&self) -> (u32, String) {
        assert!(!self.success, "{self:?}");
        let error = self.json();
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        assert!(
            !text("cniVersion").is_empty() && !text("msg").is_empty(),
            "{error}"
        );
        let code = error["code"].as_u64().unwrap();
        (
            u32::try_from(code).unwrap(),
            format!("{}: {}", text("msg"), text("details")),
        )
    }
}

pub const POD: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee";

pub fn run(verb: &str, config: &Value) -> Output {
    run_with(verb, config, &[])
}

/// Runs a verb; `changes` replace variables, an empty value removes one.
pub fn run_with(verb: &str, config: &Value, changes: &[(&str, &str)]) -> Output {
    let mut variables = BTreeMap::from([
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/var/run/netns/cni-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", POD),
    ]);
    variables.extend(changes.iter().copied());
    variables.retain(|_, value| !value.is_empty());
    execute(&variables, &config.to_string())
}

pub fn execute(variables: &BTreeMap<&str, &str>, stdin: &str) -> Output {
    // CNI_PLUGIN names another build of the program, such as the static one (crates/cni/build-static).
    let plugin =
        std::env::var_os("CNI_PLUGIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kube-ovn").into());
    let mut child = Command::new(plugin)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end without reading it all.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn dual() -> Response {
    let ip = |ip: &str, cidr: &str, gateway: &str| {
        ResponseIp::new(
            ip.parse().unwrap(),
            cidr.parse().unwrap(),
            Some(gateway.parse().unwrap()),
        )
    };
    Response {
        ips: vec![
            ip("10.16.0.12", "10.16.0.0/16", "10.16.0.1"),
            ip("fd00:10:16::c", "fd00:10:16::/112", "fd00:10:16::1"),
        ],
        mac_address: Some("00:00:00:53:6b:b6".parse().unwrap()),
        mtu: 1400,
        nicname: "eth0".into(),
        ..Response::default()
    }
}
