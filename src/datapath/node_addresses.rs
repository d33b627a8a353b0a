//! Which addresses of the node a client would call the node's: asks the kernel. How they are judged is in
//! [`crate::desired::nftables::node_addresses`].

use std::collections::HashMap;
use std::net::IpAddr;

use futures_util::future::join_all;

use crate::datapath::node::{LOOPBACK, Uplink};
use crate::desired::nftables::node_addresses::{NodeAddresses, is_uplink};
use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;

/// Finds the node's addresses: those that the conf names (`named`), wherever they are; and all of each uplink. An uplink
/// is a link by which the kernel has a way out, or one that has a network of its own and is none for the node itself.
///
/// Lists addresses, which links of pods have none of, and looks at those links alone that have some: the cost does not
/// depend on pods.
///
/// # Errors
/// What the kernel refused.
pub async fn find_node_addresses(
    node: &Netlink,
    uplink: &Uplink,
    named: &[IpAddr],
) -> Result<NodeAddresses, KernelError> {
    let mut of_links: HashMap<u32, (Vec<IpAddr>, bool)> = HashMap::new();
    for address in node.addresses(None).await? {
        let (addresses, has_network) = of_links.entry(address.device).or_default();
        let ip = address.network.ip();
        // All links have the same link-local network. Who is asked by such an address knows by which link.
        if !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            *has_network |= address.network.prefix() < if ip.is_ipv4() { 32 } else { 128 };
            addresses.push(ip);
        }
    }
    let looks =
        of_links.into_iter().map(async |(index, found)| (node.link(LinkRef::Index(index)).await, found));
    let (mut links, mut addresses) = (Vec::new(), named.to_vec());
    addresses.extend(uplink.ipv4.into_iter().chain(uplink.ipv6));
    for (link, (own, has_network)) in join_all(looks).await {
        // It may have gone since.
        let Some(link) = link?.filter(|link| link.index != LOOPBACK) else { continue };
        if uplink.devices.contains(&link.index) || is_uplink(&link, has_network) {
            links.push(link.name);
            addresses.extend(own);
        }
    }
    Ok(NodeAddresses::new(links, addresses))
}
