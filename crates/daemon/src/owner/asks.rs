//! What the CNI server asks of the owner.

use api::view::PodView;
use node::ovs::PortSpec;
use node::plan::INTEGRATION_BRIDGE;
use node::pod::PodNetwork;
use ovsdb::wire::Operation;
use smol_str::SmolStr;
use tokio::sync::oneshot;

use super::{Ask, Owner, Plug, PodQuery, PodReady};

/// Somebody waits for something of a pod, and wants to know when nothing can come any more.
pub(super) struct GoneWaiter {
    query: PodQuery,
    /// The pod was there while this one waited; its uid.
    seen: Option<SmolStr>,
    reply: oneshot::Sender<String>,
}

impl GoneWaiter {
    /// Looks at the pod of that name; returns whether, and why, there is no use in waiting.
    fn look(&mut self, pod: Option<&PodView>) -> Option<String> {
        let key = &self.query.key;
        if let Some(pod) = pod {
            // The kubelet takes mirrors away and makes them anew, while the static pod runs on.
            if is_mirror(pod) {
                return None;
            }
            let meant = self.seen.as_ref().unwrap_or(&self.query.uid);
            if *meant == pod.uid {
                self.seen = Some(pod.uid.clone());
                let deleted = pod.deletion.is_some();
                return deleted.then(|| format!("pod {key} is being deleted"));
            }
            // The runtime did not say which. One that is being deleted may be the one before.
            if meant.is_empty() && pod.deletion.is_none() {
                self.seen = Some(pod.uid.clone());
                return None;
            }
        }
        self.seen.is_some().then(|| format!("pod {key} is gone"))
    }
}

/// The object of a static pod is a mirror with a uid of its own; its Node owns it.
pub(super) fn is_mirror(pod: &PodView) -> bool {
    pod.owner.as_ref().is_some_and(|o| o.kind == "Node")
}

impl Owner {
    pub(super) fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Pod(query, reply) => self.pod_waiters.push((query, reply)),
            Ask::PodNow(query, reply) => {
                let _ = reply.send(self.pod_ready(&query));
            }
            Ask::PodGone(query, reply) => self.gone_waiters.push(GoneWaiter {
                query,
                seen: None,
                reply,
            }),
            Ask::PodUid(key, reply) => {
                let uid = self.pods.get(&key).map(|pod| pod.uid.clone());
                let _ = reply.send(uid.unwrap_or_default());
            }
            Ask::Plug(plug, reply) => self.plug(&plug, reply),
            Ask::Installed(name, reply) => self.port_waiters.push((name, reply)),
            Ask::Unplug(names, reply) => {
                if self.ovs_problem.is_some() {
                    self.unplug_later.extend(names);
                    let _ = reply.send(Err("no connection to Open vSwitch's database".into()));
                    return;
                }
                let ops = self.ovs.del_ports(names.iter().map(SmolStr::as_str));
                self.commit(ops, reply);
            }
            Ask::Interface(name, reply) => {
                let _ = reply.send(self.ovs.interface(&name).cloned());
            }
            Ask::PodInterfaces(reply) => {
                let names = self.ovs.interfaces();
                let _ = reply.send(
                    names
                        .filter(|i| i.pod().is_some())
                        .map(|i| i.name.clone())
                        .collect(),
                );
            }
            Ask::Unready(reply) => {
                let _ = reply.send(self.unready());
            }
        }
    }

    /// Is the pod ready to be plugged in? If not, what does it wait for?
    fn pod_ready(&self, query: &PodQuery) -> Result<PodReady, String> {
        if let Some(problem) = &self.ovs_problem {
            return Err(format!(
                "no connection to Open vSwitch's database: {problem}"
            ));
        }
        if !self.ovs.has_integration_bridge() {
            return Err(format!(
                "bridge {INTEGRATION_BRIDGE} does not exist yet: is ovn-controller running?"
            ));
        }
        let Some(pod) = self.pods.get(&query.key) else {
            return Err(match self.api.get("pods") {
                Some(problem) => format!("the API server is not reachable: {problem}"),
                None => format!("the API server has no pod {} on this node", query.key),
            });
        };
        if !query.uid.is_empty() && query.uid != pod.uid && !is_mirror(pod) {
            return Err(format!(
                "the API server's pod {} is another of that name (uid {}, not {})",
                query.key, pod.uid, query.uid
            ));
        }
        if pod.deletion.is_some() {
            return Err(format!("pod {} is being deleted", query.key));
        }
        let network =
            PodNetwork::from_annotations(&pod.annotations, &query.provider, query.default_route)
                .map_err(|e| e.to_string())?;
        // The watch of Subnets may be behind the one of pods; a pod without its subnet's MTU would stay so.
        let of_subnet = match self.subnets.get(&network.subnet) {
            None if !network.subnet.is_empty() => {
                return Err(format!(
                    "the API server has no accepted Subnet {}",
                    network.subnet
                ));
            }
            subnet => subnet.and_then(|s| s.mtu),
        };
        let Some(mtu) = of_subnet.or(self.compiled.pod_mtu) else {
            return Err(self
                .compiled
                .waiting
                .first()
                .map_or("the node's tunnel interface".into(), |w| w.0.clone()));
        };
        Ok(PodReady {
            uid: pod.uid.clone(),
            network,
            mtu,
            tx_checksum_off: self.ovs.userspace_datapath(),
        })
    }

    fn plug(&mut self, plug: &Plug, reply: oneshot::Sender<Result<(), String>>) {
        if self.ovs_problem.is_some() || !self.ovs.has_integration_bridge() {
            let _ = reply.send(Err("Open vSwitch is not ready".into()));
            return;
        }
        self.unplug_later.remove(&plug.name);
        let pod = node::ovs::PodPort {
            namespace: &plug.pod.namespace,
            name: &plug.pod.name,
            netns: Some(&plug.netns),
        };
        let spec = PortSpec::pod(&plug.name, &plug.iface_id, pod, &plug.ip);
        self.commit(self.ovs.add_port(&spec), reply);
    }

    fn commit(&self, ops: Vec<Operation>, reply: oneshot::Sender<Result<(), String>>) {
        if ops.is_empty() {
            let _ = reply.send(Ok(()));
            return;
        }
        let ovs = self.parts.ovs.clone();
        tokio::spawn(async move {
            let result = ovs.transact(ops).await;
            let _ = reply.send(result.map(drop).map_err(|e| e.to_string()));
        });
    }

    pub(super) fn answer_waiters(&mut self) {
        let waiters = std::mem::take(&mut self.pod_waiters);
        for (query, reply) in waiters {
            if reply.is_closed() {
                continue;
            }
            match self.pod_ready(&query) {
                Ok(ready) => {
                    let _ = reply.send(ready);
                }
                Err(_) => self.pod_waiters.push((query, reply)),
            }
        }
        let waiters = std::mem::take(&mut self.gone_waiters);
        for mut waiter in waiters {
            if waiter.reply.is_closed() {
                continue;
            }
            match waiter.look(self.pods.get(&waiter.query.key)) {
                Some(why) => {
                    let _ = waiter.reply.send(why);
                }
                None => self.gone_waiters.push(waiter),
            }
        }
        let waiters = std::mem::take(&mut self.port_waiters);
        for (name, reply) in waiters {
            if reply.is_closed() {
                continue;
            }
            match self.ovs.interface(&name) {
                Some(i) if i.ovn_installed() => {
                    let _ = reply.send(Ok(()));
                }
                Some(i) if i.ofport == Some(-1) && !i.error.is_empty() => {
                    let _ = reply.send(Err(format!("ovs-vswitchd: {}", i.error)));
                }
                _ => self.port_waiters.push((name, reply)),
            }
        }
    }
}
