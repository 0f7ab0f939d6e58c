//! Errors as a runtime reads them.

use serde::Serialize;

use crate::version::Version;

/// Codes of the CNI specification 1.1.0, section "Error".
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO_FAILURE: u32 = 5;
    pub const DECODING_FAILURE: u32 = 6;
    pub const INVALID_NETWORK_CONFIG: u32 = 7;
    /// The runtime should retry.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: ADD would fail.
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
}

/// What went wrong, for the runtime (`code`) and for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    pub code: u32,
    pub msg: String,
    pub details: String,
}

impl Error {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error as the specification has it.
    pub fn to_json(&self, version: Version) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "cniVersion")]
            cni_version: &'static str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        // Strings and a number always serialise.
        serde_json::to_string(&Body {
            cni_version: version.as_str(),
            code: self.code,
            msg: &self.msg,
            details: &self.details,
        })
        .unwrap_or_default()
    }
}
