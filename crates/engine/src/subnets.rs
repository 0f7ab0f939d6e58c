//! Subnets and Vpcs: creation, defaults, finalizers, and a status that is written at most once a second.

use std::collections::BTreeMap;

use api::keys;
use api::v1::{Condition, ConditionStatus, Subnet, SubnetStatus, condition_type, set_condition};
use fabric::record::GATEWAY_MAC;
use fabric::{Patch, SubnetWrites, Unit};
use ipam::SubnetPool;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use crate::Engine;
use crate::effect::{KubeWrite, Part};
use crate::event::{Kind, ObjectKey};
use crate::lease::signed;
use crate::objects::{merge_diff, patch};
use crate::writes::Purpose;

impl Engine {
    pub(crate) fn reconcile_subnet(&mut self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let unit = Unit::Subnet(key.name.clone());
        let is_in = self.nb.is_synced() && !self.dirty.contains(&unit) && self.nb.is_clean(&unit);
        let Some(subnet) = self.subnets.get(&key.name) else {
            return self.creation(key);
        };
        let writes = self.states.subnets.get(&key.name)?;
        if !is_in {
            // Its end is reported as a change of the database, and brings the object back here.
            self.after_nb.insert(key.clone());
        }
        if subnet.metadata.deletion_timestamp.is_some() {
            if !writes.finalizer && is_in && has_finalizer(&subnet.metadata) {
                let metadata = self.with_finalizer(key, &subnet.metadata, false)?;
                return Some((
                    Purpose::Unfinalize,
                    patch(key, Part::Main, json!({ "metadata": metadata })),
                ));
            }
        } else if writes.delete {
            let seen = self.watches.seen(key)?;
            let delete = KubeWrite::Delete {
                key: key.clone(),
                uid: seen.uid.clone(),
                resource_version: Some(seen.version.clone()),
            };
            return Some((Purpose::Delete, delete));
        } else if let Some(body) = self.subnet_patch(key, subnet, writes) {
            return Some((Purpose::Patch, patch(key, Part::Main, body)));
        }
        let status = self.subnet_status(subnet, writes, is_in);
        let held = json!(subnet.status.as_ref().unwrap_or(&SubnetStatus::default()));
        let wanted = json!(status);
        if subnet.status.is_none() {
            // A first status is written whole, zeros included: tools print them.
            self.status_write(key, &wanted)
        } else {
            let diff = merge_diff(&held, &wanted)?;
            self.status_write(key, &diff)
        }
    }

    pub(crate) fn reconcile_vpc(&mut self, key: &ObjectKey) -> Option<(Purpose, KubeWrite)> {
        let unit = Unit::Vpc(key.name.clone());
        let is_in = self.nb.is_synced() && !self.dirty.contains(&unit) && self.nb.is_clean(&unit);
        let Some(vpc) = self.vpcs.get(&key.name) else {
            return self.creation(key);
        };
        let writes = self.states.vpcs.get(&key.name)?;
        if !is_in {
            self.after_nb.insert(key.clone());
        }
        let deleting = vpc.metadata.deletion_timestamp.is_some();
        if deleting && !writes.finalizer && is_in && has_finalizer(&vpc.metadata) {
            let metadata = self.with_finalizer(key, &vpc.metadata, false)?;
            return Some((
                Purpose::Unfinalize,
                patch(key, Part::Main, json!({ "metadata": metadata })),
            ));
        }
        if !deleting && writes.finalizer && !is_finalized(&vpc.metadata) {
            let metadata = self.with_finalizer(key, &vpc.metadata, true)?;
            return Some((
                Purpose::Patch,
                patch(key, Part::Main, json!({ "metadata": metadata })),
            ));
        }
        let held = vpc.status.clone().unwrap_or_default();
        let mut status = writes.status.clone();
        // "standby" is upstream's word for a router that exists.
        status.standby = status.standby && (is_in || held.standby);
        status.conditions = merge_conditions(
            &held.conditions,
            &writes.status.conditions,
            &writes.status.conditions,
            self.now,
        );
        let body = if vpc.status.is_none() {
            json!(status)
        } else {
            merge_diff(&json!(held), &json!(status))?
        };
        self.status_write(key, &body)
    }

    /// Metadata and spec of a living Subnet.
    pub(crate) fn subnet_patch(
        &self,
        key: &ObjectKey,
        subnet: &Subnet,
        writes: &SubnetWrites,
    ) -> Option<Value> {
        let empty = BTreeMap::new();
        let meta = &subnet.metadata;
        let held = meta.annotations.as_ref().unwrap_or(&empty);
        let mut annotations = text_diff(&writes.annotations, held);
        if let Some(mac) = self.adopting.get(&writes.name) {
            annotations
                .get_or_insert_default()
                .insert(GATEWAY_MAC.to_owned(), mac.to_string().into());
        }
        let spec = merge_diff(&json!(subnet.spec), &json!(writes.spec));
        let lacks_finalizer = writes.finalizer && !is_finalized(meta);
        if annotations.is_none() && spec.is_none() && !lacks_finalizer {
            return None;
        }
        let mut metadata = if lacks_finalizer {
            self.with_finalizer(key, meta, true)?
        } else {
            self.precondition(key)?
        };
        if let Some(annotations) = annotations {
            metadata.insert("annotations".into(), annotations.into());
        }
        let mut body = json!({ "metadata": metadata });
        if let Some(spec) = spec {
            body["spec"] = spec;
        }
        Some(body)
    }

    /// What the status should say: figures from the allocator, conditions from the compiler and the database.
    fn subnet_status(&self, subnet: &Subnet, writes: &SubnetWrites, is_in: bool) -> SubnetStatus {
        let mut status = subnet.status.clone().unwrap_or_default();
        let counters = self.ipam.counters(&writes.name);
        let ranges = self.ipam.ranges(&writes.name);
        let figures = |family| {
            let count = counters.get(family).copied().unwrap_or_default();
            let text = ranges
                .get(family)
                .map(|r| (r.available.to_string(), r.using.to_string()));
            (
                count.available.into(),
                count.using.into(),
                text.unwrap_or_default(),
            )
        };
        let (available, using, (available_text, using_text)) = figures(net::Family::V4);
        status.v4_available_ips = available;
        status.v4_using_ips = using;
        status.v4_available_ip_range = available_text;
        status.v4_using_ip_range = using_text;
        let (available, using, (available_text, using_text)) = figures(net::Family::V6);
        status.v6_available_ips = available;
        status.v6_using_ips = using;
        status.v6_available_ip_range = available_text;
        status.v6_using_ip_range = using_text;

        let mut wanted = writes.conditions.clone();
        let unit = Unit::Subnet(writes.name.clone());
        if let Some(why) = self.nb.parked(&unit) {
            wanted.retain(|c| c.kind != condition_type::READY);
            wanted.push(Condition::new(
                condition_type::READY,
                false,
                "NorthboundRefused",
                why,
            ));
        } else if !is_in {
            // `Ready` speaks of the network, not of the wish: it becomes true when the database has acknowledged.
            wanted.retain(|c| c.kind != condition_type::READY || c.status != ConditionStatus::True);
        }
        status.conditions =
            merge_conditions(&status.conditions, &wanted, &writes.conditions, self.now);
        status
    }

    /// A status write, or none before its time has come.
    fn status_write(&mut self, key: &ObjectKey, status: &Value) -> Option<(Purpose, KubeWrite)> {
        if let Some(last) = self.status_at.get(key) {
            let due = last
                .saturating_add(signed(self.config.status_interval))
                .unwrap_or(self.now);
            if due > self.now {
                self.later.set(key.clone(), due);
                return None;
            }
        }
        self.later.cancel(key);
        let metadata = self.precondition(key)?;
        self.status_at.insert(key.clone(), self.now);
        Some((
            Purpose::Status,
            patch(
                key,
                Part::Status,
                json!({ "metadata": metadata, "status": status }),
            ),
        ))
    }

    fn with_finalizer(
        &self,
        key: &ObjectKey,
        meta: &ObjectMeta,
        present: bool,
    ) -> Option<Map<String, Value>> {
        let mut list: Vec<&str> = meta
            .finalizers
            .iter()
            .flatten()
            .map(String::as_str)
            .filter(|f| *f != keys::FINALIZER && *f != keys::FINALIZER_OLD)
            .collect();
        if present {
            list.push(keys::FINALIZER);
        }
        let mut metadata = self.precondition(key)?;
        metadata.insert("finalizers".into(), json!(list));
        Some(metadata)
    }

    /// The allocator follows the spec in force.
    pub(crate) fn sync_pool(&mut self, name: &SmolStr) {
        let Some(effective) = self.world.subnet(name) else {
            if self.ipam.pool(name).is_some() {
                self.ipam.remove_subnet(name);
                self.wake_waiting();
            }
            return;
        };
        let pool = SubnetPool {
            cidrs: effective.cidrs,
            excludes: effective.excludes.clone(),
            gateways: effective.gateways,
            gateway_mac: self.world.gateway_mac(name),
        };
        if self.ipam.pool(name) != Some(&pool) {
            self.ipam.set_subnet(name.clone(), pool);
            self.place_again();
            self.wake_waiting();
            self.touch(ObjectKey::cluster(Kind::Subnet, name.clone()));
        }
    }
}

fn has_finalizer(meta: &ObjectMeta) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|f| f == keys::FINALIZER || f == keys::FINALIZER_OLD)
}

/// Whether our finalizer is there, in today's spelling.
fn is_finalized(meta: &ObjectMeta) -> bool {
    let has = |name| meta.finalizers.iter().flatten().any(|f| f == name);
    has(keys::FINALIZER) && !has(keys::FINALIZER_OLD)
}

fn text_diff(wanted: &Patch, held: &BTreeMap<String, String>) -> Option<Map<String, Value>> {
    let map: Map<String, Value> = wanted
        .iter()
        .filter(|(key, value)| held.get(key.as_str()).map(String::as_str) != value.as_deref())
        .map(|(key, value)| {
            (
                key.to_string(),
                value.as_ref().map_or(Value::Null, |v| v.as_str().into()),
            )
        })
        .collect();
    (!map.is_empty()).then_some(map)
}

/// `wanted` among the conditions that are there, with times where something changed, in the order of `order`.
fn merge_conditions(
    held: &[Condition],
    wanted: &[Condition],
    order: &[Condition],
    now: jiff::Timestamp,
) -> Vec<Condition> {
    let mut conditions = held.to_vec();
    let is_unsupported = |c: &Condition| c.kind == condition_type::UNSUPPORTED;
    // Said only of a spec that sets such fields; once said, it has to be taken back when they go.
    let withdrawn = (held.iter().any(is_unsupported) && !wanted.iter().any(is_unsupported))
        .then(|| Condition::unsupported(&[]));
    for condition in wanted.iter().chain(&withdrawn) {
        set_condition(&mut conditions, condition.clone(), &Time(now));
    }
    let place = |c: &Condition| {
        order
            .iter()
            .position(|o| o.kind == c.kind)
            .unwrap_or(order.len())
    };
    conditions.sort_by_key(place);
    conditions
}
