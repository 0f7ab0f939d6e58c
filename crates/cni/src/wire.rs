//! What goes to and comes from the daemon. The daemon's side, with explanations, is `api::cni`; tests compare the two.

use serde::{Deserialize, Serialize};

pub const PATH_ADD: &str = "/api/v1/add";
pub const PATH_DEL: &str = "/api/v1/del";
pub const PATH_CHECK: &str = "/api/v1/check";
pub const PATH_GC: &str = "/api/v1/gc";
pub const PATH_STATUS: &str = "/api/v1/status";

#[derive(Debug, Default, Serialize)]
pub struct Request<'a> {
    pub cni_type: &'a str,
    pub pod_name: &'a str,
    pub pod_namespace: &'a str,
    /// Which pod of that name: one that was deleted and made again has another. Ours, not in the Go implementation.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub pod_uid: &'a str,
    pub container_id: &'a str,
    pub net_ns: &'a str,
    pub if_name: &'a str,
    pub provider: &'a str,
    pub routes: &'a [Route],
    pub dns: Dns,
    pub vf_driver: &'a str,
    #[serde(rename = "deviceID")]
    pub device_id: &'a str,
    pub vhost_user_socket_volume_name: &'a str,
    pub vhost_user_socket_name: &'a str,
    pub vhost_user_socket_consumption: &'a str,
    /// CHECK only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// CHECK only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct GcRequest<'a> {
    pub cni_type: &'a str,
    pub network: &'a str,
    pub provider: &'a str,
    pub valid_attachments: Vec<Attachment<'a>>,
}

#[derive(Debug, Serialize)]
pub struct Attachment<'a> {
    pub container_id: &'a str,
    pub if_name: &'a str,
}

#[derive(Debug, Serialize)]
pub struct StatusRequest<'a> {
    pub cni_type: &'a str,
    pub provider: &'a str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Response {
    pub ips: Option<Vec<ResponseIp>>,
    pub mac_address: String,
    pub routes: Option<Vec<Route>>,
    pub mtu: u32,
    pub nicname: String,
    pub dns: Dns,
    pub error: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseIp {
    pub ip: String,
    pub cidr: String,
    pub gateway: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dst: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gw: String,
}

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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Failure {
    pub error: String,
    pub code: Option<u32>,
}
