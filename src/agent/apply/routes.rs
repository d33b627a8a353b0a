//! The routes to other nodes, and the overlay that some of them need.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::apply::Datapath;
use crate::agent::cluster::desired_state::Desired;
use crate::agent::cluster::reserved::Reserved;
use crate::config::peer::Peer;
use crate::datapath::error::DatapathError;
use crate::datapath::node;
use crate::datapath::overlay::{self, OverlayDone, Ways};
use crate::datapath::overruled::{self, Overruled};
use crate::datapath::peers::{self, Synchronised};
use crate::desired::node::NodeState;
use crate::desired::overlay::{Routing, local_end, pod_mtu};
use crate::linux::route::Family;

/// How long the overlay's device stays when no node needs it any more: the agent at the other end may find that out later,
/// with its look at everything at the latest, and until then it sends by VXLAN.
const OVERLAY_LINGERS: Duration = Duration::from_secs(300);

/// Outcome of comparing the routes to other nodes.
#[derive(Debug, Default)]
pub struct Routed {
    /// The routes.
    pub routes: Synchronised,
    /// The overlay, where there is one.
    pub overlay: Option<OverlayDone>,
    /// MTU of new pods, in bytes, where the uplink's is too large.
    pub pod_mtu: Option<u32>,
    /// Families of this node's Node that the node has not.
    pub lost: Vec<Family>,
    /// How many routes are left out for that.
    pub left_out: usize,
}

impl Datapath {
    /// Removes the routes to other nodes whose destination the node needs itself: an earlier process set them, and
    /// without the list of Nodes nobody else would. Returns how many there were.
    ///
    /// # Errors
    /// Where the kernel's routes cannot be read, or stay.
    pub async fn withdraw(&self, reserved: &Reserved) -> Result<usize, DatapathError> {
        let is_refused = |destination| reserved.refusal(destination).is_some();
        peers::withdraw(&self.netlink, &self.network, is_refused).await
    }

    /// Routes to other nodes that the kernel does not take, among `count` from the place `from` on; and how many routes
    /// there are.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn overruled(
        &self,
        from: usize,
        count: usize,
    ) -> Result<(Vec<Overruled>, usize), DatapathError> {
        overruled::find(&self.netlink, &self.network, from, count).await
    }

    /// Compares the overlay and the routes to all peers with the kernel's and sets what is missing or wrong. With
    /// `is_whole_truth` (the list of Nodes is complete) it deletes what nothing asks for.
    ///
    /// # Errors
    /// Where the kernel cannot be read, or the overlay's device cannot be created. Failures of single peers are in the
    /// answer.
    pub async fn routes(&mut self, desired: &Desired, is_whole_truth: bool) -> Result<Routed, DatapathError> {
        let mut state = self.state_with(desired, desired.peers.clone());
        let lost = self.lost_families(desired).await?;
        let left_out = leave_out(&mut state.peers, &lost);
        let ways = overlay::ways(&self.netlink, &state, self.routing).await?;
        let is_kept = self.keeps_idle_overlay(&ways);
        let overlay = overlay::describe(&self.netlink, &state, &ways, self.vxlan, is_kept).await?;
        let pod_mtu = self.pod_mtu(&state, &ways).await?;
        let mut routed = Routed { pod_mtu, lost, left_out, ..Routed::default() };
        if let Some(overlay) = &overlay {
            routed.overlay = Some(overlay::keep(&self.netlink, overlay).await?);
        }
        routed.routes = match &overlay {
            _ if !is_whole_truth => peers::supplement(&self.netlink, &state, overlay.as_ref()).await?,
            Some(overlay) => peers::synchronise_with(&self.netlink, &state, overlay).await?,
            None => peers::synchronise(&self.netlink, &state).await?,
        };
        if overlay.is_none() && is_whole_truth {
            // Only now that no route uses it.
            overlay::remove(&self.netlink).await?;
        }
        routed.routes.failures.extend(ways.failures);
        routed.routes.failures.extend(routed.overlay.iter_mut().flat_map(|done| done.failures.drain(..)));
        Ok(routed)
    }

    /// Whether a device stays that no node needs any more.
    fn keeps_idle_overlay(&mut self, ways: &Ways) -> bool {
        if ways.need_overlay() || self.routing == Routing::Direct || !self.has_overlay() {
            self.idle_overlay = None;
            return false;
        }
        let now = Instant::now();
        now.duration_since(*self.idle_overlay.get_or_insert(now)) < OVERLAY_LINGERS
    }

    /// Sets the routes to a few peers; the cost does not depend on the others. `None` if one of them is reached by the
    /// overlay, or was: then all routes have to be compared.
    ///
    /// # Errors
    /// Where the kernel cannot be read.
    pub async fn routes_of(
        &self,
        desired: &Desired,
        before: Vec<Peer>,
        after: Vec<Peer>,
    ) -> Result<Option<Synchronised>, DatapathError> {
        if self.has_overlay() {
            return Ok(None);
        }
        let before = self.state_with(desired, before);
        let mut after = self.state_with(desired, after);
        let lost = self.lost_families(desired).await?;
        leave_out(&mut after.peers, &lost);
        let ways = overlay::ways(&self.netlink, &after, self.routing).await?;
        if ways.need_overlay() {
            return Ok(None);
        }
        let mut done = peers::update(&self.netlink, &before, &after).await;
        done.failures.extend(ways.failures);
        Ok(Some(done))
    }

    /// The MTU that new pods must have, where it is not the uplink's: what VXLAN leaves of that.
    async fn pod_mtu(&self, state: &NodeState, ways: &Ways) -> Result<Option<u32>, DatapathError> {
        let Some(local) = local_end(state).filter(|_| self.routing != Routing::Direct) else {
            return Ok(None);
        };
        let uplink = node::find_uplink(&self.netlink, state, None).await?.mtu;
        let mtu = pod_mtu(uplink, local, state.ipv6, self.routing, ways.need_overlay());
        Ok((mtu != uplink).then_some(mtu))
    }
}

/// Leaves out the peers' pods of these families; returns how many podCIDRs that are.
fn leave_out(peers: &mut Vec<Peer>, families: &[Family]) -> usize {
    let count = |peers: &[Peer]| peers.iter().map(|peer| peer.pod_cidrs.len()).sum::<usize>();
    let before = count(peers);
    let is_kept = |is_ipv4| !families.contains(if is_ipv4 { &Family::V4 } else { &Family::V6 });
    peers.iter_mut().for_each(|peer| peer.pod_cidrs.retain(|cidr| is_kept(cidr.is_ipv4())));
    peers.retain(|peer| !peer.pod_cidrs.is_empty());
    before - count(peers)
}
