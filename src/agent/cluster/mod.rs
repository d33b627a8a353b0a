//! All nodes, and what follows from them for this one: plain code, no I/O but one file.

mod claims;
pub mod desired_state;
pub mod index;
mod overlaps;
pub mod problem;
pub mod reserved;
pub mod state_file;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use tracing::{info, warn};

use crate::agent::cluster::desired_state::{Desired, OwnNode};
use crate::agent::cluster::index::{Index, NodeEvent};
use crate::agent::install::files::InstallError;
use crate::agent::k8s::node_info::{NodeInfo, RawNode};
use crate::agent::settings::Settings;
use crate::config::peer::Peer;

/// What is known of the cluster, and what this node has to be.
#[derive(Debug)]
pub struct Cluster {
    /// All Nodes.
    pub index: Index,
    /// What is applied: from the state file at first, then from the index.
    pub desired: Option<Desired>,
    /// PodCIDRs that this node had and has no longer.
    pub former: Vec<IpNetwork>,
    /// podCIDRs of the state file with whose routes the API server was not heard.
    on_trial: Vec<IpNetwork>,
    node_name: String,
    state_file: PathBuf,
}

/// How what is desired changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The first list is not complete, or nothing changed.
    Unchanged,
    /// This node has no podCIDR, or no address of its family.
    NoOwnNode,
    /// Everything was worked out again.
    Whole {
        /// Whether this node's podCIDRs or addresses changed.
        is_own_changed: bool,
        /// Whether anything changed.
        is_changed: bool,
    },
    /// Only these peers changed: as they were, and as they are.
    Peers(Vec<Peer>, Vec<Peer>),
}

impl Cluster {
    /// Knows what the state file of an earlier process says, if there is one.
    pub fn load(settings: &Settings) -> Self {
        let node_name = settings.node_name.clone();
        let state_file = state_file::path(&settings.data_dir, &settings.network);
        let saved = state_file::load(&state_file, &node_name).unwrap_or_else(|reason| {
            warn!(reason, "saved state not usable");
            None
        });
        let (desired, on_trial) =
            saved.map_or_else(Default::default, |(desired, on_trial)| (Some(desired), on_trial));
        if let Some(desired) = &desired {
            info!(peers = desired.peers.len(), "saved state loaded");
        }
        Self { index: Index::new(&node_name), desired, former: Vec::new(), on_trial, node_name, state_file }
    }

    /// podCIDRs of the state file with whose routes the API server was heard.
    pub fn trusted(&self) -> impl Iterator<Item = IpNetwork> {
        let all = self.desired.iter().flat_map(|desired| &desired.peers).flat_map(|peer| &peer.pod_cidrs);
        all.filter(|cidr| !self.on_trial.contains(cidr)).copied()
    }

    /// Judges what the state file said, by what this node needs: an earlier version may have taken what cannot be had.
    /// Returns the Nodes as the file has them, with their problems, where something of it was refused.
    pub fn judge_saved(&mut self) -> Option<Index> {
        let saved = self.desired.as_ref()?;
        let mut index = Index::new(&self.node_name);
        index.reserve(self.index.reserved().clone());
        let own = (&self.node_name, &saved.own.pod_cidrs, &saved.own.node_ips);
        let peers = saved.peers.iter().map(|peer| (&peer.node, &peer.pod_cidrs, &peer.node_ips));
        for (name, pod_cidrs, node_ips) in peers.chain([own]) {
            index.apply(NodeEvent::Changed(NodeInfo::read(RawNode {
                name: name.clone(),
                pod_cidrs: pod_cidrs.iter().map(ToString::to_string).collect(),
                internal_ips: node_ips.iter().map(ToString::to_string).collect(),
                ..RawNode::default()
            })));
        }
        let judged = OwnNode::of(&index).map(|own| Desired::of(&index, own));
        let is_same = |judged: &Desired| judged.own == saved.own && judged.peers == saved.peers;
        if judged.as_ref().is_some_and(is_same) {
            return None;
        }
        self.desired = judged;
        Some(index)
    }

    /// Works out what is desired: as a whole, or of the named peers only where nothing else can have changed.
    pub fn refresh(&mut self, as_whole: bool, names: &BTreeSet<String>) -> Refreshed {
        if !self.index.is_complete() {
            return Refreshed::Unchanged;
        }
        // A Node that is gone, or lost its podCIDR, does not take the network from the pods that run here.
        let known = self.desired.as_ref().map(|desired| &desired.own);
        let Some(own) = OwnNode::of(&self.index).or_else(|| known.cloned()) else {
            return Refreshed::NoOwnNode;
        };
        let is_own_changed = known != Some(&own);
        if is_own_changed || as_whole {
            let fresh = Desired::of(&self.index, own);
            let is_changed = self.desired.as_ref() != Some(&fresh);
            if let Some(before) = self.desired.take() {
                let is_gone = |cidr: &IpNetwork| !fresh.own.pod_cidrs.contains(cidr);
                self.former.extend(before.own.pod_cidrs.into_iter().filter(is_gone));
            }
            self.desired = Some(fresh);
            return Refreshed::Whole { is_own_changed, is_changed };
        }
        match &mut self.desired {
            Some(desired) if !names.is_empty() => {
                let (before, after) = desired.update(&self.index, names);
                Refreshed::Peers(before, after)
            }
            _ => Refreshed::Unchanged,
        }
    }

    /// Writes the state file, if what is desired comes from a complete list.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, on_trial: &BTreeSet<IpNetwork>) -> Result<(), InstallError> {
        match self.desired.as_ref().filter(|_| self.index.is_complete()) {
            Some(desired) => state_file::save(&self.state_file, &self.node_name, desired, on_trial),
            None => Ok(()),
        }
    }
}
