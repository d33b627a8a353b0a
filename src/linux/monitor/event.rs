//! One event, and reading it from the kernel's message.

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use rtnetlink::packet_core::NetlinkBuffer;

use crate::linux::addr::Address;
use crate::linux::attributes::{Attributes, ip, number};
use crate::linux::link::Link;
use crate::linux::message::{Object, rtm, split, word};
use crate::linux::neigh::NDA_DST;
use crate::linux::route::{MAIN_TABLE, Route};
use crate::linux::rule::{FRA_PRIORITY, FRA_PROTOCOL};

/// `NETCONFA_*` (include/uapi/linux/netconf.h).
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

/// `NFTA_SET_NAME` and `NFTA_SET_ELEM_LIST_SET`, and the messages that have them (`NFT_MSG_*SET`, `NFT_MSG_*SETELEM`).
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const ABOUT_SETS: [u8; 2] = [9, 11];
const ABOUT_ELEMENTS: [u8; 2] = [12, 14];

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
        /// The set, where it is about elements of one or about one itself.
        set: Option<SetEvent>,
        /// Whether it, or something in it, went.
        removed: bool,
        /// Who asked.
        port: u32,
    },
    /// Events were lost: look at everything.
    Missed,
}

/// A set of nf_tables that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetEvent {
    /// Its name.
    pub name: String,
    /// Whether it is about elements of the set; else about the set as a whole.
    pub is_element: bool,
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
        let object = Object { kind: message.message_type(), payload: message.payload().to_vec() };
        event_of(&object, message.port_number()).into_iter().for_each(|event| push(events, event));
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
        let attributes = Attributes(payload.get(SHORT_HEADER_LEN..).unwrap_or_default());
        let name_of = |wanted: Option<u16>| wanted.and_then(|kind| attributes.text(kind));
        push(
            events,
            Event::Nftables {
                family: payload.first().copied().unwrap_or(0),
                table: name_of(Some(NFTA_TABLE)),
                chain: name_of(chain_attribute(kind)),
                set: set_of(kind, attributes),
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

fn set_of(kind: u8, attributes: Attributes<'_>) -> Option<SetEvent> {
    let is_element = ABOUT_ELEMENTS.contains(&kind);
    let attribute = if is_element { NFTA_SET_ELEM_LIST_SET } else { NFTA_SET_NAME };
    let name = attributes.text(attribute).filter(|_| is_element || ABOUT_SETS.contains(&kind))?;
    Some(SetEvent { name, is_element })
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

fn event_of(object: &Object, port: u32) -> Option<Event> {
    match object.kind {
        rtm::NEW_ROUTE => route(object, false, port),
        rtm::DEL_ROUTE => route(object, true, port),
        rtm::NEW_LINK => link(object, false),
        rtm::DEL_LINK => link(object, true),
        rtm::NEW_ADDRESS => address(object, false, port),
        rtm::DEL_ADDRESS => address(object, true, port),
        rtm::NEW_NEIGHBOUR => neighbour(object, false),
        rtm::DEL_NEIGHBOUR => neighbour(object, true),
        rtm::NEW_RULE => rule(object, false),
        rtm::DEL_RULE => rule(object, true),
        rtm::NEW_NETCONF => netconf(object),
        _ => None,
    }
}

fn route(object: &Object, removed: bool, port: u32) -> Option<Event> {
    let Route { protocol, destination, metric, table, .. } = Route::read(object)?;
    Some(Event::Route { removed, protocol, table: table.unwrap_or(MAIN_TABLE), destination, metric, port })
}

fn link(object: &Object, removed: bool) -> Option<Event> {
    // Of another family than none: a port of a bridge, and not the link.
    if object.payload.first().copied().map(AddressFamily::from) != Some(AddressFamily::Unspec) {
        return None;
    }
    let Link { index, name, up, mtu, .. } = Link::read(object)?;
    // Without a name: an event of a wireless driver, which says nothing of the link.
    (!name.is_empty()).then_some(Event::Link { index, name, up, mtu, removed })
}

fn address(object: &Object, removed: bool, port: u32) -> Option<Event> {
    let address = Address::read(object)?;
    Some(Event::Address { removed, index: address.device, address: address.network.ip(), port })
}

fn neighbour(object: &Object, removed: bool) -> Option<Event> {
    // struct ndmsg
    let (header, found) = split::<12>(&object.payload)?;
    let [family, ..] = *header;
    (removed || AddressFamily::from(family) == AddressFamily::Bridge).then(|| Event::Neighbour {
        removed,
        index: word(header, 4),
        address: found.value(NDA_DST).and_then(ip),
    })
}

fn rule(object: &Object, removed: bool) -> Option<Event> {
    // struct fib_rule_hdr
    let (header, found) = split::<12>(&object.payload)?;
    let [family, ..] = *header;
    let protocol = found.value(FRA_PROTOCOL).and_then(|it| it.first()).copied().unwrap_or(0);
    let priority = found.value(FRA_PRIORITY).and_then(number).unwrap_or(0);
    Some(Event::Rule { removed, ipv4: is_ipv4(family)?, protocol, priority })
}

/// `None` for families other than the two.
fn is_ipv4(family: u8) -> Option<bool> {
    match AddressFamily::from(family) {
        AddressFamily::Inet => Some(true),
        AddressFamily::Inet6 => Some(false),
        _ => None,
    }
}

/// `None` for a setting that nobody here watches.
fn netconf(object: &Object) -> Option<Event> {
    let (header, found) = split::<SHORT_HEADER_LEN>(&object.payload)?;
    let [family, ..] = *header;
    let setting = |kind| found.value(kind).and_then(number);
    let of = match setting(NETCONFA_IFINDEX)?.cast_signed() {
        -1 => NetconfOf::All,
        -2 => NetconfOf::Default,
        index => NetconfOf::Link(index.cast_unsigned()),
    };
    let forwarding = setting(NETCONFA_FORWARDING).map(|value| value != 0);
    let rp_filter = setting(NETCONFA_RP_FILTER);
    let is_watched = forwarding.is_some() || rp_filter.is_some();
    is_watched.then_some(Event::Netconf { ipv4: is_ipv4(family)?, of, forwarding, rp_filter })
}
