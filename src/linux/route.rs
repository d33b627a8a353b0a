//! Routes: what one is, adding it, removing it, and (in `query`) asking the kernel for those that it has.

mod query;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteScope, RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::attributes::{Attributes, ip, number};
use super::message::{Object, Request, rtm, split, word};
pub use query::{Family, PacketRoute, Resolved, RouteFilter};

/// `RTA_*`, `RTAX_*`, `RTM_F_CLONED`, `RTNH_F_ONLINK`, `RTNH_F_DEAD` (include/uapi/linux/rtnetlink.h).
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const CLONED: u32 = 0x200;
const ONLINK: u32 = 4;
const DEAD: u8 = 1;

/// The table that routes are in unless said otherwise (RT_TABLE_MAIN).
pub const MAIN_TABLE: u32 = 254;

/// The table of what the namespace has itself (RT_TABLE_LOCAL).
const LOCAL_TABLE: u32 = 255;

/// The metric that the kernel gives to an IPv6 route without one (IP6_RT_PRIO_USER).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// What happens to a packet that a route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// It goes on, to a gateway or to a neighbour.
    Unicast,
    /// It has arrived: the address is one of the namespace's own.
    Local,
    /// It is turned away with an ICMP error.
    Unreachable,
    /// Anything else (RTN_*, include/uapi/linux/rtnetlink.h).
    Other(u8),
}

impl RouteKind {
    /// An address of several hosts, of which the namespace is one.
    pub const ANYCAST: Self = Self::Other(4);
    /// All hosts of a link.
    pub const BROADCAST: Self = Self::Other(3);

    /// Whether packets arrive: at a link's address, or at what stands for several.
    pub fn is_own(self) -> bool {
        [Self::Local, Self::ANYCAST, Self::BROADCAST].contains(&self)
    }

    fn number(self) -> u8 {
        match self {
            Self::Unicast => RouteType::Unicast.into(),
            Self::Local => RouteType::Local.into(),
            Self::Unreachable => RouteType::Unreachable.into(),
            Self::Other(number) => number,
        }
    }

    fn read(number: u8) -> Self {
        match RouteType::from(number) {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Unreachable => Self::Unreachable,
            _ => Self::Other(number),
        }
    }
}

/// A route, to be added or removed or as found.
///
/// `Link` is how it names the link that it leaves by: by index, as the kernel does, or by name where the link may not be
/// there yet ([`Route::by_index`]).
///
/// `None` means the kernel's default, in both directions: a route that is read back equals the one that was
/// added, provided that nothing was spelled out that would have been the default (see [`Route::canonical`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route<Link = u32> {
    /// Which packets.
    pub destination: IpNetwork,
    /// What happens to them.
    pub kind: RouteKind,
    /// The link that they leave by.
    pub device: Option<Link>,
    /// The next hop. An IPv4 destination may have an IPv6 one.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway is taken to be on the link even if no route says so.
    pub onlink: bool,
    /// Source address of packets that the host itself sends without having chosen one.
    pub source: Option<IpAddr>,
    /// Who made it (RTPROT_*, /etc/iproute2/rt_protos).
    pub protocol: u8,
    /// Among routes to the same destination the lowest wins. Default 0 for IPv4, 1024 for IPv6.
    pub metric: Option<u32>,
    /// The table. Default 254, main.
    pub table: Option<u32>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Segment size that TCP announces, in bytes.
    pub advmss: Option<u32>,
    /// How far away the destination is (RT_SCOPE_*), IPv4 only. Default: link (253) for a unicast route without
    /// gateway, host (254) for a local one, else universe (0).
    pub scope: Option<u8>,
}

impl<Link> Route<Link> {
    /// A unicast route by `protocol`, with everything else still to be said.
    pub fn to(destination: IpNetwork, protocol: u8) -> Self {
        Self {
            destination,
            kind: RouteKind::Unicast,
            device: None,
            gateway: None,
            onlink: false,
            source: None,
            protocol,
            metric: None,
            table: None,
            mtu: None,
            advmss: None,
            scope: None,
        }
    }

    /// The same route with `None` wherever the kernel's default was spelled out. What is read is in this form.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let default_metric = if self.destination.is_ipv6() { IPV6_DEFAULT_METRIC } else { 0 };
        self.metric = self.metric.filter(|metric| *metric != default_metric);
        self.table = self.table.filter(|table| *table != MAIN_TABLE);
        let default_scope = self.default_scope();
        self.scope = self.scope.filter(|scope| *scope != default_scope && self.destination.is_ipv4());
        // The kernel lists IPv6 routes of this kind as leaving by `lo`.
        if self.kind == RouteKind::Unreachable {
            self.device = None;
        }
        self
    }

    /// The same route as the kernel has it, where its link has this index; a route that names no link goes on naming none.
    pub fn by_index(&self, index: Option<u32>) -> Route {
        let route = Route {
            destination: self.destination,
            kind: self.kind,
            device: self.device.as_ref().and(index),
            gateway: self.gateway,
            onlink: self.onlink,
            source: self.source,
            protocol: self.protocol,
            metric: self.metric,
            table: self.table,
            mtu: self.mtu,
            advmss: self.advmss,
            scope: self.scope,
        };
        route.canonical()
    }

    fn default_scope(&self) -> u8 {
        let scope = match (self.kind, self.gateway) {
            (RouteKind::Unicast, None) if self.destination.is_ipv4() => RouteScope::Link,
            (RouteKind::Local, _) if self.destination.is_ipv4() => RouteScope::Host,
            _ => RouteScope::Universe,
        };
        scope.into()
    }
}

/// In the words of `ip route`.
impl<Link: fmt::Display> fmt::Display for Route<Link> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => f.write_str("local ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Other(number) => write!(f, "type {number} ")?,
        }
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " dev {device}")?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        let numbers =
            [("metric", self.metric), ("table", self.table), ("mtu", self.mtu), ("advmss", self.advmss)];
        for (name, number) in numbers {
            number.iter().try_for_each(|number| write!(f, " {name} {number}"))?;
        }
        write!(f, " proto {}", self.protocol)
    }
}

/// What to do if there is a route to the destination with that metric already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddMode {
    /// Refuse (EEXIST).
    Exclusive,
    /// Put this one in its place, *whoever made it*: look first where it might be another's.
    Replace,
    /// Put this one behind it.
    Append,
}

impl fmt::Display for AddMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exclusive => "add",
            Self::Replace => "replace",
            Self::Append => "append",
        })
    }
}

/// What a message of route netlink says of a route.
struct Found<'a> {
    /// struct rtmsg
    header: &'a [u8; 12],
    attributes: Attributes<'a>,
}

impl<'a> Found<'a> {
    fn in_object(object: &'a Object) -> Option<Self> {
        if ![rtm::NEW_ROUTE, rtm::DEL_ROUTE].contains(&object.kind) {
            return None;
        }
        split(&object.payload).map(|(header, attributes)| Self { header, attributes })
    }

    fn kind(&self) -> RouteKind {
        let [_, _, _, _, _, _, _, kind, ..] = *self.header;
        RouteKind::read(kind)
    }

    fn number(&self, attribute: u16) -> Option<u32> {
        self.attributes.value(attribute).and_then(number)
    }

    fn ip(&self, attribute: u16) -> Option<IpAddr> {
        self.attributes.value(attribute).and_then(ip)
    }

    fn metric(&self, attribute: u16) -> Option<u32> {
        self.attributes.nested(RTA_METRICS)?.value(attribute).and_then(number)
    }

    /// One of another family than the destination's is in `struct rtvia`, behind that family.
    fn gateway(&self) -> Option<IpAddr> {
        gateway_of(self.attributes)
    }
}

fn gateway_of(attributes: Attributes<'_>) -> Option<IpAddr> {
    let same_family = attributes.value(RTA_GATEWAY).and_then(ip);
    same_family.or_else(|| ip(attributes.value(RTA_VIA)?.get(2..)?))
}

impl Route {
    /// `None` for what is no route to IP addresses, or a copy that the kernel keeps for its own use.
    pub(super) fn read(object: &Object) -> Option<Self> {
        let found = Found::in_object(object)?;
        let [family, prefix, _, _, table, protocol, scope, ..] = *found.header;
        let default = match AddressFamily::from(family) {
            AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let flags = word(found.header, 8);
        if flags & CLONED != 0 {
            return None;
        }
        let destination = found.ip(RTA_DST).unwrap_or(default);
        if destination.is_ipv4() != default.is_ipv4() {
            return None;
        }
        let route = Self {
            destination: IpNetwork::new(destination, prefix).ok()?,
            kind: found.kind(),
            device: found.number(RTA_OIF),
            gateway: found.gateway(),
            onlink: flags & ONLINK != 0,
            source: found.ip(RTA_PREFSRC),
            protocol,
            metric: found.number(RTA_PRIORITY),
            table: Some(found.number(RTA_TABLE).unwrap_or_else(|| table.into())),
            mtu: found.metric(RTAX_MTU),
            advmss: found.metric(RTAX_ADVMSS),
            scope: Some(scope),
        };
        Some(route.canonical())
    }
}

/// `ip route {add|replace|append} [local|unreachable] DESTINATION [via GATEWAY] [dev LINK] [onlink] [src SOURCE] proto
/// PROTOCOL [metric METRIC] [table TABLE] [scope SCOPE] [mtu MTU] [advmss MSS]`
pub(super) fn add_route(route: &Route, mode: AddMode) -> Request {
    let mut message = message_to(route);
    message.header.scope = route.scope.unwrap_or_else(|| route.default_scope()).into();
    let mode = match mode {
        AddMode::Exclusive => NLM_F_EXCL,
        AddMode::Replace => NLM_F_REPLACE,
        AddMode::Append => NLM_F_APPEND,
    };
    Request::new(rtm::NEW_ROUTE, &message, NLM_F_CREATE | mode)
}

/// `ip route delete ...`, with the same words as for [`add_route`]
pub(super) fn delete_route(route: &Route) -> Request {
    let mut message = message_to(route);
    // For the kernel "nowhere" is any scope, and the others one scope each.
    message.header.scope = route.scope.map_or(RouteScope::NoWhere, Into::into);
    Request::new(rtm::DEL_ROUTE, &message, 0)
}

fn message_to(route: &Route) -> RouteMessage {
    let destination = route.destination;
    // Without its words for addresses: those refuse, in words of their own, what is the kernel's to judge.
    let mut message = RouteMessageBuilder::<IpAddr>::new()
        .table_id(route.table.unwrap_or(MAIN_TABLE))
        .protocol(route.protocol.into())
        .kind(route.kind.number().into())
        .build();
    message.header.address_family = family_of(destination.ip());
    message.header.destination_prefix_length = destination.prefix();
    message.header.flags.set(RouteFlags::Onlink, route.onlink);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(destination.ip().into()));
    attributes.extend(route.gateway.map(|gateway| match (destination, gateway) {
        (IpNetwork::V4(_), IpAddr::V6(ip)) => RouteAttribute::Via(RouteVia::Inet6(ip)),
        (IpNetwork::V6(_), IpAddr::V4(ip)) => RouteAttribute::Via(RouteVia::Inet(ip)),
        (_, same_family) => RouteAttribute::Gateway(same_family.into()),
    }));
    attributes.extend(route.device.map(RouteAttribute::Oif));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    let mut metrics = Vec::new();
    metrics.extend(route.mtu.map(RouteMetric::Mtu));
    metrics.extend(route.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
