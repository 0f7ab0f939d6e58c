//! The hands of the node plan: thin synchronous code over netlink, nftables, `/proc/sys` and packet sockets.
//!
//! Everything here blocks for microseconds to milliseconds and is called from threads of its own, never from an
//! asynchronous worker. A netlink socket stays in the network namespace in which it was opened; that is how host and
//! pod are handled side by side without a thread that wanders.

mod announce;
mod apply;
mod ethtool;
mod firewall;
mod netlink;
mod netns;
mod nft;
mod observe;
mod ping;
mod pod;
mod route;
mod sysctl;

pub use announce::announce;
pub use apply::apply;
pub use ethtool::tx_checksum_off;
pub use firewall::keep_accepted;
pub use netlink::{Monitor, NetlinkError, Noticed, Socket};
pub use netns::NetNs;
pub use nft::Firewall;
pub use observe::{links, observe};
pub use ping::ping;
pub use pod::{attach, check, device_exists, pod_devices, remove_device, set_up};
pub use route::LinkId;
pub use sysctl::{read as read_sysctl, write as write_sysctl};

use std::io;

/// What went wrong with the kernel; the text names the step and the object.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("{what}: {source}")]
    Netlink {
        what: String,
        #[source]
        source: NetlinkError,
    },
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// nft or another program refused.
    #[error("{0}")]
    Program(String),
    /// The pod does not look as it should (CNI CHECK).
    #[error("{0}")]
    Mismatch(String),
}

impl KernelError {
    /// The object is not there (any more).
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Netlink { source, .. } => source.is_not_found(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Adds the step's name to an error.
pub(crate) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T> During<T> for Result<T, NetlinkError> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|source| KernelError::Netlink {
            what: what(),
            source,
        })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|source| KernelError::Io {
            what: what(),
            source,
        })
    }
}

impl<T> During<T> for nix::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|errno| KernelError::Io {
            what: what(),
            source: errno.into(),
        })
    }
}
