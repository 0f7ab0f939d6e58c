//! A node in a network namespace, a daemon on it, and sandboxes of pods.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::cni::PATH_ADD;
use api::view::{NodeView, NodeWire, PodView, PodWire};
use clap::Parser;
use node::linux::{self, NetNs, Socket};
use node::plan::{GatewayType, SubnetFacts};
use node::pod::{Identity, PodNetwork, PodNic};
use ovsdb::client::{Client, ClientConfig, Remote, TableSelection};
use serde_json::{Value, json};
use smol_str::SmolStr;
use tempfile::TempDir;
use testkit::ovn::{Schema, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Args;
use crate::cluster;
use crate::conflist::Conflist;
use crate::owner::{Ask, Event, Owner, Parts, Readiness, Watch};
use crate::{cni, gateway, kernel, leftovers, metrics};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test inside a network namespace of its own: threads that are made in it stay in it.
pub(super) fn scenario<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
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
pub(super) struct Ovs {
    pub(super) server: Server,
}

impl Ovs {
    pub(super) fn new() -> Self {
        let ovs = Self {
            server: Server::start(Schema::OpenVSwitch),
        };
        ovs.ctl("--no-wait init");
        ovs.ctl("--no-wait set Open_vSwitch . external_ids:system-id=chassis-1");
        ovs.ctl("--no-wait add-br br-int -- set Bridge br-int datapath_type=netdev");
        ovs
    }

    pub(super) fn ctl(&self, args: &str) -> String {
        self.server.ctl(args.split(' ')).trim().to_owned()
    }

    pub(super) fn ports(&self) -> Vec<String> {
        self.ctl("list-ports br-int")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// In the place of ovs-vswitchd and ovn-controller.
    pub(super) fn install(&self, host: &str) {
        self.ctl(&format!(
            "--no-wait set Interface {host} ofport=7 external_ids:ovn-installed=true"
        ));
    }

    pub(super) async fn wait_for_port(&self, host: &str) {
        until(&format!("port {host}"), || {
            self.ports().contains(&host.to_owned())
        })
        .await;
    }
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(super) struct Daemon {
    events: mpsc::Sender<Event>,
    readiness: watch::Receiver<Readiness>,
    pub(super) socket: PathBuf,
    pub(super) conflist: PathBuf,
    pub(super) gc: Gate,
    stop: CancellationToken,
    _dir: TempDir,
}

/// Where GC's question for the ports of pods can be held up on its way to the owner.
#[derive(Clone, Default)]
pub(super) struct Gate {
    lock: Arc<tokio::sync::Mutex<()>>,
    waiting: Arc<AtomicUsize>,
}

impl Gate {
    pub(super) async fn close(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.lock.clone().lock_owned().await
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// A way to the owner that leads through here.
    fn before(&self, owner: mpsc::Sender<Event>) -> mpsc::Sender<Event> {
        let (events, mut inbox) = mpsc::channel(64);
        let gate = self.clone();
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                if !matches!(event, Event::Ask(Ask::PodInterfaces(_))) {
                    let _ = owner.send(event).await;
                    continue;
                }
                let (gate, owner) = (gate.clone(), owner.clone());
                tokio::spawn(async move {
                    gate.waiting.fetch_add(1, Ordering::SeqCst);
                    let _open = gate.lock.lock().await;
                    let _ = owner.send(event).await;
                    gate.waiting.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        events
    }
}

impl Daemon {
    pub(super) fn start(ovs: &Ovs, wait: Duration) -> Self {
        // No API server: nothing is written to the Node, and events on pods go nowhere.
        let (_, client) = watch::channel(None);
        Self::start_with(ovs, wait, leftovers::PATIENCE, client)
    }

    pub(super) fn start_with(
        ovs: &Ovs,
        wait: Duration,
        patience: Duration,
        client: cluster::ClientSlot,
    ) -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        Self::start_in(dir, ovs, wait, patience, client)
    }

    /// With the socket and the CNI configuration list in that directory.
    pub(super) fn start_in(
        dir: TempDir,
        ovs: &Ovs,
        wait: Duration,
        patience: Duration,
        client: cluster::ClientSlot,
    ) -> Self {
        let (socket, net_d) = (dir.path().join("cni.sock"), dir.path().join("net.d"));
        let args = Args::parse_from([
            "kube-ovn-daemon".into(),
            format!("--bind-socket={}", socket.display()),
            format!("--cni-conf-dir={}", net_d.display()),
            format!("--cni-conf-file={}", dir.path().join("none").display()),
        ]);
        let conflist = Conflist::new(&args).unwrap();
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
        let stop = CancellationToken::new();
        let busy = leftovers::Busy::default();
        let owner = Owner::new(Parts {
            config: node::plan::NodeConfig::default(),
            node_name: "n1".into(),
            jobs: kernel::spawn_worker(events.clone()).unwrap(),
            ovs: handle,
            events: events.clone(),
            conflist: Some(conflist.clone()),
            gateways: gateway::Gateways::start(events.clone()),
            writer: cluster::NodeWriter::new(client.clone(), "n1".into()),
            readiness: readiness_in,
            busy: busy.clone(),
            patience,
            system_id: dir.path().join("system-id.conf"),
        });
        kernel::spawn_monitor(events.clone()).unwrap();
        tokio::spawn(owner.run(inbox, ovs_events, stop.clone()));
        let gc = Gate::default();
        let cni = cni::Cni {
            owner: gc.before(events.clone()),
            events: cluster::Events::start(client, "n1".into()),
            metrics: Arc::new(metrics::Metrics::new("n1")),
            busy,
            wait,
            running: cni::Running::default(),
            tasks: TaskTracker::new(),
        };
        tokio::spawn(cni::keep(cni, socket.clone(), stop.clone()));
        Self {
            events,
            readiness,
            socket,
            conflist: conflist.path().to_owned(),
            gc,
            stop,
            _dir: dir,
        }
    }

    pub(super) async fn send(&self, event: Event) {
        self.events.send(event).await.unwrap();
    }

    /// A node whose tunnel address is on `lo`'s stand-in, so that pods have an MTU.
    pub(super) async fn node(&self) {
        sh(
            "ip link add eth0 type veth peer name eth0-far; ip link set eth0 up; ip addr add 192.168.1.41/24 dev eth0",
        );
        self.send(Event::Nodes(Watch::Replace(vec![node_view()])))
            .await;
        self.subnets().await;
    }

    pub(super) async fn subnets(&self) {
        self.send(Event::Subnets(Watch::Replace(vec![subnet_facts(None)])))
            .await;
    }

    /// ADD, and OVN's part in it.
    pub(super) async fn attach(&self, ovs: &Ovs, sandbox: &Sandbox) -> Value {
        let install = async {
            ovs.wait_for_port(&sandbox.host()).await;
            ovs.install(&sandbox.host());
        };
        let ((status, answer), ()) = tokio::join!(self.call(PATH_ADD, sandbox.request()), install);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(super) async fn pods(&self, pods: &[PodView]) {
        self.send(Event::Pods(Watch::Replace(pods.to_vec()))).await;
    }

    pub(super) async fn call(&self, path: &str, body: Value) -> (u16, Value) {
        let start = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => break stream,
                // As the plugin does.
                Err(error) => assert!(start.elapsed() < Duration::from_secs(3), "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        };
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

    /// Kernel operations since its start.
    pub(super) fn operations(&self) -> u64 {
        self.readiness.borrow().operations
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        self.readiness.borrow().waiting.clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn node_view() -> NodeView {
    let wire: NodeWire = serde_json::from_value(json!({
        "metadata": {"name": "n1", "uid": "node-uid"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.41"}]}
    }))
    .unwrap();
    NodeView::from(&wire)
}

/// The node after the controller gave it its join address.
pub(super) fn joined_node_view() -> NodeView {
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
    node
}

pub(super) fn subnet_facts(mtu: Option<u32>) -> SubnetFacts {
    SubnetFacts {
        name: "ovn-default".into(),
        vpc: "ovn-cluster".into(),
        cidrs: vec!["10.16.0.0/16".parse().unwrap()],
        vlan: false,
        logical_gateway: false,
        u2o_interconnection: false,
        nat_outgoing: true,
        gateway_type: GatewayType::Distributed,
        egress_ips: Vec::new(),
        mtu,
    }
}

/// An API server that takes every patch of the Node and remembers it.
pub(super) struct ApiServer {
    patches: Arc<Mutex<Vec<(String, Value)>>>,
    pub(super) client: cluster::ClientSlot,
    _slot: watch::Sender<Option<kube::Client>>,
}

impl ApiServer {
    pub(super) async fn start() -> Self {
        sh("ip link set lo up");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let patches = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&patches);
        let router = axum::Router::new().fallback(move |uri: http::Uri, body: String| {
            let patch = serde_json::from_str(&body).unwrap_or_default();
            taken.lock().unwrap().push((uri.path().to_owned(), patch));
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
            std::future::ready(axum::Json(node))
        });
        tokio::spawn(async { axum::serve(listener, router).await });
        let config = kube::Config::new(uri.parse().unwrap());
        let (slot, client) = watch::channel(Some(kube::Client::try_from(config).unwrap()));
        Self {
            patches,
            client,
            _slot: slot,
        }
    }

    /// What was sent to that path.
    pub(super) fn sent(&self, path: &str) -> Vec<Value> {
        let sent = self.patches.lock().unwrap();
        let there = sent.iter().filter(|(p, _)| p == path);
        there.map(|(_, body)| body.clone()).collect()
    }

    /// How many patches of that resource there were.
    pub(super) fn patched(&self, path: &str) -> usize {
        self.sent(path).len()
    }
}

pub(super) fn pod_view(name: &str, last: u8, allocated: bool) -> PodView {
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

/// The object of a static pod, which the kubelet makes.
pub(super) fn mirror_view(name: &str, last: u8, allocated: bool) -> PodView {
    PodView {
        owner: Some(api::view::Owner {
            kind: "Node".into(),
            name: "n1".into(),
            uid: "node-uid".into(),
            controller: true,
        }),
        ..pod_view(name, last, allocated)
    }
}

/// A sandbox: an id, and a namespace with a path.
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) pod: &'static str,
    netns: NetNs,
}

impl Sandbox {
    pub(super) fn new(pod: &'static str, id: &str) -> Self {
        Self {
            id: format!("{id:0<40}"),
            pod,
            netns: NetNs::new().unwrap(),
        }
    }

    pub(super) fn host(&self) -> String {
        format!("{}_h", &self.id[..12])
    }

    /// A path that ends with the handle.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.raw_fd())
    }

    pub(super) fn request(&self) -> Value {
        json!({
            "cni_type": "kube-ovn", "pod_name": self.pod, "pod_namespace": "ns", "container_id": self.id,
            "net_ns": self.path(), "if_name": "eth0", "provider": "ovn"
        })
    }

    /// As far as an ADD gets before it touches OVS.
    pub(super) fn make_device(&self) {
        let network =
            PodNetwork::from_annotations(&pod_view(self.pod, 99, true).annotations, "ovn", true)
                .unwrap();
        let identity = Identity {
            namespace: "ns".into(),
            name: self.pod.into(),
            netns: self.path(),
            ip: network.ip_text.clone(),
        };
        let nic = PodNic::new(&self.id, "eth0", &network, &[], true, 1400, false);
        linux::attach(&mut Socket::open().unwrap(), &self.netns, &nic, &identity).unwrap();
    }

    pub(super) fn inside(&self, command: &str) -> String {
        self.netns.run(|| sh(command)).unwrap()
    }
}

pub(super) fn device(name: &str) -> bool {
    sh("ip -o link").contains(&format!(": {name}@"))
}
