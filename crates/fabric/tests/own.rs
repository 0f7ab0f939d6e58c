//! The cluster's own Subnets keep their addresses, whatever becomes of the objects and whoever waits for their end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

use api::view::PodKey;
use fabric::{Change, Config, PortLease, PortOwner, World};
use net::{Cidr, DualStack, Mac};
use proptest::prelude::*;
use proptest::sample::select;
use testkit::objects::{namespace, subnet};

const DEFAULT: &str = "10.16.0.0/16";
const JOIN: &str = "100.64.0.0/16";
const OTHERS: &[&str] = &["a", "b", "c"];

fn object(name: &str, cidr: &str, deleting: bool, born: u32) -> Change {
    let mut object = subnet(name, cidr).build();
    let time = |text: String| serde_json::from_value(serde_json::json!(text)).unwrap();
    object.metadata.uid = Some(format!("{name}-{born}"));
    object.metadata.creation_timestamp = Some(time(format!("2026-01-01T00:00:0{born}Z")));
    object.metadata.deletion_timestamp = deleting.then(|| time("2026-01-02T00:00:00Z".into()));
    Change::Subnet(name.into(), Some(Box::new(object)))
}

/// The own Subnets come, are deleted and go; nobody edits them.
fn own() -> impl Strategy<Value = Change> {
    let which = select(&[("ovn-default", DEFAULT), ("join", JOIN)][..]);
    (which, 0..3_u32, 0..3_u32).prop_map(|((name, cidr), state, born)| match state {
        0 => Change::Subnet(name.into(), None),
        state => object(name, cidr, state == 1, born),
    })
}

/// Others would like to have those addresses, or have some of their own.
fn others() -> impl Strategy<Value = Change> {
    let cidrs = select(
        &[
            "10.16.3.0/24",
            "100.64.0.0/24",
            "10.30.0.0/24",
            "10.0.0.0/8",
        ][..],
    );
    (select(OTHERS), proptest::option::of(cidrs), 0..3_u32).prop_map(
        |(name, cidr, born)| match cidr {
            Some(cidr) => object(name, cidr, false, born),
            None => Change::Subnet(name.into(), None),
        },
    )
}

fn namespaces() -> impl Strategy<Value = Change> {
    (select(OTHERS), any::<bool>()).prop_map(|(name, there)| {
        let view = there.then(|| {
            let wish = namespace(name).annotate("logical_switch", name);
            Box::new(wish.annotate("cidr", "10.16.4.0/24").view())
        });
        Change::Namespace(name.into(), view)
    })
}

/// Addresses of the own Subnets are in use, or not.
fn leases() -> impl Strategy<Value = Change> {
    (select(&["ovn-default", "join"][..]), any::<bool>()).prop_map(|(subnet, held)| {
        let key = PodKey::new("default", subnet);
        let lease = held.then(|| PortLease {
            subnet: subnet.into(),
            addresses: "10.16.0.2".parse().unwrap(),
            mac: Mac::local_from(subnet.as_bytes()),
            owner: PortOwner::Pod(key.clone()),
        });
        Change::Lease(key.port_name(), lease)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_gets_the_addresses_of_the_clusters_own_subnets(
        history in proptest::collection::vec(
            prop_oneof![3 => own(), 3 => others(), 1 => namespaces(), 2 => leases()],
            1..40,
        ),
    ) {
        let mut world = World::new(Config::default());
        let reserved: [Cidr; 2] = [DEFAULT.parse().unwrap(), JOIN.parse().unwrap()];
        let overlaps = |cidrs: &DualStack<Cidr>| {
            cidrs.iter().any(|cidr| reserved.iter().any(|block| block.overlaps(*cidr)))
        };
        for change in history {
            world.apply(change);
            world.settle();
            for other in OTHERS {
                if let Some(subnet) = world.subnet(other) {
                    prop_assert!(!overlaps(&subnet.cidrs), "{other} has {}", subnet.cidrs);
                }
                for (name, spec) in world.namespace_state(other).iter().flat_map(|s| &s.create) {
                    prop_assert!(
                        !overlaps(&spec.cidr_block.parse().unwrap()),
                        "{name} is about to be made with {}", spec.cidr_block
                    );
                }
            }
            for own in ["ovn-default", "join"] {
                let there = world.subnet_record(own).is_some_and(|record| !record.deleting);
                prop_assert_eq!(world.subnet(own).is_some(), there || world.subnet_record(own).is_some() && world.is_occupied(own), "{}", own);
            }
        }
    }
}

/// A join Subnet that is new has its place before a default Subnet that wants to move there.
#[test]
fn the_own_subnets_do_not_push_each_other_out() {
    let mut world = World::new(Config::default());
    world.apply(object("ovn-default", DEFAULT, false, 0));
    world.settle();
    world.apply_all([
        object("ovn-default", "100.64.0.0/12", false, 0),
        object("join", JOIN, false, 1),
    ]);
    world.settle();
    assert_eq!(world.subnet("join").unwrap().cidrs.to_string(), JOIN);
    assert_eq!(
        world.subnet("ovn-default").unwrap().cidrs.to_string(),
        DEFAULT
    );
    let state = world.subnet_state("ovn-default").unwrap();
    assert_eq!(state.refused.as_ref().unwrap().reason, "CidrConflict");
}

/// While an own Subnet with other addresses than the settings' is on its way out, both are kept: it may come back with
/// either, made by its user or by the controller.
#[test]
fn an_own_subnet_may_come_back_as_it_was_or_as_the_settings_have_it() {
    let mut world = World::new(Config::default());
    world.apply(object("ovn-default", "10.50.0.0/16", false, 0));
    world.settle();
    world.apply_all([
        object("ovn-default", "10.50.0.0/16", true, 0),
        object("a", "10.50.3.0/24", false, 1),
        object("b", "10.16.3.0/24", false, 1),
        object("c", "10.51.0.0/24", false, 1),
    ]);
    world.settle();
    let in_force = |name| world.subnet(name).is_some();
    assert_eq!(
        ["ovn-default", "a", "b", "c"].map(in_force),
        [false, false, false, true]
    );
}

/// A Subnet that was accepted elsewhere does not get ahead of an own one that is new.
#[test]
fn an_own_subnet_that_is_new_goes_before_old_ones_that_want_to_move() {
    let mut world = World::new(Config::default());
    world.apply(object("a", "10.30.0.0/24", false, 0));
    world.settle();
    world.apply_all([
        object("a", "10.16.3.0/24", false, 0),
        object("ovn-default", DEFAULT, false, 1),
    ]);
    world.settle();
    let has = |name| world.subnet(name).unwrap().cidrs.to_string();
    assert_eq!([has("ovn-default"), has("a")], [DEFAULT, "10.30.0.0/24"]);
}

/// What was running before the flags said otherwise runs on, and the cluster's own Subnet says what is in its way.
#[test]
fn what_runs_is_not_taken_away_for_an_own_subnet() {
    let mut world = World::new(Config::default());
    world.apply(object("ovn-default", "10.50.0.0/16", false, 0));
    world.apply(object("a", "10.16.3.0/24", false, 1));
    world.settle();
    world.apply(Change::Subnet("ovn-default".into(), None));
    world.settle();
    let state = world.subnet_state("a").unwrap();
    assert!(
        state.in_force.is_some() && state.refused.is_none(),
        "{state:?}"
    );
    world.apply(object("ovn-default", DEFAULT, false, 2));
    world.settle();
    assert!(world.subnet("a").is_some());
    let state = world.subnet_state("ovn-default").unwrap();
    let refused = state.refused.as_ref().unwrap();
    assert!(
        refused.message.contains(r#"10.16.3.0/24 of Subnet "a""#),
        "{refused}"
    );
}
