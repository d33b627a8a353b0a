//! The node's routes to its own pods: those of running pods, made right where the node's address changed.
//!
//! When a node gets another address, the kernel drops every IPv4 route whose `src` was the old one, those to the pods
//! included (fib_sync_down_addr, net/ipv4/fib_semantics.c), and IPv6 routes keep a source that is nobody's.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cni::ids::AttachmentKey;
use crate::datapath::compare::fulfils;
use crate::datapath::detach::is_whole;
use crate::datapath::error::DatapathError;
use crate::desired::names::{ROUTE_PROTOCOL, host_link};
use crate::desired::object::Place;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::Link;
use crate::linux::netlink::Netlink;
use crate::linux::route::{AddMode, Family, Route, RouteFilter};

/// A pod that has a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddresses {
    /// Whose.
    pub key: AttachmentKey,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Makes the routes to the pods what they should be, with the node's addresses as their source; returns how many were
/// missing or wrong. Idempotent. A pod whose ADD or DEL is under way, or whose link is gone, is left alone.
///
/// # Errors
/// What the kernel refused.
pub async fn repair_routes(
    node: &Netlink,
    pods: &[PodAddresses],
    node_ips: &[IpAddr],
) -> Result<usize, DatapathError> {
    if pods.is_empty() {
        return Ok(0);
    }
    let links = node.links().await?;
    let links: HashMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut actual: HashMap<IpNetwork, Route> = HashMap::new();
    for family in [Family::V4, Family::V6] {
        let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::all(family) };
        let of_links = node.routes(filter).await?.into_iter().filter(|route| route.table.is_none());
        actual.extend(of_links.map(|route| (route.destination, route)));
    }
    let mut changes = Vec::new();
    for pod in pods {
        let name = host_link(&pod.key);
        let Some(link) = links.get(name.as_str()).filter(|link| link.up && is_whole(link, &pod.key)) else {
            continue;
        };
        for &address in &pod.addresses {
            let source = node_ips.iter().copied().find(|it| it.is_ipv4() == address.is_ipv4());
            let wanted = Route {
                device: Some(link.index),
                source,
                ..Route::to(IpNetwork::from(address), ROUTE_PROTOCOL)
            };
            let wanted = wanted.canonical();
            if !actual.get(&wanted.destination).is_some_and(|actual| fulfils(actual, &wanted)) {
                changes.push(Change::AddRoute { route: wanted, mode: AddMode::Replace });
            }
        }
    }
    let mut outcomes = node.submit(changes).await;
    // A pod may go while this is at work.
    outcomes.retain(|it| !it.as_ref().is_err_and(KernelError::is_of_gone_link));
    let count = outcomes.len();
    DatapathError::check(Place::Node, outcomes)?;
    Ok(count)
}
