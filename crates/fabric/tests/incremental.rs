//! Incremental is full: after any history of changes, the units that were compiled when they were dirty are what a World
//! filled anew with the same objects and the same ledger compiles to, in whatever order it is filled.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

use std::collections::{BTreeMap, BTreeSet};

use api::keys;
use api::v1::Subnet;
use api::view::{NamespaceView, NodeView, PodKey, PodView};
use fabric::{Change, Compiled, Config, PortLease, PortOwner, Unit, World, compile};
use net::Mac;
use ovn::RowKey;
use proptest::prelude::*;
use proptest::sample::select;
use smol_str::SmolStr;
use testkit::objects::{namespace, node, pod, subnet, vpc};

type Network = BTreeMap<Unit, Compiled>;

/// A few names, so that histories meet themselves.
const NAMES: &[&str] = &["a", "b", "node-n", "ovn-cluster-sub"];
const NODES: &[&str] = &["n1", "n-3", "n.3", "a.n1", "n.a", "ovn-cluster"];
const SWITCHES: &[&str] = &["sub-a", "sub.a", "ovn-default", "join", "sub", "node", "a"];
const CIDRS: &[&str] = &[
    "10.16.0.0/16",
    "10.17.0.0/24",
    "10.17.0.0/23",
    "10.17.0.128/25",
    "10.18.0.0/24,fd00:10:18::/120",
    "fd00:10:19::/120",
    "100.64.0.0/16",
    "10.96.0.0/16",
    "192.168.0.0/16",
    "nonsense",
    "",
];
const ADDRESSES: &[&str] = &["192.168.1.1", "192.168.1.2,fd00::2", "10.17.0.9"];

fn name() -> impl Strategy<Value = &'static str> {
    select(NAMES)
}

fn pods() -> impl Strategy<Value = Change> {
    let traits = (
        select(NODES),
        any::<[bool; 4]>(),
        select(&["Running", "Succeeded"][..]),
        select(SWITCHES),
    );
    let traits = proptest::option::weighted(0.8, traits);
    (name(), name(), traits).prop_map(|(namespace, name, traits)| {
        let key = PodKey::new(namespace, name);
        let view: Option<PodView> = traits.map(|(node, flags, phase, switch)| {
            let [scheduled, host, secure, chooses] = flags;
            let mut builder = pod(&key.to_string()).restart("Never");
            if scheduled {
                builder = builder.on(node).phase(phase);
            }
            if host {
                builder = builder.host_network();
            }
            if secure {
                builder = builder.annotate("port_security", "true");
            }
            if chooses {
                builder = builder.annotate("logical_switch", switch);
            }
            builder.view()
        });
        Change::Pod(key, view.map(Box::new))
    })
}

fn nodes() -> impl Strategy<Value = Change> {
    (
        select(NODES),
        proptest::option::weighted(0.8, select(ADDRESSES)),
    )
        .prop_map(|(name, address)| {
            let view: Option<NodeView> = address.map(|address| node(name, address).view());
            Change::Node(name.into(), view.map(Box::new))
        })
}

fn namespaces() -> impl Strategy<Value = Change> {
    let inputs = (
        proptest::option::of(select(SWITCHES)),
        proptest::option::of(select(CIDRS)),
        proptest::option::of(select(
            &["10.17.0.1..10.17.0.10", "10.17.0.9..10.17.0.1"][..],
        )),
        proptest::option::of(select(&["true", "false", "maybe"][..])),
        any::<[bool; 2]>(),
    );
    (name(), proptest::option::weighted(0.8, inputs)).prop_map(|(name, inputs)| {
        let view: Option<NamespaceView> =
            inputs.map(|(switch, cidr, excludes, private, [output, team])| {
                let mut builder = namespace(name);
                for (key, value) in [
                    ("logical_switch", switch),
                    ("cidr", cidr),
                    ("exclude_ips", excludes),
                    ("private", private),
                ] {
                    if let Some(value) = value {
                        builder = if output {
                            builder.output(key, value)
                        } else {
                            builder.annotate(key, value)
                        };
                    }
                }
                if team {
                    builder = builder.label("team", "blue");
                }
                builder.view()
            });
        Change::Namespace(name.into(), view.map(Box::new))
    })
}

fn subnets() -> impl Strategy<Value = Change> {
    let object = (
        (
            select(CIDRS),
            select(&["", "", "10.17.0.1", "10.99.0.1"][..]),
        ),
        select(&["", "", "red", "red-sub", "ovn-cluster"][..]),
        select(&["", "", "net1.default"][..]),
        proptest::collection::vec(name(), 0..2),
        proptest::option::of(name()),
        any::<[bool; 2]>(),
        0..3_u32,
    );
    (select(SWITCHES), proptest::option::weighted(0.85, object)).prop_map(|(name, object)| {
        let object: Option<Subnet> = object.map(
            |((cidr, gateway), vpc, provider, namespaces, mark, [selects, deleting], born)| {
                let mut object = subnet(name, cidr).build();
                gateway.clone_into(&mut object.spec.gateway);
                vpc.clone_into(&mut object.spec.vpc);
                provider.clone_into(&mut object.spec.provider);
                object.spec.namespaces = namespaces.iter().map(ToString::to_string).collect();
                if selects {
                    object.spec.namespace_selectors =
                        serde_json::from_str(r#"[{"matchLabels":{"team":"blue"}}]"#).unwrap();
                }
                object.metadata.uid = Some(format!("{name}-{born}"));
                let time = |text: String| serde_json::from_value(serde_json::json!(text)).unwrap();
                object.metadata.creation_timestamp =
                    Some(time(format!("2026-01-01T00:00:0{born}Z")));
                object.metadata.deletion_timestamp =
                    deleting.then(|| time("2026-01-02T00:00:00Z".into()));
                object.metadata.labels = mark
                    .map(|mark| [(keys::SUBNET_FROM_NAMESPACE.to_owned(), mark.to_owned())].into());
                object
            },
        );
        Change::Subnet(name.into(), object.map(Box::new))
    })
}

fn vpcs() -> impl Strategy<Value = Change> {
    let object = (select(SWITCHES), proptest::option::of(name()));
    (
        select(&["red", "red-sub", "ovn-cluster"][..]),
        proptest::option::of(object),
    )
        .prop_map(|(name, object)| {
            let object = object.map(|(default_subnet, namespace)| {
                let mut object = vpc(name);
                default_subnet.clone_into(&mut object.spec.default_subnet);
                object.spec.namespaces = namespace.iter().map(ToString::to_string).collect();
                Box::new(object)
            });
            Change::Vpc(name.into(), object)
        })
}

fn leases() -> impl Strategy<Value = Change> {
    let lease = |owner: PortOwner, port: SmolStr| {
        (select(SWITCHES), 2..250_u8, any::<bool>(), any::<bool>()).prop_map(
            move |(subnet, last, dual, held)| {
                let lease = PortLease {
                    subnet: subnet.into(),
                    addresses: if dual {
                        format!("10.17.0.{last},fd00:10:18::{last:x}")
                    } else {
                        format!("10.17.0.{last}")
                    }
                    .parse()
                    .unwrap(),
                    mac: Mac::local_from(port.as_bytes()),
                    owner: owner.clone(),
                };
                Change::Lease(port.clone(), held.then_some(lease))
            },
        )
    };
    let of_pods = (name(), name()).prop_flat_map(move |(namespace, name)| {
        let key = PodKey::new(namespace, name);
        let port = key.port_name();
        lease(PortOwner::Pod(key), port)
    });
    let of_nodes =
        (select(NODES), 2..250_u8, proptest::bool::weighted(0.8)).prop_map(|(node, last, held)| {
            let port = api::view::node_port_name(node);
            let lease = PortLease {
                subnet: "join".into(),
                addresses: format!("100.64.0.{last},fd00:100:64::{last:x}")
                    .parse()
                    .unwrap(),
                mac: Mac::local_from(port.as_bytes()),
                owner: PortOwner::Node(node.into()),
            };
            Change::Lease(port, held.then_some(lease))
        });
    prop_oneof![3 => of_pods, 1 => of_nodes]
}

fn configs() -> impl Strategy<Value = Change> {
    let choices = (any::<[bool; 2]>(), select(&["sub-a", "ovn-default"][..]));
    choices.prop_map(|([dns, dual], default)| {
        let mut config = Config::default();
        if dual {
            config.default_subnet.cidrs = "10.16.0.0/16,fd00:10:16::/112".parse().unwrap();
            config.join.cidrs = "100.64.0.0/16,fd00:100:64::/112".parse().unwrap();
        }
        if dns {
            config.node_local_dns = vec!["169.254.20.10".parse().unwrap()];
        }
        config.default_subnet.name = default.into();
        Change::Config(Box::new(config))
    })
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => pods(),
        2 => nodes(),
        4 => namespaces(),
        5 => subnets(),
        1 => vpcs(),
        5 => leases(),
        1 => configs(),
    ]
}

/// What the last change of each object left.
fn outcome(changes: &[Change]) -> Vec<Change> {
    let mut last: BTreeMap<String, Change> = BTreeMap::new();
    for change in changes {
        let key = match change {
            Change::Config(_) => "config".to_owned(),
            Change::Pod(key, _) => format!("pod {key}"),
            Change::Node(name, _) => format!("node {name}"),
            Change::Namespace(name, _) => format!("namespace {name}"),
            Change::Subnet(name, _) => format!("subnet {name}"),
            Change::Vpc(name, _) => format!("vpc {name}"),
            Change::Lease(name, _) => format!("lease {name}"),
            Change::Accepted(name, _) => format!("accepted {name}"),
        };
        last.insert(key, change.clone());
    }
    last.into_values().collect()
}

fn recompile(network: &mut Network, units: impl IntoIterator<Item = Unit>, world: &World) {
    for unit in units {
        let compiled = compile(&unit, world);
        if compiled.is_empty() {
            network.remove(&unit);
        } else {
            network.insert(unit, compiled);
        }
    }
}

fn full(world: &World) -> Network {
    let mut network = Network::new();
    recompile(&mut network, world.units(), world);
    network
}

/// A World filled with the outcome, and with the ledger of another.
fn refill(outcome: impl IntoIterator<Item = Change>, ledger: &World) -> World {
    let mut world = World::new(Config::default());
    for change in outcome {
        world.apply(change);
    }
    for (name, accepted) in ledger.accepted() {
        world.apply(Change::Accepted(
            name.clone(),
            Some(Box::new(accepted.clone())),
        ));
    }
    world
}

fn assert_same(left: &Network, right: &Network) {
    let units: BTreeSet<&Unit> = left.keys().chain(right.keys()).collect();
    for unit in units {
        assert_eq!(left.get(unit), right.get(unit), "{unit}");
    }
}

/// No row is stated twice, and every contribution has the row that it goes to.
fn assert_sound(network: &Network) {
    let mut rows: BTreeSet<&RowKey> = BTreeSet::new();
    for (unit, compiled) in network {
        for (key, _) in &compiled.fragment.rows {
            assert!(rows.insert(key), "{unit} states {key} once more");
        }
        assert!(compiled.fragment.undeclared_ids().is_empty(), "{unit}");
    }
    for (unit, compiled) in network {
        for member in &compiled.fragment.members {
            assert!(
                rows.contains(&member.parent),
                "{unit}: {member} has no parent"
            );
        }
    }
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|text| text.parse().ok()).unwrap_or(192),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn incremental_is_full(
        history in proptest::collection::vec((changes(), proptest::bool::weighted(0.7)), 1..60),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(Config::default());
        let mut network = full(&world);
        for (change, settles) in &history {
            let mut dirty: BTreeSet<Unit> = world.apply(change.clone()).into_iter().collect();
            if *settles {
                dirty.extend(world.settle());
            }
            recompile(&mut network, dirty, &world);
            assert_same(&network, &full(&world));
            assert_sound(&network);
        }

        // A World filled anew, in another order, comes to the same.
        let changes: Vec<Change> = history.iter().map(|(change, _)| change.clone()).collect();
        let mut outcome = outcome(&changes);
        let mut state = seed | 1;
        for i in (1..outcome.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            outcome.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
        }
        let again = refill(outcome.clone(), &world);
        assert_same(&network, &full(&again));

        // So does one that is filled all at once.
        let mut at_once = World::new(Config::default());
        at_once.apply_all(outcome.into_iter().chain(world.accepted().iter().map(|(name, accepted)| {
            Change::Accepted(name.clone(), Some(Box::new(accepted.clone())))
        })));
        assert_same(&network, &full(&at_once));
    }

    /// Once settled, nothing is left to settle, and settling changed no row.
    #[test]
    fn settling_ends_and_changes_no_row(
        history in proptest::collection::vec(changes(), 1..40),
    ) {
        let mut world = World::new(Config::default());
        world.apply_all(history);
        world.settle();
        let before = full(&world);
        prop_assert_eq!(world.settle(), vec![]);
        assert_same(&before, &full(&world));
        let mut replayed = world.clone();
        replayed.apply_all([]);
        assert_same(&before, &full(&replayed));
    }

    /// Changes survive being recorded.
    #[test]
    fn a_recorded_change_replays(change in changes()) {
        let text = serde_json::to_string(&change).unwrap();
        prop_assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
    }
}
