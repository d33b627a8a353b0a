//! The way to nodes that are not on-link: one VXLAN device, and for each such node what leads there and nowhere else.
//!
//! ```text
//!   node a  192.168.1.10                                            node b  192.168.2.10
//!   10.244.2.0/24 via 192.168.2.10 dev ferrule-vxlan                10.244.1.0/24 via 192.168.1.10 dev ferrule-vxlan
//!   neighbour 192.168.2.10 is at <b's MAC>                          ...
//!   frames to <b's MAC> go to 192.168.2.10    == UDP, any routers ==
//! ```
//!
//! **Nobody asks and nobody is told.** Both ends compute a device's hardware address from its node's address
//! ([`names::vtep_mac`]), so neighbours and forwarding entries are permanent, and there is nothing to flood, to learn
//! or to announce.
//!
//! **The next hop is a label**: the neighbour entry turns it into the hardware address, and that is all it is for.
//! For IPv4 it is the node's own address, so that the route reads like the one by the uplink. (Where the node has none,
//! the first address of the pods' subnet, which no pod gets.) For IPv6 it is the link-local address that belongs to the
//! hardware address: the kernel refuses a global one that it knows to be on another link
//! (`ip6_route_check_nh_onlink`, net/ipv6/route.c), as it is where the two nodes share a subnet and VXLAN is forced.
//!
//! **From pods to other nodes themselves** packets go through the device as well, by a rule for what comes from an own
//! pod and a table with the nodes' addresses. By the uplink they would have a pod's address as their source, in a
//! network that knows nothing of pods: its routers may drop them, a cloud does, and so does the strict rp_filter of the
//! other node, whose way back is by VXLAN. Like this, ways are symmetric, and the underlay sees UDP between nodes
//! alone. The nodes' own traffic among each other stays as it was.
//!
//! **What comes in by the device need not go back by it.** A node asks a hostPort of this one by the uplink, and is answered
//! by VXLAN, since the answer comes from a pod; and the other end of a pair may still send by VXLAN when this one has found
//! that they are on one link, or begin with it before. So the check of sources is loose there, which takes an address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::config::MTU_MIN_IPV6;
use crate::config::peer::Peer;
use crate::desired::names::{self, OVERLAY_DEVICE};
use crate::desired::node::{NodeState, PeerRoute, of_family};
use crate::desired::object::{Neighbour, Place, Route, route_to};
use crate::mac::MacAddr;

/// VXLAN network identifier, unless another is asked for. Beyond those that flannel (1) and calico (4096 at their own
/// port, 4789) use at the same port.
pub const DEFAULT_ID: u32 = 4096;

/// UDP port, unless another is asked for: Linux' own, older than IANA's 4789.
pub const DEFAULT_PORT: u16 = 8472;

/// The largest network identifier: 24 bits.
pub const MAX_ID: u32 = (1 << 24) - 1;

/// What VXLAN takes of a packet's room besides the outer IP header, in bytes: UDP 8, VXLAN 8, inner Ethernet 14.
const OVERHEAD: u32 = 8 + 8 + 14;

/// How packets to another node's pods travel, as the administrator wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Routing {
    /// As they are. A node that is not on-link is not reached.
    Direct,
    /// By VXLAN, to each node.
    Vxlan,
    /// As they are to a node that is on-link, by VXLAN to one that is not.
    #[default]
    Auto,
}

impl FromStr for Routing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "direct" => Ok(Self::Direct),
            "vxlan" => Ok(Self::Vxlan),
            "auto" => Ok(Self::Auto),
            other => Err(format!("{other:?} is no way of routing; say direct, vxlan or auto")),
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
            Self::Auto => "auto",
        })
    }
}

/// How packets to one node's pods travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As they are, to the node as the next hop.
    Direct,
    /// Inside VXLAN.
    Overlay,
}

/// The device of this node, and whom it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Whose.
    pub network: NetworkName,
    /// VXLAN network identifier.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// This node's end.
    pub local: IpAddr,
    /// Of the device, in bytes.
    pub mtu: u32,
    /// Subnets of this node's own pods.
    pub subnets: Vec<IpNetwork>,
    /// This node's addresses: what its own packets come from.
    pub node_ips: Vec<IpAddr>,
    /// The nodes at the other ends.
    pub peers: Vec<OverlayPeer>,
}

/// A node that is reached by VXLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayPeer {
    /// Its name.
    pub node: String,
    /// Its end, of the family of [`Overlay::local`].
    pub node_ip: IpAddr,
    /// All its addresses: pods reach them by VXLAN too.
    pub node_ips: Vec<IpAddr>,
    /// Its pods.
    pub pod_cidrs: Vec<IpNetwork>,
}

/// The link itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Hardware address.
    pub mac: MacAddr,
    /// In bytes.
    pub mtu: u32,
    /// VXLAN network identifier.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// This end.
    pub local: IpAddr,
    /// An address of its own, where pods have IPv4: a link without any takes by IPv4 only what it would send the answer of
    /// itself, however loose its check of sources is (`__fib_validate_source`, net/ipv4/fib_frontend.c).
    pub address: Option<IpNetwork>,
}

/// Which packets are looked up in the table of nodes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Those from here.
    pub source: IpNetwork,
    /// The table.
    pub table: u32,
}

/// What a peer needs besides its pods' routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLink {
    /// Hardware address of its device: frames to it go to [`OverlayPeer::node_ip`].
    pub mac: MacAddr,
    /// The next hops that are that address.
    pub neighbours: Vec<Neighbour>,
    /// Where pods reach the node itself.
    pub routes: Vec<Route>,
}

/// This end of the tunnels: the node's IPv4 address, or its IPv6 address where it has no other. `None` without any.
///
/// One family for all peers, since a VXLAN device speaks one. That of the inner packets may be another.
pub fn local_end(state: &NodeState) -> Option<IpAddr> {
    of_family(&state.node_ips, true).or_else(|| of_family(&state.node_ips, false))
}

/// How large a packet may be inside, in bytes, where `underlay` may be outside. If pods have IPv6 it is what that needs
/// at least: the node then sends the largest ones in fragments (vxlan_xmit_one, drivers/net/vxlan/vxlan_core.c, lets it).
pub fn inner_mtu(underlay: u32, local: IpAddr, has_ipv6: bool) -> u32 {
    let rest = underlay.saturating_sub(OVERHEAD + if local.is_ipv4() { 20 } else { 40 });
    rest.max(if has_ipv6 { MTU_MIN_IPV6 } else { 0 })
}

/// How large a packet of `inner` bytes is outside, in bytes, to a node with that address.
pub fn outer_length(inner: u32, node: IpAddr) -> u32 {
    inner.saturating_add(OVERHEAD + if node.is_ipv4() { 20 } else { 40 })
}

/// The MTU that new pods must get: that of the uplink, or what is left of it as soon as one node is reached by VXLAN.
/// Older pods are told by ICMP (fragmentation needed, packet too big) on the way to such a node.
pub fn pod_mtu(uplink: u32, local: IpAddr, has_ipv6: bool, routing: Routing, is_one_off_link: bool) -> u32 {
    match routing {
        Routing::Vxlan => inner_mtu(uplink, local, has_ipv6),
        Routing::Auto if is_one_off_link => inner_mtu(uplink, local, has_ipv6),
        Routing::Auto | Routing::Direct => uplink,
    }
}

impl OverlayPeer {
    /// `None` where the node has no address in the family of `local`: no tunnel leads there.
    pub fn new(peer: &Peer, local: IpAddr) -> Option<Self> {
        Some(Self {
            node: peer.node.clone(),
            node_ip: of_family(&peer.node_ips, local.is_ipv4())?,
            node_ips: peer.node_ips.clone(),
            pod_cidrs: peer.pod_cidrs.clone(),
        })
    }

    fn mac(&self) -> MacAddr {
        names::vtep_mac(self.node_ip)
    }

    /// The next hop to `destination`.
    fn label(&self, destination: IpNetwork) -> IpAddr {
        match destination {
            IpNetwork::V4(_) => of_family(&self.node_ips, true).unwrap_or(destination.network()),
            IpNetwork::V6(_) => self.mac().link_local().into(),
        }
    }
}

impl Overlay {
    /// What must be there of the device.
    pub fn device(&self) -> Device {
        let Self { id, port, local, mtu, .. } = *self;
        // The first of the subnet, which no pod gets.
        let first = self.subnets.iter().find(|it| it.is_ipv4() && it.prefix() <= 30).map(IpNetwork::network);
        Device { mac: names::vtep_mac(local), mtu, id, port, local, address: first.map(IpNetwork::from) }
    }

    /// The rules that lead pods' packets to the table of nodes, one for each own subnet; none where no node is in it.
    pub fn rules(&self) -> Vec<Rule> {
        let table = names::nodes_table(&self.network);
        let subnets = self.subnets.iter().filter(|_| !self.peers.is_empty());
        subnets.map(|&source| Rule { source, table }).collect()
    }

    /// What leads to a peer, on the device.
    pub fn peer_link(&self, peer: &OverlayPeer) -> PeerLink {
        let nodes = peer.node_ips.iter().map(|&ip| IpNetwork::from(ip));
        let mut labels: Vec<IpAddr> =
            peer.pod_cidrs.iter().copied().chain(nodes.clone()).map(|it| peer.label(it)).collect();
        labels.sort();
        labels.dedup();
        let neighbour = |address| {
            let (place, link) = (Place::Node, OVERLAY_DEVICE.to_owned());
            Neighbour { place, link, address, mac: peer.mac() }
        };
        let route = |to: IpNetwork| Route {
            table: Some(names::nodes_table(&self.network)),
            ..self.route(to, peer.label(to))
        };
        PeerLink {
            mac: peer.mac(),
            neighbours: labels.into_iter().map(neighbour).collect(),
            routes: nodes.map(route).collect(),
        }
    }

    /// One route for each podCIDR of each peer, whatever the family of the tunnel.
    pub fn pod_routes(&self) -> impl Iterator<Item = PeerRoute> {
        self.peers.iter().flat_map(|peer| {
            peer.pod_cidrs.iter().map(|&to| {
                let route = Route {
                    source: of_family(&self.node_ips, to.is_ipv4()),
                    metric: Some(names::route_metric(&self.network)),
                    ..self.route(to, peer.label(to))
                };
                PeerRoute { peer: peer.node.clone(), route }
            })
        })
    }

    /// Without an MTU: the device's counts, also for what is forwarded. An unlocked one of a route does not
    /// (`ip_dst_mtu_maybe_forward`, include/net/ip.h).
    fn route(&self, destination: IpNetwork, label: IpAddr) -> Route {
        Route {
            device: Some(OVERLAY_DEVICE.into()),
            gateway: Some(label),
            onlink: true,
            ..route_to(destination)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer(node: &str, node_ips: &[&str], pod_cidrs: &[&str]) -> Peer {
        Peer {
            node: node.into(),
            node_ips: node_ips.iter().map(|text| ip(text)).collect(),
            pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn overlay(local: &str, peers: &[Peer]) -> Overlay {
        Overlay {
            network: NetworkName::parse("podnet").unwrap(),
            id: DEFAULT_ID,
            port: DEFAULT_PORT,
            local: ip(local),
            mtu: 1450,
            subnets: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            node_ips: vec![ip("192.168.1.10"), ip("fd01::10")],
            peers: peers.iter().filter_map(|peer| OverlayPeer::new(peer, ip(local))).collect(),
        }
    }

    fn shown<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Vec<String> {
        routes.into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_peer_has_a_route_a_family_and_one_forwarding_entry() {
        let peer = peer("b", &["192.168.2.10", "fd02::10"], &["10.244.2.0/24", "fd00:2::/64"]);
        let overlay = overlay("192.168.1.10", &[peer]);
        let [peer] = overlay.peers.as_slice() else { panic!() };
        let label = names::vtep_mac(ip("192.168.2.10")).link_local();
        let metric = names::route_metric(&overlay.network);
        let routes: Vec<Route> = overlay.pod_routes().map(|it| it.route).collect();
        assert_eq!(
            shown(&routes),
            [
                format!(
                    "10.244.2.0/24 via 192.168.2.10 dev ferrule-vxlan onlink src 192.168.1.10 metric {metric} proto 102"
                ),
                format!(
                    "fd00:2::/64 via {label} dev ferrule-vxlan onlink src fd01::10 metric {metric} proto 102"
                ),
            ]
        );
        let link = overlay.peer_link(peer);
        let table = names::nodes_table(&overlay.network);
        assert_eq!(
            shown(&link.routes),
            [
                format!("192.168.2.10/32 via 192.168.2.10 dev ferrule-vxlan onlink table {table} proto 102"),
                format!("fd02::10/128 via {label} dev ferrule-vxlan onlink table {table} proto 102"),
            ]
        );
        let neighbours: Vec<IpAddr> = link.neighbours.iter().map(|it| it.address).collect();
        assert_eq!(neighbours, [ip("192.168.2.10"), label.into()]);
        assert!(link.neighbours.iter().all(|it| it.mac == link.mac));
    }

    /// Pods of both families over nodes of one.
    #[test]
    fn the_family_inside_is_not_that_outside() {
        let peer = peer("b", &["fd02::10"], &["10.244.2.0/24", "fd00:2::/64"]);
        let overlay = overlay("fd01::10", &[peer]);
        let label = names::vtep_mac(ip("fd02::10")).link_local();
        let link = overlay.peer_link(&overlay.peers[0]);
        let neighbours: Vec<IpAddr> = link.neighbours.iter().map(|it| it.address).collect();
        assert_eq!(neighbours, [ip("10.244.2.0"), label.into()]);
        assert_eq!(overlay.pod_routes().count(), 2);
    }

    #[test]
    fn a_node_without_an_address_of_the_tunnels_family_is_at_no_end() {
        assert_eq!(OverlayPeer::new(&peer("b", &["fd02::10"], &["10.244.2.0/24"]), ip("192.168.1.10")), None);
    }

    #[test]
    fn the_mtu_leaves_room_where_one_node_is_off_link() {
        let (four, six) = (ip("192.168.1.10"), ip("fd01::10"));
        assert_eq!(pod_mtu(1500, four, true, Routing::Auto, false), 1500);
        assert_eq!(pod_mtu(1500, four, true, Routing::Auto, true), 1450);
        assert_eq!(pod_mtu(1500, six, true, Routing::Auto, true), 1430);
        assert_eq!(pod_mtu(1500, four, true, Routing::Vxlan, false), 1450);
        assert_eq!(pod_mtu(9000, four, true, Routing::Direct, true), 9000);
        assert_eq!((inner_mtu(1300, four, false), inner_mtu(1300, four, true)), (1250, 1280));
        assert_eq!(inner_mtu(40, four, false), 0);
    }

    #[test]
    fn routing_is_read_as_it_is_written() {
        for routing in [Routing::Direct, Routing::Vxlan, Routing::Auto] {
            assert_eq!(routing.to_string().parse(), Ok(routing));
        }
        assert!("Auto".parse::<Routing>().is_err_and(|error| error.contains("direct, vxlan or auto")));
    }
}
