//! What a client connects to and what it monitors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smol_str::SmolStr;
use thiserror::Error;

use super::{Remote, TlsConfig};
use crate::wire::Condition;

/// Columns to monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// All that the server's schema has.
    #[default]
    All,
    /// These; one that the server lacks is reported in [`Connected::missing`](super::Connected::missing).
    Some(BTreeSet<SmolStr>),
}

/// What to monitor of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSelection {
    pub columns: Columns,
    /// Rows that match any of these; all rows if empty. Servers older than Open vSwitch 2.6 send all rows.
    pub conditions: Vec<Condition>,
}

impl TableSelection {
    pub fn all() -> Self {
        Self::default()
    }

    pub fn columns<S: Into<SmolStr>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self {
            columns: Columns::Some(columns.into_iter().map(Into::into).collect()),
            conditions: Vec::new(),
        }
    }

    /// Adds a condition; conditions are joined by *or*.
    #[must_use]
    pub fn matching(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }
}

/// Pauses between rounds through the remotes; within a round there are none. Each pause is twice the one before, up to
/// the longest, less a random part of up to a quarter: clients that lost one server must not come back as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            // An election takes 1 to 2 s: a longer pause would only add to it.
            max: Duration::from_secs(1),
        }
    }
}

impl Backoff {
    /// The pause after this many rounds without success, counted from 1. `chance`: any number, evenly distributed.
    pub(super) fn pause(&self, round: u32, chance: u32) -> Duration {
        let doubled = 1_u32
            .checked_shl(round.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let whole = self.initial.saturating_mul(doubled).min(self.max);
        whole.saturating_sub((whole / 4).mul_f64(f64::from(chance) / f64::from(u32::MAX)))
    }
}

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Tried in this order, over and over.
    pub remotes: Vec<Remote>,
    pub database: SmolStr,
    /// Of a cluster use the leader only. A standalone server is its own leader.
    pub leader_only: bool,
    /// Tables to replicate. None: the client only carries transactions.
    pub tables: BTreeMap<SmolStr, TableSelection>,
    /// Needed for `ssl:` remotes. Files are read at each connect, so that renewed certificates are used.
    pub tls: Option<TlsConfig>,
    /// The server is probed after this much silence, and given up after as much again.
    pub inactivity: Duration,
    /// How long a server may take until it is known to be usable (transport, TLS, leadership). Doubled with each round
    /// in vain, up to twice `inactivity`: a busy server gets its chance, a frozen one does not hold up the others.
    pub connect_timeout: Duration,
    pub backoff: Backoff,
    /// Transactions sent and not answered; further ones wait in the callers.
    pub max_in_flight: usize,
}

impl ClientConfig {
    pub fn new(remotes: Vec<Remote>, database: impl Into<SmolStr>) -> Self {
        Self {
            remotes,
            database: database.into(),
            leader_only: true,
            tables: BTreeMap::new(),
            tls: None,
            inactivity: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            backoff: Backoff::default(),
            max_in_flight: 64,
        }
    }

    /// Adds a table; for building a configuration in one expression.
    #[must_use]
    pub fn monitor(mut self, table: impl Into<SmolStr>, selection: TableSelection) -> Self {
        self.tables.insert(table.into(), selection);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.remotes.is_empty() {
            return Err(ConfigError::NoRemotes);
        }
        if self.max_in_flight == 0 {
            return Err(ConfigError::NothingInFlight);
        }
        if self.inactivity.is_zero() || self.connect_timeout.is_zero() {
            return Err(ConfigError::NoTime);
        }
        let ssl = self
            .remotes
            .iter()
            .find(|r| matches!(r, Remote::Ssl { .. }));
        match (ssl, &self.tls) {
            (Some(remote), None) => Err(ConfigError::NoTls(remote.clone())),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("no remote to connect to")]
    NoRemotes,
    #[error("max_in_flight is 0: no transaction could ever be sent")]
    NothingInFlight,
    #[error("inactivity and connect_timeout must be longer than 0")]
    NoTime,
    #[error("remote {0} needs a private key, a certificate and a CA certificate")]
    NoTls(Remote),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        let pauses = |chance| -> Vec<_> {
            let pauses = (1..7).map(|n| backoff.pause(n, chance).as_millis());
            pauses.collect()
        };
        assert_eq!(pauses(0), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pauses(u32::MAX), [75, 150, 300, 600, 750, 750]);
        assert_eq!(backoff.pause(u32::MAX, 0), backoff.max);
    }
}
