//! Pods that are not as the node's records and ranges have it: without a record, or at an address of another node's.

use std::net::IpAddr;

use super::Datapath;
use crate::agent::cluster::desired_state::Desired;
use crate::attachments::liveness;
use crate::attachments::take_up::{self, TakenUp};
use crate::cni::error::CniError;
use crate::store::Store;

/// A running pod whose address is in no podCIDR of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsidePod {
    /// `namespace/name`, else its attachment.
    pub pod: String,
    /// The address.
    pub address: IpAddr,
}

impl Datapath {
    /// Gives running pods a record again whose record is lost.
    ///
    /// # Errors
    /// What kernel or store refuse.
    pub async fn take_up(&self) -> Result<TakenUp, CniError> {
        take_up::take_up(&self.netlink, &self.data_dir, &self.network, &self.boot, self.masquerade).await
    }

    /// The running pods of this node whose address is in none of its podCIDRs: they were attached when it had others.
    ///
    /// # Errors
    /// What kernel or store refuse.
    pub async fn outside(&self, desired: &Desired) -> Result<Vec<OutsidePod>, CniError> {
        let Some(store) = Store::open_existing(&self.data_dir, &self.network)? else { return Ok(Vec::new()) };
        let is_outside = |address: &IpAddr| !desired.own.pod_cidrs.iter().any(|cidr| cidr.contains(*address));
        // The names of by-ip tell, so that no record is read where all is well.
        if !store.held()?.iter().any(is_outside) {
            return Ok(Vec::new());
        }
        let mut outside = Vec::new();
        for record in store.attachments()?.into_iter().filter_map(|entry| entry.record.ok()) {
            let Some(&address) = record.addresses.iter().find(|address| is_outside(address)) else {
                continue;
            };
            if !liveness::is_dead(&record, &self.boot, Some(&self.netlink)).await? {
                let pod = record.pod.as_ref().map_or_else(|| record.key().to_string(), ToString::to_string);
                outside.push(OutsidePod { pod, address });
            }
        }
        outside.sort_by(|one, other| (&one.pod, one.address).cmp(&(&other.pod, other.address)));
        Ok(outside)
    }
}
