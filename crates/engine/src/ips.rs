//! IP resources: the one write that brings a record to where its port needs it.

use api::keys;
use fabric::PortOwner;
use serde_json::json;

use crate::Engine;
use crate::effect::{KubeWrite, Part};
use crate::event::{Object, ObjectKey};
use crate::objects::patch;
use crate::ports::PortState;
use crate::writes::Purpose;

impl Engine {
    pub(crate) fn reconcile_ip(&self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let name = &key.name;
        let state = self.ports.get(name)?.state;
        let Some(record) = self.ledger.get(name) else {
            if state != PortState::Persisting {
                return None;
            }
            let ip = self.ip_resource(name, &self.owner_of(name)?)?;
            return Some((Purpose::Create, KubeWrite::Create(Object::Ip(Box::new(ip)))));
        };
        let ip = &record.ip;
        if ip.deleting {
            // Its rows are gone, or its owner lives and gets a new record under the same name.
            let may_go = matches!(state, PortState::Forgetting | PortState::Persisting);
            if !may_go || !ip.finalizer {
                return None;
            }
            let mut metadata = self.precondition(key)?;
            // Nobody else puts finalizers on these objects.
            metadata.insert("finalizers".into(), json!([]));
            return Some((
                Purpose::Unfinalize,
                patch(key, Part::Main, json!({ "metadata": metadata })),
            ));
        }
        if state == PortState::Forgetting {
            let seen = self.watches.seen(key)?;
            let delete = KubeWrite::Delete {
                key: key.clone(),
                uid: seen.uid.clone(),
                resource_version: Some(seen.version.clone()),
            };
            return Some((Purpose::Delete, delete));
        }
        self.repair_ip(key)
    }

    /// A record whose port lives says where the pod is, and what the allocator says.
    fn repair_ip(&self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let name = &key.name;
        let ip = &self.ledger.get(name)?.ip;
        let owner = self.owner_of(name)?;
        let lease = self.ipam.lease(name)?;
        let wanted = self.ip_resource(name, &owner)?;
        let pod = match &owner {
            PortOwner::Pod(key) => Some(key),
            PortOwner::Node(_) => None,
        };
        let is_right = ip.finalizer
            && ip.subnet == lease.subnet
            && ip.addresses == lease.addresses
            && ip.mac == Some(lease.mac)
            && ip.pod.as_ref() == pod
            && ip.node.as_deref().unwrap_or_default() == wanted.spec.node_name
            && ip.owner.as_deref() == owner_uid(&wanted);
        if is_right {
            return None;
        }
        let spec = &wanted.spec;
        let mut metadata = self.precondition(key)?;
        let mut labels = wanted.metadata.labels.clone().unwrap_or_default();
        if ip.reserved {
            labels.insert(keys::IP_RESERVED.to_owned(), keys::TRUE.to_owned());
        }
        metadata.insert("labels".into(), json!(labels));
        if let Some(owners) = &wanted.metadata.owner_references {
            metadata.insert("ownerReferences".into(), json!(owners));
        }
        if !ip.finalizer {
            metadata.insert("finalizers".into(), json!([keys::FINALIZER]));
        }
        let body = json!({
            "metadata": metadata,
            "spec": {
                "podName": spec.pod_name,
                "namespace": spec.namespace,
                "subnet": spec.subnet,
                "nodeName": spec.node_name,
                "ipAddress": spec.ip_address,
                "v4IpAddress": spec.v4_ip_address,
                "v6IpAddress": spec.v6_ip_address,
                "macAddress": spec.mac_address,
            },
        });
        Some((Purpose::Patch, patch(key, Part::Main, body)))
    }
}

/// The uid of the node that the record goes with. A node of the same name that is made anew is another owner.
fn owner_uid(ip: &api::v1::Ip) -> Option<&str> {
    let owners = ip.metadata.owner_references.as_ref()?;
    owners.first().map(|owner| owner.uid.as_str())
}
