//! Whether the pods' largest packets reach the other nodes.
//!
//! The pods' MTU is that of this node's uplink, and what lies between two nodes may carry less (a tunnel of the
//! provider's, a switch without jumbo frames). Then small packets pass and large ones hang, where nobody may say so by
//! ICMP. So each node that pods are reached by is sent a packet as large as the pods' own, or as VXLAN makes it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::cni::ids::NetworkName;
use crate::datapath::error::DatapathError;
use crate::datapath::peers::own_routes;
use crate::desired::names::OVERLAY_DEVICE;
use crate::desired::overlay::outer_length;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::path_probe::{Probed, probe};

/// How long an answer is waited for: nodes are in one place.
const PATIENCE: Duration = Duration::from_millis(250);

/// A node tells one host of closed ports six times at once, then once a second (net.ipv4.icmp_ratelimit): after that it
/// may be heard again.
const REST: Duration = Duration::from_millis(1100);

/// How often what got no answer is sent again, each time after a rest if it is large.
const TRIES: usize = 3;

/// A packet that fits everywhere, in bytes.
const SMALL: usize = 128;

/// The way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The node's address.
    pub node: IpAddr,
    /// Whether pods there are reached through VXLAN.
    pub by_overlay: bool,
}

/// What became of packets as large as the pods'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// They arrive.
    Free,
    /// A link on the way is too small for them, and says so.
    Narrow {
        /// Its MTU.
        mtu: u32,
    },
    /// They are lost, and nobody says so; smaller ones arrive.
    Lost,
    /// The node does not answer at all, for a firewall as a rule.
    Unknown,
}

impl Path {
    /// How long the pods' largest packets are on this way, from the IP header on.
    pub fn length(&self, pod_mtu: u32) -> u32 {
        if self.by_overlay { outer_length(pod_mtu, self.node) } else { pod_mtu }
    }
}

/// The ways to all nodes that the network's routes lead to.
///
/// # Errors
/// What the kernel refused.
pub async fn paths(node: &Netlink, network: &NetworkName) -> Result<BTreeSet<Path>, DatapathError> {
    let overlay = node.link(LinkRef::Name(OVERLAY_DEVICE.to_owned())).await?.map(|link| link.index);
    let mut paths = BTreeSet::new();
    for route in own_routes(node, network).await? {
        let next_hop = route.gateway.filter(|_| route.device != overlay);
        paths.extend(next_hop.map(|node| Path { node, by_overlay: false }));
    }
    if let Some(index) = overlay {
        let entries = node.forwarding_entries(index).await?;
        paths.extend(entries.into_iter().map(|it| Path { node: it.remote, by_overlay: true }));
    }
    Ok(paths)
}

/// Tries at most `most` of the ways at once, spread over all of them; others with each `turn`.
pub async fn try_some(
    paths: &BTreeSet<Path>,
    pod_mtu: u32,
    most: usize,
    turn: usize,
) -> Vec<(Path, Passage)> {
    let step = paths.len().div_ceil(most.max(1)).max(1);
    let tried = paths.iter().skip(turn % step).step_by(step).map(|path| async {
        let length = usize::try_from(path.length(pod_mtu)).unwrap_or(SMALL);
        (*path, try_one(path.node, length).await)
    });
    join_all(tried).await
}

async fn try_one(node: IpAddr, length: usize) -> Passage {
    if !arrives(node).await {
        return Passage::Unknown;
    }
    for _ in 0..TRIES {
        match probe(node, length, PATIENCE).await {
            Ok(Probed::Arrived) => return Passage::Free,
            Ok(Probed::TooLong { mtu }) => return Passage::Narrow { mtu },
            // It may only be silent for now.
            Ok(Probed::Silent) => sleep(REST).await,
            Err(_) => return Passage::Unknown,
        }
    }
    // That the node has not just gone.
    if arrives(node).await { Passage::Lost } else { Passage::Unknown }
}

async fn arrives(node: IpAddr) -> bool {
    for _ in 1..TRIES {
        if matches!(probe(node, SMALL, PATIENCE).await, Ok(Probed::Arrived)) {
            return true;
        }
    }
    false
}
