//! The connection to the API server breaks without a word.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use futures::{StreamExt, stream};
use node::linux::NetNs;
use serde_json::json;
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
    hears_of_a_pod_after(|server| {
        // As another machine that takes its address: of the old connections it knows nothing, and a firewall keeps it
        // from saying so.
        let ports = sh("ss -Htn state established | awk '{sub(/.*:/, \"\", $3); print $3}'");
        let ports = ports.split_whitespace().collect::<Vec<_>>().join(",");
        let rules = format!(
            "table inet gone {{ chain input {{ type filter hook input priority 0; tcp sport {{ {ports} }} drop; }}; }}"
        );
        server.run(|| sh(&format!("nft '{rules}'"))).unwrap();
    });
}

/// All watches run, `blow` falls, and a pod that is made then is heard of.
fn hears_of_a_pod_after(blow: impl FnOnce(&NetNs) + Send) {
    scenario(|| async {
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
                std::thread::spawn(|| serve(served));
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
        let (events, mut inbox) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let _client = cluster::start(Some(kubeconfig), "n1".into(), events, stop.clone());
        super::harness::until("four watches", || watches.load(Ordering::SeqCst) == 4).await;
        // Nothing is under way any more when it happens.
        tokio::time::sleep(Duration::from_secs(1)).await;
        blow(&server);

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
fn serve(watches: Arc<AtomicUsize>) {
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
        let listener = TcpListener::bind(ADDRESS).await.unwrap();
        axum::serve(listener, router).await.unwrap();
    });
}
