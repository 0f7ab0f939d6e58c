//! Accept rules of ours in the host's own chains, where those drop.
//!
//! In netfilter an `accept` is final only for its own chain: a table of ours cannot open what Docker's `FORWARD` policy
//! or firewalld's final `reject` closes. So where a base chain of the host at the hooks input or forward drops by policy or
//! by its last rule, rules of ours are kept at its head, told by their comments. Where nothing drops, nothing is added, and
//! where nothing drops any more, ours go.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

use super::nft::{nft, objects, parse};
use super::{During, KernelError};
use crate::plan::{ACCEPT_FROM_PODS, ACCEPT_TO_PODS, JOIN_INTERFACE, TABLE};

/// A rule that is kept: the direction of `ovn0` and the comment by which it is known.
struct Accept {
    nft: &'static str,
    iptables: &'static str,
    comment: &'static str,
}

const FROM_PODS: Accept = Accept {
    nft: "iifname",
    iptables: "-i",
    comment: ACCEPT_FROM_PODS,
};
const TO_PODS: Accept = Accept {
    nft: "oifname",
    iptables: "-o",
    comment: ACCEPT_TO_PODS,
};

/// The rules of a chain at the hook forward, and of one at the hook input.
fn kept(forward: bool) -> &'static [Accept] {
    if forward {
        &[FROM_PODS, TO_PODS]
    } else {
        &[FROM_PODS]
    }
}

/// Adds what is missing, removes what is not needed (any more); returns what was done, in words for the log.
pub fn keep_accepted() -> Result<Vec<String>, KernelError> {
    let nft = nft_chains();
    let legacy = legacy_chains();
    let mut done = nft?;
    done.extend(legacy?);
    Ok(done)
}

struct Chain {
    family: String,
    table: String,
    name: String,
    forward: bool,
    policy_drops: bool,
}

fn nft_chains() -> Result<Vec<String>, KernelError> {
    let ruleset: Value = parse(&nft(&["-j", "list", "chains"], "")?)?;
    let mut script = String::new();
    let mut done = Vec::new();
    for chain in base_chains(&ruleset) {
        let place = [&chain.family, &chain.table, &chain.name].map(String::as_str);
        let [family, table, name] = place;
        let Ok(rules) = nft(&["-j", "list", "chain", family, table, name], "") else {
            // It went since it was listed.
            continue;
        };
        let rules = parse(&rules)?;
        let rules: Vec<&Value> = objects(&rules, "rule").collect();
        let closed = chain.policy_drops || rules.last().is_some_and(|rule| closes(rule));
        let place = place.join(" ");
        for accept in kept(chain.forward) {
            let mut present = rules.iter().any(|rule| restored(rule, accept));
            for rule in rules.iter().filter(|r| r["comment"] == accept.comment) {
                if closed && !std::mem::replace(&mut present, true) {
                    continue;
                }
                let _ = writeln!(script, "delete rule {place} handle {}", rule["handle"]);
                done.push(format!("removed from {place}: {}", accept.comment));
            }
            if closed && !present {
                let _ = writeln!(
                    script,
                    "insert rule {place} {} \"{JOIN_INTERFACE}\" counter accept comment \"{}\"",
                    accept.nft, accept.comment
                );
                done.push(format!("added to {place}: {}", accept.comment));
            }
        }
    }
    if !script.is_empty() {
        nft(&["-f", "-"], &script)?;
    }
    Ok(done)
}

/// Filter chains of others at the hooks input and forward that see IP packets.
fn base_chains(ruleset: &Value) -> Vec<Chain> {
    objects(ruleset, "chain")
        .filter_map(|chain| {
            let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
            let hook = chain["hook"].as_str()?;
            let (family, table) = (text("family"), text("table"));
            let ours = family == "inet" && table == TABLE;
            if chain["type"] != "filter"
                || !matches!(hook, "input" | "forward")
                || !matches!(family.as_str(), "ip" | "ip6" | "inet")
                || ours
            {
                return None;
            }
            Some(Chain {
                family,
                table,
                name: text("name"),
                forward: hook == "forward",
                policy_drops: chain["policy"] == "drop",
            })
        })
        .collect()
}

/// Does the rule do what ours does, under a comment that nft cannot read? `iptables-save` and `iptables-restore`, as
/// firewalls use them on hosts with iptables-nft, bring our rule back in that form.
fn restored(rule: &Value, accept: &Accept) -> bool {
    let Some(statements) = rule["expr"].as_array() else {
        return false;
    };
    let direction = |s: &Value| {
        let matched = &s["match"];
        matched["op"] == "=="
            && matched["left"]["meta"]["key"] == accept.nft
            && matched["right"] == JOIN_INTERFACE
    };
    let comment = |s: &Value| s["xt"]["name"] == "comment";
    let accepts = |s: &Value| s.get("accept").is_some();
    [&direction as &dyn Fn(&Value) -> bool, &comment, &accepts]
        .iter()
        .all(|wanted| statements.iter().any(wanted))
        && statements
            .iter()
            .all(|s| direction(s) || comment(s) || accepts(s) || s.get("counter").is_some())
}

/// A rule without a condition that drops or rejects (firewalld's last).
fn closes(rule: &Value) -> bool {
    let Some(statements) = rule["expr"].as_array() else {
        return false;
    };
    let verdict = |s: &Value| s.get("drop").is_some() || s.get("reject").is_some();
    statements.iter().any(verdict)
        && statements
            .iter()
            .all(|s| verdict(s) || s.get("counter").is_some() || s.get("log").is_some())
}

/// The same for hosts that still use the legacy tables, which nft does not show. Nothing to do where the kernel has
/// none of them loaded.
fn legacy_chains() -> Result<Vec<String>, KernelError> {
    let mut done = Vec::new();
    for (program, loaded) in [
        ("iptables-legacy", "/proc/net/ip_tables_names"),
        ("ip6tables-legacy", "/proc/net/ip6_tables_names"),
    ] {
        // thread-self: the file belongs to a namespace.
        let loaded = loaded.replace("/proc/net", "/proc/thread-self/net");
        let in_use = std::fs::read_to_string(loaded)
            .is_ok_and(|names| names.lines().any(|name| name == "filter"));
        if !in_use {
            continue;
        }
        for (chain, forward) in [("INPUT", false), ("FORWARD", true)] {
            let Ok(rules) = run(program, &["-w", "5", "-S", chain]) else {
                // The program is not installed, so nobody can have put rules there either.
                continue;
            };
            let closed = rules.lines().any(|rule| {
                rule == format!("-P {chain} DROP")
                    || rule == format!("-A {chain} -j DROP")
                    || rule.starts_with(&format!("-A {chain} -j REJECT"))
            });
            for accept in kept(forward) {
                let quoted = format!("--comment \"{}\"", accept.comment);
                let have = rules.lines().filter(|r| r.contains(&quoted)).count();
                let want = usize::from(closed);
                for _ in want..have {
                    run(program, &rule("-D", chain, accept))?;
                    done.push(format!(
                        "removed from {program} {chain}: {}",
                        accept.comment
                    ));
                }
                if have < want {
                    run(program, &rule("-I", chain, accept))?;
                    done.push(format!("added to {program} {chain}: {}", accept.comment));
                }
            }
        }
    }
    Ok(done)
}

fn rule<'a>(verb: &'a str, chain: &'a str, accept: &'a Accept) -> [&'a str; 12] {
    [
        "-w",
        "5",
        verb,
        chain,
        accept.iptables,
        JOIN_INTERFACE,
        "-m",
        "comment",
        "--comment",
        accept.comment,
        "-j",
        "ACCEPT",
    ]
}

fn run(program: &str, arguments: &[&str]) -> Result<String, KernelError> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .during(|| format!("starting {program}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(KernelError::Program(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}
