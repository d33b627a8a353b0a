//! Links: the veth pair, its settings, its removal, and what links there are.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use super::attributes::{self, Attributes};
use super::error::KernelError;
use super::message::{Object, Request, rtm, split, word};
use super::netlink::Netlink;
use super::netns::Netns;
use crate::mac::MacAddr;

/// `IFLA_*` (include/uapi/linux/if_link.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INET_CONF: u16 = 1;

/// `NETNSA_NSID` (include/uapi/linux/net_namespace.h).
const NETNSA_NSID: u16 = 1;

/// `IFF_UP` and `IFF_LOWER_UP` (include/uapi/linux/if.h).
const UP: u32 = 1;
const LOWER_UP: u32 = 1 << 16;

/// Names a link of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkRef {
    /// By name.
    Name(String),
    /// By index, which the kernel does not give to another link as long as the namespace exists.
    Index(u32),
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "#{index}"),
        }
    }
}

/// One end of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnd {
    /// Its name in its namespace.
    pub name: String,
    /// Its address, given at birth: udev leaves alone what was (addr_assign_type NET_ADDR_SET).
    pub mac: MacAddr,
}

/// Two links, joined: what enters one leaves the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPair {
    /// The end in the socket's namespace.
    pub host: LinkEnd,
    /// The end in `peer_netns`.
    pub peer: LinkEnd,
    /// Where the peer is made. Never moved there: a move waits for RCU grace periods. Refused (EINVAL) if it is a
    /// namespace of another kind, which [`Netns::open`] does not find out.
    pub peer_netns: Netns,
    /// MTU of both, in bytes.
    pub mtu: u32,
    /// Group of the host end: the mark of ownership that a link can bear from its first moment.
    pub group: u32,
}

/// A link that hands back what is sent through it, as if it had come in by the link that it was redirected from
/// (drivers/net/ifb.c).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ifb {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its group, as of [`VethPair`].
    pub group: u32,
}

/// IPv4 settings of a link (include/uapi/linux/ip.h, `IPV4_DEVCONF_*`; the sysctls of
/// /proc/sys/net/ipv4/conf/LINK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Conf {
    /// `forwarding`
    Forwarding = 1,
    /// `proxy_arp`
    ProxyArp = 3,
    /// `accept_redirects`
    AcceptRedirects = 4,
    /// `send_redirects`
    SendRedirects = 6,
    /// `rp_filter`
    RpFilter = 8,
    /// `arp_ignore`
    ArpIgnore = 19,
    /// `accept_local`
    AcceptLocal = 23,
    /// `route_localnet`
    RouteLocalnet = 26,
}

/// What to change of a link. Default: nothing.
///
/// The kernel applies `up` before `ipv4_conf` and `no_ipv6_link_local`: where these must hold from the first
/// moment that the link is up, submit them as a change of their own before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Up or down.
    pub up: Option<bool>,
    /// A text for humans and for proof of ownership; at most 255 bytes.
    pub alias: Option<String>,
    /// The group.
    pub group: Option<u32>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// IPv4 settings, without a write to /proc/sys.
    pub ipv4_conf: Vec<(Ipv4Conf, u32)>,
    /// Whether the link stays without the link-local address that IPv6 would give it. Where the link has no IPv6
    /// the whole change is refused (EAFNOSUPPORT).
    pub no_ipv6_link_local: bool,
}

impl LinkSettings {
    /// Adds what `more` changes; where both change the same, `more` wins.
    pub fn merge(&mut self, more: Self) {
        self.up = more.up.or(self.up);
        self.alias = more.alias.or(self.alias.take());
        self.group = more.group.or(self.group);
        self.mtu = more.mtu.or(self.mtu);
        self.ipv4_conf.extend(more.ipv4_conf);
        self.no_ipv6_link_local |= more.no_ipv6_link_local;
    }
}

impl fmt::Display for LinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(up) = self.up {
            f.write_str(if up { " up" } else { " down" })?;
        }
        if let Some(alias) = &self.alias {
            write!(f, " alias {alias:?}")?;
        }
        if let Some(group) = self.group {
            write!(f, " group {group}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        for (setting, value) in &self.ipv4_conf {
            write!(f, " {setting:?}={value}")?;
        }
        if self.no_ipv6_link_local { f.write_str(" addrgenmode none") } else { Ok(()) }
    }
}

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address; `None` if it has none of six bytes.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it was set up (IFF_UP). Says nothing of the carrier.
    pub up: bool,
    /// Whether it has a carrier (IFF_LOWER_UP): somebody is at its other end.
    pub carrier: bool,
    /// Its alias.
    pub alias: Option<String>,
    /// Its group; 0 unless set.
    pub group: u32,
    /// Its driver's name ("veth", "bridge"); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Index of the link that this one hangs on: a veth's other end, a VLAN's carrier. Counted in the
    /// namespace `peer_netns_id` if that is given.
    pub peer_index: Option<u32>,
    /// Id by which the socket's namespace knows the namespace of that link (`ip netns list-id`); `None` if it
    /// is in this one.
    pub peer_netns_id: Option<i32>,
}

/// Index of a link of the calling thread's namespace; `None` if there is none of that name.
///
/// One system call, where [`Netlink::link`] has the kernel describe the whole link.
///
/// # Errors
/// The kernel's, for any other reason.
pub fn index_of(name: &str) -> io::Result<Option<u32>> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match rustix::net::netdevice::name_to_index(&socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Netlink {
    /// The link, or `None` if there is none.
    ///
    /// `ip link show dev LINK`
    ///
    /// # Errors
    /// The kernel's refusal for any other reason.
    pub async fn link(&self, link: LinkRef) -> Result<Option<Link>, KernelError> {
        let question = without_statistics(message_to(&link));
        match self.ask(rtm::GET_LINK, &question, format!("show link {link}")).await {
            Ok(answer) => Ok(answer.as_ref().and_then(Link::read)),
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// All links of the namespace. Where links come and go faster than they can be listed, one of those may be missing;
    /// never one that stood all the while (the kernel goes by index since Linux 6.9; before that, hardly ever).
    ///
    /// `ip link show`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let question = without_statistics(LinkMessageBuilder::default());
        // On a node full of pods that come and go no list is ever whole.
        let answers = self.dump_as_is(rtm::GET_LINK, &question, "list links").await?;
        Ok(answers.iter().filter_map(Link::read).collect())
    }
}

impl Netlink {
    /// The id by which the socket's namespace knows another one, as in [`Link::peer_netns_id`]; `None` if it has none for it.
    ///
    /// `ip netns list-id`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn netns_id(&self, netns: &Netns) -> Result<Option<i32>, KernelError> {
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(netns.as_fd().as_raw_fd().cast_unsigned()));
        let operation = format!("get id of namespace {}", netns.path().display());
        let answer = self.ask(rtm::GET_NSID, &question, operation).await?;
        // struct rtgenmsg, padded to four bytes.
        let id = answer.as_ref().and_then(|object| {
            let (_, found) = split::<4>(&object.payload)?;
            found.value(NETNSA_NSID).and_then(attributes::number).map(u32::cast_signed)
        });
        Ok(id.filter(|id| *id >= 0))
    }
}

impl Link {
    /// `None` for what is no link.
    pub(super) fn read(object: &Object) -> Option<Self> {
        if ![rtm::NEW_LINK, rtm::DEL_LINK].contains(&object.kind) {
            return None;
        }
        // struct ifinfomsg (include/uapi/linux/rtnetlink.h)
        let (header, found) = split::<16>(&object.payload)?;
        let number = |kind| found.value(kind).and_then(attributes::number);
        Some(Self {
            index: word(header, 4),
            name: found.text(IFLA_IFNAME).unwrap_or_default(),
            mac: found.value(IFLA_ADDRESS).and_then(attributes::mac),
            mtu: number(IFLA_MTU).unwrap_or(0),
            up: word(header, 8) & UP != 0,
            carrier: word(header, 8) & LOWER_UP != 0,
            alias: found.text(IFLA_IFALIAS),
            group: number(IFLA_GROUP).unwrap_or(0),
            kind: found.nested(IFLA_LINKINFO).and_then(|info| info.text(IFLA_INFO_KIND)),
            peer_index: number(IFLA_LINK),
            peer_netns_id: number(IFLA_LINK_NETNSID).map(u32::cast_signed),
        })
    }

    /// What only the driver of the link knows of it.
    pub(super) fn driver_data(object: &Object) -> Option<Attributes<'_>> {
        let (_, found) = split::<16>(&object.payload)?;
        found.nested(IFLA_LINKINFO)?.nested(IFLA_INFO_DATA)
    }
}

/// `ip link add HOST address MAC mtu MTU group GROUP type veth peer name PEER netns NETNS address MAC mtu MTU`
///
/// Neither IFF_UP (the driver refuses it while the other end is down: ENOTCONN) nor the alias (ignored) nor
/// IFLA_AF_SPEC (ignored) has an effect in the creating message: they follow in a [`set_link`].
pub(super) fn create_veth(pair: &VethPair) -> Request {
    let peer = LinkUnspec::new_with_name(&pair.peer.name)
        .address(pair.peer.mac.0.to_vec())
        .mtu(pair.mtu)
        .setns_by_fd(pair.peer_netns.as_fd().as_raw_fd())
        .build();
    // Not `LinkVeth::new`, whose peer has a name and nothing else.
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(&pair.host.name)
        .address(pair.host.mac.0.to_vec())
        .mtu(pair.mtu)
        .link_group(pair.group)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    Request {
        held: Some(pair.peer_netns.clone()),
        ..Request::new(rtm::NEW_LINK, &message, NLM_F_CREATE | NLM_F_EXCL)
    }
}

/// `ip link add IFB mtu MTU group GROUP type ifb`
pub(super) fn create_ifb(ifb: &Ifb) -> Request {
    let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Ifb)
        .name(&ifb.name)
        .mtu(ifb.mtu)
        .link_group(ifb.group)
        .build();
    Request::new(rtm::NEW_LINK, &message, NLM_F_CREATE | NLM_F_EXCL)
}

/// `ip link set dev LINK [up|down] [alias TEXT] [group GROUP] [mtu MTU] [addrgenmode none]`; `ip` has no word
/// for `ipv4_conf`: `sysctl -w net/ipv4/conf/LINK/...`
pub(super) fn set_link(link: &LinkRef, settings: &LinkSettings) -> Request {
    let builder = message_to(link);
    let mut message = match settings.up {
        Some(true) => builder.up(),
        Some(false) => builder.down(),
        None => builder,
    }
    .build();
    if let Some(alias) = &settings.alias {
        // Not the crate's IfAlias, whose final NUL the kernel would count and keep.
        let alias = DefaultNla::new(IFLA_IFALIAS, alias.as_bytes().to_vec());
        message.attributes.push(LinkAttribute::Other(alias));
    }
    message.attributes.extend(settings.group.map(LinkAttribute::Group));
    message.attributes.extend(settings.mtu.map(LinkAttribute::Mtu));
    let mut families = Vec::new();
    if !settings.ipv4_conf.is_empty() {
        families.push(AfSpecUnspec::Inet(vec![ipv4_conf(&settings.ipv4_conf)]));
    }
    if settings.no_ipv6_link_local {
        families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]));
    }
    if !families.is_empty() {
        message.attributes.push(LinkAttribute::AfSpecUnspec(families));
    }
    Request::new(rtm::SET_LINK, &message, 0)
}

/// `ip link delete dev LINK`
pub(super) fn delete_link(link: &LinkRef) -> Request {
    Request::new(rtm::DEL_LINK, &message_to(link).build(), 0)
}

/// `ip link delete group GROUP`
pub(super) fn delete_link_group(group: u32) -> Request {
    let message = LinkMessageBuilder::<LinkUnspec>::default().link_group(group).build();
    Request::new(rtm::DEL_LINK, &message, 0)
}

/// A message about `link`, with nothing said yet.
fn message_to(link: &LinkRef) -> LinkMessageBuilder<LinkUnspec> {
    match link {
        LinkRef::Name(name) => LinkUnspec::new_with_name(name),
        LinkRef::Index(index) => LinkUnspec::new_with_index(*index),
    }
}

/// The question, without the statistics in the answer.
fn without_statistics(question: LinkMessageBuilder<LinkUnspec>) -> LinkMessage {
    question.append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])).build()
}

/// The settings as nested attributes. Not the crate's `DevConfRequest`, which cannot say 0.
fn ipv4_conf(settings: &[(Ipv4Conf, u32)]) -> AfSpecInet {
    let nested: Vec<DefaultNla> = settings
        .iter()
        .map(|(setting, value)| DefaultNla::new(*setting as u16, value.to_ne_bytes().to_vec()))
        .collect();
    let mut bytes = vec![0; nested.as_slice().buffer_len()];
    nested.as_slice().emit(&mut bytes);
    AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, bytes))
}
