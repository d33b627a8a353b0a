//! Which nodes may send to this node's VXLAN port.

use std::net::IpAddr;

use crate::cni::ids::NetworkName;
use crate::desired::names::stable_hash;
use crate::desired::nftables::element::{Element, Protocol, owner};
use crate::desired::nftables::table::set;
use crate::linux::nft::element::Bytes;

/// This node's VXLAN port, and the nodes that may send to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanPeers {
    port: u16,
    peers: Vec<IpAddr>,
}

impl VxlanPeers {
    /// The port is of UDP. `peers` are addresses of nodes, in any order and however often.
    pub fn new(port: u16, mut peers: Vec<IpAddr>) -> Self {
        peers.sort_unstable();
        peers.dedup();
        Self { port, peers }
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Addresses of the nodes, in order.
    pub fn peers(&self) -> &[IpAddr] {
        &self.peers
    }

    /// The elements. The first is the port's. Its comment holds a hash of all the others, so one look-up tells whether
    /// all are as they should be.
    pub fn elements(&self, network: &NetworkName) -> Vec<Element> {
        let words: Vec<String> = self.peers.iter().map(ToString::to_string).collect();
        let hash = format!("{:016x}", stable_hash(words.iter().map(String::as_str)));
        let element = |set, key, note| Element::new(set, key).with_comment(owner(network, note));
        let port = Bytes::default().protocol(Protocol::Udp.number()).port(self.port);
        let mut elements = vec![element(set::VXLAN_PORTS, port, Some(&hash))];
        elements.extend(self.peers.iter().map(|&peer| {
            let set = if peer.is_ipv4() { set::VXLAN_PEERS4 } else { set::VXLAN_PEERS6 };
            element(set, Bytes::default().address(peer), None)
        }));
        elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::nftables::table::show;

    fn vxlan(peers: &[&str]) -> VxlanPeers {
        VxlanPeers::new(8472, peers.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn the_port_and_each_peer_once_whatever_their_order() {
        let network = NetworkName::parse("podnet").unwrap();
        let elements = vxlan(&["fd00::10", "192.0.2.11", "192.0.2.10", "192.0.2.11"]).elements(&network);
        let shown: Vec<String> = elements.iter().map(show).collect();
        assert_eq!(
            shown,
            [
                "vxlan_ports { udp . 8472 }",
                "vxlan_peers4 { 192.0.2.10 }",
                "vxlan_peers4 { 192.0.2.11 }",
                "vxlan_peers6 { fd00::10 }",
            ]
        );
        assert_eq!(elements, vxlan(&["192.0.2.10", "192.0.2.11", "fd00::10"]).elements(&network));
        let fewer = vxlan(&["192.0.2.10"]).elements(&network);
        assert_ne!(fewer[0].comment, elements[0].comment, "the port's comment tells of the peers");
    }
}
