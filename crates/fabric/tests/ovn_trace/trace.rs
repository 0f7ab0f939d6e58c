//! What OVN would do with a packet: `ovn-trace` and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use net::{Family, HasFamily, Mac};
use smol_str::SmolStr;
use testkit::process::{program, run};

use crate::network::Network;

/// A packet as a pod or node sends it. Its addresses of the link layer follow from where it goes, as they would from the
/// sender's routes and neighbour table.
#[derive(Clone, Debug)]
pub struct Packet {
    from: String,
    to: IpAddr,
    source: Option<IpAddr>,
    ttl: u8,
    payload: String,
}

impl Packet {
    /// An ICMP echo request.
    pub fn echo(from: &str, to: IpAddr) -> Self {
        let payload = match to.family() {
            Family::V4 => "icmp4.type == 8 && icmp4.code == 0",
            Family::V6 => "icmp6.type == 128 && icmp6.code == 0",
        };
        Self {
            from: from.into(),
            to,
            source: None,
            ttl: 64,
            payload: payload.into(),
        }
    }

    pub fn tcp(from: &str, to: IpAddr, port: u16) -> Self {
        Self {
            payload: format!("tcp.src == 40000 && tcp.dst == {port}"),
            ..Self::echo(from, to)
        }
    }

    pub fn udp(from: &str, to: IpAddr, port: u16) -> Self {
        Self {
            payload: format!("udp.src == 40000 && udp.dst == {port}"),
            ..Self::echo(from, to)
        }
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Forwarded for somebody else, or forged.
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    fn flow(&self, network: &Network) -> String {
        let family = self.to.family();
        let switch = network.switch(&self.from);
        let neighbour = network.cluster.world.leases().find(|(_, lease)| {
            lease.subnet == switch && lease.addresses.get(family) == Some(&self.to)
        });
        let next_hop = match (group_mac(self.to), neighbour) {
            (Some(mac), _) => mac,
            (None, Some((_, lease))) => lease.mac,
            (None, None) => network.gateway_mac(switch),
        };
        let ip = family.ovn_prefix();
        let source = self
            .source
            .unwrap_or_else(|| network.address(&self.from, family));
        format!(
            "inport == \"{}\" && eth.src == {} && eth.dst == {next_hop} && {ip}.src == {source} && {ip}.dst == {} && ip.ttl == {} && {}",
            self.from,
            network.mac(&self.from),
            self.to,
            self.ttl,
            self.payload
        )
    }
}

/// Where packets for many go: RFC 1112 (6.4), RFC 2464 (7), and the broadcast address.
fn group_mac(to: IpAddr) -> Option<Mac> {
    match to {
        IpAddr::V4(to) if to.is_broadcast() => Some(Mac::BROADCAST),
        IpAddr::V4(to) if to.is_multicast() => {
            let [_, b, c, d] = to.octets();
            Some(Mac::new([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
        }
        IpAddr::V6(to) if to.is_multicast() => {
            let [.., a, b, c, d] = to.octets();
            Some(Mac::new([0x33, 0x33, a, b, c, d]))
        }
        _ => None,
    }
}

/// A packet that leaves OVN through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub port: String,
    pub ttl: u8,
    /// Fields that were set on the way, such as `eth.dst`.
    pub fields: BTreeMap<String, String>,
    /// Empty for the packet itself; `icmp4`, `arp`, ... for one that OVN makes because of it.
    pub made_by: Vec<String>,
}

impl Output {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

/// A logical flow that the packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub stage: String,
    pub matches: String,
    pub priority: u32,
}

pub struct Trace {
    pub flow: String,
    pub text: String,
    pub outputs: Vec<Output>,
    pub rules: Vec<Rule>,
}

impl Trace {
    /// The priority of the router policy that decided, if one did.
    pub fn policy(&self) -> Option<u32> {
        self.rules
            .iter()
            .filter(|rule| rule.stage == "lr_in_policy" && rule.priority > 0)
            .map(|rule| rule.priority)
            .next_back()
    }

    /// The packet itself, where it leaves OVN.
    pub fn packets(&self) -> Vec<&Output> {
        let outputs = self.outputs.iter();
        outputs.filter(|output| output.made_by.is_empty()).collect()
    }

    fn parse(flow: String, text: String, ttl: u8) -> Self {
        let (detailed, minimal) = text
            .split_once("# Minimal trace.")
            .unwrap_or_else(|| panic!("ovn-trace says:\n{text}"));
        Self {
            outputs: outputs(minimal, ttl),
            rules: detailed.lines().filter_map(rule).collect(),
            flow,
            text,
        }
    }
}

/// ` 15. lr_in_policy (northd.c:9526): ip4.dst == 10.17.0.0/24, priority 31000, uuid 9ff4d619`
fn rule(line: &str) -> Option<Rule> {
    let (head, tail) = line.trim().split_once("): ")?;
    let stage = head.split_whitespace().nth(1)?;
    let (rest, _) = tail.rsplit_once(", uuid ")?;
    let (matches, priority) = rest.rsplit_once(", priority ")?;
    Some(Rule {
        stage: stage.into(),
        matches: matches.into(),
        priority: priority.parse().ok()?,
    })
}

/// Actions one a line, `icmp4 { ... };` for packets that are made.
fn outputs(minimal: &str, ttl: u8) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut now = Output {
        port: String::new(),
        ttl,
        fields: BTreeMap::new(),
        made_by: Vec::new(),
    };
    let mut outer = Vec::new();
    for line in minimal.lines().map(str::trim) {
        if let Some(action) = line.strip_suffix('{') {
            outer.push(now.clone());
            now.made_by.push(action.trim().to_owned());
        } else if line.starts_with('}') {
            now = outer
                .pop()
                .unwrap_or_else(|| panic!("unbalanced:\n{minimal}"));
        } else if let Some(port) = line.strip_prefix("output(\"") {
            port.trim_end_matches("\");").clone_into(&mut now.port);
            outputs.push(now.clone());
        } else if line == "ip.ttl--;" {
            now.ttl = now.ttl.saturating_sub(1);
        } else if let Some((field, value)) = line.trim_end_matches(';').split_once(" = ") {
            if field == "ip.ttl" {
                now.ttl = value.parse().expect("a TTL");
            }
            now.fields.insert(field.to_owned(), value.to_owned());
        }
    }
    outputs
}

impl Network {
    pub fn trace(&self, packet: &Packet) -> Trace {
        self.trace_flow(&packet.from, packet.flow(self), packet.ttl)
    }

    /// Traces a flow that enters by a port.
    pub fn trace_flow(&self, from: &str, flow: String, ttl: u8) -> Trace {
        let db = format!("--db={}", self.sb.remote());
        let tool = program("ovn-trace", "ovn-common");
        let args = [&db, "--detailed", "--minimal", self.switch(from), &flow];
        let text = run(&tool, args);
        Trace::parse(flow, text, ttl)
    }
}

/// What should become of a packet.
#[derive(Clone, Debug)]
pub enum Expect {
    /// It reaches this port, and no other one, as it was sent.
    Switched(&'static str),
    /// It reaches this port, and no other one, over one router, by the router's own routes.
    Routed(&'static str),
    /// It reaches this port, and no other one, because a policy of this priority says so.
    Rerouted(u32, &'static str),
    /// It reaches every other port of the switch, and no other one.
    Flooded,
    /// The router answers, with the address that was asked.
    Answered,
    /// The router says that the packet's time is over; from this address.
    Expired(IpAddr),
    /// It reaches nobody. The router may ask for a neighbour.
    Lost,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switched(port) => write!(f, "reaches {port} on the same switch"),
            Self::Routed(port) => write!(f, "reaches {port} by its route"),
            Self::Rerouted(policy, port) => write!(f, "reaches {port} by policy {policy}"),
            Self::Flooded => f.write_str("reaches every port of the switch"),
            Self::Answered => f.write_str("is answered by the router"),
            Self::Expired(from) => write!(f, "comes back from {from} as expired"),
            Self::Lost => f.write_str("reaches nobody"),
        }
    }
}

impl Expect {
    /// Why the trace is not as it should be.
    fn complaint(&self, packet: &Packet, trace: &Trace, network: &Network) -> Option<String> {
        let ip = packet.to.family().ovn_prefix();
        let packets = trace.packets();
        let reached: Vec<&str> = packets.iter().map(|output| output.port.as_str()).collect();
        let arrives = |port: &str, hops: u8| -> Result<(), String> {
            let [output] = packets.as_slice() else {
                return Err(format!("it reaches {reached:?}"));
            };
            if output.port != port {
                return Err(format!("it reaches {reached:?}"));
            }
            if output.ttl != packet.ttl - hops {
                return Err(format!("its TTL is {}", output.ttl));
            }
            for field in ["src", "dst"].map(|end| format!("{ip}.{end}")) {
                if let Some(value) = output.field(&field) {
                    return Err(format!("{field} became {value}"));
                }
            }
            // Over a router: from the gateway of the switch where it arrives, to the port's own MAC.
            let (from, to) = if hops == 0 {
                (None, None)
            } else {
                let gateway = network.gateway_mac(network.switch(port)).to_string();
                (Some(gateway), Some(network.mac(port).to_string()))
            };
            if output.field("eth.src") != from.as_deref()
                || output.field("eth.dst") != to.as_deref()
            {
                return Err(format!("its frame is {:?}", output.fields));
            }
            Ok(())
        };
        let comes_back = |from: &IpAddr, made_by: &[&str]| -> Result<(), String> {
            let [output] = trace.outputs.as_slice() else {
                return Err(format!("there are {:?}", trace.outputs));
            };
            let from = from.to_string();
            let holds = output.port == packet.from
                && output.made_by == made_by
                && output.field(&format!("{ip}.src")) == Some(&from)
                && output.field("eth.dst") == Some(&network.mac(&packet.from).to_string());
            if holds {
                Ok(())
            } else {
                Err(format!("there is {output:?}"))
            }
        };
        let held = match self {
            Self::Switched(port) => arrives(port, 0),
            Self::Routed(port) => arrives(port, 1).and_then(|()| match trace.policy() {
                // The policy that keeps traffic inside; a VPC of its own has it too.
                Some(31000) | None => Ok(()),
                other => Err(format!("by policy {other:?}")),
            }),
            Self::Rerouted(policy, port) => arrives(port, 1).and_then(|()| match trace.policy() {
                Some(by) if by == *policy => Ok(()),
                other => Err(format!("by policy {other:?}")),
            }),
            Self::Flooded => {
                let switch = network.switch(&packet.from);
                let ports = network.cluster.world.ports_of_subnet(switch);
                let others: BTreeSet<&str> = ports
                    .map(SmolStr::as_str)
                    .filter(|port| *port != packet.from)
                    .collect();
                let unique: BTreeSet<&str> = reached.iter().copied().collect();
                if unique == others && reached.len() == others.len() {
                    Ok(())
                } else {
                    Err(format!("it reaches {reached:?}"))
                }
            }
            Self::Answered => comes_back(&packet.to, &[]),
            Self::Expired(from) => match packet.to.family() {
                Family::V4 => comes_back(from, &["icmp4"]),
                Family::V6 => comes_back(from, &["icmp6"]),
            },
            Self::Lost if packets.is_empty() => Ok(()),
            Self::Lost => Err(format!("it reaches {reached:?}")),
        };
        held.err()
    }
}

/// Collects what is not as it should be, to show all of it at once.
pub struct Checks<'a> {
    network: &'a Network,
    failures: Vec<String>,
    held: usize,
}

impl<'a> Checks<'a> {
    pub fn on(network: &'a Network) -> Self {
        Self {
            network,
            failures: Vec::new(),
            held: 0,
        }
    }

    pub fn packet(&mut self, packet: &Packet, expect: &Expect) {
        let trace = self.network.trace(packet);
        match expect.complaint(packet, &trace, self.network) {
            None => self.held += 1,
            Some(complaint) => self.failures.push(format!(
                "{} -> {} {expect}, but {complaint}\n{}\n{}",
                packet.from, packet.to, trace.flow, trace.text
            )),
        }
    }

    /// Ends with a failure if anything failed, or nothing was checked.
    pub fn done(self) {
        assert!(
            self.failures.is_empty(),
            "{} of {} packets went astray:\n\n{}",
            self.failures.len(),
            self.failures.len() + self.held,
            self.failures.join("\n\n")
        );
        assert!(self.held > 0, "nothing was checked");
    }
}

/// The checks themselves: each of these expectations is wrong in one way.
#[test]
fn checks_notice_what_is_wrong() {
    let network = crate::cluster();
    let (web, near, far) = ("web-1.default", "web-3.default", "nginx-2.test-ns");
    let same = || Packet::echo(web, network.v4(near));
    let other = || Packet::echo(web, network.v4(far));
    let outside = || Packet::echo(web, "203.0.113.7".parse().unwrap());
    let gateway = || Packet::echo(web, "10.16.0.1".parse().unwrap());
    let group = || Packet::udp(web, "224.0.0.251".parse().unwrap(), 5353);
    let late = || outside().ttl(1);
    let own = "node-192.168.1.41";
    for (packet, wrong) in [
        (same(), Expect::Routed(near)),
        (same(), Expect::Switched("web-2.default")),
        (same(), Expect::Flooded),
        (same(), Expect::Lost),
        (other(), Expect::Switched(far)),
        (other(), Expect::Rerouted(29000, far)),
        (other(), Expect::Answered),
        (outside(), Expect::Rerouted(29000, "node-node-2")),
        (outside(), Expect::Rerouted(30000, own)),
        (outside(), Expect::Routed(own)),
        (gateway(), Expect::Lost),
        (gateway(), Expect::Switched(web)),
        (group(), Expect::Lost),
        (group(), Expect::Switched(near)),
        (late(), Expect::Rerouted(29000, own)),
        (late(), Expect::Expired("10.17.0.1".parse().unwrap())),
    ] {
        let trace = network.trace(&packet);
        let complaint = wrong.complaint(&packet, &trace, &network);
        assert!(complaint.is_some(), "{packet:?} {wrong}:\n{}", trace.text);
    }
}
