//! Where the pods of a network keep their source address.
//!
//! There may be thousands of such places, one a node. So an ADD looks at two of them, which say by a number in their
//! comments what all the others are (see [`NoMasquerade::elements`]). That they are there at all tells that the table
//! has the network: one that was flushed and made again by another network has not.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::replace::replace;
use crate::datapath::nftables::{NftError, find};
use crate::desired::names::link_group;
use crate::desired::nftables::element::{Element, NoMasquerade};
use crate::desired::nftables::table::set;
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
    replace_group(nft, wanted.group(), &wanted.elements()).await
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
    replace_group(nft, link_group(network), &[]).await.map(drop)
}

async fn replace_group(nft: &Nfnetlink, group: u32, wanted: &[Element]) -> Result<bool, NftError> {
    let group = group.to_be_bytes();
    let sets = [set::NO_MASQUERADE4, set::NO_MASQUERADE6];
    replace(nft, &sets, |element| element.key.0.starts_with(&group), wanted).await
}
