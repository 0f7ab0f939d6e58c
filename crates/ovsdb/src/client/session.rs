//! The state machine of one connection: messages in, bytes and events out. It has no socket and no clock.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use smol_str::SmolStr;
use uuid::Uuid;

use super::handle::ReplyTo;
use super::leader::{self, Account, Seen};
use super::reply::{rpc_error, transact_result};
use super::{
    ClientConfig, Columns, Connected, Missing, MonitorMethod, Remote, ReplicaEvent, State,
    TransactError, TransactResult,
};
use crate::wire::{
    DatabaseSchema, FramingError, Incoming, MonitorCondSinceReply, MonitorRequest, Operation,
    Update2Params, Update3Params, UpdateParams, encode_error_reply, encode_reply, encode_request,
};
use crate::{Mirror, OutOfStep, RowDelta};

/// Identifiers of our monitors.
const SERVER_MONITOR: &str = "server";
const MONITOR: &str = "replica";

/// The connection is of no more use, for this reason.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<FramingError> for Lost {
    fn from(error: FramingError) -> Self {
        Self(error.to_string())
    }
}

impl From<OutOfStep> for Lost {
    fn from(error: OutOfStep) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Lost {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("a message that cannot be understood: {error}"))
    }
}

/// What the driver passes on, in this order.
#[derive(Debug)]
pub(super) enum Output {
    Event(ReplicaEvent),
    Result(ReplyTo, TransactResult),
}

type Requests = BTreeMap<SmolStr, [MonitorRequest; 1]>;

/// Where to go on after a reconnect.
#[derive(Debug)]
struct Resume {
    /// The last transaction in the replica.
    last: Uuid,
    /// It says nothing about rows and columns that were not monitored.
    requests: Requests,
    schema_version: SmolStr,
}

/// What outlives a connection.
#[derive(Debug, Default)]
pub(super) struct Memory {
    mirror: Mirror,
    resume: Option<Resume>,
    seen: Option<Seen>,
}

#[derive(Debug)]
enum Pending {
    Aware,
    Account,
    Schema,
    Monitor,
    Probe,
    Transact {
        operations: usize,
        reply: ReplyTo,
        /// Where in the stream of all bytes its request ends.
        end: u64,
    },
}

#[derive(Debug)]
pub(super) struct Session {
    config: Arc<ClientConfig>,
    remote: Remote,
    memory: Memory,
    state: State,
    account: Account,
    schema: Option<Arc<DatabaseSchema>>,
    missing: Missing,
    requests: Requests,
    method: MonitorMethod,
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    in_flight: usize,
    probing: bool,
    /// Bytes to send; those before `out_start` are gone.
    out: Vec<u8>,
    out_start: usize,
    /// Bytes ever handed to the transport.
    written: u64,
    outputs: Vec<Output>,
}

/// `[database, operation, ...]`.
struct TransactParams<'a> {
    database: &'a str,
    operations: &'a [Operation],
}

impl Serialize for TransactParams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(1 + self.operations.len()))?;
        seq.serialize_element(self.database)?;
        for operation in self.operations {
            seq.serialize_element(operation)?;
        }
        seq.end()
    }
}

/// Whether a text in this JSON holds a NUL character. A server takes it for a syntax error of the stream and hangs up,
/// however often the transaction is tried.
fn has_nul(mut json: &[u8]) -> bool {
    while let Some(at) = json.iter().position(|&byte| byte == b'\\') {
        if json[at..].starts_with(b"\\u0000") {
            return true;
        }
        // The escaped character is never the beginning of another escape.
        json = json.get(at + 2..).unwrap_or_default();
    }
    false
}

impl Session {
    /// A session on a fresh connection: it asks first whether the server is fit for use.
    pub(super) fn new(config: Arc<ClientConfig>, remote: Remote, memory: Memory) -> Self {
        let mut session = Self {
            config,
            remote,
            memory,
            state: State::LeaderCheck,
            account: Account::default(),
            schema: None,
            missing: Missing::default(),
            requests: Requests::new(),
            method: MonitorMethod::CondSince,
            next_id: 0,
            pending: BTreeMap::new(),
            in_flight: 0,
            probing: false,
            out: Vec::new(),
            out_start: 0,
            written: 0,
            outputs: Vec::new(),
        };
        // Without it the server cuts the connection whenever any of its databases comes, goes or changes.
        session.request(Pending::Aware, "set_db_change_aware", [true]);
        let (table, request) = Account::request(session.config.leader_only);
        let requests = BTreeMap::from([(table, [request])]);
        let params = (leader::DATABASE, SERVER_MONITOR, requests);
        session.request(Pending::Account, "monitor", params);
        session
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Transactions without a result.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes to send now.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.out[self.out_start..]
    }

    /// The transport took this many bytes of [`Session::unsent`].
    pub(super) fn wrote(&mut self, count: usize) {
        self.out_start += count;
        self.written += count as u64;
        if self.out_start == self.out.len() {
            self.out.clear();
            self.out.shrink_to(1 << 16);
            self.out_start = 0;
        } else if self.out_start > self.out.len() / 2 {
            // A server that never quite catches up must not make the sent part grow for ever.
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
    }

    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        mem::take(&mut self.outputs)
    }

    /// The new connection, among the outputs that were not taken yet.
    pub(super) fn connected(&self) -> Option<&Connected> {
        self.outputs.iter().find_map(|output| match output {
            Output::Event(ReplicaEvent::Connected(connected)) => Some(connected),
            _ => None,
        })
    }

    /// Asks for a sign of life.
    pub(super) fn probe(&mut self) {
        if !self.probing {
            self.probing = true;
            self.request(Pending::Probe, "echo", [(); 0]);
        }
    }

    pub(super) fn transact(&mut self, operations: &[Operation], reply: ReplyTo) {
        if self.state != State::Live {
            self.outputs
                .push(Output::Result(reply, Err(TransactError::NotConnected)));
            return;
        }
        let id = self.take_id();
        let before = self.out.len();
        let params = TransactParams {
            database: &self.config.database,
            operations,
        };
        let problem = match encode_request(&mut self.out, id, "transact", params) {
            Err(error) => Some(error.to_string()),
            Ok(()) if has_nul(&self.out[before..]) => {
                Some("a text holds a NUL character, which OVSDB does not know".to_owned())
            }
            Ok(()) => None,
        };
        if let Some(problem) = problem {
            self.out.truncate(before);
            let error = TransactError::Encoding(problem);
            self.outputs.push(Output::Result(reply, Err(error)));
            return;
        }
        self.in_flight += 1;
        let end = self.written + self.unsent().len() as u64;
        let operations = operations.len();
        self.pending.insert(
            id,
            Pending::Transact {
                operations,
                reply,
                end,
            },
        );
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn request(&mut self, pending: Pending, method: &str, params: impl Serialize) {
        let id = self.take_id();
        // Only our own parameters come here; they have no reals, hence nothing that JSON cannot hold.
        if encode_request(&mut self.out, id, method, params).is_ok() {
            self.pending.insert(id, pending);
        }
    }

    /// Takes one message from the server.
    pub(super) fn handle(&mut self, frame: &[u8]) -> Result<(), Lost> {
        match Incoming::parse(frame)? {
            Incoming::Request { id, method, params } => {
                if method == "echo" {
                    encode_reply(&mut self.out, id, params)?;
                } else {
                    encode_error_reply(&mut self.out, id, "unknown method")?;
                }
                Ok(())
            }
            Incoming::Notification { method, params } => self.notified(&method, params),
            Incoming::Reply { id, result } => match self.pending.remove(&id) {
                Some(pending) => self.replied(pending, result),
                None => Err(Lost(format!("a reply to request {id}, which nobody made"))),
            },
        }
    }

    fn notified(&mut self, method: &str, params: &RawValue) -> Result<(), Lost> {
        let deltas = match method {
            "update" => {
                let UpdateParams(monitor, updates) = serde_json::from_str(params.get())?;
                if monitor == SERVER_MONITOR {
                    self.account.apply(updates);
                    return self.check();
                }
                self.expect_live(&monitor)?;
                self.memory.mirror.apply(updates)
            }
            "update2" => {
                let Update2Params(monitor, updates) = serde_json::from_str(params.get())?;
                self.expect_live(&monitor)?;
                let applied = self.memory.mirror.apply2(updates);
                self.in_step(applied)?
            }
            "update3" => {
                let Update3Params(monitor, last, updates) = serde_json::from_str(params.get())?;
                self.expect_live(&monitor)?;
                let applied = self.memory.mirror.apply2(updates);
                let deltas = self.in_step(applied)?;
                self.remember(last);
                deltas
            }
            "monitor_canceled" => {
                return Err(Lost(
                    "the server canceled the monitor: the database was converted or removed"
                        .to_owned(),
                ));
            }
            // `locked` and `stolen`: we take no locks.
            _ => return Ok(()),
        };
        if !deltas.is_empty() {
            self.emit(ReplicaEvent::Update(deltas));
        }
        Ok(())
    }

    fn expect_live(&self, monitor: &str) -> Result<(), Lost> {
        if monitor == MONITOR && self.state == State::Live {
            Ok(())
        } else {
            Err(Lost(format!("an update for {monitor:?} out of turn")))
        }
    }

    fn in_step(
        &mut self,
        applied: Result<Vec<RowDelta>, OutOfStep>,
    ) -> Result<Vec<RowDelta>, Lost> {
        applied.map_err(|error| {
            // What was missed cannot be known: fetch everything at the next connection.
            self.memory.resume = None;
            error.into()
        })
    }

    /// Notes the last transaction in the replica.
    fn remember(&mut self, last: Uuid) {
        match &mut self.memory.resume {
            resume if last.is_nil() => *resume = None,
            // Requests and schema do not change during a session.
            Some(resume) => resume.last = last,
            resume => {
                *resume = self.schema.as_ref().map(|schema| Resume {
                    last,
                    requests: self.requests.clone(),
                    schema_version: schema.version.clone(),
                });
            }
        }
    }

    fn emit(&mut self, event: ReplicaEvent) {
        self.outputs.push(Output::Event(event));
    }

    /// Looks at the server's account of itself, and goes on if it was waited for.
    fn check(&mut self) -> Result<(), Lost> {
        let database = &self.config.database;
        self.account
            .check(database, self.config.leader_only, self.memory.seen)
            .map_err(Lost)?;
        if self.state >= State::Monitoring
            && let Some(seen) = self.account.seen(database)
        {
            self.memory.seen = Some(seen);
        }
        if self.state == State::LeaderCheck {
            self.state = State::Schema;
            let database = database.clone();
            self.request(Pending::Schema, "get_schema", [database]);
        }
        Ok(())
    }

    fn replied(
        &mut self,
        pending: Pending,
        result: Result<&RawValue, &RawValue>,
    ) -> Result<(), Lost> {
        match pending {
            // Older servers do not know it.
            Pending::Aware => Ok(()),
            Pending::Probe => {
                self.probing = false;
                Ok(())
            }
            Pending::Account => {
                self.account.begin(result)?;
                self.check()
            }
            Pending::Schema => match result {
                Ok(schema) => {
                    let schema: DatabaseSchema = serde_json::from_str(schema.get())?;
                    self.start_monitoring(schema);
                    Ok(())
                }
                Err(error) => Err(Lost(format!("get_schema: {}", rpc_error(error)))),
            },
            Pending::Monitor => match result {
                Ok(result) => self.monitoring(result),
                Err(error) => self.monitor_refused(error),
            },
            Pending::Transact {
                operations, reply, ..
            } => {
                self.in_flight -= 1;
                let result = transact_result(operations, result)?;
                self.outputs.push(Output::Result(reply, result));
                Ok(())
            }
        }
    }

    fn start_monitoring(&mut self, schema: DatabaseSchema) {
        for (table, selection) in &self.config.tables {
            let Some(in_schema) = schema.tables.get(table) else {
                self.missing.tables.push(table.clone());
                continue;
            };
            let columns = match &selection.columns {
                Columns::All => in_schema.columns.keys().cloned().collect(),
                Columns::Some(wanted) => {
                    let (known, unknown): (Vec<_>, Vec<_>) = wanted
                        .iter()
                        .cloned()
                        .partition(|c| in_schema.columns.contains_key(c));
                    let unknown = unknown.into_iter().map(|c| (table.clone(), c));
                    self.missing.columns.extend(unknown);
                    known
                }
            };
            let request = MonitorRequest {
                columns,
                conditions: selection.conditions.clone(),
            };
            self.requests.insert(table.clone(), [request]);
        }
        let resumable = self.memory.resume.as_ref().is_some_and(|resume| {
            resume.requests == self.requests && resume.schema_version == schema.version
        });
        if !resumable {
            self.memory.resume = None;
        }
        self.memory.mirror.set_schema(
            schema
                .tables
                .iter()
                .filter(|(name, _)| self.requests.contains_key(*name))
                .map(|(name, table)| (name.clone(), table.clone()))
                .collect(),
        );
        self.schema = Some(Arc::new(schema));
        self.state = State::Monitoring;
        if self.requests.is_empty() {
            // Nothing to follow: the client carries transactions only.
            let deltas = self.memory.mirror.replace2(crate::wire::Members::default());
            self.go_live(deltas, false);
        } else {
            self.send_monitor();
        }
    }

    fn send_monitor(&mut self) {
        let database = self.config.database.clone();
        let mut requests = self.requests.clone();
        match self.method {
            MonitorMethod::CondSince => {
                let last = self.memory.resume.as_ref().map_or(Uuid::nil(), |r| r.last);
                let params = (database, MONITOR, requests, last);
                self.request(Pending::Monitor, "monitor_cond_since", params);
            }
            MonitorMethod::Cond => {
                let params = (database, MONITOR, requests);
                self.request(Pending::Monitor, "monitor_cond", params);
            }
            MonitorMethod::Plain => {
                for [request] in requests.values_mut() {
                    request.conditions.clear();
                }
                let params = (database, MONITOR, requests);
                self.request(Pending::Monitor, "monitor", params);
            }
        }
    }

    fn monitor_refused(&mut self, error: &RawValue) -> Result<(), Lost> {
        let error = rpc_error(error);
        if error.error != "unknown method" {
            return Err(Lost(format!("monitor: {error}")));
        }
        self.memory.resume = None;
        self.method = match self.method {
            MonitorMethod::CondSince => MonitorMethod::Cond,
            MonitorMethod::Cond => MonitorMethod::Plain,
            MonitorMethod::Plain => return Err(Lost(format!("monitor: {error}"))),
        };
        self.send_monitor();
        Ok(())
    }

    /// The first contents, or what changed since the last connection.
    fn monitoring(&mut self, result: &RawValue) -> Result<(), Lost> {
        let mirror = &mut self.memory.mirror;
        let (deltas, resumed) = match self.method {
            MonitorMethod::CondSince => {
                let MonitorCondSinceReply(found, last, updates) =
                    serde_json::from_str(result.get())?;
                let found = found && self.memory.resume.is_some();
                let deltas = if found {
                    let applied = mirror.apply2(updates);
                    self.in_step(applied)?
                } else {
                    mirror.replace2(updates)
                };
                self.remember(last);
                (deltas, found)
            }
            MonitorMethod::Cond => (mirror.replace2(serde_json::from_str(result.get())?), false),
            MonitorMethod::Plain => (mirror.replace(serde_json::from_str(result.get())?), false),
        };
        self.go_live(deltas, resumed);
        Ok(())
    }

    fn go_live(&mut self, deltas: Vec<RowDelta>, resumed: bool) {
        let Some(schema) = self.schema.clone() else {
            return;
        };
        self.state = State::Live;
        self.memory.seen = self.account.seen(&self.config.database);
        let connected = Connected {
            remote: self.remote.clone(),
            schema,
            missing: mem::take(&mut self.missing),
            method: self.method,
            resumed,
        };
        self.emit(ReplicaEvent::Connected(connected));
        if !deltas.is_empty() {
            self.emit(ReplicaEvent::Update(deltas));
        }
        self.emit(ReplicaEvent::Synced);
    }

    /// The connection ended: what is left to say, and what the next session starts from.
    pub(super) fn end(mut self, reason: &str) -> (Vec<Output>, Memory) {
        for pending in mem::take(&mut self.pending).into_values() {
            if let Pending::Transact { reply, end, .. } = pending {
                // A request whose last byte stayed here was never complete for the server.
                let error = if end > self.written {
                    TransactError::NotConnected
                } else {
                    TransactError::Unknown(reason.to_owned())
                };
                self.outputs.push(Output::Result(reply, Err(error)));
            }
        }
        if self.state == State::Live {
            self.emit(ReplicaEvent::Disconnected(reason.to_owned()));
        }
        (self.outputs, self.memory)
    }
}
