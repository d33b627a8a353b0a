//! Objects in the kernel layer's words.

use crate::cni::mac::MacAddr;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::desired::object::{self, Link, Neighbour, Pair, Shaper, Sysctl, Target};
use crate::linux::addr::Address;
use crate::linux::change::Change;
use crate::linux::link::{Ifb, Ipv4Conf, LinkEnd, LinkRef, LinkSettings, Mac, VethPair};
use crate::linux::netns::Netns;
use crate::linux::qdisc::{Qdisc, Redirect, Tbf};
use crate::linux::route::{AddMode, Route, RouteKind};

/// The one message that makes both ends where they belong.
pub fn create_pair(pair: &Pair, sandbox: &Netns) -> Change {
    let end = |end: &object::LinkEnd| LinkEnd { name: end.name.clone(), mac: kernel_mac(end.mac) };
    Change::CreateVeth(VethPair {
        host: end(&pair.host),
        peer: end(&pair.pod),
        peer_netns: sandbox.clone(),
        mtu: pair.mtu,
        group: pair.group,
    })
}

/// Makes the link that what a pod sends goes through.
pub fn create_ifb(ifb: &object::Ifb) -> Change {
    Change::CreateIfb(Ifb { name: ifb.name.clone(), mtu: ifb.mtu, group: ifb.group })
}

/// Puts a token bucket on a link.
pub fn add_shaper(shaper: &Shaper, index: u32) -> Change {
    let tbf = Tbf { burst: Some(shaper.burst), ..kernel_shaper(shaper) };
    Change::AddQdisc { index, qdisc: Qdisc::Tbf(tbf) }
}

/// The token bucket as it is found again.
pub fn kernel_shaper(shaper: &Shaper) -> Tbf {
    Tbf { rate: shaper.rate, burst: None, limit: shaper.queue }
}

/// Leads what comes in by one link through another.
pub fn add_redirect(from: u32, to: u32) -> [Change; 2] {
    [Change::AddQdisc { index: from, qdisc: Qdisc::Ingress }, Change::AddRedirect(Redirect { from, to })]
}

/// Sets a link up.
pub fn set_link(link: &Link) -> Change {
    let settings = LinkSettings { up: Some(true), ..LinkSettings::default() };
    Change::SetLink { link: LinkRef::Name(link.name.clone()), settings }
}

/// Sets the alias that a link must have, if any.
pub fn set_alias(link: &Link) -> Option<Change> {
    let settings = LinkSettings { alias: Some(link.alias.clone()?), ..LinkSettings::default() };
    Some(Change::SetLink { link: LinkRef::Name(link.name.clone()), settings })
}

/// The message that does what a sysctl of a link does, for those that have one; it must come before
/// [`set_link`] sets the link up.
///
/// Preferred to a write under /proc/sys: no file is opened, and a write to `addr_gen_mode` spins as long as another
/// process holds the RTNL lock (addrconf_sysctl_addr_gen_mode, net/ipv6/addrconf.c).
pub fn link_settings(sysctl: &Sysctl) -> Option<Change> {
    let [_, family, _, link, name] = sysctl.path.as_slice() else { return None };
    // These two are no links.
    if link == "all" || link == "default" {
        return None;
    }
    let settings = match (family.as_str(), name.as_str(), sysctl.value.as_ref()) {
        ("ipv4", "rp_filter", "1") => {
            LinkSettings { ipv4_conf: vec![(Ipv4Conf::RpFilter, 1)], ..LinkSettings::default() }
        }
        ("ipv4", "route_localnet", "1") => {
            LinkSettings { ipv4_conf: vec![(Ipv4Conf::RouteLocalnet, 1)], ..LinkSettings::default() }
        }
        ("ipv6", "addr_gen_mode", "1") => {
            LinkSettings { no_ipv6_link_local: true, ..LinkSettings::default() }
        }
        _ => return None,
    };
    Some(Change::SetLink { link: LinkRef::Name(link.clone()), settings })
}

/// Adds an address that is usable at once.
pub fn add_address(address: &object::Address, index: u32) -> Change {
    Change::AddAddress(kernel_address(address, index))
}

/// The address as the kernel layer has it.
pub fn kernel_address(address: &object::Address, index: u32) -> Address {
    let network = address.address;
    Address { index, network, no_dad: network.is_ipv6(), no_prefix_route: false }
}

/// Adds or corrects a permanent neighbour.
pub fn add_neighbour(neighbour: &Neighbour, index: u32) -> Change {
    Change::AddNeighbour { index, address: neighbour.address, mac: kernel_mac(neighbour.mac) }
}

/// Adds a route that must not be there yet.
pub fn add_route(route: &object::Route, index: Option<u32>) -> Change {
    Change::AddRoute { route: kernel_route(route, index), mode: AddMode::Exclusive }
}

/// The route as the kernel layer has it; `index` is that of the target's link, where it has one.
pub fn kernel_route(route: &object::Route, index: Option<u32>) -> Route {
    let (kind, gateway, onlink) = match route.target {
        Target::Link(_) => (RouteKind::Unicast, None, false),
        Target::Onlink(_, hop) => (RouteKind::Unicast, Some(hop), true),
        Target::Via(hop) => (RouteKind::Unicast, Some(hop), false),
        Target::Local(_) => (RouteKind::Local, None, false),
        Target::Unreachable => (RouteKind::Unreachable, None, false),
    };
    let wanted = Route {
        kind,
        device: index,
        gateway,
        onlink,
        source: route.source,
        metric: route.metric,
        table: route.table,
        mtu: route.mtu,
        advmss: route.advmss,
        ..Route::to(route.destination, ROUTE_PROTOCOL)
    };
    wanted.canonical()
}

/// Name of the link that a route leaves by, where it names one.
pub fn route_link(route: &object::Route) -> Option<&str> {
    match &route.target {
        Target::Link(link) | Target::Onlink(link, _) | Target::Local(link) => Some(link),
        Target::Via(_) | Target::Unreachable => None,
    }
}

/// A hardware address as the kernel layer has it.
pub fn kernel_mac(mac: MacAddr) -> Mac {
    Mac(mac.0)
}
