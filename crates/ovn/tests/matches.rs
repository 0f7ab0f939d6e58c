//! Matches that we build and accept are understood by OVN itself, and those that we refuse are not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

#[path = "../src/matching/symbols.rs"]
#[allow(dead_code, reason = "only the table is of interest here")]
mod symbols;

use std::process::Command;

use net::Family;
use ovn::matching::{
    Code, Field, InPort, Match, MatchError, OutPort, Proto, arp, dst, group_addresses, icmp4,
    icmp6, ip, ip_of, src, src_set,
};
use testkit::ovn::{Northd, Schema, Server};

fn cidr(text: &str) -> net::Cidr {
    text.parse().unwrap()
}

fn built() -> Vec<(Match, &'static str)> {
    let address: std::net::IpAddr = "10.16.0.5".parse().unwrap();
    vec![
        (ip(), "ip"),
        (arp(), "arp"),
        (ip_of(Family::V6), "ip6"),
        (src(cidr("10.16.0.0/16")), "ip4.src == 10.16.0.0/16"),
        (dst(cidr("fd00:10:16::/112")), "ip6.dst == fd00:10:16::/112"),
        (src(address), "ip4.src == 10.16.0.5"),
        (
            src(cidr("10.16.0.0/16")).and(dst(cidr("10.16.0.0/16"))),
            "ip4.src == 10.16.0.0/16 && ip4.dst == 10.16.0.0/16",
        ),
        (
            Match::any([
                src(cidr("10.16.0.0/16")).and(dst(cidr("10.17.0.0/16"))),
                src(cidr("10.17.0.0/16")).and(dst(cidr("10.16.0.0/16"))),
            ]),
            "(ip4.src == 10.16.0.0/16 && ip4.dst == 10.17.0.0/16) || \
             (ip4.src == 10.17.0.0/16 && ip4.dst == 10.16.0.0/16)",
        ),
        (
            OutPort::group("g")
                .unwrap()
                .and(ip())
                .and(Proto::Tcp.any().or(Proto::Udp.any()).or(Proto::Sctp.any())),
            "outport == @g && ip && (tcp || udp || sctp)",
        ),
        (
            InPort::one_of(["p", "a.b"]).and(Proto::Tcp.dst_ports(80, 90)),
            r#"inport == {"a.b", "p"} && 80 <= tcp.dst <= 90"#,
        ),
        (
            OutPort::is("p").and(Proto::Udp.dst(53)),
            r#"outport == "p" && udp.dst == 53"#,
        ),
        (Proto::Sctp.src(7), "sctp.src == 7"),
        (
            src_set(Family::V4, "as.x")
                .unwrap()
                .and(Field::Ip4Src.not_in_set("as.y").unwrap()),
            "ip4.src == $as.x && ip4.src != $as.y",
        ),
        (
            src_set(Family::V4, &group_addresses(Family::V4, "g")).unwrap(),
            "ip4.src == $g_ip4",
        ),
        (
            Field::Ip4Src
                .none_of([cidr("10.0.0.0/8"), cidr("172.16.0.0/12")])
                .unwrap(),
            "ip4.src != {10.0.0.0/8, 172.16.0.0/12}",
        ),
        (
            Code::Icmp6Type
                .one_of([136u8, 130, 134, 135])
                .unwrap()
                .and(Code::Icmp6Code.eq(0u8).unwrap())
                .and(Code::IpTtl.eq(255u8).unwrap()),
            "icmp6.type == {130, 134, 135, 136} && icmp6.code == 0 && ip.ttl == 255",
        ),
        (
            Field::Ip4Src.in_set("as.x").unwrap().negated().unwrap(),
            "!(ip4.src == $as.x)",
        ),
        (icmp4().or(icmp6()), "icmp4 || icmp6"),
        (Code::IpProto.eq(112u8).unwrap(), "ip.proto == 112"),
        (
            Field::EthDst
                .eq("02:00:00:00:00:01".parse::<net::Mac>().unwrap())
                .unwrap(),
            "eth.dst == 02:00:00:00:00:01",
        ),
        (Match::always(), "1"),
        (Match::any([]), "0"),
    ]
}

/// What users write, and the form in which it goes to OVN.
const ACCEPTED: &[(&str, &str)] = &[
    ("ip4.src==10.0.0.1&&ip4", "ip4.src == 10.0.0.1 && ip4"),
    ("outport == @g && ip", "outport == @g && ip"),
    (
        "ip4.src == {10.0.0.1, 10.0.0.2}",
        "ip4.src == {10.0.0.1, 10.0.0.2}",
    ),
    (
        "ip4.src == {10.0.0.1 10.0.0.2,}",
        "ip4.src == {10.0.0.1, 10.0.0.2}",
    ),
    ("10.0.0.1 == ip4.src", "ip4.src == 10.0.0.1"),
    ("tcp.dst >= 1024 && tcp", "tcp.dst >= 1024 && tcp"),
    ("80 <= tcp.dst <= 90", "80 <= tcp.dst <= 90"),
    ("80 < tcp.dst < 90", "tcp.dst > 80 && tcp.dst < 90"),
    (
        "!(ip4.src == $as.x) && !ct.new",
        "!(ip4.src == $as.x) && !ct.new",
    ),
    (
        "(tcp || udp) && ip6.src == fd00::/64",
        "(tcp || udp) && ip6.src == fd00::/64",
    ),
    ("((ip4))", "ip4"),
    ("ct.est && !ct.new", "ct.est && !ct.new"),
    ("eth.type == 0x806", "eth.type == 0x806"),
    ("ip4.dst[0..7] == 1", "ip4.dst[0..7] == 1"),
    (
        "ip4.src == 10.0.0.0/255.0.0.0",
        "ip4.src == 10.0.0.0/255.0.0.0",
    ),
    ("inport == {\"p\", \"q\"}", "inport == {\"p\", \"q\"}"),
    ("  1 ", "1"),
    ("reg0[3] && vlan.present", "reg0[3] && vlan.present"),
    ("arp.op == 1 || nd_ns", "arp.op == 1 || nd_ns"),
    (
        "eth.src == 02:00:00:00:00:01",
        "eth.src == 02:00:00:00:00:01",
    ),
];

const REFUSED: &[&str] = &[
    "",
    "outport != \"p\"",
    "outport != \"p\" && ip",
    "!(inport == \"p\")",
    "!(ip && (inport == @g || tcp))",
    "inport",
    "inport == p",
    "inport == 3",
    "inport > \"p\"",
    "tcp && udp || ip",
    "tcp || udp && ip",
    "ip4.scr == 10.0.0.1",
    "ip4.src = 10.0.0.1",
    "ip4.src == 10.0.0.256",
    "ip4.src == {}",
    "ip4.src == {10.0.0.1",
    "ip4.src == ip4.dst",
    "ip4.src == \"p\"",
    "(ip4",
    "ip4)",
    "ip4 &&",
    "&& ip4",
    "ip4 ip6",
    "tcp.dst == {80, 90} ||",
    "tcp.dst > {80, 90}",
    "90 >= tcp.dst <= 80",
    "outport == @1g",
    "ip4.src == $as x",
    "outport == \"p",
    "inport[0] == 1",
    "10.0.0.1",
    "!icmp",
    "!(icmp6 || arp)",
    "ip.proto != 6",
    "!(ip4.src == 10.0.0.1 && ip.ttl == 1)",
    "icmp4.type > 3",
    "1 <= ip.proto <= 6",
    "eth.type",
    "tcp.dst",
    "tcp.dst == 70000",
    "ip4.src == fd00::1",
    "ip4.src == 02:00:00:00:00:01",
    "garp",
    "reg10 == 1",
    "ct.est == 2",
    "vlan.present > 0",
    "ip4.src[0..32] == 1",
    "ip4.src[7..0] == 1",
    "ip.proto[0] == 1",
    "outport == $as.x",
    "ip4.src == @g",
    "ip4.dst[a] == 1",
];

/// OVN understands these, in a sense that nobody means.
const REFUSED_BY_US_ALONE: &[&str] = &[
    "ct.est > 0",
    "ip6.src == 10.0.0.0/8",
    "eth.src == 10.0.0.1",
    "tcp.dst[0..7] == 256",
    "!tcp.dst",
    "!(inport != \"p\")",
];

#[test]
fn matches_print_in_one_form_and_read_back() {
    for (built, text) in built() {
        assert_eq!(built.to_string(), text);
        assert_eq!(Match::parse(text).unwrap(), built, "{text}");
    }
    for (text, canonical) in ACCEPTED {
        let parsed = Match::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(parsed.to_string(), *canonical);
        assert_eq!(Match::parse(canonical).unwrap(), parsed);
    }
    for text in REFUSED.iter().chain(REFUSED_BY_US_ALONE) {
        assert!(Match::parse(text).is_err(), "{text}");
    }
    assert!(Match::parse(&format!("{}ip{}", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(Match::parse(&format!("{}ip", "!".repeat(5000))).is_err());
}

#[test]
fn what_a_field_cannot_hold_is_no_match() {
    let v6: std::net::IpAddr = "fd00::1".parse().unwrap();
    let mac: net::Mac = "02:00:00:00:00:01".parse().unwrap();
    let refused = [
        Field::TcpDst.eq(70_000u32),
        Field::VlanVid.ne(4096u32),
        Field::TcpDst.one_of([80u32, 70_000]),
        Field::TcpDst.between(1, 70_000),
        Field::TcpDst.between(90, 80),
        Field::TcpDst.in_set("as.x"),
        Field::Ip4Src.eq(v6),
        Field::Ip4Src.none_of([cidr("10.0.0.0/8"), cidr("fd00::/8")]),
        Field::Ip6Src.eq(cidr("10.0.0.0/8")),
        Field::Ip4Src.eq(mac),
        Field::Ip6Src.eq(mac),
        Field::EthSrc.eq(v6),
        Code::IpDscp.eq(64u8),
        Code::IpTtl.one_of([1u32, 256]),
    ];
    for (i, refused) in refused.into_iter().enumerate() {
        let error = refused.expect_err(&format!("case {i}"));
        assert!(matches!(error, MatchError::Value { .. }), "{i}: {error}");
    }
    assert_eq!(
        Field::TcpDst.between(80, 80).unwrap().to_string(),
        "tcp.dst == 80"
    );
}

#[test]
fn a_port_cannot_be_tested_for_inequality() {
    let error = OutPort::is("p").and(ip()).negated().unwrap_err();
    assert_eq!(
        error,
        MatchError::NotEqual {
            field: "outport".into()
        }
    );
    let error = Match::parse("ip && outport != \"p\"").unwrap_err();
    assert!(error.to_string().contains("only be tested for equality"));
}

#[test]
fn names_of_groups_and_sets_are_checked() {
    for good in ["g", "_g", ".g", "np.ns", "a1", "ovn.sg.x.associated.v4"] {
        assert!(OutPort::group(good).is_ok(), "{good}");
    }
    for bad in ["", "1g", "a-b", "a b", "a@b", "ä"] {
        assert!(OutPort::group(bad).is_err(), "{bad}");
        assert!(src_set(Family::V4, bad).is_err(), "{bad}");
    }
}

/// All kinds of questions that the table of symbols allows, of every field.
fn asked_of_every_field() -> Vec<String> {
    use symbols::Symbol::{Address, Code, Flag, Number, Port, Protocol};
    let registers = ["reg0", "reg9", "xreg4", "xxreg1"].map(|n| (n, symbols::symbol(n).unwrap()));
    let mut all = Vec::new();
    for (name, symbol) in symbols::SYMBOLS.iter().copied().chain(registers) {
        let largest = |bits: u32| format!("{:#x}", u128::MAX >> (128 - bits));
        let mut ask = |text: String| all.push(text);
        match symbol {
            Port => ask(format!(r#"{name} == {{"p", @g}}"#)),
            Protocol => {
                ask(name.to_owned());
                ask(format!("{name} == 1"));
            }
            Flag => {
                ask(name.to_owned());
                ask(format!("!{name}"));
                ask(format!("{name} == 0"));
                ask(format!("{name} != 1"));
            }
            Code(bits) => ask(format!("{name} == {{1, {}}}", largest(bits))),
            Number(bits) | Address(bits) => {
                ask(format!("{name} == {}", largest(bits)));
                ask(format!("{name} != {{1, 2}} && !({name} == 1)"));
                ask(format!("{name} > 1"));
                ask(format!("{name} <= {}", largest(bits)));
                ask(format!("1 <= {name} <= 2"));
                ask(format!("{name}[0] && !{name}[{}]", bits - 1));
                ask(format!("{name}[1..{}] != 1", bits - 1));
            }
        }
        if let Address(_) = symbol {
            ask(format!("{name} == $as.x && {name} != $as.y"));
        }
    }
    for text in &all {
        Match::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    all
}

/// What ovn-trace says to the flows of these ACLs: it reads them as ovn-controller does.
fn complaints(nb: &Server, sb: &Server, matches: &[&str]) -> String {
    let mut args = vec![
        "--".to_owned(),
        "clear".into(),
        "logical_switch".into(),
        "s".into(),
        "acls".into(),
    ];
    for (i, expression) in matches.iter().enumerate() {
        args.extend([
            "--".to_owned(),
            format!("--id=@a{i}"),
            "create".into(),
            "acl".into(),
        ]);
        args.extend([
            format!("priority={i}"),
            "direction=to-lport".into(),
            "action=allow".into(),
            format!("match={}", serde_json::to_string(expression).unwrap()),
        ]);
        args.extend(["--", "add", "logical_switch", "s", "acls"].map(str::to_owned));
        args.push(format!("@a{i}"));
    }
    nb.ctl(args);
    nb.ctl(["--timeout=20", "--wait=sb", "sync"]);
    let output = Command::new("ovn-trace")
        .arg(format!("--db={}", sb.remote()))
        .args(["s", "inport == \"p\""])
        .output()
        .unwrap_or_else(|e| panic!("ovn-trace (Debian package ovn-common): {e}"));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn ovn_understands_what_we_accept_and_nothing_of_what_we_refuse() {
    let (nb, sb) = (
        Server::start(Schema::Northbound),
        Server::start(Schema::Southbound),
    );
    nb.ctl(["init"]);
    sb.ctl(["init"]);
    let _northd = Northd::start(&nb.remote(), &sb.remote());
    nb.ctl([
        "--",
        "ls-add",
        "s",
        "--",
        "lsp-add",
        "s",
        "p",
        "--",
        "lsp-set-addresses",
        "p",
        "02:00:00:00:00:01 10.0.0.1",
        "--",
        "pg-add",
        "g",
        "p",
        "--",
        "create",
        "address_set",
        "name=as.x",
        "addresses=10.0.0.1",
        "--",
        "create",
        "address_set",
        "name=as.y",
        "addresses=10.0.0.2",
    ]);
    let built: Vec<String> = built().iter().map(|(m, _)| m.to_string()).collect();
    let accepted: Vec<&str> = built
        .iter()
        .map(String::as_str)
        .chain(
            ACCEPTED
                .iter()
                .flat_map(|(text, canonical)| [*text, *canonical]),
        )
        .collect();
    assert_eq!(complaints(&nb, &sb, &accepted), "");
    // Whatever we know of any field.
    let asked = asked_of_every_field();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    assert_eq!(complaints(&nb, &sb, &asked), "");
    // Each alone: one complaint would hide another.
    let forgiven: Vec<_> = REFUSED
        .iter()
        .filter(|text| complaints(&nb, &sb, &[text]).is_empty())
        .collect();
    assert!(forgiven.is_empty(), "OVN understands {forgiven:?}");
}
