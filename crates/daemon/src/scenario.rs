//! The daemon's loop, kernel thread and CNI server together: with a real `ovsdb-server`, the real kernel in a network
//! namespace of its own, and the test in the places of the API server, ovs-vswitchd and ovn-controller.
//!
//! Needs root, `openvswitch-switch` and `nftables`; fails without.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::cni::{PATH_ADD, PATH_CHECK, PATH_DEL, PATH_GC, PATH_STATUS};
use api::view::{NodeView, NodeWire, PodView, PodWire};
use node::linux::NetNs;
use ovsdb::client::{Client, ClientConfig, Remote, TableSelection};
use serde_json::{Value, json};
use smol_str::SmolStr;
use tempfile::TempDir;
use testkit::ovn::{Schema, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster;
use crate::owner::{Event, Owner, Parts, Readiness, Watch};
use crate::{cni, gateway, kernel, leftovers, metrics};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test inside a network namespace of its own: threads that are made in it stay in it.
fn scenario<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root"
    );
    let node = NetNs::new().unwrap();
    node.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
        runtime.shutdown_background();
    })
    .unwrap();
}

/// A node's OVS database, which outlives the daemon.
struct Ovs {
    server: Server,
}

impl Ovs {
    fn new() -> Self {
        let ovs = Self {
            server: Server::start(Schema::OpenVSwitch),
        };
        ovs.ctl("--no-wait init");
        ovs.ctl("--no-wait set Open_vSwitch . external_ids:system-id=chassis-1");
        ovs.ctl("--no-wait add-br br-int -- set Bridge br-int datapath_type=netdev");
        ovs
    }

    fn ctl(&self, args: &str) -> String {
        self.server.ctl(args.split(' ')).trim().to_owned()
    }

    fn ports(&self) -> Vec<String> {
        self.ctl("list-ports br-int")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// In the place of ovs-vswitchd and ovn-controller.
    fn install(&self, host: &str) {
        self.ctl(&format!(
            "--no-wait set Interface {host} ofport=7 external_ids:ovn-installed=true"
        ));
    }

    async fn wait_for_port(&self, host: &str) {
        until(&format!("port {host}"), || {
            self.ports().contains(&host.to_owned())
        })
        .await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

struct Daemon {
    events: mpsc::Sender<Event>,
    readiness: watch::Receiver<Readiness>,
    socket: PathBuf,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Daemon {
    fn start(ovs: &Ovs, wait: Duration) -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let (events, inbox) = mpsc::channel(64);
        let (readiness_in, readiness) = watch::channel(Readiness::default());
        let mut config = ClientConfig::new(
            Remote::parse_list(&ovs.server.remote()).unwrap(),
            "Open_vSwitch",
        );
        config.leader_only = false;
        config.tables = node::ovs::MONITORED
            .iter()
            .map(|(table, columns)| {
                let columns = columns.iter().copied();
                (SmolStr::new_static(table), TableSelection::columns(columns))
            })
            .collect::<BTreeMap<_, _>>();
        let (handle, ovs_events) = Client::connect(config).unwrap();
        // No API server: nothing is written to the Node, and events on pods go nowhere.
        let (_, client) = watch::channel(None);
        let stop = CancellationToken::new();
        let busy = leftovers::Busy::default();
        let owner = Owner::new(Parts {
            config: node::plan::NodeConfig::default(),
            node_name: "n1".into(),
            jobs: kernel::spawn_worker(events.clone()).unwrap(),
            ovs: handle,
            events: events.clone(),
            conflist: None,
            gateways: gateway::Gateways::start(events.clone()),
            writer: cluster::NodeWriter::new(client.clone(), "n1".into()),
            readiness: readiness_in,
            busy: busy.clone(),
        });
        kernel::spawn_monitor(events.clone()).unwrap();
        tokio::spawn(owner.run(inbox, ovs_events, stop.clone()));
        let socket = dir.path().join("cni.sock");
        let listener = cni::bind(&socket).unwrap();
        let cni = cni::Cni {
            owner: events.clone(),
            events: cluster::Events::start(client, "n1".into()),
            metrics: Arc::new(metrics::Metrics::new("n1")),
            busy,
            wait,
            running: cni::Running::default(),
            tasks: TaskTracker::new(),
        };
        tokio::spawn(cni::serve(cni, listener, stop.clone()));
        Self {
            events,
            readiness,
            socket,
            stop,
            _dir: dir,
        }
    }

    async fn send(&self, event: Event) {
        self.events.send(event).await.unwrap();
    }

    /// A node whose tunnel address is on `lo`'s stand-in, so that pods have an MTU.
    async fn node(&self) {
        sh(
            "ip link add eth0 type veth peer name eth0-far; ip link set eth0 up; ip addr add 192.168.1.41/24 dev eth0",
        );
        self.send(Event::KernelChanged).await;
        self.send(Event::Nodes(Watch::Replace(vec![node_view()])))
            .await;
        self.send(Event::Subnets(Watch::Replace(Vec::new()))).await;
    }

    async fn pods(&self, pods: &[PodView]) {
        self.send(Event::Pods(Watch::Replace(pods.to_vec()))).await;
    }

    async fn call(&self, path: &str, body: Value) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn waiting(&self) -> Vec<String> {
        self.readiness.borrow().waiting.clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn node_view() -> NodeView {
    let wire: NodeWire = serde_json::from_value(json!({
        "metadata": {"name": "n1", "uid": "node-uid"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.41"}]}
    }))
    .unwrap();
    NodeView::from(&wire)
}

fn pod_view(name: &str, last: u8, allocated: bool) -> PodView {
    let annotations = if allocated {
        json!({
            "ovn.kubernetes.io/allocated": "true",
            "ovn.kubernetes.io/routed": "true",
            "ovn.kubernetes.io/ip_address": format!("10.16.0.{last}"),
            "ovn.kubernetes.io/mac_address": format!("0a:00:00:10:00:{last:02x}"),
            "ovn.kubernetes.io/cidr": "10.16.0.0/16",
            "ovn.kubernetes.io/gateway": "10.16.0.1",
            "ovn.kubernetes.io/logical_switch": "ovn-default",
        })
    } else {
        json!({})
    };
    let wire: PodWire = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "annotations": annotations},
        "spec": {"nodeName": "n1"}
    }))
    .unwrap();
    PodView::from(&wire)
}

/// A sandbox: an id, and a namespace with a path.
struct Sandbox {
    id: String,
    pod: &'static str,
    netns: NetNs,
}

impl Sandbox {
    fn new(pod: &'static str, id: &str) -> Self {
        Self {
            id: format!("{id:0<40}"),
            pod,
            netns: NetNs::new().unwrap(),
        }
    }

    fn host(&self) -> String {
        format!("{}_h", &self.id[..12])
    }

    /// A path that ends with the handle.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.raw_fd())
    }

    fn request(&self) -> Value {
        json!({
            "cni_type": "kube-ovn", "pod_name": self.pod, "pod_namespace": "ns", "container_id": self.id,
            "net_ns": self.path(), "if_name": "eth0", "provider": "ovn"
        })
    }

    fn inside(&self, command: &str) -> String {
        self.netns.run(|| sh(command)).unwrap()
    }
}

fn device(name: &str) -> bool {
    sh("ip -o link").contains(&format!(": {name}@"))
}

#[test]
fn add_waits_for_annotations_then_for_ovn_then_brings_the_link_up() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, false)]).await;
        let sandbox = Sandbox::new("a", "aaaa");
        let host = sandbox.host();
        let steps = async {
            sleep(Duration::from_millis(200)).await;
            assert!(ovs.ports().is_empty(), "nothing before the annotations");
            daemon
                .send(Event::Pods(Watch::Apply(pod_view("a", 11, true))))
                .await;
            ovs.wait_for_port(&host).await;
            sleep(Duration::from_millis(200)).await;
            assert!(
                sandbox
                    .inside("ip -o link show eth0")
                    .contains("state DOWN"),
                "no link before OVN has the flows in place"
            );
            ovs.install(&host);
        };
        let ((status, answer), ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), steps);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            answer,
            json!({
                "ips": [{"protocol": "IPv4", "ip": "10.16.0.11", "cidr": "10.16.0.0/16", "gateway": "10.16.0.1"}],
                "mac_address": "0a:00:00:10:00:0b", "routes": [{"gw": "10.16.0.1"}],
                "mtu": 1400, "nicname": "eth0", "dns": {}
            })
        );
        assert!(
            sandbox
                .inside("ip -o addr show eth0")
                .contains("10.16.0.11/16")
        );
        // What upstream's tools read.
        for (key, value) in [
            ("iface-id", "a.ns"),
            ("vendor", "kube-ovn"),
            ("pod_name", "a"),
            ("pod_namespace", "ns"),
            ("pod_netns", sandbox.path().as_str()),
            ("ip", "10.16.0.11"),
        ] {
            let have = ovs.ctl(&format!("get Interface {host} external_ids:{key}"));
            assert_eq!(have.trim_matches('"'), value, "{key}");
        }
        assert_eq!(daemon.call(PATH_CHECK, sandbox.request()).await.0, 204);
        // Once more for the same sandbox: the runtime had not got the answer.
        let before = ovs.ctl(&format!("get Interface {host} _uuid"));
        let install = async {
            until("another port", || {
                ovs.ports().contains(&host)
                    && ovs.ctl(&format!("get Interface {host} _uuid")) != before
            })
            .await;
            ovs.install(&host);
        };
        let (again, ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), install);
        assert_eq!(again.0, 200, "{again:?}");
        assert_eq!(daemon.call(PATH_CHECK, sandbox.request()).await.0, 204);

        sandbox.inside("ip link set eth0 down");
        let (status, answer) = daemon.call(PATH_CHECK, sandbox.request()).await;
        assert_eq!((status, &answer["error"]), (500, &json!("eth0 is down")));

        for _ in 0..2 {
            assert_eq!(daemon.call(PATH_DEL, sandbox.request()).await.0, 204);
            assert!(ovs.ports().is_empty() && !device(&host));
        }
    });
}

#[test]
fn add_that_waits_in_vain_says_for_what_and_leaves_nothing() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, Duration::from_secs(1));
        daemon.node().await;
        let (a, b) = (Sandbox::new("a", "aaaa"), Sandbox::new("b", "bbbb"));
        daemon
            .pods(&[pod_view("a", 11, false), pod_view("b", 12, true)])
            .await;
        let ((sa, ea), (sb, eb), (sc, ec)) = tokio::join!(
            daemon.call(PATH_ADD, a.request()),
            daemon.call(PATH_ADD, b.request()),
            daemon.call(PATH_ADD, Sandbox::new("c", "cccc").request()),
        );
        assert_eq!((sa, sb, sc), (503, 503, 503), "retryable");
        let text = |v: &Value| v["error"].as_str().unwrap().to_owned();
        assert!(
            text(&ea).contains("annotation ovn.kubernetes.io/allocated"),
            "{ea}"
        );
        assert!(
            text(&eb).contains("ovs-vswitchd has not taken the port"),
            "{eb}"
        );
        assert!(text(&ec).contains("no pod ns/c on this node"), "{ec}");
        assert!(ovs.ports().is_empty(), "{:?}", ovs.ports());
        assert!(!device(&a.host()) && !device(&b.host()));
    });
}

#[test]
fn del_ends_an_add_that_waits() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, true)]).await;
        let a = Sandbox::new("a", "aaaa");
        let start = Instant::now();
        let del = async {
            ovs.wait_for_port(&a.host()).await;
            // As a runtime that has lost all but the id sends it.
            daemon
                .call(PATH_DEL, json!({"container_id": a.id, "if_name": "eth0"}))
                .await
        };
        let (add, del) = tokio::join!(daemon.call(PATH_ADD, a.request()), del);
        assert_eq!((add.0, del.0), (503, 204), "{add:?}");
        assert!(start.elapsed() < PATIENCE / 2);
        assert!(ovs.ports().is_empty() && !device(&a.host()));
    });
}

#[test]
fn a_new_sandbox_takes_the_place_of_the_old_one() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, true)]).await;
        let (first, second) = (Sandbox::new("a", "aaaa"), Sandbox::new("a", "bbbb"));
        for sandbox in [&first, &second] {
            let install = async {
                ovs.wait_for_port(&sandbox.host()).await;
                ovs.install(&sandbox.host());
            };
            let (add, ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), install);
            assert_eq!(add.0, 200, "{add:?}");
        }
        // Two ports with one iface-id would make OVN flap.
        assert_eq!(ovs.ports(), [second.host()]);
        // The late DEL of the first does not hurt the second.
        assert_eq!(daemon.call(PATH_DEL, first.request()).await.0, 204);
        assert_eq!(ovs.ports(), [second.host()]);
        assert_eq!(daemon.call(PATH_CHECK, second.request()).await.0, 204);
    });
}

#[test]
fn a_restarted_daemon_touches_nothing_that_runs_and_removes_what_went() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let pods = [
            pod_view("runs", 11, true),
            pod_view("went", 12, true),
            pod_view("restarted", 13, true),
        ];
        daemon.pods(&pods).await;
        let runs = Sandbox::new("runs", "aaaa");
        let went = Sandbox::new("went", "bbbb");
        let restarted = Sandbox::new("restarted", "cccc");
        for sandbox in [&runs, &went, &restarted] {
            let install = async {
                ovs.wait_for_port(&sandbox.host()).await;
                ovs.install(&sandbox.host());
            };
            let (add, ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), install);
            assert_eq!(add.0, 200, "{add:?}");
        }
        drop(daemon);
        let foreign = "--no-wait add-port br-int foreign";
        ovs.ctl(foreign);
        let before = ovs.ctl(&format!("get Interface {} _uuid", runs.host()));
        // Index, MAC, state: another device would have others.
        let link = || sh(&format!("ip -o link show {}", runs.host()));
        let link_before = link();
        // While it is away: one pod goes, one sandbox is lost (its pod stays).
        let (went_host, restarted_host) = (went.host(), restarted.host());
        drop((went, restarted));
        until("the kernel to drop the devices", || {
            !device(&went_host) && !device(&restarted_host)
        })
        .await;

        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon
            .send(Event::Nodes(Watch::Replace(vec![node_view()])))
            .await;
        daemon
            .send(Event::Subnets(Watch::Replace(Vec::new())))
            .await;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(
            ovs.ports().len(),
            4,
            "nothing goes before the pods are known"
        );
        daemon
            .pods(&[pod_view("runs", 11, true), pod_view("restarted", 13, true)])
            .await;
        until("the leftovers to go", || ovs.ports().len() == 2).await;
        sleep(Duration::from_millis(200)).await;
        let mut left = ovs.ports();
        left.sort();
        assert_eq!(left, [runs.host(), "foreign".to_owned()]);
        assert_eq!(
            ovs.ctl(&format!("get Interface {} _uuid", runs.host())),
            before
        );
        assert_eq!(link(), link_before);
        assert_eq!(daemon.call(PATH_CHECK, runs.request()).await.0, 204);
    });
}

#[test]
fn ports_that_ovs_lost_are_put_back() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon
            .pods(&[pod_view("a", 11, true), pod_view("b", 12, true)])
            .await;
        let (a, b) = (Sandbox::new("a", "aaaa"), Sandbox::new("b", "bbbb"));
        for sandbox in [&a, &b] {
            let install = async {
                ovs.wait_for_port(&sandbox.host()).await;
                ovs.install(&sandbox.host());
            };
            let (add, ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), install);
            assert_eq!(add.0, 200, "{add:?}");
        }
        // The whole database is made anew.
        ovs.ctl("--no-wait del-br br-int");
        ovs.ctl("--no-wait add-br br-int");
        until("both ports", || ovs.ports().len() == 2).await;
        for sandbox in [&a, &b] {
            let ids = ovs.ctl(&format!("get Interface {} external_ids", sandbox.host()));
            assert!(
                ids.contains(&format!("iface-id={}.ns", sandbox.pod)),
                "{ids}"
            );
            assert!(ids.contains(&sandbox.path()), "{ids}");
            assert_eq!(daemon.call(PATH_DEL, sandbox.request()).await.0, 204);
        }
        sleep(leftovers::SETTLED * 2).await;
        assert!(ovs.ports().is_empty(), "what was detached stays so");
    });
}

#[test]
fn gc_keeps_what_the_runtime_names() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon
            .pods(&[pod_view("a", 11, true), pod_view("b", 12, true)])
            .await;
        let (a, b) = (Sandbox::new("a", "aaaa"), Sandbox::new("b", "bbbb"));
        for sandbox in [&a, &b] {
            let install = async {
                ovs.wait_for_port(&sandbox.host()).await;
                ovs.install(&sandbox.host());
            };
            let (add, ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), install);
            assert_eq!(add.0, 200, "{add:?}");
        }
        let keep = json!({"valid_attachments": [{"container_id": a.id, "if_name": "eth0"}]});
        assert_eq!(daemon.call(PATH_GC, keep).await.0, 204);
        assert_eq!(ovs.ports(), [a.host()]);
        assert!(!device(&b.host()));
    });
}

#[test]
fn a_pod_ends_while_ovs_is_down_and_its_port_goes_later() {
    scenario(|| async {
        let mut ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, true)]).await;
        let a = Sandbox::new("a", "aaaa");
        let install = async {
            ovs.wait_for_port(&a.host()).await;
            ovs.install(&a.host());
        };
        let (add, ()) = tokio::join!(daemon.call(PATH_ADD, a.request()), install);
        assert_eq!(add.0, 200, "{add:?}");
        ovs.server.kill();
        until("the daemon to notice", || {
            daemon.waiting().iter().any(|w| w.contains("Open vSwitch"))
        })
        .await;
        let (status, answer) = daemon.call(PATH_STATUS, json!({})).await;
        assert_eq!((status, &answer["code"]), (503, &json!(50)), "{answer}");
        assert_eq!(daemon.call(PATH_DEL, a.request()).await.0, 204);
        assert!(!device(&a.host()));
        ovs.server.restart();
        until("the port to go", || ovs.ports().is_empty()).await;
    });
}

#[test]
fn requests_that_can_never_work_are_told_apart() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        let a = Sandbox::new("a", "aaaa");
        for (key, value, says) in [
            ("pod_name", "", "pod_name"),
            ("provider", "net1.ns.ovn", "net1.ns.ovn"),
            ("if_name", "much-too-long-a-name", "much-too-long-a-name"),
        ] {
            let mut request = a.request();
            request[key] = json!(value);
            let (status, answer) = daemon.call(PATH_ADD, request).await;
            assert_eq!(status, 400);
            assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
        }
    });
}

#[test]
fn readiness_names_what_is_missing_and_the_node_is_set_up_when_it_comes() {
    scenario(|| async {
        let ovs = Ovs::new();
        ovs.ctl("--no-wait del-br br-int");
        let daemon = Daemon::start(&ovs, PATIENCE);
        let waits = |what: &'static str| {
            let daemon = &daemon;
            async move {
                until(what, || daemon.waiting().iter().any(|w| w.contains(what))).await;
            }
        };
        waits("Node n1").await;
        waits("br-int").await;
        waits("the list of this node's pods").await;
        daemon.node().await;
        daemon.pods(&[]).await;
        waits("annotation ovn.kubernetes.io/ip_address").await;
        ovs.ctl("--no-wait add-br br-int");
        let mut node = node_view();
        for (key, value) in [
            ("ip_address", "100.64.0.2"),
            ("cidr", "100.64.0.0/16"),
            ("gateway", "100.64.0.1"),
            ("mac_address", "0a:58:64:40:00:02"),
            ("port_name", "node-n1"),
        ] {
            node.annotations
                .insert(format!("ovn.kubernetes.io/{key}").into(), value.into());
        }
        daemon.send(Event::Nodes(Watch::Apply(node))).await;
        waits("interface ovn0").await;
        until("the OVS settings", || {
            ovs.ctl("get Open_vSwitch . external_ids")
                .contains("ovn-encap-ip=\"192.168.1.41\"")
        })
        .await;
        assert_eq!(
            ovs.ctl("get Interface ovn0 external_ids:iface-id type mtu_request"),
            "node-n1\ninternal\n1400"
        );
        // In the place of ovs-vswitchd, and of OVN's router behind it.
        sh("ip link add ovn0 type veth peer name ovn; ip link set ovn up");
        waits("gateway").await;
        until("ovn0's address", || {
            sh("ip -o addr show ovn0").contains("100.64.0.2/16")
        })
        .await;
        let router = NetNs::new().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), router.raw_fd());
        sh(&format!("ip link set ovn netns {path}"));
        router
            .run(|| sh("ip link set ovn up; ip addr add 100.64.0.1/16 dev ovn"))
            .unwrap();
        until("readiness", || daemon.waiting().is_empty()).await;
    });
}
