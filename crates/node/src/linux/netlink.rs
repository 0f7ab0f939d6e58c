//! A synchronous rtnetlink socket.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Multicast groups of rtnetlink(7), as bits of `nl_groups`.
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;
/// `NFNLGRP_NFTABLES` (7) of linux/netfilter/nfnetlink.h, as a bit as well.
const NFNLGRP_NFTABLES: u32 = 0x40;

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused the request.
    #[error("{0}")]
    Kernel(#[source] io::Error),
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    #[error("netlink message: {0}")]
    Decode(String),
    /// The kernel's tables changed while they were read, several times in a row.
    #[error("the kernel's tables keep changing while they are read")]
    Interrupted,
}

impl NetlinkError {
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(e) | Self::Socket(e) => e.raw_os_error(),
            _ => None,
        }
    }

    /// `EEXIST`.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(nix::libc::EEXIST)
    }

    /// No such device, route or address.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(
                nix::libc::ENODEV | nix::libc::ESRCH | nix::libc::ENOENT | nix::libc::EADDRNOTAVAIL
            )
        )
    }
}

/// A request/answer socket; it belongs to the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    socket: RawSocket,
    sequence: u32,
}

impl Socket {
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = RawSocket::new(NETLINK_ROUTE).map_err(NetlinkError::Socket)?;
        socket.bind_auto().map_err(NetlinkError::Socket)?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(NetlinkError::Socket)?;
        // Dumps are answered with what was asked for (one family, one link) instead of everything.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    pub fn execute(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(|_| ())
    }

    /// Asks for one object.
    pub fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK)
    }

    /// Asks for all objects of a kind. A dump that the kernel says was disturbed by a change is read again.
    pub fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..10 {
            match self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP) {
                Err(NetlinkError::Interrupted) => {}
                other => return other,
            }
        }
        Err(NetlinkError::Interrupted)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        self.socket.send(&buffer, 0).map_err(NetlinkError::Socket)?;
        self.receive()
    }

    fn receive(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(NetlinkError::Socket)?;
            let mut rest = &datagram[..];
            while rest.len() >= 16 {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| NetlinkError::Decode(e.to_string()))?;
                let length = message.header.length as usize;
                if length < 16 || length > rest.len() {
                    return Err(NetlinkError::Decode(format!("length {length}")));
                }
                // Messages are aligned to 4 bytes within a datagram.
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                if message.header.sequence_number != self.sequence {
                    // The answer to a request that was given up.
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(_) if interrupted => {
                        return Err(NetlinkError::Interrupted);
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(code) => Err(NetlinkError::Kernel(io::Error::from_raw_os_error(
                                code.get().abs(),
                            ))),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}

/// Tells when links, addresses or routes of the namespace change, or rules of its nftables (those of iptables-nft
/// are among them; the legacy tables tell nobody). What changed is not looked at: whoever waits for it observes afresh, so a
/// lost notification can only delay.
#[derive(Debug)]
pub struct Monitor {
    route: RawSocket,
    rules: RawSocket,
}

/// What changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Links, addresses, routes.
    pub links: bool,
    /// nftables.
    pub rules: bool,
}

impl Monitor {
    pub fn open() -> Result<Self, NetlinkError> {
        let open = |protocol, groups| {
            let mut socket = RawSocket::new(protocol)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, groups))?;
            Ok(socket)
        };
        let groups = RTMGRP_LINK
            | RTMGRP_IPV4_IFADDR
            | RTMGRP_IPV6_IFADDR
            | RTMGRP_IPV4_ROUTE
            | RTMGRP_IPV6_ROUTE;
        Ok(Self {
            route: open(NETLINK_ROUTE, groups).map_err(NetlinkError::Socket)?,
            rules: open(NETLINK_NETFILTER, NFNLGRP_NFTABLES).map_err(NetlinkError::Socket)?,
        })
    }

    /// Blocks until something changed, and takes all that was said so far.
    pub fn wait(&self) -> Result<Noticed, NetlinkError> {
        loop {
            let noticed = Noticed {
                links: drain(&self.route)?,
                rules: drain(&self.rules)?,
            };
            if noticed != Noticed::default() {
                return Ok(noticed);
            }
            let mut fds = [&self.route, &self.rules]
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::Socket(errno.into())),
            }
        }
    }
}

/// Reads what is there; says whether there was anything. An overrun of the socket's buffer counts.
fn drain(socket: &RawSocket) -> Result<bool, NetlinkError> {
    let mut any = false;
    loop {
        match socket.recv_from_full() {
            Ok(_) => any = true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => any = true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(NetlinkError::Socket(e)),
        }
    }
}
