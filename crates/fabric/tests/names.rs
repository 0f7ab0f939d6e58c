//! However objects are called: no two rows of OVN have one name, and who is left out is told.
//!
//! Histories of all kinds of changes rarely come to two objects that could share a name (`incremental.rs`); here nearly
//! all do.

#![allow(clippy::unwrap_used, reason = "for tests alone")]

use std::collections::{BTreeMap, BTreeSet};

use api::view::{PodKey, node_port_name};
use fabric::{Change, Compiled, Config, PortLease, PortOwner, Unit, World, compile};
use net::Mac;
use ovn::nb;
use proptest::prelude::*;
use proptest::sample::select;
use smol_str::SmolStr;
use testkit::objects::{namespace, node, pod, subnet, vpc};

/// Pieces that fit together in several ways, joined by one of `-` and `.`.
const PIECES: &[&str] = &["a", "b", "1", "node", "ovn-cluster"];
const VPCS: &[&str] = &["a", "a-a", "a-b", "b", "node", "node-a", "node-1.a"];
const NAMESPACES: &[&str] = &["a", "b", "1", "a-b", "a-ovn-cluster", "b-a", "a-a"];

fn names(most: usize) -> impl Strategy<Value = Vec<String>> {
    let name = proptest::collection::vec((select(PIECES), select(&["-", "."][..])), 1..4).prop_map(
        |pieces| {
            let mut name = String::new();
            for (n, (piece, glue)) in pieces.into_iter().enumerate() {
                if n > 0 {
                    name.push_str(glue);
                }
                name.push_str(piece);
            }
            name
        },
    );
    proptest::collection::btree_set(name, 1..most).prop_map(|names| names.into_iter().collect())
}

fn put_pod(key: &PodKey, node: &str, subnet: &str, n: usize) -> [Change; 2] {
    let view = pod(&key.to_string()).on(node).view();
    let lease = PortLease {
        subnet: subnet.into(),
        addresses: format!("10.20.0.{}", n + 2).parse().unwrap(),
        mac: Mac::local_from(key.to_string().as_bytes()),
        owner: PortOwner::Pod(key.clone()),
    };
    [
        Change::Pod(key.clone(), Some(Box::new(view))),
        Change::Lease(key.port_name(), Some(lease)),
    ]
}

fn put_node(name: &str, n: usize) -> [Change; 2] {
    let view = node(name, &format!("192.168.1.{}", n + 1)).view();
    let port = node_port_name(name);
    let lease = PortLease {
        subnet: "join".into(),
        addresses: format!("100.64.0.{}", n + 2).parse().unwrap(),
        mac: Mac::local_from(port.as_bytes()),
        owner: PortOwner::Node(name.into()),
    };
    [
        Change::Node(name.into(), Some(Box::new(view))),
        Change::Lease(port, Some(lease)),
    ]
}

/// Names that must be unique, with the kind of name that they are.
fn assert_unique(network: &BTreeMap<Unit, Compiled>) {
    let mut taken: BTreeMap<(&str, &SmolStr), &Unit> = BTreeMap::new();
    for (unit, compiled) in network {
        for (key, _) in &compiled.fragment.rows {
            // A port of a switch and one of a router are both a Port_Binding of the southbound database.
            let space = match key.table {
                nb::LogicalSwitchPort::TABLE | nb::LogicalRouterPort::TABLE => "port",
                nb::PortGroup::TABLE => "group",
                nb::LogicalSwitch::TABLE => "switch",
                nb::LogicalRouter::TABLE => "router",
                _ => continue,
            };
            let other = taken.insert((space, &key.name), unit);
            assert_eq!(other, None, "{unit} and another have a {space} {key}");
        }
    }
}

fn is_told(network: &BTreeMap<Unit, Compiled>, unit: &Unit) -> bool {
    !network[unit].problems.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_rows_have_one_name(
        subnets in names(7),
        nodes in names(5),
        homes in proptest::collection::vec(proptest::option::weighted(0.5, select(VPCS)), 7),
        chasing in any::<[bool; 7]>(),
        pods in proptest::collection::vec((names(2), select(NAMESPACES)), 1..4),
        nodes_first in any::<bool>(),
    ) {
        let mut changes = vec![Change::Subnet(
            "join".into(),
            Some(Box::new(subnet("join", "100.64.0.0/16").build())),
        )];
        for name in VPCS {
            changes.push(Change::Vpc((*name).into(), Some(Box::new(vpc(name)))));
        }
        for name in NAMESPACES {
            changes.push(Change::Namespace((*name).into(), Some(Box::new(namespace(name).view()))));
        }
        let mut keys: BTreeSet<PodKey> =
            pods.iter().map(|(name, space)| PodKey::new(*space, name[0].as_str())).collect();
        let mut nodes: BTreeSet<String> = nodes.into_iter().collect();
        let mut put_subnets = Vec::new();
        for (n, name) in subnets.iter().enumerate() {
            let mut object = subnet(name, &format!("10.{}.0.0/24", 20 + n)).build();
            let home = homes[n].unwrap_or("ovn-cluster");
            home.clone_into(&mut object.spec.vpc);
            // Objects that go for the names of this one's ports.
            for port in [format!("{home}-{name}"), format!("{name}-{home}")] {
                if chasing[n] {
                    nodes.extend(port.strip_prefix("node-").map(ToOwned::to_owned));
                }
                let pod = port.rsplit_once('.');
                keys.extend(pod.map(|(pod, space)| PodKey::new(space, pod)));
            }
            put_subnets.push(Change::Subnet(name.as_str().into(), Some(Box::new(object))));
        }
        let put_nodes: Vec<Change> = nodes.iter().enumerate().flat_map(|(n, name)| put_node(name, n)).collect();
        let (first, then) = if nodes_first { (put_nodes, put_subnets) } else { (put_subnets, put_nodes) };

        let mut world = World::new(Config::default());
        world.apply_all(changes.into_iter().chain(first));
        world.settle();
        world.apply_all(then);
        world.settle();
        let host = nodes.first().unwrap();
        for (n, key) in keys.iter().enumerate() {
            let [pod, lease] = put_pod(key, host, &subnets[0], n);
            world.apply(pod);
            if world.wants_port(key) {
                world.apply(lease);
            }
        }
        let network: BTreeMap<Unit, Compiled> = world
            .units()
            .into_iter()
            .map(|unit| {
                let compiled = compile(&unit, &world);
                (unit, compiled)
            })
            .collect();
        assert_unique(&network);
        for name in &subnets {
            let there = world.subnet(name).is_some();
            prop_assert!(there || is_told(&network, &Unit::Subnet(name.into())), "{name}");
        }
        for name in &nodes {
            let unit = Unit::Node(name.into());
            let has_port = network[&unit].fragment.rows.iter().any(|(key, _)| key.name == node_port_name(name));
            prop_assert!(has_port || is_told(&network, &unit), "{name}");
        }
        for key in &keys {
            prop_assert!(world.wants_port(key) || world.candidates(key).is_err(), "{key}");
        }
    }
}

/// Whoever waits for a name is told when it is free, and whoever loses it when it is taken.
#[test]
fn a_name_that_changes_hands_makes_both_dirty() {
    let mut world = World::new(Config::default());
    let put = |name: &str, cidr: &str| {
        Change::Subnet(name.into(), Some(Box::new(subnet(name, cidr).build())))
    };
    let key = PodKey::new("b", "ovn-cluster-a");
    world.apply_all([put("home", "10.20.0.0/24"), put("join", "100.64.0.0/16")]);
    world.apply_all(put_node("n1", 0));
    world.apply_all(put_pod(&key, "n1", "home", 0));
    let port = Unit::Port(key.port_name());
    assert!(!compile(&port, &world).fragment.is_empty());

    let dirty = world.apply(put("a.b", "10.21.0.0/24"));
    assert!(dirty.contains(&port), "{dirty:?}");
    assert!(compile(&port, &world).fragment.is_empty());
    assert!(world.candidates(&key).is_err());

    let dirty = world.apply(Change::Subnet("a.b".into(), None));
    assert!(dirty.contains(&port), "{dirty:?}");
    assert!(!compile(&port, &world).fragment.is_empty());
}
