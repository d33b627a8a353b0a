//! From a conf and the addresses that were allocated to the description of the attachment.
//!
//! ADD makes it and CHECK compares against it: both build it here, so they cannot disagree.

use ipnetwork::IpNetwork;

use crate::attachments::claim::Allocation;
use crate::attachments::node::NodeFacts;
use crate::cni::args::PodName;
use crate::cni::ids::AttachmentKey;
use crate::config::Network;
use crate::datapath::node::Uplink;
use crate::desired::attachment::{Attachment, PodAddress};
use crate::desired::names;
use crate::desired::nftables::element::InsideNetwork;

/// Describes the pod's network. `pod` is whose it is, as ADD was told.
pub fn describe(
    network: &Network,
    key: &AttachmentKey,
    pod: Option<&PodName>,
    facts: &NodeFacts,
    uplink: &Uplink,
    allocation: &Allocation,
) -> Attachment {
    Attachment {
        key: key.clone(),
        pod: pod.map(ToString::to_string),
        pod_mac: network.mac.unwrap_or_else(|| names::pod_mac(key)),
        mtu: network.mtu.unwrap_or(uplink.mtu),
        node_has_ipv6: facts.has_ipv6,
        bandwidth: network.bandwidth,
        host_ports: network.host_ports.clone(),
        sysctls: network.sysctls.clone(),
        addresses: allocation
            .addresses
            .iter()
            .map(|it| PodAddress {
                address: it.address,
                subnet: it.subnet,
                named_gateway: it.named_gateway,
                node_address: uplink.address_for(it.address),
            })
            .collect(),
        routes: allocation.routes.clone(),
    }
}

/// Describes where the network's pods keep their source address, as far as a conf tells: among all pods and nodes that
/// it knows, and where it says so.
pub fn describe_no_masquerade(network: &Network, uplink: &Uplink) -> InsideNetwork {
    let ranges = network.range_sets().iter().flat_map(|set| set.ranges());
    let mut networks: Vec<IpNetwork> = ranges.map(|range| range.subnet()).collect();
    for peer in network.peers.listed() {
        networks.extend(&peer.pod_cidrs);
        networks.extend(peer.node_ips.iter().map(|&address| IpNetwork::from(address)));
    }
    let own = network.node_ips.iter().copied().chain(uplink.ipv4).chain(uplink.ipv6);
    networks.extend(own.map(IpNetwork::from));
    networks.extend(&network.masquerade.exempt);
    InsideNetwork { network: network.name.clone(), networks }
}
