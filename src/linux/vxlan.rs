//! VXLAN (RFC 7348): a link whose frames travel in UDP datagrams, and its forwarding entries, which say to whom.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVxlan};

use super::error::KernelError;
use super::link::Link;
use super::monitor::ip_of;
use super::netlink::Netlink;
use super::packet::Request;
use crate::mac::MacAddr;

/// A VXLAN link, to be made. It learns nothing, asks nobody and floods nothing: a frame to an address without a
/// [`ForwardingEntry`] is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Its name.
    pub name: String,
    /// Its address, given at birth: udev leaves alone what was (addr_assign_type NET_ADDR_SET).
    pub mac: MacAddr,
    /// Its MTU in bytes: what goes inside.
    pub mtu: u32,
    /// Its group: the mark of ownership that a link can bear from its first moment.
    pub group: u32,
    /// What tells it from others.
    pub tunnel: Tunnel,
}

/// What a VXLAN link is and cannot be changed to later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// VXLAN network identifier, 24 bits.
    pub id: u32,
    /// UDP port of both ends.
    pub port: u16,
    /// This end's address. Its family is that of all other ends.
    pub local: Option<IpAddr>,
    /// Whether it learns from what it receives.
    pub learning: bool,
    /// Where frames to unknown addresses go: `None`, nowhere.
    pub remote: Option<IpAddr>,
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vxlan id {} dstport {}", self.id, self.port)?;
        self.local.iter().try_for_each(|local| write!(f, " local {local}"))?;
        self.remote.iter().try_for_each(|remote| write!(f, " remote {remote}"))?;
        if self.learning { Ok(()) } else { f.write_str(" nolearning") }
    }
}

/// Frames to `mac` go to `remote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ForwardingEntry {
    /// Index of the VXLAN link.
    pub index: u32,
    /// The frame's destination.
    pub mac: MacAddr,
    /// The other end.
    pub remote: IpAddr,
}

impl fmt::Display for ForwardingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dst {} dev {}", self.mac, self.remote, self.index)
    }
}

impl Netlink {
    /// The link of that name, and what tunnel it is if it is one; `None` if there is no link.
    ///
    /// `ip -d link show dev NAME`
    ///
    /// # Errors
    /// The kernel's refusal for any other reason.
    pub async fn vxlan(&self, name: &str) -> Result<Option<(Link, Option<Tunnel>)>, KernelError> {
        let mut question: LinkMessage = LinkUnspec::new_with_name(name).build();
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.ask(RouteNetlinkMessage::GetLink(question), format!("show link {name}")).await {
            Ok(RouteNetlinkMessage::NewLink(message)) => {
                let tunnel = Tunnel::read(&message);
                Ok(Some((Link::read(message), tunnel)))
            }
            Ok(_) => Ok(None),
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The forwarding entries of the VXLAN link `index`. None of a link that does not exist.
    ///
    /// `bridge fdb show dev LINK`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn forwarding_entries(&self, index: u32) -> Result<Vec<ForwardingEntry>, KernelError> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        question.header.ifindex = index;
        let operation = format!("list forwarding entries dev {index}");
        let answers = match self.dump(RouteNetlinkMessage::GetNeighbour(question), operation).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let entries = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => ForwardingEntry::read(&message),
            _ => None,
        });
        Ok(entries.filter(|entry| entry.index == index).collect())
    }
}

impl Tunnel {
    pub(super) fn read(message: &LinkMessage) -> Option<Self> {
        let infos = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
        let data = infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
            _ => None,
        })?;
        let mut tunnel = Self { id: 0, port: 0, local: None, learning: false, remote: None };
        for info in data {
            match info {
                InfoVxlan::Id(id) => tunnel.id = *id,
                InfoVxlan::Port(port) => tunnel.port = *port,
                InfoVxlan::Local(ip) => tunnel.local = Some((*ip).into()),
                InfoVxlan::Local6(ip) => tunnel.local = Some((*ip).into()),
                InfoVxlan::Group(ip) => tunnel.remote = Some((*ip).into()),
                InfoVxlan::Group6(ip) => tunnel.remote = Some((*ip).into()),
                InfoVxlan::Learning(learning) => tunnel.learning = *learning,
                _ => {}
            }
        }
        Some(tunnel)
    }
}

impl ForwardingEntry {
    /// `None` for one that sends to no address.
    pub(super) fn read(message: &NeighbourMessage) -> Option<Self> {
        let (mut mac, mut remote) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(MacAddr);
                }
                NeighbourAttribute::Destination(address) => remote = ip_of(address),
                _ => {}
            }
        }
        Some(Self { index: message.header.ifindex, mac: mac?, remote: remote? })
    }
}

/// `ip link add NAME address MAC mtu MTU group GROUP type vxlan id ID dstport PORT local LOCAL nolearning`
///
/// The checksum of the outer datagram is left at the kernel's default: it is computed, as IPv6 demands (RFC 6935).
pub(super) fn create_vxlan(vxlan: &Vxlan) -> Request {
    let tunnel = &vxlan.tunnel;
    let mut data =
        vec![InfoVxlan::Id(tunnel.id), InfoVxlan::Port(tunnel.port), InfoVxlan::Learning(tunnel.learning)];
    data.extend(tunnel.local.map(|local| match local {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    }));
    data.extend(tunnel.remote.map(|remote| match remote {
        IpAddr::V4(ip) => InfoVxlan::Group(ip),
        IpAddr::V6(ip) => InfoVxlan::Group6(ip),
    }));
    let message = LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan)
        .name(&vxlan.name)
        .address(vxlan.mac.0.to_vec())
        .mtu(vxlan.mtu)
        .link_group(vxlan.group)
        .set_info_data(InfoData::Vxlan(data))
        .build();
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    Request::new(RouteNetlinkMessage::NewLink(message), flags)
}

/// `bridge fdb replace MAC dev LINK dst REMOTE self permanent`
pub(super) fn set_forwarding_entry(entry: &ForwardingEntry) -> Request {
    let mut message = message_to(entry);
    message.header.state = NeighbourState::Permanent;
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    Request::new(RouteNetlinkMessage::NewNeighbour(message), flags)
}

/// `bridge fdb delete MAC dev LINK dst REMOTE self`
pub(super) fn delete_forwarding_entry(entry: &ForwardingEntry) -> Request {
    Request::new(RouteNetlinkMessage::DelNeighbour(message_to(entry)), NLM_F_REQUEST | NLM_F_ACK)
}

fn message_to(entry: &ForwardingEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.index;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(entry.remote.into()));
    message
}
