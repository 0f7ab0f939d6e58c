//! The daemon's loop, kernel thread and CNI server together: with a real `ovsdb-server`, the real kernel in a network
//! namespace of its own, and the test in the places of the API server, ovs-vswitchd and ovn-controller.
//!
//! Needs root, `openvswitch-switch` and `nftables`; fails without.

mod harness;

use std::time::Duration;

use api::cni::{PATH_ADD, PATH_CHECK, PATH_DEL, PATH_GC, PATH_STATUS};
use node::linux::NetNs;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::leftovers;
use crate::owner::{Event, Watch};
use harness::{Daemon, Ovs, PATIENCE, Sandbox, device, node_view, pod_view, scenario, sh, until};

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
