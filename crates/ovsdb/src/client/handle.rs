//! The caller's side: transactions and status.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smol_str::SmolStr;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::Remote;
use super::queue::Queue;
use crate::wire::Operation;
use crate::{TransactError, TransactResult};

/// How far the connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Pausing before the next round through the remotes.
    #[default]
    Waiting,
    Connecting,
    LeaderCheck,
    Schema,
    Monitoring,
    /// The replica is complete and followed.
    Live,
    Closed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting to reconnect",
            Self::Connecting => "connecting",
            Self::LeaderCheck => "looking for the leader",
            Self::Schema => "reading the schema",
            Self::Monitoring => "fetching the contents",
            Self::Live => "live",
            Self::Closed => "closed",
        })
    }
}

/// For readiness and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The remote in use, or being tried.
    pub remote: Option<Remote>,
    /// Why the last connection or attempt ended; none while live.
    pub problem: Option<String>,
    /// Connections that became live.
    pub connections: u64,
}

impl Status {
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(remote) = &self.remote {
            write!(f, " ({remote})")?;
        }
        if let Some(problem) = &self.problem {
            write!(f, "; last problem: {problem}")?;
        }
        Ok(())
    }
}

/// Where a result goes.
#[derive(Debug)]
pub(super) enum ReplyTo {
    Future(oneshot::Sender<TransactResult>),
    /// Into the event stream, under this token.
    Events(u64),
}

/// A transaction to carry.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) operations: Vec<Operation>,
    pub(super) reply: ReplyTo,
}

/// Whether anybody still wants the client to run.
#[derive(Debug, Default)]
pub(super) struct Life {
    closed: AtomicBool,
    /// Every handle is gone.
    orphaned: AtomicBool,
    changed: Notify,
}

impl Life {
    /// Returns when the client is to stop.
    pub(super) async fn over(&self, queue: &Queue) {
        loop {
            let abandoned = self.orphaned.load(Ordering::Acquire) && queue.is_abandoned();
            if abandoned || self.closed.load(Ordering::Acquire) {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = queue.abandoned() => {}
            }
        }
    }
}

/// What all clones of a handle share.
#[derive(Debug)]
struct Owner(Arc<Life>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.orphaned.store(true, Ordering::Release);
        self.0.changed.notify_one();
    }
}

/// A client to send transactions by. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    owner: Arc<Owner>,
}

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        status: watch::Receiver<Status>,
        life: Arc<Life>,
    ) -> Self {
        Self {
            commands,
            status,
            owner: Arc::new(Owner(life)),
        }
    }

    /// Commits the operations as one transaction.
    ///
    /// When this returns, the update with the transaction's effects is in the event queue (ahead of anything that
    /// happened later), also if the future is awaited by the task that reads the events. Dropping the future does not
    /// take a transaction back.
    pub async fn transact(&self, operations: Vec<Operation>) -> TransactResult {
        let (reply, result) = oneshot::channel();
        let command = Command {
            operations,
            reply: ReplyTo::Future(reply),
        };
        if self.commands.send(command).await.is_err() {
            return Err(TransactError::Closed);
        }
        result.await.unwrap_or(Err(TransactError::Closed))
    }

    /// Sends the operations as one transaction, whose result comes as
    /// [`ReplicaEvent::Outcome`](super::ReplicaEvent::Outcome) with this token, after the update with its effects.
    ///
    /// Waits while `max_in_flight` transactions are on their way; outcomes that nobody has received yet count, so the
    /// task that reads the events should keep fewer than that open.
    pub async fn submit(
        &self,
        token: u64,
        operations: Vec<Operation>,
    ) -> Result<(), TransactError> {
        let command = Command {
            operations,
            reply: ReplyTo::Events(token),
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| TransactError::Closed)
    }

    /// Waits until the replica is complete. False if the client is closed.
    pub async fn live(&self) -> bool {
        let mut status = self.status.clone();
        let reached = status.wait_for(|s| matches!(s.state, State::Live | State::Closed));
        reached.await.is_ok_and(|s| s.is_live())
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops the client. Transactions without an answer end as unknown.
    pub async fn close(&self) {
        let Owner(life) = &*self.owner;
        life.closed.store(true, Ordering::Release);
        life.changed.notify_one();
        let mut status = self.status.clone();
        // An error says that the task is gone already.
        let _ = status.wait_for(|s| s.state == State::Closed).await;
    }
}

/// The name of a table or column of the request that a server lacks, for messages.
pub(super) fn join<'a>(names: impl IntoIterator<Item = &'a SmolStr>) -> String {
    names
        .into_iter()
        .map(SmolStr::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
