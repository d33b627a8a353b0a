//! Neighbours: which link-layer address an address of the link has.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};

use super::error::KernelError;
use super::netlink::Netlink;
use super::packet::Request;
use crate::mac::MacAddr;

/// A neighbour entry as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Where frames to it go; `None` while that is not known.
    pub mac: Option<MacAddr>,
    /// Whether it was set by hand (NUD_PERMANENT), for ever and without asking the network.
    pub permanent: bool,
}

impl Netlink {
    /// The neighbours behind the link `index`. None behind a link that does not exist.
    ///
    /// `ip neighbour show dev LINK nud all`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn neighbours(&self, index: u32) -> Result<Vec<Neighbour>, KernelError> {
        let mut question = NeighbourMessage::default();
        question.attributes.push(NeighbourAttribute::IfIndex(index));
        let operation = format!("list neighbours dev {index}");
        let answers = match self.dump(RouteNetlinkMessage::GetNeighbour(question), operation).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let neighbours = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => Neighbour::read(message),
            _ => None,
        });
        Ok(neighbours.filter(|neighbour| neighbour.index == index).collect())
    }
}

impl Neighbour {
    /// `None` for what is no neighbour of an IP address, such as a bridge's forwarding entry.
    pub(super) fn read(message: NeighbourMessage) -> Option<Self> {
        let (mut address, mut mac) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(ip.into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(ip.into()),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(MacAddr),
                _ => {}
            }
        }
        Some(Self {
            index: message.header.ifindex,
            address: address?,
            mac,
            permanent: message.header.state == NeighbourState::Permanent,
        })
    }
}

/// `ip neighbour replace ADDRESS lladdr MAC dev LINK nud permanent`
pub(super) fn add_neighbour(index: u32, address: IpAddr, mac: MacAddr) -> Request {
    let mut message = message_to(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    Request::new(RouteNetlinkMessage::NewNeighbour(message), flags)
}

/// `ip neighbour delete ADDRESS dev LINK`
pub(super) fn delete_neighbour(index: u32, address: IpAddr) -> Request {
    let message = message_to(index, address);
    Request::new(RouteNetlinkMessage::DelNeighbour(message), NLM_F_REQUEST | NLM_F_ACK)
}

fn message_to(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}
