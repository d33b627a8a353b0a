//! The desired state of this node, computed from all Nodes. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::agent::cluster::index::Index;
use crate::cni::ids::NetworkName;
use crate::config::peer::Peer;
use crate::desired::attachment::covers;
use crate::desired::nftables::element::NoMasquerade;
use crate::desired::nftables::vxlan::VxlanPeers;
use crate::desired::node::NodeState;

/// What this node's own Node says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnNode {
    /// The subnets of its pods.
    pub pod_cidrs: Vec<IpNetwork>,
    /// The address of each family that other nodes and pods see.
    pub node_ips: Vec<IpAddr>,
}

/// The desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// This node.
    pub own: OwnNode,
    /// The other nodes that get routes, sorted by name.
    pub peers: Vec<Peer>,
    /// Destinations that are not masqueraded: pods and nodes of the whole cluster.
    pub no_masquerade: Vec<IpNetwork>,
}

impl OwnNode {
    /// This node, as the index knows it; `None` while it has no podCIDR, or no address of a podCIDR's family.
    pub fn of(index: &Index) -> Option<Self> {
        let info = index.own()?;
        let reachable = |cidr: &IpNetwork| info.address_for(cidr).is_some();
        let pod_cidrs: Vec<IpNetwork> = index.own_pod_cidrs().into_iter().filter(reachable).collect();
        (!pod_cidrs.is_empty()).then(|| Self { pod_cidrs, node_ips: info.main_addresses() })
    }
}

impl OwnNode {
    /// A peer without its pods of families that this node has no address of; `None` if nothing is left.
    fn reachable(&self, mut peer: Peer) -> Option<Peer> {
        let has = |is_ipv4| self.node_ips.iter().any(|address| address.is_ipv4() == is_ipv4);
        peer.pod_cidrs.retain(|cidr| has(cidr.is_ipv4()));
        (!peer.pod_cidrs.is_empty()).then_some(peer)
    }
}

impl Desired {
    /// The desired state for these Nodes.
    pub fn of(index: &Index, own: OwnNode) -> Self {
        let peers = index.others().filter_map(|info| own.reachable(index.assess(&info.name).peer?)).collect();
        Self { own, peers, no_masquerade: no_masquerade(index) }
    }

    /// Updates the named peers, and returns them as they were and as they are now.
    pub fn update(&mut self, index: &Index, names: &BTreeSet<String>) -> (Vec<Peer>, Vec<Peer>) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for name in names {
            let peer = index.assess(name).peer.and_then(|peer| self.own.reachable(peer));
            after.extend(peer.clone());
            match (self.peers.binary_search_by(|known| known.node.cmp(name)), peer) {
                (Ok(place), Some(peer)) => before.push(std::mem::replace(&mut self.peers[place], peer)),
                (Ok(place), None) => before.push(self.peers.remove(place)),
                (Err(place), Some(peer)) => self.peers.insert(place, peer),
                (Err(_), None) => {}
            }
        }
        self.no_masquerade = no_masquerade(index);
        (before, after)
    }

    /// Number of desired routes to other nodes.
    pub fn routes(&self) -> usize {
        self.peers.iter().map(|peer| peer.pod_cidrs.len()).sum()
    }

    /// The node's state, as the datapath takes it.
    pub fn node_state(&self, network: &NetworkName) -> NodeState {
        self.state_with(network, self.peers.clone())
    }

    /// The same with other peers.
    pub fn state_with(&self, network: &NetworkName, peers: Vec<Peer>) -> NodeState {
        NodeState {
            block_metadata: false,
            network: network.clone(),
            subnets: self.own.pod_cidrs.clone(),
            delegated: Vec::new(),
            ipv4: self.own.pod_cidrs.iter().any(IpNetwork::is_ipv4),
            ipv6: self.own.pod_cidrs.iter().any(IpNetwork::is_ipv6),
            gateways: Vec::new(),
            node_ips: self.own.node_ips.clone(),
            peers,
        }
    }

    /// Destinations that are not masqueraded, with those that the administrator exempts.
    pub fn no_masquerade(&self, network: &NetworkName, exempt: &[IpNetwork]) -> NoMasquerade {
        let networks = self.no_masquerade.iter().chain(exempt).copied().collect();
        NoMasquerade { network: network.clone(), networks }
    }

    /// The nodes that may send to the overlay's port: this one, and every one that has routes.
    pub fn tunnel(&self, port: u16) -> VxlanPeers {
        let peers = self.peers.iter().flat_map(|peer| &peer.node_ips);
        VxlanPeers::new(port, self.own.node_ips.iter().chain(peers).copied().collect())
    }
}

/// PodCIDRs and addresses of every node, including those that have no route, but for podCIDRs that are refused.
fn no_masquerade(index: &Index) -> Vec<IpNetwork> {
    let mut all: Vec<IpNetwork> = index.accepted_pod_cidrs().collect();
    for info in index.nodes() {
        all.extend(info.node_ips.iter().map(|&address| IpNetwork::from(address)));
    }
    aggregate(all)
}

/// The same addresses in as few networks as possible: two halves become one, and what lies in another is left out.
/// Controllers assign podCIDRs in sequence, so those of thousands of nodes become a few.
fn aggregate(mut networks: Vec<IpNetwork>) -> Vec<IpNetwork> {
    networks.sort_unstable_by_key(|network| (network.network(), network.prefix()));
    let mut kept: Vec<IpNetwork> = Vec::new();
    for mut network in networks {
        if kept.last().is_some_and(|last| covers(*last, network)) {
            continue;
        }
        while let Some(whole) = kept.last().and_then(|last| whole_of(*last, network)) {
            kept.pop();
            network = whole;
        }
        kept.push(network);
    }
    kept
}

/// The network whose lower and upper half the two are, if they are.
fn whole_of(lower: IpNetwork, upper: IpNetwork) -> Option<IpNetwork> {
    if lower.prefix() != upper.prefix() || lower.is_ipv4() != upper.is_ipv4() || lower == upper {
        return None;
    }
    let whole = IpNetwork::new(lower.network(), lower.prefix().checked_sub(1)?).ok()?;
    let is_aligned = whole.network() == lower.network();
    (is_aligned && whole.contains(upper.network())).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cluster::index::NodeEvent;
    use crate::agent::k8s::node_info::{NodeInfo, RawNode};

    fn node(name: &str, pod_cidr: &str, internal_ips: &[&str]) -> NodeInfo {
        NodeInfo::read(RawNode {
            name: name.to_owned(),
            pod_cidrs: vec![pod_cidr.to_owned()],
            internal_ips: internal_ips.iter().map(|&text| text.to_owned()).collect(),
            ..RawNode::default()
        })
    }

    fn index() -> Index {
        let mut index = Index::new("b");
        for info in [
            node("a", "10.244.1.0/24", &["172.18.0.2"]),
            node("b", "10.244.2.0/24", &["172.18.0.3", "172.19.0.3"]),
            node("c", "fd00:3::/64", &["172.18.0.4"]),
        ] {
            index.apply(NodeEvent::Changed(info));
        }
        index
    }

    #[test]
    fn peers_are_those_that_can_have_routes_and_inside_is_everybody() {
        let index = index();
        let desired = Desired::of(&index, OwnNode::of(&index).unwrap());
        assert_eq!(desired.own.node_ips, ["172.18.0.3".parse::<IpAddr>().unwrap()]);
        let peers: Vec<&str> = desired.peers.iter().map(|peer| peer.node.as_str()).collect();
        assert_eq!(peers, ["a"]);
        let inside: Vec<String> = desired.no_masquerade.iter().map(ToString::to_string).collect();
        assert_eq!(
            inside,
            [
                "10.244.1.0/24",
                "10.244.2.0/24",
                "172.18.0.2/31",
                "172.18.0.4/32",
                "172.19.0.3/32",
                "fd00:3::/64"
            ]
        );
    }

    #[test]
    fn networks_are_aggregated_to_as_few_as_possible() {
        let aggregated = |texts: &[&str]| -> Vec<String> {
            let networks = texts.iter().map(|text| text.parse().unwrap()).collect();
            aggregate(networks).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            aggregated(&["10.0.3.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.0.0/24", "10.0.5.0/24"]),
            ["10.0.0.0/22", "10.0.5.0/24"]
        );
        // Neighbours that are no halves of one network.
        assert_eq!(aggregated(&["10.0.1.0/24", "10.0.2.0/24"]), ["10.0.1.0/24", "10.0.2.0/24"]);
        assert_eq!(aggregated(&["10.0.0.0/8", "10.3.0.0/16", "10.0.0.0/8", "11.0.0.0/8"]), ["10.0.0.0/7"]);
        assert_eq!(
            aggregated(&["fd00::/65", "fd00:0:0:0:8000::/65", "1.2.3.4/32"]),
            ["1.2.3.4/32", "fd00::/64"]
        );
        assert_eq!(aggregated(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn an_update_of_some_is_the_same_as_beginning_anew() {
        let mut index = index();
        let own = OwnNode::of(&index).unwrap();
        let mut desired = Desired::of(&index, own.clone());
        let mut names = BTreeSet::new();
        for event in [
            NodeEvent::Changed(node("c", "10.244.3.0/24", &["172.18.0.4"])),
            NodeEvent::Changed(node("aa", "10.244.4.0/24", &["172.18.0.5"])),
            NodeEvent::Gone("a".to_owned()),
        ] {
            names.extend(index.apply(event).peers);
        }
        let (before, after) = desired.update(&index, &names);
        assert_eq!(desired, Desired::of(&index, own));
        assert_eq!(before.iter().map(|peer| peer.node.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(after.iter().map(|peer| peer.node.as_str()).collect::<Vec<_>>(), ["aa", "c"]);
    }

    #[test]
    fn a_node_without_an_address_for_its_pods_has_no_part_yet() {
        let mut index = Index::new("c");
        index.apply(NodeEvent::Changed(node("c", "fd00:3::/64", &["172.18.0.4"])));
        assert_eq!(OwnNode::of(&index), None);
    }
}
