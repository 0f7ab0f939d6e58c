//! The program against a daemon that the test plays: what a runtime gives it, what the daemon sees, what comes back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use api::cni::{
    self, Attachment, CheckRequest, Dns, Failure, GcRequest, Request, Response, ResponseIp, Route,
    StatusRequest, code,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the plugin sent: the request line and the body.
type Seen = (String, Value);

/// A daemon that gives the same answer to everything.
struct Daemon {
    directory: TempDir,
    seen: Receiver<Seen>,
}

impl Daemon {
    fn answering(status: u16, body: &impl serde::Serialize) -> Self {
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

    fn done() -> Self {
        Self::serving(|stream| {
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap();
        })
    }

    fn serving(answer: impl Fn(&mut UnixStream) + Send + 'static) -> Self {
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

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// A configuration that names this daemon.
    fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "kube-ovn", "type": "kube-ovn",
            "server_socket": self.socket(),
        })
    }

    /// The body of the one request that was sent to this path.
    fn saw<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (line, body) = self.seen.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(line, format!("POST {path} HTTP/1.1"));
        serde_json::from_value(body).unwrap()
    }
}

fn read_request(stream: &UnixStream) -> Seen {
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
struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Output {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn result(&self) -> Value {
        assert!(self.success, "{self:?}");
        self.json()
    }

    /// The code of an error, and its message and details in one text.
    fn error(&self) -> (u32, String) {
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

const POD: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee";

fn run(verb: &str, config: &Value) -> Output {
    run_with(verb, config, &[])
}

/// Runs a verb; `changes` replace variables, an empty value removes one.
fn run_with(verb: &str, config: &Value, changes: &[(&str, &str)]) -> Output {
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

fn execute(variables: &BTreeMap<&str, &str>, stdin: &str) -> Output {
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

fn dual() -> Response {
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

#[test]
fn add_says_everything_to_the_daemon() {
    let daemon = Daemon::answering(200, &dual());
    let mut config = daemon.config("1.1.0");
    config["provider"] = json!("net1.shop.ovn");
    config["routes"] = json!([{ "dst": "1.2.3.0/24", "gw": "10.16.0.254" }]);
    config["dns"] = json!({ "nameservers": ["10.68.0.10"], "search": ["svc"] });
    config["deviceID"] = json!("0000:01:00.0");
    config["vf_driver"] = json!("vfio-pci");
    config["runtimeConfig"] = json!({ "portMappings": [] });
    assert!(run("ADD", &config).success);
    assert_eq!(
        daemon.saw::<Request>(cni::PATH_ADD),
        Request {
            cni_type: "kube-ovn".into(),
            pod_name: "web-0".into(),
            pod_namespace: "shop".into(),
            container_id: "c0ffee".into(),
            net_ns: "/var/run/netns/cni-1".into(),
            if_name: "eth0".into(),
            provider: "net1.shop.ovn".into(),
            routes: vec![Route {
                dst: "1.2.3.0/24".into(),
                gw: "10.16.0.254".into()
            }],
            dns: Dns {
                nameservers: vec!["10.68.0.10".into()],
                search: vec!["svc".into()],
                ..Dns::default()
            },
            vf_driver: "vfio-pci".into(),
            device_id: "0000:01:00.0".into(),
            ..Request::default()
        }
    );
}

#[test]
fn add_gives_the_result_of_each_version() {
    let daemon = Daemon::answering(200, &dual());
    let result = |version: &str| run("ADD", &daemon.config(version)).result();

    assert_eq!(
        result("1.1.0"),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{
                "name": "eth0", "mac": "00:00:00:53:6b:b6", "mtu": 1400, "sandbox": "/var/run/netns/cni-1",
            }],
            "ips": [
                { "interface": 0, "address": "10.16.0.12/16", "gateway": "10.16.0.1" },
                { "interface": 0, "address": "fd00:10:16::c/112", "gateway": "fd00:10:16::1" },
            ],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.16.0.1" }, { "dst": "::/0", "gw": "fd00:10:16::1" }],
            "dns": {},
        })
    );

    let mut older = result("1.1.0");
    older["cniVersion"] = json!("1.0.0");
    older["interfaces"][0]
        .as_object_mut()
        .unwrap()
        .remove("mtu");
    assert_eq!(result("1.0.0"), older, "1.0.0 has no mtu");

    older["ips"][0]["version"] = json!("4");
    older["ips"][1]["version"] = json!("6");
    for version in ["0.4.0", "0.3.1", "0.3.0"] {
        older["cniVersion"] = json!(version);
        assert_eq!(result(version), older, "addresses had versions");
    }

    let oldest = json!({
        "cniVersion": "0.2.0",
        "ip4": { "ip": "10.16.0.12/16", "gateway": "10.16.0.1", "routes": [{ "dst": "0.0.0.0/0", "gw": "10.16.0.1" }] },
        "ip6": { "ip": "fd00:10:16::c/112", "gateway": "fd00:10:16::1", "routes": [{ "dst": "::/0", "gw": "fd00:10:16::1" }] },
        "dns": {},
    });
    assert_eq!(result("0.2.0"), oldest);
    let mut without = daemon.config("");
    without.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(
        run("ADD", &without).result()["cniVersion"],
        "0.1.0",
        "a configuration without a version is of the first"
    );
}

#[test]
fn routes_of_the_daemon_replace_the_default_routes() {
    let mut response = dual();
    response.routes = vec![
        Route {
            dst: "192.0.2.0/24".into(),
            gw: "10.16.0.1".into(),
        },
        Route {
            dst: String::new(),
            gw: "fd00:10:16::1".into(),
        },
    ];
    let daemon = Daemon::answering(200, &response);
    assert_eq!(
        run("ADD", &daemon.config("1.0.0")).result()["routes"],
        json!([{ "dst": "192.0.2.0/24", "gw": "10.16.0.1" }, { "dst": "::/0", "gw": "fd00:10:16::1" }])
    );
}

#[test]
fn an_address_without_gateway_gets_no_route() {
    let mut response = dual();
    response.ips.pop();
    response.ips[0].gateway = None;
    let daemon = Daemon::answering(200, &response);
    let mut config = daemon.config("1.0.0");
    config["routes"] = Value::Null;
    config["ipam"] = Value::Null;
    config["dns"] = json!({ "nameservers": ["10.68.0.10"] });
    let result = run("ADD", &config).result();
    assert_eq!(result.get("routes"), None);
    assert_eq!(
        result["ips"],
        json!([{ "interface": 0, "address": "10.16.0.12/16" }])
    );
    assert_eq!(result["dns"], json!({ "nameservers": ["10.68.0.10"] }));
}

#[test]
fn another_plugin_may_ask_for_addresses_only() {
    let mut response = dual();
    response.nicname = String::new();
    response.mac_address = None;
    let daemon = Daemon::answering(200, &response);
    let config = json!({
        "cniVersion": "1.0.0", "name": "mac", "type": "macvlan", "master": "eth1",
        "ipam": {
            "type": "kube-ovn", "server_socket": daemon.socket(), "provider": "mac.shop",
            "routes": [{ "dst": "1.2.3.0/24" }],
        },
    });
    let result = run("ADD", &config).result();
    assert_eq!(
        result.get("interfaces"),
        None,
        "the interface is the other plugin's"
    );
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.16.0.12/16", "gateway": "10.16.0.1" })
    );
    let request: Request = daemon.saw(cni::PATH_ADD);
    assert_eq!(
        (
            &*request.cni_type,
            &*request.provider,
            &*request.routes[0].dst
        ),
        ("macvlan", "mac.shop", "1.2.3.0/24")
    );
}

#[test]
fn refusals_carry_the_daemons_words_and_a_code() {
    let refused = |verb: &str, version: &str, status: u16, code: Option<u32>| {
        let failure = Failure {
            error: "pod shop/web-0 has no address yet".into(),
            code,
        };
        let daemon = Daemon::answering(status, &failure);
        let (code, text) = run(verb, &daemon.config(version)).error();
        assert!(text.contains(&failure.error), "{text}");
        code
    };
    assert_eq!(refused("ADD", "0.3.1", 500, None), code::TRY_AGAIN_LATER);
    assert_eq!(refused("ADD", "0.3.1", 503, None), code::TRY_AGAIN_LATER);
    assert_eq!(
        refused("ADD", "0.3.1", 400, None),
        code::INVALID_NETWORK_CONFIG
    );
    assert_eq!(refused("ADD", "1.1.0", 500, Some(105)), 105);
    assert_eq!(refused("DEL", "0.3.1", 500, None), code::TRY_AGAIN_LATER);
    assert_eq!(
        refused("STATUS", "1.1.0", 503, None),
        code::PLUGIN_NOT_AVAILABLE
    );
    assert_eq!(
        refused("STATUS", "1.1.0", 503, Some(51)),
        code::PLUGIN_NOT_AVAILABLE_LIMITED
    );
}

#[test]
fn an_error_inside_a_success_is_an_error() {
    let response = Response {
        error: "no address".into(),
        ..Response::default()
    };
    let daemon = Daemon::answering(200, &response);
    let (code, text) = run("ADD", &daemon.config("0.3.1")).error();
    assert_eq!(code, code::TRY_AGAIN_LATER);
    assert!(text.contains("no address"), "{text}");
}

#[test]
fn answers_that_make_no_sense_are_decoding_failures() {
    for answer in [
        json!("hello"),
        json!({ "ips": [{ "ip": "10.16.0.500", "cidr": "10.16.0.0/16" }] }),
        json!({ "ips": [{ "ip": "10.16.0.5", "cidr": "fd00::/64" }] }),
        json!({ "ips": [{ "ip": "10.16.0.5", "cidr": "10.16.0.0/33" }] }),
        json!({ "ips": [{ "ip": "10.16.0.5", "cidr": "10.16.0.0/16", "gateway": "x" }] }),
        json!({ "routes": [{ "gw": "" }] }),
    ] {
        let daemon = Daemon::answering(200, &answer);
        let (code, text) = run("ADD", &daemon.config("0.3.1")).error();
        assert_eq!(code, code::DECODING_FAILURE, "{answer}: {text}");
    }
}

#[test]
fn a_daemon_that_is_down_is_a_retryable_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    for is_stale in [false, true] {
        if is_stale {
            drop(UnixListener::bind(&socket).unwrap());
        }
        let config = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "kube-ovn", "server_socket": socket, "timeout_seconds": 1
        });
        for (verb, expected) in [
            ("ADD", code::TRY_AGAIN_LATER),
            ("DEL", code::TRY_AGAIN_LATER),
            ("STATUS", code::PLUGIN_NOT_AVAILABLE),
        ] {
            let start = Instant::now();
            let (code, text) = run(verb, &config).error();
            assert_eq!(code, expected, "{verb}");
            assert!(text.contains("not running"), "{text}");
            assert!(text.contains(socket.to_str().unwrap()), "{text}");
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }
}

#[test]
fn a_daemon_that_is_slow_is_a_retryable_error_that_says_so() {
    let daemon = Daemon::serving(|_| thread::sleep(Duration::from_secs(30)));
    let mut config = daemon.config("1.1.0");
    config["timeout_seconds"] = json!(1);
    for (verb, expected) in [
        ("ADD", code::TRY_AGAIN_LATER),
        ("STATUS", code::PLUGIN_NOT_AVAILABLE),
    ] {
        let start = Instant::now();
        let (code, text) = run(verb, &config).error();
        assert_eq!(code, expected);
        assert!(text.contains("did not answer within 1 s"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_daemon_that_drips_does_not_outlast_the_timeout() {
    let daemon = Daemon::serving(|stream| {
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let mut config = daemon.config("0.3.1");
    config["timeout_seconds"] = json!(1);
    let start = Instant::now();
    assert_eq!(run("ADD", &config).error().0, code::TRY_AGAIN_LATER);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_daemon_that_restarts_in_the_middle_is_a_retryable_error() {
    let daemon = Daemon::serving(|stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            .unwrap();
    });
    let (code, text) = run("ADD", &daemon.config("0.3.1")).error();
    assert_eq!(code, code::TRY_AGAIN_LATER);
    assert!(text.contains("broke off"), "{text}");
}

#[test]
fn a_daemon_that_comes_a_moment_later_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let config =
        json!({ "cniVersion": "0.3.1", "name": "n", "type": "kube-ovn", "server_socket": socket });
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        let (mut stream, _) = UnixListener::bind(socket).unwrap().accept().unwrap();
        read_request(&stream);
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    });
    assert!(run("DEL", &config).success);
    late.join().unwrap();
}

#[test]
fn del_says_enough_to_find_what_is_left() {
    let daemon = Daemon::done();
    let mut config = daemon.config("0.3.1");
    config["prevResult"] = json!({ "cniVersion": "0.3.1", "ips": [] });
    let output = run("DEL", &config);
    assert!(output.success && output.stdout.is_empty(), "{output:?}");
    let request: Request = daemon.saw(cni::PATH_DEL);
    assert_eq!(
        (
            &*request.pod_name,
            &*request.container_id,
            &*request.if_name
        ),
        ("web-0", "c0ffee", "eth0")
    );
    // Again, and when namespace and pod are unknown: as often as the runtime likes.
    let output = run_with("DEL", &config, &[("CNI_NETNS", ""), ("CNI_ARGS", "")]);
    assert!(output.success, "{output:?}");
    let request: Request = daemon.saw(cni::PATH_DEL);
    assert_eq!((&*request.net_ns, &*request.container_id), ("", "c0ffee"));
}

#[test]
fn check_sends_what_add_returned() {
    let daemon = Daemon::done();
    let mut config = daemon.config("1.0.0");
    config["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "vethhost" },
            { "name": "eth0", "mac": "00:00:00:53:6b:b6", "sandbox": "/var/run/netns/cni-1" },
            { "name": "net1", "mac": "00:00:00:00:00:01", "sandbox": "/var/run/netns/cni-1" },
        ],
        "ips": [
            { "interface": 1, "address": "10.16.0.12/16", "gateway": "10.16.0.1" },
            { "interface": 2, "address": "192.0.2.1/24" },
            { "interface": 1, "address": "fd00:10:16::c/112" },
        ],
    });
    assert!(run("CHECK", &config).success);
    let request: CheckRequest = daemon.saw(cni::PATH_CHECK);
    assert_eq!(request.request.pod_name, "web-0");
    assert_eq!(request.addresses, ["10.16.0.12/16", "fd00:10:16::c/112"]);
    assert_eq!(request.mac_address, "00:00:00:53:6b:b6");

    config.as_object_mut().unwrap().remove("prevResult");
    let (code, text) = run("CHECK", &config).error();
    assert_eq!(code, code::INVALID_NETWORK_CONFIG);
    assert!(text.contains("prevResult"), "{text}");
}

#[test]
fn gc_sends_what_is_still_valid() {
    let daemon = Daemon::done();
    let nothing: &[(&str, &str)] = &[
        ("CNI_CONTAINERID", ""),
        ("CNI_NETNS", ""),
        ("CNI_IFNAME", ""),
        ("CNI_ARGS", ""),
    ];
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let mut config = daemon.config("1.1.0");
        config[key] = json!([{ "containerID": "c0ffee", "ifname": "eth0" }]);
        let output = run_with("GC", &config, nothing);
        assert!(output.success && output.stdout.is_empty(), "{output:?}");
        assert_eq!(
            daemon.saw::<GcRequest>(cni::PATH_GC),
            GcRequest {
                cni_type: "kube-ovn".into(),
                network: "kube-ovn".into(),
                provider: "ovn".into(),
                valid_attachments: vec![Attachment {
                    container_id: "c0ffee".into(),
                    if_name: "eth0".into()
                }],
            }
        );
    }
    // libcni writes a list of nothing as null.
    let mut config = daemon.config("1.1.0");
    config["cni.dev/valid-attachments"] = Value::Null;
    assert!(run_with("GC", &config, nothing).success);
    let request: GcRequest = daemon.saw(cni::PATH_GC);
    assert!(request.valid_attachments.is_empty());
    // Without the list, everything would go.
    let (code, text) = run_with("GC", &daemon.config("1.1.0"), nothing).error();
    assert_eq!(code, code::INVALID_NETWORK_CONFIG);
    assert!(text.contains("valid-attachments"), "{text}");
}

#[test]
fn status_asks_the_daemon() {
    let daemon = Daemon::done();
    let output = run_with(
        "STATUS",
        &daemon.config("1.1.0"),
        &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "")],
    );
    assert!(output.success && output.stdout.is_empty(), "{output:?}");
    assert_eq!(
        daemon.saw::<StatusRequest>(cni::PATH_STATUS),
        StatusRequest {
            cni_type: "kube-ovn".into(),
            provider: "ovn".into()
        }
    );
}

#[test]
fn verbs_are_refused_in_configurations_that_are_older_than_they() {
    let daemon = Daemon::done();
    for (verb, version) in [
        ("CHECK", "0.3.1"),
        ("GC", "1.0.0"),
        ("STATUS", "1.0.0"),
        ("STATUS", "0.3.1"),
    ] {
        let (code, text) = run(verb, &daemon.config(version)).error();
        assert_eq!(code, code::INCOMPATIBLE_VERSION, "{verb} {version}");
        assert!(text.contains(verb), "{text}");
    }
}

#[test]
fn wrong_environments_name_the_variable() {
    let daemon = Daemon::done();
    let config = daemon.config("0.3.1");
    for (verb, changes, named) in [
        ("ADD", &[("CNI_CONTAINERID", "")][..], "CNI_CONTAINERID"),
        ("ADD", &[("CNI_CONTAINERID", "-x")], "CNI_CONTAINERID"),
        ("ADD", &[("CNI_CONTAINERID", "a/b")], "CNI_CONTAINERID"),
        ("ADD", &[("CNI_NETNS", "")], "CNI_NETNS"),
        ("ADD", &[("CNI_IFNAME", "")], "CNI_IFNAME"),
        ("ADD", &[("CNI_IFNAME", "a/b")], "CNI_IFNAME"),
        ("ADD", &[("CNI_IFNAME", "sixteen-letters-")], "CNI_IFNAME"),
        ("ADD", &[("CNI_IFNAME", "..")], "CNI_IFNAME"),
        ("ADD", &[("CNI_ARGS", "")], "K8S_POD_NAME"),
        (
            "ADD",
            &[("CNI_ARGS", "K8S_POD_NAME=a")],
            "K8S_POD_NAMESPACE",
        ),
        ("ADD", &[("CNI_ARGS", "nonsense")], "CNI_ARGS"),
        ("DEL", &[("CNI_IFNAME", "")], "CNI_IFNAME"),
        ("HELLO", &[], "HELLO"),
    ] {
        let (code, text) = run_with(verb, &config, changes).error();
        assert_eq!(code, code::INVALID_ENVIRONMENT, "{changes:?}: {text}");
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn wrong_configurations_say_what_is_wrong() {
    let environment = BTreeMap::from([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/n"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", POD),
    ]);
    for (stdin, expected, named) in [
        ("", code::DECODING_FAILURE, "EOF"),
        ("{", code::DECODING_FAILURE, "EOF"),
        (r#"{"name": 3}"#, code::DECODING_FAILURE, "string"),
        (
            r#"{"cniVersion":"2.0.0","name":"n"}"#,
            code::INCOMPATIBLE_VERSION,
            "2.0.0",
        ),
        (
            r#"{"cniVersion":"1.0.0","type":"kube-ovn","server_socket":"/s"}"#,
            code::INVALID_NETWORK_CONFIG,
            "name",
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"kube-ovn"}"#,
            code::INVALID_NETWORK_CONFIG,
            "server_socket",
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"macvlan","server_socket":"/s","ipam":{}}"#,
            code::INVALID_NETWORK_CONFIG,
            "server_socket",
        ),
    ] {
        let output = execute(&environment, stdin);
        let (code, text) = output.error();
        assert_eq!(code, expected, "{stdin}: {text}");
        assert!(text.contains(named), "{text}");
    }
    let refused = execute(&environment, r#"{"cniVersion":"0.4.0"}"#).json();
    assert_eq!(
        refused["cniVersion"], "0.4.0",
        "an error is of the configuration's version"
    );
}

#[test]
fn version_lists_the_versions() {
    let all = json!([
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
    ]);
    for (asked, answered) in [("0.4.0", "0.4.0"), ("9.9.9", "1.1.0"), ("", "1.1.0")] {
        let output = run("VERSION", &json!({ "cniVersion": asked }));
        assert_eq!(
            output.result(),
            json!({ "cniVersion": answered, "supportedVersions": all })
        );
    }
    let environment = BTreeMap::from([("CNI_COMMAND", "VERSION")]);
    assert!(execute(&environment, "").success, "also without any input");
}

#[test]
fn without_a_command_the_program_introduces_itself() {
    let output = execute(&BTreeMap::new(), "");
    assert!(output.success && output.stdout.is_empty());
    assert!(output.stderr.contains("CNI kube-ovn plugin"), "{output:?}");
    assert!(output.stderr.contains("1.1.0"), "{output:?}");
}
