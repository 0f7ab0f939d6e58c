//! What units want.

use ovn::{Fragment, Ref, nb};

pub fn switch(i: u8) -> Ref<nb::LogicalSwitch> {
    nb::LogicalSwitch::named(format!("s{i}"))
}

pub fn router() -> Ref<nb::LogicalRouter> {
    nb::LogicalRouter::named("ovn-cluster")
}

pub fn vpc(options: u8) -> Fragment {
    let mut f = Fragment::new("Vpc/ovn-cluster");
    let router = f.row(nb::LogicalRouter {
        name: "ovn-cluster".into(),
        options: ovn::map([("age", options.to_string())]),
        ..Default::default()
    });
    f.row(nb::NbGlobal {
        options: ovn::map([("use_ct_inv_match", "false")]),
        ..Default::default()
    });
    f.rule("default route").child(
        &router,
        nb::LogicalRouter::STATIC_ROUTES,
        nb::LogicalRouterStaticRoute {
            ip_prefix: "0.0.0.0/0".into(),
            nexthop: format!("100.64.0.{options}").into(),
            ..Default::default()
        },
    );
    f
}

/// A switch with its router port, a policy, two ACLs, a group of services and DHCP.
pub fn subnet(i: u8, variant: u8) -> Fragment {
    let mut f = Fragment::new(format!("Subnet/s{i}"));
    let switch = f.rule("switch").row(nb::LogicalSwitch {
        name: format!("s{i}").into(),
        other_config: ovn::map([("mcast_snoop", variant.is_multiple_of(2).to_string())]),
        ..Default::default()
    });
    f.rule("router port").child(
        &router(),
        nb::LogicalRouter::PORTS,
        nb::LogicalRouterPort {
            name: format!("ovn-cluster-s{i}").into(),
            mac: "00:00:00:00:00:01".into(),
            networks: ovn::set((0..=variant % 3).map(|n| format!("10.{i}.{n}.1/24"))),
            ..Default::default()
        },
    );
    f.rule("policy").child(
        &router(),
        nb::LogicalRouter::POLICIES,
        nb::LogicalRouterPolicy {
            priority: 31000,
            r#match: format!("ip4.dst == 10.{i}.{variant}.0/24").into(),
            action: nb::LogicalRouterPolicyAction::Allow,
            ..Default::default()
        },
    );
    for priority in 0..variant % 4 {
        f.rule("acl").child(
            &switch,
            nb::LogicalSwitch::ACLS,
            nb::Acl {
                priority: i64::from(priority),
                r#match: "ip".into(),
                name: Some(format!("v{variant}").into()),
                ..Default::default()
            },
        );
    }
    if variant > 3 {
        f.rule("dhcp").row(nb::DhcpOptions {
            cidr: format!("10.{i}.0.0/24").into(),
            external_ids: ovn::map([("ls", format!("s{i}").as_str()), ("protocol", "IPv4")]),
            ..Default::default()
        });
        let group = f.rule("services").row(nb::LoadBalancerGroup {
            name: format!("lbg{i}").into(),
        });
        f.member(&switch, nb::LogicalSwitch::LOAD_BALANCER_GROUP, &group);
    }
    f
}

pub fn group(i: u8) -> Ref<nb::PortGroup> {
    nb::PortGroup::named(format!("g{i}"))
}

pub fn port(i: u8, subnet: u8, address: u8, groups: u8) -> Fragment {
    let mut f = Fragment::new(format!("Pod/ns/p{i}"));
    let dhcp = Ref::<nb::DhcpOptions>::new(format!("s{subnet} - IPv4"));
    let port = f.rule("port").child(
        &switch(subnet),
        nb::LogicalSwitch::PORTS,
        nb::LogicalSwitchPort {
            name: format!("p{i}.ns").into(),
            addresses: ovn::set([format!(
                "00:00:00:00:00:{address:02} 10.{subnet}.0.{address}"
            )]),
            dhcpv4_options: (groups & 8 != 0).then_some(dhcp),
            external_ids: ovn::map([("pod", format!("ns/p{i}"))]),
            ..Default::default()
        },
    );
    for g in 0..3 {
        if groups & (1 << g) != 0 {
            f.member(&group(g), nb::PortGroup::PORTS, &port);
        }
    }
    f
}

/// A policy: group, ACLs, address set; and a service on a shared load balancer.
pub fn policy(i: u8, rules: u8, addresses: u8) -> Fragment {
    let mut f = Fragment::new(format!("NetworkPolicy/ns/g{i}"));
    let group = f.row(nb::PortGroup {
        name: format!("g{i}").into(),
        ..Default::default()
    });
    let set = f.row(nb::AddressSet {
        name: format!("as{i}").into(),
        ..Default::default()
    });
    for address in 0..addresses {
        f.member(&set, nb::AddressSet::ADDRESSES, format!("10.0.0.{address}"));
    }
    for rule in 0..rules % 4 {
        f.rule("rule").child(
            &group,
            nb::PortGroup::ACLS,
            nb::Acl {
                priority: 2001,
                r#match: format!("outport == @g{i} && ip4.src == $as{rule}").into(),
                action: nb::AclAction::AllowRelated,
                tier: i64::from(rules % 3),
                ..Default::default()
            },
        );
    }
    if rules > 3 {
        let meter = f.rule("log").row(nb::Meter {
            name: format!("m{i}").into(),
            ..Default::default()
        });
        f.child(
            &meter,
            nb::Meter::BANDS,
            nb::MeterBand {
                rate: i64::from(rules),
                ..Default::default()
            },
        );
    }
    f
}

pub fn service(i: u8, vips: u8) -> Fragment {
    let mut f = Fragment::new(format!("Service/ns/v{i}"));
    let lb = nb::LoadBalancer::named("lb");
    if i == 0 {
        f.row(nb::LoadBalancer {
            name: "lb".into(),
            ..Default::default()
        });
    }
    for vip in 0..vips % 4 {
        f.entry(
            &lb,
            nb::LoadBalancer::VIPS,
            // Two services may want one address.
            format!("10.96.0.{}:80", vip + i / 2),
            format!("10.0.0.{vips}:80"),
        );
    }
    f
}
