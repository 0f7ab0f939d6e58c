//! Verbs on links, addresses and routes.

use std::net::IpAddr;
use std::os::fd::RawFd;

use net::{Cidr, Mac};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use smol_str::SmolStr;

use super::netlink::{NetlinkError, Socket};
use crate::addr::IfAddr;

/// Index of a link within its namespace.
pub type LinkId = u32;

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub id: LinkId,
    pub name: SmolStr,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub tx_queue_len: u32,
    pub up: bool,
    /// `IFF_LOWER_UP`: the other end is up as well.
    pub carrier: bool,
    /// Of a veth: the index of the other end, in the namespace where that is.
    pub peer: Option<LinkId>,
    pub alias: String,
}

/// An address as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundAddress {
    pub link: LinkId,
    pub address: IfAddr,
    /// Secondary, temporary or deprecated.
    pub passing: bool,
}

/// What to change on a link; `None` = leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkChange<'a> {
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub tx_queue_len: Option<u32>,
    pub up: Option<bool>,
    pub name: Option<&'a str>,
    pub alias: Option<&'a str>,
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn link_message(id: LinkId, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = id;
    message.attributes = attributes;
    message
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        id: message.header.index,
        name: SmolStr::default(),
        mac: None,
        mtu: 0,
        tx_queue_len: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        peer: None,
        alias: String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.into(),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac::new);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(len) => link.tx_queue_len = *len,
            LinkAttribute::Link(id) => link.peer = Some(*id),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            _ => {}
        }
    }
    link
}

impl Socket {
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Ok(self
            .dump(&request)?
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(read_link(message)),
                _ => None,
            })
            .collect())
    }

    /// `None` if there is no link of that name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let message = link_message(0, vec![LinkAttribute::IfName(name.into())]);
        match self.get(RouteNetlinkMessage::GetLink(message)) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(read_link(message)),
                _ => None,
            })),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a veth pair: `name` here, `peer` in the namespace behind `peer_netns`, both with `mtu` (0 = default).
    pub(crate) fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_netns: RawFd,
        mtu: u32,
        peer_mac: Option<Mac>,
    ) -> Result<(), NetlinkError> {
        let mut near = vec![LinkAttribute::IfName(name.into())];
        let mut far = vec![
            LinkAttribute::IfName(peer.into()),
            LinkAttribute::NetNsFd(peer_netns),
        ];
        if mtu > 0 {
            near.push(LinkAttribute::Mtu(mtu));
            far.push(LinkAttribute::Mtu(mtu));
        }
        if let Some(mac) = peer_mac {
            far.push(LinkAttribute::Address(mac.octets().to_vec()));
        }
        near.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(link_message(0, far)))),
        ]));
        self.execute(
            RouteNetlinkMessage::NewLink(link_message(0, near)),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    pub(crate) fn del_link(&mut self, id: LinkId) -> Result<(), NetlinkError> {
        self.execute(
            RouteNetlinkMessage::DelLink(link_message(id, Vec::new())),
            0,
        )
    }

    pub(crate) fn set_link(
        &mut self,
        id: LinkId,
        change: &LinkChange<'_>,
    ) -> Result<(), NetlinkError> {
        let mut attributes = Vec::new();
        if let Some(name) = change.name {
            attributes.push(LinkAttribute::IfName(name.into()));
        }
        if let Some(alias) = change.alias {
            attributes.push(LinkAttribute::IfAlias(alias.into()));
        }
        if let Some(mac) = change.mac {
            attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
        }
        if let Some(mtu) = change.mtu {
            attributes.push(LinkAttribute::Mtu(mtu));
        }
        if let Some(len) = change.tx_queue_len {
            attributes.push(LinkAttribute::TxQueueLen(len));
        }
        let mut message = link_message(id, attributes);
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            if up {
                message.header.flags = LinkFlags::Up;
            }
        }
        self.execute(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Addresses of one link, or of all.
    pub(crate) fn addresses(
        &mut self,
        link: Option<LinkId>,
    ) -> Result<Vec<FoundAddress>, NetlinkError> {
        let mut request = AddressMessage::default();
        request.header.index = link.unwrap_or(0);
        let answers = self.dump(&RouteNetlinkMessage::GetAddress(request))?;
        let mut out = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else {
                continue;
            };
            if link.is_some_and(|id| id != message.header.index) {
                continue;
            }
            // On a point-to-point link `Local` is our end and `Address` the other; elsewhere they are equal, and IPv6
            // has `Address` alone.
            let find = |local: bool| {
                message.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Local(ip) if local => Some(*ip),
                    AddressAttribute::Address(ip) if !local => Some(*ip),
                    _ => None,
                })
            };
            if let Some(ip) = find(true).or_else(|| find(false)) {
                // One bit means secondary for IPv4 and temporary for IPv6.
                let not_by_choice = AddressFlags::Secondary | AddressFlags::Deprecated;
                let passing = message.attributes.iter().any(
                    |a| matches!(a, AddressAttribute::Flags(f) if f.intersects(not_by_choice)),
                );
                out.push(FoundAddress {
                    link: message.header.index,
                    address: IfAddr {
                        ip,
                        prefix_len: message.header.prefix_len,
                    },
                    passing,
                });
            }
        }
        Ok(out)
    }

    /// Adds an address. IPv6 duplicate address detection is off: the controller gives out each address once, and a
    /// tentative address would hold up the pod for a second.
    pub(crate) fn add_address(
        &mut self,
        link: LinkId,
        address: IfAddr,
    ) -> Result<(), NetlinkError> {
        match self.execute(
            RouteNetlinkMessage::NewAddress(address_message(link, address, true)),
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Err(e) if e.is_exists() => Ok(()),
            other => other,
        }
    }

    pub(crate) fn del_address(
        &mut self,
        link: LinkId,
        address: IfAddr,
    ) -> Result<(), NetlinkError> {
        match self.execute(
            RouteNetlinkMessage::DelAddress(address_message(link, address, false)),
            0,
        ) {
            Err(e) if e.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Unicast routes of the main table, both families.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut out = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            for answer in self.dump(&RouteNetlinkMessage::GetRoute(request))? {
                if let RouteNetlinkMessage::NewRoute(message) = answer
                    && message.header.kind == RouteType::Unicast
                    && message.header.table == RouteHeader::RT_TABLE_MAIN
                {
                    out.push(message);
                }
            }
        }
        Ok(out)
    }

    /// Adds a route to the main table, or takes the place of the one to the same destination.
    pub(crate) fn replace_route(
        &mut self,
        link: LinkId,
        destination: Option<Cidr>,
        gateway: IpAddr,
        source: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if let Some(destination) = destination {
            message.header.destination_prefix_length = destination.prefix_len();
            message
                .attributes
                .push(RouteAttribute::Destination(destination.network().into()));
        }
        message
            .attributes
            .push(RouteAttribute::Gateway(gateway.into()));
        message.attributes.push(RouteAttribute::Oif(link));
        if let Some(source) = source {
            message
                .attributes
                .push(RouteAttribute::PrefSource(source.into()));
        }
        self.execute(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    pub(crate) fn del_route(&mut self, message: RouteMessage) -> Result<(), NetlinkError> {
        match self.execute(RouteNetlinkMessage::DelRoute(message), 0) {
            Err(e) if e.is_not_found() => Ok(()),
            other => other,
        }
    }
}

fn address_message(link: LinkId, address: IfAddr, adding: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip);
    message.header.prefix_len = address.prefix_len;
    message.header.index = link;
    message.header.scope = if address.is_link_local() {
        AddressScope::Link
    } else {
        AddressScope::Universe
    };
    message.attributes.push(AddressAttribute::Local(address.ip));
    message
        .attributes
        .push(AddressAttribute::Address(address.ip));
    if adding {
        match address.ip {
            IpAddr::V4(ip) if address.prefix_len < 31 => {
                let host = u32::MAX.checked_shr(address.prefix_len.into()).unwrap_or(0);
                message
                    .attributes
                    .push(AddressAttribute::Broadcast((u32::from(ip) | host).into()));
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
    }
    message
}
