//! A client of one database: a connection that keeps itself alive, a replica of selected tables, transactions.
//!
//! ```text
//!                commands (bounded)             ┌────────────── one task ───────────────┐   bytes
//!  Handle ────────────────────────────────────> │ driver: sockets, clock, back-off      │ <──────> ovsdb-server
//!  Events <──────────────────────────────────── │  └ session: state machine of one      │          (one of the
//!                events (bounded by merging)    │    connection   └ mirror: the replica │           remotes)
//!                                               └───────────────────────────────────────┘
//!
//!  session:  Connecting -> LeaderCheck -> Schema -> Monitoring -> Live
//! ```
//!
//! ```no_run
//! use ovsdb::client::{Client, ClientConfig, Remote, ReplicaEvent, TableSelection};
//! use ovsdb::wire::{Operation, Row};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let remotes = Remote::parse_list("tcp:192.168.1.41:6641,tcp:192.168.1.42:6641")?;
//! let config = ClientConfig::new(remotes, "OVN_Northbound")
//!     .monitor("Logical_Switch", TableSelection::columns(["name", "ports"]));
//! let (handle, mut events) = Client::connect(config)?;
//! while let Some(event) = events.recv().await {
//!     match event {
//!         ReplicaEvent::Update(deltas) => println!("{} rows changed", deltas.len()),
//!         ReplicaEvent::Synced => {
//!             let row = Row::new().with("name", "sw0");
//!             handle.submit(1, vec![Operation::insert("Logical_Switch", uuid::Uuid::nil(), row)]).await?;
//!         }
//!         ReplicaEvent::Outcome { token, result } => println!("transaction {token}: {result:?}"),
//!         ReplicaEvent::Connected(_) | ReplicaEvent::Disconnected(_) => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Order.** The server sends a client the changes of its own transaction before the transaction's result, and the
//! client keeps this order: [`ReplicaEvent::Outcome`] comes after the [`ReplicaEvent::Update`] with its effects, and a
//! future of [`Handle::transact`] becomes ready when that update is in the queue already.
//!
//! **A slow consumer** never stalls the connection. When it is behind, changes that wait for it are merged (the old side
//! of the first, the new side of the last): nothing is lost, and the queue is bounded by the size of the replica.
//!
//! **A lost connection** is replaced by one to the next remote. The replica stays; after the reconnect the consumer
//! gets the difference only. A transaction whose request was sent and whose reply was not received may or may not have
//! been committed: it ends as [`TransactError::Unknown`], and the replica says what happened once it is
//! [`ReplicaEvent::Synced`] again.

mod config;
mod driver;
mod handle;
mod leader;
mod queue;
mod remote;
mod reply;
mod session;
mod tls;
mod transport;

pub use config::{Backoff, ClientConfig, Columns, ConfigError, TableSelection};
pub use handle::{Handle, State, Status};

pub use crate::{TransactError, TransactResult};
pub use queue::{Connected, Events, Missing, MonitorMethod, ReplicaEvent};
pub use remote::{Remote, RemoteError};
pub use tls::{TlsConfig, TlsError};

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

/// The way in: [`Client::connect`].
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Starts a client. Returns at once; the connection is made, and made again when it is lost, in the background.
    ///
    /// The client runs until [`Handle::close`], or until every [`Handle`] and the [`Events`] are dropped. Dropping the
    /// `Events` alone discards events.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time enabled.
    pub fn connect(config: ClientConfig) -> Result<(Handle, Events), ConfigError> {
        config.check()?;
        let config = Arc::new(config);
        let (commands, inbox) = mpsc::channel(config.max_in_flight);
        let (status, watch) = watch::channel(Status::default());
        let (queue, events) = queue::channel();
        let life = Arc::new(handle::Life::default());
        let driver = driver::Driver::new(config, inbox, Arc::clone(&life), status, queue);
        tokio::spawn(driver.run());
        Ok((Handle::new(commands, watch, life), events))
    }
}
