//! Where the pods of a network keep their source address.
//!
//! There may be thousands of such places, one a node. So an ADD looks at two of them, which say by a number in their
//! comments what all the others are (see [`NoMasquerade::elements`]). That they are there at all tells that the table
//! has the network: one that was flushed and made again by another network has not.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::plan::{additions, deletions};
use crate::datapath::nftables::{Attempts, NftError, find, is_outrun};
use crate::desired::names::link_group;
use crate::desired::nftables::element::{Element, NoMasquerade};
use crate::desired::nftables::table::{set, table};
use crate::linux::nfnetlink::Nfnetlink;

/// Makes the places where `wanted`'s network keeps its sources what they should be; returns whether anything was to
/// be done. Needs the table to be there.
///
/// # Errors
/// What the kernel refused.
pub async fn ensure_no_masquerade(nft: &Nfnetlink, wanted: &NoMasquerade) -> Result<bool, NftError> {
    if no_masquerade_matches(nft, wanted).await? {
        return Ok(false);
    }
    replace(nft, wanted.group(), &wanted.elements()).await.map(|()| true)
}

/// Whether the places where `wanted`'s network keeps its sources are what they should be, by their marks.
///
/// # Errors
/// What the kernel refused.
pub async fn no_masquerade_matches(nft: &Nfnetlink, wanted: &NoMasquerade) -> Result<bool, NftError> {
    let marks = wanted.marks();
    let found = find(nft, &marks).await?;
    Ok(marks.iter().zip(&found).all(|(wanted, found)| found.as_ref() == Some(wanted)))
}

/// Removes what a network has here. For one without pods: any that it still had would be masqueraded everywhere.
///
/// # Errors
/// What the kernel refused. That nothing is there is none.
pub async fn remove_no_masquerade(nft: &Nfnetlink, network: &NetworkName) -> Result<(), NftError> {
    replace(nft, link_group(network), &[]).await
}

async fn replace(nft: &Nfnetlink, group: u32, wanted: &[Element]) -> Result<(), NftError> {
    let group = group.to_be_bytes();
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await?;
        let mut actual = Vec::new();
        for set in [set::NO_MASQUERADE4, set::NO_MASQUERADE6] {
            let elements = nft.elements(&table(), set).await?;
            actual.extend(elements.into_iter().filter(|element| element.key.0.starts_with(&group)));
        }
        let stale = actual.iter().filter(|it| !wanted.contains(it)).cloned();
        let missing = wanted.iter().filter(|it| !actual.contains(it)).cloned();
        let mut changes = deletions(stale);
        changes.extend(additions(missing));
        match nft.commit(Some(generation), &changes).await {
            Ok(()) => return Ok(()),
            // Without a table there is nothing to find however often one looks.
            Err(rejection) if is_outrun(&rejection) && nft.has_table(&table()).await? => {
                attempts.count(rejection)?;
            }
            Err(rejection) => return Err(rejection.into()),
        }
    }
}
