//! Addresses that no pod may have because this node has them, or the router that it needs. A pod that got one would cut
//! its node off from itself, and by IPv6, where no rp_filter looks, speak as the node.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cni::error::{CniError, Code};
use crate::config::range::{RangeSet, why_no_host};
use crate::desired::names::ROUTE_PROTOCOL;
use crate::linux::link::{Link, LinkRef};
use crate::linux::netlink::Netlink;
use crate::linux::route::{Family, Route, RouteFilter, RouteKind};

/// Those of the addresses that no new pod may have: the node has them, on a link or by a local route, or a pod of ferrule
/// whose record is lost. One look-up for each.
///
/// # Errors
/// The kernel's refusal.
pub async fn not_free_among(node: &Netlink, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, CniError> {
    let mut not_free = Vec::new();
    for &address in addresses {
        let route = node.find_route(address.into()).await?;
        not_free.extend(route.filter(|it| it.kind.is_own() || is_to_a_pod(it)).map(|_| address));
    }
    Ok(not_free)
}

/// The link by which this node reaches a pod of ferrule's at the address.
///
/// # Errors
/// The kernel's refusal.
pub async fn link_to_pod(node: &Netlink, address: IpAddr) -> Result<Option<Link>, CniError> {
    let route = node.find_route(address.into()).await?.filter(is_to_a_pod);
    let Some(device) = route.and_then(|route| route.device) else { return Ok(None) };
    Ok(node.link(LinkRef::Index(device)).await?)
}

/// Refuses an address that was asked for, by the conf or by an IPAM plugin, and that a pod has whose record is lost.
///
/// # Errors
/// Code 101, naming the pod's link.
pub async fn refuse_lost_pods(node: &Netlink, plugin: Option<&str>, address: IpAddr) -> Result<(), CniError> {
    let Some(link) = link_to_pod(node, address).await? else { return Ok(()) };
    let whose =
        format!("a running pod's whose record is lost ({}, {})", link.name, link.alias.unwrap_or_default());
    let (message, details) = match plugin {
        None => (format!("{address} is {whose}"), "ask for another address"),
        Some(plugin) => (
            format!("IPAM plugin {plugin:?} gave {address}, which is {whose}"),
            "it was told to take the address back, and gives another next time",
        ),
    };
    let details = format!("{details}; `ferrulectl sync` gives that pod a record again");
    Err(CniError::new(Code::AlreadyTaken, message).with_details(details))
}

/// Whether a route is of ferrule's to the one address of a pod.
fn is_to_a_pod(route: &Route) -> bool {
    let destination = route.destination;
    let is_single = destination.prefix() == if destination.is_ipv4() { 32 } else { 128 };
    is_single
        && route.protocol == ROUTE_PROTOCOL
        && route.kind == RouteKind::Unicast
        && route.gateway.is_none()
}

/// Why no pod may have the address, if the node has it: `this node's own (on eth0)`.
///
/// # Errors
/// The kernel's refusal.
pub async fn why_own(node: &Netlink, address: IpAddr) -> Result<Option<String>, CniError> {
    let Some(kind) = node.own_kind(address).await? else { return Ok(None) };
    let place = match kind {
        RouteKind::Local => place_of(node, address).await?,
        kind if kind == RouteKind::ANYCAST => "an anycast address of a link".to_owned(),
        _ => "a broadcast address of a link".to_owned(),
    };
    Ok(Some(format!("this node's own ({place})")))
}

async fn place_of(node: &Netlink, address: IpAddr) -> Result<String, CniError> {
    let addresses = node.addresses(None).await?;
    let found = addresses.iter().find(|it| it.network.ip() == address).map(|it| it.device);
    let (what, device) = match found {
        Some(device) => ("on", Some(device)),
        None => ("by a local route on", node.route_to(address).await?.map(|way| way.device)),
    };
    let Some(device) = device else { return Ok("a local route".to_owned()) };
    let link = node.link(LinkRef::Index(device)).await?;
    Ok(format!("{what} {}", link.map_or_else(|| format!("link {device}"), |link| link.name)))
}

/// Whether the node goes to the address for a route of its own: a pod there would get what is for the router.
///
/// # Errors
/// The kernel's refusal.
async fn is_router(node: &Netlink, address: IpAddr) -> Result<bool, CniError> {
    // A router is a neighbour: without this look-up each address would cost a list of all routes.
    if node.route_to(address).await?.is_none_or(|way| way.gateway.is_some()) {
        return Ok(false);
    }
    let ways = node.ways_out(family_of(address)).await?;
    Ok(ways.iter().any(|way| way.gateway == Some(address)))
}

/// The sets without what the node and pods of it have: some of that was given just now.
///
/// # Errors
/// Code 100 where that is all of a set.
pub async fn without_taken(
    node: &Netlink,
    sets: Vec<RangeSet>,
    given: &[IpAddr],
) -> Result<Vec<RangeSet>, CniError> {
    let mut own: Vec<IpNetwork> = given.iter().map(|&address| address.into()).collect();
    for &address in given {
        let family = family_of(address);
        own.extend(node.own_networks(family).await?);
        let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::all(family) };
        let of_pods = node.routes(filter).await?.into_iter().filter(is_to_a_pod);
        own.extend(of_pods.map(|route| route.destination));
    }
    let rest = sets.into_iter().map(|set| {
        set.without(&own).ok_or_else(|| {
            let message = format!("no free address in {set}: this node or running pods have all of it");
            let details = "see `ip address`, `ip route show table local` and `ip route show proto 102` on the node; give \
                           the network another range, or the node other addresses";
            CniError::new(Code::RangeExhausted, message).with_details(details)
        })
    });
    rest.collect()
}

/// Refuses an address of another IPAM plugin that is no pod's to have.
///
/// # Errors
/// Code 6 where no host can have it; 101 where this node has it, or its router.
pub async fn refuse_no_pods(
    node: &Netlink,
    plugin: &str,
    address: IpNetwork,
    gateway: Option<IpAddr>,
) -> Result<(), CniError> {
    let ip = address.ip();
    let (code, what) = if let Some(what) = why_no_host(address) {
        (Code::Decode, what.to_owned())
    } else if gateway == Some(ip) {
        (Code::Decode, "the gateway that it names".to_owned())
    } else if let Some(whose) = why_own(node, ip).await? {
        (Code::AlreadyTaken, whose)
    } else if is_router(node, ip).await? {
        (Code::AlreadyTaken, "a router of this node".to_owned())
    } else {
        return Ok(());
    };
    let message = format!("IPAM plugin {plugin:?} gave {ip}, which no pod can have: it is {what}");
    Err(CniError::new(code, message).with_details("correct its ranges; it was told to take the address back"))
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
