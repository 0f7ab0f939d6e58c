//! What pods leave behind that went without a DEL, and ports that went without their pods.

use std::time::Duration;

use api::cni::{PATH_CHECK, PATH_DEL};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::harness::{
    Daemon, Ovs, PATIENCE, Sandbox, device, mirror_view, node_view, pod_view, scenario, sh,
    subnet_facts, until,
};
use crate::leftovers;
use crate::owner::{Event, Watch};

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
            daemon.attach(&ovs, sandbox).await;
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
        daemon.subnets().await;
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
            daemon.attach(&ovs, sandbox).await;
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
        // Of a pod that had the name, and another address, before.
        let earlier = Sandbox::new("a", "cccc");
        earlier.make_device();
        // Time to be seen, to settle, and to be seen again.
        sleep(leftovers::SETTLED * 4).await;
        assert!(ovs.ports().is_empty(), "what was detached stays so");
    });
}

#[test]
fn what_a_killed_daemon_left_half_made_goes_with_its_pod() {
    scenario(|| async {
        let ovs = Ovs::new();
        let (_, client) = watch::channel(None);
        let patience = Duration::from_secs(1);
        let daemon = Daemon::start_with(&ovs, PATIENCE, patience, client);
        daemon.node().await;
        let kept = pod_view("kept", 11, true);
        let kept_sandbox = Sandbox::new("kept", "aaaa");
        let forced = pod_view("forced", 12, true);
        let forced_sandbox = Sandbox::new("forced", "bbbb");
        daemon.pods(&[kept.clone(), forced]).await;
        daemon.attach(&ovs, &kept_sandbox).await;
        daemon.attach(&ovs, &forced_sandbox).await;
        // A device of a pod that the API server does not know (any more), with a sandbox that nobody has removed.
        let half = Sandbox::new("gone", "cccc");
        half.make_device();
        // A pod that was deleted by force while the kubelet is not there to end it: another node may have its name.
        daemon.pods(&[kept]).await;
        until("both to go", || {
            !device(&half.host()) && !device(&forced_sandbox.host())
        })
        .await;
        assert_eq!(ovs.ports(), [kept_sandbox.host()]);
        assert!(device(&kept_sandbox.host()));
    });
}

#[test]
fn a_pod_deleted_by_force_gives_its_port_up_at_once() {
    scenario(|| async {
        let ovs = Ovs::new();
        // Usual patience: a minute.
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let mirror = mirror_view("static", 13, true);
        daemon
            .pods(&[pod_view("told", 11, true), mirror.clone()])
            .await;
        let told = Sandbox::new("told", "aaaa");
        let kept = Sandbox::new("static", "cccc");
        for sandbox in [&told, &kept] {
            daemon.attach(&ovs, sandbox).await;
        }
        // Nobody sends a DEL: the kubelet is dead.
        let start = Instant::now();
        for name in ["told", "static"] {
            daemon
                .send(Event::Pods(Watch::Delete("ns".into(), name.into())))
                .await;
        }
        until("it to go", || !device(&told.host())).await;
        assert!(start.elapsed() < leftovers::FORCED * 2 + Duration::from_secs(5));
        sleep(leftovers::FORCED).await;
        // A static pod runs on while the kubelet makes its mirror anew.
        assert_eq!(ovs.ports(), [kept.host()]);
        daemon.pods(&[mirror]).await;
        assert_eq!(daemon.call(PATH_CHECK, kept.request()).await.0, 204);
        assert_eq!(daemon.call(PATH_DEL, told.request()).await.0, 204);
    });
}

const SHORT: Duration = Duration::from_secs(3);

/// A daemon that is patient for a short while only.
fn impatient(ovs: &Ovs) -> Daemon {
    Daemon::start_with(ovs, PATIENCE, SHORT, watch::channel(None).1)
}

/// Pods of these names, and their daemon.
async fn with_pods(ovs: &Ovs, names: &[&'static str]) -> (Daemon, Vec<Sandbox>) {
    let daemon = impatient(ovs);
    daemon.node().await;
    let views = (11..).zip(names).map(|(ip, name)| pod_view(name, ip, true));
    daemon.pods(&views.collect::<Vec<_>>()).await;
    let mut sandboxes = Vec::new();
    for name in names {
        let sandbox = Sandbox::new(name, &name.repeat(4));
        daemon.attach(ovs, &sandbox).await;
        sandboxes.push(sandbox);
    }
    (daemon, sandboxes)
}

#[test]
fn a_list_without_pods_takes_the_network_from_none_that_runs() {
    scenario(|| async {
        let ovs = Ovs::new();
        let (daemon, pods) = with_pods(&ovs, &["a", "b"]).await;
        let ports = ovs.ports();
        daemon.pods(&[]).await;
        sleep(SHORT * 2 + Duration::from_secs(1)).await;
        assert_eq!(ovs.ports(), ports);
        // Nor does a daemon that starts meanwhile.
        drop(daemon);
        let daemon = impatient(&ovs);
        daemon.pods(&[]).await;
        sleep(SHORT * 2 + Duration::from_secs(1)).await;
        assert_eq!(ovs.ports(), ports);
        // What is told of each goes, and the kubelet's word counts.
        daemon.pods(&[pod_view("a", 11, true)]).await;
        daemon
            .send(Event::Pods(Watch::Delete("ns".into(), "a".into())))
            .await;
        until("it to go", || !device(&pods[0].host())).await;
        assert_eq!(daemon.call(PATH_DEL, pods[1].request()).await.0, 204);
        assert!(ovs.ports().is_empty());
    });
}

#[test]
fn one_pod_that_a_list_lacks_goes_after_a_while() {
    scenario(|| async {
        let ovs = Ovs::new();
        let (daemon, pods) = with_pods(&ovs, &["a", "b", "c"]).await;
        let list = [pod_view("a", 11, true), pod_view("b", 12, true)];
        daemon.pods(&list).await;
        until("it to go", || !device(&pods[2].host())).await;
        // And another one within the hour would be too much.
        daemon.pods(&list[..1]).await;
        sleep(SHORT * 2 + Duration::from_secs(1)).await;
        assert!(device(&pods[0].host()) && device(&pods[1].host()));
    });
}

#[test]
fn a_list_without_subnets_changes_nothing_on_the_node() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let sets = || {
            let out = std::process::Command::new("nft")
                .args(["list", "ruleset"])
                .output();
            String::from_utf8_lossy(&out.unwrap().stdout).contains("10.16.0.0/16")
        };
        until("the subnet to be in its set", sets).await;
        daemon
            .send(Event::Subnets(Watch::Replace(Vec::new())))
            .await;
        sleep(Duration::from_secs(2)).await;
        assert!(sets());
        drop(daemon);
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon
            .send(Event::Nodes(Watch::Replace(vec![node_view()])))
            .await;
        daemon
            .send(Event::Subnets(Watch::Replace(Vec::new())))
            .await;
        sleep(Duration::from_secs(2)).await;
        assert!(sets());
        // It comes back; or it is the first of a new cluster, which had none to list.
        let mut subnet = subnet_facts(None);
        subnet.cidrs = vec!["10.20.0.0/16".parse().unwrap()];
        let name = subnet.name.clone();
        daemon.send(Event::Subnets(Watch::Apply(subnet))).await;
        until("its set to follow", || !sets()).await;
        let back = Watch::Apply(subnet_facts(None));
        daemon.send(Event::Subnets(back)).await;
        until("its set to follow again", sets).await;
        daemon
            .send(Event::Subnets(Watch::Delete(String::new().into(), name)))
            .await;
        until("it to go when it is deleted", || !sets()).await;
    });
}
