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
    for ipv4 in [true, false] {
        let ports = UdpPorts::of(elements, ipv4);
        let Some(filter) = ports.filter() else { continue };
        // One list however many ports there are: to list one port, the kernel goes through all flows as well.
        for flow in nft.flows_where(filter, |flow| ports.contain(flow)).await? {
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

/// The UDP hostPorts of a family, each with the addresses of the node that it is for; `None` is any.
struct UdpPorts {
    ipv4: bool,
    ports: HashMap<u16, Vec<Option<IpAddr>>>,
}

impl UdpPorts {
    fn of(elements: &[Element], ipv4: bool) -> Self {
        let mut ports: HashMap<u16, Vec<Option<IpAddr>>> = HashMap::new();
        for (port, pod) in elements.iter().filter_map(read_host_port) {
            if port.protocol == Protocol::Udp && pod.is_ipv4() == ipv4 {
                ports.entry(port.host_port).or_default().push(port.host_ip);
            }
        }
        Self { ipv4, ports }
    }

    /// The narrowest filter that lets all their flows pass.
    fn filter(&self) -> Option<FlowFilter> {
        let (ipv4, protocol) = (self.ipv4, Protocol::Udp.number());
        let mut ports = self.ports.iter();
        match (ports.next(), ports.next()) {
            (None, _) => None,
            (Some((&port, addresses)), None) => {
                let address = addresses.first().copied().flatten().filter(|_| addresses.len() == 1);
                Some(FlowFilter::ToPort { ipv4, protocol, port, address })
            }
            (Some(_), Some(_)) => Some(FlowFilter::Of { ipv4, protocol }),
        }
    }

    fn contain(&self, flow: &Flow) -> bool {
        let addresses = flow.destination_port.and_then(|port| self.ports.get(&port));
        let is_for = |address: &Option<IpAddr>| address.is_none_or(|address| address == flow.destination);
        addresses.is_some_and(|addresses| addresses.iter().any(is_for))
    }
}

async fn is_local(node: &Netlink, address: IpAddr) -> Result<bool, KernelError> {
    Ok(node.route_to(address).await?.is_some_and(|way| way.local))
}
