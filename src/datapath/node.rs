//! What a node needs besides its pods, and what its pods need to know of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::future::{join, join_all};

use crate::datapath::error::DatapathError;
use crate::desired::node::NodeState;
use crate::desired::object::{Place, Route};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::route::{AddMode, Family, Resolved, RouteFilter, RouteKind};
use crate::linux::sysctl;

/// MTU where the node has no way out at all: Ethernet's.
const MTU_WITHOUT_UPLINK: u32 = 1500;

/// Index of `lo` in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK: u32 = 1;

/// `RTPROT_RA`: a route that a router advertisement made (include/uapi/linux/rtnetlink.h).
const PROTOCOL_RA: u8 = 9;

/// How a node is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The smallest MTU of the links that carry the node's addresses, in bytes.
    pub mtu: u32,
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

/// Finds the uplink: by the link that carries the node's address, where the conf names that; else by the route
/// to a peer, or to the world where there is none.
///
/// Asks the kernel's routing decision instead of reading its tables, so the cost does not depend on how
/// many links, addresses or routes the node has. Addresses that the conf names (`nodeIPs`) are taken as they
/// are: on a node with several, only the administrator knows which one is the node's.
///
/// # Errors
/// What the kernel refused. A node without any route is no error.
pub async fn find_uplink(node: &Netlink, state: &NodeState) -> Result<Uplink, DatapathError> {
    let ways = join(node.route_to(destination(state, true)), node.route_to(destination(state, false)));
    let carriers = join(find_carrier(node, named(state, true)), find_carrier(node, named(state, false)));
    let (ways, carriers) = join(ways, carriers).await;
    let (ipv4, ipv6) = (ways.0?, ways.1?);
    let source = |way: &Option<Resolved>| way.as_ref().and_then(|way| way.source);
    let way_out = |way: &Option<Resolved>| way.as_ref().filter(|way| !way.local).map(|way| way.device);
    let mut devices: Vec<u32> =
        [carriers.0?.or(way_out(&ipv4)), carriers.1?.or(way_out(&ipv6))].into_iter().flatten().collect();
    devices.dedup();
    let links = join_all(devices.into_iter().map(|device| node.link(LinkRef::Index(device)))).await;
    let mut mtu = None;
    for link in links {
        if let Some(link) = link? {
            mtu = Some(mtu.unwrap_or(link.mtu).min(link.mtu));
        }
    }
    Ok(Uplink {
        mtu: mtu.unwrap_or(MTU_WITHOUT_UPLINK),
        ipv4: named(state, true).or(source(&ipv4)),
        ipv6: named(state, false).or(source(&ipv6)),
    })
}

/// The link that has `address`. `None` where none has it, or `lo`: nodes that announce their address by a routing
/// protocol keep it there, and what they send leaves by another link.
async fn find_carrier(node: &Netlink, address: Option<IpAddr>) -> Result<Option<u32>, KernelError> {
    let Some(address) = address else { return Ok(None) };
    let own = node.find_route(address.into()).await?.filter(|route| route.kind == RouteKind::Local);
    Ok(own.and_then(|route| route.device).filter(|&device| device != LOOPBACK))
}

/// The node's address of a family, where the conf names it.
fn named(state: &NodeState, ipv4: bool) -> Option<IpAddr> {
    state.node_ips.iter().copied().find(|address| address.is_ipv4() == ipv4)
}

/// Whom to ask the way to: the first other node of the family, else the world. Not this node, if the list has
/// it: the way there is `lo`, and says nothing of the uplink.
fn destination(state: &NodeState, ipv4: bool) -> IpAddr {
    let mut peers = state.other_nodes().flat_map(|peer| &peer.node_ips);
    peers.find(|address| address.is_ipv4() == ipv4).copied().unwrap_or(anywhere(ipv4))
}

/// An address that is nobody's (RFC 5737, RFC 3849): the way to it is the way out.
fn anywhere(ipv4: bool) -> IpAddr {
    if ipv4 {
        Ipv4Addr::new(192, 0, 2, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    }
}

/// A setting that the node needs, and what it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Components below /proc/sys.
    pub path: Vec<String>,
    /// Its value now.
    pub before: String,
    /// The value that is needed.
    pub after: String,
}

impl Switch {
    /// Whether it has to be written.
    pub fn is_due(&self) -> bool {
        self.before != self.after
    }
}

/// The settings that the node needs, in the order in which they are to be written. Changes nothing, so that the caller
/// can remember what was before.
///
/// # Errors
/// What the kernel refused.
pub async fn find_switches(node: &Netlink, state: &NodeState) -> Result<Vec<Switch>, DatapathError> {
    let mut switches = Vec::new();
    for wanted in state.forwarding() {
        let before = sysctl::read(&parts(&wanted.path))?;
        let is_ipv6 = wanted.path.iter().any(|part| part == "ipv6");
        let switch = Switch { path: wanted.path, before, after: wanted.value.to_string() };
        if is_ipv6 && switch.is_due() {
            switches.extend(listening_uplinks(node).await?);
        }
        switches.push(switch);
    }
    Ok(switches)
}

/// Writes those of the settings found by [`find_switches`] that differ, and adds the node's standing routes and addresses. Idempotent.
///
/// # Errors
/// What the kernel refused.
pub async fn prepare(node: &Netlink, state: &NodeState, switches: &[Switch]) -> Result<(), DatapathError> {
    for switch in switches.iter().filter(|switch| switch.is_due()) {
        sysctl::write(&parts(&switch.path), &switch.after)?;
    }
    let add =
        |route: &Route| Change::AddRoute { route: route.by_index(Some(LOOPBACK)), mode: AddMode::Exclusive };
    let mut changes: Vec<Change> = state.standing_routes().iter().map(add).collect();
    changes.extend(state.standing_addresses().iter().map(|it| Change::AddAddress(it.by_index(LOOPBACK))));
    let outcomes = node.submit(changes).await;
    DatapathError::check(
        Place::Node,
        outcomes.into_iter().filter(|it| !it.as_ref().is_err_and(|refusal| refusal.is_exists())),
    )
}

/// A host that forwards no longer listens to router advertisements, and the kernel drops the default route
/// that came from one at that moment; unless the link says `accept_ra` 2 (Documentation/networking/ip-sysctl).
/// So links that live on such a route are told so first (cilium#21819, k3s#5019).
async fn listening_uplinks(node: &Netlink) -> Result<Vec<Switch>, DatapathError> {
    let filter = RouteFilter { protocol: Some(PROTOCOL_RA), ..RouteFilter::all(Family::V6) };
    let mut switches: Vec<Switch> = Vec::new();
    for route in node.routes(filter).await? {
        let Some(device) = route.device.filter(|_| route.destination.prefix() == 0) else { continue };
        if let Some(link) = node.link(LinkRef::Index(device)).await? {
            let path = ["net", "ipv6", "conf", &link.name, "accept_ra"].map(str::to_owned).to_vec();
            let before = sysctl::read(&parts(&path))?;
            if before != "2" && !switches.iter().any(|switch| switch.path == path) {
                switches.push(Switch { path, before, after: "2".to_owned() });
            }
        }
    }
    Ok(switches)
}

fn parts(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
