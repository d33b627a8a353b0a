//! Which nodes may send to this node's VXLAN port.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::NftError;
use crate::datapath::nftables::replace::{is_of, read, replace};
use crate::desired::nftables::table::set;
use crate::desired::nftables::vxlan::VxlanPeers;
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
    // The port's comment tells of all the rest.
    if read(nft, &[set::VXLAN_PORTS], is_of(network)).await?.iter().eq(wanted.first()) {
        return Ok(false);
    }
    replace(nft, &[set::VXLAN_PORTS, set::VXLAN_PEERS4, set::VXLAN_PEERS6], is_of(network), &wanted).await
}
