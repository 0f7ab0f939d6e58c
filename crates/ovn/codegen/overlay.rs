//! What the schema files do not say: which tables we write, what names a row, and who owns which column.
//!
//! This is the one place to edit when a feature needs another table or column; then run
//! `cargo run -p ovn --example generate`.

/// How much of a map column we own, or that other units contribute to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The whole value, stated by the unit that owns the row.
    Managed,
    /// Only the listed keys of a map (`x*` stands for every key that begins with `x`), and those a unit states.
    Keys(&'static [&'static str]),
    /// A set or map to which any unit may contribute elements.
    Shared,
    /// Somebody else's (OVN itself, mostly): neither written nor compared.
    Ignored,
}

/// One part of a natural key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key of the row that contains this one.
    Parent,
    Column(&'static str),
    /// The value of a key of `external_ids`.
    External(&'static str),
    /// A table of one row.
    Singleton,
}

/// A table that we write.
pub struct Written {
    pub table: &'static str,
    pub key: &'static [Part],
    /// Every column that is not listed is [`Mode::Managed`].
    pub columns: &'static [(&'static str, Mode)],
    /// Columns whose default value means something wider than what was asked for: a row that sets one is held back on
    /// an OVN that lacks it. Other missing columns are left out of the row.
    pub essential: &'static [&'static str],
    /// The [`Default`] of a column that has to be one of several words.
    pub defaults: &'static [(&'static str, &'static str)],
}

pub struct Source {
    /// Name of the generated module.
    pub module: &'static str,
    /// Name of the schema file in each version's directory.
    pub file: &'static str,
    pub written: &'static [Written],
    /// Tables with a reader only.
    pub read: &'static [&'static str],
}

use Mode::{Ignored, Keys, Shared};
use Part::{Column, External, Parent, Singleton};

/// Keys of `external_ids` in the northbound database: ours, and those that upstream's tools look for.
///
/// `isLocalDnsCache` marks the router policies of a DNS cache on the nodes.
const NB_IDS: Mode = Keys(&[
    "vendor",
    "kube-ovn.io/*",
    "address-family",
    "associated_sg_*",
    "attach-vips",
    "isLocalDnsCache",
    "ls",
    "lr",
    "node",
    "np",
    "parent",
    "pod",
    "port",
    "protocol",
    "security_groups",
    "sg",
    "subnet",
    "type",
    "vips",
]);

/// Keys of `external_ids` in a node's database. ovn-controller writes `ovn-installed` and `iface-status` beside them.
const VSWITCH_IDS: Mode = Keys(&[
    "vendor",
    "kube-ovn.io/*",
    "iface-id",
    "ip",
    "pod",
    "pod_name",
    "pod_namespace",
    "pod_netns",
    "pod_nic_type",
]);

const fn written(table: &'static str, key: &'static [Part]) -> Written {
    Written {
        table,
        key,
        columns: &[],
        essential: &[],
        defaults: &[],
    }
}

pub const SOURCES: [Source; 3] = [
    Source {
        module: "nb",
        file: "ovn-nb.ovsschema",
        written: &[
            Written {
                columns: &[
                    // ovn-northd keeps its own settings and counters beside ours.
                    (
                        "options",
                        Keys(&[
                            "ic-route-adv",
                            "ic-route-blacklist",
                            "ic-route-learn",
                            "ls_ct_skip_dst_lport_ips",
                            "ls_dnat_mod_dl_dst",
                            "node_local_dns_ip",
                            "skip_conntrack_dst_cidrs",
                            "use_ct_inv_match",
                        ]),
                    ),
                    ("external_ids", Keys(&[])),
                    ("name", Ignored),
                    ("nb_cfg", Ignored),
                    ("nb_cfg_timestamp", Ignored),
                    ("sb_cfg", Ignored),
                    ("sb_cfg_timestamp", Ignored),
                    ("hv_cfg", Ignored),
                    ("hv_cfg_timestamp", Ignored),
                    ("connections", Ignored),
                    ("ssl", Ignored),
                    ("ipsec", Ignored),
                ],
                ..written("NB_Global", &[Singleton])
            },
            Written {
                columns: &[
                    ("ports", Shared),
                    ("acls", Shared),
                    ("qos_rules", Shared),
                    ("load_balancer", Shared),
                    ("load_balancer_group", Shared),
                    ("dns_records", Shared),
                    ("copp", Ignored),
                    ("forwarding_groups", Ignored),
                    ("external_ids", NB_IDS),
                ],
                ..written("Logical_Switch", &[Column("name")])
            },
            Written {
                columns: &[
                    // Written by ovn-northd.
                    ("up", Ignored),
                    ("dynamic_addresses", Ignored),
                    ("tag", Ignored),
                    ("mirror_rules", Shared),
                    ("external_ids", NB_IDS),
                ],
                ..written("Logical_Switch_Port", &[Column("name")])
            },
            Written {
                columns: &[("addresses", Shared), ("external_ids", NB_IDS)],
                ..written("Address_Set", &[Column("name")])
            },
            Written {
                columns: &[
                    ("ports", Shared),
                    ("acls", Shared),
                    ("external_ids", NB_IDS),
                ],
                ..written("Port_Group", &[Column("name")])
            },
            Written {
                columns: &[
                    ("vips", Shared),
                    ("ip_port_mappings", Shared),
                    ("health_check", Shared),
                    ("external_ids", NB_IDS),
                ],
                ..written("Load_Balancer", &[Column("name")])
            },
            Written {
                columns: &[("load_balancer", Shared)],
                ..written("Load_Balancer_Group", &[Column("name")])
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written("Load_Balancer_Health_Check", &[Parent, Column("vip")])
            },
            Written {
                columns: &[
                    ("external_ids", NB_IDS),
                    ("sample_new", Ignored),
                    ("sample_est", Ignored),
                ],
                essential: &["tier"],
                // A forgotten action must not open anything.
                defaults: &[("action", "drop"), ("direction", "to-lport")],
                ..written(
                    "ACL",
                    &[
                        Parent,
                        Column("direction"),
                        Column("priority"),
                        Column("match"),
                    ],
                )
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                defaults: &[("direction", "to-lport")],
                ..written(
                    "QoS",
                    &[
                        Parent,
                        Column("direction"),
                        Column("priority"),
                        Column("match"),
                    ],
                )
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                defaults: &[("filter", "from-lport"), ("type", "gre")],
                ..written("Mirror", &[Column("name")])
            },
            Written {
                columns: &[("bands", Shared), ("external_ids", NB_IDS)],
                defaults: &[("unit", "pktps")],
                ..written("Meter", &[Column("name")])
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                defaults: &[("action", "drop")],
                ..written("Meter_Band", &[Parent, Column("action")])
            },
            Written {
                columns: &[
                    ("ports", Shared),
                    ("static_routes", Shared),
                    ("policies", Shared),
                    ("nat", Shared),
                    ("load_balancer", Shared),
                    ("load_balancer_group", Shared),
                    ("copp", Ignored),
                    ("external_ids", NB_IDS),
                ],
                ..written("Logical_Router", &[Column("name")])
            },
            Written {
                columns: &[
                    ("gateway_chassis", Shared),
                    // Written by ovn-northd (the chassis that hosts the port).
                    ("status", Ignored),
                    ("dhcp_relay", Ignored),
                    ("external_ids", NB_IDS),
                ],
                ..written("Logical_Router_Port", &[Column("name")])
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written(
                    "Logical_Router_Static_Route",
                    &[
                        Parent,
                        Column("route_table"),
                        Column("policy"),
                        Column("ip_prefix"),
                        Column("nexthop"),
                    ],
                )
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                essential: &["chain", "jump_chain"],
                defaults: &[("action", "drop")],
                ..written(
                    "Logical_Router_Policy",
                    &[Parent, Column("priority"), Column("match")],
                )
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                essential: &["match", "priority"],
                defaults: &[("type", "snat")],
                ..written(
                    "NAT",
                    &[
                        Parent,
                        Column("type"),
                        Column("external_ip"),
                        Column("external_port_range"),
                        Column("logical_ip"),
                    ],
                )
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written(
                    "DHCP_Options",
                    &[External("ls"), External("port"), External("protocol")],
                )
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written("DNS", &[External("kube-ovn.io/name")])
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written("Gateway_Chassis", &[Column("name")])
            },
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written("HA_Chassis", &[Parent, Column("chassis_name")])
            },
            Written {
                columns: &[("ha_chassis", Shared), ("external_ids", NB_IDS)],
                ..written("HA_Chassis_Group", &[Column("name")])
            },
            Written {
                columns: &[("status", Ignored), ("external_ids", NB_IDS)],
                ..written("BFD", &[Column("logical_port"), Column("dst_ip")])
            },
            written(
                "Static_MAC_Binding",
                &[Column("logical_port"), Column("ip")],
            ),
            Written {
                columns: &[("external_ids", NB_IDS)],
                ..written("Chassis_Template_Var", &[Column("chassis")])
            },
        ],
        read: &[],
    },
    Source {
        module: "sb",
        file: "ovn-sb.ovsschema",
        written: &[],
        read: &[
            "SB_Global",
            "Chassis",
            "Chassis_Private",
            "Encap",
            "Datapath_Binding",
            "Port_Binding",
            "Service_Monitor",
            "BFD",
        ],
    },
    Source {
        module: "vswitch",
        file: "vswitch.ovsschema",
        written: &[
            Written {
                columns: &[
                    ("bridges", Shared),
                    // Shared with ovn-controller, the start scripts and the administrator.
                    ("external_ids", Keys(&[])),
                    ("other_config", Keys(&[])),
                    ("cur_cfg", Ignored),
                    ("datapath_types", Ignored),
                    ("datapaths", Ignored),
                    ("db_version", Ignored),
                    ("dpdk_initialized", Ignored),
                    ("dpdk_version", Ignored),
                    ("iface_types", Ignored),
                    ("manager_options", Ignored),
                    ("next_cfg", Ignored),
                    ("ovs_version", Ignored),
                    ("ssl", Ignored),
                    ("statistics", Ignored),
                    ("system_type", Ignored),
                    ("system_version", Ignored),
                ],
                ..written("Open_vSwitch", &[Singleton])
            },
            Written {
                columns: &[
                    ("ports", Shared),
                    ("mirrors", Shared),
                    ("controller", Ignored),
                    ("external_ids", VSWITCH_IDS),
                    ("other_config", Keys(&["hwaddr", "mac-learning-fallback"])),
                    ("auto_attach", Ignored),
                    ("datapath_id", Ignored),
                    ("datapath_version", Ignored),
                    ("flood_vlans", Ignored),
                    ("flow_tables", Ignored),
                    ("ipfix", Ignored),
                    ("netflow", Ignored),
                    ("rstp_enable", Ignored),
                    ("rstp_status", Ignored),
                    ("sflow", Ignored),
                    ("status", Ignored),
                    ("stp_enable", Ignored),
                ],
                ..written("Bridge", &[Column("name")])
            },
            Written {
                columns: &[
                    ("interfaces", Shared),
                    ("external_ids", VSWITCH_IDS),
                    ("other_config", Keys(&[])),
                    ("bond_active_slave", Ignored),
                    ("bond_downdelay", Ignored),
                    ("bond_fake_iface", Ignored),
                    ("bond_mode", Ignored),
                    ("bond_updelay", Ignored),
                    ("cvlans", Ignored),
                    ("fake_bridge", Ignored),
                    ("lacp", Ignored),
                    ("mac", Ignored),
                    ("protected", Ignored),
                    ("rstp_statistics", Ignored),
                    ("rstp_status", Ignored),
                    ("statistics", Ignored),
                    ("status", Ignored),
                ],
                ..written("Port", &[Column("name")])
            },
            Written {
                columns: &[
                    ("external_ids", VSWITCH_IDS),
                    ("other_config", Keys(&[])),
                    ("admin_state", Ignored),
                    ("bfd", Ignored),
                    ("bfd_status", Ignored),
                    ("cfm_fault", Ignored),
                    ("cfm_fault_status", Ignored),
                    ("cfm_flap_count", Ignored),
                    ("cfm_health", Ignored),
                    ("cfm_mpid", Ignored),
                    ("cfm_remote_mpids", Ignored),
                    ("cfm_remote_opstate", Ignored),
                    ("duplex", Ignored),
                    ("lacp_current", Ignored),
                    ("error", Ignored),
                    ("ifindex", Ignored),
                    ("link_resets", Ignored),
                    ("link_speed", Ignored),
                    ("link_state", Ignored),
                    ("lldp", Ignored),
                    ("mac_in_use", Ignored),
                    ("mtu", Ignored),
                    ("ofport", Ignored),
                    ("ofport_request", Ignored),
                    ("statistics", Ignored),
                    ("status", Ignored),
                ],
                ..written("Interface", &[Column("name")])
            },
            Written {
                columns: &[("external_ids", VSWITCH_IDS)],
                ..written("QoS", &[External("iface-id")])
            },
            Written {
                columns: &[("external_ids", VSWITCH_IDS)],
                ..written("Queue", &[External("iface-id")])
            },
            Written {
                columns: &[("statistics", Ignored), ("external_ids", VSWITCH_IDS)],
                ..written("Mirror", &[Column("name")])
            },
        ],
        read: &["Controller"],
    },
];
