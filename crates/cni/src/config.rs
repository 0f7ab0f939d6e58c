//! The network configuration on stdin.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Error, code};
use crate::version::Version;
use crate::wire::{Dns, Route};

/// This plugin's name, and the `type` of networks that it serves as the main plugin.
pub const PLUGIN: &str = "kube-ovn";

/// The configuration, as much of it as this plugin reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(rename = "cniVersion")]
    pub cni_version: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub server_socket: String,
    pub provider: String,
    pub routes: Option<Vec<Route>>,
    pub dns: Option<Dns>,
    pub ipam: Option<Ipam>,
    #[serde(rename = "deviceID")]
    pub device_id: String,
    pub vf_driver: String,
    pub vhost_user_socket_volume_name: String,
    pub vhost_user_socket_name: String,
    pub vhost_user_socket_consumption: String,
    /// How long to wait for the daemon, instead of the verb's own limit. Ours, not in the Go implementation.
    pub timeout_seconds: Option<u32>,
    #[serde(rename = "prevResult")]
    pub prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments", deserialize_with = "present")]
    pub valid_attachments: Option<Vec<Attachment>>,
    /// The name that the specification's text used by mistake; libcni sends both.
    #[serde(rename = "cni.dev/attachments", deserialize_with = "present")]
    pub attachments: Option<Vec<Attachment>>,
}

/// The part that speaks of addresses, where another plugin is the main one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ipam {
    pub server_socket: String,
    pub provider: String,
    pub routes: Option<Vec<Route>>,
}

/// An interface that the runtime still has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// A list that is there: libcni writes an empty one as `null`, which is not the same as leaving it out.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Attachment>>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

impl Config {
    /// Decodes the configuration and sets `version`, then checks it.
    pub fn read(stdin: &[u8], version: &mut Option<Version>) -> Result<Self, Error> {
        let mut config: Self = serde_json::from_slice(stdin).map_err(|error| {
            Error::new(
                code::DECODING_FAILURE,
                "cannot decode the network configuration",
            )
            .details(error.to_string())
        })?;
        *version = Some(Version::parse(&config.cni_version).ok_or_else(|| {
            Error::new(
                code::INCOMPATIBLE_VERSION,
                format!("incompatible CNI version `{}`", config.cni_version),
            )
            .details(format!("supported: {}", Version::list()))
        })?);
        if let (true, Some(ipam)) = (config.is_delegate(), config.ipam.take()) {
            config.server_socket = ipam.server_socket;
            config.provider = ipam.provider;
            config.routes = ipam.routes;
        }
        if config.name.is_empty() {
            return Err(invalid("`name` is missing"));
        }
        if config.server_socket.is_empty() {
            return Err(invalid(
                "`server_socket` is missing: it must be the path of the daemon's socket",
            ));
        }
        if config.provider.is_empty() {
            "ovn".clone_into(&mut config.provider);
        }
        Ok(config)
    }

    /// Whether another plugin asks for addresses only.
    pub fn is_delegate(&self) -> bool {
        self.kind != PLUGIN
    }

    /// How long to wait for the daemon.
    pub fn timeout(&self, default: Duration) -> Duration {
        self.timeout_seconds
            .map_or(default, |seconds| Duration::from_secs(seconds.into()))
    }
}

/// An error in the configuration.
pub fn invalid(details: impl Into<String>) -> Error {
    Error::new(
        code::INVALID_NETWORK_CONFIG,
        "invalid network configuration",
    )
    .details(details)
}
