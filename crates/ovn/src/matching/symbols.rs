//! The fields and predicates of OVN's match language, and what may be asked of each.
//!
//! Found by asking OVN (ovn-trace reads flows as ovn-controller does), and asked again by `tests/matches.rs`, which also
//! runs on another release than the installed one (held on 23.03 and 25.03):
//! `PATH=DIR/bin:$PATH OVN_PKGDATADIR=DIR/root/usr/share/ovn cargo test -p ovn --test matches`, with `DIR` made by
//! `tools/ovn-prefix`. ovn-sb(5) has their meaning.

/// What a name in a match stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    /// `inport`, `outport`: names of ports and groups as values, only tested for equality, not under `!`.
    Port,
    /// A protocol: `tcp` or `tcp == 1`, not under `!`.
    Protocol,
    /// A code of so many bits, only tested for equality, not under `!`.
    Code(u32),
    /// True or false, also under `!`.
    Flag,
    /// A number of so many bits: everything may be asked.
    Number(u32),
    /// Such a number that is an address, which may be in an address set.
    Address(u32),
}

use Symbol::{Address, Code, Flag, Number, Port, Protocol};

pub(super) const SYMBOLS: &[(&str, Symbol)] = &[
    ("arp", Protocol),
    ("arp.op", Code(16)),
    ("arp.sha", Address(48)),
    ("arp.spa", Address(32)),
    ("arp.tha", Address(48)),
    ("arp.tpa", Address(32)),
    ("ct.dnat", Flag),
    ("ct.est", Flag),
    ("ct.inv", Flag),
    ("ct.new", Flag),
    ("ct.rel", Flag),
    ("ct.rpl", Flag),
    ("ct.snat", Flag),
    ("ct.trk", Flag),
    ("ct_label", Number(128)),
    ("ct_mark", Number(32)),
    ("ct_state", Number(32)),
    ("eth.bcast", Flag),
    ("eth.dst", Address(48)),
    ("eth.mcast", Flag),
    ("eth.mcastv6", Flag),
    ("eth.src", Address(48)),
    ("eth.type", Code(16)),
    ("flags.loopback", Flag),
    ("icmp", Protocol),
    ("icmp4", Protocol),
    ("icmp4.code", Code(8)),
    ("icmp4.type", Code(8)),
    ("icmp6", Protocol),
    ("icmp6.code", Code(8)),
    ("icmp6.type", Code(8)),
    ("igmp", Protocol),
    ("inport", Port),
    ("ip", Protocol),
    ("ip.dscp", Code(6)),
    ("ip.ecn", Code(2)),
    ("ip.first_frag", Flag),
    ("ip.frag", Number(2)),
    ("ip.is_frag", Flag),
    ("ip.later_frag", Flag),
    ("ip.proto", Code(8)),
    ("ip.ttl", Code(8)),
    ("ip4", Protocol),
    ("ip4.dst", Address(32)),
    ("ip4.mcast", Flag),
    ("ip4.src", Address(32)),
    ("ip4.src_mcast", Flag),
    ("ip6", Protocol),
    ("ip6.dst", Address(128)),
    ("ip6.label", Number(20)),
    ("ip6.mcast", Flag),
    ("ip6.src", Address(128)),
    ("mldv1", Protocol),
    ("mldv2", Protocol),
    ("nd", Protocol),
    ("nd.sll", Address(48)),
    ("nd.target", Address(128)),
    ("nd.tll", Address(48)),
    ("nd_na", Protocol),
    ("nd_ns", Protocol),
    ("nd_ra", Protocol),
    ("nd_rs", Protocol),
    ("outport", Port),
    ("pkt.mark", Number(32)),
    ("rarp", Protocol),
    ("rarp.op", Code(16)),
    ("sctp", Protocol),
    ("sctp.dst", Number(16)),
    ("sctp.src", Number(16)),
    ("tcp", Protocol),
    ("tcp.dst", Number(16)),
    ("tcp.flags", Number(12)),
    ("tcp.src", Number(16)),
    ("udp", Protocol),
    ("udp.dst", Number(16)),
    ("udp.src", Number(16)),
    ("vlan.pcp", Number(3)),
    ("vlan.present", Flag),
    ("vlan.tci", Number(16)),
    ("vlan.vid", Number(12)),
];

/// Looks a name up, without a subfield.
pub(super) fn symbol(name: &str) -> Option<Symbol> {
    if let Ok(at) = SYMBOLS.binary_search_by(|(known, _)| known.cmp(&name)) {
        return Some(SYMBOLS[at].1);
    }
    let register = |prefix: &str, count: u32| {
        let number = name.strip_prefix(prefix)?;
        let plain = number == "0" || !number.starts_with(['0', '+']);
        (plain && number.parse::<u32>().ok()? < count).then_some(())
    };
    if register("reg", 10).is_some() {
        return Some(Number(32));
    }
    if register("xreg", 5).is_some() {
        return Some(Number(64));
    }
    register("xxreg", 2).map(|()| Number(128))
}

impl Symbol {
    /// Only equality may be tested, and not under `!`.
    pub fn is_nominal(self) -> bool {
        matches!(self, Port | Protocol | Code(_))
    }

    /// Bits of the values; `None` for ports.
    pub fn width(self) -> Option<u32> {
        match self {
            Port => None,
            Protocol | Flag => Some(1),
            Code(width) | Number(width) | Address(width) => Some(width),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(SYMBOLS.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(symbol("ip4.src"), Some(Address(32)));
        assert_eq!(symbol("reg9"), Some(Number(32)));
        assert_eq!(symbol("reg10"), None);
        assert_eq!(symbol("xreg04"), None);
        assert_eq!(symbol("xxreg1"), Some(Number(128)));
        assert_eq!(symbol("garp"), None);
    }
}
