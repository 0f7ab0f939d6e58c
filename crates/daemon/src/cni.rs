//! The CNI server: HTTP/1.1 on a unix socket, one request per verb.
//!
//! ```text
//!  ADD: wait for the pod's annotations (the owner's watch) -> veth -> OVS port (one transaction)
//!       -> wait for ovn-installed (the owner's OVSDB session) -> link up, addresses, routes -> answer
//! ```
//!
//! Work goes on when the runtime hangs up (its own time limit), so that it ends in a whole state: a finished interface,
//! or none. A DEL for the same interface ends an ADD that still waits.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::cni::{CheckRequest, Failure, GcRequest, Request, Response, StatusRequest, code};
use api::view::PodKey;
use axum::extract::{Json, State};
use axum::response::IntoResponse;
use axum::routing::post;
use http::StatusCode;
use net::Cidr;
use node::linux::{self, KernelError, NetNs, Socket};
use node::pod::{ExtraRoute, PodNic, veth_names};
use smol_str::SmolStr;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::cluster::{Events, PodEvent};
use crate::leftovers::{Busy, BusyGuard};
use crate::metrics::Metrics;
use crate::owner::{Ask, Event, Plug, PodQuery, PodReady};

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Cni {
    pub owner: mpsc::Sender<Event>,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub busy: Busy,
    /// Longest wait for the pod's annotations, and again for OVN.
    pub wait: Duration,
    pub running: Running,
    pub tasks: TaskTracker,
}

/// One interface is worked on by one request at a time; a DEL tells an ADD to give up.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<HashMap<SmolStr, Slot>>>);

#[derive(Debug, Clone)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    give_up: CancellationToken,
    users: usize,
}

/// Its turn at one interface.
struct Turn {
    running: Running,
    host: SmolStr,
    give_up: CancellationToken,
    _lock: tokio::sync::OwnedMutexGuard<()>,
    _busy: BusyGuard,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut slots = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&self.host) {
            slot.users -= 1;
            if slot.users == 0 {
                slots.remove(&self.host);
            }
        }
    }
}

impl Cni {
    /// Waits for the interface to be free. `interrupt`: whoever works on it now is told to give up.
    async fn turn(&self, host: &SmolStr, interrupt: bool) -> Turn {
        let slot = {
            let mut slots = self
                .running
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let slot = slots.entry(host.clone()).or_insert_with(|| Slot {
                turn: Arc::default(),
                give_up: CancellationToken::new(),
                users: 0,
            });
            slot.users += 1;
            if interrupt {
                // Those that come later get a token of their own.
                std::mem::take(&mut slot.give_up).cancel();
            }
            slot.clone()
        };
        Turn {
            running: self.running.clone(),
            host: host.clone(),
            give_up: slot.give_up,
            _lock: slot.turn.lock_owned().await,
            _busy: self.busy.enter(host),
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Failed> {
        let (reply, answer) = oneshot::channel();
        let gone = || Failed::later("the daemon is stopping");
        self.owner
            .send(Event::Ask(ask(reply)))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// Why a request failed; becomes a status and a [`Failure`].
#[derive(Debug)]
struct Failed {
    status: StatusCode,
    code: Option<u32>,
    message: String,
    stage: &'static str,
}

impl Failed {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code: None,
            message: message.into(),
            stage: "",
        }
    }

    /// Will never work.
    fn never(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// May work later.
    fn later(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    fn at(mut self, stage: &'static str) -> Self {
        self.stage = stage;
        self
    }
}

impl From<KernelError> for Failed {
    fn from(error: KernelError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        let body = Failure {
            error: self.message,
            code: self.code,
        };
        (self.status, Json(body)).into_response()
    }
}

/// Makes the socket, in place of one that an earlier daemon left behind. Only root may connect.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until cancelled; requests under way are finished.
pub async fn serve(cni: Cni, listener: UnixListener, stop: CancellationToken) {
    let router = axum::Router::new()
        .route(api::cni::PATH_ADD, post(add))
        .route(api::cni::PATH_DEL, post(del))
        .route(api::cni::PATH_CHECK, post(check))
        .route(api::cni::PATH_GC, post(gc))
        .route(api::cni::PATH_STATUS, post(status))
        .with_state(cni);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    if let Err(error) = served {
        warn!("CNI server: {error}");
    }
}

/// Runs a request to its end even if the client hangs up, and counts it.
async fn finish<T, F>(cni: Cni, path: &'static str, work: F) -> axum::response::Response
where
    T: IntoResponse + Send + 'static,
    F: Future<Output = Result<T, Failed>> + Send + 'static,
{
    let start = Instant::now();
    let result = cni.tasks.spawn(work).await;
    let response = match result {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(failed)) => failed.into_response(),
        Err(error) => {
            Failed::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    };
    cni.metrics
        .cni(path, response.status().as_u16(), start.elapsed());
    response
}

async fn add(State(cni): State<Cni>, Json(request): Json<Request>) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move { cni.add(&request).await.map(Json) }
    };
    finish(cni, api::cni::PATH_ADD, work).await
}

async fn del(State(cni): State<Cni>, Json(request): Json<Request>) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            cni.del(&request).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    };
    finish(cni, api::cni::PATH_DEL, work).await
}

async fn check(
    State(cni): State<Cni>,
    Json(request): Json<CheckRequest>,
) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            cni.check(&request).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    };
    finish(cni, api::cni::PATH_CHECK, work).await
}

async fn gc(State(cni): State<Cni>, Json(request): Json<GcRequest>) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            cni.gc(&request).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    };
    finish(cni, api::cni::PATH_GC, work).await
}

async fn status(
    State(cni): State<Cni>,
    Json(_request): Json<StatusRequest>,
) -> axum::response::Response {
    let work = {
        let cni = cni.clone();
        async move {
            let unready = cni.ask(Ask::Unready).await?;
            if unready.is_empty() {
                return Ok(StatusCode::NO_CONTENT);
            }
            Err(Failed {
                code: Some(code::PLUGIN_NOT_AVAILABLE),
                ..Failed::later(format!("waiting for {}", unready.join("; ")))
            })
        }
    };
    finish(cni, api::cni::PATH_STATUS, work).await
}

/// A request whose fields are there and make sense.
struct Target {
    pod: PodKey,
    query: PodQuery,
    host: SmolStr,
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
    if !matches!(request.provider.as_str(), "" | api::keys::PROVIDER) {
        return Err(Failed::never(format!(
            "network provider {:?} is not supported: this daemon attaches pods to the default network \"ovn\" only",
            request.provider
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
            provider: request.provider.clone(),
            default_route: ifname == "eth0",
        },
        host: veth_names(&request.container_id, ifname).0,
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
    async fn add(&self, request: &Request) -> Result<Response, Failed> {
        let start = Instant::now();
        let target = target(request)?;
        let turn = self.turn(&target.host, false).await;
        let result = tokio::select! {
            result = self.attach(request, &target) => result,
            () = turn.give_up.cancelled() => Err(Failed::later("the pod is being removed").at("cancelled")),
        };
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
                if failed.stage != "cancelled" {
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
    ) -> Result<(PodReady, Response), Failed> {
        let ready = self.wait_for_pod(&target.query).await?;
        let nic = PodNic::new(
            &request.container_id,
            if_name(request),
            &ready.network,
            &extra_routes(request),
            target.query.default_route,
            ready.mtu,
            ready.tx_checksum_off,
        );
        let netns = request.net_ns.clone();
        let made = nic.clone();
        let netns = blocking(move || {
            let netns = open_netns(&netns)?;
            linux::attach(&mut host_socket()?, &netns, &made)
                .map_err(|e| Failed::from(e).at("configure-nic"))?;
            Ok(netns)
        })
        .await?;

        let plug = Plug {
            name: nic.host.clone(),
            iface_id: node::ovs::iface_id(
                &target.pod.name,
                &target.pod.namespace,
                &request.provider,
            ),
            pod: target.pod.clone(),
            netns: request.net_ns.clone(),
            ip: ready.network.ip_text.clone(),
        };
        self.ask(|reply| Ask::Plug(plug, reply))
            .await?
            .map_err(|e| Failed::later(format!("Open vSwitch: {e}")).at("configure-nic"))?;
        self.wait_for_ovn(&nic.host).await?;

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
                    Failed::later("the pod was replaced by another of its name").at("get-pod")
                );
            }
            Err(reason) => return Err(Failed::later(reason).at("get-pod")),
        }
        let response = response(&ready, &nic);
        Ok((ready, response))
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
    async fn del(&self, request: &Request) -> Result<(), Failed> {
        if request.container_id.is_empty() {
            return Err(Failed::never("the request has no container_id"));
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

    async fn check(&self, request: &CheckRequest) -> Result<(), Failed> {
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
        let port = self
            .ask(|reply| Ask::Interface(nic.host.clone(), reply))
            .await?;
        let iface_id =
            node::ovs::iface_id(&target.pod.name, &target.pod.namespace, &request.provider);
        match port {
            None => return Err(wrong(format!("Open vSwitch has no port {}", nic.host))),
            Some(i) if i.iface_id() != Some(&iface_id) => {
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

    /// Detaches every interface of ours that the runtime does not name.
    async fn gc(&self, request: &GcRequest) -> Result<(), Failed> {
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
        let busy = self.busy.names();
        for host in self.ask(Ask::PodInterfaces).await? {
            if valid.contains(&host) || busy.contains(&host) {
                continue;
            }
            info!("GC: removing {host}");
            let _turn = self.turn(&host, true).await;
            self.detach(&host).await;
        }
        Ok(())
    }
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
