//! Who may send to this node's end of a tunnel.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::compile::{Named, table};
use crate::datapath::nftables::plan::{additions, belongs_to, deletions};
use crate::datapath::nftables::{Attempts, NftError, is_outrun};
use crate::desired::nftables::table::SetName;
use crate::desired::nftables::vxlan::VxlanPeers;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;

/// Makes what the table knows of the network's tunnel what it should be, nothing where there is none; returns whether
/// anything was to be done. Needs the table to stand. As long as nothing changes, its cost does not grow with the
/// nodes.
///
/// # Errors
/// What the kernel refused.
pub async fn ensure_vxlan_peers(
    nft: &Nfnetlink,
    network: &NetworkName,
    tunnel: Option<&VxlanPeers>,
) -> Result<bool, NftError> {
    let elements = tunnel.map(|tunnel| tunnel.elements(network)).unwrap_or_default();
    let wanted: Vec<Named> = elements.iter().map(Named::from).collect();
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await?;
        let mut actual = read(nft, network, SetName::Tunnels).await?;
        // The port's comment tells of all the rest.
        if actual.iter().eq(wanted.first()) {
            return Ok(false);
        }
        for set in [SetName::TunnelEnds4, SetName::TunnelEnds6] {
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

async fn read(nft: &Nfnetlink, network: &NetworkName, set: SetName) -> Result<Vec<Named>, KernelError> {
    let elements = nft.elements(&table(), set.as_str()).await?;
    let own = elements.into_iter().filter(|it| belongs_to(it, std::slice::from_ref(network)));
    Ok(own.map(|element| Named { set, element }).collect())
}
