//! From a conf and the addresses that were acquired to the description of the attachment.
//!
//! ADD makes it and CHECK compares against it: both build it here, so they cannot disagree.

use super::addresses::Acquired;
use ipnetwork::IpNetwork;

use crate::cni::args::PodName;
use crate::cni::ids::AttachmentKey;
use crate::config::{AddressManagement, Network};
use crate::datapath::node::Uplink;
use crate::desired::attachment::{Attachment, PodAddress, PodRoute};
use crate::desired::names;
use crate::desired::node::NodeState;
use crate::kernel::sysctl;

/// Describes the pod's network. `pod` is whose it is, as ADD was told.
pub fn describe(
    network: &Network,
    key: &AttachmentKey,
    pod: Option<&PodName>,
    uplink: &Uplink,
    acquired: &Acquired,
) -> Attachment {
    Attachment {
        key: key.clone(),
        pod: pod.map(ToString::to_string),
        pod_mac: network.mac.unwrap_or_else(|| names::pod_mac(key)),
        mtu: network.mtu.unwrap_or(uplink.mtu),
        node_has_ipv6: sysctl::has_ipv6(),
        bandwidth: network.bandwidth,
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
        routes: acquired
            .routes
            .iter()
            .map(|route| PodRoute {
                destination: route.dst,
                gateway: route.gw,
                metric: route.priority,
                table: route.table,
                mtu: route.mtu,
                advmss: route.advmss,
            })
            .collect(),
    }
}

/// Describes the node's part of the network, as far as the pod with these addresses needs it.
pub fn describe_node(network: &Network, acquired: &Acquired) -> NodeState {
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
        peers: network.peers.clone(),
    }
}
