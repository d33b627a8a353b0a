//! Where the pods of a network keep their source address.
//!
//! There may be thousands of such places, one a node. So an ADD looks at two of them, which say by a number in their
//! comments what all the others are (see [`InsideNetwork::elements`]).

use super::compile::{Named, table};
use super::plan::{additions, deletions};
use super::{Attempts, NftError, find, is_outrun};
use crate::cni::ids::NetworkName;
use crate::desired::names::link_group;
use crate::desired::nft::element::InsideNetwork;
use crate::desired::nft::table::SetName;
use crate::kernel::nfnetlink::Nfnetlink;

/// Makes the places where `inside`'s network keeps its sources what they should be; returns whether anything was to
/// be done. Needs the table to stand.
///
/// # Errors
/// What the kernel refused.
pub async fn ensure_inside(nft: &Nfnetlink, inside: &InsideNetwork) -> Result<bool, NftError> {
    let wanted: Vec<Named> = inside.elements().iter().map(Named::from).collect();
    let first = |set| wanted.iter().find(|it| it.set == set).cloned();
    let marks: Vec<Named> = [SetName::Inside4, SetName::Inside6].into_iter().filter_map(first).collect();
    let found = find(nft, &marks).await?;
    let stands = |(wanted, found): (&Named, &Option<_>)| found.as_ref() == Some(&wanted.element);
    if !marks.is_empty() && marks.iter().zip(&found).all(stands) {
        return Ok(false);
    }
    replace(nft, inside.group(), &wanted).await.map(|()| true)
}

/// Removes what a network has here. For one without pods: any that it still had would be masqueraded everywhere.
///
/// # Errors
/// What the kernel refused. That nothing is there is none.
pub async fn remove_inside(nft: &Nfnetlink, network: &NetworkName) -> Result<(), NftError> {
    replace(nft, link_group(network), &[]).await
}

async fn replace(nft: &Nfnetlink, group: u32, wanted: &[Named]) -> Result<(), NftError> {
    let group = group.to_be_bytes();
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await?;
        let mut actual = Vec::new();
        for set in [SetName::Inside4, SetName::Inside6] {
            let elements = nft.elements(&table(), set.as_str()).await?;
            let own = elements.into_iter().filter(|element| element.key.0.starts_with(&group));
            actual.extend(own.map(|element| Named { set, element }));
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
