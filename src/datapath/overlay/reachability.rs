//! Which nodes are reached by VXLAN.

use std::collections::HashSet;

use crate::config::peer::Peer;
use crate::datapath::error::DatapathError;
use crate::datapath::node::find_uplink;
use crate::datapath::peers::PeerFailure;
use crate::desired::node::NodeState;
use crate::desired::overlay::{Overlay, OverlayPeer, Routing, Way, inner_mtu, local_end};
use crate::linux::error::KernelError;
use crate::linux::netlink::Netlink;
use crate::linux::route::Family;

/// How each of the other nodes is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    /// Node by node, by its name, in the order of [`NodeState::other_nodes`], and for each family of its pods by itself:
    /// a family that is lost takes nothing from the other.
    pub ways: Vec<(String, Family, Way)>,
    /// Nodes that need the overlay and cannot have it, or that no way leads to for some of their pods.
    pub failures: Vec<PeerFailure>,
}

impl Ways {
    /// Whether a node is reached by VXLAN at all.
    pub fn need_overlay(&self) -> bool {
        self.ways.iter().any(|(_, _, way)| *way == Way::Overlay)
    }
}

/// What the administrator may choose of the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// VXLAN network identifier, 24 bits.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// MTU of the device in bytes, instead of what the uplink leaves room for.
    pub mtu: Option<u32>,
}

/// What the look-ups say of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Each podCIDR has a next hop of its family on-link.
    OnLink,
    /// Some has none, but a tunnel may lead there.
    OffLink,
    /// No tunnel either: no address of the tunnels' family, or no way to it.
    Nowhere,
    /// It is this node itself, by an address that was not known for its own.
    Oneself,
}

/// Decides, peer by peer and family by family. [`Routing::Auto`]: direct, if the next hop is on-link; by VXLAN, if not and
/// a tunnel can lead there; else direct, which fails with the reason.
///
/// One look-up for each address, so ask again when a peer or a route of the underlay has changed.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn ways(node: &Netlink, state: &NodeState, routing: Routing) -> Result<Ways, DatapathError> {
    let mut decided = Ways::default();
    for (peer, family) in state.other_nodes().flat_map(parts) {
        let peer = &peer;
        let reach = match routing {
            Routing::Direct => Reach::OnLink,
            Routing::Auto | Routing::Vxlan => reach(node, state, peer).await?,
        };
        let way = match (routing, reach) {
            (Routing::Vxlan, Reach::OnLink | Reach::OffLink) | (Routing::Auto, Reach::OffLink) => {
                Way::Overlay
            }
            _ => Way::Direct,
        };
        let has_end = local_end(state).is_some_and(|local| OverlayPeer::new(peer, local).is_some());
        if way == Way::Overlay && !has_end {
            let failure = no_end(state, peer);
            if decided.failures.last() != Some(&failure) {
                decided.failures.push(failure);
            }
        }
        let way = if has_end { way } else { Way::Direct };
        if way == Way::Direct {
            decided.failures.extend(without_next_hop(peer, routing));
        }
        decided.ways.push((peer.node.clone(), family, way));
    }
    Ok(decided)
}

/// The overlay of this node, or `None` where no peer needs one and it is not to be kept without any (`is_kept`): then it
/// leads nowhere, and takes what other nodes still send.
///
/// # Errors
/// Where the kernel cannot be asked for the uplink.
pub async fn describe(
    node: &Netlink,
    state: &NodeState,
    ways: &Ways,
    settings: Settings,
    is_kept: bool,
) -> Result<Option<Overlay>, DatapathError> {
    let Some(local) = local_end(state).filter(|_| ways.need_overlay() || is_kept) else { return Ok(None) };
    let mtu = match settings.mtu {
        Some(mtu) => mtu,
        None => inner_mtu(find_uplink(node, state, None).await?.mtu, local, state.ipv6),
    };
    let overlaid = ways.ways.iter().filter(|(_, _, way)| *way == Way::Overlay);
    let overlaid: HashSet<(&str, bool)> =
        overlaid.map(|(name, family, _)| (name.as_str(), *family == Family::V4)).collect();
    let peers = state.other_nodes().filter_map(|peer| {
        let is_inside = |is_ipv4| overlaid.contains(&(peer.node.as_str(), is_ipv4));
        let mut inside = OverlayPeer::new(peer, local)?;
        inside.pod_cidrs.retain(|cidr| is_inside(cidr.is_ipv4()));
        inside.node_ips.retain(|address| is_inside(address.is_ipv4()));
        (!inside.pod_cidrs.is_empty()).then_some(inside)
    });
    Ok(Some(Overlay {
        network: state.network.clone(),
        id: settings.id,
        port: settings.port,
        local,
        mtu,
        subnets: state.subnets.clone(),
        node_ips: state.node_ips.clone(),
        peers: peers.collect(),
    }))
}

/// The peer with its pods of one family, for each that they have.
fn parts(peer: &Peer) -> impl Iterator<Item = (Peer, Family)> {
    [Family::V4, Family::V6].into_iter().filter_map(|family| {
        let mut part = peer.clone();
        part.pod_cidrs.retain(|cidr| cidr.is_ipv4() == (family == Family::V4));
        (!part.pod_cidrs.is_empty()).then_some((part, family))
    })
}

async fn reach(node: &Netlink, state: &NodeState, peer: &Peer) -> Result<Reach, KernelError> {
    let mut is_on_link = true;
    for &cidr in &peer.pod_cidrs {
        let way = match peer.next_hop(cidr) {
            Some(next_hop) => node.route_to(next_hop).await?,
            None => None,
        };
        match way {
            Some(way) if way.local => return Ok(Reach::Oneself),
            Some(way) if way.gateway.is_none() => {}
            _ => is_on_link = false,
        }
    }
    if is_on_link {
        return Ok(Reach::OnLink);
    }
    let end = local_end(state).and_then(|local| OverlayPeer::new(peer, local));
    match end {
        Some(end) if node.route_to(end.node_ip).await?.is_some() => Ok(Reach::OffLink),
        _ => Ok(Reach::Nowhere),
    }
}

fn no_end(state: &NodeState, peer: &Peer) -> PeerFailure {
    let reason = match local_end(state) {
        Some(local) => format!(
            "it is to be reached by VXLAN from {local}, and has no address of that family; give both nodes one"
        ),
        None => "it is to be reached by VXLAN, and this node's own address is not known".into(),
    };
    PeerFailure { peer: peer.node.clone(), reason }
}

/// podCIDRs that a direct route cannot be made for, and that would be passed over in silence.
fn without_next_hop(peer: &Peer, routing: Routing) -> Option<PeerFailure> {
    let cidr = peer.pod_cidrs.iter().find(|&&cidr| peer.next_hop(cidr).is_none())?;
    let family = if cidr.is_ipv4() { "IPv4" } else { "IPv6" };
    let reason = format!(
        "its pods in {cidr} cannot be reached: the node has no {family} address, and with routing {routing} no tunnel \
         leads there"
    );
    Some(PeerFailure { peer: peer.node.clone(), reason })
}
