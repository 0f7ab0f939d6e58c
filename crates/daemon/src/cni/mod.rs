//! The CNI server: HTTP/1.1 on a unix socket, one request per verb.
//!
//! ```text
//!  ADD: wait for the pod's annotations (the owner's watch) -> veth -> OVS port (one transaction)
//!       -> wait for ovn-installed (the owner's OVSDB session) -> link up, addresses, routes -> answer
//! ```
//!
//! Work goes on when the runtime hangs up (its own time limit), so that it ends in a whole state: a finished interface,
//! or none. A DEL for the same interface ends an ADD that still waits, and so does the end of its pod.

mod verbs;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::cni::{CheckRequest, Failure, GcRequest, Request, StatusRequest, code};
use axum::extract::{Json, State};
use axum::response::IntoResponse;
use axum::routing::post;
use http::StatusCode;
use node::linux::KernelError;
use smol_str::SmolStr;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::cluster::Events;
use crate::leftovers::{Busy, BusyGuard};
use crate::metrics::Metrics;
use crate::owner::{Ask, Event};

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

/// One interface is worked on by one request at a time; a DEL tells an ADD to give up, and so does an ADD for another
/// sandbox of the same pod.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<Requests>>);

#[derive(Debug, Default)]
struct Requests {
    /// By the host end.
    slots: HashMap<SmolStr, Slot>,
    /// The latest ADD for each logical port: its host end, and how to end it.
    latest: HashMap<SmolStr, (SmolStr, CancellationToken)>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two sandboxes of a pod would take the logical port from each other: the runtime has given up the earlier.
    fn supersede(&self, port: &SmolStr, turn: &Turn) -> Latest {
        let entry = (turn.host.clone(), turn.give_up.clone());
        let earlier = self.lock().latest.insert(port.clone(), entry);
        if let Some((host, give_up)) = earlier
            && host != turn.host
        {
            give_up.cancel();
        }
        Latest {
            running: self.clone(),
            port: port.clone(),
            host: turn.host.clone(),
        }
    }
}

/// An ADD's entry in [`Requests::latest`], which it takes back unless it is another's by then.
struct Latest {
    running: Running,
    port: SmolStr,
    host: SmolStr,
}

impl Drop for Latest {
    fn drop(&mut self) {
        let mut requests = self.running.lock();
        if requests
            .latest
            .get(&self.port)
            .is_some_and(|(host, _)| *host == self.host)
        {
            requests.latest.remove(&self.port);
        }
    }
}

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
        let mut requests = self.running.lock();
        if let Some(slot) = requests.slots.get_mut(&self.host) {
            slot.users -= 1;
            if slot.users == 0 {
                requests.slots.remove(&self.host);
            }
        }
    }
}

impl Cni {
    /// Waits for the interface to be free. `interrupt`: whoever works on it now is told to give up.
    async fn turn(&self, host: &SmolStr, interrupt: bool) -> Turn {
        let slot = {
            let mut requests = self.running.lock();
            let slot = requests.slots.entry(host.clone()).or_insert_with(|| Slot {
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

/// Stages of requests that fail because nobody wants their result any more.
const CANCELLED: &str = "cancelled";
const POD_GONE: &str = "pod-gone";

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

    /// The pod ends before it has its interface: neither is a later try any use, nor is it worth an event.
    fn pod_gone(message: impl Into<String>) -> Self {
        Self {
            code: Some(code::POD_GONE),
            stage: POD_GONE,
            ..Self::never(message)
        }
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
