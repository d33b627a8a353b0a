//! From a conf and the addresses that were allocated to the description of the attachment.
//!
//! ADD makes it and CHECK compares against it: both build it here, so they cannot disagree.

use crate::attachments::claim::Allocation;
use crate::attachments::node::NodeFacts;
use crate::cni::args::PodName;
use crate::cni::ids::AttachmentKey;
use crate::config::{MTU_MIN_IPV6, Network};
use crate::datapath::node::Uplink;
use crate::desired::attachment::{Attachment, PodAddress};
use crate::desired::names;

/// Describes the pod's network. `pod` is whose it is, as ADD was told.
pub fn describe(
    network: &Network,
    key: &AttachmentKey,
    pod: Option<&PodName>,
    facts: &NodeFacts,
    uplink: &Uplink,
    allocation: &Allocation,
) -> Attachment {
    let has_ipv6 = allocation.addresses.iter().any(|it| it.address.is_ipv6());
    // On a smaller link the pod would have no IPv6, not even towards its node. IPv4 is told of the uplink's by ICMP.
    let least = if has_ipv6 { MTU_MIN_IPV6 } else { 0 };
    Attachment {
        key: key.clone(),
        pod: pod.map(ToString::to_string),
        pod_mac: network.mac.unwrap_or_else(|| names::pod_mac(key)),
        mtu: network.mtu.unwrap_or(uplink.mtu.max(least)),
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
