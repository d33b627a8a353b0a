//! What this node needs and no other node's pods may have, read from its kernel: the networks and addresses of its links,
//! its gateways, the way to the API server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::agent::cluster::reserved::{Holder, Reserved};
use crate::desired::names::OVERLAY_DEVICE;
use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::route::{Family, MAIN_TABLE, RouteFilter, RouteKind};

/// `RTPROT_KERNEL`, `RTPROT_RA` (include/uapi/linux/rtnetlink.h): who makes the routes to a link's own networks. Network
/// managers that make them by themselves say that they are the kernel's.
const LINK_PROTOCOLS: [u8; 2] = [2, 9];

/// Addresses in the world: the way to one of them at least is the way out, whatever a node has of its own or discards.
const ANYWHERE: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)),
];

/// What is known of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// Its addresses, or those that its name leads to.
    pub addresses: Vec<IpAddr>,
    /// The ranges of the cluster's Services.
    pub services: Vec<IpNetwork>,
}

/// Reads it. Asks for no more than what the kernel filters, however many pods and routes there are.
///
/// # Errors
/// The kernel's refusal.
pub async fn read(node: &Netlink, api_server: &ApiServer) -> Result<Reserved, KernelError> {
    let mut reserved = Reserved::default();
    let mut names: HashMap<u32, String> = HashMap::new();
    for address in node.addresses(None).await? {
        let ip = address.network.ip();
        if !is_local(ip) {
            let name = name_of(node, &mut names, address.device).await?;
            // The overlay's is of the node's own pods, and goes with their subnet.
            if name != OVERLAY_DEVICE {
                reserved.add(IpNetwork::from(ip), Holder::Address(name));
            }
        }
    }
    for family in [Family::V4, Family::V6] {
        for protocol in LINK_PROTOCOLS {
            let protocol = Some(protocol);
            let filter = RouteFilter { protocol, table: Some(MAIN_TABLE), ..RouteFilter::all(family) };
            for route in node.routes(filter).await? {
                let is_of_link = route.kind == RouteKind::Unicast && route.gateway.is_none();
                if let Some(device) = route.device.filter(|_| is_of_link && !is_local(route.destination.ip()))
                {
                    let name = name_of(node, &mut names, device).await?;
                    if name != OVERLAY_DEVICE {
                        reserved.add(route.destination, Holder::Link(name));
                    }
                }
            }
        }
    }
    for &address in ANYWHERE.iter().chain(&api_server.addresses) {
        let gateway = node.route_to(address).await?.and_then(|way| way.gateway);
        if let Some(gateway) = gateway.filter(|gateway| !is_local(*gateway)) {
            reserved.add(IpNetwork::from(gateway), Holder::Gateway);
        }
    }
    for &address in api_server.addresses.iter().filter(|address| !is_local(**address)) {
        reserved.add(IpNetwork::from(address), Holder::ApiServer);
    }
    for &network in &api_server.services {
        reserved.add(network, Holder::Services);
    }
    Ok(reserved)
}

/// Whether packets of a family can leave the node at all.
///
/// # Errors
/// The kernel's refusal.
pub async fn has_way_out(node: &Netlink, ipv4: bool) -> Result<bool, KernelError> {
    for &address in ANYWHERE.iter().filter(|address| address.is_ipv4() == ipv4) {
        if node.route_to(address).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn name_of(
    node: &Netlink,
    names: &mut HashMap<u32, String>,
    index: u32,
) -> Result<String, KernelError> {
    if let Some(name) = names.get(&index) {
        return Ok(name.clone());
    }
    let link = node.link(LinkRef::Index(index)).await?;
    let name = link.map_or_else(|| index.to_string(), |link| link.name);
    names.insert(index, name.clone());
    Ok(name)
}

/// Whether it means something on one link or on this node only. No podCIDR may contain such an address anyway.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
