//! What a node needs besides its pods: forwarding, the catch-all of its own subnets, the routes to peers.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::config::peer::Peer;
use crate::config::{AddressManagement, Network};
use crate::desired::attachment::{LOCAL_TABLE, covers};
use crate::desired::names;
use crate::desired::object::{Address, Place, Route, Sysctl, route_to};
use crate::desired::overlay::{Overlay, OverlayPeer};
use crate::linux::route::{MAIN_TABLE, RouteKind};
use crate::linux::rule::{Packets, REFUSED, Rule};

/// Where clouds answer a node with its credentials: AWS, Google, Azure, Oracle, OpenStack and others; AWS and Google by
/// IPv6. At the first of them some clouds have their DNS as well, so only this port is refused.
pub const METADATA: [(IpAddr, u16); 3] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 80),
    (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), 80),
];

/// The largest metric: every other route to the same subnet comes first, so that a node whose pods live
/// in the subnet of its own LAN goes on reaching that LAN.
const CATCH_ALL_METRIC: u32 = u32::MAX;

/// The part of a node's network that belongs to one ferrule network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Whose.
    pub network: NetworkName,
    /// Subnets that the node's pods take their addresses from; none where another plugin chooses them.
    pub subnets: Vec<IpNetwork>,
    /// Subnets of addresses that another plugin gave: pods of this node have some, others may be elsewhere.
    pub delegated: Vec<IpNetwork>,
    /// Whether pods have IPv4.
    pub ipv4: bool,
    /// Whether pods have IPv6.
    pub ipv6: bool,
    /// Next hops of pods that the conf gives a name to. The node answers for them.
    pub gateways: Vec<IpAddr>,
    /// This node's own addresses, where the conf names them; at most one a family.
    pub node_ips: Vec<IpAddr>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Whether pods are kept from the cloud's metadata service.
    pub block_metadata: bool,
}

/// A peer's route, or why it cannot have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRoute {
    /// The peer's node name.
    pub peer: String,
    /// The route.
    pub route: Route,
}

impl NodeState {
    /// What a conf says of the node. Without gateways: the node answers for those of the addresses that it gives.
    pub fn of(network: &Network, has_ipv6: bool) -> Self {
        let ranges = network.range_sets().iter().flat_map(|set| set.ranges());
        let subnets: Vec<IpNetwork> = ranges.map(|range| range.subnet()).collect();
        let (ipv4, ipv6) = match network.address_management {
            AddressManagement::Ranges(_) => {
                (subnets.iter().any(IpNetwork::is_ipv4), subnets.iter().any(IpNetwork::is_ipv6))
            }
            // Which families another plugin hands out is not known before it is asked.
            AddressManagement::Delegate(_) => (true, true),
        };
        Self {
            network: network.name.clone(),
            subnets,
            delegated: Vec::new(),
            ipv4,
            ipv6: ipv6 && has_ipv6,
            gateways: Vec::new(),
            node_ips: network.node_ips.clone(),
            peers: network.peers.listed().to_vec(),
            block_metadata: network.block_metadata,
        }
    }

    /// The sysctls without which nothing is forwarded. A pure list: whether they differ, and what an uplink
    /// that lives on router advertisements needs first, is for the datapath to find out.
    pub fn forwarding(&self) -> Vec<Sysctl> {
        let sysctl = |path: &[&str]| Sysctl {
            place: Place::Node,
            path: path.iter().map(|&part| part.to_owned()).collect(),
            value: "1".into(),
        };
        let mut sysctls = Vec::new();
        if self.ipv4 {
            sysctls.push(sysctl(&["net", "ipv4", "ip_forward"]));
        }
        if self.ipv6 {
            sysctls.push(sysctl(&["net", "ipv6", "conf", "all", "forwarding"]));
        }
        sysctls
    }

    /// The routes that stand as long as ferrule serves the node: [`NodeState::catch_alls`] and one for each gateway.
    pub fn standing_routes(&self) -> Vec<Route> {
        self.catch_alls().chain(self.gateway_routes()).collect()
    }

    /// A gateway that has a name is expected to answer. A route says that it is here; an address would say so too,
    /// but on which link? On that of a pod, the kernel's loose source check (`rp_filter` 2) would take any source
    /// from the pod, which it does not on a link without addresses (__fib_validate_source, net/ipv4/fib_frontend.c).
    fn gateway_routes(&self) -> impl Iterator<Item = Route> {
        self.gateways.iter().map(|&gateway| Route {
            kind: RouteKind::Local,
            device: Some("lo".into()),
            table: Some(LOCAL_TABLE),
            ..route_to(IpNetwork::from(gateway))
        })
    }

    /// Rules of policy routing by which the node looks up its own pods in the main table, whatever rules others have: those
    /// of a node with several uplinks lead what comes from one of its addresses to a table that knows nothing of pods.
    ///
    /// Only routes to single addresses count, as pods have them, and `unreachable` ones. So where the pods' subnet is part
    /// of the node's own LAN, others' rules go on deciding by which link the rest of that is reached.
    pub fn pod_rules(&self) -> Vec<Rule> {
        let has_family = |subnet: &&IpNetwork| if subnet.is_ipv4() { self.ipv4 } else { self.ipv6 };
        let mut rules: Vec<Rule> = Vec::new();
        // A rule for a single address would have to go with its pod, and each packet passes all of them.
        let delegated = self.delegated.iter().filter(|subnet| !is_single_address(subnet));
        for &subnet in self.subnets.iter().chain(delegated).filter(has_family) {
            let rule = Rule {
                packets: Packets::To(subnet),
                table: MAIN_TABLE,
                priority: names::POD_RULE_PRIORITY,
                protocol: names::ROUTE_PROTOCOL,
                suppress: Some(if subnet.is_ipv4() { 31 } else { 127 }),
            };
            let refusals =
                METADATA.iter().filter(|(to, _)| self.block_metadata && to.is_ipv4() == subnet.is_ipv4());
            let refusals = refusals.map(|&(to, port)| Rule {
                packets: Packets::Tcp { from: subnet, to, port },
                table: REFUSED,
                suppress: None,
                ..rule
            });
            for rule in std::iter::once(rule).chain(refusals) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules
    }

    /// Of rules that are there, those that keep this network's pods from the metadata service, and that is not asked for.
    pub fn stale_refusals(&self, there: Vec<Rule>) -> Vec<Rule> {
        let wanted = self.pod_rules();
        let is_own = |rule: &Rule| match rule.packets {
            Packets::Tcp { from, .. } => self.subnets.contains(&from) || self.delegated.contains(&from),
            Packets::From(_) | Packets::To(_) => false,
        };
        there.into_iter().filter(|rule| is_own(rule) && !wanted.contains(rule)).collect()
    }

    /// IPv6 gateways as addresses of `lo` besides: the kernel takes only a link's address for a source (`src` of a
    /// route), and a node without any other must have one to speak to its pods from.
    pub fn standing_addresses(&self) -> Vec<Address> {
        let on_lo = |&gateway: &IpAddr| Address::at_once("lo".into(), IpNetwork::from(gateway));
        self.gateways.iter().filter(|gateway| gateway.is_ipv6()).map(on_lo).collect()
    }

    /// One `unreachable` route for each own subnet: a packet to an address that no pod has is answered,
    /// instead of bouncing between this node and its default gateway until its time to live is over
    /// (projectcalico/canal#137).
    fn catch_alls(&self) -> impl Iterator<Item = Route> {
        let catch_all = |&subnet: &IpNetwork| Route {
            kind: RouteKind::Unreachable,
            metric: Some(CATCH_ALL_METRIC),
            ..route_to(subnet)
        };
        // A host route alone in its subnet is the pod's own.
        self.subnets.iter().filter(|subnet| !is_single_address(subnet)).map(catch_all)
    }

    /// One route for each podCIDR of each peer, through the peer's address of the same family.
    ///
    /// None for this node itself. A podCIDR wider than an own subnet gets its route: the own subnet's routes
    /// are longer and win.
    pub fn peer_routes(&self) -> Vec<PeerRoute> {
        self.hops().map(|hop| self.peer_route(&hop)).collect()
    }

    /// The same, but by the overlay to the peers' pods that it leads to: of each family by itself.
    pub fn peer_routes_with(&self, overlay: &Overlay) -> Vec<PeerRoute> {
        let of_peer = |peer: &'_ OverlayPeer| -> Vec<(String, bool)> {
            peer.pod_cidrs.iter().map(|cidr| (peer.node.clone(), cidr.is_ipv4())).collect()
        };
        let inside: HashSet<(String, bool)> = overlay.peers.iter().flat_map(of_peer).collect();
        let is_inside = |hop: &Hop<'_>| inside.contains(&(hop.peer.node.clone(), hop.destination.is_ipv4()));
        let direct = self.hops().filter(|hop| !is_inside(hop));
        direct.map(|hop| self.peer_route(&hop)).chain(overlay.pod_routes()).collect()
    }

    /// Name and next hop of each of [`NodeState::peer_routes`]. Makes no route.
    pub fn next_hops(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.hops().map(|hop| (hop.peer.node.as_str(), hop.next_hop))
    }

    /// Those of [`NodeState::peer_routes`] at the given places, in their order. Makes no other.
    pub fn peer_routes_at(&self, places: &[usize]) -> Vec<PeerRoute> {
        let picked = self.hops().enumerate().filter(|(place, _)| places.contains(place));
        picked.map(|(_, hop)| self.peer_route(&hop)).collect()
    }

    fn hops(&self) -> impl Iterator<Item = Hop<'_>> {
        self.other_nodes().flat_map(|peer| {
            peer.pod_cidrs.iter().filter_map(|&destination| {
                let next_hop = of_family(&peer.node_ips, destination.is_ipv4())?;
                Some(Hop { peer, destination, next_hop })
            })
        })
    }

    /// The peers less this node itself, so that all nodes can have the same list.
    ///
    /// This node is the peer with an address of ours, or with a podCIDR within an own subnet: a route for
    /// that would send away packets to addresses that this node gives to its own pods.
    pub fn other_nodes(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| {
            let is_own = |&cidr: &IpNetwork| self.subnets.iter().any(|&own| covers(own, cidr));
            !peer.pod_cidrs.iter().any(is_own) && !peer.node_ips.iter().any(|ip| self.node_ips.contains(ip))
        })
    }

    fn peer_route(&self, hop: &Hop<'_>) -> PeerRoute {
        let route = Route {
            source: of_family(&self.node_ips, hop.destination.is_ipv4()),
            metric: Some(names::route_metric(&self.network)),
            gateway: Some(hop.next_hop),
            ..route_to(hop.destination)
        };
        PeerRoute { peer: hop.peer.node.clone(), route }
    }
}

/// What tells one route to a peer from another.
struct Hop<'a> {
    peer: &'a Peer,
    destination: IpNetwork,
    next_hop: IpAddr,
}

pub(super) fn of_family(addresses: &[IpAddr], ipv4: bool) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == ipv4)
}

fn is_single_address(subnet: &IpNetwork) -> bool {
    subnet.prefix() == if subnet.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(peers: Vec<Peer>) -> NodeState {
        NodeState {
            block_metadata: false,
            network: NetworkName::parse("podnet").unwrap(),
            subnets: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            delegated: vec![],
            ipv4: true,
            ipv6: true,
            gateways: vec!["10.244.1.1".parse().unwrap()],
            node_ips: vec!["192.168.1.10".parse().unwrap()],
            peers,
        }
    }

    fn peer(node: &str, pod_cidrs: &[&str], node_ips: &[&str]) -> Peer {
        Peer {
            node: node.into(),
            pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            node_ips: node_ips.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn each_pod_cidr_is_routed_through_the_address_of_its_family() {
        let routes = state(vec![peer("b", &["fd00:2::/64", "10.244.2.0/24"], &["192.168.1.11", "fd00::11"])]);
        let shown: Vec<String> = routes.peer_routes().iter().map(|it| it.route.to_string()).collect();
        let metric = names::route_metric(&routes.network);
        assert_eq!(
            shown,
            [
                format!("fd00:2::/64 via fd00::11 metric {metric} proto 102"),
                format!("10.244.2.0/24 via 192.168.1.11 src 192.168.1.10 metric {metric} proto 102"),
            ]
        );
    }

    #[test]
    fn this_node_in_the_list_makes_no_route() {
        let base = state(vec![peer("b", &["10.244.2.0/24", "fd00:2::/64"], &["192.168.1.11", "fd00::11"])]);
        let mut with_self = base.clone();
        with_self.peers.push(peer("a", &["10.244.1.0/24"], &["192.168.1.10"]));
        assert_eq!(with_self.peer_routes(), base.peer_routes());
        assert_eq!(base.peer_routes_at(&[1]), base.peer_routes()[1..]);
    }

    #[test]
    fn a_node_that_lists_itself_does_not_send_its_own_pods_away() {
        let routes = state(vec![
            peer("a", &["10.244.1.0/24"], &["192.168.1.10"]),
            peer("typo", &["10.244.1.128/25"], &["192.168.1.12"]),
            peer("b", &["10.244.2.0/24"], &["192.168.1.11"]),
            peer("aggregate", &["10.244.0.0/16"], &["192.168.1.1"]),
        ]);
        let peers: Vec<String> = routes.peer_routes().into_iter().map(|it| it.peer).collect();
        assert_eq!(peers, ["b", "aggregate"]);
    }

    #[test]
    fn each_subnet_has_one_rule_that_looks_for_pods_alone() {
        let mut node = state(vec![]);
        node.subnets.push("10.244.1.0/24".parse().unwrap());
        node.delegated = vec!["10.9.0.0/16".parse().unwrap(), "10.9.0.7/32".parse().unwrap()];
        let shown: Vec<String> = node.pod_rules().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "to 10.244.1.0/24 lookup 254 suppress_prefixlength 31 priority 8 proto 102",
                "to fd00:1::/64 lookup 254 suppress_prefixlength 127 priority 8 proto 102",
                "to 10.9.0.0/16 lookup 254 suppress_prefixlength 31 priority 8 proto 102",
            ]
        );
        node.ipv6 = false;
        assert_eq!(node.pod_rules().len(), 2, "a kernel without IPv6 has no rules of it");
    }

    #[test]
    fn free_addresses_are_unreachable_and_the_gateway_is_local() {
        let shown: Vec<String> = state(vec![]).standing_routes().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "unreachable 10.244.1.0/24 metric 4294967295 proto 102",
                "unreachable fd00:1::/64 metric 4294967295 proto 102",
                "local 10.244.1.1/32 dev lo table 255 proto 102"
            ]
        );
    }
}
