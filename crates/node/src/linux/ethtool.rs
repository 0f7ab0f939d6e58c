//! The one ethtool setting that we need.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_STXCSUM` of linux/ethtool.h.
const ETHTOOL_STXCSUM: u32 = 0x17;
/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Makes the kernel compute transmit checksums of a device of the calling thread's namespace itself (`ethtool -K DEV
/// tx off`). TSO goes with it.
///
/// OVS's userspace datapath reads packets from a veth as they are; one whose checksum was left to the "hardware" is
/// dropped by the receiver, so that ping works and TCP does not.
#[expect(unsafe_code, reason = "an ioctl has no safe wrapper")]
pub fn tx_checksum_off(device: &str) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut value = EthtoolValue {
        cmd: ETHTOOL_STXCSUM,
        data: 0,
    };
    let mut ifr_name = [0; libc::IFNAMSIZ];
    let name = device.as_bytes();
    if name.len() >= ifr_name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name {device:?} is too long"),
        ));
    }
    for (to, from) in ifr_name.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    // SAFETY: SIOCETHTOOL reads a NUL-terminated name and follows `ifru_data` to a `struct ethtool_value`; both live
    // until the call returns, and ETHTOOL_STXCSUM reads the two words and writes nothing beyond them.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
