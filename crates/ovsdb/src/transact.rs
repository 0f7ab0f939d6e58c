//! What becomes of a transaction.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::wire::{OpError, OpResult};

/// Results of the operations, one for each.
pub type TransactResult = Result<Vec<OpResult>, TransactError>;

/// Why a transaction has no results. Except for [`TransactError::Unknown`] it was certainly not committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum TransactError {
    /// There is no connection with a complete replica at this moment; nothing was sent.
    #[error("not connected to the database")]
    NotConnected,
    /// The server refused it.
    #[error("{}{error}", at(*.index))]
    Refused {
        /// The operation that failed; `None` if the transaction as a whole did, for example at a constraint that is
        /// checked last.
        index: Option<usize>,
        error: OpError,
    },
    /// The connection was lost, or the cluster was in trouble, after it had been sent: it may have been committed, or
    /// may yet be. Look at the replica once it is complete again.
    #[error("it is not known whether the transaction was committed: {0}")]
    Unknown(String),
    /// The operations cannot be put into a server's JSON: a real is not finite, or a text holds a NUL character. They
    /// never will be, whatever the connection.
    #[error("the transaction cannot be encoded: {0}")]
    Encoding(String),
    /// The client has been stopped.
    #[error("the client is closed")]
    Closed,
}

fn at(index: Option<usize>) -> String {
    index.map_or_else(String::new, |i| format!("operation {i}: "))
}

impl TransactError {
    /// A `wait` did not find what it waited for: the guard of the transaction did not hold.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.error == "timed out")
    }

    /// Whether it may have been committed.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}
