//! What the CNI plugin and the daemon say to each other, and the network configuration list that names the plugin.
//!
//! HTTP/1.1 over a unix socket ([`SOCKET`]), JSON both ways. `add` and `del` are the Go implementation's requests, so its
//! plugin and ours both work with our daemon. `check`, `gc` and `status` are ours, in the same manner.
//!
//! | request | success | body |
//! |---|---|---|
//! | `POST /api/v1/add` [`Request`] | 200 | [`Response`] |
//! | `POST /api/v1/del` [`Request`] | 204, also if there is nothing (left) to delete | empty |
//! | `POST /api/v1/check` [`CheckRequest`] | 204 | empty |
//! | `POST /api/v1/gc` [`GcRequest`] | 204 | empty |
//! | `POST /api/v1/status` [`StatusRequest`] | 204 | empty |
//!
//! Anything else is a [`Failure`]: 400 for a request that will never work, 503 for one that could later, 500 otherwise.
//!
//! The plugin has its own copies of these types, to stay small; its tests compare them.

use std::net::IpAddr;

use net::{Cidr, Mac};
use serde::{Deserialize, Serialize};

use crate::null_is_default;

/// The daemon's socket.
pub const SOCKET: &str = "/run/openvswitch/kube-ovn-daemon.sock";
/// Attach a pod's interface.
pub const PATH_ADD: &str = "/api/v1/add";
/// Detach a pod's interface.
pub const PATH_DEL: &str = "/api/v1/del";
/// Verify a pod's interface.
pub const PATH_CHECK: &str = "/api/v1/check";
/// Detach everything but a list of interfaces.
pub const PATH_GC: &str = "/api/v1/gc";
/// Say whether pods can be attached.
pub const PATH_STATUS: &str = "/api/v1/status";

/// The plugin's name: its file in `/opt/cni/bin`, and the network's `type`.
pub const PLUGIN: &str = "kube-ovn";
/// The file in `/etc/cni/net.d`; sorts before other plugins' so that the kubelet takes it.
pub const CONFLIST_NAME: &str = "01-kube-ovn.conflist";
/// The file's content: the Go implementation's. `portmap` serves `hostPort`.
///
/// 0.3.1 is understood by every container runtime in use, the plugin speaks up to 1.1.0 for those who raise it.
pub const CONFLIST: &str = r#"{
    "name":"kube-ovn",
    "cniVersion":"0.3.1",
    "plugins":[
        {
            "type":"kube-ovn",
            "server_socket":"/run/openvswitch/kube-ovn-daemon.sock"
        },
        {
            "type":"portmap",
            "capabilities":{
                "portMappings":true
            }
        }
    ]
}
"#;

/// Error codes of the CNI specification (1.1.0, "Error").
pub mod code {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or does not exist; nothing to clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO_FAILURE: u32 = 5;
    /// Something could not be decoded.
    pub const DECODING_FAILURE: u32 = 6;
    /// The network configuration is invalid.
    pub const INVALID_NETWORK_CONFIG: u32 = 7;
    /// A transient condition; the runtime should retry.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: the plugin is not available, ADD would fail.
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
    /// STATUS: as 50, and running containers may have limited connectivity.
    pub const PLUGIN_NOT_AVAILABLE_LIMITED: u32 = 51;
    /// From here on codes are ours.
    pub const OWN: u32 = 100;
    /// CHECK: the interface is not as it should be.
    pub const CHECK_FAILED: u32 = 100;
    /// ADD: the pod is being deleted or is gone; nobody needs its interface any more.
    pub const POD_GONE: u32 = 101;
    /// What has no code of its own (the Go library's default).
    pub const OTHER: u32 = 999;
}

/// A request to attach or detach a pod's interface. Detaching leaves what it does not need empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The configuration's `type`: [`PLUGIN`], or another plugin's that delegates its addresses to us.
    pub cni_type: String,
    pub pod_name: String,
    pub pod_namespace: String,
    /// Which pod of that name; empty if the runtime does not say, and from the Go implementation's plugin.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// The sandbox.
    pub container_id: String,
    /// Path of the sandbox's network namespace; may be empty when detaching.
    pub net_ns: String,
    /// The interface's name in the pod.
    pub if_name: String,
    /// `ovn`, or an attached network's provider.
    pub provider: String,
    /// Further routes from the configuration.
    #[serde(deserialize_with = "null_is_default")]
    pub routes: Vec<Route>,
    pub dns: Dns,
    pub vf_driver: String,
    #[serde(rename = "deviceID")]
    pub device_id: String,
    pub vhost_user_socket_volume_name: String,
    pub vhost_user_socket_name: String,
    pub vhost_user_socket_consumption: String,
}

/// A request to verify a pod's interface against what ADD had returned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckRequest {
    #[serde(flatten)]
    pub request: Request,
    /// Addresses of the interface with their prefix lengths, `10.16.0.5/16`.
    pub addresses: Vec<String>,
    /// MAC address of the interface; empty if the previous result had none.
    pub mac_address: String,
}

/// A request to detach everything of ours on this node but some interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GcRequest {
    pub cni_type: String,
    /// The configuration's name.
    pub network: String,
    pub provider: String,
    /// What the runtime still has.
    pub valid_attachments: Vec<Attachment>,
}

/// An interface of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub container_id: String,
    pub if_name: String,
}

/// A question whether pods can be attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusRequest {
    pub cni_type: String,
    pub provider: String,
}

/// The interface that a pod got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    #[serde(deserialize_with = "null_is_default")]
    pub ips: Vec<ResponseIp>,
    /// Absent for a plugin that asks for addresses only.
    #[serde(deserialize_with = "empty_is_none", serialize_with = "none_is_empty")]
    pub mac_address: Option<Mac>,
    /// Routes of the interface; if empty, a default route through each gateway.
    #[serde(deserialize_with = "null_is_default")]
    pub routes: Vec<Route>,
    pub mtu: u32,
    /// The interface's name in the pod.
    pub nicname: String,
    pub dns: Dns,
    /// Empty on success.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// An address of a [`Response`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseIp {
    pub protocol: Protocol,
    pub ip: IpAddr,
    pub cidr: Cidr,
    /// Absent where the pod's default route is another network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl ResponseIp {
    /// An address; the protocol follows from it.
    pub fn new(ip: IpAddr, cidr: Cidr, gateway: Option<IpAddr>) -> Self {
        let protocol = match ip {
            IpAddr::V4(_) => Protocol::IPv4,
            IpAddr::V6(_) => Protocol::IPv6,
        };
        Self {
            protocol,
            ip,
            cidr,
            gateway,
        }
    }
}

/// The family of a [`ResponseIp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    IPv4,
    IPv6,
}

/// A route; an absent destination is the default route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dst: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gw: String,
}

/// Name servers as CNI has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The body of any answer that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// What went wrong, with which object, and what to do.
    pub error: String,
    /// A [`code`] for the runtime. Without one, the plugin takes 7 for status 400 and 11 (or 50 for `status`) otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
}

fn empty_is_none<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Mac>, D::Error> {
    match Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's calling convention"
)]
fn none_is_empty<S: serde::Serializer>(
    mac: &Option<Mac>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match mac {
        Some(mac) => serializer.collect_str(mac),
        None => serializer.serialize_str(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn conflist_chains_portmap_behind_us() {
        let list: Value = serde_json::from_str(CONFLIST).unwrap();
        assert_eq!(
            list,
            json!({
                "name": "kube-ovn",
                "cniVersion": "0.3.1",
                "plugins": [
                    {"type": PLUGIN, "server_socket": SOCKET},
                    {"type": "portmap", "capabilities": {"portMappings": true}},
                ],
            })
        );
    }

    #[test]
    fn a_request_of_the_go_plugin_is_understood() {
        let request: Request = serde_json::from_value(json!({
            "cni_type": "kube-ovn", "pod_name": "web", "pod_namespace": "default",
            "container_id": "c0ffee", "net_ns": "/var/run/netns/x", "if_name": "eth0",
            "provider": "ovn", "routes": [{"dst": "1.2.3.0/24", "gw": "10.16.0.1"}],
            "dns": {}, "vf_driver": "", "deviceID": "0000:01:00.0",
            "vhost_user_socket_volume_name": "", "vhost_user_socket_name": "",
            "vhost_user_socket_consumption": ""
        }))
        .unwrap();
        let without: Request =
            serde_json::from_value(json!({"pod_name": "web", "routes": null, "dns": {}})).unwrap();
        assert!(without.routes.is_empty(), "Go writes an empty list as null");
        assert_eq!(request.pod_uid, "");
        assert!(
            serde_json::to_value(&request)
                .unwrap()
                .get("pod_uid")
                .is_none(),
            "not told what is not known"
        );
        assert_eq!(request.device_id, "0000:01:00.0");
        assert_eq!(request.routes[0].gw, "10.16.0.1");
    }

    #[test]
    fn a_response_reads_as_the_go_plugin_expects() {
        let response = Response {
            ips: vec![ResponseIp::new(
                "10.16.0.5".parse().unwrap(),
                "10.16.0.0/16".parse().unwrap(),
                Some("10.16.0.1".parse().unwrap()),
            )],
            mac_address: Some("00:00:00:53:6B:B6".parse().unwrap()),
            mtu: 1400,
            nicname: "eth0".into(),
            ..Response::default()
        };
        let json = serde_json::to_value(&response).unwrap();
        assert_eq!(
            json,
            json!({
                "ips": [{"protocol": "IPv4", "ip": "10.16.0.5", "cidr": "10.16.0.0/16", "gateway": "10.16.0.1"}],
                "mac_address": "00:00:00:53:6b:b6", "routes": [], "mtu": 1400, "nicname": "eth0", "dns": {}
            })
        );
        assert_eq!(serde_json::from_value::<Response>(json).unwrap(), response);
        let empty: Response = serde_json::from_value(json!({"mac_address": ""})).unwrap();
        assert_eq!(empty.mac_address, None);
    }
}
