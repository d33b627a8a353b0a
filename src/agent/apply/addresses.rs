//! The addresses that this node's Node names, and those that the node has.

use std::net::IpAddr;

use crate::agent::apply::Datapath;
use crate::agent::cluster::desired_state::Desired;
use crate::agent::surroundings;
use crate::datapath::error::DatapathError;
use crate::datapath::node;
use crate::desired::node::NodeState;
use crate::linux::error::KernelError;
use crate::linux::route::Family;

impl Datapath {
    /// The addresses that this node has itself where its Node names these: those can be sources.
    pub fn localised(&self, node_ips: &[IpAddr]) -> Vec<IpAddr> {
        let local = |address: &IpAddr| match self.replaced.iter().find(|(it, _)| it == address) {
            Some((_, replacement)) => *replacement,
            None => Some(*address),
        };
        node_ips.iter().filter_map(local).collect()
    }

    /// Finds out which of the Node's addresses this node does not have: with 1:1 NAT the address of its uplink takes their
    /// place, and one of a family that is lost goes, as long as another is here. Returns whether that changed.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn localise(&mut self, desired: &Desired) -> Result<bool, DatapathError> {
        let mut away = Vec::new();
        for &address in &desired.own.node_ips {
            if !self.netlink.route_to(address).await?.is_some_and(|way| way.local) {
                away.push(address);
            }
        }
        let mut replaced = Vec::new();
        if !away.is_empty() {
            let state = NodeState { node_ips: Vec::new(), ..desired.state_with(&self.network, Vec::new()) };
            let uplink = node::find_uplink(&self.netlink, &state, Some(0)).await?;
            let is_one_here = away.len() < desired.own.node_ips.len();
            let with_uplink = away.into_iter().map(|address| (address, uplink.address_for(address)));
            replaced.extend(with_uplink.filter(|(_, replacement)| replacement.is_some() || is_one_here));
        }
        let is_changed = replaced != self.replaced;
        self.replaced = replaced;
        Ok(is_changed)
    }

    /// Families of which this node's Node names an address, and the node has neither that address nor a way out.
    pub(super) async fn lost_families(&self, desired: &Desired) -> Result<Vec<Family>, KernelError> {
        let mut lost = Vec::new();
        for &address in &desired.own.node_ips {
            let has_address = self.netlink.route_to(address).await?.is_some_and(|way| way.local);
            if !has_address && !surroundings::has_way_out(&self.netlink, address.is_ipv4()).await? {
                lost.push(if address.is_ipv4() { Family::V4 } else { Family::V6 });
            }
        }
        Ok(lost)
    }
}
