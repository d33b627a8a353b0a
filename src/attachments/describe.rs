//! From a conf and the addresses that were acquired to the description of the attachment.
//!
//! ADD makes it and CHECK compares against it: both build it here, so they cannot disagree.

use crate::attachments::claim::Allocation;
use ipnetwork::IpNetwork;

use crate::cni::args::PodName;
use crate::cni::ids::AttachmentKey;
use crate::config::{AddressManagement, Network};
use crate::datapath::node::Uplink;
use crate::desired::attachment::{Attachment, PodAddress};
use crate::desired::names;
use crate::desired::nftables::element::NoMasquerade;
use crate::desired::node::NodeState;
use crate::linux::sysctl;

/// Describes the pod's network. `pod` is whose it is, as ADD was told.
pub fn describe(
    network: &Network,
    key: &AttachmentKey,
    pod: Option<&PodName>,
    uplink: &Uplink,
    acquired: &Allocation,
) -> Attachment {
    Attachment {
        key: key.clone(),
        pod: pod.map(ToString::to_string),
        pod_mac: network.mac.unwrap_or_else(|| names::pod_mac(key)),
        mtu: network.mtu.unwrap_or(uplink.mtu),
        node_has_ipv6: sysctl::has_ipv6(),
        bandwidth: network.bandwidth,
        host_ports: network.host_ports.clone(),
        sysctls: network.sysctls.clone(),
        addresses: acquired
            .addresses
            .iter()
            .map(|it| PodAddress {
                address: it.address,
                subnet: it.subnet,
                named_gateway: it.named_gateway,
                node_address: uplink.address_for(it.address),
            })
            .collect(),
        routes: acquired.routes.clone(),
    }
}

/// Describes where the network's pods keep their source address, as far as a conf tells: among all pods and nodes that
/// it knows, and where it says so.
pub fn describe_inside(network: &Network, uplink: &Uplink) -> NoMasquerade {
    let ranges = network.range_sets().iter().flat_map(|set| set.ranges());
    let mut networks: Vec<IpNetwork> = ranges.map(|range| range.subnet()).collect();
    for peer in network.peers.listed() {
        networks.extend(&peer.pod_cidrs);
        networks.extend(peer.node_ips.iter().map(|&address| IpNetwork::from(address)));
    }
    let own = network.node_ips.iter().copied().chain(uplink.ipv4).chain(uplink.ipv6);
    networks.extend(own.map(IpNetwork::from));
    networks.extend(&network.masquerade.exempt);
    NoMasquerade { network: network.name.clone(), networks }
}

/// Describes the node's part of the network, as far as the pod with these addresses needs it.
pub fn describe_node(network: &Network, acquired: &Allocation) -> NodeState {
    let (subnets, ipv4, ipv6) = match &network.address_management {
        AddressManagement::Ranges(sets) => {
            let subnets: Vec<_> =
                sets.iter().flat_map(|set| set.ranges()).map(|range| range.subnet()).collect();
            let ipv4 = subnets.iter().any(IpNetwork::is_ipv4);
            let ipv6 = subnets.iter().any(IpNetwork::is_ipv6) && sysctl::has_ipv6();
            (subnets, ipv4, ipv6)
        }
        // Which families another plugin hands out is not known before it is asked.
        AddressManagement::Delegate(_) => (Vec::new(), true, sysctl::has_ipv6()),
    };
    NodeState {
        network: network.name.clone(),
        subnets,
        ipv4,
        ipv6,
        gateways: acquired.addresses.iter().filter_map(|it| it.named_gateway).collect(),
        node_ips: network.node_ips.clone(),
        peers: network.peers.listed().to_vec(),
    }
}
