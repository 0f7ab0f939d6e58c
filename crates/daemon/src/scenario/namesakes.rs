//! Pods and sandboxes that follow each other under one name.

use std::time::Duration;

use api::cni::{PATH_ADD, PATH_CHECK, PATH_DEL};
use api::view::Deletion;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::harness::{Daemon, Ovs, PATIENCE, Sandbox, device, mirror_view, pod_view, scenario};
use crate::owner::{Event, Watch};

#[test]
fn an_add_outlives_the_pod_that_had_the_name_before() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        // The watch is behind: it has the one before, which goes in its own time.
        let mut old = pod_view("a", 11, true);
        old.uid = "uid-old".into();
        old.deletion = Some(Deletion {
            timestamp_unix: 0,
            grace_seconds: 1,
        });
        for says_which in [true, false] {
            daemon.pods(std::slice::from_ref(&old)).await;
            let sandbox = Sandbox::new("a", if says_which { "aaaa" } else { "bbbb" });
            let mut request = sandbox.request();
            if says_which {
                request["pod_uid"] = json!("uid-a");
            }
            let steps = async {
                sleep(Duration::from_millis(200)).await;
                daemon
                    .send(Event::Pods(Watch::Delete("ns".into(), "a".into())))
                    .await;
                sleep(Duration::from_millis(200)).await;
                let new = pod_view("a", 12, true);
                daemon.send(Event::Pods(Watch::Apply(new))).await;
                ovs.wait_for_port(&sandbox.host()).await;
                ovs.install(&sandbox.host());
            };
            let (add, ()) = tokio::join!(daemon.call(PATH_ADD, request), steps);
            assert_eq!(add.0, 200, "{add:?}");
            assert_eq!(daemon.call(PATH_DEL, sandbox.request()).await.0, 204);
        }
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
            daemon.attach(&ovs, sandbox).await;
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
fn the_latest_sandbox_of_a_pod_gets_its_port() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, false)]).await;
        let (first, second) = (Sandbox::new("a", "aaaa"), Sandbox::new("a", "bbbb"));
        // The runtime was restarted and has forgotten the first, which waits for an address.
        let later = async {
            sleep(Duration::from_millis(200)).await;
            let address = async {
                sleep(Duration::from_millis(200)).await;
                let pod = pod_view("a", 11, true);
                daemon.send(Event::Pods(Watch::Apply(pod))).await;
            };
            tokio::join!(daemon.attach(&ovs, &second), address)
        };
        let start = Instant::now();
        let (earlier, _) = tokio::join!(daemon.call(PATH_ADD, first.request()), later);
        assert_eq!(earlier.0, 503, "{earlier:?}");
        assert_eq!(ovs.ports(), [second.host()]);
        assert!(!device(&first.host()));
        assert_eq!(daemon.call(PATH_CHECK, second.request()).await.0, 204);
        // And one that waits for OVN.
        let third = Sandbox::new("a", "cccc");
        let fourth = Sandbox::new("a", "dddd");
        let later = async {
            ovs.wait_for_port(&third.host()).await;
            daemon.attach(&ovs, &fourth).await
        };
        let (earlier, _) = tokio::join!(daemon.call(PATH_ADD, third.request()), later);
        assert_eq!(earlier.0, 503, "{earlier:?}");
        assert_eq!(ovs.ports(), [fourth.host()]);
        assert!(start.elapsed() < PATIENCE / 2, "it gives up at once");
    });
}

#[test]
fn a_pod_does_not_get_the_address_of_one_that_had_its_name() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        // The watch is behind: it still has the pod that was deleted.
        let mut old = pod_view("a", 11, true);
        old.uid = "uid-old".into();
        daemon.pods(&[old]).await;
        let sandbox = Sandbox::new("a", "aaaa");
        let mut request = sandbox.request();
        request["pod_uid"] = json!("uid-a");
        let host = sandbox.host();
        let steps = async {
            sleep(Duration::from_millis(300)).await;
            assert!(ovs.ports().is_empty() && !device(&host));
            let new = pod_view("a", 12, true);
            daemon.send(Event::Pods(Watch::Apply(new))).await;
            ovs.wait_for_port(&host).await;
            ovs.install(&host);
        };
        let ((status, answer), ()) = tokio::join!(daemon.call(PATH_ADD, request), steps);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["ips"][0]["ip"], "10.16.0.12");
    });
}

#[test]
fn an_add_for_a_static_pod_outlives_its_mirror() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        for says_which in [true, false] {
            let sandbox = Sandbox::new("a", if says_which { "aaaa" } else { "bbbb" });
            let mut request = sandbox.request();
            if says_which {
                // Of no object.
                request["pod_uid"] = json!("hash-of-the-manifest");
            }
            daemon.pods(&[mirror_view("a", 11, false)]).await;
            let steps = async {
                sleep(Duration::from_millis(200)).await;
                // Somebody deletes it, and the kubelet makes it anew.
                daemon
                    .send(Event::Pods(Watch::Delete("ns".into(), "a".into())))
                    .await;
                sleep(Duration::from_millis(200)).await;
                let mut new = mirror_view("a", 11, true);
                new.uid = "another-uid".into();
                daemon.send(Event::Pods(Watch::Apply(new))).await;
                ovs.wait_for_port(&sandbox.host()).await;
                ovs.install(&sandbox.host());
            };
            let (add, ()) = tokio::join!(daemon.call(PATH_ADD, request), steps);
            assert_eq!(add.0, 200, "{add:?}");
        }
    });
}
