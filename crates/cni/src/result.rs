//! Results of ADD in the shape of each version of the specification, and results of an earlier ADD.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, code};
use crate::version::Version;
use crate::wire::{Dns, Response, Route};

/// An interface of a result.
#[derive(Debug, Serialize)]
struct Interface<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    mac: &'a str,
    /// Since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    sandbox: &'a str,
}

/// An address of a result.
#[derive(Debug, Serialize)]
struct Ip<'a> {
    /// `4` or `6`; until 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// Index of the interface; absent where another plugin makes the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    /// Address and prefix length.
    address: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    gateway: &'a str,
}

/// A result since 0.3.0.
#[derive(Debug, Serialize)]
struct Modern<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<Ip<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    dns: &'a Dns,
}

/// A result until 0.2.0: one address of each family, without interfaces.
#[derive(Debug, Serialize)]
struct Legacy<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<LegacyAddress<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<LegacyAddress<'a>>,
    dns: &'a Dns,
}

#[derive(Debug, Serialize)]
struct LegacyAddress<'a> {
    ip: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    gateway: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

/// Prints the daemon's answer to ADD as a result. `dns` is the configuration's, for a daemon that says nothing of it.
pub fn print(
    response: &Response,
    version: Version,
    sandbox: &str,
    dns: &Dns,
) -> Result<String, Error> {
    let dns = if response.dns == Dns::default() {
        dns
    } else {
        &response.dns
    };
    let mut addresses = Vec::new();
    for ip in response.ips.iter().flatten() {
        let address: IpAddr = parse("address", &ip.ip)?;
        if !ip.gateway.is_empty() {
            parse::<IpAddr>("gateway", &ip.gateway)?;
        }
        addresses.push((address, prefix(address, &ip.cidr)?, ip.gateway.as_str()));
    }
    let routes = routes(response, &addresses)?;

    let printed = if version <= Version::V0_2_0 {
        let family = |v4: bool| {
            let (address, prefix, gateway) =
                addresses.iter().find(|(ip, ..)| ip.is_ipv4() == v4)?;
            Some(LegacyAddress {
                ip: format!("{address}/{prefix}"),
                gateway,
                routes: routes
                    .iter()
                    .filter(|route| is_v4(&route.dst) == v4)
                    .cloned()
                    .collect(),
            })
        };
        serde_json::to_string(&Legacy {
            cni_version: version.as_str(),
            ip4: family(true),
            ip6: family(false),
            dns,
        })
    } else {
        // A plugin that asked for addresses only makes the interface itself.
        let has_interface = !response.nicname.is_empty();
        let interface = Interface {
            name: &response.nicname,
            mac: &response.mac_address,
            mtu: (version >= Version::V1_1_0 && response.mtu != 0).then_some(response.mtu),
            sandbox,
        };
        serde_json::to_string(&Modern {
            cni_version: version.as_str(),
            interfaces: has_interface.then_some(interface).into_iter().collect(),
            ips: addresses
                .iter()
                .map(|(address, prefix, gateway)| Ip {
                    version: (version < Version::V1_0_0).then_some(if address.is_ipv4() {
                        "4"
                    } else {
                        "6"
                    }),
                    interface: has_interface.then_some(0),
                    address: format!("{address}/{prefix}"),
                    gateway,
                })
                .collect(),
            routes,
            dns,
        })
    };
    printed.map_err(|error| undecodable(error.to_string()))
}

/// The daemon's routes with their destinations filled in, or else a default route through each gateway.
fn routes(response: &Response, addresses: &[(IpAddr, u8, &str)]) -> Result<Vec<Route>, Error> {
    let given = response.routes.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Ok(addresses
            .iter()
            .filter(|(.., gateway)| !gateway.is_empty())
            .map(|(address, _, gateway)| Route {
                dst: default_route(address.is_ipv4()).to_owned(),
                gw: (*gateway).to_owned(),
            })
            .collect());
    }
    given
        .iter()
        .map(|route| {
            let mut route = route.clone();
            if route.dst.is_empty() {
                let gateway: IpAddr = parse("route's gateway", &route.gw)?;
                default_route(gateway.is_ipv4()).clone_into(&mut route.dst);
            }
            Ok(route)
        })
        .collect()
}

const fn default_route(v4: bool) -> &'static str {
    if v4 { "0.0.0.0/0" } else { "::/0" }
}

fn is_v4(destination: &str) -> bool {
    !destination.contains(':')
}

/// The prefix length of a CIDR of the address's family.
fn prefix(address: IpAddr, cidr: &str) -> Result<u8, Error> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    cidr.split_once('/')
        .filter(|(network, _)| is_v4(network) == address.is_ipv4())
        .and_then(|(_, length)| length.parse().ok())
        .filter(|length| *length <= longest)
        .ok_or_else(|| undecodable(format!("`{cidr}` is not a CIDR of {address}")))
}

fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| undecodable(format!("`{text}` is not an {what}")))
}

fn undecodable(details: String) -> Error {
    Error::new(code::DECODING_FAILURE, "cannot decode the daemon's answer").details(details)
}

/// What ADD had returned about an interface: its addresses with prefix lengths, and its MAC address.
pub fn previous(result: &Value, ifname: &str) -> (Vec<String>, String) {
    let empty = Vec::new();
    let list = |key: &str| result.get(key).and_then(Value::as_array).unwrap_or(&empty);
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let interfaces = list("interfaces");
    // Plugins behind us in the chain add interfaces of their own; ours is the one inside the sandbox with our name.
    let ours = interfaces.iter().position(|interface| {
        text(interface, "name") == ifname && !text(interface, "sandbox").is_empty()
    });
    let addresses = list("ips")
        .iter()
        .filter(|ip| match ip.get("interface").and_then(Value::as_u64) {
            Some(index) => usize::try_from(index).ok() == ours,
            None => true,
        })
        .map(|ip| text(ip, "address"))
        .collect();
    let mac = ours.map_or_else(String::new, |index| text(&interfaces[index], "mac"));
    (addresses, mac)
}
