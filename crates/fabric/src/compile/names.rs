//! Names of rows. Users and tools know them, so they are the Go implementation's.

use net::Mac;
use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};

use crate::{Effective, World};

/// A name that OVN takes for a port group: no `-`, and no digit in front (ovn-nb(5), "names of address sets").
pub(crate) fn identifier(name: &str) -> SmolStr {
    let mut text = SmolStrBuilder::new();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        text.push('_');
    }
    text.push_str(&dotted(name));
    text.finish()
}

/// How a name stands within that of a port group.
pub(crate) fn dotted(name: &str) -> SmolStr {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars()
        .map(|c| if plain(c) { c } else { '.' })
        .collect()
}

/// Port group of all pods of the default VPC on a node.
pub fn node_group(world: &World, node: &str) -> SmolStr {
    let taken = world.layout().ambiguous.nodes.contains(node);
    group(&format_smolstr!("node-{node}"), taken.then_some(("", node)))
}

/// Port group of the pods of a distributed subnet on a node.
pub fn gateway_group(world: &World, subnet: &str, node: &str) -> SmolStr {
    let ambiguous = &world.layout().ambiguous;
    let taken = ambiguous.subnets.contains(subnet) || ambiguous.nodes.contains(node);
    group(
        &format_smolstr!("{subnet}.{node}"),
        taken.then_some((subnet, node)),
    )
}

/// The plain name, or one with a hash of its parts where another has the plain one. The parts, and not the name: the
/// Subnet `a.b` on the node `c` and the Subnet `a` on the node `b.c` differ in them alone.
fn group(name: &str, parts: Option<(&str, &str)>) -> SmolStr {
    let plain = identifier(name);
    let Some((subnet, node)) = parts else {
        return plain;
    };
    let mut text = SmolStrBuilder::new();
    text.push_str(&plain);
    text.push('_');
    for octet in Mac::local_from(format!("{subnet}/{node}").as_bytes()).octets() {
        text.push_str(&format_smolstr!("{octet:02x}"));
    }
    text.finish()
}

/// The router's port towards a switch.
pub fn router_port(router: &str, switch: &str) -> SmolStr {
    format_smolstr!("{router}-{switch}")
}

/// The switch's port towards the router.
pub fn switch_port(switch: &str, router: &str) -> SmolStr {
    format_smolstr!("{switch}-{router}")
}

/// MAC of a subnet's gateway: the same in every life of the databases, another one in every cluster.
pub fn gateway_mac(world: &World, subnet: &Effective) -> Mac {
    let adopted = world
        .subnet_record(&subnet.name)
        .and_then(|record| record.gateway_mac);
    adopted.unwrap_or_else(|| {
        let port = router_port(&subnet.vpc, &subnet.name);
        Mac::local_from(format!("{}/lrp/{port}", world.config().cluster_uid).as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_upstreams_names() {
        assert_eq!(group("node-node-0", None), "node.node.0");
        assert_eq!(group("node-192.168.1.41", None), "node.192.168.1.41");
        assert_eq!(group("ovn-default.node-0", None), "ovn.default.node.0");
    }

    #[test]
    fn a_name_that_is_taken_gets_a_hash() {
        let taken = |subnet, node| group(&format!("{subnet}.{node}"), Some((subnet, node)));
        assert_ne!(taken("a-b", "n"), taken("a.b", "n"));
        assert_ne!(taken("a.b", "n"), taken("a", "b.n"));
        assert_ne!(taken("a-b", "n"), group("a-b.n", None));
        assert!(ovn::matching::identifier(&taken("a-b", "n")).is_ok());
    }

    #[test]
    fn a_digit_in_front_would_make_the_match_invalid() {
        assert_eq!(group("10net.n1", None), "_10net.n1");
        assert!(ovn::matching::identifier(&group("10net.n1", None)).is_ok());
    }
}
