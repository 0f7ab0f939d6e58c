//! Gratuitous ARP (RFC 5227) and unsolicited neighbour advertisements (RFC 4861, section 7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};
use net::Mac;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::route::LinkId;

/// Sends one announcement that `ip` is at `mac` out of the link, which must be in the calling thread's namespace and
/// up.
pub fn announce(link: LinkId, mac: Mac, ip: IpAddr) -> io::Result<()> {
    let frame = match ip {
        IpAddr::V4(ip) => gratuitous_arp(mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
    }?;
    send(link, &frame)
}

/// A request for the own address: it updates caches, and nobody answers it.
fn gratuitous_arp(mac: Mac, ip: Ipv4Addr) -> io::Result<Vec<u8>> {
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac.octets(),
        &ip.octets(),
        &[0; 6],
        &ip.octets(),
    )
    .map_err(io::Error::other)?;
    let builder = PacketBuilder::ethernet2(mac.octets(), [0xff; 6]).arp(arp);
    let mut frame = Vec::with_capacity(builder.size());
    builder.write(&mut frame).map_err(io::Error::other)?;
    Ok(frame)
}

fn unsolicited_advertisement(mac: Mac, ip: Ipv6Addr) -> io::Result<Vec<u8>> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let builder = PacketBuilder::ethernet2(mac.octets(), [0x33, 0x33, 0, 0, 0, 1])
        // Hop limit 255 proves that the packet did not pass a router.
        .ipv6(ip.octets(), ALL_NODES.octets(), 255)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(
            NeighborAdvertisementHeader {
                router: false,
                solicited: false,
                r#override: true,
            },
        ));
    // Target address, then the option "target link-layer address" (type 2, one unit of 8 bytes).
    let mut body = ip.octets().to_vec();
    body.extend([2, 1]);
    body.extend(mac.octets());
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    builder.write(&mut frame, &body).map_err(io::Error::other)?;
    Ok(frame)
}

#[expect(unsafe_code, reason = "nix cannot build a link-layer address")]
fn send(link: LinkId, frame: &[u8]) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let to = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_ifindex: i32::try_from(link).map_err(io::Error::other)?,
        // The frame brings its own header.
        sll_protocol: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
    // SAFETY: the pointers are to `frame` and `to`, which outlive the call, with their own lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            length,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x0a, 0x58, 0x64, 0x40, 0, 2];

    fn mac() -> Mac {
        "0a:58:64:40:00:02".parse().unwrap()
    }

    /// RFC 5227, section 3: a broadcast request whose sender and target address are the one announced.
    #[test]
    fn a_gratuitous_arp_is_a_request_for_the_own_address() {
        let frame = gratuitous_arp(mac(), Ipv4Addr::new(100, 64, 0, 2)).unwrap();
        let mut wanted = vec![0xff; 6];
        wanted.extend(MAC);
        wanted.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        wanted.extend(MAC);
        wanted.extend([100, 64, 0, 2]);
        wanted.extend([0; 6]);
        wanted.extend([100, 64, 0, 2]);
        assert_eq!(frame, wanted);
    }

    /// RFC 4861, section 7.2.6: to all nodes, not solicited, overriding what they had.
    #[test]
    fn an_unsolicited_advertisement_overrides() {
        let ip: Ipv6Addr = "fd00:100:64::2".parse().unwrap();
        let frame = unsolicited_advertisement(mac(), ip).unwrap();
        let (ethernet, rest) = frame.split_at(14);
        assert_eq!(ethernet[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(ethernet[6..12], MAC);
        let (header, message) = rest.split_at(40);
        assert_eq!(header[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(header[8..24], ip.octets());
        assert_eq!(
            header[24..],
            "ff02::1".parse::<Ipv6Addr>().unwrap().octets()
        );
        let mut wanted = vec![136, 0, message[2], message[3], 0x20, 0, 0, 0];
        wanted.extend(ip.octets());
        wanted.extend([2, 1]);
        wanted.extend(MAC);
        assert_eq!(message, wanted);
        // The checksum covers addresses, length, next header and message (RFC 4443, section 2.3).
        let mut sum: u32 = 32 + 58;
        for pair in header[8..].chunks(2).chain(message.chunks(2)) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
