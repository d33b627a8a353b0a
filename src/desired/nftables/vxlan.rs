//! Who may send to this node's end of a tunnel.
//!
//! What comes out of VXLAN is taken for what it says it is: no host link tells whose it is. So the port must hear nodes
//! alone. A pod that could send to it could send to every pod of the node, as anyone.

use std::net::IpAddr;

use crate::cni::ids::NetworkName;
use crate::desired::names::stable_hash;
use crate::desired::nftables::element::{Element, Owner, Protocol, Value};
use crate::desired::nftables::rule::{Action, Field, Match};
use crate::desired::nftables::table::{KUBE_PROXY_MARK, Parts, SetName};

/// This node's end of tunnels to other nodes, and who is at the other ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanPeers {
    port: u16,
    peers: Vec<IpAddr>,
}

impl VxlanPeers {
    /// The port is of UDP. `ends` are addresses of nodes, in any order and however often.
    pub fn new(port: u16, mut peers: Vec<IpAddr>) -> Self {
        peers.sort_unstable();
        peers.dedup();
        Self { port, peers }
    }

    /// Where it ends.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who is at the other ends, in order.
    pub fn peers(&self) -> &[IpAddr] {
        &self.peers
    }

    /// Its elements. The first is the port's. Its comment holds a number that is another when any of the others is, so
    /// one look-up tells whether all are as they should be.
    pub fn elements(&self, network: &NetworkName) -> Vec<Element> {
        let words: Vec<String> = self.peers.iter().map(ToString::to_string).collect();
        let mark = format!("{:016x}", stable_hash(words.iter().map(String::as_str)));
        let element = |set, key, note| {
            let owner = Owner { network: network.clone(), note };
            Element { set, key, target: None, owner }
        };
        let port = vec![Value::Protocol(Protocol::Udp), Value::Port(self.port)];
        let mut elements = vec![element(SetName::Tunnels, port, Some(mark))];
        elements.extend(self.peers.iter().map(|&end| {
            let set = if end.is_ipv4() { SetName::TunnelEnds4 } else { SetName::TunnelEnds6 };
            element(set, vec![Value::Address(end)], None)
        }));
        elements
    }
}

/// Whether a packet is for a port where a tunnel ends, be it here or at another node.
pub(super) fn is_to_tunnel() -> Match {
    Match::In(vec![Field::Protocol, Field::DestinationPort], SetName::Tunnels)
}

/// What is for this node's end.
pub(super) fn into_tunnel() -> Vec<Parts> {
    let from = |source, set| vec![Match::In(vec![source], set)];
    vec![
        (from(Field::Source4, SetName::TunnelEnds4), Action::Accept, "from a node"),
        (from(Field::Source6, SetName::TunnelEnds6), Action::Accept, "from a node"),
        (vec![], Action::Drop, "a tunnel is between nodes"),
    ]
}

/// What a pod sends on to such a port. At the other end its address says that it is no node; but one that is masqueraded
/// would have this node's. Pods that are nodes of a cluster of their own go on.
pub(super) fn from_pod() -> Vec<Parts> {
    let inside = |destination, set| vec![Match::In(vec![Field::InGroup, destination], set)];
    vec![
        (vec![Match::In(vec![Field::OutLink], SetName::Pods)], Action::Accept, "to a pod of this node"),
        (vec![Match::Marked(KUBE_PROXY_MARK)], Action::Drop, "a pod does not speak as its node"),
        (inside(Field::Destination4, SetName::Inside4), Action::Accept, "with its own address"),
        (inside(Field::Destination6, SetName::Inside6), Action::Accept, "with its own address"),
        (vec![], Action::Drop, "a pod does not speak as its node"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(ends: &[&str]) -> VxlanPeers {
        VxlanPeers::new(8472, ends.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_port_and_each_end_once_whatever_their_order() {
        let network = NetworkName::parse("podnet").unwrap();
        let elements = tunnel(&["fd00::10", "192.0.2.11", "192.0.2.10", "192.0.2.11"]).elements(&network);
        let shown: Vec<String> = elements.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "vxlan_ports { udp . 8472 }",
                "vxlan_peers4 { 192.0.2.10 }",
                "vxlan_peers4 { 192.0.2.11 }",
                "vxlan_peers6 { fd00::10 }",
            ]
        );
        assert_eq!(elements, tunnel(&["192.0.2.10", "192.0.2.11", "fd00::10"]).elements(&network));
        let fewer = tunnel(&["192.0.2.10"]).elements(&network);
        assert_ne!(fewer[0].owner, elements[0].owner, "the port's comment tells of the ends");
    }
}
