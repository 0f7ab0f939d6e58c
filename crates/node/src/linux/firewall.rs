//! Accept rules of ours in the host's own chains, where those drop.
//!
//! In netfilter an `accept` is final only for its own chain: a table of ours cannot open what Docker's `FORWARD` policy
//! or firewalld's final `reject` closes. So where a base chain of the host at the hooks input or forward drops by policy or
//! by its last rule, rules of ours are kept at its head, told by their comments. Where nothing drops, nothing is added.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

use super::nft::nft;
use super::{During, KernelError};
use crate::plan::{ACCEPT_FROM_PODS, ACCEPT_TO_PODS, JOIN_INTERFACE, TABLE};

/// A rule that is kept: the direction of `ovn0` and the comment by which it is known.
const FROM_PODS: (&str, &str) = ("iifname", ACCEPT_FROM_PODS);
const TO_PODS: (&str, &str) = ("oifname", ACCEPT_TO_PODS);

/// Adds what is missing; returns what was added, in words for the log.
pub fn keep_accepted() -> Result<Vec<String>, KernelError> {
    let mut added = nft_chains()?;
    added.extend(legacy_chains()?);
    Ok(added)
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
    let mut added = Vec::new();
    for chain in base_chains(&ruleset) {
        let rules = nft(
            &[
                "-j",
                "list",
                "chain",
                &chain.family,
                &chain.table,
                &chain.name,
            ],
            "",
        )?;
        let rules = parse(&rules)?;
        let rules: Vec<&Value> = objects(&rules, "rule").collect();
        if !chain.policy_drops && !rules.last().is_some_and(|rule| closes(rule)) {
            continue;
        }
        let wanted: &[_] = if chain.forward {
            &[FROM_PODS, TO_PODS]
        } else {
            &[FROM_PODS]
        };
        for (direction, comment) in wanted {
            if rules.iter().any(|rule| has_comment(rule, comment)) {
                continue;
            }
            let place = format!("{} {} {}", chain.family, chain.table, chain.name);
            let _ = writeln!(
                script,
                "insert rule {place} {direction} \"{JOIN_INTERFACE}\" counter accept comment \"{comment}\""
            );
            added.push(format!("{place}: {comment}"));
        }
    }
    if !script.is_empty() {
        nft(&["-f", "-"], &script)?;
    }
    Ok(added)
}

fn parse(text: &str) -> Result<Value, KernelError> {
    serde_json::from_str(text)
        .map_err(|e| KernelError::Program(format!("nft -j: unexpected output: {e}")))
}

fn objects<'v>(ruleset: &'v Value, kind: &'static str) -> impl Iterator<Item = &'v Value> {
    ruleset["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(kind))
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

fn has_comment(rule: &Value, comment: &str) -> bool {
    rule["comment"] == comment
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
    let mut added = Vec::new();
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
        for (chain, wanted) in [
            ("INPUT", &[("-i", ACCEPT_FROM_PODS)][..]),
            (
                "FORWARD",
                &[("-i", ACCEPT_FROM_PODS), ("-o", ACCEPT_TO_PODS)][..],
            ),
        ] {
            let Ok(rules) = run(program, &["-w", "5", "-S", chain]) else {
                // The program is not installed, so nobody can have put rules there either.
                continue;
            };
            let closed = rules.lines().any(|rule| {
                rule == format!("-P {chain} DROP")
                    || rule == format!("-A {chain} -j DROP")
                    || rule.starts_with(&format!("-A {chain} -j REJECT"))
            });
            for (direction, comment) in wanted {
                if !closed || rules.contains(comment) {
                    continue;
                }
                run(
                    program,
                    &[
                        "-w",
                        "5",
                        "-I",
                        chain,
                        direction,
                        JOIN_INTERFACE,
                        "-m",
                        "comment",
                        "--comment",
                        comment,
                        "-j",
                        "ACCEPT",
                    ],
                )?;
                added.push(format!("{program} {chain}: {comment}"));
            }
        }
    }
    Ok(added)
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
