//! What the World keeps of each kind of object: the parts that the network depends on.

use api::keys;
use api::v1::{Subnet, SubnetSpec, Vpc, VpcSpec, VpcStatus};
use api::view::NamespaceView;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use net::Mac;
use smol_str::SmolStr;

use crate::binding::{Inputs, live_fields};
use crate::{Accepted, Shared};

/// Annotation of a Subnet: the MAC of its router port, if it is not the one that follows from its name. A cluster that
/// was adopted keeps the MACs that its pods have in their neighbour tables.
pub const GATEWAY_MAC: &str = "ovn.kubernetes.io/gateway_mac";

/// A Subnet resource.
#[derive(Clone, Debug, PartialEq)]
pub struct SubnetRecord {
    pub uid: SmolStr,
    /// Seconds since 1970.
    pub created: i64,
    pub deleting: bool,
    /// As the object has it.
    pub spec: Shared<SubnetSpec>,
    /// Somebody changed what a namespace may decide about: the controller writes the spec and its annotation together.
    pub edited: bool,
    /// The namespace that it was made for ([`keys::SUBNET_FROM_NAMESPACE`]).
    pub mark: Option<SmolStr>,
    /// The last good spec, as its annotation has it.
    pub accepted: Option<Accepted>,
    /// The router port's MAC, where one was adopted from an older installation ([`GATEWAY_MAC`]).
    pub gateway_mac: Option<Mac>,
}

impl SubnetRecord {
    pub(crate) fn of(subnet: &Subnet) -> Self {
        let meta = &subnet.metadata;
        let label = |key| meta.labels.as_ref().and_then(|labels| labels.get(key));
        let annotation = |key| {
            meta.annotations
                .as_ref()
                .and_then(|annotations| annotations.get(key))
        };
        let uid: SmolStr = meta.uid.as_deref().unwrap_or_default().into();
        let accepted: Option<Accepted> =
            annotation(Accepted::ANNOTATION).and_then(|text| serde_json::from_str(text).ok());
        let accepted = accepted.filter(|accepted| accepted.uid == uid);
        let edited = accepted
            .as_ref()
            .is_some_and(|accepted| live_fields(&accepted.spec) != live_fields(&subnet.spec));
        Self {
            uid,
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            deleting: meta.deletion_timestamp.is_some(),
            spec: Shared::new(subnet.spec.clone()),
            edited,
            mark: label(keys::SUBNET_FROM_NAMESPACE).map(SmolStr::new),
            accepted,
            gateway_mac: annotation(GATEWAY_MAC).and_then(|text| text.parse().ok()),
        }
    }
}

/// A Vpc resource.
#[derive(Clone, Debug, PartialEq)]
pub struct VpcRecord {
    pub uid: SmolStr,
    pub deleting: bool,
    pub default_subnet: SmolStr,
    pub namespaces: Vec<SmolStr>,
    pub spec: VpcSpec,
    /// What the object says now; the parts of it that are not ours are written back as they are.
    pub status: VpcStatus,
}

impl VpcRecord {
    pub(crate) fn of(vpc: &Vpc) -> Self {
        Self {
            uid: vpc.metadata.uid.as_deref().unwrap_or_default().into(),
            deleting: vpc.metadata.deletion_timestamp.is_some(),
            default_subnet: vpc.spec.default_subnet.as_str().into(),
            namespaces: vpc.spec.namespaces.iter().map(SmolStr::new).collect(),
            spec: vpc.spec.clone(),
            status: vpc.status.clone().unwrap_or_default(),
        }
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceRecord {
    pub view: NamespaceView,
    /// What its owner asks for.
    pub inputs: Inputs,
}

impl NamespaceRecord {
    pub(crate) fn of(view: NamespaceView) -> Self {
        let inputs = Inputs::of(&view);
        Self { view, inputs }
    }

    /// Whether a selector of a Subnet or Vpc chooses the namespace. An empty selector chooses all, as in Kubernetes.
    pub(crate) fn matches(&self, selector: &LabelSelector) -> bool {
        let label = |key: &str| self.view.labels.get(key).map(SmolStr::as_str);
        let equal = selector
            .match_labels
            .iter()
            .flatten()
            .all(|(key, value)| label(key) == Some(value));
        equal
            && selector.match_expressions.iter().flatten().all(|rule| {
                let one_of = |value: &str| {
                    rule.values
                        .iter()
                        .flatten()
                        .any(|candidate| candidate == value)
                };
                match rule.operator.as_str() {
                    "In" => label(&rule.key).is_some_and(one_of),
                    "NotIn" => !label(&rule.key).is_some_and(one_of),
                    "Exists" => label(&rule.key).is_some(),
                    "DoesNotExist" => label(&rule.key).is_none(),
                    _ => false,
                }
            })
    }
}
