//! Namespaces and Subnets: who asks for which, and who decides.
//!
//! Up to v0.5 a namespace's annotations *made* a switch; since v0.6 a Subnet is a resource of its own and the
//! annotations only *tell* which one a namespace has. Both are understood:
//!
//! * A namespace that names a switch which no Subnet describes gets one made from its annotations. It carries the label
//!   [`keys::SUBNET_FROM_NAMESPACE`] (the mark). While the mark stands, the namespace decides about `private`, `allow`,
//!   `gateway_type`, `gateway_node`, `gateway_nat` and `exclude_ips`; a hand edit of those on the Subnet is put back.
//! * A namespace that names an existing Subnet joins it. A Subnet without the mark is never rewritten by a namespace.
//! * What a controller wrote is never an input: keys that only the controller's field manager owns, values that equal what
//!   we last published ([`PUBLISHED`], which also survives a backup and restore, where field managers change), and, for
//!   clusters of older releases, annotations that list several subnets (`logical_switch: a,b`, `cidr: x;y`).

use std::collections::BTreeMap;

use api::keys;
use api::v1::SubnetSpec;
use api::view::NamespaceView;
use net::{Cidr, DualStack, IpRange, parse_ranges};
use smol_str::SmolStr;

use crate::spec::{Effective, join, merge};

/// Annotation of a namespace: the annotations that we last wrote into it, as JSON. Keys are without their prefix.
pub const PUBLISHED: &str = "ovn.kubernetes.io/published";

/// What a namespace asks for by its annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The switch that it names.
    pub switch: Option<SmolStr>,
    /// The other annotations that a user set, by key.
    values: BTreeMap<&'static str, SmolStr>,
}

impl Inputs {
    /// The user's words in a namespace.
    pub fn of(namespace: &NamespaceView) -> Self {
        let published = namespace
            .annotations
            .get(PUBLISHED)
            .map(|text| published_values(text))
            .unwrap_or_default();
        let is_ours = |key: &str, value: &str| {
            namespace.output_keys.contains(key)
                || published.get(key).is_some_and(|written| written == value)
        };
        let mut inputs = Self::default();
        for (key, value) in namespace.inputs() {
            if is_ours(key, value) {
                continue;
            }
            if key == keys::LOGICAL_SWITCH {
                inputs.switch = Some(value.trim().into()).filter(|name: &SmolStr| !name.is_empty());
            } else {
                inputs.values.insert(key, value.trim().into());
            }
        }
        // These three speak of the same subnets: if one whose writer is not known is a list, a controller wrote them all.
        // A list of our own says nothing about the others, which a user may just have changed.
        let lists = |key: &str, separator| {
            namespace
                .annotations
                .get(key)
                .is_some_and(|value| value.contains(separator) && !is_ours(key, value))
        };
        if lists(keys::LOGICAL_SWITCH, ',')
            || lists(keys::CIDR, ';')
            || lists(keys::EXCLUDE_IPS, ';')
        {
            inputs.switch = None;
            inputs.values.remove(keys::CIDR);
            inputs.values.remove(keys::EXCLUDE_IPS);
        }
        inputs
    }

    /// Whether the namespace asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.switch.is_none() && self.values.is_empty()
    }

    /// Whether the user set this annotation.
    pub fn has(&self, key: &str) -> bool {
        if key == keys::LOGICAL_SWITCH {
            self.switch.is_some()
        } else {
            self.values.contains_key(key)
        }
    }

    /// The annotation's value, if it was set and is not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(key)
            .map(SmolStr::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The keys that were set, without the switch.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    fn flag(&self, key: &str, unset: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(unset),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!(
                "annotation {key} is {other:?}, but must be \"true\" or \"false\""
            )),
        }
    }

    fn list(&self, key: &str) -> Vec<String> {
        self.get(key)
            .into_iter()
            .flat_map(|text| text.split(','))
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    }

    /// Puts the values that a namespace decides about into a marked Subnet's spec.
    ///
    /// For the namespace that the Subnet was made for, what is not annotated has its default. When that one is gone, the
    /// next one changes what it speaks of, and the rest stays: a private switch does not open because its founder left.
    pub fn overlay(&self, spec: &mut SubnetSpec, founder: bool) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let mut flag = |key, value: &mut bool, unset| {
            if !founder && self.get(key).is_none() {
                return;
            }
            *value = self.flag(key, unset).unwrap_or_else(|error| {
                errors.push(error);
                unset
            });
        };
        flag(keys::PRIVATE, &mut spec.private, false);
        flag(keys::GATEWAY_NAT, &mut spec.nat_outgoing, true);
        let speaks = |key| founder || self.get(key).is_some();
        if speaks(keys::ALLOW) {
            spec.allow_subnets = self.list(keys::ALLOW);
        }
        if speaks(keys::EXCLUDE_IPS) {
            spec.exclude_ips = self.list(keys::EXCLUDE_IPS);
        }
        if speaks(keys::GATEWAY_TYPE) {
            let gateway_type = self.get(keys::GATEWAY_TYPE).unwrap_or("distributed");
            gateway_type.clone_into(&mut spec.gateway_type);
        }
        if speaks(keys::GATEWAY_NODE) {
            let gateway_node = self.get(keys::GATEWAY_NODE).unwrap_or_default();
            gateway_node.clone_into(&mut spec.gateway_node);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// The spec of a Subnet made from these annotations, without defaults.
    pub fn make(&self, namespaces: &[SmolStr]) -> Result<SubnetSpec, Vec<String>> {
        let mut spec = SubnetSpec {
            cidr_block: self.get(keys::CIDR).unwrap_or_default().to_owned(),
            gateway: self.get(keys::GATEWAY).unwrap_or_default().to_owned(),
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
            ..SubnetSpec::default()
        };
        self.overlay(&mut spec, true)?;
        Ok(spec)
    }

    /// What these annotations say otherwise than a switch that exists, one phrase for each: an annotation that is not
    /// obeyed must not look as if it were. `live` says whether to compare the values that a namespace may decide about.
    pub fn differences(&self, subnet: &Effective, spec: &SubnetSpec, live: bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut differs = |key: &str, same: bool, has: String| {
            if !same {
                let says = self.get(key).unwrap_or_default();
                found.push(format!("{key} says {says:?}, the switch has {has:?}"));
            }
        };
        if let Some(text) = self.get(keys::CIDR) {
            let same = text.parse::<DualStack<Cidr>>().ok() == Some(subnet.cidrs);
            differs(keys::CIDR, same, subnet.cidrs.to_string());
        }
        if let Some(text) = self.get(keys::GATEWAY) {
            let same = text
                .parse::<DualStack<std::net::IpAddr>>()
                .is_ok_and(|wanted| {
                    wanted
                        .by_family()
                        .all(|(family, gateway)| subnet.gateways.get(family) == Some(gateway))
                });
            differs(keys::GATEWAY, same, subnet.gateways.to_string());
        }
        if !live {
            return found;
        }
        if let Some(text) = self.get(keys::EXCLUDE_IPS) {
            let same = parse_ranges(text).is_ok_and(|ranges| {
                merge(
                    ranges
                        .into_iter()
                        .chain(subnet.gateways.map(IpRange::single)),
                ) == subnet.excludes
            });
            differs(keys::EXCLUDE_IPS, same, subnet.excludes_text());
        }
        if self.get(keys::ALLOW).is_some() {
            let mut wanted: Vec<Option<Cidr>> = self
                .list(keys::ALLOW)
                .iter()
                .map(|text| text.parse().ok())
                .collect();
            wanted.sort_unstable();
            wanted.dedup();
            let same = wanted == subnet.allow.iter().copied().map(Some).collect::<Vec<_>>();
            differs(keys::ALLOW, same, join(&subnet.allow));
        }
        if let Some(text) = self.get(keys::GATEWAY_TYPE) {
            let has = subnet.gateway_type.as_str();
            differs(keys::GATEWAY_TYPE, text == has, has.to_owned());
        }
        if let Some(text) = self.get(keys::GATEWAY_NODE) {
            differs(
                keys::GATEWAY_NODE,
                text == spec.gateway_node,
                spec.gateway_node.clone(),
            );
        }
        for (key, has) in [
            (keys::PRIVATE, subnet.private),
            (keys::GATEWAY_NAT, subnet.nat_outgoing),
        ] {
            if let Some(text) = self.get(key) {
                differs(key, text == has.to_string(), has.to_string());
            }
        }
        found
    }
}

/// The fields of a spec that a namespace decides about while the mark stands.
pub(crate) fn live_fields(spec: &SubnetSpec) -> impl PartialEq + '_ {
    (
        spec.private,
        &spec.allow_subnets,
        &spec.gateway_type,
        &spec.gateway_node,
        spec.nat_outgoing,
        &spec.exclude_ips,
    )
}

/// Reads [`PUBLISHED`]; nonsense counts as nothing.
fn published_values(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str::<BTreeMap<String, String>>(text)
        .unwrap_or_default()
        .into_iter()
        .map(|(suffix, value)| (format!("{}{suffix}", keys::PREFIX), value))
        .collect()
}

/// The value of [`PUBLISHED`] for these annotations.
pub(crate) fn published_text<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let values: BTreeMap<&str, &str> = annotations
        .into_iter()
        .map(|(key, value)| (key.strip_prefix(keys::PREFIX).unwrap_or(key), value))
        .collect();
    serde_json::to_string(&values).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::spec::resolve;

    fn namespace(annotations: &[(&str, &str)], outputs: &[&str]) -> NamespaceView {
        NamespaceView {
            name: "test-ns".into(),
            uid: "u".into(),
            resource_version: "1".into(),
            labels: BTreeMap::new(),
            annotations: annotations
                .iter()
                .map(|(key, value)| (SmolStr::new(key), SmolStr::new(value)))
                .collect(),
            output_keys: outputs.iter().map(|key| SmolStr::new(*key)).collect(),
            deleting: false,
        }
    }

    #[test]
    fn what_a_controller_wrote_is_no_input() {
        let inputs = Inputs::of(&namespace(
            &[
                (keys::LOGICAL_SWITCH, "blue"),
                (keys::EXCLUDE_IPS, "10.17.0.1"),
                (keys::PRIVATE, "true"),
                (
                    PUBLISHED,
                    r#"{"exclude_ips":"10.17.0.1","logical_switch":"red"}"#,
                ),
            ],
            &[keys::PRIVATE],
        ));
        assert_eq!(
            inputs.switch.as_deref(),
            Some("blue"),
            "published red, the user says blue"
        );
        assert!(!inputs.has(keys::EXCLUDE_IPS), "as published");
        assert!(!inputs.has(keys::PRIVATE), "the controller's field");
    }

    #[test]
    fn one_list_of_an_unknown_writer_says_it_of_all_three() {
        for list in [
            (keys::LOGICAL_SWITCH, "blue,red"),
            (keys::CIDR, "10.17.0.0/24;10.18.0.0/24"),
            (keys::EXCLUDE_IPS, "10.17.0.1;10.18.0.1"),
        ] {
            let mut annotations = BTreeMap::from([
                (keys::LOGICAL_SWITCH, "blue"),
                (keys::CIDR, "10.17.0.0/24"),
                (keys::EXCLUDE_IPS, "10.17.0.1"),
            ]);
            annotations.extend([list]);
            let annotations: Vec<_> = annotations.into_iter().collect();
            let inputs = Inputs::of(&namespace(&annotations, &[]));
            assert!(inputs.is_empty(), "{list:?}: {inputs:?}");
        }
    }

    #[test]
    fn lists_of_subnets_are_outputs_of_older_releases() {
        let several = namespace(
            &[
                (keys::LOGICAL_SWITCH, "blue,red"),
                (keys::CIDR, "10.17.0.0/24;10.18.0.0/24"),
                (keys::EXCLUDE_IPS, "10.17.0.1;10.18.0.1"),
                (keys::PRIVATE, "true"),
            ],
            &[],
        );
        let inputs = Inputs::of(&several);
        assert_eq!(inputs.switch, None);
        assert_eq!(inputs.keys().collect::<Vec<_>>(), [keys::PRIVATE]);
        let mut chosen = several.annotations;
        chosen.insert(keys::LOGICAL_SWITCH.into(), "blue".into());
        let told = [keys::CIDR, keys::EXCLUDE_IPS].map(SmolStr::new);
        let chosen = NamespaceView {
            annotations: chosen,
            output_keys: told.into(),
            ..namespace(&[], &[])
        };
        assert_eq!(
            Inputs::of(&chosen).switch.as_deref(),
            Some("blue"),
            "what we told a namespace about its two subnets does not keep it from choosing one"
        );
        let ranges = namespace(
            &[(keys::EXCLUDE_IPS, "10.17.0.1,10.17.0.5..10.17.0.9")],
            &[],
        );
        assert!(
            Inputs::of(&ranges).has(keys::EXCLUDE_IPS),
            "a list of addresses is not one of subnets"
        );
    }

    #[test]
    fn published_values_come_back() {
        let text = published_text([(keys::CIDR, "10.17.0.0/24"), (keys::LOGICAL_SWITCH, "blue")]);
        assert_eq!(text, r#"{"cidr":"10.17.0.0/24","logical_switch":"blue"}"#);
        assert_eq!(published_values(&text)[keys::LOGICAL_SWITCH], "blue");
        assert!(published_values("nonsense").is_empty());
    }

    #[test]
    fn the_seeds_namespace_makes_its_subnet() {
        let inputs = Inputs::of(&namespace(
            &[
                (keys::CIDR, "10.17.0.0/24"),
                (keys::GATEWAY, "10.17.0.1"),
                (keys::LOGICAL_SWITCH, "test-ns-subnet"),
                (keys::EXCLUDE_IPS, "10.17.0.1..10.17.0.10"),
            ],
            &[],
        ));
        let spec = inputs.make(&["test-ns".into()]).unwrap();
        assert_eq!(spec.cidr_block, "10.17.0.0/24");
        assert_eq!(spec.exclude_ips, ["10.17.0.1..10.17.0.10"]);
        assert_eq!(spec.namespaces, ["test-ns"]);
        assert!(spec.nat_outgoing && !spec.private);
    }

    #[test]
    fn nonsense_in_a_switch_like_annotation_is_an_error() {
        let inputs = Inputs::of(&namespace(&[(keys::PRIVATE, "yes")], &[]));
        let errors = inputs
            .overlay(&mut SubnetSpec::default(), true)
            .unwrap_err();
        assert!(
            errors[0].contains("private") && errors[0].contains("yes"),
            "{errors:?}"
        );
    }

    #[test]
    fn disagreement_is_told_with_both_values() {
        let config = Config::default();
        let spec = SubnetSpec {
            cidr_block: "10.17.0.0/24".into(),
            exclude_ips: vec!["10.17.0.1..10.17.0.10".into()],
            nat_outgoing: true,
            ..SubnetSpec::default()
        };
        let effective = resolve("blue", &spec, &config).unwrap();
        let same = Inputs::of(&namespace(
            &[
                (keys::CIDR, "10.17.0.5/24"),
                (
                    keys::EXCLUDE_IPS,
                    "10.17.0.2..10.17.0.10,10.17.0.1..10.17.0.3",
                ),
                (keys::GATEWAY, "10.17.0.1"),
                (keys::GATEWAY_NAT, ""),
            ],
            &[],
        ));
        assert_eq!(same.differences(&effective, &spec, true), [""; 0]);
        let other = Inputs::of(&namespace(
            &[
                (keys::CIDR, "10.18.0.0/24"),
                (keys::PRIVATE, "true"),
                (keys::ALLOW, "10.16.0.0/16"),
            ],
            &[],
        ));
        let found = other.differences(&effective, &spec, true);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("10.18.0.0/24") && found[0].contains("10.17.0.0/24"));
        assert_eq!(other.differences(&effective, &spec, false).len(), 1);
    }
}
