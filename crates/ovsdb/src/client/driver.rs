//! The task that owns the socket, the clock and the back-off.
//!
//! ```text
//!          ┌──────────────── pause, after a round in vain ───────────────┐
//!          v                                                             │
//!   next remote ── connect ── session: LeaderCheck, Schema, Monitoring ──┤ lost
//!          ^                                   │                         │
//!          └────────────── lost ───────────  Live
//! ```
//!
//! Commands are taken in every state: without a live session they are refused at once.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::handle::{Command, Life, ReplyTo, join};
use super::queue::Queue;
use super::session::{Lost, Memory, Output, Session};
use super::transport::{self, Stream};
use super::{ClientConfig, Remote, ReplicaEvent, State, Status, TransactError, TransactResult};
use crate::wire::FrameBuffer;

/// Longest message: a dump of a database of several million rows.
const LONGEST_MESSAGE: usize = 2 << 30;
/// Bytes to make room for before each read.
const READ: usize = 64 << 10;
/// No further transaction is taken while this many bytes wait for the server.
const UNSENT: usize = 4 << 20;
/// A connection that lived this long was a good one: start over with the back-off.
const STABLE: Duration = Duration::from_secs(1);
/// While it compiles the dump of a large database, a server may be silent this many times longer than else.
const DUMP_PATIENCE: u32 = 6;

/// A random number. The standard library's hasher has its own random keys.
#[expect(clippy::cast_possible_truncation, reason = "any of the bits will do")]
fn chance() -> u32 {
    RandomState::new().hash_one(()) as u32
}

enum End {
    /// The client is to stop.
    Stopped,
    Lost {
        reason: String,
        lived: Option<Duration>,
    },
}

pub(super) struct Driver {
    config: Arc<ClientConfig>,
    inbox: mpsc::Receiver<Command>,
    life: Arc<Life>,
    status: watch::Sender<Status>,
    queue: Queue,
    memory: Memory,
}

impl Driver {
    pub(super) fn new(
        config: Arc<ClientConfig>,
        inbox: mpsc::Receiver<Command>,
        life: Arc<Life>,
        status: watch::Sender<Status>,
        queue: Queue,
    ) -> Self {
        Self {
            config,
            inbox,
            life,
            status,
            queue,
            memory: Memory::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let remotes = self.config.remotes.clone();
        let mut failures: u32 = 0;
        for remote in remotes.iter().cycle() {
            let count = u32::try_from(remotes.len()).unwrap_or(u32::MAX);
            match self.visit(remote, failures / count).await {
                End::Stopped => break,
                End::Lost { reason, lived } => {
                    match lived {
                        Some(lived) => {
                            tracing::warn!(database = %self.config.database, %remote, reason, ?lived, "connection lost");
                        }
                        None => {
                            tracing::debug!(database = %self.config.database, %remote, reason, "no connection");
                        }
                    }
                    self.status.send_modify(|s| {
                        s.state = State::Waiting;
                        s.problem = Some(format!("{remote}: {reason}"));
                    });
                    if lived.is_some_and(|lived| lived >= STABLE) {
                        failures = 0;
                        continue;
                    }
                    failures = failures.saturating_add(1);
                    if failures.is_multiple_of(count) {
                        let pause = self.config.backoff.pause(failures / count, chance());
                        if self.pause(Instant::now() + pause).await {
                            break;
                        }
                    }
                }
            }
        }
        self.inbox.close();
        while let Some(Command { reply, .. }) = self.inbox.recv().await {
            self.reply(reply, Err(TransactError::Closed));
        }
        self.status.send_modify(|s| {
            s.state = State::Closed;
            s.remote = None;
        });
    }

    fn reply(&self, reply: ReplyTo, result: TransactResult) {
        match reply {
            // Whoever does not wait any more does not want to know.
            ReplyTo::Future(sender) => drop(sender.send(result)),
            ReplyTo::Events(token) => self.queue.push(ReplicaEvent::Outcome { token, result }),
        }
    }

    fn deliver(&self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Event(event) => self.queue.push(event),
                Output::Result(reply, result) => self.reply(reply, result),
            }
        }
    }

    /// True if the client is to stop.
    async fn pause(&mut self, until: Instant) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.life.over(&self.queue) => return true,
                () = sleep_until(until) => return false,
                Some(Command { reply, .. }) = self.inbox.recv(), if self.room() => {
                    self.reply(reply, Err(TransactError::NotConnected));
                }
                () = self.queue.taken(), if !self.room() => {}
            }
        }
    }

    /// Whether the consumer keeps up with the results it ordered.
    fn room(&self) -> bool {
        self.queue.outcomes() < self.config.max_in_flight
    }

    /// Connects to one remote and stays as long as it is of use. `round`: rounds through all remotes in vain so far.
    async fn visit(&mut self, remote: &Remote, round: u32) -> End {
        self.status.send_modify(|s| {
            s.state = State::Connecting;
            s.remote = Some(remote.clone());
        });
        let patience = self
            .config
            .connect_timeout
            .saturating_mul(1_u32.checked_shl(round).unwrap_or(u32::MAX))
            .min(self.config.inactivity.saturating_mul(2));
        let deadline = Instant::now() + patience;
        let config = Arc::clone(&self.config);
        let tls = config.tls.clone();
        let connect = transport::connect(remote, tls.as_ref());
        let mut connect = std::pin::pin!(timeout_at(deadline, connect));
        let stream = loop {
            tokio::select! {
                biased;
                () = self.life.over(&self.queue) => return End::Stopped,
                connected = &mut connect => break connected,
                Some(Command { reply, .. }) = self.inbox.recv(), if self.room() => {
                    self.reply(reply, Err(TransactError::NotConnected));
                }
                () = self.queue.taken(), if !self.room() => {}
            }
        };
        let failed = |reason: String| End::Lost {
            reason,
            lived: None,
        };
        match stream {
            Err(_) => failed(format!("no connection within {patience:?}")),
            Ok(Err(error)) => failed(error.to_string()),
            Ok(Ok(stream)) => {
                let memory = mem::take(&mut self.memory);
                let mut session = Session::new(config, remote.clone(), memory);
                let mut live_since = None;
                let ended = self
                    .converse(&mut session, stream, deadline, &mut live_since)
                    .await;
                let reason = match &ended {
                    Ok(()) => "the client was closed",
                    Err(Lost(reason)) => reason,
                };
                let (outputs, memory) = session.end(reason);
                self.memory = memory;
                self.deliver(outputs);
                match ended {
                    Ok(()) => End::Stopped,
                    Err(Lost(reason)) => End::Lost {
                        reason,
                        lived: live_since.map(|since| since.elapsed()),
                    },
                }
            }
        }
    }

    /// Carries bytes between the session and the stream. Returns `Ok` when the client is to stop.
    async fn converse(
        &mut self,
        session: &mut Session,
        stream: Box<dyn Stream>,
        handshake: Instant,
        live_since: &mut Option<Instant>,
    ) -> Result<(), Lost> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut frames = FrameBuffer::new(LONGEST_MESSAGE);
        let mut heard = Instant::now();
        let mut probed: Option<Instant> = None;
        let mut flushed = true;
        loop {
            while let Some(frame) = frames.next_frame()? {
                session.handle(frame)?;
            }
            if self.advance(session) {
                *live_since = Some(Instant::now());
            }
            self.deliver(session.take_outputs());

            let inactivity = self.config.inactivity;
            let live = session.state() == State::Live;
            let deadline = match session.state() {
                State::Live => probed.unwrap_or(heard) + inactivity,
                State::Monitoring => heard + inactivity.saturating_mul(DUMP_PATIENCE),
                State::Schema => heard + inactivity,
                _ => handshake,
            };
            let busy = session.in_flight() + self.queue.outcomes();
            let room = if live {
                busy < self.config.max_in_flight && session.unsent().len() < UNSENT
            } else {
                self.room()
            };
            frames.tail().reserve(READ);
            tokio::select! {
                // What arrived counts before the clock does: after a long sleep of ours the server is not to blame.
                biased;
                () = self.life.over(&self.queue) => return Ok(()),
                sent = send(&mut writer, session.unsent()), if !(flushed && session.unsent().is_empty()) => {
                    let count = sent?;
                    session.wrote(count);
                    flushed = count == 0;
                }
                read = reader.read_buf(frames.tail()) => {
                    if read? == 0 {
                        return Err(Lost("the server closed the connection".to_owned()));
                    }
                    heard = Instant::now();
                    probed = None;
                }
                Some(command) = self.inbox.recv(), if room => {
                    session.transact(&command.operations, command.reply);
                }
                () = self.queue.taken(), if !room => {}
                () = sleep_until(deadline) => {
                    if live && probed.is_none() {
                        session.probe();
                        probed = Some(Instant::now());
                    } else {
                        let silence = heard.elapsed();
                        let state = session.state();
                        return Err(Lost(format!("no answer for {silence:.1?} while {state}")));
                    }
                }
            }
        }
    }

    /// Publishes the session's state; true when it has become live just now.
    fn advance(&self, session: &Session) -> bool {
        let state = session.state();
        let before = self.status.borrow().state;
        if state == before {
            return false;
        }
        let live = state == State::Live;
        self.status.send_modify(|s| {
            s.state = state;
            if live {
                s.problem = None;
                s.connections += 1;
            }
        });
        if live && let Some(connected) = session.connected() {
            let database = &self.config.database;
            tracing::info!(
                %database,
                remote = %connected.remote,
                schema = %connected.schema.version,
                method = ?connected.method,
                resumed = connected.resumed,
                "connected"
            );
            if !connected.missing.is_empty() {
                let tables = join(&connected.missing.tables);
                let columns = connected.missing.columns.iter();
                let columns = columns.map(|(t, c)| format!("{t}.{c}"));
                let columns = columns.collect::<Vec<_>>().join(", ");
                tracing::warn!(%database, tables, columns, "the server's schema lacks tables or columns");
            }
        }
        live
    }
}

/// Sends some of the bytes; if there are none, what the transport has kept back. Cancel safe.
async fn send(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}
