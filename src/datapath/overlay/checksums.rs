//! Who computes the checksums of what is sent by the overlay's device.
//!
//! The device leaves them to the card, as every link does. Some cards compute a wrong one for what is inside of VXLAN, or
//! at a port that they do not expect; then the other node drops all but ICMP, which has its checksum from its sender
//! (flannel#1279, flannel#2152).

use crate::datapath::error::DatapathError;
use crate::desired::names::OVERLAY_DEVICE;
use crate::desired::object::Place;
use crate::linux::ethtool::Ethtool;

/// Makes the checksums the card's (`is_on`) or the kernel's; returns whether that was otherwise. To be called in the node's
/// namespace, where the device exists.
///
/// # Errors
/// What the kernel refused: it is older than 5.7.
pub async fn keep_checksum_offload(is_on: bool) -> Result<bool, DatapathError> {
    let ethtool = Ethtool::open_here().map_err(|source| DatapathError::Socket { place: "node", source })?;
    let refused = |refusal| DatapathError::Refused { place: Place::Node, refusals: vec![refusal] };
    if ethtool.offloads_checksums(OVERLAY_DEVICE).await.map_err(refused)? == is_on {
        return Ok(false);
    }
    ethtool.set_checksum_offload(OVERLAY_DEVICE, is_on).await.map_err(refused)?;
    Ok(true)
}
