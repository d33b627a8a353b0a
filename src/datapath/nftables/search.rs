//! A pod's elements where nothing is known of it but the name of its link: its record is lost or damaged.

use std::collections::HashSet;

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::compile::{Named, table};
use crate::datapath::nftables::plan::deletions;
use crate::datapath::nftables::{Attempts, NftError, find};
use crate::desired::nftables::element::{Element, Owner, Value};
use crate::desired::nftables::table::SetName;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::element::Bytes;

/// Sets whose keys are a link and an address.
const BY_LINK: [SetName; 4] =
    [SetName::Sources4, SetName::Sources6, SetName::Masquerade4, SetName::Masquerade6];

/// Maps whose data are an address and a port.
const BY_TARGET: [SetName; 4] =
    [SetName::HostPorts4, SetName::HostPorts6, SetName::AnyHostPorts4, SetName::AnyHostPorts6];

/// Removes all that a link of `network` has in the table, and the hostPorts that lead to its addresses. Reads the
/// whole table, but only where it knows the link.
///
/// # Errors
/// What the kernel refused. That nothing is there is none.
pub async fn remove_link(nft: &Nfnetlink, network: &NetworkName, host_link: &str) -> Result<(), NftError> {
    let link = Named::from(&Element {
        set: SetName::Pods,
        key: vec![Value::Link(host_link.to_owned())],
        target: None,
        owner: Owner { network: network.clone(), note: None },
    });
    let mut attempts = Attempts::default();
    loop {
        if find(nft, std::slice::from_ref(&link)).await?.iter().all(Option::is_none) {
            return Ok(());
        }
        let doomed = elements_of(nft, network, &link).await?;
        match nft.commit(None, &deletions(doomed)).await {
            Ok(()) => return Ok(()),
            // Somebody flushed the table in between.
            Err(rejection) if rejection.is_because(KernelError::is_not_found) => attempts.count(rejection)?,
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

async fn elements_of(nft: &Nfnetlink, network: &NetworkName, link: &Named) -> Result<Vec<Named>, NftError> {
    let name = &link.element.key.0;
    let mut doomed = vec![link.clone()];
    let mut addresses: HashSet<Vec<u8>> = HashSet::new();
    for set in BY_LINK {
        for element in nft.elements(&table(), set.as_str()).await? {
            let Some(address) = element.key.0.strip_prefix(name.as_slice()) else { continue };
            addresses.insert(address.to_owned());
            doomed.push(Named { set, element });
        }
    }
    for set in BY_TARGET {
        for element in nft.elements(&table(), set.as_str()).await? {
            let is_own = element.comment.as_ref().is_some_and(|comment| Owner::names(comment, network));
            if is_own && element.data.as_ref().is_some_and(|data| leads_to(data, &addresses)) {
                doomed.push(Named { set, element });
            }
        }
    }
    Ok(doomed)
}

/// Whether a map's data, an address and a port of four bytes with their padding, lead to one of `addresses`.
fn leads_to(data: &Bytes, addresses: &HashSet<Vec<u8>>) -> bool {
    data.0.len().checked_sub(4).and_then(|end| data.0.get(..end)).is_some_and(|it| addresses.contains(it))
}
