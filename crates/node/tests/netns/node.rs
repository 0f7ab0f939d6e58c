//! The node's own links, addresses and routes.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use node::linux::{self, Firewall, Noticed, Socket};
use node::plan;

use crate::harness::{
    changed_plan, converge, inputs_plan, join, node_ns, out, path, path_subnets, subnet,
};

#[test]
fn the_node_plan_is_reached_kept_and_left_alone() {
    let node = node_ns();
    // In the place of OVS: a device that is named ovn0.
    out(
        &node,
        "ip link add ovn0 type veth peer name far; ip link set far up; ip link add eth0 type veth peer name out0; \
         ip link set eth0 up; ip link set out0 up; ip addr add 192.168.1.41/24 dev eth0; \
         ip route add 10.99.0.0/16 via 192.168.1.1 dev eth0",
    );
    let subnets: BTreeMap<_, _> = [
        subnet("join", "100.64.0.0/16"),
        subnet("ovn-default", "10.16.0.0/16"),
        subnet("test", "10.17.0.0/16"),
        // The host routes this one elsewhere: it stays so.
        subnet("foreign", "10.99.0.0/16"),
    ]
    .into();
    let plan = inputs_plan(&subnets);
    let mut firewall = Firewall::default();
    let done = converge(&node, &mut firewall, &plan);
    assert!(done.iter().any(|op| op.starts_with("nft")), "{done:?}");
    let routes = out(&node, "ip route");
    for route in [
        "10.16.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.41",
        "10.17.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.41",
        "100.64.0.0/16 dev ovn0 proto kernel scope link src 100.64.0.2",
        "10.99.0.0/16 via 192.168.1.1 dev eth0",
    ] {
        assert!(routes.contains(route), "{route} not in\n{routes}");
    }
    assert!(!routes.contains("10.99.0.0/16 via 100.64.0.1"), "{routes}");
    let link = out(&node, "ip -o link show ovn0");
    assert!(
        link.contains("mtu 1400") && link.contains("0a:58:64:40:00:02"),
        "{link}"
    );
    assert_eq!(out(&node, "sysctl -n net.ipv4.ip_forward").trim(), "1");

    // Nothing to do, nothing done; also by a daemon that has just been started (it cannot know the table).
    assert_eq!(converge(&node, &mut firewall, &plan), Vec::<String>::new());
    let again = converge(&node, &mut Firewall::default(), &plan);
    assert_eq!(again.len(), 1, "{again:?}");

    // What others spoil is put right.
    out(
        &node,
        "nft flush chain inet kube_ovn postrouting; ip addr add 1.2.3.4/24 dev ovn0; ip route del 10.17.0.0/16; \
         ip route add 10.55.0.0/16 via 100.64.0.1 dev ovn0; ip link set ovn0 mtu 1300",
    );
    let repaired = converge(&node, &mut firewall, &plan);
    assert_eq!(repaired.len(), 5, "{repaired:#?}");
    assert_eq!(converge(&node, &mut firewall, &plan), Vec::<String>::new());

    // A subnet goes.
    let mut fewer = subnets.clone();
    fewer.remove("test");
    let ops = converge(&node, &mut firewall, &inputs_plan(&fewer));
    assert!(
        ops.contains(&"route del 10.17.0.0/16 via 100.64.0.1 dev ovn0 src 192.168.1.41".to_owned()),
        "{ops:?}"
    );
    assert!(!out(&node, "nft list table inet kube_ovn").contains("10.17"));
}

#[test]
fn another_join_address_takes_the_place_of_the_old_one_at_once() {
    let node = node_ns();
    out(
        &node,
        "ip link add ovn0 type veth peer name far; ip link set far up; \
         ip link add eth0 type veth peer name out0; ip link set eth0 up; ip link set out0 up; \
         ip addr add 192.168.1.41/24 dev eth0",
    );
    let subnets: BTreeMap<_, _> = [
        subnet("join", "100.64.0.0/16"),
        subnet("ovn-default", "10.16.0.0/16"),
    ]
    .into();
    let mut firewall = Firewall::default();
    converge(&node, &mut firewall, &inputs_plan(&subnets));
    let moved = changed_plan(&subnets, |node| node.join = join("100.64.0.9", false));
    let ops = converge(&node, &mut firewall, &moved);
    // The kernel makes the new one a secondary of the old one, and would drop it with that.
    assert_eq!(
        ops,
        [
            "address add 100.64.0.9/16 dev ovn0",
            "announce 100.64.0.9 is at 0a:58:64:40:00:02 on ovn0",
            "address del 100.64.0.2/16 dev ovn0",
        ]
    );
    let routes = out(&node, "ip route");
    assert!(routes.contains("10.16.0.0/16 via 100.64.0.1"), "{routes}");

    // The node itself gets another address: the kernel drops the routes that name the old one.
    out(&node, "ip addr del 192.168.1.41/24 dev eth0");
    assert!(!out(&node, "ip route").contains("10.16.0.0/16"));
    out(&node, "ip addr add 192.168.1.141/24 dev eth0");
    let renumbered = changed_plan(&subnets, |node| {
        node.join = join("100.64.0.9", false);
        node.internal_ips.v4 = Some("192.168.1.141".parse().unwrap());
    });
    converge(&node, &mut firewall, &renumbered);
    let routes = out(&node, "ip route");
    assert!(
        routes.contains("10.16.0.0/16 via 100.64.0.1 dev ovn0 proto static src 192.168.1.141"),
        "{routes}"
    );
    let table = out(&node, "nft list table inet kube_ovn");
    assert!(
        table.contains("192.168.1.141") && !table.contains("192.168.1.41"),
        "{table}"
    );
}

#[test]
fn neighbours_are_told_of_the_join_address() {
    let path = path();
    out(
        &path.pod,
        "sysctl -qw net.ipv4.conf.p0.arp_accept=1 net.ipv6.conf.p0.accept_untracked_na=1 net.ipv6.conf.p0.forwarding=1",
    );
    converge(
        &path.node,
        &mut Firewall::default(),
        &inputs_plan(&path_subnets()),
    );
    thread::sleep(Duration::from_millis(100));
    let neighbours = out(&path.pod, "ip neigh show");
    for ip in ["100.64.0.2", "fd00:100:64::2"] {
        assert!(
            neighbours.contains(&format!("{ip} dev p0 lladdr 0a:58:64:40:00:02")),
            "{ip}: {neighbours}"
        );
    }
}

#[test]
fn the_monitor_wakes_on_changes() {
    let node = node_ns();
    let monitor = Arc::new(node.run(linux::Monitor::open).unwrap().unwrap());
    let wait = || {
        let (news, inbox) = mpsc::channel();
        let monitor = Arc::clone(&monitor);
        thread::spawn(move || news.send(monitor.wait().unwrap()));
        inbox
    };
    let noticed = |command: &str| {
        let inbox = wait();
        thread::sleep(Duration::from_millis(50));
        out(&node, command);
        let noticed = inbox.recv_timeout(Duration::from_secs(5)).unwrap();
        // The rest of the same change.
        thread::sleep(Duration::from_millis(50));
        noticed
    };
    let links = Noticed {
        links: true,
        rules: false,
    };
    let rules = Noticed {
        links: false,
        rules: true,
    };
    assert_eq!(noticed("nft add table inet x"), rules);
    assert_eq!(noticed("nft flush ruleset"), rules);
    assert_eq!(noticed("ip link add a0 type veth peer name b0"), links);
    // All that was said meanwhile is one piece of news.
    out(
        &node,
        "for i in $(seq 40); do ip addr add 10.0.0.$i/32 dev a0; done",
    );
    assert_eq!(monitor.wait().unwrap(), links);
    let inbox = wait();
    let more = inbox.recv_timeout(Duration::from_millis(200));
    assert!(more.is_err(), "forty addresses must not be forty looks");
    out(&node, "ip link del a0");
    inbox.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_tunnel_interface_is_found_by_name_or_address() {
    let node = node_ns();
    out(
        &node,
        "ip link add br-phy type veth peer name x0; ip addr add 172.21.0.11/24 dev br-phy; ip addr add 169.254.3.3/16 dev br-phy; \
         ip link add eth0 type veth peer name x1; ip addr add 192.168.1.41/24 dev eth0; ip link set br-phy up",
    );
    let links = node
        .run(|| linux::links(&mut Socket::open().unwrap()).unwrap())
        .unwrap();
    let by_name = plan::TunnelChoice::Named {
        pattern: "br-phy".into(),
        because: String::new(),
        prefer: Vec::new(),
    };
    let nic = plan::choose_tunnel(&by_name, &links, false).unwrap();
    assert_eq!(
        (nic.ip.to_string().as_str(), nic.mtu),
        ("172.21.0.11", 1500)
    );
    let by_address = plan::TunnelChoice::HolderOf(vec!["192.168.1.41".parse().unwrap()]);
    assert_eq!(
        plan::choose_tunnel(&by_address, &links, false)
            .unwrap()
            .name,
        "eth0"
    );
    let nobody = plan::TunnelChoice::HolderOf(vec!["10.0.0.1".parse().unwrap()]);
    assert_eq!(
        plan::choose_tunnel(&nobody, &links, false)
            .unwrap_err()
            .to_string(),
        "a network interface that holds the Node's address 10.0.0.1"
    );
    // A second address of the same network passes by; the first one is it.
    out(&node, "ip addr add 172.21.0.2/24 dev br-phy");
    let links = node
        .run(|| linux::links(&mut Socket::open().unwrap()).unwrap())
        .unwrap();
    let nic = plan::choose_tunnel(&by_name, &links, false).unwrap();
    assert_eq!(nic.ip.to_string(), "172.21.0.11");
}
