//! Ports and devices that do not belong together: leftovers of pods that went, and ports that OVS has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::keys;
use api::view::PodKey;
use node::ovs::PortSpec;
use ovsdb::wire::Operation;
use smol_str::SmolStr;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Event, Owner, SWEEP};
use crate::leftovers;
use crate::trust;

/// Ports that were given up on the word of a list within this time count together, so that a loss in slices is one loss.
const WINDOW: Duration = Duration::from_hours(1);

impl Owner {
    /// Looks (elsewhere) at the devices and namespaces of all pod interfaces. Not before pods and OVS are known
    /// completely: nothing is deleted on half the knowledge.
    pub(super) fn sweep(&mut self, now: Instant) {
        let known =
            self.pods_listed && self.ovs_problem.is_none() && !self.api.contains_key("pods");
        if self.sweeping || now < self.sweep_due || !known {
            return;
        }
        self.sweep_due = now + SWEEP;
        let interfaces: Vec<(SmolStr, Option<String>)> = self
            .ovs
            .interfaces()
            .filter_map(|i| Some((i.name.clone(), i.pod()?.netns.map(str::to_owned))))
            .collect();
        self.sweeping = true;
        let events = self.parts.events.clone();
        tokio::task::spawn_blocking(move || {
            let found = leftovers::look(interfaces);
            let _ = events.blocking_send(Event::Found(found));
        });
    }

    pub(super) fn sweep_soon(&mut self, within: Duration) {
        self.sweep_due = self.sweep_due.min(Instant::now() + within);
    }

    pub(super) fn found(&mut self, found: &leftovers::Found) {
        if self.ovs_problem.is_some() {
            self.sweeping = false;
            return;
        }
        let mut remove = self.leftover_ports(&found.suspects);
        let (ops, devices) = self.lost_ports(&found.devices);
        let mut all = self.ovs.del_ports(remove.iter().map(SmolStr::as_str));
        all.extend(ops);
        remove.extend(devices);
        if remove.is_empty() && all.is_empty() {
            self.sweeping = false;
            return;
        }
        let (ovs, events) = (self.parts.ovs.clone(), self.parts.events.clone());
        tokio::spawn(async move {
            let committed = if all.is_empty() {
                Ok(Vec::new())
            } else {
                ovs.transact(all).await
            };
            if let Err(error) = committed {
                warn!("putting the ports of pods right: {error}");
            } else {
                let removed = tokio::task::spawn_blocking(move || leftovers::remove(&remove)).await;
                if let Ok(Err(error)) = removed {
                    warn!("removing leftovers: {error}");
                }
            }
            let _ = events.send(Event::LeftoversRemoved).await;
        });
    }

    /// Ports whose pod went.
    fn leftover_ports(&mut self, suspects: &[leftovers::Suspect]) -> BTreeSet<SmolStr> {
        let now = Instant::now();
        let busy = self.parts.busy.names();
        let mut remove = BTreeSet::new();
        let mut orphans = BTreeMap::new();
        let doubt = self.doubts(suspects, now);
        for suspect in suspects {
            let Some(pod) = self.ovs.interface(&suspect.name).and_then(|i| {
                let pod = i.pod()?;
                Some(PodKey::new(pod.namespace, pod.name))
            }) else {
                continue;
            };
            if busy.contains(&suspect.name) {
                continue;
            }
            let known = self.pods.contains_key(&pod);
            let since = *self.orphans.get(&suspect.name).unwrap_or(&now);
            if !known {
                orphans.insert(suspect.name.clone(), since);
            }
            let forced = self.went.get(&pod).map(|went| *went + leftovers::FORCED);
            let outlasted = forced.is_some_and(|due| now >= due)
                || !doubt && now.duration_since(since) >= self.parts.patience;
            if let Some(why) = leftovers::judge(suspect, known, outlasted) {
                info!("removing {} of pod {pod}: {why}", suspect.name);
                remove.insert(suspect.name.clone());
                if forced.is_none() && suspect.seems_to_run() {
                    self.believed.push(now);
                }
            } else if !known {
                let due = forced.unwrap_or(now + self.parts.patience / 4);
                self.sweep_due = self.sweep_due.min(due);
            }
        }
        self.orphans = orphans;
        // What has no port any more needs no memory.
        let patience = self.parts.patience;
        self.went
            .retain(|_, went| now.duration_since(*went) < patience);
        remove
    }

    /// Whether ports stay though the API server does not show their pods: those of which nobody said that they were
    /// deleted are too many of those that seem to run.
    fn doubts(&mut self, suspects: &[leftovers::Suspect], now: Instant) -> bool {
        self.believed.retain(|at| now.duration_since(*at) < WINDOW);
        let (mut running, mut unknown) = (0, 0);
        for suspect in suspects.iter().filter(|suspect| suspect.seems_to_run()) {
            let Some(pod) = self.ovs.interface(&suspect.name).and_then(|i| {
                let pod = i.pod()?;
                Some(PodKey::new(pod.namespace, pod.name))
            }) else {
                continue;
            };
            if self.went.contains_key(&pod) {
                continue;
            }
            running += 1;
            unknown += usize::from(!self.pods.contains_key(&pod));
        }
        let before = self.believed.len();
        let doubt = unknown > 0 && trust::is_too_much(unknown + before, running + before);
        let doubtful = if doubt { unknown } else { 0 };
        if std::mem::replace(&mut self.doubtful, doubtful) == 0 && doubt {
            warn!(
                "the API server does not show {unknown} of the {running} pods that run here: their ports stay until it \
                 shows or deletes them, or the kubelet ends them"
            );
        }
        doubt
    }

    /// Devices of pods that OVS does not have: operations that plug in those of running pods, and the names of those
    /// whose pod went. Not those that another sandbox of the same pod has replaced; their DEL is on its way.
    fn lost_ports(&mut self, devices: &[leftovers::Device]) -> (Vec<Operation>, BTreeSet<SmolStr>) {
        let now = Instant::now();
        let busy = self.parts.busy.names();
        let (mut ops, mut remove, mut unplugged) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        for (name, identity) in devices {
            if busy.contains(name) || self.ovs.interface(name).is_some() {
                continue;
            }
            let since = *self.unplugged.get(name).unwrap_or(&now);
            unplugged.insert(name.clone(), since);
            let pod = PodKey::new(identity.namespace.clone(), identity.name.clone());
            let view = self.pods.get(&pod);
            let known = view.is_some();
            let age = now.duration_since(since);
            if !known && self.doubtful == 0 && age >= self.parts.patience {
                info!("removing {name} of pod {pod}: the pod has been gone for a while");
                remove.insert(name.clone());
            }
            if !known || age < leftovers::SETTLED {
                continue;
            }
            // Of a pod that had the name before, whose address another may have by now.
            if view.and_then(|view| view.annotation(keys::IP_ADDRESS)) != Some(&identity.ip) {
                continue;
            }
            let iface_id = pod.port_name();
            if self
                .ovs
                .interfaces()
                .any(|i| i.iface_id() == Some(&iface_id))
            {
                continue;
            }
            // One at a time: operations that insert name their rows alike.
            if ops.is_empty() {
                info!("plugging {name} of pod {pod} in again: Open vSwitch had lost it");
                let port = node::ovs::PodPort {
                    namespace: &identity.namespace,
                    name: &identity.name,
                    netns: Some(&identity.netns),
                };
                ops = self
                    .ovs
                    .add_port(&PortSpec::pod(name, &iface_id, port, &identity.ip));
            }
        }
        if !unplugged.is_empty() {
            self.sweep_soon(if ops.is_empty() {
                leftovers::SETTLED
            } else {
                Duration::ZERO
            });
        }
        self.unplugged = unplugged;
        (ops, remove)
    }
}
