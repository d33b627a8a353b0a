//! Which addresses a client would call the node's: hostPorts answer on these.
//!
//! "Local" says less. A node may have addresses of Services (kube-proxy in IPVS mode), of a resolver for its pods, of
//! virtual machines and of other networks' gateways on links of its own. What is sent to those is for whoever put them
//! there.

use std::net::IpAddr;

use crate::cni::ids::NetworkName;
use crate::desired::names::{OVERLAY_DEVICE, is_node_link};
use crate::desired::nftables::element::{Element, owner};
use crate::desired::nftables::table::set;
use crate::linux::link::Link;
use crate::linux::nft::element::Bytes;

/// Kinds of links that have networks on the node itself. One that leads out all the same (a bridge with the node's
/// network card in it) is known by a route, or by `nodeIPs`.
const INNER_KINDS: [&str; 3] = ["bridge", "dummy", "openvswitch"];

/// The links by which a node is reached, and its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    links: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl NodeAddresses {
    /// In any order, and however often.
    pub fn new(mut links: Vec<String>, mut addresses: Vec<IpAddr>) -> Self {
        links.sort_unstable();
        links.dedup();
        addresses.sort_unstable();
        addresses.dedup();
        Self { links, addresses }
    }

    /// Names of the links, in order.
    pub fn links(&self) -> &[String] {
        &self.links
    }

    /// The addresses, in order.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The elements.
    pub fn elements(&self, network: &NetworkName) -> Vec<Element> {
        let element = |set, key| Element::new(set, key).with_comment(owner(network, None));
        let links = self.links.iter().map(|name| element(set::UPLINKS, Bytes::default().link_name(name)));
        let addresses = self.addresses.iter().map(|&address| {
            let set = if address.is_ipv4() { set::NODE_ADDRESSES4 } else { set::NODE_ADDRESSES6 };
            element(set, Bytes::default().address(address))
        });
        links.chain(addresses).collect()
    }
}

/// Whether others reach the node by this link, for all that is known of it alone: it has a network of its own, which is
/// more than a single address, and is none that has one on the node itself.
pub fn is_uplink(link: &Link, has_network: bool) -> bool {
    let is_ours = is_node_link(&link.name) || link.name == OVERLAY_DEVICE;
    let is_inner = link.kind.as_deref().is_some_and(|kind| INNER_KINDS.contains(&kind));
    has_network && !is_ours && !is_inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::nftables::table::show;

    #[test]
    fn each_link_and_address_is_an_element_of_its_set() {
        let network = NetworkName::parse("podnet").unwrap();
        let addresses = ["fd00::10", "192.0.2.10", "fd00::10"].map(|text| text.parse().unwrap());
        let node = NodeAddresses::new(vec!["eth1".into(), "eth0".into(), "eth1".into()], addresses.to_vec());
        let shown: Vec<String> = node.elements(&network).iter().map(show).collect();
        assert_eq!(
            shown,
            [
                "uplinks { \"eth0\" }",
                "uplinks { \"eth1\" }",
                "node_addresses4 { 192.0.2.10 }",
                "node_addresses6 { fd00::10 }"
            ]
        );
    }

    #[test]
    fn an_uplink_has_a_network_that_is_not_on_the_node_itself() {
        let link = |name: &str, kind: Option<&str>| Link {
            index: 2,
            name: name.into(),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            alias: None,
            group: 0,
            kind: kind.map(Into::into),
            peer_index: None,
            peer_netns_id: None,
        };
        for (name, kind) in
            [("eth0", None), ("bond0", Some("bond")), ("eth0.5", Some("vlan")), ("wg0", Some("wireguard"))]
        {
            assert!(is_uplink(&link(name, kind), true), "{name}");
            assert!(!is_uplink(&link(name, kind), false), "{name}, with a single address");
        }
        for (name, kind) in [
            ("kube-ipvs0", Some("dummy")),
            ("virbr0", Some("bridge")),
            ("antrea-gw0", Some("openvswitch")),
            ("ferrule-vxlan", Some("vxlan")),
            ("veth0123456789a", Some("veth")),
        ] {
            assert!(!is_uplink(&link(name, kind), true), "{name}");
        }
    }
}
