//! The view of the node's OVS database and the transactions made from it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use node::ovs::{OvsView, PodPort, PortSpec, Touched, iface_id};
use node::plan::JoinPortPlan;
use ovsdb::wire::{Atom, Datum, Operation, Row};
use smol_str::SmolStr;
use uuid::Uuid;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Number, name and `external_ids` of an interface.
type Port<'a> = (u128, &'a str, &'a [(&'a str, &'a str)]);

/// A database with br-int (1) and ports on it.
fn view(interfaces: &[Port<'_>]) -> OvsView {
    let mut view = OvsView::default();
    let ids = |pairs: &[(&str, &str)]| Datum::map(pairs.iter().map(|(k, v)| (*k, *v)));
    view.apply(
        "Open_vSwitch",
        uuid(100),
        Some(&Row::new().with(
            "external_ids",
            ids(&[
                ("system-id", "c1"),
                ("ovn-encap-ip", "10.0.0.1"),
                ("foreign", "x"),
            ]),
        )),
    );
    for (n, name, external_ids) in interfaces {
        view.apply(
            "Interface",
            uuid(*n),
            Some(
                &Row::new()
                    .with("name", *name)
                    .with("external_ids", ids(external_ids)),
            ),
        );
        view.apply(
            "Port",
            uuid(n + 1000),
            Some(&Row::new().with("name", *name).with("interfaces", uuid(*n))),
        );
    }
    let ports = interfaces.iter().map(|(n, ..)| Atom::from(uuid(n + 1000)));
    view.apply(
        "Bridge",
        uuid(1),
        Some(
            &Row::new()
                .with("name", "br-int")
                .with("ports", Datum::set(ports)),
        ),
    );
    view
}

/// One line for each operation; UUIDs shortened to their number.
fn text(ops: &[Operation]) -> String {
    let mut lines: Vec<String> = ops
        .iter()
        .map(|op| serde_json::to_string(op).unwrap())
        .collect();
    for line in &mut lines {
        *line = line.replace("00000000-0000-0000-0000-", "");
    }
    lines.join("\n")
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<SmolStr, SmolStr> {
    pairs
        .iter()
        .map(|(k, v)| (SmolStr::new(k), SmolStr::new(v)))
        .collect()
}

#[test]
fn only_keys_that_differ_are_written() {
    let view = view(&[]);
    assert_eq!(view.system_id().unwrap(), "c1");
    let same = map(&[("system-id", "c1"), ("ovn-encap-ip", "10.0.0.1")]);
    assert!(view.set_external_ids(&same).is_empty());
    let other = map(&[("system-id", "c1"), ("ovn-encap-ip", "10.0.0.2")]);
    insta::assert_snapshot!(text(&view.set_external_ids(&other)));
}

#[test]
fn a_pod_takes_the_place_of_its_stale_sandbox_in_one_transaction() {
    let view = view(&[
        (2, "old_h", &[("iface-id", "a.ns"), ("vendor", "kube-ovn")]),
        (
            3,
            "other_h",
            &[("iface-id", "b.ns"), ("vendor", "kube-ovn")],
        ),
    ]);
    let pod = PodPort {
        namespace: "ns",
        name: "a",
        netns: Some("/run/netns/x"),
    };
    let spec = PortSpec::pod("new_h", "a.ns", pod, "10.16.0.11");
    insta::assert_snapshot!(text(&view.add_port(&spec)));
}

#[test]
fn the_join_port_is_made_kept_and_put_right() {
    let plan = JoinPortPlan {
        iface_id: "node-n1".into(),
        mac: "0a:58:64:40:00:02".parse().unwrap(),
        mtu: 1400,
        ip: "100.64.0.2".into(),
    };
    let mut view = view(&[]);
    let made = text(&view.set_join_port(&plan));
    let row = |mtu: i64| {
        Row::new()
            .with("name", "ovn0")
            .with("type", "internal")
            .with("mac", "0a:58:64:40:00:02")
            .with("mtu_request", mtu)
            .with(
                "external_ids",
                Datum::map([
                    ("iface-id", "node-n1"),
                    ("ip", "100.64.0.2"),
                    ("vendor", "kube-ovn"),
                    ("ovn-installed", "true"),
                ]),
            )
    };
    view.apply("Interface", uuid(5), Some(&row(1400)));
    view.apply(
        "Port",
        uuid(6),
        Some(&Row::new().with("name", "ovn0").with("interfaces", uuid(5))),
    );
    view.apply(
        "Bridge",
        uuid(1),
        Some(
            &Row::new()
                .with("name", "br-int")
                .with("ports", Datum::set([uuid(6)])),
        ),
    );
    assert!(view.set_join_port(&plan).is_empty());
    view.apply("Interface", uuid(5), Some(&row(1500)));
    let corrected = text(&view.set_join_port(&plan));
    // Somebody moved it to another bridge.
    view.apply("Bridge", uuid(1), Some(&Row::new().with("name", "br-int")));
    view.apply(
        "Bridge",
        uuid(7),
        Some(
            &Row::new()
                .with("name", "br-x")
                .with("ports", Datum::set([uuid(6)])),
        ),
    );
    let moved = text(&view.set_join_port(&plan));
    insta::assert_snapshot!(format!("{made}\n\n{corrected}\n\n{moved}"));
}

#[test]
fn what_is_not_there_needs_no_operation() {
    let view = view(&[(2, "a_h", &[])]);
    assert!(view.del_ports(["b_h"]).is_empty());
    assert_eq!(view.del_ports(["a_h", "b_h", "a_h"]).len(), 1);
    // Without br-int nothing can be plugged in; the caller waits for it.
    let empty = OvsView::default();
    let pod = PodPort {
        namespace: "ns",
        name: "a",
        netns: None,
    };
    assert!(
        empty
            .add_port(&PortSpec::pod("a_h", "a.ns", pod, ""))
            .is_empty()
    );
}

#[test]
fn rows_come_change_and_go() {
    let mut view = view(&[(
        2,
        "a_h",
        &[
            ("iface-id", "a.ns"),
            ("vendor", "kube-ovn"),
            ("pod_name", "a"),
            ("pod_namespace", "ns"),
        ],
    )]);
    let a = view.interface("a_h").unwrap();
    assert_eq!(a.pod().unwrap().name, "a");
    assert!(!a.ovn_installed());
    // The name is taken over by a new row before the old one goes: the order within one transaction is not ours.
    let row = Row::new().with("name", "a_h").with("ofport", -1i64).with(
        "error",
        "could not open network device a_h (No such device)",
    );
    view.apply("Interface", uuid(9), Some(&row));
    assert_eq!(
        view.apply("Interface", uuid(2), None),
        Touched::Interface("a_h".into())
    );
    let new = view.interface("a_h").unwrap();
    assert_eq!(new.ofport, Some(-1));
    // Foreign ports and ports of others' pods are not ours.
    assert_eq!(new.pod(), None);
    assert_eq!(view.apply("Manager", uuid(3), None), Touched::Nothing);
}

#[test]
fn port_names_are_those_of_the_controller() {
    assert_eq!(iface_id("a", "ns", ""), "a.ns");
    assert_eq!(iface_id("a", "ns", "ovn"), "a.ns");
    assert_eq!(iface_id("a", "ns", "net1.ns.ovn"), "a.ns.net1.ns.ovn");
}
