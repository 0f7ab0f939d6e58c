//! JSON-RPC 1.0 messages (section 4).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A message from the server, split into its parts but not decoded further.
///
/// Our own requests carry numbers as identifiers; the server's `echo` carries a string that is sent back as it came.
#[derive(Debug)]
pub enum Incoming<'a> {
    Request {
        id: &'a RawValue,
        method: Cow<'a, str>,
        params: &'a RawValue,
    },
    Notification {
        method: Cow<'a, str>,
        params: &'a RawValue,
    },
    /// The reply to the request with this number.
    Reply {
        id: u64,
        /// `Err` is the `error` member.
        result: Result<&'a RawValue, &'a RawValue>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

/// Serde reads `null` of an `Option<&RawValue>` as `None`, so a member that is there is not null.
impl<'a> Incoming<'a> {
    pub fn parse(frame: &'a [u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let envelope: Envelope<'a> = serde_json::from_slice(frame)?;
        let params = |params: Option<&'a RawValue>| params.unwrap_or(RawValue::NULL);
        match (envelope.method, envelope.id) {
            (Some(method), Some(id)) => Ok(Self::Request {
                id,
                method,
                params: params(envelope.params),
            }),
            (Some(method), None) => Ok(Self::Notification {
                method,
                params: params(envelope.params),
            }),
            (None, Some(id)) => Ok(Self::Reply {
                id: serde_json::from_str(id.get())?,
                result: match envelope.error {
                    Some(error) => Err(error),
                    None => Ok(envelope.result.unwrap_or(RawValue::NULL)),
                },
            }),
            (None, None) => Err(serde_json::Error::custom(
                "a message with neither method nor id",
            )),
        }
    }
}

#[derive(Serialize)]
struct Request<'a, P> {
    id: u64,
    method: &'a str,
    params: P,
}

#[derive(Serialize)]
struct Reply<'a, R> {
    id: &'a RawValue,
    result: Option<R>,
    error: Option<&'a str>,
}

/// Appends a request to `out`.
pub fn encode_request<P: Serialize>(
    out: &mut Vec<u8>,
    id: u64,
    method: &str,
    params: P,
) -> Result<(), serde_json::Error> {
    serde_json::to_writer(out, &Request { id, method, params })
}

/// Appends the reply to a request of the server, such as `echo`.
pub fn encode_reply<R: Serialize>(
    out: &mut Vec<u8>,
    id: &RawValue,
    result: R,
) -> Result<(), serde_json::Error> {
    serde_json::to_writer(
        out,
        &Reply {
            id,
            result: Some(result),
            error: None,
        },
    )
}

/// Appends a refusal of a request of the server.
pub fn encode_error_reply(
    out: &mut Vec<u8>,
    id: &RawValue,
    error: &str,
) -> Result<(), serde_json::Error> {
    serde_json::to_writer(
        out,
        &Reply::<()> {
            id,
            result: None,
            error: Some(error),
        },
    )
}
