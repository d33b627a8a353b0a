//! What hangs on the device, peer by peer: forwarding entries, neighbours, the nodes' own routes.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::datapath::compare::fulfils;
use crate::datapath::error::DatapathError;
use crate::datapath::overlay::OverlayDone;
use crate::datapath::peers::PeerFailure;
use crate::desired::names::{ROUTE_PROTOCOL, nodes_table};
use crate::desired::overlay::Overlay;
use crate::linux::change::Change;
use crate::linux::neigh::Neighbour;
use crate::linux::netlink::Netlink;
use crate::linux::route::{AddMode, Family, Route, RouteFilter};
use crate::linux::vxlan::ForwardingEntry;
use crate::mac::MacAddr;

/// What the device must have, each with the peer that needs it.
#[derive(Default)]
struct Desired<'a> {
    forwarding: HashMap<ForwardingEntry, &'a str>,
    neighbours: HashMap<(IpAddr, MacAddr), &'a str>,
    routes: HashMap<IpNetwork, (Route, &'a str)>,
}

/// What it has.
struct Actual {
    forwarding: HashSet<ForwardingEntry>,
    neighbours: Vec<Neighbour>,
    routes: Vec<Route>,
}

/// The changes between the two; additions with the peer that needs them.
#[derive(Default)]
struct Plan<'a> {
    remove: Vec<Change>,
    set: Vec<(&'a str, Change)>,
}

/// Makes it so.
pub(super) async fn keep(
    node: &Netlink,
    overlay: &Overlay,
    index: u32,
    done: &mut OverlayDone,
) -> Result<(), DatapathError> {
    let desired = Desired::of(overlay, index);
    let plan = plan(&desired, &Actual::read(node, overlay, index).await?, index);
    let outcomes = node.submit(plan.remove).await;
    for outcome in outcomes {
        match outcome {
            Err(refusal) if !refusal.is_not_found() => done.failures.push(PeerFailure {
                peer: "(none)".into(),
                reason: format!("what leads to a node that left stays: {refusal}"),
            }),
            _ => done.removed += 1,
        }
    }
    let (peers, changes): (Vec<&str>, Vec<Change>) = plan.set.into_iter().unzip();
    for (outcome, peer) in node.submit(changes).await.into_iter().zip(peers) {
        match outcome {
            Ok(()) => done.set += 1,
            Err(refusal) => {
                done.failures.push(PeerFailure { peer: peer.into(), reason: refusal.to_string() });
            }
        }
    }
    Ok(())
}

impl<'a> Desired<'a> {
    fn of(overlay: &'a Overlay, index: u32) -> Self {
        let mut desired = Self::default();
        for peer in &overlay.peers {
            let (name, link) = (peer.node.as_str(), overlay.peer_link(peer));
            let mac = link.mac;
            // Two peers with one address share what leads there; their routes tell them apart.
            desired.forwarding.insert(ForwardingEntry { index, mac, remote: peer.node_ip }, name);
            desired.neighbours.extend(link.neighbours.iter().map(|it| ((it.address, mac), name)));
            desired.routes.extend(link.routes.iter().map(|route| {
                let route = route.by_index(Some(index));
                (route.destination, (route, name))
            }));
        }
        desired
    }
}

impl Actual {
    async fn read(node: &Netlink, overlay: &Overlay, index: u32) -> Result<Self, DatapathError> {
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            let (protocol, table) = (Some(ROUTE_PROTOCOL), Some(nodes_table(&overlay.network)));
            routes.extend(node.routes(RouteFilter { family, protocol, device: None, table }).await?);
        }
        Ok(Self {
            forwarding: node.forwarding_entries(index).await?.into_iter().collect(),
            neighbours: node.neighbours(index).await?,
            routes,
        })
    }
}

fn plan<'a>(desired: &Desired<'a>, actual: &Actual, index: u32) -> Plan<'a> {
    let mut plan = Plan::default();
    for route in &actual.routes {
        if !desired.routes.contains_key(&route.destination) {
            plan.remove.push(Change::DeleteRoute(route.clone()));
        }
    }
    // A permanent one that is not asked for, or whose hardware address is another's: an entry is replaced as a whole.
    let wanted_addresses: HashSet<IpAddr> = desired.neighbours.keys().map(|(address, _)| *address).collect();
    for it in
        actual.neighbours.iter().filter(|it| it.is_permanent() && !wanted_addresses.contains(&it.address))
    {
        plan.remove.push(Change::DeleteNeighbour { index, address: it.address });
    }
    for &entry in actual.forwarding.iter().filter(|entry| !desired.forwarding.contains_key(entry)) {
        plan.remove.push(Change::DeleteForwardingEntry(entry));
    }
    for (&entry, &peer) in desired.forwarding.iter().filter(|(entry, _)| !actual.forwarding.contains(entry)) {
        plan.set.push((peer, Change::SetForwardingEntry(entry)));
    }
    let standing: HashSet<(IpAddr, MacAddr)> = actual
        .neighbours
        .iter()
        .filter(|it| it.is_permanent())
        .filter_map(|it| Some((it.address, it.mac?)))
        .collect();
    for (&(address, mac), &peer) in desired.neighbours.iter().filter(|(it, _)| !standing.contains(it)) {
        plan.set.push((peer, Change::AddNeighbour { index, address, mac }));
    }
    let routes: HashMap<IpNetwork, &Route> = actual.routes.iter().map(|it| (it.destination, it)).collect();
    for (destination, (route, peer)) in &desired.routes {
        if !routes.get(destination).is_some_and(|actual| fulfils(actual, route)) {
            plan.set.push((peer, Change::AddRoute { route: route.clone(), mode: AddMode::Replace }));
        }
    }
    plan
}
