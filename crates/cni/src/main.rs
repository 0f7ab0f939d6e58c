//! `kube-ovn`, the CNI plugin: translates what a container runtime asks into a request to the daemon on this node.
//!
//! ```text
//! kubelet ── containerd ──exec──> kube-ovn ──HTTP on a unix socket──> kube-ovn-daemon
//!             CNI_* and configuration on stdin; result or error on stdout (CNI specification 1.1.0)
//! ```
//!
//! It runs once per pod and verb and keeps nothing: whatever it knows comes from its environment, the configuration and
//! the daemon. All work on interfaces is the daemon's. The plugin has no dependencies beyond JSON, so that it stays a
//! small static program that runs on any host.

mod config;
mod daemon;
mod environment;
mod error;
mod result;
mod verbs;
mod version;
mod wire;

use std::io::{Read, Write};
use std::process::ExitCode;

use crate::error::{Error, code};
use crate::version::Version;

fn main() -> ExitCode {
    let Some(command) = std::env::var_os("CNI_COMMAND") else {
        // Somebody looks at the program by hand, or the installer tries whether it runs.
        let _ = writeln!(
            std::io::stderr(),
            "CNI kube-ovn plugin {}\nCNI protocol versions supported: {}",
            env!("CARGO_PKG_VERSION"),
            Version::list()
        );
        return ExitCode::SUCCESS;
    };
    let mut version = None;
    match run(&command.to_string_lossy(), &mut version) {
        Ok(output) => {
            if write(&output).is_err() {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let version = version.unwrap_or(Version::CURRENT);
            let _ = write(&error.to_json(version));
            ExitCode::FAILURE
        }
    }
}

/// Runs one verb; its output may be empty. Sets `version` as soon as it is known, for the shape of an error.
fn run(command: &str, version: &mut Option<Version>) -> Result<String, Error> {
    let mut stdin = Vec::new();
    std::io::stdin().read_to_end(&mut stdin).map_err(|error| {
        Error::new(code::IO_FAILURE, "cannot read the configuration from stdin")
            .details(error.to_string())
    })?;
    verbs::run(command, &stdin, version)
}

/// Not `println!`, which panics if the runtime has closed the pipe.
fn write(output: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(output.as_bytes())?;
    stdout.flush()
}
