//! VXLAN (RFC 7348): a link whose frames travel in UDP datagrams, and its forwarding entries, which say to whom.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVxlan};

use super::attributes;
use super::error::KernelError;
use super::link::Link;
use super::message::{Object, Request, rtm, split, word};
use super::neigh::{NDA_DST, NDA_LLADDR};
use super::netlink::Netlink;
use crate::mac::MacAddr;

/// `IFLA_VXLAN_*` (include/uapi/linux/if_link.h).
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LOCAL6: u16 = 17;

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
        match self.ask(rtm::GET_LINK, &question, format!("show link {name}")).await {
            Ok(answer) => Ok(answer.and_then(|object| Some((Link::read(&object)?, Tunnel::read(&object))))),
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
        let answers = match self.dump(rtm::GET_NEIGHBOUR, &question, operation).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let entries = answers.iter().filter_map(ForwardingEntry::read);
        Ok(entries.filter(|entry| entry.index == index).collect())
    }
}

impl Tunnel {
    /// `None` for a link of another driver.
    pub(super) fn read(object: &Object) -> Option<Self> {
        if Link::read(object)?.kind.as_deref() != Some("vxlan") {
            return None;
        }
        let data = Link::driver_data(object)?;
        let ip = |kind| data.value(kind).and_then(attributes::ip);
        // The one number of route netlink that has its big end first.
        let port = data.value(IFLA_VXLAN_PORT).and_then(|it| it.try_into().ok()).map(u16::from_be_bytes);
        Some(Self {
            id: data.value(IFLA_VXLAN_ID).and_then(attributes::number).unwrap_or(0),
            port: port.unwrap_or(0),
            local: ip(IFLA_VXLAN_LOCAL).or(ip(IFLA_VXLAN_LOCAL6)),
            learning: data.value(IFLA_VXLAN_LEARNING).is_some_and(|it| it.first() == Some(&1)),
            remote: ip(IFLA_VXLAN_GROUP).or(ip(IFLA_VXLAN_GROUP6)),
        })
    }
}

impl ForwardingEntry {
    /// `None` for one that sends to no address.
    pub(super) fn read(object: &Object) -> Option<Self> {
        if object.kind != rtm::NEW_NEIGHBOUR {
            return None;
        }
        // struct ndmsg
        let (header, found) = split::<12>(&object.payload)?;
        Some(Self {
            index: word(header, 4),
            mac: found.value(NDA_LLADDR).and_then(attributes::mac)?,
            remote: found.value(NDA_DST).and_then(attributes::ip)?,
        })
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
    Request::new(rtm::NEW_LINK, &message, NLM_F_CREATE | NLM_F_EXCL)
}

/// `bridge fdb replace MAC dev LINK dst REMOTE self permanent`
pub(super) fn set_forwarding_entry(entry: &ForwardingEntry) -> Request {
    let mut message = message_to(entry);
    message.header.state = NeighbourState::Permanent;
    Request::new(rtm::NEW_NEIGHBOUR, &message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// `bridge fdb delete MAC dev LINK dst REMOTE self`
pub(super) fn delete_forwarding_entry(entry: &ForwardingEntry) -> Request {
    Request::new(rtm::DEL_NEIGHBOUR, &message_to(entry), 0)
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
