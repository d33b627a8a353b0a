//! All Nodes as the API server last reported them. Plain synchronous code: event in, change out.
//!
//! What a Node says is a claim. Two nodes may claim the same address or podCIDRs that overlap, for a moment (nodes that
//! restarted and swapped addresses) or for good (a Node that nobody deleted). One of them keeps it (`claims`). The
//! other gets no route for it and is reported, until the first one no longer claims it. A podCIDR gets no route either
//! where it overlaps what this node needs ([`Reserved`]), whatever state its Node is in.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::agent::cluster::claims::Claims;
pub use crate::agent::cluster::problem::Problem;
use crate::agent::cluster::reserved::Reserved;
use crate::agent::k8s::node_info::NodeInfo;
use crate::config::peer::Peer;
use crate::desired::attachment::covers;

/// What happened to the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// A list of all Nodes begins: those that are not in it are deleted.
    ListBegins,
    /// A node of that list.
    Listed(NodeInfo),
    /// The list is complete.
    ListEnds,
    /// A Node was added or modified.
    Changed(NodeInfo),
    /// A Node was deleted.
    Gone(String),
}

/// What an event changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Other nodes whose routes or problems changed.
    pub peers: BTreeSet<String>,
    /// This node's podCIDRs or addresses, and with them everything.
    pub own: bool,
    /// The first list is complete: from here on a Node that is not known does not exist.
    pub completed: bool,
    /// Conditions of this node changed.
    pub condition: bool,
}

/// What a node gets, after claims of several nodes were decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assessment {
    /// What it gets routes for; `None` for nothing.
    pub peer: Option<Peer>,
    /// Why it, or part of it, gets no routes.
    pub problems: Vec<Problem>,
}

impl Change {
    /// Whether nothing changed.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a later change.
    pub fn merge(&mut self, later: Self) {
        self.peers.extend(later.peers);
        self.own |= later.own;
        self.completed |= later.completed;
        self.condition |= later.condition;
    }
}

/// All nodes.
#[derive(Debug)]
pub struct Index {
    own: String,
    claims: Claims,
    /// What this node needs, whoever claims it.
    reserved: Reserved,
    /// podCIDRs without which the API server is heard, and with which it is not.
    suspected: BTreeSet<IpNetwork>,
    /// Those that the current list has named so far.
    listed: Option<HashSet<String>>,
    is_complete: bool,
}

impl Index {
    /// Empty. `own` is the name of this node.
    pub fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            claims: Claims::default(),
            reserved: Reserved::default(),
            suspected: BTreeSet::new(),
            listed: None,
            is_complete: false,
        }
    }

    /// Applies an event and returns what it changed. An event that changes nothing costs a comparison.
    pub fn apply(&mut self, event: NodeEvent) -> Change {
        match event {
            NodeEvent::ListBegins => {
                self.listed = Some(HashSet::new());
                Change::default()
            }
            NodeEvent::Listed(info) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(info.name.clone());
                }
                self.put(info)
            }
            NodeEvent::ListEnds => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Arc<str>> =
                    self.claims.names().filter(|name| !listed.contains(&***name)).cloned().collect();
                let mut change = Change::default();
                gone.iter().for_each(|name| change.merge(self.remove(name)));
                change.completed = !std::mem::replace(&mut self.is_complete, true);
                change
            }
            NodeEvent::Changed(info) => self.put(info),
            NodeEvent::Gone(name) => self.remove(&name),
        }
    }

    /// Whether a list was complete at least once.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// This node, as far as it is known.
    pub fn own(&self) -> Option<&NodeInfo> {
        self.claims.node(&self.own)
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.claims.nodes()
    }

    /// Every other node, by name.
    pub fn others(&self) -> impl Iterator<Item = &NodeInfo> {
        self.claims.nodes().filter(|info| info.name != self.own)
    }

    /// What a node gets, and why it gets no more. Nothing for one that is not known.
    pub fn assess(&self, name: &str) -> Assessment {
        let Some(info) = self.claims.node(name) else { return Assessment::default() };
        let mut problems: Vec<Problem> = info.unusable.iter().cloned().map(Problem::Unusable).collect();
        // Told already.
        let is_one_refused = info.unusable.iter().any(|it| it.starts_with("podCIDR"));
        if info.pod_cidrs.is_empty() && (name == self.own || !is_one_refused) {
            problems.push(Problem::NoPodCidr);
        }
        let taken: Vec<(IpAddr, Problem)> = info
            .node_ips
            .iter()
            .filter_map(|&address| Some((address, self.claims.address_conflict(name, address)?)))
            .collect();
        let is_taken = |address: IpAddr| taken.iter().any(|(it, _)| *it == address);
        let pod_cidrs: Vec<IpNetwork> = info
            .pod_cidrs
            .iter()
            .filter(|&&cidr| match self.judge(info, cidr, is_taken) {
                Ok(is_routed) => is_routed,
                Err(problem) => {
                    problems.push(problem);
                    false
                }
            })
            .copied()
            .collect();
        problems.extend(taken.into_iter().map(|(_, problem)| problem));
        if name == self.own || pod_cidrs.is_empty() {
            return Assessment { peer: None, problems };
        }
        let peer = Peer { node: name.to_owned(), pod_cidrs, node_ips: info.main_addresses() };
        Assessment { peer: Some(peer), problems }
    }

    /// Whether a podCIDR gets a route, or why not. `Ok(false)`: its next hop is another node's, which is a problem of
    /// the address.
    fn judge(
        &self,
        info: &NodeInfo,
        cidr: IpNetwork,
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Result<bool, Problem> {
        self.refusal(info, cidr).map_or(Ok(()), Err)?;
        let address = info.address_for(&cidr).ok_or(Problem::NoAddress(cidr))?;
        Ok(!is_taken(address))
    }

    /// Why a podCIDR of that node is refused.
    fn refusal(&self, info: &NodeInfo, cidr: IpNetwork) -> Option<Problem> {
        if info.name == self.own {
            return self.refusal_of_own(info, cidr).or_else(|| self.claims.cidr_conflict(&info.name, cidr));
        }
        let own = self.own().map(|own| own.pod_cidrs.as_slice()).unwrap_or_default();
        let overlaps = |own: &&IpNetwork| covers(**own, cidr) || covers(cidr, **own);
        if let Some(own) = own.iter().find(overlaps) {
            return Some(Problem::OverlapsOwn(cidr, *own));
        }
        if let Some((network, holder)) = self.reserved.refusal(cidr) {
            return Some(Problem::Reserved(cidr, network, holder.clone()));
        }
        let conflict = self.claims.cidr_conflict(&info.name, cidr);
        conflict.or_else(|| self.suspected.contains(&cidr).then_some(Problem::Suspected(cidr)))
    }

    /// Why this node cannot have its own podCIDR. Not because another node claims it: the pods are here.
    fn refusal_of_own(&self, own: &NodeInfo, cidr: IpNetwork) -> Option<Problem> {
        if let Some((network, holder)) = self.reserved.refusal_of_own(cidr, &own.node_ips) {
            return Some(Problem::Reserved(cidr, network, holder.clone()));
        }
        let inside = own.node_ips.iter().find(|address| cidr.contains(**address))?;
        Some(Problem::HoldsNode(cidr, *inside, own.name.clone()))
    }

    /// The podCIDRs of this node that it can have.
    pub fn own_pod_cidrs(&self) -> Vec<IpNetwork> {
        let Some(own) = self.own() else { return Vec::new() };
        let is_usable = |cidr: &IpNetwork| self.refusal_of_own(own, *cidr).is_none();
        own.pod_cidrs.iter().copied().filter(is_usable).collect()
    }

    /// podCIDRs of all nodes but those that are refused, whether or not they have routes.
    pub fn accepted_pod_cidrs(&self) -> impl Iterator<Item = IpNetwork> {
        let of_node = |info: &'_ NodeInfo| -> Vec<IpNetwork> {
            if info.name == self.own {
                return self.own_pod_cidrs();
            }
            info.pod_cidrs.iter().copied().filter(|cidr| self.refusal(info, *cidr).is_none()).collect()
        };
        self.nodes().flat_map(of_node)
    }

    /// Whether pods of a node may have an address of that network.
    pub fn meets_pods(&self, network: IpNetwork) -> bool {
        self.claims.meets_pods(network)
    }

    /// Replaces what this node needs; returns whether that changed.
    pub fn reserve(&mut self, reserved: Reserved) -> bool {
        let is_changed = self.reserved != reserved;
        self.reserved = reserved;
        is_changed
    }

    /// What this node needs.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// Replaces the podCIDRs that get no route because of what happened to the API server.
    pub fn suspect(&mut self, cidrs: BTreeSet<IpNetwork>) {
        self.suspected = cidrs;
    }

    fn put(&mut self, info: NodeInfo) -> Change {
        let before = self.claims.node(&info.name);
        if before == Some(&info) {
            return Change::default();
        }
        let name = info.name.clone();
        if name == self.own {
            let (own, condition) = match before {
                Some(before) => {
                    let is_other = (&before.pod_cidrs, &before.node_ips, &before.unusable)
                        != (&info.pod_cidrs, &info.node_ips, &info.unusable);
                    (is_other, before.condition != info.condition)
                }
                None => (true, true),
            };
            self.claims.replace(&name, Some(info));
            return Change { own, condition, ..Change::default() };
        }
        Change { peers: self.replace_and_compare(&name, Some(info)), ..Change::default() }
    }

    fn remove(&mut self, name: &str) -> Change {
        if self.claims.node(name).is_none() {
            return Change::default();
        }
        if name == self.own {
            self.claims.replace(name, None);
            return Change { own: true, condition: true, ..Change::default() };
        }
        Change { peers: self.replace_and_compare(name, None), ..Change::default() }
    }

    /// Replaces what is known of a node, and returns the nodes whose assessment that changed: itself, and those that
    /// claim what overlaps. Looks at no other.
    fn replace_and_compare(&mut self, name: &str, info: Option<NodeInfo>) -> BTreeSet<String> {
        let mut concerned = self.claims.concerned(name, info.as_ref());
        concerned.remove(&self.own);
        let before: Vec<(String, Assessment, Vec<IpAddr>)> =
            concerned.into_iter().map(|name| self.snapshot(name)).collect();
        self.claims.replace(name, info);
        let changed = before.into_iter().filter_map(|before| {
            let after = self.snapshot(before.0.clone());
            (before != after).then_some(after.0)
        });
        changed.collect()
    }

    fn snapshot(&self, name: String) -> (String, Assessment, Vec<IpAddr>) {
        let addresses = self.claims.node(&name).map(|info| info.node_ips.clone()).unwrap_or_default();
        let standing = self.assess(&name);
        (name, standing, addresses)
    }
}

#[cfg(test)]
mod tests;
