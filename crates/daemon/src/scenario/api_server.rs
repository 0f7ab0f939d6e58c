//! The connection to the API server breaks without a word.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use node::linux::NetNs;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::harness::{scenario, sh};
use crate::cluster;
use crate::owner::{Event, Watch};

const ADDRESS: &str = "10.9.0.1:6443";
/// 20 s until the connection counts as dead, a pause, and a new one.
const NOTICED: Duration = Duration::from_secs(28);

#[test]
fn a_node_that_gets_another_address_hears_of_pods_soon() {
    hears_of_a_pod_after(|_| {
        sh("ip addr del 10.9.0.2/24 dev eth0; ip addr add 10.9.0.3/24 dev eth0");
    });
}

#[test]
fn an_api_server_that_vanishes_without_a_word_is_missed_soon() {
    hears_of_a_pod_after(vanish);
}

#[test]
fn what_is_asked_of_an_api_server_that_vanished_ends_soon() {
    scenario(|| async {
        let site = Site::new();
        let one = api::client::client(Some(&site.kubeconfig)).await.unwrap();
        let other = api::client::client(Some(&site.kubeconfig)).await.unwrap();
        let ask = async |client: &kube::Client| {
            let pods = Api::<Pod>::all(client.clone());
            pods.list(&ListParams::default()).await
        };
        // Each keeps its connection.
        ask(&one).await.unwrap();
        ask(&other).await.unwrap();
        vanish(&site.server);
        let at_once = async {
            // By a connection that nobody knows to be dead.
            let answer = timeout(NOTICED, ask(&one)).await;
            answer.expect("not noticed in time").unwrap_err();
        };
        let rested = async {
            tokio::time::sleep(Duration::from_secs(6)).await;
            let answer = timeout(Duration::from_secs(3), ask(&other)).await;
            answer.expect("an old connection was used").unwrap();
        };
        tokio::join!(at_once, rested);
    });
}

/// As another machine that takes its address: of the old connections it knows nothing, and a firewall keeps it from
/// saying so.
fn vanish(server: &NetNs) {
    let ports = sh("ss -Htn state established | awk '{sub(/.*:/, \"\", $3); print $3}'");
    let ports = ports.split_whitespace().collect::<Vec<_>>().join(",");
    let rules = format!(
        "table inet gone {{ chain input {{ type filter hook input priority 0; tcp sport {{ {ports} }} drop; }}; }}"
    );
    server.run(|| sh(&format!("nft '{rules}'"))).unwrap();
}

/// A node with an API server at the other end of its link.
struct Site {
    server: NetNs,
    watches: Arc<AtomicUsize>,
    kubeconfig: PathBuf,
    _dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let server = NetNs::new().unwrap();
        let far = format!("/proc/{}/fd/{}", std::process::id(), server.raw_fd());
        sh(&format!(
            "ip link add eth0 type veth peer name far; ip link set far netns {far}; ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0"
        ));
        let watches = Arc::new(AtomicUsize::new(0));
        let served = watches.clone();
        server
            .run(|| {
                sh("ip link set far up; ip addr add 10.9.0.1/24 dev far");
                let listener = std::net::TcpListener::bind(ADDRESS).unwrap();
                std::thread::spawn(|| serve(listener, served));
            })
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{ADDRESS}")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self {
            server,
            watches,
            kubeconfig,
            _dir: dir,
        }
    }
}

/// All watches run, `blow` falls, and a pod that is made then is heard of.
fn hears_of_a_pod_after(blow: impl FnOnce(&NetNs) + Send) {
    scenario(|| async {
        let site = Site::new();
        let (events, mut inbox) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let kubeconfig = Some(site.kubeconfig.clone());
        let _client = cluster::start(kubeconfig, "n1".into(), events, stop.clone());
        super::harness::until("four watches", || site.watches.load(Ordering::SeqCst) == 4).await;
        // Nothing is under way any more when it happens.
        tokio::time::sleep(Duration::from_secs(1)).await;
        blow(&site.server);

        let start = Instant::now();
        let heard = async {
            loop {
                match inbox.recv().await.unwrap() {
                    Event::Pods(Watch::Apply(pod)) => break assert_eq!(pod.key.name, "late"),
                    // Whoever is merely connected anew has no trouble to tell of.
                    Event::Api(kind, Some(problem)) => panic!("{kind}: {problem}"),
                    _ => {}
                }
            }
        };
        timeout(NOTICED, heard).await.expect("not noticed in time");
        assert!(start.elapsed() > Duration::from_secs(1), "nothing broke");
        stop.cancel();
    });
}

/// An API server with empty lists. A watch of pods is told of one when it is not the first.
fn serve(listener: std::net::TcpListener, watches: Arc<AtomicUsize>) {
    let pods = Arc::new(AtomicUsize::new(0));
    let router = Router::new().fallback(move |uri: http::Uri| {
        let query = uri.query().unwrap_or_default();
        let answer = if query.contains("watch=true") {
            watches.fetch_add(1, Ordering::SeqCst);
            let again = uri.path().ends_with("/pods") && pods.fetch_add(1, Ordering::SeqCst) > 0;
            let pod = json!({"type": "ADDED", "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "late", "namespace": "ns", "uid": "u", "resourceVersion": "2"},
                "spec": {"nodeName": "n1"},
            }});
            let lines = again.then(|| Ok::<_, Infallible>(format!("{pod}\n")));
            Body::from_stream(stream::iter(lines).chain(stream::pending())).into_response()
        } else {
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []});
            axum::Json(list).into_response()
        };
        std::future::ready(answer)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
}
