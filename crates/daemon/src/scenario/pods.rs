//! Pods are attached, checked and detached.

use std::time::Duration;

use api::cni::{PATH_ADD, PATH_CHECK, PATH_DEL, PATH_STATUS};
use api::view::{Deletion, PodView};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::harness::{
    ApiServer, Daemon, Ovs, PATIENCE, Sandbox, device, pod_view, scenario, subnet_facts, until,
};
use crate::leftovers;
use crate::owner::{Event, Watch};

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
        // What the runtime was told is what it asks about.
        let told = |addresses: &[&str], mac: &str| {
            let mut request = sandbox.request();
            request["addresses"] = json!(addresses);
            request["mac_address"] = json!(mac);
            request
        };
        let right = told(&["10.16.0.11/16"], "0a:00:00:10:00:0b");
        assert_eq!(daemon.call(PATH_CHECK, right).await.0, 204);
        for (wrong, says) in [
            (told(&["10.16.0.12/16"], ""), "10.16.0.12/16"),
            (told(&["10.16.0.11/24"], ""), "10.16.0.11/24"),
            (
                told(&["10.16.0.11/16"], "0a:00:00:10:00:0c"),
                "0a:00:00:10:00:0c",
            ),
        ] {
            let (status, answer) = daemon.call(PATH_CHECK, wrong).await;
            assert_eq!((status, &answer["code"]), (500, &json!(100)), "{answer}");
            assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
        }
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
        // And for one that never was, whose pod nobody knows.
        let never = json!({"container_id": "never", "if_name": "eth0", "net_ns": "/run/netns/no"});
        assert_eq!(daemon.call(PATH_DEL, never).await.0, 204);
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
fn an_add_ends_with_its_pod() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let deleting = |mut pod: PodView| {
            pod.deletion = Some(Deletion {
                timestamp_unix: 0,
                grace_seconds: 1,
            });
            Event::Pods(Watch::Apply(pod))
        };
        let delete = |name: &str| Event::Pods(Watch::Delete("ns".into(), name.into()));
        let another = |name: &str, last| {
            let mut pod = pod_view(name, last, false);
            pod.uid = "uid-another".into();
            Event::Pods(Watch::Apply(pod))
        };
        for says_which in [true, false] {
            // Deleted while it waits for an address, or for OVN; gone; another of its name in its place; gone from the list.
            let ends = [
                ("a", false, deleting(pod_view("a", 11, false))),
                ("b", true, deleting(pod_view("b", 12, true))),
                ("c", false, delete("c")),
                ("d", false, another("d", 14)),
                ("e", true, Event::Pods(Watch::Replace(Vec::new()))),
            ];
            for (name, address, end) in ends {
                daemon.pods(&[pod_view(name, 11, address)]).await;
                let sandbox = Sandbox::new(name, &format!("{name}{name}{name}"));
                let mut request = sandbox.request();
                if says_which {
                    request["pod_uid"] = json!(format!("uid-{name}"));
                }
                let start = Instant::now();
                let steps = async {
                    if address {
                        ovs.wait_for_port(&sandbox.host()).await;
                    }
                    sleep(Duration::from_millis(200)).await;
                    daemon.send(end).await;
                };
                let ((status, answer), ()) = tokio::join!(daemon.call(PATH_ADD, request), steps);
                assert_eq!(
                    (status, &answer["code"]),
                    (400, &json!(101)),
                    "no use in trying again: {answer}"
                );
                assert!(start.elapsed() < PATIENCE / 4, "{name}: {answer}");
                assert!(ovs.ports().is_empty() && !device(&sandbox.host()));
            }
        }
    });
}

#[test]
fn an_address_that_changes_while_the_pod_is_attached_is_not_given_out() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, true)]).await;
        let sandbox = Sandbox::new("a", "aaaa");
        let steps = async {
            ovs.wait_for_port(&sandbox.host()).await;
            let other = pod_view("a", 12, true);
            daemon.send(Event::Pods(Watch::Apply(other))).await;
            ovs.install(&sandbox.host());
        };
        let ((status, answer), ()) = tokio::join!(daemon.call(PATH_ADD, sandbox.request()), steps);
        let error = answer["error"].as_str().unwrap();
        assert!(
            status == 503 && error.contains("changed meanwhile"),
            "{answer}"
        );
        assert!(ovs.ports().is_empty() && !device(&sandbox.host()));
        assert_eq!(
            daemon.attach(&ovs, &sandbox).await["ips"][0]["ip"],
            "10.16.0.12"
        );
    });
}

#[test]
fn events_tell_of_pods_that_got_their_network_or_did_not_but_not_of_those_that_went() {
    scenario(|| async {
        let ovs = Ovs::new();
        let api = ApiServer::start().await;
        let wait = Duration::from_secs(1);
        let client = api.client.clone();
        let daemon = Daemon::start_with(&ovs, wait, leftovers::PATIENCE, client);
        daemon.node().await;
        let waits = pod_view("waits", 12, false);
        daemon
            .pods(&[pod_view("a", 11, true), waits, pod_view("goes", 13, false)])
            .await;
        let goes = Sandbox::new("goes", "cccc");
        let end = async {
            sleep(wait / 2).await;
            daemon
                .send(Event::Pods(Watch::Delete("ns".into(), "goes".into())))
                .await;
        };
        let (gone, ()) = tokio::join!(daemon.call(PATH_ADD, goes.request()), end);
        assert_eq!(gone.0, 400, "{gone:?}");
        let sandbox = Sandbox::new("waits", "bbbb");
        assert_eq!(daemon.call(PATH_ADD, sandbox.request()).await.0, 503);
        daemon.attach(&ovs, &Sandbox::new("a", "aaaa")).await;
        let events = || {
            let sent = api.sent("/apis/events.k8s.io/v1/namespaces/ns/events");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            sent.iter()
                .map(|e| {
                    let about = &e["regarding"];
                    let [reason, name, uid] =
                        [&e["reason"], &about["name"], &about["uid"]].map(text);
                    format!("{reason} {name} {uid}")
                })
                .collect::<Vec<_>>()
        };
        until("two events", || events().len() == 2).await;
        assert_eq!(
            events(),
            [
                "PodNetworkConfigureFailed waits uid-waits",
                "PodNetworkConfigured a uid-a"
            ]
        );
    });
}

#[test]
fn a_pod_waits_for_its_subnets_mtu() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let name = subnet_facts(None).name;
        daemon
            .send(Event::Subnets(Watch::Delete(String::new().into(), name)))
            .await;
        daemon.pods(&[pod_view("a", 11, true)]).await;
        let a = Sandbox::new("a", "aaaa");
        let subnet = async {
            sleep(Duration::from_millis(300)).await;
            assert!(ovs.ports().is_empty(), "nothing before the Subnet");
            let subnet = subnet_facts(Some(1300));
            daemon.send(Event::Subnets(Watch::Apply(subnet))).await;
        };
        let (answer, ()) = tokio::join!(daemon.attach(&ovs, &a), subnet);
        assert_eq!(answer["mtu"], 1300);
        assert!(a.inside("ip -o link show eth0").contains("mtu 1300"));
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
        daemon.attach(&ovs, &a).await;
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
            ("cni_type", "macvlan", "macvlan"),
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
