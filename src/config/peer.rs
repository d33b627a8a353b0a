//! The other nodes of a cluster: whose pods are where, or that the agent knows.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::range::{RangeSet, parse_subnet};
use crate::cni::json::Node;
use crate::cni::problem::quote;
use crate::cni::route::parse_address;

/// `peers`: who looks after the routes to other nodes, and after where pods keep their source address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// ferrule's ADD, for the nodes of this list.
    Listed(Vec<Peer>),
    /// The node agent (`"peers": "agent"`), which follows the cluster. ADD leaves both alone.
    KeptByAgent,
}

impl Peers {
    /// The nodes of the list; none where the agent knows them.
    pub fn listed(&self) -> &[Peer] {
        match self {
            Self::Listed(peers) => peers,
            Self::KeptByAgent => &[],
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// What `peers` says where the agent keeps them.
const AGENT: &str = "agent";

/// Another node. Each of its pod CIDRs has a node address of its family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for messages.
    pub node: String,
    /// `podCIDRs`: where its pods are. No two peers have the same.
    pub pod_cidrs: Vec<IpNetwork>,
    /// `nodeIPs`: where it is reached itself.
    pub node_ips: Vec<IpAddr>,
}

impl Peer {
    /// The next hop to a pod CIDR: the first node address of its family. There is one for each of
    /// [`Peer::pod_cidrs`].
    pub fn next_hop(&self, pod_cidr: IpNetwork) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| ip.is_ipv4() == pod_cidr.is_ipv4())
    }
}

/// Reads `peers`. `own` are the node's own range sets, which are no peer's.
pub(super) fn read_peers(root: &Node<'_, '_>, own: &[RangeSet]) -> Peers {
    let Some(member) = root.member("peers") else { return Peers::default() };
    if member.value().is_string() {
        if member.value().as_str() != Some(AGENT) {
            member.refuse(format!(
                "is {}; write a list of nodes, or {AGENT:?}",
                quote(&member.value().to_string())
            ));
        }
        return Peers::KeptByAgent;
    }
    let Some(list) = root.list("peers") else { return Peers::default() };
    // First owner of each CIDR, as indices: a path is made up only for a message.
    let mut owners: HashMap<IpNetwork, (usize, usize)> = HashMap::new();
    let mut peers = Vec::new();
    for (peer_at, node) in list.items().enumerate() {
        let Some(peer) = read_peer(&node, |cidr_at, cidr| {
            let first = *owners.entry(cidr).or_insert((peer_at, cidr_at));
            if first != (peer_at, cidr_at) {
                return Err(format!(
                    "{cidr} is given at peers[{}].podCIDRs[{}] as well; pods of one subnet are on one node",
                    first.0, first.1
                ));
            }
            refuse_own(cidr, own)
        }) else {
            continue;
        };
        peers.push(peer);
    }
    Peers::Listed(peers)
}

/// A route to a peer inside the node's own subnet would lead its own pods' packets away. The very subnet is not
/// refused: so this node stands in a list that all nodes can share, and it gets no route.
fn refuse_own(cidr: IpNetwork, own: &[RangeSet]) -> Result<(), String> {
    let subnets = own.iter().flat_map(RangeSet::ranges).map(super::range::Range::subnet);
    let mut around = subnets.filter(|subnet| {
        subnet.is_ipv4() == cidr.is_ipv4() && subnet.prefix() < cidr.prefix() && subnet.contains(cidr.ip())
    });
    match around.next() {
        Some(subnet) => {
            Err(format!("{cidr} lies in {subnet}, this node's own subnet; list the other nodes only"))
        }
        None => Ok(()),
    }
}

fn read_peer(
    node: &Node<'_, '_>,
    mut judge: impl FnMut(usize, IpNetwork) -> Result<(), String>,
) -> Option<Peer> {
    if !node.is_object() {
        return None;
    }
    let name = node.text("node");
    if node.member("node").is_none() {
        node.refuse_member("node", "is missing; name the node, as messages about its routes do");
    }
    let node_ips = read_node_addresses(node);
    let mut peer = Peer { node: name.unwrap_or_default().to_owned(), pod_cidrs: Vec::new(), node_ips };
    let Some(cidrs) = node.list("podCIDRs") else {
        if node.member("podCIDRs").is_none() {
            node.refuse_member("podCIDRs", "is missing; give the subnets of the node's pods");
        }
        return None;
    };
    for (at, item) in cidrs.items().enumerate() {
        let Some(cidr) = item.parse(parse_subnet) else { continue };
        if cidr.prefix() == 0 {
            item.refuse(format!("{cidr} is every address there is; give the subnet of the node's pods"));
        } else if peer.next_hop(cidr).is_none() {
            let family = if cidr.is_ipv4() { "IPv4" } else { "IPv6" };
            item.refuse(format!("{cidr} cannot be reached: nodeIPs has no {family} address; add the node's"));
        } else if let Err(why) = judge(at, cidr) {
            item.refuse(why);
        } else {
            peer.pod_cidrs.push(cidr);
        }
    }
    Some(peer)
}

/// Reads `nodeIPs` of `parent`: addresses at which a node is reached over the network.
pub(super) fn read_node_addresses(parent: &Node<'_, '_>) -> Vec<IpAddr> {
    let Some(list) = parent.list("nodeIPs") else { return Vec::new() };
    list.items().filter_map(|item| item.parse(parse_node_address)).collect()
}

/// The addresses of this node itself, from the conf's own `nodeIPs`: one of a family at most.
pub(super) fn read_own_addresses(root: &Node<'_, '_>) -> Vec<IpAddr> {
    let addresses = read_node_addresses(root);
    for (family, is_ipv4) in [("IPv4", true), ("IPv6", false)] {
        if addresses.iter().filter(|address| address.is_ipv4() == is_ipv4).count() > 1 {
            let text = format!("has several {family} addresses; give the one that other nodes and pods see");
            root.refuse_member("nodeIPs", text);
        }
    }
    addresses
}

fn parse_node_address(text: &str) -> Result<IpAddr, String> {
    let address = parse_address(text)?;
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let what = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if is_link_local {
        "a link-local address"
    } else {
        return Ok(address);
    };
    Err(format!("{address} is {what}; give the address by which other nodes reach this one"))
}
