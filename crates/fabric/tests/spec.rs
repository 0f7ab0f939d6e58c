//! Whatever a user writes into a Subnet: no panic, an answer, and defaults that settle at once.

use api::v1::SubnetSpec;
use fabric::Config;
use fabric::spec::{defaults, resolve};
use proptest::prelude::*;
use proptest::sample::select;

const WORDS: &[&str] = &[
    "",
    " ",
    ",",
    "..",
    "/",
    "10.17.0.0/24",
    "10.17.0.9/24",
    "10.17.0.0/31",
    "10.17.0.0/33",
    "0.0.0.0/0",
    "::/0",
    "fd00:10:17::/120",
    "FD00:10:17::/120",
    "::ffff:10.17.0.0/120",
    "10.17.0.0/24,fd00:10:17::/120",
    "fd00:10:17::/120,10.17.0.0/24",
    "10.17.0.0/24,10.18.0.0/24",
    "10.17.0.1",
    "10.17.0.255",
    "10.17.0.1,fd00:10:17::1",
    "fd00:10:17::ffff",
    "10.17.0.1..10.17.0.10",
    "10.17.0.10..10.17.0.1",
    "10.17.0.1..fd00:10:17::1",
    "a..b",
    "distributed",
    "IPv4",
    "Dual",
    "Mac",
    "ovn",
    "x.y",
    "blue",
    "join",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => select(WORDS).prop_map(str::to_owned),
        1 => "[0-9a-f:./, -]{0,20}",
        1 => any::<String>(),
    ]
}

fn spec() -> impl Strategy<Value = SubnetSpec> {
    // Most fields are empty as a rule: with all of them wrong, little is looked at.
    let rare = || prop_oneof![4 => Just(String::new()), 1 => word()];
    let texts = (word(), rare(), rare(), rare(), rare(), rare());
    let lists = (
        proptest::collection::vec(word(), 0..2),
        proptest::collection::vec(word(), 0..2),
        proptest::collection::vec(word(), 0..2),
    );
    (texts, lists, prop_oneof![Just(0), any::<u32>()]).prop_map(
        |(
            (cidr_block, gateway, protocol, provider, vpc, gateway_type),
            (exclude_ips, allow_subnets, vips),
            mtu,
        )| {
            SubnetSpec {
                cidr_block,
                gateway,
                protocol,
                provider,
                vpc,
                gateway_type,
                exclude_ips,
                allow_subnets,
                vips,
                mtu,
                ..SubnetSpec::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_spec_has_an_answer(spec in spec(), name in select(&["blue", "join", "ovn-default"][..])) {
        let config = Config::default();
        let filled = defaults(name, &spec, &config);
        prop_assert_eq!(&defaults(name, &filled, &config), &filled, "defaults settle at once");
        match resolve(name, &spec, &config) {
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(errors.iter().all(|error| !error.is_empty()));
            }
            Ok(effective) => {
                prop_assert!(!effective.cidrs.is_empty());
                for cidr in effective.cidrs {
                    let gateway = effective.gateways.get(cidr.family()).copied();
                    prop_assert!(gateway.is_some_and(|gateway| cidr.usable().contains(gateway)));
                    prop_assert!(effective.excludes.iter().any(|range| gateway.is_some_and(|gateway| range.contains(gateway))));
                }
                for pair in effective.excludes.windows(2) {
                    prop_assert!(pair[0] < pair[1] && !pair[0].overlaps(pair[1]));
                }
                prop_assert_eq!(resolve(name, &filled, &config), Ok(effective), "defaults change nothing");
            }
        }
    }
}
