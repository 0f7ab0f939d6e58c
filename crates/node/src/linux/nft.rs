//! Our nftables table in the kernel.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{During, KernelError};
use crate::plan::TABLE;

/// Runs `nft` in the calling thread's namespace with `input` on standard input.
pub(super) fn nft(arguments: &[&str], input: &str) -> Result<String, KernelError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .during(|| "starting nft (package nftables)".into())?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft that ends early tells why on standard error; a broken pipe here adds nothing.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .during(|| "waiting for nft".into())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(KernelError::Program(format!(
            "nft {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}

/// Remembers what was written and how the kernel shows it, so that an edit by someone else is noticed.
///
/// The listing cannot be compared with the text that was written (nft orders and abbreviates), but it can with the
/// listing right after. A daemon that starts anew knows neither and writes the table once more; connections do not
/// notice, since their translations live in conntrack.
#[derive(Debug, Default)]
pub struct Firewall {
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    text: String,
    listing: String,
}

impl Firewall {
    /// The text from which the kernel's table was made. With `audit`, only if the table still is as we left it; that
    /// costs a process.
    pub fn current(&self, audit: bool) -> Option<String> {
        let written = self.written.as_ref()?;
        (!audit || listing().ok()? == written.listing).then(|| written.text.clone())
    }

    /// Replaces the table in one transaction: every packet meets the old rules or the new ones, and none neither.
    ///
    /// Chains that stay are emptied and filled again. They must not be deleted and made anew: a packet could then pass the
    /// new chain before the transaction, when it is empty, and the old one after it, when that is.
    pub fn replace(&mut self, text: &str) -> Result<(), KernelError> {
        let in_place = format!("{}{text}", clearing(text)?);
        if let Err(error) = nft(&["-f", "-"], &in_place) {
            // Something is there under one of our names that is of another kind.
            let anew = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n{text}");
            nft(&["-f", "-"], &anew).map_err(|_| error)?;
        }
        self.written = Some(Written {
            text: text.to_owned(),
            listing: listing()?,
        });
        Ok(())
    }
}

/// Commands that empty the table as far as it exists, and take away what `text` does not define.
fn clearing(text: &str) -> Result<String, KernelError> {
    let ruleset = nft(&["-j", "-t", "list", "tables"], "")?;
    let ruleset = parse(&ruleset)?;
    let exists = objects(&ruleset, "table").any(|t| t["family"] == "inet" && t["name"] == TABLE);
    if !exists {
        return Ok(String::new());
    }
    let table = parse(&nft(&["-j", "-t", "list", "table", "inet", TABLE], "")?)?;
    let (mut empty, mut delete) = (format!("flush table inet {TABLE}\n"), String::new());
    // Rules of chains and elements of sets; sets after the chains that use them.
    for kind in ["chain", "set"] {
        for name in objects(&table, kind).filter_map(|object| object["name"].as_str()) {
            if !text.contains(&format!("\t{kind} {name} {{")) {
                let _ = writeln!(delete, "delete {kind} inet {TABLE} {name}");
            } else if kind == "set" {
                let _ = writeln!(empty, "flush set inet {TABLE} {name}");
            }
        }
    }
    Ok(empty + &delete)
}

/// What `nft -j` printed.
pub(super) fn parse(text: &str) -> Result<Value, KernelError> {
    serde_json::from_str(text)
        .map_err(|e| KernelError::Program(format!("nft -j: unexpected output: {e}")))
}

/// All objects of a kind in it.
pub(super) fn objects<'v>(
    ruleset: &'v Value,
    kind: &'static str,
) -> impl Iterator<Item = &'v Value> {
    ruleset["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(kind))
}

fn listing() -> Result<String, KernelError> {
    nft(&["-s", "list", "table", "inet", TABLE], "")
}
