//! Accept rules in the host's own chains.

use node::linux::{self, Firewall};

use crate::harness::{converge, inputs_plan, node_ns, out, path, path_subnets, sh};

#[test]
fn hosts_that_drop_get_accept_rules_once() {
    let path = path();
    converge(
        &path.node,
        &mut Firewall::default(),
        &inputs_plan(&path_subnets()),
    );
    let keep = || path.node.run(linux::keep_accepted).unwrap().unwrap();
    assert_eq!(keep(), Vec::<String>::new(), "nothing drops, nothing added");
    let ping = "ping -c1 -W1 10.16.0.11";
    assert!(sh(&path.outside, ping).status.success());
    // Docker: policy drop in iptables' FORWARD. firewalld: an unconditional reject at the end.
    out(
        &path.node,
        "iptables -P FORWARD DROP; iptables -A FORWARD -i docker0 -j ACCEPT; \
         nft 'add table inet firewalld; \
         add chain inet firewalld filter_INPUT { type filter hook input priority filter + 10; }; \
         add rule inet firewalld filter_INPUT ct state established,related accept; \
         add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited'",
    );
    assert!(!sh(&path.outside, ping).status.success());
    assert!(
        !sh(&path.pod, "ping -c1 -W1 -I 10.16.0.11 192.168.1.41")
            .status
            .success()
    );
    let added = keep();
    assert_eq!(added.len(), 3, "{added:?}");
    assert!(sh(&path.outside, ping).status.success());
    out(&path.pod, "ping -c1 -W1 -I 10.16.0.11 192.168.1.41");
    assert_eq!(keep(), Vec::<String>::new());
    // The host's own tool still reads its chain, and shows our comment.
    let rules = out(&path.node, "iptables -S FORWARD");
    assert!(rules.contains("kube-ovn: from pods"), "{rules}");
    // Docker starts again and rewrites its chain.
    out(&path.node, "iptables -F FORWARD");
    assert!(!sh(&path.outside, ping).status.success());
    assert_eq!(keep().len(), 2);
    assert!(sh(&path.outside, ping).status.success());
    // The rules as a firewall saves and restores them have lost the form of nft, but are the same.
    out(&path.node, "iptables-save | iptables-restore");
    assert_eq!(keep(), Vec::<String>::new());
    assert_eq!(
        out(&path.node, "iptables -S FORWARD").lines().count(),
        3,
        "the policy and two rules"
    );
}

#[test]
fn accept_rules_are_never_two_and_go_when_nothing_drops() {
    let node = node_ns();
    let keep = || node.run(linux::keep_accepted).unwrap().unwrap();
    out(
        &node,
        "nft 'add table inet fw; add chain inet fw drops { type filter hook forward priority filter; policy drop; }'",
    );
    assert_eq!(keep().len(), 2);
    let ours = || {
        let rules = out(&node, "nft list chain inet fw drops");
        rules.matches("kube-ovn").count()
    };
    let twice =
        r#"nft insert rule inet fw drops iifname ovn0 accept comment '"kube-ovn: from pods"'"#;
    out(&node, twice);
    assert_eq!(ours(), 3);
    assert_eq!(keep().len(), 1);
    assert_eq!(ours(), 2);
    out(
        &node,
        "nft 'add rule inet fw drops tcp dport 22 accept; chain inet fw drops { policy accept; }'",
    );
    assert_eq!(keep().len(), 2, "the host lets everything pass now");
    assert_eq!(ours(), 0);
    assert!(out(&node, "nft list chain inet fw drops").contains("dport 22"));
    // In the table of iptables, too.
    out(&node, "iptables -P INPUT DROP");
    assert_eq!(keep().len(), 1);
    out(&node, "iptables -P INPUT ACCEPT");
    assert_eq!(keep().len(), 1);
    assert!(!out(&node, "iptables -S INPUT").contains("kube-ovn"));
}

#[test]
fn legacy_iptables_too() {
    let path = path();
    converge(
        &path.node,
        &mut Firewall::default(),
        &inputs_plan(&path_subnets()),
    );
    out(&path.node, "iptables-legacy -P FORWARD DROP");
    let keep = || path.node.run(linux::keep_accepted).unwrap().unwrap();
    assert_eq!(keep().len(), 2);
    assert_eq!(keep().len(), 0);
    out(&path.outside, "ping -c1 -W1 10.16.0.11");
    // Flushed, twice there, and not needed any more.
    out(&path.node, "iptables-legacy -F FORWARD");
    assert_eq!(keep().len(), 2);
    out(
        &path.node,
        "iptables-legacy -I FORWARD -i ovn0 -m comment --comment 'kube-ovn: from pods' -j ACCEPT",
    );
    assert_eq!(keep().len(), 1);
    out(&path.node, "iptables-legacy -P FORWARD ACCEPT");
    assert_eq!(keep().len(), 2);
    assert_eq!(
        out(&path.node, "iptables-legacy -S FORWARD").trim(),
        "-P FORWARD ACCEPT"
    );
}
