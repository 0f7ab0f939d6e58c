//! What users, kubelets and accidents do.

use crate::world::World;
use engine::{Event, Kind, LeaseEvent, ObjectKey};
use jiff::SignedDuration;
use ovsdb::wire::{Operation, Row};
use serde_json::json;
use uuid::Uuid;

impl World {
    /// Something that nobody asked for.
    pub fn disturb(&mut self) {
        match self.dice.below(30) {
            0 => {
                let index = self.dice.below(2);
                self.log.push(format!("{:?} {index} dies", self.now));
                self.boot(index);
                if self.holder == index {
                    self.renew();
                }
            }
            1 => {
                // The holder sleeps, the other one takes the lease. Sometimes the sleeper hears of it.
                let old = self.holder;
                self.now = self.now.max(self.until);
                self.holder = 1 - old;
                self.log
                    .push(format!("{:?} lease to {}", self.now, self.holder));
                self.renew();
                if self.dice.percent(50) {
                    self.processes[old]
                        .other
                        .push_back(Event::Lease(LeaseEvent::Standby));
                }
            }
            2 | 3 => self.renew(),
            4..=6 => self.arrive(),
            7..=14 => {
                self.counter += 1;
                let name = format!("p{}", self.dice.below(9));
                let namespace = if self.dice.percent(60) {
                    "test-ns"
                } else {
                    "default"
                };
                let key = ObjectKey::pod(namespace, name);
                if self.kube.get(&key).is_none() {
                    let node = if self.dice.percent(50) { "n1" } else { "n2" };
                    let annotations = match self.dice.below(12) {
                        0 if namespace == "test-ns" => {
                            json!({ "ovn.kubernetes.io/ip_address": "10.17.0.9" })
                        }
                        _ => json!({}),
                    };
                    let spec = json!({ "nodeName": node, "restartPolicy": "Never" });
                    self.kube.put(
                        key,
                        json!({ "metadata": { "annotations": annotations }, "spec": spec }),
                    );
                }
            }
            15..=20 => {
                let keys: Vec<ObjectKey> = self
                    .kube
                    .of(Kind::Pod)
                    .map(|(key, _)| key.clone())
                    .collect();
                if !keys.is_empty() {
                    let key = keys[self.dice.below(keys.len())].clone();
                    self.kube.delete(&key);
                }
            }
            21 | 22 => {
                let keys: Vec<ObjectKey> = self
                    .kube
                    .of(Kind::Pod)
                    .map(|(key, _)| key.clone())
                    .collect();
                if !keys.is_empty() {
                    let key = keys[self.dice.below(keys.len())].clone();
                    self.kube
                        .edit(&key, |pod| pod["status"]["phase"] = "Succeeded".into());
                }
            }
            23 => {
                // A user deletes an IP resource.
                let keys: Vec<ObjectKey> =
                    self.kube.of(Kind::Ip).map(|(key, _)| key.clone()).collect();
                if !keys.is_empty() {
                    let key = keys[self.dice.below(keys.len())].clone();
                    self.kube.delete(&key);
                }
            }
            24 => {
                let node = ObjectKey::cluster(Kind::Node, "n3");
                if self.kube.get(&node).is_some() {
                    self.kube.delete(&node);
                } else {
                    self.node("n3");
                }
            }
            25 => {
                // Somebody works on the database by hand.
                let ports: Vec<Uuid> = self
                    .nb
                    .rows("Logical_Switch_Port")
                    .map(|(uuid, _)| uuid)
                    .collect();
                if !ports.is_empty() {
                    let uuid = ports[self.dice.below(ports.len())];
                    let row = Row::from([("addresses", "unknown".into())]);
                    self.commit(
                        0,
                        &[Operation::update(
                            "Logical_Switch_Port",
                            ovsdb::wire::Condition::row(uuid),
                            row,
                        )],
                        None,
                    );
                }
            }
            26 => {
                // A kubelet writes a status: versions move.
                let keys: Vec<ObjectKey> = self
                    .kube
                    .of(Kind::Pod)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in keys {
                    self.kube.edit(&key, |_| {});
                }
            }
            _ => {
                self.now +=
                    SignedDuration::from_millis(i64::try_from(self.dice.below(1500)).unwrap());
            }
        }
    }
}
