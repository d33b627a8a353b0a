//! A pod's elements where nothing is known of it but the name of its link: its record is lost or damaged.

use std::collections::HashSet;

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::plan::deletions;
use crate::datapath::nftables::{Attempts, NftError, find};
use crate::desired::nftables::element::{Element, belongs_to};
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
