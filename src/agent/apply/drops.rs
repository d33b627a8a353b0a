//! What the node has dropped.

use crate::agent::apply::Datapath;
use crate::datapath::drops::{self, Drops};
use crate::datapath::nftables::NftError;

impl Datapath {
    /// Packets that were dropped, by reason.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn drops(&self) -> Result<Drops, NftError> {
        drops::read(&self.nft).await
    }

    /// Whether pods are kept from the cloud's metadata service.
    pub fn blocks_metadata(&self) -> bool {
        self.block_metadata
    }
}
