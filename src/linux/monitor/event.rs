//! One event, and reading it from the kernel's message.

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NlasIterator, Parseable, parse_i32, parse_string,
};

use crate::linux::addr::Address;
use crate::linux::link::Link;
use crate::linux::route::{MAIN_TABLE, Route};

/// `RTM_NEWNETCONF`, and its attributes (include/uapi/linux/netconf.h).
const NEW_NETCONF: u16 = 80;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;

/// Length of `struct netconfmsg` with its padding, and of `struct nfgenmsg`.
const SHORT_HEADER_LEN: usize = 4;

/// `NLMSG_OVERRUN`, and all the others that are no message of a subsystem.
const MIN_TYPE: u16 = 16;

/// `NFNL_SUBSYS_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const SUBSYSTEM_NFTABLES: u8 = 10;

/// `NFT_MSG_NEWGEN`: that a transaction is over (include/uapi/linux/netfilter/nf_tables.h).
const NEW_GENERATION: u8 = 15;

/// `NFT_MSG_DEL*`, all of which the kernel notifies with (same file).
const DELETIONS: [u8; 7] = [2, 5, 8, 11, 14, 20, 24];

/// `NFTA_*_TABLE`, `NFTA_TABLE_NAME`: the same number in every message of nf_tables.
const NFTA_TABLE: u16 = 1;

/// `NFTA_CHAIN_NAME` and `NFTA_RULE_CHAIN`, and the messages that have them (`NFT_MSG_*CHAIN`, `NFT_MSG_*RULE`).
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_CHAIN: u16 = 2;
const ABOUT_CHAINS: [u8; 2] = [3, 5];
const ABOUT_RULES: [u8; 2] = [6, 8];

/// Something changed. `removed` says that it went; else it came, or is another now.
///
/// `port` names the socket that asked for the change ([`Socket::bind`](crate::linux::netlink::Socket::bind)): so an
/// own change can be told from another's. 0 is the kernel itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// A route, of any table. One that replaces another is told alone: ours may be gone though the one told is another's.
    Route {
        /// Whether it went.
        removed: bool,
        /// Who made it (RTPROT_*).
        protocol: u8,
        /// Its table; main is 254.
        table: u32,
        /// Which packets.
        destination: IpNetwork,
        /// Its metric; `None` is the family's default.
        metric: Option<u32>,
        /// Who asked.
        port: u32,
    },
    /// A link. With one that goes down or away go its routes.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Whether it was set up (IFF_UP). Says nothing of the carrier.
        up: bool,
        /// Its MTU in bytes.
        mtu: u32,
        /// Whether it went.
        removed: bool,
    },
    /// An address of a link.
    Address {
        /// Whether it went.
        removed: bool,
        /// Index of the link.
        index: u32,
        /// The address.
        address: IpAddr,
        /// Who asked.
        port: u32,
    },
    /// A neighbour entry that went, or a forwarding entry of a bridge or a VXLAN device that came or went.
    Neighbour {
        /// Whether it went.
        removed: bool,
        /// Index of the link.
        index: u32,
        /// The neighbour; of a forwarding entry, where its frames are sent, if that is known.
        address: Option<IpAddr>,
    },
    /// A rule of policy routing.
    Rule {
        /// Whether it went.
        removed: bool,
        /// Whether it is for IPv4; else for IPv6.
        ipv4: bool,
        /// Who made it (RTPROT_*).
        protocol: u8,
        /// Priority.
        priority: u32,
    },
    /// Settings of IPv4 or IPv6, by sysctl mostly.
    Netconf {
        /// Whether they are IPv4's; else IPv6's.
        ipv4: bool,
        /// Of which link.
        of: NetconfOf,
        /// Whether packets are forwarded, where that changed. `net.ipv4.ip_forward` is that of [`NetconfOf::All`].
        forwarding: Option<bool>,
        /// How sources are checked, where that changed.
        rp_filter: Option<u32>,
    },
    /// A table of nf_tables, or something in it.
    Nftables {
        /// The table's family (NFPROTO_*: inet is 1).
        family: u8,
        /// The table's name.
        table: Option<String>,
        /// The chain's name, where it is about a chain or a rule.
        chain: Option<String>,
        /// Whether it, or something in it, went.
        removed: bool,
        /// Who asked.
        port: u32,
    },
    /// Events were lost, or one could not be read: look at everything.
    Missed,
}

/// Whose settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetconfOf {
    /// `conf/all`
    All,
    /// `conf/default`: of links that are made from now on.
    Default,
    /// Those of the link with this index.
    Link(u32),
}

/// Queues an event, unless the last one says the same.
pub(super) fn push(events: &mut VecDeque<Event>, event: Event) {
    if events.back() != Some(&event) {
        events.push_back(event);
    }
}

/// Takes a datagram of route netlink apart.
pub(in crate::linux) fn read_route(datagram: &[u8], events: &mut VecDeque<Event>) {
    each_message(datagram, |message| {
        if message.message_type() == NEW_NETCONF {
            read_netconf(message.payload()).into_iter().for_each(|event| push(events, event));
            return;
        }
        let header = NetlinkHeader::parse(message).unwrap_or_default();
        match RouteNetlinkMessage::deserialize(&header, message.payload()) {
            Ok(read) => {
                event_of(read, message.port_number()).into_iter().for_each(|event| push(events, event));
            }
            Err(_) => push(events, Event::Missed),
        }
    });
}

/// Takes a datagram of nf_tables apart.
pub(in crate::linux) fn read_nftables(datagram: &[u8], events: &mut VecDeque<Event>) {
    each_message(datagram, |message| {
        let [kind, subsystem] = message.message_type().to_le_bytes();
        if subsystem != SUBSYSTEM_NFTABLES || kind == NEW_GENERATION {
            return;
        }
        let payload = message.payload();
        let name_of = |wanted: Option<u16>| {
            let attributes = NlasIterator::new(payload.get(SHORT_HEADER_LEN..).unwrap_or_default());
            let name = attributes.flatten().find(|it| Some(it.kind()) == wanted)?;
            parse_string(name.value()).ok()
        };
        push(
            events,
            Event::Nftables {
                family: payload.first().copied().unwrap_or(0),
                table: name_of(Some(NFTA_TABLE)),
                chain: name_of(chain_attribute(kind)),
                removed: DELETIONS.contains(&kind),
                port: message.port_number(),
            },
        );
    });
}

fn chain_attribute(kind: u8) -> Option<u16> {
    let of_rule = ABOUT_RULES.contains(&kind).then_some(NFTA_RULE_CHAIN);
    of_rule.or(ABOUT_CHAINS.contains(&kind).then_some(NFTA_CHAIN_NAME))
}

fn each_message(datagram: &[u8], mut read: impl FnMut(&NetlinkBuffer<&[u8]>)) {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        if message.message_type() >= MIN_TYPE {
            read(&message);
        }
        let length = (message.length() as usize).max(1).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn event_of(message: RouteNetlinkMessage, port: u32) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewRoute(message) => route(Route::read(&message)?, false, port),
        RouteNetlinkMessage::DelRoute(message) => route(Route::read(&message)?, true, port),
        // Of another family than none: a port of a bridge, and not the link.
        RouteNetlinkMessage::NewLink(message) if is_link_itself(message.header.interface_family) => {
            link(Link::read(message), false)
        }
        RouteNetlinkMessage::DelLink(message) if is_link_itself(message.header.interface_family) => {
            link(Link::read(message), true)
        }
        RouteNetlinkMessage::NewAddress(message) => address(&Address::read(&message)?, false, port),
        RouteNetlinkMessage::DelAddress(message) => address(&Address::read(&message)?, true, port),
        RouteNetlinkMessage::NewNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            Some(neighbour(&message, false))
        }
        RouteNetlinkMessage::DelNeighbour(message) => Some(neighbour(&message, true)),
        RouteNetlinkMessage::NewRule(message) => rule(&message, false),
        RouteNetlinkMessage::DelRule(message) => rule(&message, true),
        _ => None,
    }
}

fn is_link_itself(family: AddressFamily) -> bool {
    family == AddressFamily::Unspec
}

fn route(route: Route, removed: bool, port: u32) -> Option<Event> {
    let Route { protocol, destination, metric, .. } = route;
    Some(Event::Route {
        removed,
        protocol,
        table: route.table.unwrap_or(MAIN_TABLE),
        destination,
        metric,
        port,
    })
}

fn link(link: Link, removed: bool) -> Option<Event> {
    let Link { index, name, up, mtu, .. } = link;
    // Without a name: an event of a wireless driver, which says nothing of the link.
    (!name.is_empty()).then_some(Event::Link { index, name, up, mtu, removed })
}

fn address(address: &Address, removed: bool, port: u32) -> Option<Event> {
    Some(Event::Address { removed, index: address.device, address: address.network.ip(), port })
}

fn neighbour(message: &NeighbourMessage, removed: bool) -> Event {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(address) => ip_of(address),
        _ => None,
    });
    Event::Neighbour { removed, index: message.header.ifindex, address }
}

/// Of a forwarding entry the crate does not know the family, but the length tells.
pub(in crate::linux) fn ip_of(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => {
            let four = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from);
            four.or_else(|| <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from))
        }
        _ => None,
    }
}

fn rule(message: &RuleMessage, removed: bool) -> Option<Event> {
    let ipv4 = match message.header.family {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    let (mut protocol, mut priority) = (0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(it) => protocol = (*it).into(),
            RuleAttribute::Priority(it) => priority = *it,
            _ => {}
        }
    }
    Some(Event::Rule { removed, ipv4, protocol, priority })
}

/// `None` for a setting that nobody here watches, and for families other than the two.
fn read_netconf(payload: &[u8]) -> Option<Event> {
    let ipv4 = match AddressFamily::from(*payload.first()?) {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    let (mut of, mut forwarding, mut rp_filter) = (None, None, None);
    for attribute in NlasIterator::new(payload.get(SHORT_HEADER_LEN..)?).flatten() {
        let Ok(value) = parse_i32(attribute.value()) else { continue };
        match attribute.kind() {
            NETCONFA_IFINDEX => {
                of = Some(match value {
                    -1 => NetconfOf::All,
                    -2 => NetconfOf::Default,
                    index => NetconfOf::Link(index.cast_unsigned()),
                });
            }
            NETCONFA_FORWARDING => forwarding = Some(value != 0),
            NETCONFA_RP_FILTER => rp_filter = Some(value.cast_unsigned()),
            _ => {}
        }
    }
    let is_watched = forwarding.is_some() || rp_filter.is_some();
    Some(Event::Netconf { ipv4, of: of?, forwarding, rp_filter }).filter(|_| is_watched)
}
