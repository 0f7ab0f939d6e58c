//! Our nftables table in the kernel.

use std::io::Write;
use std::process::{Command, Stdio};

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

    /// Replaces the table in one transaction.
    pub fn replace(&mut self, text: &str) -> Result<(), KernelError> {
        nft(&["-f", "-"], text)?;
        self.written = Some(Written {
            text: text.to_owned(),
            listing: listing()?,
        });
        Ok(())
    }
}

fn listing() -> Result<String, KernelError> {
    nft(&["-s", "list", "table", "inet", TABLE], "")
}
