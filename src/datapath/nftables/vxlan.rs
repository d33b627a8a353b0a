//! Which nodes may send to this node's VXLAN port.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::plan::{additions, deletions};
use crate::datapath::nftables::{Attempts, NftError, is_outrun};
use crate::desired::nftables::element::{Element, belongs_to};
use crate::desired::nftables::table::{set, table};
use crate::desired::nftables::vxlan::VxlanPeers;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;

/// Makes the elements of the network's VXLAN port what they should be, none where there is no overlay; returns whether
/// anything was to be done. Needs the table to exist. As long as nothing changes, its cost does not grow with the
/// nodes.
///
/// # Errors
/// What the kernel refused.
pub async fn ensure_vxlan_peers(
    nft: &Nfnetlink,
    network: &NetworkName,
    vxlan: Option<&VxlanPeers>,
) -> Result<bool, NftError> {
    let wanted = vxlan.map(|vxlan| vxlan.elements(network)).unwrap_or_default();
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await?;
        let mut actual = read(nft, network, set::VXLAN_PORTS).await?;
        // The port's comment tells of all the rest.
        if actual.iter().eq(wanted.first()) {
            return Ok(false);
        }
        for set in [set::VXLAN_PEERS4, set::VXLAN_PEERS6] {
            actual.extend(read(nft, network, set).await?);
        }
        let mut changes = deletions(actual.iter().filter(|it| !wanted.contains(it)).cloned());
        changes.extend(additions(wanted.iter().filter(|it| !actual.contains(it)).cloned()));
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

async fn read(nft: &Nfnetlink, network: &NetworkName, set: &str) -> Result<Vec<Element>, KernelError> {
    let elements = nft.elements(&table(), set).await?;
    Ok(elements.into_iter().filter(|it| belongs_to(it, std::slice::from_ref(network))).collect())
}
