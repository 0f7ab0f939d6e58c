//! ADD, DEL, CHECK and GC themselves.

use std::collections::BTreeSet;

use api::cni::{CheckRequest, GcRequest, Request, Response, code};
use api::view::PodKey;
use http::StatusCode;
use net::Cidr;
use node::addr::IfAddr;
use node::linux::{self, NetNs, Socket};
use node::pod::{ExtraRoute, Identity, PodNic, veth_names};
use smol_str::SmolStr;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{CANCELLED, Cni, Failed, POD_GONE, Witness};
use crate::cluster::PodEvent;
use crate::owner::{Ask, Plug, PodQuery, PodReady};

/// A request whose fields are there and make sense.
struct Target {
    pod: PodKey,
    query: PodQuery,
    host: SmolStr,
    /// The logical port, `iface-id` in OVS.
    port: SmolStr,
}

/// Is it about an interface that we make, on the default network? Networks beside it, and plugins that ask for addresses
/// alone, have nothing of ours.
fn ours(cni_type: &str, provider: &str) -> bool {
    matches!(cni_type, "" | api::cni::PLUGIN) && matches!(provider, "" | api::keys::PROVIDER)
}

fn target(request: &Request) -> Result<Target, Failed> {
    let need = |what: &str, value: &str| {
        if value.is_empty() {
            Err(Failed::never(format!("the request has no {what}")).at("validate-request"))
        } else {
            Ok(())
        }
    };
    need("pod_name", &request.pod_name)?;
    need("pod_namespace", &request.pod_namespace)?;
    need("container_id", &request.container_id)?;
    if !ours(&request.cni_type, &request.provider) {
        return Err(Failed::never(format!(
            "network provider {:?} for plugin {:?} is not supported: this daemon attaches pods to the default network \"ovn\" only, by plugin \"kube-ovn\"",
            request.provider, request.cni_type
        ))
        .at("provider"));
    }
    let ifname = if_name(request);
    if ifname.len() > node::pod::IFNAME_MAX {
        return Err(Failed::never(format!(
            "interface name {ifname:?} is longer than 15 characters"
        ))
        .at("validate-request"));
    }
    let pod = PodKey::new(request.pod_namespace.as_str(), request.pod_name.as_str());
    Ok(Target {
        query: PodQuery {
            key: pod.clone(),
            uid: request.pod_uid.as_str().into(),
            provider: request.provider.clone(),
            default_route: ifname == "eth0",
        },
        host: veth_names(&request.container_id, ifname).0,
        port: node::ovs::iface_id(&pod.name, &pod.namespace, &request.provider),
        pod,
    })
}

fn if_name(request: &Request) -> &str {
    match request.if_name.as_str() {
        "" => "eth0",
        name => name,
    }
}

fn extra_routes(request: &Request) -> Vec<ExtraRoute> {
    request
        .routes
        .iter()
        .map(|r| ExtraRoute {
            dst: r.dst.clone(),
            gw: r.gw.clone(),
        })
        .collect()
}

/// Runs kernel work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failed::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

fn host_socket() -> Result<Socket, Failed> {
    Socket::open().map_err(|e| Failed::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

fn open_netns(path: &str) -> Result<NetNs, Failed> {
    NetNs::open(path)
        .map_err(|e| Failed::later(format!("network namespace {path:?}: {e}")).at("configure-nic"))
}

impl Cni {
    pub(super) async fn add(&self, request: &Request) -> Result<Response, Failed> {
        let start = Instant::now();
        let target = target(request)?;
        let turn = self.turn(&target.host, false).await;
        let _latest = self.running.supersede(&target.port, &turn);
        let result = self.attach(request, &target, &turn.give_up).await;
        match result {
            Ok((ready, response)) => {
                let ips: Vec<String> = response.ips.iter().map(|ip| ip.ip.to_string()).collect();
                let note = format!(
                    "subnet={} ip={} mac={}",
                    ready.network.subnet,
                    ips.join(","),
                    ready.network.mac
                );
                info!(
                    "pod {} attached: {note} ({:?})",
                    target.pod,
                    start.elapsed()
                );
                self.events
                    .publish(&target.pod, &ready.uid, PodEvent::Configured, note);
                Ok(response)
            }
            Err(failed) => {
                warn!(
                    "pod {} not attached: {} (stage {})",
                    target.pod, failed.message, failed.stage
                );
                self.detach(&target.host).await;
                if ![CANCELLED, POD_GONE].contains(&failed.stage) {
                    let pod = target.pod.clone();
                    let uid = self.ask(|reply| Ask::PodUid(pod, reply)).await;
                    let uid = uid.unwrap_or_default();
                    let note = format!("stage={} error={}", failed.stage, failed.message);
                    self.events
                        .publish(&target.pod, &uid, PodEvent::ConfigureFailed, note);
                }
                Err(failed)
            }
        }
    }

    async fn attach(
        &self,
        request: &Request,
        target: &Target,
        give_up: &CancellationToken,
    ) -> Result<(PodReady, Response), Failed> {
        let ready = self
            .unless_unwanted(give_up, target, self.wait_for_pod(&target.query))
            .await?;
        let nic = PodNic::new(
            &request.container_id,
            if_name(request),
            &ready.network,
            &extra_routes(request),
            target.query.default_route,
            ready.mtu,
            ready.tx_checksum_off,
        );
        let identity = Identity {
            namespace: target.pod.namespace.clone(),
            name: target.pod.name.clone(),
            netns: request.net_ns.clone(),
            ip: ready.network.ip_text.clone(),
        };
        let made = nic.clone();
        let netns = blocking(move || {
            let netns = open_netns(&identity.netns)?;
            linux::attach(&mut host_socket()?, &netns, &made, &identity)
                .map_err(|e| Failed::from(e).at("configure-nic"))?;
            Ok(netns)
        })
        .await?;

        let plug = Plug {
            name: nic.host.clone(),
            iface_id: target.port.clone(),
            pod: target.pod.clone(),
            netns: request.net_ns.clone(),
            ip: ready.network.ip_text.clone(),
        };
        self.ask(|reply| Ask::Plug(plug, reply))
            .await?
            .map_err(|e| Failed::later(format!("Open vSwitch: {e}")).at("configure-nic"))?;
        self.unless_unwanted(give_up, target, self.wait_for_ovn(&nic.host))
            .await?;

        let up = nic.clone();
        blocking(move || {
            linux::set_up(&netns, &up).map_err(|e| Failed::from(e).at("configure-nic"))
        })
        .await?;

        // The same name may be another pod by now (deleted and made again while this one was waiting).
        match self
            .ask(|reply| Ask::PodNow(target.query.clone(), reply))
            .await?
        {
            Ok(now) if now.network == ready.network && now.uid == ready.uid => {}
            Ok(_) => {
                return Err(
                    Failed::later("the pod, or its addresses, changed meanwhile").at("get-pod"),
                );
            }
            Err(reason) => return Err(Failed::later(reason).at("get-pod")),
        }
        let response = response(&ready, &nic);
        Ok((ready, response))
    }

    /// A wait that ends early when a later request on the same pod, or the end of the pod, makes it pointless. The steps
    /// between are never cut short: what they began could not be taken back.
    async fn unless_unwanted<T>(
        &self,
        give_up: &CancellationToken,
        target: &Target,
        wait: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        tokio::select! {
            biased;
            () = give_up.cancelled() => {
                Err(Failed::later("given up for a later request on the same pod").at(CANCELLED))
            }
            gone = self.ask(|reply| Ask::PodGone(target.query.clone(), reply)) => {
                Err(Failed::pod_gone(gone?))
            }
            result = wait => result,
        }
    }

    async fn wait_for_pod(&self, query: &PodQuery) -> Result<PodReady, Failed> {
        let start = Instant::now();
        let ready = timeout(self.wait, self.ask(|reply| Ask::Pod(query.clone(), reply))).await;
        self.metrics.waited_for_address(start.elapsed());
        if let Ok(ready) = ready {
            return ready;
        }
        match self.ask(|reply| Ask::PodNow(query.clone(), reply)).await? {
            Ok(ready) => Ok(ready),
            Err(reason) => Err(Failed::later(format!(
                "waited {} s: {reason}",
                self.wait.as_secs()
            ))
            .at("wait-address")),
        }
    }

    async fn wait_for_ovn(&self, host: &SmolStr) -> Result<(), Failed> {
        let start = Instant::now();
        let installed = timeout(
            self.wait,
            self.ask(|reply| Ask::Installed(host.clone(), reply)),
        )
        .await;
        self.metrics.waited_for_ovn(start.elapsed());
        if let Ok(result) = installed {
            return result?.map_err(|e| Failed::later(e).at("configure-nic"));
        }
        let interface = self
            .ask(|reply| Ask::Interface(host.clone(), reply))
            .await?;
        let state = match interface {
            None => "the port is gone from Open vSwitch".to_owned(),
            Some(i) if i.ofport.is_none() => {
                "ovs-vswitchd has not taken the port: is it running?".to_owned()
            }
            Some(i) => format!(
                "ovn-controller has not bound logical port {} and installed its flows: is it connected to the southbound database?",
                i.iface_id().map_or("", SmolStr::as_str)
            ),
        };
        Err(Failed::later(format!("waited {} s: {state}", self.wait.as_secs())).at("wait-ovn"))
    }

    /// Takes an interface away as far as it exists. OVS first, so that it never looks at a device that is going.
    async fn detach(&self, host: &SmolStr) -> bool {
        let names = vec![host.clone()];
        let unplugged = match self.ask(|reply| Ask::Unplug(names, reply)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                warn!("removing port {host}: {error}");
                false
            }
            Err(_) => false,
        };
        let device = host.clone();
        let removed =
            blocking(move || Ok(linux::remove_device(&mut host_socket()?, &device)?)).await;
        if let Err(failed) = &removed {
            warn!("removing {host}: {}", failed.message);
        }
        unplugged && removed.is_ok()
    }

    /// Always succeeds on what is gone. Without a connection to OVS the device goes, and its port with the sweep after
    /// the connection returns: a pod must be able to end while OVS is down.
    pub(super) async fn del(&self, request: &Request) -> Result<(), Failed> {
        if request.container_id.is_empty() {
            return Err(Failed::never("the request has no container_id"));
        }
        if !ours(&request.cni_type, &request.provider) {
            return Ok(());
        }
        let host = veth_names(&request.container_id, if_name(request)).0;
        let _turn = self.turn(&host, true).await;
        let whole = self.detach(&host).await;
        let device = host.clone();
        let gone =
            blocking(move || Ok(!linux::device_exists(&mut host_socket()?, &device)?)).await?;
        if !gone {
            return Err(Failed::later(format!("{host} could not be removed")));
        }
        let pod = PodKey::new(request.pod_namespace.as_str(), request.pod_name.as_str());
        debug!("pod {pod} detached (complete: {whole})");
        Ok(())
    }

    pub(super) async fn check(&self, request: &CheckRequest) -> Result<(), Failed> {
        let told = request;
        let request = &request.request;
        let target = target(request)?;
        let _turn = self.turn(&target.host, false).await;
        let wrong = |message: String| Failed {
            code: Some(code::CHECK_FAILED),
            ..Failed::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        };
        let ready = self
            .ask(|reply| Ask::PodNow(target.query.clone(), reply))
            .await?
            .map_err(Failed::later)?;
        let nic = PodNic::new(
            &request.container_id,
            if_name(request),
            &ready.network,
            &extra_routes(request),
            target.query.default_route,
            ready.mtu,
            ready.tx_checksum_off,
        );
        if let Some(difference) = differs_from_told(&nic, told) {
            return Err(wrong(difference));
        }
        let port = self
            .ask(|reply| Ask::Interface(nic.host.clone(), reply))
            .await?;
        let iface_id = &target.port;
        match port {
            None => return Err(wrong(format!("Open vSwitch has no port {}", nic.host))),
            Some(i) if i.iface_id() != Some(iface_id) => {
                return Err(wrong(format!("port {} is not {iface_id}", nic.host)));
            }
            Some(i) if !i.ovn_installed() => {
                return Err(wrong(format!("OVN has not installed port {iface_id}")));
            }
            Some(_) => {}
        }
        let path = request.net_ns.clone();
        blocking(move || {
            let netns = open_netns(&path)?;
            linux::check(&mut host_socket()?, &netns, &nic).map_err(|e| wrong(e.to_string()))
        })
        .await
    }

    /// Detaches every interface of ours that the runtime does not name. The runtime speaks of one network only: the list
    /// of another says nothing about ours.
    pub(super) async fn gc(&self, request: &GcRequest) -> Result<(), Failed> {
        if !ours(&request.cni_type, &request.provider) {
            return Ok(());
        }
        // The runtime's list is as old as its request: an ADD that it has begun since, or that it had given up and that
        // goes on here, is none of it.
        let witness = Witness::new(&self.running);
        let valid: Vec<SmolStr> = request
            .valid_attachments
            .iter()
            .map(|a| {
                let ifname = if a.if_name.is_empty() {
                    "eth0"
                } else {
                    &a.if_name
                };
                veth_names(&a.container_id, ifname).0
            })
            .collect();
        let mut hosts: BTreeSet<SmolStr> =
            self.ask(Ask::PodInterfaces).await?.into_iter().collect();
        // Also those that never got as far as OVS.
        let devices = blocking(|| Ok(linux::pod_devices(&mut host_socket()?)?)).await?;
        hosts.extend(devices.into_iter().map(|(host, _)| host));
        for host in hosts {
            if valid.contains(&host) {
                continue;
            }
            if let Some(_turn) = witness.turn(&self.busy, &host) {
                info!("GC: removing {host}");
                self.detach(&host).await;
            }
        }
        Ok(())
    }
}

/// CNI CHECK is about the result that the runtime was given: has it been overtaken by what the pod is to have now?
fn differs_from_told(nic: &PodNic, told: &CheckRequest) -> Option<String> {
    let name = &nic.ifname;
    let planned = |text: &&String| {
        text.parse::<IfAddr>()
            .is_ok_and(|address| nic.addresses.contains(&address))
    };
    if let Some(address) = told.addresses.iter().find(|text| !planned(text)) {
        return Some(format!(
            "{name} was given the address {address}, which is not the pod's (any more)"
        ));
    }
    let mac = &told.mac_address;
    if !mac.is_empty() && mac.parse() != Ok(nic.mac) {
        return Some(format!("{name} was given the MAC {mac}, not {}", nic.mac));
    }
    None
}

fn response(ready: &PodReady, nic: &PodNic) -> Response {
    let gateways = &ready.network.gateways;
    let default = nic.routes.iter().any(|r| r.destination.is_none());
    let ips = ready.network.addresses.iter().filter_map(|address| {
        let cidr = Cidr::new(address.ip, address.prefix_len)?;
        let gateway = gateways.get(address.family()).copied().filter(|_| default);
        Some(api::cni::ResponseIp::new(address.ip, cidr, gateway))
    });
    let routes = nic.routes.iter().map(|route| api::cni::Route {
        dst: route.destination.map(|d| d.to_string()).unwrap_or_default(),
        gw: route.gateway.to_string(),
    });
    Response {
        ips: ips.collect(),
        mac_address: Some(ready.network.mac),
        routes: routes.collect(),
        mtu: nic.mtu,
        nicname: nic.ifname.to_string(),
        ..Response::default()
    }
}
