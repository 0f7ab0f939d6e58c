//! One ICMP echo, to learn whether a gateway answers.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use etherparse::{IcmpEchoHeader, Ipv4Slice};
use etherparse::{Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv,
    sendmsg, setsockopt, socket, sockopt,
};

/// Sends an echo request out of `device` and waits for the answer: `Ok(false)` = none within `timeout`.
///
/// `id` and `sequence` tell this request from others.
pub fn ping(
    device: &str,
    to: IpAddr,
    id: u16,
    sequence: u16,
    timeout: Duration,
) -> io::Result<bool> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        protocol,
    )?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
    let echo = IcmpEchoHeader { id, seq: sequence };
    let payload = *b"kube-ovn-daemon ";
    let mut packet = Vec::with_capacity(64);
    let fd = socket.as_raw_fd();
    let sent = match to {
        IpAddr::V4(ip) => {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &payload)
                .write(&mut packet)
                .map_err(io::Error::other)?;
            packet.extend(payload);
            let address = SockaddrIn::from(SocketAddrV4::new(ip, 0));
            sendmsg(
                fd,
                &[IoSlice::new(&packet)],
                &[],
                MsgFlags::empty(),
                Some(&address),
            )
        }
        IpAddr::V6(ip) => {
            // The kernel fills in the checksum of a raw ICMPv6 socket (RFC 3542, section 3.1).
            Icmpv6Header::new(Icmpv6Type::EchoRequest(echo))
                .write(&mut packet)
                .map_err(io::Error::other)?;
            packet.extend(payload);
            let address = SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0));
            sendmsg(
                fd,
                &[IoSlice::new(&packet)],
                &[],
                MsgFlags::empty(),
                Some(&address),
            )
        }
    };
    match sent {
        Ok(_) => {}
        // No route or no answer to ARP: the gateway is not reachable, which is an answer.
        Err(nix::Error::EHOSTUNREACH | nix::Error::ENETUNREACH | nix::Error::ENETDOWN) => {
            return Ok(false);
        }
        Err(e) => return Err(e.into()),
    }
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; 1500];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let wait = PollTimeout::try_from(left + Duration::from_millis(1))
            .unwrap_or(PollTimeout::from(1000u16));
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, wait)? == 0 {
            return Ok(false);
        }
        let length = match recv(fd, &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => continue,
            Err(nix::Error::EHOSTUNREACH | nix::Error::ENETUNREACH) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        if is_reply(&buffer[..length], to.is_ipv4(), echo) {
            return Ok(true);
        }
    }
}

/// A raw IPv4 socket delivers the IP header too, an IPv6 one does not.
fn is_reply(packet: &[u8], v4: bool, echo: IcmpEchoHeader) -> bool {
    if v4 {
        let Ok(ip) = Ipv4Slice::from_slice(packet) else {
            return false;
        };
        Icmpv4Slice::from_slice(ip.payload().payload)
            .is_ok_and(|icmp| icmp.icmp_type() == Icmpv4Type::EchoReply(echo))
    } else {
        Icmpv6Slice::from_slice(packet)
            .is_ok_and(|icmp| icmp.icmp_type() == Icmpv6Type::EchoReply(echo))
    }
}
