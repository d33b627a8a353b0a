//! A pod with several interfaces: what an address sends leaves by its own.
//!
//! The node takes from a host link only what has an address of that link's pod (strict `rp_filter`, chain `antispoof`). As
//! long as a pod has one interface, its main table leads everything there. From the second on it has besides:
//!
//! | in the pod's namespace                               | leads                                                     |
//! |------------------------------------------------------|-----------------------------------------------------------|
//! | `from ADDRESS lookup TABLE`, for each of ferrule's   | what that address sends                                   |
//! | default route in TABLE, one table for each interface | that to the node, by the interface                        |
//! | a route that another interface has already, once     | what has no address yet, as soon as the other interface   |
//! | more with a larger metric                            | is gone                                                   |
//!
//! The ADD of the second interface makes the rules of the first as well. With one interface there are none: they would
//! come before routes that somebody adds to the main table. What a table leads to goes with its interface; a rule that
//! stays leads to an empty table then, and so to the next rule.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::datapath::error::DatapathError;
use crate::datapath::observe::Snapshot;
use crate::desired::attachment::Attachment;
use crate::desired::names::{ROUTE_PROTOCOL, interface_table};
use crate::desired::object::{self as desired, Place};
use crate::linux::addr::Address;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::netlink::Netlink;
use crate::linux::route::{AddMode, Family, MAIN_TABLE, Route, RouteFilter};
use crate::linux::rule::{Packets, Rule};

/// Before the main table (32766), and behind the rules that others add without saying where.
const PRIORITY: u32 = 32_000;

/// How much larger the metric of a route is that another interface has already. The index of the interface comes to it,
/// so that it is another one for each.
const LATER: u32 = 1_000;

/// The addresses among `all` that other interfaces than `own` have, as far as somebody beyond the link can speak to
/// them.
pub fn of_others(all: Vec<Address>, own: u32) -> Vec<Address> {
    let is_reached = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    all.into_iter().filter(|it| it.device != own && is_reached(it.network.ip())).collect()
}

/// The same route, behind that which another interface has.
pub fn behind_others(route: &Route, own: u32) -> Route {
    let metric = route.metric.unwrap_or(if route.destination.is_ipv4() { 0 } else { 1024 });
    Route { metric: Some(metric.saturating_add(LATER).saturating_add(own)), ..route.clone() }
}

/// The rule for an address of the interface of that name.
pub fn rule_for(address: IpAddr, interface: &str) -> Rule {
    Rule {
        packets: Packets::From(IpNetwork::from(address)),
        table: interface_table(interface),
        priority: PRIORITY,
        protocol: ROUTE_PROTOCOL,
        suppress: None,
    }
}

/// The route that such a rule leads to.
pub fn route_for(address: IpAddr, interface: &str, index: u32, gateway: IpAddr) -> Route {
    let everywhere = match address {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let everywhere = IpNetwork::new(everywhere, 0).unwrap_or(IpNetwork::from(everywhere));
    Route {
        device: Some(index),
        gateway: Some(gateway),
        onlink: true,
        table: Some(interface_table(interface)),
        ..Route::to(everywhere, ROUTE_PROTOCOL)
    }
}

/// Why a pod's address does not answer by its own interface, of that index, though ferrule made another one besides;
/// `None` if it does.
pub fn fault(own: &desired::Address, index: u32, pod: &Snapshot) -> Option<String> {
    let is_ours = |device: u32| {
        pod.routes.iter().any(|route| route.protocol == ROUTE_PROTOCOL && route.device == Some(device))
    };
    let others = of_others(pod.addresses.clone(), index);
    let ip = own.network.ip();
    if of_others(vec![own.by_index(index)], 0).is_empty() || !others.iter().any(|it| is_ours(it.device)) {
        return None;
    }
    let rule = rule_for(ip, &own.device);
    let leads_there = |route: &Route| {
        let is_default = route.destination.prefix() == 0 && route.destination.is_ipv4() == ip.is_ipv4();
        is_default && route.table == Some(rule.table) && route.device == Some(index)
    };
    let is_led = pod.rules.contains(&rule) && pod.routes.iter().any(leads_there);
    (!is_led)
        .then(|| format!("no rule leads what it sends to {} (ip rule, table {})", own.device, rule.table))
}

/// Has each address of ferrule's interfaces answer by its own. `others` are the addresses of interfaces other than
/// `own`, which is the new one's index. Idempotent.
///
/// # Errors
/// What the kernel refused.
pub async fn part(
    pod: &Netlink,
    attachment: &Attachment,
    own: u32,
    others: &[Address],
) -> Result<(), DatapathError> {
    let name = attachment.key.ifname.as_str();
    let mut wanted: Vec<(Rule, Route)> = Vec::new();
    for address in &attachment.addresses {
        let (ip, gateway) = (address.address, address.gateway());
        wanted.push((rule_for(ip, name), route_for(ip, name, own, gateway)));
    }
    let links = pod.links().await?;
    let names: HashMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
    let (mut routes, mut rules) = (Vec::new(), Vec::new());
    for family in [Family::V4, Family::V6] {
        let protocol = Some(ROUTE_PROTOCOL);
        let ours = RouteFilter { protocol, table: Some(MAIN_TABLE), ..RouteFilter::all(family) };
        routes.extend(pod.routes(ours).await?);
        // Where the pod has no IPv6, or its kernel no rules, there are none.
        rules.extend(pod.rules(family, ROUTE_PROTOCOL).await.unwrap_or_default());
    }
    for Address { device, network, .. } in others {
        let ip = network.ip();
        let leads_there = |route: &&Route| {
            route.device == Some(*device)
                && route.destination.is_ipv4() == ip.is_ipv4()
                && route.gateway.is_some()
        };
        let gateway = routes.iter().find(leads_there).and_then(|route| route.gateway);
        if let (Some(gateway), Some(name)) = (gateway, names.get(device)) {
            wanted.push((rule_for(ip, name), route_for(ip, name, *device, gateway)));
        }
    }
    let is_stale =
        |rule: &Rule| wanted.iter().any(|(it, _)| it.packets == rule.packets && it.table != rule.table);
    let mut changes: Vec<Change> =
        rules.iter().filter(|rule| is_stale(rule)).map(|rule| Change::DeleteRule(*rule)).collect();
    changes.extend(wanted.iter().filter(|(rule, _)| !rules.contains(rule)).flat_map(|(rule, route)| {
        // The table before the rule that leads to it.
        let route = Change::AddRoute { route: route.clone(), mode: AddMode::Exclusive };
        [route, Change::AddRule(*rule)]
    }));
    let is_fine = |refusal: &KernelError| {
        refusal.is_exists() || refusal.is_unknown_kind() || refusal.is_unsupported_family()
    };
    let outcomes = pod.submit(changes).await;
    let failed = outcomes.into_iter().filter(|outcome| !outcome.as_ref().is_err_and(is_fine));
    DatapathError::check(Place::Sandbox, failed)
}
