//! A pod's interface.

use std::net::IpAddr;
use std::time::Duration;

use node::linux::{self, NetNs, Socket};

use crate::harness::{identity, need_root, node_ns, out, pod_nic};

#[test]
fn a_pods_interface_from_nothing_to_nothing() {
    let node = node_ns();
    let pod = NetNs::new().unwrap();
    // As container runtimes hand a namespace over.
    out(&pod, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let nic = pod_nic(
        "10.16.0.11,fd00:10:16::b",
        "0a:00:00:10:00:0b",
        "0123456789abcdef",
    );
    let mut host = node.run(Socket::open).unwrap().unwrap();

    let at = |step: &str| out(&pod, step);
    node.run(|| linux::attach(&mut host, &pod, &nic, &identity()))
        .unwrap()
        .unwrap();
    assert!(at("ip -o link show eth0").contains("state DOWN"));
    assert_eq!(
        at("ip -4 -o addr show eth0"),
        "",
        "no address before set_up"
    );
    assert!(out(&node, "ip -o link show 0123456789ab_h").contains("mtu 1400"));
    assert_eq!(
        out(&node, "ip -6 addr show 0123456789ab_h"),
        "",
        "it would solicit routers in the name of the pod"
    );
    assert_eq!(
        linux::pod_devices(&mut host).unwrap(),
        [("0123456789ab_h".into(), identity())]
    );
    assert!(
        at("ethtool -k eth0").contains("tx-checksumming: off"),
        "checksum offload must be off for the userspace datapath"
    );

    linux::set_up(&pod, &nic).unwrap();
    let link = at("ip -o link show eth0");
    assert!(link.contains("mtu 1400") && link.contains("0a:00:00:10:00:0b"));
    assert!(at("ip -o addr show eth0").contains("inet 10.16.0.11/16 brd 10.16.255.255"));
    let v6 = at("ip -6 -o addr show eth0");
    assert!(v6.contains("fd00:10:16::b/112"), "{v6}");
    assert!(!v6.contains("tentative fd00"), "{v6}");
    let routes = at("ip route");
    assert!(
        routes.contains("default via 10.16.0.1 dev eth0"),
        "{routes}"
    );
    assert!(routes.contains("192.0.2.0/24 via 10.16.0.9"), "{routes}");
    assert!(at("ip -6 route").contains("default via fd00:10:16::1"));
    assert_eq!(at("sysctl -n net.ipv6.conf.eth0.accept_ra").trim(), "0");

    node.run(|| linux::check(&mut host, &pod, &nic))
        .unwrap()
        .unwrap();
    // Both again: ADD is repeated after an attempt that failed half way.
    at("ip addr add 10.16.0.99/16 dev eth0");
    linux::set_up(&pod, &nic).unwrap();
    assert!(!at("ip -o addr show eth0").contains("10.16.0.99"));
    at("ip addr del 10.16.0.11/16 dev eth0");
    let error = node
        .run(|| linux::check(&mut host, &pod, &nic))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "eth0 does not have the address 10.16.0.11/16"
    );
    node.run(|| linux::attach(&mut host, &pod, &nic, &identity()))
        .unwrap()
        .unwrap();
    linux::set_up(&pod, &nic).unwrap();

    // Something else inside that looks the same.
    at(
        "ip link set eth0 down; ip link set eth0 name old; ip link add eth0 type veth peer name x; ip link set x up; \
        ip link set eth0 address 0a:00:00:10:00:0b up",
    );
    let error = node
        .run(|| linux::check(&mut host, &pod, &nic))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "eth0 is not the other end of 0123456789ab_h"
    );
    at("ip link del eth0");

    linux::remove_device(&mut host, &nic.host).unwrap();
    assert!(!linux::device_exists(&mut host, &nic.host).unwrap());
    assert!(!at("ip -o link").contains("eth0"));
    linux::remove_device(&mut host, &nic.host).unwrap();
}

#[test]
fn announcements_reach_the_other_end() {
    let node = node_ns();
    let pod = NetNs::new().unwrap();
    let nic = pod_nic(
        "10.16.0.11,fd00:10:16::b",
        "0a:00:00:10:00:0b",
        "0123456789abcdef",
    );
    let mut host = node.run(Socket::open).unwrap().unwrap();
    node.run(|| linux::attach(&mut host, &pod, &nic, &identity()))
        .unwrap()
        .unwrap();
    out(
        &node,
        "sysctl -qw net.ipv6.conf.0123456789ab_h.disable_ipv6=0 net.ipv4.conf.0123456789ab_h.arp_accept=1 \
         net.ipv6.conf.0123456789ab_h.accept_untracked_na=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.0123456789ab_h.forwarding=1; \
         ip addr add 10.16.0.1/16 dev 0123456789ab_h; ip addr add fd00:10:16::1/112 dev 0123456789ab_h nodad",
    );
    linux::set_up(&pod, &nic).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let neighbours = out(&node, "ip neigh show");
    assert!(
        neighbours.contains("10.16.0.11 dev 0123456789ab_h lladdr 0a:00:00:10:00:0b"),
        "{neighbours}"
    );
    assert!(
        neighbours.contains("fd00:10:16::b dev 0123456789ab_h lladdr 0a:00:00:10:00:0b"),
        "{neighbours}"
    );
    // And the gateway probe, both families, from the node's end.
    let probe = |ip: &str, seq| {
        let ip: IpAddr = ip.parse().unwrap();
        node.run(|| linux::ping("0123456789ab_h", ip, 7, seq, Duration::from_secs(1)).unwrap())
            .unwrap()
    };
    assert!(probe("10.16.0.11", 1));
    assert!(probe("fd00:10:16::b", 2));
    let before = std::time::Instant::now();
    let none: IpAddr = "10.16.0.99".parse().unwrap();
    let answered = node
        .run(|| linux::ping("0123456789ab_h", none, 7, 3, Duration::from_millis(200)).unwrap())
        .unwrap();
    assert!(!answered && before.elapsed() < Duration::from_secs(1));
}

#[test]
fn namespaces_are_told_apart_and_gone_ones_are_not_found() {
    need_root();
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    assert_ne!(a.id().unwrap(), b.id().unwrap());
    assert_eq!(
        a.id().unwrap(),
        a.run(NetNs::current).unwrap().unwrap().id().unwrap()
    );
    let gone = NetNs::open("/run/netns/kube-ovn-never-there").unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    // A file that is no namespace: the bind mount went, the file stayed.
    let plain = NetNs::open("/etc/hostname").unwrap_err();
    assert_eq!(plain.kind(), std::io::ErrorKind::NotFound);
}
