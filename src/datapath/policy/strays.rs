//! Elements of pods that should not be as they are: of one pod compared with what it should have, and those of links that
//! are gone.

use crate::datapath::nftables::{Attempts, NftError};
use crate::datapath::policy::bindings::{Attached, Bindings, elements, is_passing, link_of, places};
use crate::datapath::policy::layout::table;
use crate::datapath::policy::skeleton;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::element::{Bytes, Element};
use crate::policy::names::{FROM_POD, TO_POD};

/// What of a pod's elements is wrong, and what is missing. A look-up does not tell of elements that are about to expire.
///
/// # Errors
/// What the kernel refused. That there is no table is none.
pub async fn corrections(
    nft: &Nfnetlink,
    attached: &Attached,
    bindings: &Bindings,
) -> Result<(Vec<Element>, Vec<Element>), KernelError> {
    let places = places(attached);
    let found: Vec<Element> = nft.find_elements(&table(), &places).await?.into_iter().flatten().collect();
    let wanted = elements(attached, bindings);
    let is_among = |all: &[Element], it: &Element| {
        all.iter().any(|one| (&one.set, &one.key, &one.verdict) == (&it.set, &it.key, &it.verdict))
    };
    let wrong = found.iter().filter(|it| !is_among(&wanted, it)).cloned().collect();
    let missing = wanted.iter().filter(|it| !is_among(&found, it)).cloned().collect();
    Ok((wrong, missing))
}

/// An element as `nft get element inet ferrule-policy` takes it.
pub fn show(element: &Element) -> String {
    let set = skeleton::sets().into_iter().find(|set| set.name == element.set);
    set.map_or_else(|| element.set.clone(), |set| set.show(element))
}

/// Removes what a link has in the table, of which nothing but its name is known. One datagram where that is nothing.
///
/// # Errors
/// What the kernel refused. That nothing is there is none.
pub async fn remove_link(nft: &Nfnetlink, link: &str) -> Result<(), NftError> {
    let key = Bytes::default().link_name(link);
    let leading = [TO_POD, FROM_POD].map(|map| Element::new(map, key.clone()));
    if nft.find_elements(&table(), &leading).await?.iter().all(Option::is_none) {
        return Ok(());
    }
    sweep(nft, |name| name == link).await
}

/// Removes the elements of links that are gone, as `is_gone` says: it is asked after the elements were read, and what it
/// says is committed only if nobody changed anything since. So a link that comes again under its name keeps what its ADD
/// has given it. Nothing to do where there is no table.
///
/// # Errors
/// What the kernel refused.
pub async fn sweep(nft: &Nfnetlink, is_gone: impl Fn(&str) -> bool) -> Result<(), NftError> {
    if !nft.has_table(&table()).await? {
        return Ok(());
    }
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await?;
        let mut changes = Vec::new();
        for set in skeleton::sets() {
            let mut stale = nft.elements(&table(), &set.name).await?;
            stale.retain(|element| is_gone(&link_of(&element.key)));
            changes.extend((!stale.is_empty()).then_some(Change::DeleteElements(table(), stale)));
        }
        if changes.is_empty() {
            return Ok(());
        }
        match nft.commit(Some(generation), &changes).await {
            Ok(()) => return Ok(()),
            Err(rejection) if is_passing(&rejection) => attempts.count(rejection)?,
            Err(rejection) => return Err(rejection.into()),
        }
    }
}
