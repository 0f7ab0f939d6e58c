//! The node's own Open vSwitch database: what of it matters to us, and the transactions that we send.
//!
//! Pure: the daemon feeds [`OvsView`] with the rows that its OVSDB session reports and sends the operations.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::wire::{Atom, Condition, Datum, Mutation, Operation, Row};
use smol_str::{SmolStr, format_smolstr};
use uuid::Uuid;

use crate::plan::{INTEGRATION_BRIDGE, JOIN_INTERFACE, JoinPortPlan};

/// `external_ids:vendor` of rows that Kube-OVN made.
pub const VENDOR: &str = "kube-ovn";

/// Tables and columns that the view needs.
pub const MONITORED: &[(&str, &[&str])] = &[
    (
        "Open_vSwitch",
        &["external_ids", "other_config", "ovs_version"],
    ),
    ("Bridge", &["name", "ports", "datapath_type"]),
    ("Port", &["name", "interfaces", "external_ids"]),
    (
        "Interface",
        &[
            "name",
            "type",
            "external_ids",
            "ofport",
            "error",
            "mac",
            "mtu_request",
            "link_state",
        ],
    ),
];

/// An OVS interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: SmolStr,
    pub kind: SmolStr,
    pub external_ids: BTreeMap<SmolStr, SmolStr>,
    /// `None` until ovs-vswitchd has looked at it; -1 = it failed to open the device.
    pub ofport: Option<i64>,
    pub error: SmolStr,
    pub mac: SmolStr,
    pub mtu_request: Option<i64>,
}

impl Interface {
    fn from_row(row: &Row) -> Self {
        let int = |column: &str| row.atoms(column).first().and_then(Atom::as_int);
        Self {
            name: row.str("name").into(),
            kind: row.str("type").into(),
            external_ids: row
                .pairs("external_ids")
                .iter()
                .filter_map(|(k, v)| Some((k.as_str()?.into(), v.as_str()?.into())))
                .collect(),
            ofport: int("ofport"),
            error: row.str("error").into(),
            mac: row.str("mac").into(),
            mtu_request: int("mtu_request"),
        }
    }

    fn id(&self, key: &str) -> Option<&SmolStr> {
        self.external_ids.get(key)
    }

    pub fn iface_id(&self) -> Option<&SmolStr> {
        self.id("iface-id")
    }

    /// The pod that we plugged in here.
    pub fn pod(&self) -> Option<PodPort<'_>> {
        if self.id("vendor").map(SmolStr::as_str) != Some(VENDOR) {
            return None;
        }
        Some(PodPort {
            namespace: self.id("pod_namespace")?,
            name: self.id("pod_name")?,
            netns: self.id("pod_netns").map(SmolStr::as_str),
        })
    }

    /// ovn-controller has the port's flows in place.
    pub fn ovn_installed(&self) -> bool {
        self.id("ovn-installed").map(SmolStr::as_str) == Some("true")
    }
}

/// The pod recorded on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodPort<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub netns: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: SmolStr,
    interfaces: BTreeSet<Uuid>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bridge {
    name: SmolStr,
    ports: BTreeSet<Uuid>,
    datapath_type: SmolStr,
}

/// The parts of the database that the daemon acts upon.
#[derive(Debug, Clone, Default)]
pub struct OvsView {
    root: Option<(Uuid, BTreeMap<SmolStr, SmolStr>)>,
    bridges: BTreeMap<Uuid, Bridge>,
    ports: BTreeMap<Uuid, Port>,
    interfaces: BTreeMap<Uuid, Interface>,
    by_name: BTreeMap<SmolStr, Uuid>,
}

/// What a row update touched; tells the daemon whom to wake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    Interface(SmolStr),
    Other,
    Nothing,
}

impl OvsView {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes one row's new value; `None` = deleted.
    pub fn apply(&mut self, table: &str, uuid: Uuid, row: Option<&Row>) -> Touched {
        match table {
            "Interface" => {
                let old = match row {
                    Some(row) => {
                        let interface = Interface::from_row(row);
                        self.by_name.insert(interface.name.clone(), uuid);
                        let name = interface.name.clone();
                        self.interfaces.insert(uuid, interface);
                        return Touched::Interface(name);
                    }
                    None => self.interfaces.remove(&uuid),
                };
                let Some(old) = old else {
                    return Touched::Nothing;
                };
                if self.by_name.get(&old.name) == Some(&uuid) {
                    self.by_name.remove(&old.name);
                }
                Touched::Interface(old.name)
            }
            "Port" => {
                match row {
                    Some(row) => self.ports.insert(
                        uuid,
                        Port {
                            name: row.str("name").into(),
                            interfaces: row.uuids("interfaces").collect(),
                        },
                    ),
                    None => self.ports.remove(&uuid),
                };
                Touched::Other
            }
            "Bridge" => {
                match row {
                    Some(row) => self.bridges.insert(
                        uuid,
                        Bridge {
                            name: row.str("name").into(),
                            ports: row.uuids("ports").collect(),
                            datapath_type: row.str("datapath_type").into(),
                        },
                    ),
                    None => self.bridges.remove(&uuid),
                };
                Touched::Other
            }
            "Open_vSwitch" => {
                self.root = row.map(|row| {
                    let ids = row
                        .pairs("external_ids")
                        .iter()
                        .filter_map(|(k, v)| Some((k.as_str()?.into(), v.as_str()?.into())))
                        .collect();
                    (uuid, ids)
                });
                Touched::Other
            }
            _ => Touched::Nothing,
        }
    }

    /// `external_ids` of the database's one `Open_vSwitch` row; `None` before `ovs-vsctl init`.
    pub fn external_ids(&self) -> Option<&BTreeMap<SmolStr, SmolStr>> {
        self.root.as_ref().map(|(_, ids)| ids)
    }

    pub fn system_id(&self) -> Option<&SmolStr> {
        self.external_ids()?.get("system-id")
    }

    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.get(self.by_name.get(name)?)
    }

    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.values()
    }

    fn bridge(&self, name: &str) -> Option<(&Uuid, &Bridge)> {
        self.bridges.iter().find(|(_, b)| b.name == name)
    }

    pub fn has_integration_bridge(&self) -> bool {
        self.bridge(INTEGRATION_BRIDGE).is_some()
    }

    /// Does `br-int` run on the userspace datapath?
    pub fn userspace_datapath(&self) -> bool {
        self.bridge(INTEGRATION_BRIDGE)
            .is_some_and(|(_, b)| b.datapath_type == "netdev")
    }

    /// Ports that carry the interface `name`, each with the bridges that hold it.
    fn port_of(&self, interface: &Uuid) -> Option<(&Uuid, &Port)> {
        self.ports
            .iter()
            .find(|(_, port)| port.interfaces.contains(interface))
    }

    /// Is the interface plugged into `br-int`?
    pub fn on_integration_bridge(&self, name: &str) -> bool {
        let find = || {
            let interface = self.by_name.get(name)?;
            let (port, _) = self.port_of(interface)?;
            let (_, bridge) = self.bridge(INTEGRATION_BRIDGE)?;
            Some(bridge.ports.contains(port))
        };
        find().unwrap_or(false)
    }

    /// Operations that bring our keys of `external_ids` to the wanted values; empty if they have them.
    pub fn set_external_ids(&self, wanted: &BTreeMap<SmolStr, SmolStr>) -> Vec<Operation> {
        let Some((uuid, have)) = &self.root else {
            return Vec::new();
        };
        let changed: Vec<(&SmolStr, &SmolStr)> = wanted
            .iter()
            .filter(|(key, value)| have.get(*key) != Some(value))
            .collect();
        if changed.is_empty() {
            return Vec::new();
        }
        vec![
            Operation::mutate(
                "Open_vSwitch",
                Condition::row(*uuid),
                vec![
                    // `insert` leaves a key that exists alone, so it must go first.
                    Mutation::delete_keys(
                        "external_ids",
                        changed.iter().map(|(k, _)| (*k).clone()),
                    ),
                    Mutation::insert(
                        "external_ids",
                        Datum::map(changed.iter().map(|(k, v)| ((*k).clone(), (*v).clone()))),
                    ),
                ],
            ),
            Operation::comment("kube-ovn-daemon: tunnel and chassis settings"),
        ]
    }

    /// Operations that make `ovn0` what the plan says; empty if it is.
    pub fn set_join_port(&self, plan: &JoinPortPlan) -> Vec<Operation> {
        let ids: BTreeMap<SmolStr, SmolStr> = [
            ("iface-id", plan.iface_id.clone()),
            ("ip", plan.ip.clone()),
            ("vendor", VENDOR.into()),
        ]
        .into_iter()
        .map(|(k, v)| (k.into(), v))
        .collect();
        let mac = plan.mac.to_string();
        if let Some(uuid) = self.by_name.get(JOIN_INTERFACE)
            && let Some(interface) = self.interfaces.get(uuid)
        {
            if !self.on_integration_bridge(JOIN_INTERFACE) {
                // On another bridge: an operator's doing; take it back.
                return self.add_port(&PortSpec::join(plan, &ids));
            }
            let same = ids
                .iter()
                .all(|(k, v)| interface.external_ids.get(k) == Some(v))
                && interface.kind == "internal"
                && interface.mac == mac
                && interface.mtu_request == Some(i64::from(plan.mtu));
            if same {
                return Vec::new();
            }
            return vec![
                Operation::update(
                    "Interface",
                    Condition::row(*uuid),
                    Row::new()
                        .with("type", "internal")
                        .with("mac", mac.as_str())
                        .with("mtu_request", i64::from(plan.mtu)),
                ),
                Operation::mutate(
                    "Interface",
                    Condition::row(*uuid),
                    vec![
                        Mutation::delete_keys("external_ids", ids.keys().cloned()),
                        Mutation::insert("external_ids", Datum::map(ids.clone())),
                    ],
                ),
                Operation::comment("kube-ovn-daemon: join port"),
            ];
        }
        self.add_port(&PortSpec::join(plan, &ids))
    }

    /// Operations that plug a device into `br-int`, in place of whatever held its name or its `iface-id` (a stale
    /// sandbox of the same pod). Empty while `br-int` is missing.
    pub fn add_port(&self, spec: &PortSpec<'_>) -> Vec<Operation> {
        let Some((bridge, _)) = self.bridge(INTEGRATION_BRIDGE) else {
            return Vec::new();
        };
        let iface_id = spec.external_ids.get("iface-id");
        let stale: Vec<SmolStr> = self
            .interfaces
            .values()
            .filter(|i| i.name == spec.name || (iface_id.is_some() && i.iface_id() == iface_id))
            .map(|i| i.name.clone())
            .collect();
        let mut ops = self.del_ports(stale.iter().map(SmolStr::as_str));
        let mut interface = Row::new()
            .with("name", spec.name)
            .with("external_ids", Datum::map(spec.external_ids.clone()));
        if let Some(kind) = spec.kind {
            interface.insert("type", kind);
        }
        if let Some(mac) = &spec.mac {
            interface.insert("mac", mac.as_str());
        }
        if let Some(mtu) = spec.mtu_request {
            interface.insert("mtu_request", i64::from(mtu));
        }
        ops.push(Operation::insert_named("Interface", "interface", interface));
        ops.push(Operation::insert_named(
            "Port",
            "port",
            Row::new().with("name", spec.name).with(
                "interfaces",
                Datum::set([Atom::NamedUuid("interface".into())]),
            ),
        ));
        ops.push(Operation::mutate(
            "Bridge",
            Condition::row(*bridge),
            vec![Mutation::insert(
                "ports",
                Datum::set([Atom::NamedUuid("port".into())]),
            )],
        ));
        ops.push(Operation::comment(format!(
            "kube-ovn-daemon: plug {}",
            spec.external_ids
                .get("iface-id")
                .map_or(spec.name, SmolStr::as_str)
        )));
        ops
    }

    /// Operations that remove the ports with these names; names that do not exist are passed over. The rows of port
    /// and interface go by themselves once no bridge refers to them.
    pub fn del_ports<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<Operation> {
        let ports: BTreeSet<Uuid> = names
            .into_iter()
            .filter_map(|name| {
                self.by_name
                    .get(name)
                    .and_then(|interface| self.port_of(interface))
                    .or_else(|| self.ports.iter().find(|(_, p)| p.name == name))
                    .map(|(uuid, _)| *uuid)
            })
            .collect();
        self.bridges
            .iter()
            .filter_map(|(uuid, bridge)| {
                let here: Vec<Atom> = bridge
                    .ports
                    .intersection(&ports)
                    .map(|uuid| Atom::from(*uuid))
                    .collect();
                (!here.is_empty()).then(|| {
                    Operation::mutate(
                        "Bridge",
                        Condition::row(*uuid),
                        vec![Mutation::delete("ports", Datum::set(here))],
                    )
                })
            })
            .collect()
    }
}

/// A port to be plugged into `br-int`.
#[derive(Debug, Clone)]
pub struct PortSpec<'a> {
    pub name: &'a str,
    /// `internal`, or `None` for a device that exists.
    pub kind: Option<&'static str>,
    pub mac: Option<String>,
    pub mtu_request: Option<u32>,
    pub external_ids: BTreeMap<SmolStr, SmolStr>,
}

impl<'a> PortSpec<'a> {
    fn join(plan: &JoinPortPlan, ids: &BTreeMap<SmolStr, SmolStr>) -> Self {
        Self {
            name: JOIN_INTERFACE,
            kind: Some("internal"),
            mac: Some(plan.mac.to_string()),
            mtu_request: Some(plan.mtu),
            external_ids: ids.clone(),
        }
    }

    /// The host end of a pod's veth pair. `external_ids` are upstream's: tools read them.
    pub fn pod(host: &'a str, iface_id: &str, pod: PodPort<'_>, ip: &str) -> Self {
        let mut external_ids: BTreeMap<SmolStr, SmolStr> = [
            ("iface-id", iface_id),
            ("vendor", VENDOR),
            ("pod_name", pod.name),
            ("pod_namespace", pod.namespace),
            ("pod_netns", pod.netns.unwrap_or("")),
        ]
        .into_iter()
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
        if !ip.is_empty() {
            external_ids.insert("ip".into(), ip.into());
        }
        Self {
            name: host,
            kind: None,
            mac: None,
            mtu_request: None,
            external_ids,
        }
    }
}

/// Name of a pod's logical switch port for a provider and interface, which is `iface-id` as well:
/// `<pod>.<ns>`, `<pod>.<ns>.<provider>`.
pub fn iface_id(pod: &str, namespace: &str, provider: &str) -> SmolStr {
    match provider {
        "" | "ovn" => format_smolstr!("{pod}.{namespace}"),
        provider => format_smolstr!("{pod}.{namespace}.{provider}"),
    }
}
