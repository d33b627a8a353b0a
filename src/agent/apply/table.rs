//! The nftables table of pods.

use crate::agent::apply::Datapath;
use crate::agent::cluster::desired_state::Desired;
use crate::attachments::{LOCK_DEADLINE, pod_rules};
use crate::cni::error::CniError;
use crate::datapath::nftables::{self, Rebuilt};
use crate::datapath::node_addresses::find_node_addresses;
use crate::desired::nftables::element::NoMasquerade;
use crate::desired::nftables::node_addresses::NodeAddresses;
use crate::desired::nftables::vxlan::VxlanPeers;
use crate::store::Store;

impl Datapath {
    /// Sets the nftables table to what records and Nodes ask for. With `whole`, each element is compared; else only
    /// whether the table exists and has the Nodes. `None` if nothing had to be changed.
    ///
    /// # Errors
    /// What kernel or store refuse.
    pub async fn table(&self, desired: &Desired, whole: bool) -> Result<Option<Rebuilt>, CniError> {
        let inside = desired.no_masquerade(&self.network, &self.exempt);
        let uplink = self.uplink(desired).await?;
        let own = find_node_addresses(&self.netlink, &uplink, &desired.own.node_ips).await?;
        // First on disk: an ADD that creates the table again reads it there.
        let tunnel = self.has_overlay().then(|| desired.tunnel(self.vxlan.port));
        self.remember(&inside, &own, tunnel.as_ref())?;
        let exists = nftables::has_network(&self.nft, std::slice::from_ref(&self.network)).await?;
        let mut is_changed = exists && nftables::ensure_no_masquerade(&self.nft, &inside).await?;
        is_changed |= exists && nftables::ensure_node_addresses(&self.nft, &self.network, &own).await?;
        is_changed |=
            exists && nftables::ensure_vxlan_peers(&self.nft, &self.network, tunnel.as_ref()).await?;
        let rebuilt = if whole || !exists {
            pod_rules::rebuild(&self.nft, &self.data_dir, &self.network, &self.boot).await?
        } else {
            Rebuilt::default()
        };
        Ok((is_changed || rebuilt != Rebuilt::default()).then_some(rebuilt))
    }

    /// Writes the no-masquerade networks, the node's addresses and the ends of the overlay to the store, where an ADD reads them when it
    /// creates a flushed table again.
    fn remember(
        &self,
        inside: &NoMasquerade,
        own: &NodeAddresses,
        tunnel: Option<&VxlanPeers>,
    ) -> Result<(), CniError> {
        let store = Store::open(&self.data_dir, &self.network)?;
        let mut locked = store.lock(&self.boot, LOCK_DEADLINE)?;
        locked.remember_no_masquerade(&inside.networks)?;
        locked.remember_node_addresses(own)?;
        locked.remember_vxlan_peers(tunnel)?;
        Ok(())
    }
}
