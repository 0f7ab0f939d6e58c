//! What a namespace is told about its Subnets, and the Subnets that it asks for.

use api::keys;
use api::v1::Subnet;
use smol_str::SmolStr;

use super::Compiled;
use crate::binding::{PUBLISHED, published_text};
use crate::spec::join;
use crate::{Effective, KubeState, Patch, World};

pub(super) fn compile(name: &SmolStr, world: &World) -> Compiled {
    let mut compiled = Compiled::default();
    let (Some(record), Some(state)) = (world.namespace_record(name), world.namespace_state(name))
    else {
        return compiled;
    };
    compiled.problems.extend(state.problems.iter().cloned());
    if record.view.deleting {
        return compiled;
    }
    for (switch, spec) in &state.create {
        let mut subnet = Subnet::new(switch, spec.clone());
        subnet.metadata.finalizers = Some(vec![keys::FINALIZER.to_owned()]);
        let mark = (keys::SUBNET_FROM_NAMESPACE.to_owned(), name.to_string());
        subnet.metadata.labels = Some([mark].into());
        compiled
            .desired
            .push(KubeState::CreateSubnet(Box::new(subnet)));
    }
    let subnets: Vec<&Effective> = state
        .subnets
        .iter()
        .filter_map(|subnet| world.subnet(subnet))
        .collect();
    // While nothing is in force, what was said before stays: a namespace is not told that it lost its Subnet because
    // the Subnet was not looked at yet.
    if subnets.is_empty() {
        return compiled;
    }
    let mut annotations = Patch::new();
    let outputs = [
        (keys::LOGICAL_SWITCH, join(&names(&subnets))),
        (
            keys::CIDR,
            each(&subnets, |subnet| subnet.cidrs.to_string()),
        ),
        (keys::EXCLUDE_IPS, each(&subnets, Effective::excludes_text)),
    ];
    let mut published = Vec::new();
    for (key, value) in &outputs {
        // The user's words stay the user's.
        if !record.inputs.has(key) {
            annotations.insert(SmolStr::new_static(key), Some(value.into()));
            published.push((*key, value.as_str()));
        }
    }
    let published = (!published.is_empty()).then(|| published_text(published).into());
    annotations.insert(SmolStr::new_static(PUBLISHED), published);
    compiled.desired.push(KubeState::Namespace {
        name: name.clone(),
        annotations,
    });
    compiled
}

fn names(subnets: &[&Effective]) -> Vec<SmolStr> {
    subnets.iter().map(|subnet| subnet.name.clone()).collect()
}

/// Values of several subnets: a dual-stack CIDR and a list of exclusions have commas of their own.
fn each(subnets: &[&Effective], value: impl Fn(&Effective) -> String) -> String {
    let values: Vec<String> = subnets.iter().map(|subnet| value(subnet)).collect();
    values.join(";")
}
