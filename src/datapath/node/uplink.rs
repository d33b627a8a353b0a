//! How the node is reached from outside: the source address and the MTU that its pods need to know.
//!
//! | asked, in this order, for each family that pods have | answers                                              |
//! |------------------------------------------------------|------------------------------------------------------|
//! | the conf                                             | `nodeIPs`: the address, and the link that carries it |
//! | the way to the first other node of `peers`           | source and link                                      |
//! | the default route                                    | source and link                                      |
//! | the main table, if the look-ups say nothing of it    | the link of the widest route; the link's own address |
//!
//! A look-up costs the same on a node with any number of routes, but it needs an address to look up, and what becomes of
//! that one address may be another's business: a list of networks to discard (`blackhole 192.0.2.0/24`), a rule that
//! prohibits. So what it finds counts only if it is the default route; else the table is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::future::{join, join_all};

use crate::datapath::error::DatapathError;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::desired::node::NodeState;
use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::route::{Family, Resolved, Route, RouteKind};

use super::LOOPBACK;

/// MTU where the node has no way out at all: Ethernet's.
const MTU_WITHOUT_UPLINK: u32 = 1500;

/// How a node is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The smallest MTU of the links that carry the node's addresses, in bytes.
    pub mtu: u32,
    /// Indexes of these links, as far as they had to be looked for: not where the conf names address and MTU.
    pub devices: Vec<u32>,
    /// The node's IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// The node's IPv6 address.
    pub ipv6: Option<IpAddr>,
}

impl Uplink {
    /// The node's address in the family of `address`.
    pub fn address_for(&self, address: IpAddr) -> Option<IpAddr> {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// What is known of the way out in one family.
#[derive(Debug, Default)]
struct WayOut {
    device: Option<u32>,
    source: Option<IpAddr>,
}

/// Finds the uplink. Addresses that the conf names (`nodeIPs`) are taken as they are: on a node with several, only the
/// administrator knows which one is the node's. `mtu` is what the conf says of it, and then no link is asked for.
///
/// # Errors
/// The socket's. That no route leads out, or that the kernel turns packets away, is none.
pub async fn find_uplink(
    node: &Netlink,
    state: &NodeState,
    mtu: Option<u32>,
) -> Result<Uplink, DatapathError> {
    let is_link_asked = mtu.is_none();
    let (ipv4, ipv6) =
        join(find_way(node, state, true, is_link_asked), find_way(node, state, false, is_link_asked)).await;
    let (ipv4, ipv6) = (ipv4?, ipv6?);
    let mtu = match mtu {
        Some(mtu) => mtu,
        None => smallest_mtu(node, [ipv4.device, ipv6.device]).await?.unwrap_or(MTU_WITHOUT_UPLINK),
    };
    let devices = ipv4.device.into_iter().chain(ipv6.device).collect();
    Ok(Uplink { mtu, devices, ipv4: ipv4.source, ipv6: ipv6.source })
}

async fn smallest_mtu(node: &Netlink, devices: [Option<u32>; 2]) -> Result<Option<u32>, KernelError> {
    let mut devices: Vec<u32> = devices.into_iter().flatten().collect();
    devices.dedup();
    let links = join_all(devices.into_iter().map(|device| node.link(LinkRef::Index(device)))).await;
    let links = links.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(links.into_iter().flatten().map(|link| link.mtu).min())
}

async fn find_way(
    node: &Netlink,
    state: &NodeState,
    ipv4: bool,
    is_link_asked: bool,
) -> Result<WayOut, KernelError> {
    let named = state.node_ips.iter().copied().find(|address| address.is_ipv4() == ipv4);
    let have_pods = if ipv4 { state.ipv4 } else { state.ipv6 };
    if let Some(address) = named {
        let device = if is_link_asked { find_carrier(node, address).await? } else { None };
        if device.is_some() || !is_link_asked {
            return Ok(WayOut { device, source: named });
        }
    } else if !have_pods {
        return Ok(WayOut::default());
    }
    let way = look_out(node, state, ipv4).await?;
    Ok(WayOut { source: named.or(way.source), ..way })
}

/// The link that has `address`. `None` where none has it, or `lo`: nodes that announce their address by a routing
/// protocol keep it there, and what they send leaves by another link.
async fn find_carrier(node: &Netlink, address: IpAddr) -> Result<Option<u32>, KernelError> {
    let own = node.find_route(address.into()).await?.filter(|route| route.kind == RouteKind::Local);
    Ok(own.and_then(|route| route.device).filter(|&device| device != LOOPBACK))
}

/// Addresses that the conf calls the node's and that it does not have, as far as pods need them: the kernel takes no
/// other as the source of a route.
///
/// # Errors
/// The socket's.
pub async fn missing_addresses(node: &Netlink, state: &NodeState) -> Result<Vec<IpAddr>, DatapathError> {
    let mut missing = Vec::new();
    for &address in &state.node_ips {
        let have_pods = if address.is_ipv4() { state.ipv4 } else { state.ipv6 };
        if have_pods && !has_address(node, address).await? {
            missing.push(address);
        }
    }
    Ok(missing)
}

async fn has_address(node: &Netlink, address: IpAddr) -> Result<bool, KernelError> {
    let route = node.find_route(address.into()).await?;
    if route.is_some_and(|route| route.kind == RouteKind::Local) {
        return Ok(true);
    }
    // A rule may turn the look-up away before it comes to the table.
    Ok(node.addresses(None).await?.iter().any(|own| own.network.ip() == address))
}

/// The way to the first other node of the family; to the world where there is none, or no way to it. Not to this node
/// itself, if the list has it: that leads to `lo`, and says nothing of the uplink.
async fn look_out(node: &Netlink, state: &NodeState, ipv4: bool) -> Result<WayOut, KernelError> {
    let mut peers = state.other_nodes().flat_map(|peer| &peer.node_ips);
    if let Some(&peer) = peers.find(|address| address.is_ipv4() == ipv4)
        && let Some(way) = node.route_to(peer).await?.and_then(WayOut::of)
    {
        return Ok(way);
    }
    let is_default = |route: &Route| route.kind == RouteKind::Unicast && route.destination.prefix() == 0;
    let way = match node.find_route(anywhere(ipv4).into()).await?.filter(is_default) {
        // As DHCP and NetworkManager write it.
        Some(Route { device: Some(device), source: Some(source), .. }) => {
            Some(WayOut { device: Some(device), source: Some(source).filter(is_source) })
        }
        Some(_) => node.route_to(anywhere(ipv4)).await?.and_then(WayOut::of),
        None => None,
    };
    match way {
        Some(way) => Ok(way),
        None => read_table(node, if ipv4 { Family::V4 } else { Family::V6 }).await,
    }
}

/// The widest way out that the main table has: the default route, if there is one; else one through a router, else the
/// first link.
async fn read_table(node: &Netlink, family: Family) -> Result<WayOut, KernelError> {
    let leads_out = |route: &Route| {
        route.protocol != ROUTE_PROTOCOL
            && route.device.is_some_and(|device| device != LOOPBACK)
            && !(is_link_local(route.destination.ip()) && route.destination.prefix() > 0)
    };
    let width = |route: &Route| {
        let prefix = route.destination.prefix();
        let prefix = if prefix == 0 || route.gateway.is_some() { prefix } else { u8::MAX };
        (prefix, route.metric, route.device)
    };
    let ways = node.ways_out(family).await?;
    let Some(way) = ways.into_iter().filter(leads_out).min_by_key(width) else {
        return Ok(WayOut::default());
    };
    let source = match way.source {
        None => {
            let own = node.addresses(way.device).await?;
            let own = own.iter().map(|address| address.network.ip());
            own.filter(|own| own.is_ipv4() == (family == Family::V4)).find(is_source)
        }
        source => source,
    };
    Ok(WayOut { device: way.device, source })
}

impl WayOut {
    fn of(way: Resolved) -> Option<Self> {
        (!way.local).then(|| Self { device: Some(way.device), source: way.source.filter(is_source) })
    }
}

/// Whether the node can speak to pods from this address. Where it has no other of IPv6, the kernel chooses `::1`, or one
/// that means something on one link only.
fn is_source(address: &IpAddr) -> bool {
    !address.is_loopback() && !is_link_local(*address)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// An address that is nobody's (RFC 5737, RFC 3849): as a rule the default route leads there.
fn anywhere(ipv4: bool) -> IpAddr {
    if ipv4 {
        Ipv4Addr::new(192, 0, 2, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    }
}
