//! The node itself.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use api::cni::PATH_CHECK;
use api::view::NodeView;
use net::DualStack;
use node::linux::NetNs;
use tokio::sync::watch;
use tokio::time::sleep;

use super::harness::{
    ApiServer, Daemon, Ovs, PATIENCE, Sandbox, joined_node_view, node_view, pod_view, scenario, sh,
    until,
};
use crate::leftovers;
use crate::owner::{Event, Watch};

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
        let node = joined_node_view();
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
        // Pods could be attached; that the gateway does not answer yet is nothing to do with it.
        until("the conflist", || daemon.conflist.exists()).await;
        let _router = make_router();
        until("readiness", || daemon.waiting().is_empty()).await;

        // Another daemon finds everything as it should be. The table it writes once: it cannot know that it is right.
        let state = || {
            let tables = ["Open_vSwitch", "Bridge", "Port", "Interface"];
            let rows = tables.map(|table| ovs.ctl(&format!("list {table}")));
            let kernel = sh("ip -o link; ip -o addr; ip route; nft list table inet kube_ovn");
            // The kernel takes "tentative" off a link-local address a second after it came, in its own time.
            (rows, kernel.replace(" tentative", ""))
        };
        let before = state();
        drop(daemon);
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.pods(&[]).await;
        daemon
            .send(Event::Nodes(Watch::Replace(vec![joined_node_view()])))
            .await;
        daemon.subnets().await;
        until("its work", || daemon.operations() > 0).await;
        until("readiness", || daemon.waiting().is_empty()).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(daemon.operations(), 1);
        assert_eq!(state(), before);
    });
}

#[test]
fn the_conflist_comes_when_add_can_be_served_and_stays() {
    scenario(|| async {
        let ovs = Ovs::new();
        // Something else has the socket's name; and later the list's.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let socket = dir.path().join("cni.sock");
        std::fs::create_dir_all(socket.join("not-empty")).unwrap();
        std::fs::write(dir.path().join("net.d"), "").unwrap();
        let (_, client) = watch::channel(None);
        let daemon = Daemon::start_in(dir, &ovs, PATIENCE, leftovers::PATIENCE, client);
        daemon.node().await;
        daemon.pods(&[pod_view("a", 11, true)]).await;
        make_ovn0();
        let _router = make_router();
        daemon
            .send(Event::Nodes(Watch::Apply(joined_node_view())))
            .await;
        let only = |what: &'static str| {
            let daemon = &daemon;
            async move {
                until(what, || {
                    let waiting = daemon.waiting();
                    waiting.len() == 1 && waiting[0].contains(what)
                })
                .await;
            }
        };
        only("cni.sock: Is a directory").await;
        sleep(Duration::from_millis(1500)).await;
        only("cni.sock: Is a directory").await;
        std::fs::remove_dir_all(&socket).unwrap();
        // Pods can be attached, and nobody will know.
        only("01-kube-ovn.conflist: File exists").await;
        std::fs::remove_file(daemon.conflist.parent().unwrap()).unwrap();
        until("readiness", || daemon.waiting().is_empty()).await;
        let conflist = std::fs::read_to_string(&daemon.conflist).unwrap();
        assert!(conflist.contains(socket.to_str().unwrap()), "{conflist}");
        let a = Sandbox::new("a", "aaaa");
        daemon.attach(&ovs, &a).await;

        // Open vSwitch starts anew and makes the directory anew.
        std::fs::remove_file(&socket).unwrap();
        until("another socket", || socket.exists()).await;
        assert_eq!(daemon.call(PATH_CHECK, a.request()).await.0, 204);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Another daemon takes it: it is the other's as long as that one is there.
        std::fs::remove_file(&socket).unwrap();
        let other = UnixListener::bind(&socket).unwrap();
        only("cni.sock: another process serves on it").await;
        // Pods run; the runtime must be able to end them, and the kubelet to keep its node.
        assert!(daemon.conflist.exists());
        drop(other);
        until("the socket", || daemon.waiting().is_empty()).await;
        assert_eq!(daemon.call(PATH_CHECK, a.request()).await.0, 204);
    });
}

/// OVN's router, at the other end of the join port.
fn make_router() -> NetNs {
    let router = NetNs::new().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), router.raw_fd());
    sh(&format!("ip link set ovn netns {path}"));
    router
        .run(|| sh("ip link set ovn up; ip addr add 100.64.0.1/16 dev ovn"))
        .unwrap();
    router
}

fn other_node(ip: &str) -> NodeView {
    NodeView {
        name: "n2".into(),
        internal_ips: DualStack::new(Some(ip.parse().unwrap()), None),
        ..node_view()
    }
}

/// ovs-vswitchd's part: the device of the join port.
fn make_ovn0() {
    sh("ip link add ovn0 type veth peer name ovn; ip link set ovn up");
}

#[test]
fn a_node_gets_another_address_and_its_pods_do_not_notice() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let other = Event::Nodes(Watch::Apply(other_node("192.168.1.42")));
        daemon.send(other).await;
        daemon
            .send(Event::Nodes(Watch::Apply(joined_node_view())))
            .await;
        daemon
            .pods(&[pod_view("a", 11, true), pod_view("b", 12, true)])
            .await;
        make_ovn0();
        let encap = |ip: &'static str| {
            let ovs = &ovs;
            async move {
                until("the tunnel address", || {
                    let ids = ovs.ctl("get Open_vSwitch . external_ids");
                    ids.contains(&format!("ovn-encap-ip=\"{ip}\""))
                        && ids.contains(&format!("ovn-encap-ip-default=\"{ip}\""))
                })
                .await;
            }
        };
        let route = |text: &'static str| async move {
            until(text, || sh("ip route").contains(text)).await;
        };
        encap("192.168.1.41").await;
        route("10.16.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.41").await;
        let a = Sandbox::new("a", "aaaa");
        daemon.attach(&ovs, &a).await;
        let pod = || {
            let port = ovs.ctl(&format!("get Interface {} _uuid", a.host()));
            // The kernel takes "tentative" off a link-local address a second after it came, in its own time.
            let inside = a.inside("ip -o addr; ip route; ip -o link");
            (port, inside.replace(" tentative", ""))
        };
        let before = pod();

        // The interface is renumbered first. The kernel drops what names the old address.
        sh("ip addr del 192.168.1.41/24 dev eth0; ip addr add 192.168.1.141/24 dev eth0");
        until("the daemon to say so", || {
            let waiting = daemon.waiting();
            waiting
                .iter()
                .any(|w| w.contains("holds the Node's address 192.168.1.41"))
        })
        .await;
        route("10.16.0.0/16 via 100.64.0.1 dev ovn0 proto static \n").await;
        // Pods still start: the fabric's own side is whole.
        daemon.attach(&ovs, &Sandbox::new("b", "bbbb")).await;

        // The kubelet follows, and so does another node.
        let mut node = joined_node_view();
        node.internal_ips.v4 = Some("192.168.1.141".parse().unwrap());
        daemon.send(Event::Nodes(Watch::Apply(node))).await;
        encap("192.168.1.141").await;
        route("10.16.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.141").await;
        let other = Event::Nodes(Watch::Apply(other_node("192.168.1.142")));
        daemon.send(other).await;
        until("the table", || {
            let table = sh("nft list table inet kube_ovn");
            table.contains("snat ip to 192.168.1.141")
                && table.contains("192.168.1.142")
                && !table.contains("192.168.1.41 ")
                && !table.contains("192.168.1.42 ")
        })
        .await;
        assert_eq!(pod(), before);
    });
}

#[test]
fn rules_that_others_flush_come_back_without_waiting_for_the_audit() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let whole = || {
            let ruleset = sh("nft list ruleset");
            (
                ruleset.contains("table inet kube_ovn"),
                ruleset.contains("kube-ovn: to pods"),
            )
        };
        until("our table", || whole().0).await;
        // Docker starts.
        sh("iptables-nft -P FORWARD DROP");
        until("the accept rules", || whole() == (true, true)).await;
        // The host's firewall is loaded anew.
        sh("nft flush ruleset; iptables-nft -P FORWARD DROP");
        until("everything", || whole() == (true, true)).await;
    });
}

#[test]
fn a_node_that_registers_again_is_told_everything_again() {
    scenario(|| async {
        let ovs = Ovs::new();
        let api = ApiServer::start().await;
        let client = api.client.clone();
        let daemon = Daemon::start_with(&ovs, PATIENCE, leftovers::PATIENCE, client);
        daemon.node().await;
        daemon.pods(&[]).await;
        make_ovn0();
        let _router = make_router();
        let written = |chassis: usize, condition: usize| {
            let api = &api;
            async move {
                until("chassis and condition", || {
                    api.patched("/api/v1/nodes/n1") >= chassis
                        && api.patched("/api/v1/nodes/n1/status") >= condition
                })
                .await;
            }
        };
        let mut node = joined_node_view();
        daemon.send(Event::Nodes(Watch::Apply(node.clone()))).await;
        written(1, 1).await;
        until("readiness", || daemon.waiting().is_empty()).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.patched("/api/v1/nodes/n1"), 1, "written once");
        let known = node.clone();
        node.annotations
            .insert(::api::keys::CHASSIS.into(), "chassis-1".into());
        daemon.send(Event::Nodes(Watch::Apply(node))).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.patched("/api/v1/nodes/n1"), 1, "it is there");
        // Somebody takes it away.
        daemon.send(Event::Nodes(Watch::Apply(known))).await;
        written(2, 1).await;
        let status = api.patched("/api/v1/nodes/n1/status");
        // The Node object is deleted; the kubelet makes another.
        let gone = Event::Nodes(Watch::Delete("".into(), "n1".into()));
        daemon.send(gone).await;
        until("the daemon to say so", || daemon.waiting() == ["Node n1"]).await;
        // The node keeps what it has.
        let pod = pod_view("a", 11, true);
        daemon.send(Event::Pods(Watch::Apply(pod))).await;
        daemon.attach(&ovs, &Sandbox::new("a", "aaaa")).await;
        let mut again = joined_node_view();
        again.uid = "another-uid".into();
        daemon.send(Event::Nodes(Watch::Apply(again))).await;
        written(3, status + 1).await;
    });
}

#[test]
fn a_chassis_without_a_name_gets_one_and_keeps_it() {
    scenario(|| async {
        let ovs = Ovs::new();
        let api = ApiServer::start().await;
        ovs.ctl("--no-wait remove Open_vSwitch . external_ids system-id");
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let file = dir.path().join("system-id.conf");
        let client = api.client.clone();
        let daemon = Daemon::start_in(dir, &ovs, PATIENCE, leftovers::PATIENCE, client);
        daemon.node().await;
        let id = || ovs.ctl("--if-exists get Open_vSwitch . external_ids:system-id");
        until("a system-id", || !id().is_empty()).await;
        let first = id();
        let kept = std::fs::read_to_string(&file).unwrap();
        assert_eq!(kept.trim(), first.trim_matches('"'));
        until("the Node to know", || {
            let patches = api.sent("/api/v1/nodes/n1");
            patches
                .iter()
                .any(|p| p["metadata"]["annotations"][::api::keys::CHASSIS] == kept.trim())
        })
        .await;
        // The database is lost.
        ovs.ctl("--no-wait remove Open_vSwitch . external_ids system-id");
        until("it to come back", || id() == first).await;
    });
}

#[test]
fn services_of_objects_count() {
    scenario(|| async {
        let ovs = Ovs::new();
        let daemon = Daemon::start(&ovs, PATIENCE);
        daemon.node().await;
        let cidrs = |text: &str| vec![("more".into(), vec![text.parse().unwrap()])];
        let table = || sh("nft list set inet kube_ovn services4 2>/dev/null || true");
        for cidr in ["10.69.0.0/16", "10.70.0.0/16"] {
            let replace = Watch::Replace(cidrs(cidr));
            daemon.send(Event::ServiceCidrs(replace)).await;
            until(cidr, || table().contains(cidr)).await;
        }
        assert!(!table().contains("10.69"));
    });
}
