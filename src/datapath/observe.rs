//! Reads what a namespace has, as far as an attachment's objects are concerned. Changes nothing.

use std::collections::HashMap;

use crate::datapath::error::DatapathError;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::desired::object::{Object, Place};
use crate::linux::addr::Address;
use crate::linux::link::{Link, LinkRef};
use crate::linux::neigh::Neighbour;
use crate::linux::netlink::{Netlink, Socket};
use crate::linux::netns::Netns;
use crate::linux::qdisc::{Qdisc, Redirect};
use crate::linux::route::{Family, Route, RouteFilter};
use crate::linux::rule::Rule;
use crate::linux::sysctl;

/// What was found in one namespace.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The links that the objects name, by name.
    pub links: HashMap<String, Link>,
    /// Addresses: on the node those of these links, in the pod all.
    pub addresses: Vec<Address>,
    /// Neighbours of these links.
    pub neighbours: Vec<Neighbour>,
    /// Routes of all tables: on the node those out of these links, in the pod all.
    pub routes: Vec<Route>,
    /// Rules of ours; of the pod alone.
    pub rules: Vec<Rule>,
    /// Queueing disciplines by the index of their link; read only where an object asks for one.
    pub qdiscs: Vec<(u32, Qdisc)>,
    /// Where what comes in by a link is led; read only where an object asks for it.
    pub redirects: Vec<Redirect>,
    /// Values of the sysctls that the objects name; absent where there is no such setting.
    pub sysctls: HashMap<Vec<String>, String>,
}

/// Reads the node's namespace.
///
/// # Errors
/// What the kernel refused; that something is missing is no error.
pub async fn observe(node: &Netlink, objects: &[Object]) -> Result<Snapshot, DatapathError> {
    let sysctls = read_sysctls(objects, Place::Node);
    read_snapshot(node, objects, Place::Node, sysctls).await
}

/// Reads the pod's namespace.
///
/// # Errors
/// As for [`observe`]; or the namespace cannot be entered.
pub async fn observe_sandbox(sandbox: &Netns, objects: &[Object]) -> Result<Snapshot, DatapathError> {
    let (sysctls, socket) = sandbox.run(|| (read_sysctls(objects, Place::Sandbox), Socket::open_here()))?;
    let socket = socket.map_err(|source| DatapathError::Socket { place: "pod", source })?;
    read_snapshot(&Netlink::start(socket), objects, Place::Sandbox, sysctls).await
}

async fn read_snapshot(
    netlink: &Netlink,
    objects: &[Object],
    place: Place,
    sysctls: HashMap<Vec<String>, String>,
) -> Result<Snapshot, DatapathError> {
    let mut snapshot = Snapshot { sysctls, ..Snapshot::default() };
    for name in link_names(objects, place) {
        let Some(link) = netlink.link(LinkRef::Name(name.to_owned())).await? else { continue };
        snapshot.neighbours.extend(netlink.neighbours(link.index).await?);
        if place == Place::Node {
            // By their link: a node may have thousands of others.
            snapshot.addresses.extend(netlink.addresses(Some(link.index)).await?);
            snapshot.routes.extend(read_routes(netlink, Some(link.index)).await?);
        }
        snapshot.links.insert(name.to_owned(), link);
    }
    if place == Place::Sandbox {
        snapshot.addresses = netlink.addresses(None).await?;
        snapshot.routes = read_routes(netlink, None).await?;
        for family in [Family::V4, Family::V6] {
            // Where a kernel has no rules there are none.
            snapshot.rules.extend(netlink.rules(family, ROUTE_PROTOCOL).await.unwrap_or_default());
        }
    }
    read_shaping(netlink, objects, place, &mut snapshot).await?;
    Ok(snapshot)
}

pub(super) async fn read_shaping(
    netlink: &Netlink,
    objects: &[Object],
    place: Place,
    snapshot: &mut Snapshot,
) -> Result<(), DatapathError> {
    for object in objects.iter().filter(|object| object.place() == place) {
        let link = match object {
            Object::Shaper(shaper) => &shaper.link,
            Object::Redirect(redirect) => &redirect.from,
            _ => continue,
        };
        let Some(index) = snapshot.links.get(link).map(|link| link.index) else { continue };
        if let Object::Redirect(_) = object {
            snapshot.redirects.extend(netlink.redirects(index).await?);
        } else {
            let found = netlink.qdiscs(index).await?;
            snapshot.qdiscs.extend(found.into_iter().map(|qdisc| (index, qdisc)));
        }
    }
    Ok(())
}

async fn read_routes(netlink: &Netlink, device: Option<u32>) -> Result<Vec<Route>, DatapathError> {
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        routes.extend(netlink.routes(RouteFilter { device, ..RouteFilter::all(family) }).await?);
    }
    Ok(routes)
}

/// Names of the links that belong to the objects of a place, each once, in order.
fn link_names(objects: &[Object], place: Place) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for object in objects {
        let name = match object {
            Object::Pair(pair) if place == Place::Node => Some(pair.host.name.as_str()),
            Object::Pair(pair) => Some(pair.pod.name.as_str()),
            Object::Link(link) if link.place == place => Some(link.name.as_str()),
            _ => None,
        };
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

pub(super) fn read_sysctls(objects: &[Object], place: Place) -> HashMap<Vec<String>, String> {
    let mut values = HashMap::new();
    for object in objects {
        if let Object::Sysctl(it) = object
            && it.place == place
            && let Ok(value) = sysctl::read(&it.path.iter().map(String::as_str).collect::<Vec<_>>())
        {
            values.insert(it.path.clone(), value);
        }
    }
    values
}
