//! What replies say.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::session::Lost;
use super::{TransactError, TransactResult};
use crate::wire::{OpError, OpOutcome, OpResult};

/// The `error` member of a reply: an `<error>` object, or only its tag.
pub(super) fn rpc_error(error: &RawValue) -> OpError {
    if let Ok(error) = serde_json::from_str::<OpError>(error.get()) {
        return error;
    }
    let tag = match serde_json::from_str::<Cow<'_, str>>(error.get()) {
        Ok(tag) => tag.into_owned(),
        Err(_) => error.get().to_owned(),
    };
    OpError {
        error: tag,
        details: String::new(),
    }
}

/// Whether an error leaves open what became of the transaction: the cluster lost its leader under way, or the server
/// gave up waiting for the commit.
fn leaves_open(error: &OpError) -> bool {
    matches!(error.error.as_str(), "cluster error" | "canceled")
}

pub(super) fn transact_result(
    operations: usize,
    result: Result<&RawValue, &RawValue>,
) -> Result<TransactResult, Lost> {
    let refuse = |index, error: OpError| {
        if leaves_open(&error) {
            Err(TransactError::Unknown(error.to_string()))
        } else {
            Err(TransactError::Refused { index, error })
        }
    };
    let outcomes: Vec<OpOutcome> = match result {
        Ok(result) => serde_json::from_str(result.get())?,
        Err(error) => return Ok(refuse(None, rpc_error(error))),
    };
    let mut results: Vec<OpResult> = Vec::with_capacity(outcomes.len());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            OpOutcome::Done(result) => results.push(result),
            OpOutcome::Error(error) => {
                return Ok(refuse((index < operations).then_some(index), error));
            }
            OpOutcome::NotRun(()) => {
                return Err(Lost(
                    "a transaction's result without a reason why it stopped".to_owned(),
                ));
            }
        }
    }
    if results.len() != operations {
        return Err(Lost(format!(
            "{} results for {operations} operations",
            results.len()
        )));
    }
    Ok(Ok(results))
}
