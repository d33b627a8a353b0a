//! All nodes, and what follows from them for this one: plain code, no I/O but one file.

pub mod desired_state;
pub mod index;
pub mod state_file;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use tracing::{info, warn};

use crate::agent::cluster::desired_state::{Desired, OwnNode};
use crate::agent::cluster::index::Index;
use crate::agent::install::files::InstallError;
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
        let desired = state_file::load(&state_file, &node_name).unwrap_or_else(|reason| {
            warn!(reason, "saved state not usable");
            None
        });
        if let Some(desired) = &desired {
            info!(peers = desired.peers.len(), "saved state loaded");
        }
        Self { index: Index::new(&node_name), desired, former: Vec::new(), node_name, state_file }
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
    pub fn save(&self) -> Result<(), InstallError> {
        match self.desired.as_ref().filter(|_| self.index.is_complete()) {
            Some(desired) => state_file::save(&self.state_file, &self.node_name, desired),
            None => Ok(()),
        }
    }
}
