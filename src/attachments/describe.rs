//! From a conf and the addresses that were allocated to the description of the attachment.
//!
//! ADD makes it and CHECK compares against it: both build it here, so they cannot disagree. So does whoever makes the node's
//! side of it again, from its record.

use std::net::IpAddr;

use crate::attachments::allocation::Allocation;
use crate::attachments::node::NodeFacts;
use crate::cni::args::PodName;
use crate::cni::ids::AttachmentKey;
use crate::config::{MTU_MIN_IPV6, Network};
use crate::datapath::node::Uplink;
use crate::desired::attachment::{Attachment, PodAddress};
use crate::desired::names;
use crate::store::Record;

/// Describes the pod's network as far as a record tells: all that is on the node's side, and the addresses in the pod. The
/// MTU is that of the host link, which the record does not say.
///
/// `named_gateway` as the conf has it for an address.
pub fn describe_recorded(
    record: &Record,
    facts: &NodeFacts,
    uplink: &Uplink,
    named_gateway: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Attachment {
    let key = record.key();
    Attachment {
        pod: record.pod.as_ref().map(PodName::with_uid),
        pod_mac: record.mac.unwrap_or_else(|| names::pod_mac(&key)),
        mtu: uplink.mtu,
        node_has_ipv6: facts.has_ipv6,
        bandwidth: record.bandwidth,
        host_ports: record.host_ports.clone(),
        sysctls: Vec::new(),
        addresses: record
            .addresses
            .iter()
            .map(|&address| PodAddress {
                address,
                subnet: None,
                named_gateway: named_gateway(address),
                node_address: uplink.address_for(address),
            })
            .collect(),
        routes: Vec::new(),
        key,
    }
}

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
        pod: pod.map(PodName::with_uid),
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
