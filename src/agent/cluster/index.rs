//! All Nodes as the API server last reported them. Plain synchronous code: event in, change out.
//!
//! Two nodes may claim the same podCIDR or the same address, for a moment (nodes that restarted and swapped addresses)
//! or for good (a Node that nobody deleted). One of them keeps it: a node that is ready before one that is not,
//! then the older, then the first by name. The other gets no route for it and is reported, until
//! the first one no longer claims it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

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

/// Why a node, or part of it, has no route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// It has no podCIDR.
    NoPodCidr,
    /// It has no address of this podCIDR's family.
    NoAddress(IpNetwork),
    /// A value of its Node cannot be used.
    Unusable(String),
    /// Another node keeps this podCIDR.
    CidrTaken(IpNetwork, String),
    /// Another node keeps this address.
    AddressTaken(IpAddr, String),
    /// The podCIDR lies in one of this node's own.
    WithinOwn(IpNetwork, IpNetwork),
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

/// Names of the nodes that claim a key; the first keeps it. Nearly always one.
type Claims<K> = HashMap<K, Vec<Arc<str>>>;

/// All nodes.
#[derive(Debug)]
pub struct Index {
    own: String,
    nodes: BTreeMap<Arc<str>, NodeInfo>,
    cidrs: Claims<IpNetwork>,
    addresses: Claims<IpAddr>,
    /// Those that the current list has named so far.
    listed: Option<HashSet<String>>,
    is_complete: bool,
}

impl Index {
    /// Empty. `own` is the name of this node.
    pub fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            nodes: BTreeMap::new(),
            cidrs: HashMap::new(),
            addresses: HashMap::new(),
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
                    self.nodes.keys().filter(|name| !listed.contains(&***name)).cloned().collect();
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
        self.nodes.get(self.own.as_str())
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// Every other node, by name.
    pub fn others(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|info| info.name != self.own)
    }

    /// What a node gets, and why it gets no more. Nothing for one that is not known.
    pub fn assess(&self, name: &str) -> Assessment {
        let Some(info) = self.nodes.get(name) else { return Assessment::default() };
        let mut problems: Vec<Problem> = info.unusable.iter().cloned().map(Problem::Unusable).collect();
        if info.pod_cidrs.is_empty() {
            problems.push(Problem::NoPodCidr);
        }
        let taken = |address: &IpAddr| keeper(&self.addresses, address).filter(|keeper| *keeper != name);
        for address in &info.node_ips {
            problems.extend(taken(address).map(|keeper| Problem::AddressTaken(*address, keeper.to_owned())));
        }
        let pod_cidrs: Vec<IpNetwork> = info
            .pod_cidrs
            .iter()
            .filter(|&&cidr| match self.judge(info, cidr, taken) {
                Ok(is_routed) => is_routed,
                Err(problem) => {
                    problems.push(problem);
                    false
                }
            })
            .copied()
            .collect();
        if name == self.own || pod_cidrs.is_empty() {
            return Assessment { peer: None, problems };
        }
        let peer = Peer { node: name.to_owned(), pod_cidrs, node_ips: info.main_addresses() };
        Assessment { peer: Some(peer), problems }
    }

    /// Whether a podCIDR gets a route, or why not. `Ok(false)`: its next hop is another node's, which is a problem of
    /// the address.
    fn judge<'a>(
        &self,
        info: &NodeInfo,
        cidr: IpNetwork,
        taken: impl Fn(&IpAddr) -> Option<&'a str>,
    ) -> Result<bool, Problem> {
        let own = self.own().map(|own| own.pod_cidrs.as_slice()).unwrap_or_default();
        if let Some(own) = own.iter().find(|own| info.name != self.own && covers(**own, cidr)) {
            return Err(Problem::WithinOwn(cidr, *own));
        }
        match keeper(&self.cidrs, &cidr) {
            Some(keeper) if keeper != info.name => return Err(Problem::CidrTaken(cidr, keeper.to_owned())),
            _ => {}
        }
        let address = info.address_for(&cidr).ok_or(Problem::NoAddress(cidr))?;
        Ok(taken(&address).is_none())
    }

    fn put(&mut self, info: NodeInfo) -> Change {
        let before = self.nodes.get(info.name.as_str());
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
            self.replace(&name, Some(info));
            return Change { own, condition, ..Change::default() };
        }
        Change { peers: self.replace_and_compare(&name, Some(info)), ..Change::default() }
    }

    fn remove(&mut self, name: &str) -> Change {
        if !self.nodes.contains_key(name) {
            return Change::default();
        }
        if name == self.own {
            self.replace(name, None);
            return Change { own: true, condition: true, ..Change::default() };
        }
        Change { peers: self.replace_and_compare(name, None), ..Change::default() }
    }

    /// Replaces what is known of a node, and returns the nodes whose assessment that changed: itself, and those that
    /// claim the same. Looks at no other.
    fn replace_and_compare(&mut self, name: &str, info: Option<NodeInfo>) -> BTreeSet<String> {
        let mut concerned: BTreeSet<String> = BTreeSet::from([name.to_owned()]);
        for info in self.nodes.get(name).into_iter().chain(&info) {
            let of_cidrs = info.pod_cidrs.iter().filter_map(|cidr| self.cidrs.get(cidr));
            let of_addresses = info.node_ips.iter().filter_map(|address| self.addresses.get(address));
            let claims = of_cidrs.chain(of_addresses).flatten();
            concerned.extend(claims.map(|name| name.to_string()).filter(|name| *name != self.own));
        }
        let before: Vec<(String, Assessment, Vec<IpAddr>)> =
            concerned.into_iter().map(|name| self.snapshot(name)).collect();
        self.replace(name, info);
        let changed = before.into_iter().filter_map(|before| {
            let after = self.snapshot(before.0.clone());
            (before != after).then_some(after.0)
        });
        changed.collect()
    }

    fn snapshot(&self, name: String) -> (String, Assessment, Vec<IpAddr>) {
        let addresses = self.nodes.get(name.as_str()).map(|info| info.node_ips.clone()).unwrap_or_default();
        let standing = self.assess(&name);
        (name, standing, addresses)
    }

    fn replace(&mut self, name: &str, info: Option<NodeInfo>) {
        if let Some(before) = self.nodes.remove(name) {
            before.pod_cidrs.iter().for_each(|cidr| withdraw(&mut self.cidrs, cidr, name));
            before.node_ips.iter().for_each(|address| withdraw(&mut self.addresses, address, name));
        }
        let Some(info) = info else { return };
        let (cidrs, addresses) = (info.pod_cidrs.clone(), info.node_ips.clone());
        let name: Arc<str> = name.into();
        self.nodes.insert(Arc::clone(&name), info);
        cidrs.into_iter().for_each(|cidr| claim(&mut self.cidrs, cidr, &name, &self.nodes));
        addresses.into_iter().for_each(|address| claim(&mut self.addresses, address, &name, &self.nodes));
    }
}

/// Adds a node to those that claim the same; the first of them keeps it.
fn claim<K: Eq + Hash>(
    claims: &mut Claims<K>,
    key: K,
    name: &Arc<str>,
    nodes: &BTreeMap<Arc<str>, NodeInfo>,
) {
    let of_key = claims.entry(key).or_insert_with(|| Vec::with_capacity(1));
    of_key.push(Arc::clone(name));
    of_key.sort_by_key(|name| {
        let info = nodes.get(name);
        (info.map(|info| (!info.condition.ready, info.created)), Arc::clone(name))
    });
}

fn keeper<'a, K: Eq + Hash>(claims: &'a Claims<K>, key: &K) -> Option<&'a str> {
    claims.get(key).and_then(|of_key| of_key.first()).map(|name| &**name)
}

fn withdraw<K: Eq + Hash>(claims: &mut Claims<K>, key: &K, name: &str) {
    if let Some(of_key) = claims.get_mut(key) {
        of_key.retain(|it| &**it != name);
        if of_key.is_empty() {
            claims.remove(key);
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPodCidr => f.write_str(
                "has no podCIDR; kube-controller-manager gives one with --allocate-node-cidrs and --cluster-cidr; where the \
                 control plane does not (EKS, AKS), kubernetes-sigs' node-ipam-controller does, see docs/install.md",
            ),
            Self::NoAddress(cidr) => {
                let family = if cidr.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(f, "has no InternalIP of {family}, so {cidr} cannot be reached; give kubelet --node-ip")
            }
            Self::Unusable(what) => f.write_str(what),
            Self::CidrTaken(cidr, keeper) => {
                write!(f, "podCIDR {cidr} is node {keeper}'s as well, which keeps it; delete one of the two Nodes")
            }
            Self::AddressTaken(address, keeper) => {
                write!(f, "address {address} is node {keeper}'s as well, which keeps it; delete a Node that is gone")
            }
            Self::WithinOwn(cidr, own) => {
                write!(f, "podCIDR {cidr} lies in {own}, which is this node's own")
            }
        }
    }
}

#[cfg(test)]
mod tests;
