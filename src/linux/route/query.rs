//! Asking for routes: the list, the one that a packet would take, the one to a destination.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{Found, MAIN_TABLE, RTA_OIF, RTA_PREFSRC, RTAX_MTU, Route, RouteKind, family_of};
use crate::linux::error::KernelError;
use crate::linux::message::{Object, rtm};
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

impl Netlink {
    /// The routes that `filter` lets pass. Protocol, device and table are filtered by the kernel, so that other
    /// people's routes cost nothing. None from a table or by a device that does not exist.
    ///
    /// `ip route show table all proto PROTOCOL dev LINK`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn routes(&self, filter: RouteFilter) -> Result<Vec<Route>, KernelError> {
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
        let answers = match self.dump(rtm::GET_ROUTE, &question, "list routes").await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let routes = answers.iter().filter_map(Route::read);
        // Once more, for what the kernel does not filter: where it has no IPv6 it lists IPv4 instead.
        Ok(routes.filter(|route| filter.matches(route)).collect())
    }

    /// Where a packet to `address` would go, or `None` if it would be turned away.
    ///
    /// `ip route get ADDRESS`
    ///
    /// # Errors
    /// The kernel's refusal for a reason other than that there is no route.
    pub async fn route_to(&self, address: IpAddr) -> Result<Option<Resolved>, KernelError> {
        Ok(self.look_up(address, RouteFlags::empty()).await?.as_ref().and_then(Resolved::read))
    }

    /// The route that packets to the first address of `destination` take, as it stands in the table, or `None`
    /// if there is none.
    ///
    /// The longest match: compare its destination. One look-up, however many routes there are. An IPv4 route of
    /// the kinds that turn packets away is not found this way; list those with [`Netlink::routes`].
    ///
    /// `ip route get fibmatch ADDRESS`
    ///
    /// # Errors
    /// The kernel's refusal for a reason other than that there is no route.
    pub async fn find_route(&self, destination: IpNetwork) -> Result<Option<Route>, KernelError> {
        Ok(self.look_up(destination.network(), RouteFlags::FibMatch).await?.as_ref().and_then(Route::read))
    }

    async fn look_up(&self, address: IpAddr, flags: RouteFlags) -> Result<Option<Object>, KernelError> {
        let mut question = RouteMessage::default();
        question.header.address_family = family_of(address);
        question.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        question.header.flags = flags;
        question.attributes.push(RouteAttribute::Destination(address.into()));
        match self.ask(rtm::GET_ROUTE, &question, format!("get route to {address}")).await {
            Err(refusal) if refusal.is_unreachable() => Ok(None),
            answer => answer,
        }
    }
}

impl Resolved {
    /// `None` for a route that turns packets away, which IPv6 answers with instead of an error.
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
