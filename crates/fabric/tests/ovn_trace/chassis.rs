//! Simulated chassis: `ovn-controller` and an `ovs-vswitchd` whose datapath and devices are dummies. They need no root
//! and carry no packets, but they claim ports, parse every logical flow, and install OpenFlow flows that can be traced.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use testkit::objects::pod;
use testkit::ovn::{Schema, Server};
use testkit::process::{Process, wait_for};

use crate::network::Network;
use crate::programs::{appctl, complaints, daemon, nbctl, schema, tempdir, vsctl};
use crate::{NODES, PODS, cluster};

const PATIENCE: Duration = Duration::from_mins(1);

/// What the daemons say on any chassis of dummies.
const HARMLESS: &[&str] = &[
    // It looks for network cards with representors.
    "vif_plug_provider",
    // It is there before the bridge that it asked for.
    "br-int.mgmt: connection failed",
];

pub struct Chassis {
    name: String,
    controller: Process,
    vswitchd: Process,
    control: PathBuf,
    conf: Server,
    _dir: TempDir,
}

impl Chassis {
    pub fn start(name: &str, tunnel: &str, southbound: &str) -> Self {
        let conf = Server::start(schema(Schema::OpenVSwitch));
        let (dir, path) = tempdir();
        let settings = [
            ("system-id", name),
            ("hostname", name),
            ("ovn-remote", southbound),
            ("ovn-encap-type", "geneve"),
            ("ovn-encap-ip", tunnel),
            ("ovn-bridge-datapath-type", "dummy"),
        ]
        .map(|(key, value)| format!("external_ids:{key}=\"{value}\""));
        let mut command = vec!["--no-wait", "init", "--", "set", "Open_vSwitch", "."];
        command.extend(settings.iter().map(String::as_str));
        vsctl(&conf.remote(), &command);
        let control = path.join("vswitchd.ctl");
        let mut command = daemon("ovs-vswitchd", "openvswitch-switch", &path);
        command
            .arg(conf.remote())
            .args(["--enable-dummy=override", "--disable-system"])
            .arg(format!("--unixctl={}", control.display()));
        let vswitchd = Process::spawn(command, &path.join("vswitchd.log"));
        let mut command = daemon("ovn-controller", "ovn-host", &path);
        command.arg(conf.remote());
        let controller = Process::spawn(command, &path.join("controller.log"));
        let mut chassis = Self {
            name: name.to_owned(),
            controller,
            vswitchd,
            control,
            conf,
            _dir: dir,
        };
        wait_for("br-int", PATIENCE, || {
            chassis.vswitchd.assert_running("ovs-vswitchd");
            chassis.controller.assert_running("ovn-controller");
            let bridges = vsctl(&chassis.conf.remote(), &["list-br"]);
            bridges.contains("br-int").then_some(())
        });
        chassis
    }

    /// Plugs a device in for a logical port, as the node daemon does.
    pub fn plug(&self, number: u16, port: &str) {
        let (device, iface) = (
            format!("p{number}"),
            format!("external_ids:iface-id=\"{port}\""),
        );
        let request = format!("ofport_request={number}");
        let set = [
            "--",
            "set",
            "Interface",
            &device,
            "type=dummy",
            &request,
            &iface,
        ];
        let mut command = vec!["add-port", "br-int", &device];
        command.extend(set);
        vsctl(&self.conf.remote(), &command);
    }

    /// What the datapath would do with a packet that enters by a port (ovs-vswitchd(8), `ofproto/trace`).
    pub fn datapath_actions(&self, number: u16, flow: &str) -> String {
        let flow = format!("in_port=p{number},{flow}");
        let text = appctl(
            &self.control,
            &["ofproto/trace", "--names", "br-int", &flow],
        );
        let actions = text
            .lines()
            .find_map(|line| line.strip_prefix("Datapath actions: "));
        actions.unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    fn assert_content(&mut self) {
        self.controller.assert_running("ovn-controller");
        self.vswitchd.assert_running("ovs-vswitchd");
        for (who, process) in [
            ("ovn-controller", &self.controller),
            ("ovs-vswitchd", &self.vswitchd),
        ] {
            let complaints = complaints(&process.log(), HARMLESS);
            assert!(
                complaints.is_empty(),
                "{who} of {}: {complaints:#?}",
                self.name
            );
        }
    }
}

/// A chassis for each node.
fn chassis(network: &Network) -> Vec<Chassis> {
    let start = |(name, _, address, _): &(&str, &str, &str, &str)| {
        Chassis::start(name, address, &network.sb.remote())
    };
    NODES.iter().map(start).collect()
}

/// Plugs in what runs on the node; the number of a port is its place in the list, from 1.
fn plug(chassis: &Chassis) -> Vec<&'static str> {
    let own = NODES
        .iter()
        .filter(|node| node.0 == chassis.name)
        .map(|node| node.1);
    let pods = PODS
        .iter()
        .filter(|pod| pod.1 == chassis.name)
        .map(|pod| pod.0);
    let ports: Vec<_> = own.chain(pods).collect();
    for (number, port) in (1..).zip(&ports) {
        chassis.plug(number, port);
    }
    ports
}

fn wait_for_ports(network: &Network) {
    for port in NODES
        .map(|node| node.1)
        .into_iter()
        .chain(PODS.map(|pod| pod.0))
    {
        let wait = ["wait-until", "Logical_Switch_Port", port, "up=true"];
        nbctl(&network.nb.remote(), &wait);
    }
    nbctl(&network.nb.remote(), &["--wait=hv", "sync"]);
}

#[test]
fn controllers_claim_the_ports_and_understand_every_flow() {
    let network = cluster();
    let mut nodes = chassis(&network);
    let ports: Vec<Vec<&str>> = nodes.iter().map(plug).collect();
    wait_for_ports(&network);

    // Each port is where it should be, and up.
    let chassis = network.chassis();
    let bindings = network.port_bindings(&["logical_port", "chassis", "up"]);
    for (node, ports) in nodes.iter().zip(&ports) {
        for port in ports {
            let line = format!("{port},{},true", chassis[&node.name]);
            assert!(bindings.contains(&line), "{line} is not in {bindings:#?}");
        }
    }
    // What is bound changes nothing that we own: nothing is written.
    let plan = network.restarted().plan();
    assert!(plan.is_empty(), "{plan}");

    // Pods on one node: out by the other's device, without a tunnel. (Device p2 is web-1, p3 is web-2.)
    let (first, own) = (&nodes[0], &ports[0]);
    assert_eq!(
        own[..3],
        ["node-192.168.1.41", "web-1.default", "web-2.default"]
    );
    let flow = |from: &str, mac: net::Mac, source: &str, to: &str| {
        let own = network.mac(from);
        format!(
            "icmp,dl_src={own},dl_dst={mac},nw_src={source},nw_dst={to},nw_ttl=64,icmp_type=8,icmp_code=0"
        )
    };
    let (web1, web2) = (network.v4("web-1.default"), network.v4("web-2.default"));
    let near = flow(
        "web-1.default",
        network.mac("web-2.default"),
        &web1.to_string(),
        &web2.to_string(),
    );
    assert_eq!(first.datapath_actions(2, &near), "p3");
    // To the outside: out by the node's own ovn0 (p1), with the frame rewritten for it.
    let gateway = network.gateway_mac("ovn-default");
    let out = flow("web-1.default", gateway, &web1.to_string(), "203.0.113.7");
    let actions = first.datapath_actions(2, &out);
    let ovn0 = network.mac("node-192.168.1.41").to_string();
    assert!(
        actions.contains(&format!("dst={ovn0}")) && actions.ends_with(",p1"),
        "{actions}"
    );
    assert!(actions.contains("ttl=63"), "{actions}");

    for node in &mut nodes {
        node.assert_content();
    }
    network.assert_northd_is_content();
}

/// `ovn-trace` does not look at port security; OpenFlow does.
#[test]
fn port_security_stops_forged_addresses() {
    let mut network = cluster();
    network.apply([
        pod("default/guarded")
            .on("node-2")
            .annotate("port_security", "true")
            .json(),
        pod("dual/guarded")
            .on("node-2")
            .annotate("port_security", "true")
            .json(),
    ]);
    let node = Chassis::start("node-2", "192.168.1.42", &network.sb.remote());
    let ports = [
        "guarded.default",
        "web-3.default",
        "guarded.dual",
        "node-node-2",
    ];
    for (number, port) in (1..).zip(ports) {
        node.plug(number, port);
        let wait = ["wait-until", "Logical_Switch_Port", port, "up=true"];
        nbctl(&network.nb.remote(), &wait);
    }
    nbctl(&network.nb.remote(), &["--wait=hv", "sync"]);

    let web = (
        network.v4("web-3.default").to_string(),
        network.mac("web-3.default").to_string(),
    );
    let own = (
        network.v4("guarded.default").to_string(),
        network.mac("guarded.default").to_string(),
    );
    let echo = |mac: &str, source: &str, to: (&str, &str)| {
        format!(
            "icmp,dl_src={mac},dl_dst={},nw_src={source},nw_dst={},nw_ttl=64,icmp_type=8,icmp_code=0",
            to.1, to.0
        )
    };
    let to = (web.0.as_str(), web.1.as_str());
    assert_eq!(node.datapath_actions(1, &echo(&own.1, &own.0, to)), "p2");
    assert_eq!(
        node.datapath_actions(1, &echo(&own.1, "10.16.0.99", to)),
        "drop"
    );
    assert_eq!(
        node.datapath_actions(1, &echo("02:00:00:00:00:99", &own.0, to)),
        "drop"
    );
    // ARP in another's name.
    let arp = |spa: &str| {
        format!(
            "arp,dl_src={},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_sha={},arp_spa={spa},arp_tpa={}",
            own.1, own.1, web.0
        )
    };
    assert_ne!(node.datapath_actions(1, &arp(&own.0)), "drop");
    assert_eq!(node.datapath_actions(1, &arp("10.16.0.1")), "drop");
    // Without the annotation nobody looks.
    let guarded = (own.0.as_str(), own.1.as_str());
    assert_eq!(
        node.datapath_actions(2, &echo(&web.1, "10.16.0.99", guarded)),
        "p1"
    );
    // Both families of a pod that has both.
    let v6 = |source: &str| {
        format!(
            "icmp6,dl_src={},dl_dst={},ipv6_src={source},ipv6_dst=2001:db8::7,nw_ttl=64,icmpv6_type=128,icmpv6_code=0",
            network.mac("guarded.dual"),
            network.gateway_mac("dual-sub")
        )
    };
    let actions = node.datapath_actions(3, &v6(&network.v6("guarded.dual").to_string()));
    assert!(actions.ends_with(",p4"), "{actions}");
    assert_eq!(node.datapath_actions(3, &v6("fd00:10:18::99")), "drop");
    assert_eq!(BTreeSet::from(ports).len(), 4);
}
