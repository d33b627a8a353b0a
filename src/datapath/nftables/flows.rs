//! Flows that keep to what was before: the kernel looks at the table for the first packet of a flow only.
//!
//! A client that sends by UDP again and again from one port has one flow that never ends. If it began before the
//! hostPort was there it goes to the node itself for ever, and if the pod behind it is replaced, to nobody
//! (plugins#123, kubernetes#66651).

use std::collections::HashMap;
use std::net::IpAddr;

use crate::datapath::nftables::NftError;
use crate::desired::nftables::element::{Element, Protocol, read_host_port};
use crate::linux::conntrack::{Flow, FlowFilter};
use crate::linux::error::KernelError;
use crate::linux::netlink::Netlink;
use crate::linux::nfnetlink::Nfnetlink;

/// Has the flows of the UDP hostPorts among `elements` forgotten; returns how many there were. For an ADD, after its
/// elements were added, and for a DEL, after they were removed.
///
/// Only flows to this node: one that a pod has with the same port of somebody else goes on. A flow of TCP or SCTP ends
/// by itself with its connection.
///
/// # Errors
/// What the kernel refused.
pub async fn forget_redirected(
    nft: &Nfnetlink,
    node: &Netlink,
    elements: &[Element],
) -> Result<usize, NftError> {
    let mut stale: Vec<Flow> = Vec::new();
    let mut local = HashMap::new();
    for filter in elements.iter().filter_map(udp_port) {
        for flow in nft.flows(filter).await? {
            let is_local = match local.get(&flow.destination) {
                Some(known) => *known,
                None => is_local(node, flow.destination).await?,
            };
            local.insert(flow.destination, is_local);
            if is_local {
                stale.push(flow);
            }
        }
    }
    Ok(nft.forget_flows(&stale).await?)
}

/// Has all flows forgotten that an address began or answers: it is about to be another pod's, which must not get what
/// was meant for its predecessor. Returns how many there were.
///
/// # Errors
/// What the kernel refused.
pub async fn forget_address(nft: &Nfnetlink, address: IpAddr) -> Result<usize, NftError> {
    let mut flows = nft.flows(FlowFilter::From(address)).await?;
    flows.extend(nft.flows(FlowFilter::AnsweredBy(address)).await?);
    Ok(nft.forget_flows(&flows).await?)
}

/// The flows of an element, if it is a UDP hostPort.
fn udp_port(element: &Element) -> Option<FlowFilter> {
    let (port, pod) = read_host_port(element).filter(|(port, _)| port.protocol == Protocol::Udp)?;
    let protocol = Protocol::Udp.number();
    Some(FlowFilter::ToPort { ipv4: pod.is_ipv4(), protocol, port: port.host_port, address: port.host_ip })
}

async fn is_local(node: &Netlink, address: IpAddr) -> Result<bool, KernelError> {
    Ok(node.route_to(address).await?.is_some_and(|way| way.local))
}
