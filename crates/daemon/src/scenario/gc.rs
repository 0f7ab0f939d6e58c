//! GC: what the runtime does not name any more goes.

use std::time::Duration;

use api::cni::{PATH_ADD, PATH_GC};
use serde_json::json;
use tokio::time::sleep;

use super::harness::{Daemon, Ovs, PATIENCE, Sandbox, device, pod_view, scenario, until};

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
            daemon.attach(&ovs, sandbox).await;
        }
        let keep = json!({"valid_attachments": [{"container_id": a.id, "if_name": "eth0"}]});
        // What is left of another network is for others to know.
        for (key, value) in [("provider", "net1.ns.ovn"), ("cni_type", "macvlan")] {
            let mut other = keep.clone();
            other[key] = json!(value);
            assert_eq!(daemon.call(PATH_GC, other).await.0, 204);
            assert_eq!(ovs.ports().len(), 2);
        }
        // A daemon was killed in the middle of an ADD.
        let half = Sandbox::new("b", "cccc");
        half.make_device();
        assert_eq!(daemon.call(PATH_GC, keep).await.0, 204);
        assert_eq!(ovs.ports(), [a.host()]);
        assert!(device(&a.host()) && !device(&b.host()) && !device(&half.host()));
    });
}

#[test]
fn gc_leaves_alone_what_began_after_it() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let names = ["before", "done", "waits", "goes"];
        let views = names.map(|name| pod_view(name, 11, true));
        daemon.pods(&views).await;
        let sandboxes = ["aaaa", "bbbb", "cccc", "dddd"];
        let [before, done, waits, goes] =
            std::array::from_fn(|i| Sandbox::new(names[i], sandboxes[i]));
        // Nobody knows this one any more; its ADD goes on here.
        let early = daemon.call(PATH_ADD, before.request());
        daemon.attach(&ovs, &goes).await;
        let steps = async {
            ovs.wait_for_port(&before.host()).await;
            let closed = daemon.gc.close().await;
            let gc = daemon.call(PATH_GC, json!({"valid_attachments": []}));
            // The runtime has given up waiting for GC and goes on with pods.
            let meanwhile = async {
                until("GC to be under way", || daemon.gc.waiting() == 1).await;
                ovs.install(&before.host());
                daemon.attach(&ovs, &done).await;
                let late = async {
                    ovs.wait_for_port(&waits.host()).await;
                    drop(closed);
                    until("GC to have looked", || daemon.gc.waiting() == 0).await;
                    until("GC to remove", || !device(&goes.host())).await;
                    sleep(Duration::from_millis(200)).await;
                    ovs.install(&waits.host());
                };
                let (add, ()) = tokio::join!(daemon.call(PATH_ADD, waits.request()), late);
                assert_eq!(add.0, 200, "{add:?}");
            };
            let (collected, ()) = tokio::join!(gc, meanwhile);
            assert_eq!(collected.0, 204);
        };
        let (add, ()) = tokio::join!(early, steps);
        assert_eq!(add.0, 200, "{add:?}");
        let mut ports = ovs.ports();
        ports.sort();
        assert_eq!(ports, [before.host(), done.host(), waits.host()]);
        assert!(ports.iter().all(|host| device(host)));
        // The next one knows them all.
        let keep = json!({"valid_attachments": [{"container_id": done.id, "if_name": "eth0"}]});
        assert_eq!(daemon.call(PATH_GC, keep).await.0, 204);
        assert_eq!(ovs.ports(), [done.host()]);
    });
}
