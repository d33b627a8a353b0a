//! Asking for routes: the list, the one that a packet would take, the one to a destination.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{
    DEAD, Found, LOCAL_TABLE, MAIN_TABLE, RTA_MULTIPATH, RTA_OIF, RTA_PREFSRC, RTAX_MTU, Route, RouteKind,
    family_of, gateway_of,
};
use crate::linux::attributes::Attributes;
use crate::linux::error::KernelError;
use crate::linux::message::{Object, rtm, word};
use crate::linux::netlink::Netlink;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which routes to list. `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFilter {
    /// Of this family.
    pub family: Family,
    /// Made by this protocol.
    pub protocol: Option<u8>,
    /// Leaving by this link.
    pub device: Option<u32>,
    /// In this table.
    pub table: Option<u32>,
}

impl RouteFilter {
    /// Every route of a family, of all tables.
    pub fn all(family: Family) -> Self {
        Self { family, protocol: None, device: None, table: None }
    }

    fn matches(&self, route: &Route) -> bool {
        route.destination.is_ipv4() == (self.family == Family::V4)
            && self.protocol.is_none_or(|protocol| route.protocol == protocol)
            && self.device.is_none_or(|device| route.device == Some(device))
            && self.table.is_none_or(|table| route.table.unwrap_or(MAIN_TABLE) == table)
    }
}

/// Where a packet would go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Index of the link.
    pub device: u32,
    /// The next hop; `None` if the destination is on the link, or local.
    pub gateway: Option<IpAddr>,
    /// The source address that the packet would have.
    pub source: Option<IpAddr>,
    /// Path MTU in bytes, if the route has its own.
    pub mtu: Option<u32>,
    /// Whether the address is one of this namespace's own.
    pub local: bool,
}

/// A packet, as a look-up sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRoute {
    /// Who sends it; `None`: the namespace, from whatever address the kernel chooses.
    pub source: Option<IpAddr>,
    /// Who is meant.
    pub destination: IpAddr,
    /// Index of the link that it comes in by; `None`: the namespace sends it.
    pub input: Option<u32>,
}

impl Netlink {
    /// The routes that `filter` lets pass. Protocol, device and table are filtered by the kernel, so that other
    /// people's routes cost nothing. None from a table or by a device that does not exist.
    ///
    /// `ip route show table all proto PROTOCOL dev LINK`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn routes(&self, filter: RouteFilter) -> Result<Vec<Route>, KernelError> {
        let routes = self.list_routes(filter).await?;
        // Once more, for what the kernel does not filter: where it has no IPv6 it lists IPv4 instead.
        Ok(routes.iter().filter_map(Route::read).filter(|route| filter.matches(route)).collect())
    }

    /// The ways out that the main table has: its unicast routes, one with several next hops as a route for each.
    ///
    /// `ip route show type unicast`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn ways_out(&self, family: Family) -> Result<Vec<Route>, KernelError> {
        let filter = RouteFilter { table: Some(MAIN_TABLE), ..RouteFilter::all(family) };
        let routes = self.list_routes(filter).await?;
        let ways = routes.iter().flat_map(|object| {
            let route =
                Route::read(object).filter(|route| filter.matches(route) && route.kind == RouteKind::Unicast);
            route.into_iter().flat_map(|route| split_by_hop(route, object))
        });
        Ok(ways.collect())
    }

    async fn list_routes(&self, filter: RouteFilter) -> Result<Vec<Object>, KernelError> {
        // What is 0 is not asked for.
        let mut question = RouteMessageBuilder::<IpAddr>::new()
            .table_id(filter.table.unwrap_or(0))
            .protocol(filter.protocol.unwrap_or(0).into())
            .kind(RouteType::Unspec)
            .build();
        question.header.address_family = match filter.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        question.attributes.extend(filter.device.map(RouteAttribute::Oif));
        match self.dump(rtm::GET_ROUTE, &question, "list routes").await {
            Err(refusal) if refusal.is_not_found() => Ok(Vec::new()),
            answers => answers,
        }
    }

    /// Where a packet to `address` would go, or `None` if it would be turned away.
    ///
    /// `ip route get ADDRESS`
    ///
    /// # Errors
    /// The kernel's refusal for a reason other than that there is no route.
    pub async fn route_to(&self, address: IpAddr) -> Result<Option<Resolved>, KernelError> {
        let answer = self.look_up(address, None, RouteFlags::empty()).await?;
        Ok(answer.as_ref().and_then(Resolved::read))
    }

    /// The same for a packet that comes from `source`, an address of the namespace.
    ///
    /// `ip route get ADDRESS from SOURCE`
    ///
    /// # Errors
    /// As [`Netlink::route_to`]; a source that is none of the namespace's is refused.
    pub async fn route_from(&self, source: IpAddr, address: IpAddr) -> Result<Option<Resolved>, KernelError> {
        let answer = self.look_up(address, Some(source), RouteFlags::empty()).await?;
        Ok(answer.as_ref().and_then(Resolved::read))
    }

    /// How the namespace has the address itself, if it does: [`RouteKind::Local`], [`RouteKind::ANYCAST`] or
    /// [`RouteKind::BROADCAST`].
    ///
    /// # Errors
    /// As [`Netlink::route_to`].
    pub async fn own_kind(&self, address: IpAddr) -> Result<Option<RouteKind>, KernelError> {
        let object = self.look_up(address, None, RouteFlags::empty()).await?;
        let kind = object.as_ref().and_then(Found::in_object).map(|found| found.kind());
        Ok(kind.filter(|kind| kind.is_own()))
    }

    /// All that the namespace has itself: addresses and broadcast and anycast addresses of links, and local routes.
    ///
    /// `ip route show table local`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn own_networks(&self, family: Family) -> Result<Vec<IpNetwork>, KernelError> {
        let filter = RouteFilter { table: Some(LOCAL_TABLE), ..RouteFilter::all(family) };
        let own = self.routes(filter).await?.into_iter().filter(|route| route.kind.is_own());
        Ok(own.map(|route| route.destination).collect())
    }

    /// The route that packets to the first address of `destination` take, as it stands in the table, or `None`
    /// if there is none.
    ///
    /// The longest match: compare its destination. One look-up, however many routes there are. A route of the kinds
    /// that turn packets away is not found this way; list those with [`Netlink::routes`].
    ///
    /// `ip route get fibmatch ADDRESS`
    ///
    /// # Errors
    /// The kernel's refusal for a reason other than that there is no route.
    pub async fn find_route(&self, destination: IpNetwork) -> Result<Option<Route>, KernelError> {
        let answer = self.look_up(destination.network(), None, RouteFlags::FibMatch).await?;
        Ok(answer.as_ref().and_then(Route::read))
    }

    /// The route that packets to `address` take, with the table in which the kernel's rules find it; `None` if they are
    /// turned away.
    ///
    /// `ip route get fibmatch ADDRESS`
    ///
    /// # Errors
    /// The kernel's refusal for a reason other than that there is no route.
    pub async fn route_taken(&self, address: IpAddr) -> Result<Option<Route>, KernelError> {
        // IPv6 says which table without being asked, and refuses the flag (inet6_rtm_valid_getroute_req, net/ipv6/route.c).
        let table = if address.is_ipv4() { RouteFlags::LookupTable } else { RouteFlags::empty() };
        let flags = RouteFlags::FibMatch | table;
        Ok(self.look_up(address, None, flags).await?.as_ref().and_then(Route::read))
    }

    /// Where a packet would go that comes in by a link, or that the namespace sends, and the route that leads it there. The
    /// kernel judges as of a real one, rules and the check of its source included.
    ///
    /// `ip route get ADDRESS from SOURCE iif LINK`
    ///
    /// # Errors
    /// Why it would be turned away: [`KernelError::is_wrong_source`], [`KernelError::is_unreachable`].
    pub async fn route_of(&self, packet: PacketRoute) -> Result<Option<(Resolved, Route)>, KernelError> {
        let resolved =
            self.ask_for_route(packet, RouteFlags::empty()).await?.as_ref().and_then(Resolved::read);
        let table = if packet.destination.is_ipv4() { RouteFlags::LookupTable } else { RouteFlags::empty() };
        let route = self.ask_for_route(packet, RouteFlags::FibMatch | table).await?;
        Ok(resolved.zip(route.as_ref().and_then(Route::read)))
    }

    async fn ask_for_route(
        &self,
        packet: PacketRoute,
        flags: RouteFlags,
    ) -> Result<Option<Object>, KernelError> {
        let PacketRoute { source, destination, input } = packet;
        let mut question = RouteMessage::default();
        question.header.address_family = family_of(destination);
        question.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        question.header.flags = flags;
        question.attributes.push(RouteAttribute::Destination(destination.into()));
        if let Some(source) = source {
            question.header.source_prefix_length = question.header.destination_prefix_length;
            question.attributes.push(RouteAttribute::Source(source.into()));
        }
        question.attributes.extend(input.map(RouteAttribute::Iif));
        self.ask(rtm::GET_ROUTE, &question, format!("get route to {destination}")).await
    }

    async fn look_up(
        &self,
        address: IpAddr,
        source: Option<IpAddr>,
        flags: RouteFlags,
    ) -> Result<Option<Object>, KernelError> {
        let packet = PacketRoute { source, destination: address, input: None };
        match self.ask_for_route(packet, flags).await {
            // The kernel's answer is no, whatever route, rule or lack of a family makes it say so.
            Err(refusal) if refusal.is_unreachable() || refusal.is_unsupported() => Ok(None),
            answer => answer,
        }
    }
}

/// The route once for each of its next hops (`struct rtnexthop` and attributes), but for those whose link is down.
fn split_by_hop(route: Route, object: &Object) -> Vec<Route> {
    let hops = Found::in_object(object).and_then(|found| found.attributes.value(RTA_MULTIPATH));
    let Some(mut rest) = hops else { return vec![route] };
    let mut by_hop = Vec::new();
    while let Some((header, _)) = rest.split_first_chunk::<8>() {
        let length = u16::from_ne_bytes([header[0], header[1]]);
        let Some(attributes) = rest.get(8..usize::from(length)) else { break };
        if header[2] & DEAD == 0 {
            let (device, gateway) = (Some(word(header, 4)), gateway_of(Attributes(attributes)));
            by_hop.push(Route { device, gateway, ..route.clone() }.canonical());
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    by_hop
}

impl Resolved {
    /// `None` for a route that turns packets away.
    pub(in crate::linux) fn read(object: &Object) -> Option<Self> {
        let found = Found::in_object(object)?;
        let local = match found.kind() {
            RouteKind::Unicast => false,
            RouteKind::Local => true,
            _ => return None,
        };
        Some(Self {
            device: found.number(RTA_OIF)?,
            gateway: found.gateway(),
            source: found.ip(RTA_PREFSRC),
            mtu: found.metric(RTAX_MTU),
            local,
        })
    }
}
