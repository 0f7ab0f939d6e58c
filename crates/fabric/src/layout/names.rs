//! Names that OVN cannot tell apart.
//!
//! Port groups are called `<subnet>.<node>` and `node.<node>` with every `-` as `.`, as users and tools know them from
//! the Go implementation. So `a-b` and `a.b` share a name, and so do the Subnet `a` on the node `b.c` and the Subnet `a-b`
//! on the node `c`. Whoever comes second has something added to its names.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use crate::compile::names::{dotted, identifier};

/// Subnets and nodes whose plain names are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ambiguous {
    pub subnets: BTreeSet<SmolStr>,
    pub nodes: BTreeSet<SmolStr>,
}

impl Ambiguous {
    /// Looks through Subnets, the senior ones first, and nodes by name.
    pub(super) fn find<'a>(
        subnets: impl IntoIterator<Item = &'a SmolStr>,
        nodes: impl IntoIterator<Item = &'a SmolStr>,
    ) -> Self {
        let mut found = Self::default();
        let mut plain_nodes = BTreeSet::new();
        for node in nodes {
            if !plain_nodes.insert(dotted(node)) {
                found.nodes.insert(node.clone());
            }
        }
        // Whether two nodes are called `<rest>.<x>` and `<x>`.
        let split_twice = |rest: &str| {
            let prefix = format!("{rest}.");
            plain_nodes
                .range(SmolStr::new(&prefix)..)
                .take_while(|node| node.starts_with(&prefix))
                .any(|node| plain_nodes.contains(&node[prefix.len()..]))
        };
        let mut taken = BTreeSet::from([SmolStr::new_static("node")]);
        for subnet in subnets {
            let name = identifier(subnet);
            let shorter = name
                .match_indices('.')
                .any(|(dot, _)| taken.contains(&name[..dot]) && split_twice(&name[dot + 1..]));
            let prefix = format!("{name}.");
            let longer = taken
                .range(SmolStr::new(&prefix)..)
                .take_while(|other| other.starts_with(&prefix))
                .any(|other| split_twice(&other[prefix.len()..]));
            if shorter || longer || taken.contains(&name) {
                found.subnets.insert(subnet.clone());
            } else {
                taken.insert(name);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(subnets: &[&str], nodes: &[&str]) -> (Vec<String>, Vec<String>) {
        let subnets: Vec<SmolStr> = subnets.iter().map(SmolStr::new).collect();
        let nodes: Vec<SmolStr> = nodes.iter().map(SmolStr::new).collect();
        let found = Ambiguous::find(&subnets, &nodes);
        let text = |set: BTreeSet<SmolStr>| set.iter().map(ToString::to_string).collect();
        (text(found.subnets), text(found.nodes))
    }

    #[test]
    fn ordinary_names_are_their_own() {
        let (subnets, nodes) = find(
            &["ovn-default", "ovn", "test", "test-ns", "test-ns-subnet"],
            &["192.168.1.41", "192.168.1.42", "node-1", "n1"],
        );
        assert!(
            subnets.is_empty() && nodes.is_empty(),
            "{subnets:?} {nodes:?}"
        );
    }

    #[test]
    fn the_second_of_two_that_look_the_same_is_found() {
        assert_eq!(find(&["b-a", "b.a"], &["n1"]).0, ["b.a"]);
        assert_eq!(find(&["b.a", "b-a"], &["n1"]).0, ["b-a"]);
        assert_eq!(
            find(&["node"], &["n1"]).0,
            ["node"],
            "the nodes' own groups"
        );
        assert_eq!(find(&[], &["n-1", "n.1"]).1, ["n.1"]);
    }

    #[test]
    fn a_dot_may_belong_to_either_side() {
        assert_eq!(find(&["a", "a-b"], &["b.c", "c"]).0, ["a-b"]);
        assert_eq!(find(&["a-b", "a"], &["b.c", "c"]).0, ["a"]);
        assert!(find(&["a", "a-b"], &["b.c", "d"]).0.is_empty());
        assert_eq!(
            find(&["a", "a-1"], &["1.c", "c"]).0,
            ["a-1"],
            "a digit in front of a node's name changes nothing within a group's"
        );
    }
}
