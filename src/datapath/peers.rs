//! Routes to the other nodes: what the peers ask for against what the kernel has.
//!
//! Ours are the routes with our protocol and the network's own metric. No other is read for more than the
//! comparison, changed, or removed: a foreign route to the same subnet has another metric and stays beside
//! ours. One peer that cannot be routed to never stops the others (kindnet#46).
//!
//! A peer that is not on-link has its routes by the overlay's device instead, with the same marks: so one that comes
//! nearer or moves away is a route that differs, and is replaced in one step.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::datapath::compare::fulfils;
use crate::datapath::error::DatapathError;
use crate::desired::names::{OVERLAY_DEVICE, ROUTE_PROTOCOL, route_metric};
use crate::desired::node::{NodeState, PeerRoute};
use crate::desired::object::Place;
use crate::desired::overlay::Overlay;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::route::{AddMode, Family, MAIN_TABLE, Route, RouteFilter, RouteKind};

/// How many routes are asked for at once.
const AT_ONCE: usize = 512;

/// How many refusals are looked into, at one request each. More of them have the same reason.
const EXPLAINED: usize = 16;

/// The routes of ours to single addresses, and the source of each.
pub type RoutesToPods = HashMap<IpAddr, Option<IpAddr>>;

/// What a synchronisation did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Synchronised {
    /// Routes that were missing or wrong and now stand.
    pub set: usize,
    /// Routes of ours that nothing asks for any more.
    pub removed: usize,
    /// What could not be done, peer by peer.
    pub failures: Vec<PeerFailure>,
    /// Destinations of routes that are not as they should be: missing, wrong, or still there.
    pub unsettled: Vec<IpNetwork>,
    /// Whether an answer was lost: then some failures are no peer's.
    is_unsure: bool,
}

/// Why a peer's pods cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peer {peer}: {reason}")]
pub struct PeerFailure {
    /// The peer's node name.
    pub peer: String,
    /// The route and the kernel's reason, with the remedy where it is known.
    pub reason: String,
}

/// Makes the routes to the peers what `state` says. Idempotent.
///
/// # Errors
/// Only where the kernel's routes cannot be read, or the socket fails. A peer's own trouble is in the answer.
pub async fn synchronise(node: &Netlink, state: &NodeState) -> Result<Synchronised, DatapathError> {
    settle(node, state, &state.peer_routes(), None).await.map(|(done, _)| done)
}

/// The same; tells besides which routes to pods it has seen on the way.
///
/// # Errors
/// As [`synchronise`].
pub async fn synchronise_and_see(
    node: &Netlink,
    state: &NodeState,
) -> Result<(Synchronised, RoutesToPods), DatapathError> {
    settle(node, state, &state.peer_routes(), None).await
}

/// The same, but by `overlay` to the peers that it leads to. Its device should be there
/// ([`crate::datapath::overlay::keep`]): those peers fail without.
///
/// # Errors
/// As [`synchronise`].
pub async fn synchronise_with(
    node: &Netlink,
    state: &NodeState,
    overlay: &Overlay,
) -> Result<Synchronised, DatapathError> {
    let device = overlay_device(node).await?;
    settle(node, state, &state.peer_routes_with(overlay), device).await.map(|(done, _)| done)
}

/// Sets what is missing or wrong, and removes nothing: for a list of peers that may not be the whole truth.
///
/// # Errors
/// As [`synchronise`].
pub async fn supplement(
    node: &Netlink,
    state: &NodeState,
    overlay: Option<&Overlay>,
) -> Result<Synchronised, DatapathError> {
    let (desired, device) = match overlay {
        Some(overlay) => (state.peer_routes_with(overlay), overlay_device(node).await?),
        None => (state.peer_routes(), None),
    };
    let actual = own_routes(node, &state.network).await?;
    let Plan { set, .. } = plan(&desired, &actual, device);
    Ok(carry_out(node, Plan { set, remove: Vec::new() }, device).await)
}

/// Makes the direct routes to a few peers what they should be, given what these peers had `before` and have now
/// (`after`). Reads no routes: the cost is that of these peers, however many others there are. Idempotent.
pub async fn update(node: &Netlink, before: &NodeState, after: &NodeState) -> Synchronised {
    let desired = after.peer_routes();
    let is_gone = |old: &PeerRoute| desired.iter().all(|new| new.route.destination != old.route.destination);
    // By destination and metric alone: the next hop that it has now is nobody's business.
    let stale: Vec<Route> = before
        .peer_routes()
        .iter()
        .filter(|old| is_gone(old))
        .map(|old| Route {
            metric: Some(route_metric(&before.network)),
            ..Route::to(old.route.destination, ROUTE_PROTOCOL)
        })
        .collect();
    carry_out(node, Plan { set: desired.iter().collect(), remove: stale.iter().collect() }, None).await
}

/// Removes those routes to other nodes whose destination is `refused`, whoever asked for them. Returns how many.
///
/// # Errors
/// Where the kernel's routes cannot be read, or one of them stays.
pub async fn withdraw(
    node: &Netlink,
    network: &NetworkName,
    refused: impl Fn(IpNetwork) -> bool,
) -> Result<usize, DatapathError> {
    let mut routes = own_routes(node, network).await?;
    routes.retain(|route| refused(route.destination));
    let count = routes.len();
    let outcomes = node.submit(routes.into_iter().map(Change::DeleteRoute)).await;
    let is_told = |it: &Result<(), KernelError>| !it.as_ref().is_err_and(KernelError::is_not_found);
    DatapathError::check(Place::Node, outcomes.into_iter().filter(is_told))?;
    Ok(count)
}

async fn settle(
    node: &Netlink,
    state: &NodeState,
    desired: &[PeerRoute],
    device: Option<u32>,
) -> Result<(Synchronised, RoutesToPods), DatapathError> {
    let (actual, others): (Vec<Route>, Vec<Route>) =
        read_routes(node).await?.into_iter().partition(|route| is_to_peer(route, &state.network));
    let done = carry_out(node, plan(desired, &actual, device), device).await;
    let to_pods = others.iter().filter(|it| it.kind == RouteKind::Unicast && it.gateway.is_none());
    let to_pods = to_pods.map(|route| (route.destination.ip(), route.source)).collect();
    if !done.is_unsure {
        return Ok((done, to_pods));
    }
    // The trouble was the socket's and not the peers'.
    let actual = own_routes(node, &state.network).await?;
    let again = carry_out(node, plan(desired, &actual, device), device).await;
    Ok((Synchronised { set: done.set + again.set, removed: done.removed + again.removed, ..again }, to_pods))
}

async fn overlay_device(node: &Netlink) -> Result<Option<u32>, KernelError> {
    Ok(node.link(LinkRef::Name(OVERLAY_DEVICE.into())).await?.map(|link| link.index))
}

/// Stale routes go first: one of them may be the very route that makes a next hop unreachable. A few at a time, so that
/// memory does not grow with their number.
async fn carry_out(node: &Netlink, plan: Plan<'_>, device: Option<u32>) -> Synchronised {
    let mut report = Synchronised::default();
    for some in plan.remove.chunks(AT_ONCE) {
        let outcomes = node.submit(some.iter().map(|&route| Change::DeleteRoute(route.clone()))).await;
        for (outcome, route) in outcomes.into_iter().zip(some) {
            match outcome {
                Err(refusal) if !refusal.is_not_found() => {
                    report.is_unsure |= refusal.is_lost();
                    let peer = format!("(none) {}", route.destination);
                    report
                        .failures
                        .push(PeerFailure { peer, reason: format!("stale route stays: {refusal}") });
                    report.unsettled.push(route.destination);
                }
                _ => report.removed += 1,
            }
        }
    }
    for some in plan.set.chunks(AT_ONCE) {
        let additions = some
            .iter()
            .map(|wanted| Change::AddRoute { route: in_kernel(wanted, device), mode: AddMode::Replace });
        let outcomes = node.submit(additions).await;
        for (outcome, wanted) in outcomes.into_iter().zip(some) {
            report.is_unsure |= outcome.as_ref().is_err_and(KernelError::is_lost);
            match outcome {
                Ok(()) => report.set += 1,
                Err(refusal) if report.failures.len() < EXPLAINED => {
                    report.failures.extend(explain(node, wanted, &refusal).await);
                    report.unsettled.push(wanted.route.destination);
                }
                Err(refusal) => {
                    let (peer, reason) = (wanted.peer.clone(), refusal.to_string());
                    report.failures.push(PeerFailure { peer, reason });
                    report.unsettled.push(wanted.route.destination);
                }
            }
        }
    }
    report
}

/// The peers without a way to any of their next hops; empty where there is one peer that can be reached
/// at least. For STATUS: writes nothing, and one bad peer does not count, since it must not take the node
/// out of service.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn unreachable_peers(node: &Netlink, state: &NodeState) -> Result<Vec<String>, DatapathError> {
    let mut unreachable = Vec::new();
    for (peer, next_hop) in state.next_hops() {
        match node.route_to(next_hop).await? {
            Some(way) if way.gateway.is_none() => return Ok(Vec::new()),
            _ => unreachable.push(peer.to_owned()),
        }
    }
    unreachable.dedup();
    Ok(unreachable)
}

/// What stands where a peer's route must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The route, as it must be.
    Stands,
    /// No route of ours.
    Missing,
    /// A route of ours, but another.
    Other(Route),
}

/// How each of the peers' routes stands. Changes nothing.
///
/// # Errors
/// Where the kernel's routes cannot be read.
pub async fn standings(
    node: &Netlink,
    state: &NodeState,
) -> Result<Vec<(PeerRoute, Standing)>, DatapathError> {
    let actual = own_routes(node, &state.network).await?;
    let actual: HashMap<IpNetwork, &Route> = actual.iter().map(|route| (route.destination, route)).collect();
    let standing = |wanted: PeerRoute| {
        let route = wanted.route.by_index(None);
        let standing = match actual.get(&route.destination) {
            Some(actual) if fulfils(actual, &route) => Standing::Stands,
            Some(actual) => Standing::Other((*actual).clone()),
            None => Standing::Missing,
        };
        (wanted, standing)
    };
    Ok(state.peer_routes().into_iter().map(standing).collect())
}

/// The network's routes to other nodes, as they stand.
///
/// # Errors
/// Where the kernel's routes cannot be read.
pub(crate) async fn own_routes(node: &Netlink, network: &NetworkName) -> Result<Vec<Route>, DatapathError> {
    let mut routes = read_routes(node).await?;
    routes.retain(|route| is_to_peer(route, network));
    Ok(routes)
}

/// All routes of ours in the main table.
async fn read_routes(node: &Netlink) -> Result<Vec<Route>, DatapathError> {
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        let filter = RouteFilter {
            protocol: Some(ROUTE_PROTOCOL),
            table: Some(MAIN_TABLE),
            ..RouteFilter::all(family)
        };
        routes.extend(node.routes(filter).await?);
    }
    Ok(routes)
}

fn is_to_peer(route: &Route, network: &NetworkName) -> bool {
    route.metric == Some(route_metric(network)) && route.kind == RouteKind::Unicast
}

/// What must be done to make `actual` what is desired.
#[derive(Debug, PartialEq, Eq)]
struct Plan<'a> {
    set: Vec<&'a PeerRoute>,
    remove: Vec<&'a Route>,
}

/// The route in linux's words; `device` is the overlay's index.
fn in_kernel(wanted: &PeerRoute, device: Option<u32>) -> Route {
    wanted.route.by_index(device)
}

fn plan<'a>(desired: &'a [PeerRoute], actual: &'a [Route], device: Option<u32>) -> Plan<'a> {
    let standing: HashMap<IpNetwork, &Route> =
        actual.iter().map(|route| (route.destination, route)).collect();
    let mut wanted_at = HashMap::new();
    let mut set = Vec::new();
    for wanted in desired {
        let route = in_kernel(wanted, device);
        if !standing.get(&route.destination).is_some_and(|actual| fulfils(actual, &route)) {
            set.push(wanted);
        }
        wanted_at.insert(route.destination, wanted);
    }
    let remove = actual.iter().filter(|route| !wanted_at.contains_key(&route.destination)).collect();
    Plan { set, remove }
}

/// The kernel's refusal in words that name peer and remedy; nothing where the "peer" is this node itself.
async fn explain(node: &Netlink, wanted: &PeerRoute, refusal: &KernelError) -> Option<PeerFailure> {
    let failure = |reason| Some(PeerFailure { peer: wanted.peer.clone(), reason });
    let (None, Some(next_hop)) = (&wanted.route.device, wanted.route.gateway) else {
        return failure(refusal.to_string());
    };
    match node.route_to(next_hop).await {
        Ok(Some(way)) if way.local => None,
        Ok(Some(way)) => match way.gateway {
            Some(router) => failure(format!(
                "its address {next_hop} is not on-link: this node reaches it through {router} only, which knows \
                 nothing of the peer's pods. Give a nodeIP in a subnet that both nodes are in ({refusal})"
            )),
            None => failure(refusal.to_string()),
        },
        Ok(None) | Err(_) => failure(format!("this node has no route to its address {next_hop} ({refusal})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::peer::Peer;

    fn state(peers: &[(&str, &str)]) -> NodeState {
        let peers = peers.iter().map(|(cidr, hop)| Peer {
            node: format!("node-{hop}"),
            pod_cidrs: vec![cidr.parse().unwrap()],
            node_ips: vec![hop.parse().unwrap()],
        });
        NodeState {
            block_metadata: false,
            network: NetworkName::parse("podnet").unwrap(),
            subnets: vec!["10.244.0.0/24".parse().unwrap()],
            delegated: vec![],
            ipv4: true,
            ipv6: false,
            gateways: vec![],
            node_ips: vec!["192.168.1.10".parse().unwrap()],
            peers: peers.collect(),
        }
    }

    fn standing(state: &NodeState) -> Vec<Route> {
        // The kernel fills in what the request left open.
        let fill = |wanted: &PeerRoute| Route { device: Some(7), ..wanted.route.by_index(None) };
        state.peer_routes().iter().map(fill).collect()
    }

    #[test]
    fn nothing_is_done_when_all_stand() {
        let desired = state(&[("10.244.1.0/24", "192.168.1.11"), ("10.244.2.0/24", "192.168.1.12")]);
        let (routes, actual) = (desired.peer_routes(), standing(&desired));
        assert_eq!(plan(&routes, &actual, None), Plan { set: vec![], remove: vec![] });
    }

    #[test]
    fn a_changed_node_is_corrected_and_one_that_left_is_removed() {
        let before = state(&[("10.244.1.0/24", "192.168.1.11"), ("10.244.2.0/24", "192.168.1.12")]);
        let after = state(&[("10.244.1.0/24", "192.168.1.99"), ("10.244.3.0/24", "192.168.1.13")]);
        let (routes, actual) = (after.peer_routes(), standing(&before));
        let plan = plan(&routes, &actual, None);
        assert_eq!(plan.set, routes.iter().collect::<Vec<_>>());
        assert_eq!(plan.remove, [&actual[1]]);
    }

    #[test]
    fn a_changed_source_address_of_this_node_is_corrected() {
        let before = state(&[("10.244.1.0/24", "192.168.1.11")]);
        let after = NodeState { node_ips: vec!["192.168.1.20".parse().unwrap()], ..before.clone() };
        let (routes, actual) = (after.peer_routes(), standing(&before));
        assert_eq!(plan(&routes, &actual, None).set.len(), 1);
    }
}
