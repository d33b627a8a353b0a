//! Who computes the overlay's checksums.

use crate::agent::apply::Datapath;
use crate::datapath::error::DatapathError;
use crate::datapath::overlay;

impl Datapath {
    /// Makes it what was asked for, where there is an overlay; `Some` if it was otherwise: whether it is the card now.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn keep_checksum_offload(&self) -> Result<Option<bool>, DatapathError> {
        let Some(is_on) = self.checksum_offload.filter(|_| self.has_overlay()) else { return Ok(None) };
        Ok(overlay::keep_checksum_offload(is_on).await?.then_some(is_on))
    }
}
