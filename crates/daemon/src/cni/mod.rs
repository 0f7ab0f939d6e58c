//! The CNI server: HTTP/1.1 on a unix socket, one request per verb.
//!
//! ```text
//!  ADD: wait for the pod's annotations (the owner's watch) -> veth -> OVS port (one transaction)
//!       -> wait for ovn-installed (the owner's OVSDB session) -> link up, addresses, routes -> answer
//! ```
//!
//! Work goes on when the runtime hangs up (its own time limit), so that it ends in a whole state: a finished interface,
//! or none. A DEL for the same interface ends an ADD that still waits, and so does the end of its pod.

mod server;
mod verbs;

pub use server::keep;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::cni::{Failure, code};
use axum::extract::Json;
use axum::response::IntoResponse;
use http::StatusCode;
use node::linux::KernelError;
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    /// For each [`Witness`], the host ends that it has seen.
    seen: BTreeMap<u64, BTreeSet<SmolStr>>,
    next_witness: u64,
}

impl Requests {
    /// Somebody wants his turn at this interface.
    fn enter(&mut self, host: &SmolStr) -> &mut Slot {
        for seen in self.seen.values_mut() {
            seen.insert(host.clone());
        }
        let slot = self.slots.entry(host.clone()).or_insert_with(|| Slot {
            turn: Arc::default(),
            give_up: CancellationToken::new(),
            users: 0,
        });
        slot.users += 1;
        slot
    }

    fn leave(&mut self, host: &SmolStr) {
        if let Some(slot) = self.slots.get_mut(host) {
            slot.users -= 1;
            if slot.users == 0 {
                self.slots.remove(host);
            }
        }
    }
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

/// Remembers every interface that a request worked on, or wanted to, since it was made.
struct Witness {
    running: Running,
    id: u64,
}

impl Witness {
    fn new(running: &Running) -> Self {
        let mut requests = running.lock();
        let id = requests.next_witness;
        requests.next_witness += 1;
        let now = requests.slots.keys().cloned().collect();
        requests.seen.insert(id, now);
        Self {
            running: running.clone(),
            id,
        }
    }

    /// A turn at an interface that nobody else has worked on since: what was found of it before is still true.
    fn turn(&self, busy: &Busy, host: &SmolStr) -> Option<Turn> {
        let mut requests = self.running.lock();
        if requests.seen.get(&self.id)?.contains(host) {
            return None;
        }
        let slot = requests.enter(host);
        let lock = slot.turn.clone().try_lock_owned().ok();
        let give_up = slot.give_up.clone();
        if lock.is_none() {
            requests.leave(host);
        }
        Some(Turn {
            running: self.running.clone(),
            host: host.clone(),
            give_up,
            _lock: lock?,
            _busy: busy.enter(host),
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.running.lock().seen.remove(&self.id);
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
        self.running.lock().leave(&self.host);
    }
}

impl Cni {
    /// Waits for the interface to be free. `interrupt`: whoever works on it now is told to give up.
    async fn turn(&self, host: &SmolStr, interrupt: bool) -> Turn {
        let slot = {
            let mut requests = self.running.lock();
            let slot = requests.enter(host);
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
