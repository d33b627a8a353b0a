//! Makes elements that no pod has, but a network as a whole, what they should be.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::plan::{additions, deletions};
use crate::datapath::nftables::{Attempts, NftError, is_outrun};
use crate::desired::nftables::element::{Element, belongs_to};
use crate::desired::nftables::table::table;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;

/// Makes those elements of `sets` that `is_own` tells what `wanted` says; returns whether anything was to be done. Needs
/// the table to be there.
///
/// # Errors
/// What the kernel refused.
pub(super) async fn replace(
    nft: &Nfnetlink,
    sets: &[&str],
    is_own: impl Fn(&Element) -> bool,
    wanted: &[Element],
) -> Result<bool, NftError> {
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await?;
        let actual = read(nft, sets, &is_own).await?;
        let stale = actual.iter().filter(|it| !wanted.contains(it)).cloned();
        let missing = wanted.iter().filter(|it| !actual.contains(it)).cloned();
        let mut changes = deletions(stale);
        changes.extend(additions(missing));
        if changes.is_empty() {
            return Ok(false);
        }
        match nft.commit(Some(generation), &changes).await {
            Ok(()) => return Ok(true),
            // Without a table there is nothing to find however often one looks.
            Err(rejection) if is_outrun(&rejection) && nft.has_table(&table()).await? => {
                attempts.count(rejection)?;
            }
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// The elements of `sets` that `is_own` tells.
///
/// # Errors
/// What the kernel refused.
pub(super) async fn read(
    nft: &Nfnetlink,
    sets: &[&str],
    is_own: impl Fn(&Element) -> bool,
) -> Result<Vec<Element>, KernelError> {
    let mut found = Vec::new();
    for set in sets {
        found.extend(nft.elements(&table(), set).await?.into_iter().filter(|it| is_own(it)));
    }
    Ok(found)
}

/// Whether an element is of `network`, by its comment.
pub(super) fn is_of(network: &NetworkName) -> impl Fn(&Element) -> bool {
    move |element| belongs_to(element, std::slice::from_ref(network))
}
