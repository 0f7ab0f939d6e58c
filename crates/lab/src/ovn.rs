//! Open vSwitch on every node and OVN's databases on the first (or, with `--ovn-ha`, on the first three).
//!
//! The programs run as the distribution ships them, in the foreground, with the distribution's own paths: each node has
//! its own /run, /etc and /var, so `ovs-vsctl show` inside a node needs no options.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command::{capture, output, wait_for};
use crate::lab::{Lab, Launch, Node, Place};

/// Port of the northbound database.
pub const NB_PORT: u16 = 6641;
/// Port of the southbound database.
pub const SB_PORT: u16 = 6642;
/// RAFT ports, as the Debian packages use them.
const RAFT: [u16; 2] = [6643, 6644];

/// The bridge that holds the tunnel address.
pub const TUNNEL_BRIDGE: &str = "br-phy";

struct Database {
    /// `ovnnb` or `ovnsb`, the name of files and sockets.
    file: &'static str,
    schema: &'static str,
    name: &'static str,
    port: u16,
    raft: u16,
}

const DATABASES: [Database; 2] = [
    Database {
        file: "ovnnb",
        schema: "ovn-nb.ovsschema",
        name: "OVN_Northbound",
        port: NB_PORT,
        raft: RAFT[0],
    },
    Database {
        file: "ovnsb",
        schema: "ovn-sb.ovsschema",
        name: "OVN_Southbound",
        port: SB_PORT,
        raft: RAFT[1],
    },
];

/// The folder with the schemas of the installed (or prefixed) version.
fn schemas(lab: &Lab, package: &str) -> PathBuf {
    lab.spec
        .ovn_prefix
        .as_ref()
        .map_or_else(PathBuf::new, |prefix| prefix.join("root"))
        .join(format!(
            "{}usr/share/{package}",
            if lab.spec.ovn_prefix.is_some() {
                ""
            } else {
                "/"
            }
        ))
}

/// Start the databases and northd; returns when they answer.
pub fn central(lab: &Lab) -> Result<()> {
    let members = lab.central();
    for (index, node) in members.iter().enumerate() {
        for database in &DATABASES {
            server(lab, members, index, node, database)?;
        }
    }
    for node in members {
        let northd = if members.len() == 1 {
            Launch::on(node, "ovn-northd", "ovn-northd")
                .arg("--ovnnb-db=unix:/run/ovn/ovnnb_db.sock")
                .arg("--ovnsb-db=unix:/run/ovn/ovnsb_db.sock")
        } else {
            Launch::on(node, "ovn-northd", "ovn-northd")
                .arg(format!("--ovnnb-db={}", lab.database(NB_PORT)))
                .arg(format!("--ovnsb-db={}", lab.database(SB_PORT)))
        };
        lab.ensure(&northd.args(["--pidfile", "-vconsole:info", "-vsyslog:off", "-vfile:off"]))?;
    }
    for tool in ["nb", "sb"] {
        let component = format!("{tool}-ovsdb");
        let processes: Vec<_> = members
            .iter()
            .map(|node| (component.as_str(), &node.name))
            .collect();
        lab.wait_with(
            &processes,
            "the OVN databases",
            Duration::from_secs(20),
            || ctl(lab, tool, &["init"]).map(Some),
        )?;
    }
    Ok(())
}

fn server(
    lab: &Lab,
    members: &[Node],
    index: usize,
    node: &Node,
    database: &Database,
) -> Result<()> {
    let component = format!("{}-ovsdb", &database.file[3..]);
    if lab
        .record(&component, Some(&node.name))
        .is_some_and(|r| r.alive())
    {
        return Ok(());
    }
    let place = Place::Node(&node.name);
    let file = format!("/var/lib/ovn/{}_db.db", database.file);
    let exists = output(lab.command(place, "test")?.args(["-e", &file]))?
        .status
        .success();
    if !exists {
        let schema = schemas(lab, "ovn")
            .join(database.schema)
            .display()
            .to_string();
        let own = format!("tcp:{}:{}", node.address(), database.raft);
        let mut tool = lab.command(place, "ovsdb-tool")?;
        if members.len() == 1 {
            tool.args(["create", &file, &schema]);
        } else if index == 0 {
            tool.args([
                "--election-timer=1000",
                "create-cluster",
                &file,
                &schema,
                &own,
            ]);
        } else {
            let first = format!("tcp:{}:{}", members[0].address(), database.raft);
            tool.args(["join-cluster", &file, database.name, &own, &first]);
        }
        capture(&mut tool)?;
    }
    lab.ensure(
        &Launch::on(node, &component, "ovsdb-server")
            .arg(&file)
            .arg(format!("--remote=punix:/run/ovn/{}_db.sock", database.file))
            .arg(format!("--remote=ptcp:{}:0.0.0.0", database.port))
            .arg(format!("--pidfile=/run/ovn/{}_db.pid", database.file))
            .arg(format!("--unixctl=/run/ovn/{}_db.ctl", database.file))
            .args(["-vconsole:info", "-vsyslog:off", "-vfile:off"]),
    )?;
    Ok(())
}

/// Start Open vSwitch and ovn-controller on a node; the node's wires exist.
pub fn node(lab: &Lab, node: &Node) -> Result<()> {
    let place = Place::Node(&node.name);
    let log = ["-vconsole:info", "-vsyslog:off", "-vfile:off"];
    if !lab
        .record("ovsdb", Some(&node.name))
        .is_some_and(|r| r.alive())
    {
        if !output(
            lab.command(place, "test")?
                .args(["-e", "/etc/openvswitch/conf.db"]),
        )?
        .status
        .success()
        {
            let schema = schemas(lab, "openvswitch").join("vswitch.ovsschema");
            capture(
                lab.command(place, "ovsdb-tool")?
                    .args(["create", "/etc/openvswitch/conf.db"])
                    .arg(schema),
            )?;
        }
        lab.ensure(
            &Launch::on(node, "ovsdb", "ovsdb-server")
                .arg("/etc/openvswitch/conf.db")
                .args(["--remote=punix:/run/openvswitch/db.sock", "--pidfile"])
                .args(log),
        )?;
        let socket = lab.node_path(&node.name, "run/openvswitch/db.sock");
        lab.wait_with(
            &[("ovsdb", &node.name)],
            "the node's ovsdb-server",
            Duration::from_secs(10),
            || Ok(socket.exists().then_some(())),
        )?;
    }
    // What the start script of the ovs-ovn image sets; the rest is the daemon's. The socket's file is there a moment
    // before somebody listens on it.
    let mut init = lab.command(place, "ovs-vsctl")?;
    init.args([
        "--retry",
        "--timeout=20",
        "--no-wait",
        "init",
        "--",
        "set",
        "Open_vSwitch",
        ".",
    ])
    .arg(format!("external_ids:system-id={}", node.system_id))
    .arg(format!("external_ids:hostname={}", node.name))
    // In the database's text form a value with commas and colons must be a quoted string.
    .arg(format!(
        "external_ids:ovn-remote=\"{}\"",
        lab.database(SB_PORT)
    ))
    .arg("external_ids:ovn-encap-type=geneve")
    .arg(format!("external_ids:ovn-encap-ip={}", node.tunnel()))
    .arg("external_ids:ovn-bridge-datapath-type=netdev");
    capture(&mut init)?;
    std::fs::write(
        lab.node_path(&node.name, "conf/system-id.conf"),
        format!("{}\n", node.system_id),
    )?;
    let fresh = lab.ensure(
        &Launch::on(node, "ovs-vswitchd", "ovs-vswitchd")
            .args([
                "unix:/run/openvswitch/db.sock",
                "--disable-system",
                "--pidfile",
            ])
            .args(log),
    )?;
    if fresh {
        bridge(lab, node)?;
    }
    lab.ensure(
        &Launch::on(node, "ovn-controller", "ovn-controller")
            .args(["unix:/run/openvswitch/db.sock", "--pidfile"])
            .args(log),
    )?;
    Ok(())
}

fn bridge(lab: &Lab, node: &Node) -> Result<()> {
    let place = Place::Node(&node.name);
    capture(
        lab.command(place, "ovs-vsctl")?
            .args([
                "--retry",
                "--timeout=20",
                "--may-exist",
                "add-br",
                TUNNEL_BRIDGE,
            ])
            .args(["--", "set", "bridge", TUNNEL_BRIDGE])
            .args(["datapath_type=netdev", "fail_mode=standalone"])
            // A malformed or repeated address is accepted here and shows up as random loss later.
            .arg(format!(
                "other_config:hwaddr=\"02:aa:00:00:00:{:02x}\"",
                node.number
            ))
            .args(["--", "--may-exist", "add-port", TUNNEL_BRIDGE, "tun0"]),
    )?;
    crate::network::ip(
        lab,
        place,
        &format!(
            "addr replace {}/24 dev {TUNNEL_BRIDGE}\nlink set {TUNNEL_BRIDGE} up\n",
            node.tunnel()
        ),
    )
}

/// Resolve every tunnel's next hop: the userspace datapath drops the packet that asks for it.
pub fn warm_tunnels(lab: &Lab) -> Result<()> {
    wait_for(
        "the tunnels between the nodes",
        Duration::from_secs(20),
        || {
            for from in &lab.nodes {
                let others: Vec<_> = lab
                    .nodes
                    .iter()
                    .filter(|n| n.number != from.number)
                    .collect();
                for to in others {
                    capture(
                        lab.command(Place::Node(&from.name), "ping")?
                            .args(["-q", "-c1", "-W1", "-i0.2"])
                            .arg(to.tunnel().to_string()),
                    )?;
                }
            }
            Ok(Some(()))
        },
    )
}

/// A command for `ovn-nbctl`, `ovn-sbctl` against the lab's databases: `tool` is `nb` or `sb`.
pub fn ctl_command(lab: &Lab, tool: &str) -> Result<Command> {
    let (program, port) = match tool {
        "nb" => ("ovn-nbctl", NB_PORT),
        "sb" => ("ovn-sbctl", SB_PORT),
        other => bail!("no such database: {other}"),
    };
    let mut command = lab.command(Place::Node(&lab.first()?.name), program)?;
    command.arg(format!("--db={}", lab.database(port)));
    Ok(command)
}

/// Run `ovn-nbctl` or `ovn-sbctl` and return what it prints.
pub fn ctl(lab: &Lab, tool: &str, args: &[&str]) -> Result<String> {
    capture(ctl_command(lab, tool)?.arg("--timeout=20").args(args))
}

/// Run `ovs-vsctl` on a node and return what it prints.
pub fn vsctl(lab: &Lab, node: &str, args: &[&str]) -> Result<String> {
    capture(
        lab.command(Place::Node(node), "ovs-vsctl")?
            .arg("--timeout=20")
            .args(args),
    )
}
