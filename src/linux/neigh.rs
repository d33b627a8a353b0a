//! Neighbours: which link-layer address an address of the link has.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::attributes;
use super::error::KernelError;
use super::message::{Object, Request, rtm, split, word};
use super::netlink::Netlink;
use crate::mac::MacAddr;

/// `NDA_*`, `NUD_*` (include/uapi/linux/neighbour.h).
pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
const INCOMPLETE: u16 = 1;
const FAILED: u16 = 0x20;
const PERMANENT: u16 = 0x80;

/// `AF_INET` and `AF_INET6` (include/linux/socket.h).
const INET: u8 = 2;
const INET6: u8 = 10;

/// A neighbour entry as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Where frames to it go; `None` while that is not known.
    pub mac: Option<MacAddr>,
    /// How it is known.
    pub reachability: Reachability,
}

/// How much the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reachability {
    /// Set by hand (NUD_PERMANENT), for ever and without asking the network.
    Permanent,
    /// It was asked for, and did not answer (NUD_FAILED).
    Failed,
    /// It is asked for right now (NUD_INCOMPLETE).
    Incomplete,
    /// Anything else.
    Other,
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
        let answers = match self.dump(rtm::GET_NEIGHBOUR, &question, operation).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let neighbours = answers.iter().filter_map(Neighbour::read);
        Ok(neighbours.filter(|neighbour| neighbour.index == index).collect())
    }
}

impl Netlink {
    /// All neighbours of the namespace.
    ///
    /// `ip neighbour show nud all`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn all_neighbours(&self) -> Result<Vec<Neighbour>, KernelError> {
        let answers = self.dump(rtm::GET_NEIGHBOUR, &NeighbourMessage::default(), "list neighbours").await?;
        Ok(answers.iter().filter_map(Neighbour::read).collect())
    }
}

impl Neighbour {
    /// Whether it was set by hand.
    pub fn is_permanent(&self) -> bool {
        self.reachability == Reachability::Permanent
    }

    /// `None` for what is no neighbour of an IP address, such as a bridge's forwarding entry.
    pub(super) fn read(object: &Object) -> Option<Self> {
        if object.kind != rtm::NEW_NEIGHBOUR {
            return None;
        }
        // struct ndmsg
        let (header, found) = split::<12>(&object.payload)?;
        let [family, _, _, _, _, _, _, _, state @ .., _flags, _kind] = *header;
        if ![INET, INET6].contains(&family) {
            return None;
        }
        Some(Self {
            index: word(header, 4),
            address: found.value(NDA_DST).and_then(attributes::ip)?,
            mac: found.value(NDA_LLADDR).and_then(attributes::mac),
            reachability: match u16::from_ne_bytes(state) {
                PERMANENT => Reachability::Permanent,
                FAILED => Reachability::Failed,
                INCOMPLETE => Reachability::Incomplete,
                _ => Reachability::Other,
            },
        })
    }
}

/// `ip neighbour replace ADDRESS lladdr MAC dev LINK nud permanent`
pub(super) fn add_neighbour(index: u32, address: IpAddr, mac: MacAddr) -> Request {
    let mut message = message_to(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Request::new(rtm::NEW_NEIGHBOUR, &message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// `ip neighbour replace ADDRESS dev LINK use`
pub(super) fn ask_neighbour(index: u32, address: IpAddr) -> Request {
    let mut message = message_to(index, address);
    message.header.flags = NeighbourFlags::Use;
    Request::new(rtm::NEW_NEIGHBOUR, &message, NLM_F_CREATE)
}

/// `ip neighbour delete ADDRESS dev LINK`
pub(super) fn delete_neighbour(index: u32, address: IpAddr) -> Request {
    Request::new(rtm::DEL_NEIGHBOUR, &message_to(index, address), 0)
}

fn message_to(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}
