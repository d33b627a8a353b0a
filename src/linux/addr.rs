//! Addresses of links.

use std::fmt;

use ipnetwork::IpNetwork;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::error::KernelError;
use super::netlink::Netlink;
use super::packet::Request;

/// An address of a link, to be added or as found. `Link` is how it names the link: by index, as the kernel does, or by
/// name where the link may not be there yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address<Link = u32> {
    /// The link.
    pub device: Link,
    /// The address, and the length of the prefix that it says to be on the link.
    pub network: IpNetwork,
    /// IPv6 only: usable at once, without asking whether another has it (IFA_F_NODAD).
    pub no_dad: bool,
    /// Without the route to its prefix that the kernel would add (IFA_F_NOPREFIXROUTE).
    pub no_prefix_route: bool,
}

impl<Link> Address<Link> {
    /// An address that is usable at once.
    pub fn at_once(device: Link, network: IpNetwork) -> Self {
        Self { device, network, no_dad: network.is_ipv6(), no_prefix_route: false }
    }

    /// The same address as the kernel has it, where its link has this index.
    pub fn by_index(&self, index: u32) -> Address {
        Address {
            device: index,
            network: self.network,
            no_dad: self.no_dad,
            no_prefix_route: self.no_prefix_route,
        }
    }
}

impl<Link: fmt::Display> fmt::Display for Address<Link> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.network, self.device)
    }
}

impl Netlink {
    /// The addresses of the link `index`, or of all links. None of a link that does not exist.
    ///
    /// `ip address show [dev LINK]`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn addresses(&self, index: Option<u32>) -> Result<Vec<Address>, KernelError> {
        let mut question = AddressMessage::default();
        question.header.index = index.unwrap_or(0);
        let answers = match self.dump(RouteNetlinkMessage::GetAddress(question), "list addresses").await {
            Err(refusal) if index.is_some() && refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Address::read(&message),
            _ => None,
        });
        Ok(addresses.filter(|address| index.is_none_or(|index| address.device == index)).collect())
    }
}

impl Address {
    pub(super) fn read(message: &AddressMessage) -> Option<Self> {
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        let (mut address, mut local) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other end's, and IFA_LOCAL ours.
        Some(Self {
            device: message.header.index,
            network: IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?,
            no_dad: flags.contains(AddressFlags::Nodad),
            no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
        })
    }
}

/// `ip address add ADDRESS/PREFIX dev LINK [nodad] [noprefixroute]`
pub(super) fn add_address(address: &Address) -> Request {
    let mut message = message_to(address);
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, address.no_dad && address.network.is_ipv6());
    flags.set(AddressFlags::Noprefixroute, address.no_prefix_route);
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    let request_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    Request::new(RouteNetlinkMessage::NewAddress(message), request_flags)
}

/// `ip address delete ADDRESS/PREFIX dev LINK`
pub(super) fn delete_address(address: &Address) -> Request {
    Request::new(RouteNetlinkMessage::DelAddress(message_to(address)), NLM_F_REQUEST | NLM_F_ACK)
}

fn message_to(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family =
        if address.network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = address.network.prefix();
    message.header.index = address.device;
    message.attributes.push(AddressAttribute::Local(address.network.ip()));
    message.attributes.push(AddressAttribute::Address(address.network.ip()));
    message
}
