//! Addresses of links.

use std::fmt;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::attributes;
use super::error::KernelError;
use super::message::{Object, Request, rtm, split, word};
use super::netlink::Netlink;

/// `IFA_*` (include/uapi/linux/if_addr.h).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const NODAD: u32 = 0x02;
const NOPREFIXROUTE: u32 = 0x200;

/// `RT_SCOPE_LINK` (include/uapi/linux/rtnetlink.h).
const SCOPE_LINK: u8 = 253;

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
    /// Means something on this link only (RT_SCOPE_LINK): the kernel makes it the source of nothing that leaves by another.
    pub of_link_only: bool,
}

impl<Link> Address<Link> {
    /// An address that is usable at once.
    pub fn at_once(device: Link, network: IpNetwork) -> Self {
        Self { device, network, no_dad: network.is_ipv6(), no_prefix_route: false, of_link_only: false }
    }

    /// The same address as the kernel has it, where its link has this index.
    pub fn by_index(&self, index: u32) -> Address {
        Address {
            device: index,
            network: self.network,
            no_dad: self.no_dad,
            no_prefix_route: self.no_prefix_route,
            of_link_only: self.of_link_only,
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
        let answers = match self.dump(rtm::GET_ADDRESS, &question, "list addresses").await {
            Err(refusal) if index.is_some() && refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let addresses = answers.iter().filter_map(Address::read);
        Ok(addresses.filter(|address| index.is_none_or(|index| address.device == index)).collect())
    }
}

impl Address {
    /// `None` for what is no IP address.
    pub(super) fn read(object: &Object) -> Option<Self> {
        if ![rtm::NEW_ADDRESS, rtm::DEL_ADDRESS].contains(&object.kind) {
            return None;
        }
        // struct ifaddrmsg
        let (header, found) = split::<8>(&object.payload)?;
        let [family, prefix, flags, scope, ..] = *header;
        let flags = found.value(IFA_FLAGS).and_then(attributes::number).unwrap_or(flags.into());
        // On a point-to-point link IFA_ADDRESS is the other end's, and IFA_LOCAL ours.
        let address = found.value(IFA_LOCAL).or(found.value(IFA_ADDRESS)).and_then(attributes::ip)?;
        Some(Self {
            device: word(header, 4),
            network: IpNetwork::new(address, prefix).ok()?,
            no_dad: flags & NODAD != 0,
            no_prefix_route: flags & NOPREFIXROUTE != 0,
            // Of IPv6 the kernel decides by the address itself.
            of_link_only: AddressFamily::from(family) == AddressFamily::Inet && scope == SCOPE_LINK,
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
    Request::new(rtm::NEW_ADDRESS, &message, NLM_F_CREATE | NLM_F_EXCL)
}

/// `ip address delete ADDRESS/PREFIX dev LINK`
pub(super) fn delete_address(address: &Address) -> Request {
    Request::new(rtm::DEL_ADDRESS, &message_to(address), 0)
}

fn message_to(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family =
        if address.network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = address.network.prefix();
    message.header.index = address.device;
    if address.of_link_only {
        message.header.scope = AddressScope::Link;
    }
    message.attributes.push(AddressAttribute::Local(address.network.ip()));
    message.attributes.push(AddressAttribute::Address(address.network.ip()));
    message
}
