//! A pod's elements where nothing is known of it but the name of its link: its record is lost or damaged.

use std::collections::HashSet;

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::plan::deletions;
use crate::datapath::nftables::{Attempts, NftError, find};
use crate::desired::nftables::element::{Element, HostPort, belongs_to, read_host_port};
use crate::desired::nftables::table::{set, table};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::element::Bytes;

/// Sets whose keys are a link and an address.
const BY_LINK: [&str; 4] = [set::SOURCES4, set::SOURCES6, set::MASQUERADE4, set::MASQUERADE6];

/// Maps whose data are an address and a port.
const BY_TARGET: [&str; 4] = [set::HOSTPORTS4, set::HOSTPORTS6, set::ANY_HOSTPORTS4, set::ANY_HOSTPORTS6];

/// Removes all that a link of `network` has in the table, and the hostPorts that lead to its addresses. Reads the
/// whole table, but only where the link is in it.
///
/// # Errors
/// What the kernel refused. That nothing is there is none.
pub async fn remove_link(nft: &Nfnetlink, network: &NetworkName, host_link: &str) -> Result<(), NftError> {
    let link = Element::new(set::PODS, Bytes::default().link_name(host_link));
    let mut attempts = Attempts::default();
    loop {
        if find(nft, std::slice::from_ref(&link)).await?.iter().all(Option::is_none) {
            return Ok(());
        }
        let elements = elements_of(nft, network, &link).await?;
        match nft.commit(None, &deletions(elements)).await {
            Ok(()) => return Ok(()),
            // Somebody flushed the table in between.
            Err(rejection) if rejection.is_because(KernelError::is_not_found) => attempts.count(rejection)?,
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// What a link of `network` has in the table: whether it is masqueraded, and the hostPorts that lead to it. `None` where
/// the link is not there.
///
/// # Errors
/// What the kernel refused.
pub async fn find_link(
    nft: &Nfnetlink,
    network: &NetworkName,
    host_link: &str,
) -> Result<Option<(bool, Vec<HostPort>)>, NftError> {
    let link = Element::new(set::PODS, Bytes::default().link_name(host_link));
    if find(nft, std::slice::from_ref(&link)).await?.iter().all(Option::is_none) {
        return Ok(None);
    }
    let elements = elements_of(nft, network, &link).await?;
    let is_masqueraded =
        elements.iter().any(|it| [set::MASQUERADE4, set::MASQUERADE6].contains(&it.set.as_str()));
    let mut host_ports: Vec<HostPort> = Vec::new();
    for (port, _) in elements.iter().filter_map(read_host_port) {
        // One of every address is in the map of each family.
        if !host_ports.contains(&port) {
            host_ports.push(port);
        }
    }
    Ok(Some((is_masqueraded, host_ports)))
}

async fn elements_of(
    nft: &Nfnetlink,
    network: &NetworkName,
    link: &Element,
) -> Result<Vec<Element>, NftError> {
    let mut found = vec![link.clone()];
    let mut addresses: HashSet<Vec<u8>> = HashSet::new();
    for set in BY_LINK {
        for element in nft.elements(&table(), set).await? {
            let Some(address) = element.key.0.strip_prefix(link.key.0.as_slice()) else { continue };
            addresses.insert(address.to_owned());
            found.push(element);
        }
    }
    for set in BY_TARGET {
        let elements = nft.elements(&table(), set).await?.into_iter();
        found.extend(elements.filter(|element| {
            belongs_to(element, std::slice::from_ref(network))
                && element.data.as_ref().is_some_and(|data| leads_to(data, &addresses))
        }));
    }
    Ok(found)
}

/// Whether a map's data, an address and a port of four bytes with their padding, lead to one of `addresses`.
fn leads_to(data: &Bytes, addresses: &HashSet<Vec<u8>>) -> bool {
    data.0.len().checked_sub(4).and_then(|end| data.0.get(..end)).is_some_and(|it| addresses.contains(it))
}
