//! Settings of the whole OVN, and the objects that a cluster always has.

use api::keys;
use api::v1::{Subnet, SubnetSpec, Vpc, VpcSpec};
use net::DualStack;
use ovn::{Fragment, nb};
use smol_str::SmolStr;

use super::Compiled;
use crate::spec::{defaults, join};
use crate::{KubeState, World};

pub(super) fn compile(world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    options(world, &mut compiled.fragment);
    let config = world.config();
    if world.vpc(&config.cluster_router).is_none() {
        let mut vpc = Vpc::new(&config.cluster_router, VpcSpec::default());
        vpc.metadata.finalizers = Some(vec![keys::FINALIZER.to_owned()]);
        compiled.desired.push(KubeState::CreateVpc(Box::new(vpc)));
    }
    let own = &config.default_subnet;
    if world.subnet_record(&own.name).is_none() {
        compiled.desired.push(create(
            world,
            &own.name,
            &SubnetSpec {
                default: true,
                cidr_block: own.cidrs.to_string(),
                gateway: text(&own.gateways),
                exclude_ips: own.exclude_ips.iter().map(ToString::to_string).collect(),
                nat_outgoing: true,
                disable_gateway_check: own.disable_gateway_check,
                ..SubnetSpec::default()
            },
        ));
    }
    if world.subnet_record(&config.join.name).is_none() {
        compiled.desired.push(create(
            world,
            &config.join.name,
            &SubnetSpec {
                cidr_block: config.join.cidrs.to_string(),
                gateway: text(&config.join.gateways),
                disable_inter_connection: true,
                ..SubnetSpec::default()
            },
        ));
    }
    compiled
}

fn text<T: std::fmt::Display>(pair: &DualStack<T>) -> String {
    pair.to_string()
}

fn create(world: &World, name: &SmolStr, spec: &SubnetSpec) -> KubeState {
    let spec = defaults(name, spec, world.config());
    let mut subnet = Subnet::new(name, spec);
    subnet.metadata.finalizers = Some(vec![keys::FINALIZER.to_owned()]);
    KubeState::CreateSubnet(Box::new(subnet))
}

fn options(world: &World, fragment: &mut Fragment) {
    let config = world.config();
    let mut options = ovn::map([
        ("ls_dnat_mod_dl_dst", flag(config.ls_dnat_mod_dl_dst)),
        (
            "ls_ct_skip_dst_lport_ips",
            flag(config.ls_ct_skip_dst_lport_ips),
        ),
        // Matching on ct.inv drops what conntrack saw in one direction only, such as replies through another gateway.
        ("use_ct_inv_match", "false"),
    ]);
    if !config.node_local_dns.is_empty() {
        options.insert(
            SmolStr::new_static("node_local_dns_ip"),
            join(&config.node_local_dns).into(),
        );
    }
    fragment.row(nb::NbGlobal {
        options,
        ..Default::default()
    });
}

const fn flag(on: bool) -> &'static str {
    if on { keys::TRUE } else { keys::FALSE }
}
