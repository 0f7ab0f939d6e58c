//! Where servers listen.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use smol_str::SmolStr;
use thiserror::Error;

/// An active connection method of ovsdb(7): `unix:PATH`, `tcp:HOST:PORT`, `ssl:HOST:PORT`; an IPv6 address as host is
/// put in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    Unix(PathBuf),
    Tcp { host: SmolStr, port: u16 },
    Ssl { host: SmolStr, port: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("remote {text:?}: {problem}")]
pub struct RemoteError {
    text: String,
    problem: &'static str,
}

impl Remote {
    /// A list separated by commas, as in `--ovn-nb-addr` and `OVN_NB_DB`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, RemoteError> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect()
    }
}

fn host_and_port(text: &str) -> Result<(SmolStr, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("no port")?;
    let port = match port.parse() {
        Ok(0) | Err(_) => return Err("the port is not a number from 1 to 65535"),
        Ok(port) => port,
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("a bracket is not closed")?,
        None if host.contains(':') => return Err("an IPv6 address needs brackets: [2001:db8::1]"),
        None => host,
    };
    if host.is_empty() {
        return Err("no host");
    }
    Ok((host.into(), port))
}

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let fail = |problem| RemoteError {
            text: text.to_owned(),
            problem,
        };
        match text.split_once(':') {
            Some(("unix", "")) => Err(fail("no path")),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", rest)) => {
                let (host, port) = host_and_port(rest).map_err(fail)?;
                Ok(Self::Tcp { host, port })
            }
            Some(("ssl", rest)) => {
                let (host, port) = host_and_port(rest).map_err(fail)?;
                Ok(Self::Ssl { host, port })
            }
            _ => Err(fail("expected unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT")),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Ssl { host, port } => ("ssl", host, port),
        };
        if host.contains(':') {
            write!(f, "{scheme}:[{host}]:{port}")
        } else {
            write!(f, "{scheme}:{host}:{port}")
        }
    }
}
