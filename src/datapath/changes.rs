//! What to ask the kernel for each [`Object`].

use crate::desired::object::{Link, Neighbour, Object, Pair, Place, Shaper, Sysctl};
use crate::linux::change::Change;
use crate::linux::link::{Ipv4Conf, LinkRef, LinkSettings, VethPair};
use crate::linux::netns::Netns;
use crate::linux::qdisc::{Qdisc, Redirect, Tbf};
use crate::linux::route::{AddMode, Route, RouteKind};

/// The one message that makes both ends where they belong.
pub fn create_pair(pair: &Pair, sandbox: &Netns) -> Change {
    Change::CreateVeth(VethPair {
        host: pair.host.clone(),
        peer: pair.pod.clone(),
        peer_netns: sandbox.clone(),
        mtu: pair.mtu,
        group: pair.group,
    })
}

/// The changes that make an object on a link that is there; `index` finds a link by its name. Pairs and ifb links are made
/// before, and sysctls without a message are written below /proc/sys.
pub fn changes_for(object: &Object, index: impl Fn(&str) -> u32) -> Vec<Change> {
    match object {
        Object::Pair(_) | Object::Ifb(_) => Vec::new(),
        Object::Sysctl(wanted) => Vec::from_iter(link_settings(wanted)),
        Object::Link(link) => vec![set_up(link)],
        Object::Address(_, address) => vec![Change::AddAddress(address.by_index(index(&address.device)))],
        Object::Neighbour(Neighbour { link, address, mac, .. }) => {
            vec![Change::AddNeighbour { index: index(link), address: *address, mac: *mac }]
        }
        Object::Route(place, route) => {
            // Two interfaces of a pod may have one gateway between them, and whoever names one of them (`via GATEWAY dev
            // eth1`) needs the route by that one.
            let is_of_hop = *place == Place::Sandbox && is_of_hop(route);
            let mode = if is_of_hop { AddMode::Append } else { AddMode::Exclusive };
            let route = route.by_index(route.device.as_deref().map(index));
            vec![Change::AddRoute { route, mode }]
        }
        Object::Shaper(shaper) => {
            let qdisc = Qdisc::Tbf(Tbf { burst: Some(shaper.burst), ..token_bucket(shaper) });
            vec![Change::AddQdisc { index: index(&shaper.link), qdisc }]
        }
        Object::Redirect(it) => {
            let (from, to) = (index(&it.from), index(&it.to));
            let ingress = Change::AddQdisc { index: from, qdisc: Qdisc::Ingress };
            vec![ingress, Change::AddRedirect(Redirect { from, to })]
        }
    }
}

/// Whether a route of the pod leads to a next hop, and not through one.
pub fn is_of_hop<Link>(route: &Route<Link>) -> bool {
    route.kind == RouteKind::Unicast && route.gateway.is_none()
}

/// The token bucket as it is found again.
pub fn token_bucket(shaper: &Shaper) -> Tbf {
    Tbf { rate: shaper.rate, burst: None, limit: shaper.queue }
}

/// Sets a link up.
fn set_up(link: &Link) -> Change {
    let settings = LinkSettings { up: Some(true), ..LinkSettings::default() };
    Change::SetLink { link: LinkRef::Name(link.name.clone()), settings }
}

/// Sets the alias that a link must have, if any.
pub fn set_alias(link: &Link) -> Option<Change> {
    let settings = LinkSettings { alias: Some(link.alias.clone()?), ..LinkSettings::default() };
    Some(Change::SetLink { link: LinkRef::Name(link.name.clone()), settings })
}

/// The message that does what a sysctl of a link does, for those that have one; it must come before
/// [`set_up`] sets the link up.
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
        ("ipv4", "forwarding", "1") => {
            LinkSettings { ipv4_conf: vec![(Ipv4Conf::Forwarding, 1)], ..LinkSettings::default() }
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
