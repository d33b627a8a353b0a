//! Which node keeps what several claim. The answer is the same on every node, since it depends on the Nodes alone.
//!
//! Nodes have a rank: one that is ready comes before one that is not, then the older, then the first by name. In that
//! order each gets the podCIDRs that overlap nothing of those before it, and the addresses that none before it has. So a
//! Node that loses takes nothing from the nodes behind it. No podCIDR is kept that contains the address of a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::agent::cluster::overlaps::Overlaps;
use crate::agent::cluster::problem::Problem;
use crate::agent::k8s::node_info::NodeInfo;

/// Lower comes first. `None` for a node that is not known.
type Rank<'a> = Option<(bool, i64, &'a str)>;

/// Whether a node keeps a podCIDR, as far as that was found out.
type Kept = HashMap<(IpNetwork, Arc<str>), bool>;

/// All nodes, and who claims what.
#[derive(Debug, Default)]
pub struct Claims {
    nodes: BTreeMap<Arc<str>, NodeInfo>,
    cidrs: Overlaps<Vec<Arc<str>>>,
    addresses: BTreeMap<IpAddr, Vec<Arc<str>>>,
}

impl Claims {
    /// A node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// All of them, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    /// Replaces what is known of a node.
    pub fn replace(&mut self, name: &str, info: Option<NodeInfo>) {
        if let Some(before) = self.nodes.remove(name) {
            before.pod_cidrs.iter().for_each(|cidr| withdraw(self.cidrs.map_mut(), cidr, name));
            before.node_ips.iter().for_each(|address| withdraw(&mut self.addresses, address, name));
        }
        let Some(info) = info else { return };
        let name: Arc<str> = name.into();
        for &cidr in &info.pod_cidrs {
            self.cidrs.map_mut().entry(cidr).or_insert_with(|| Vec::with_capacity(1)).push(Arc::clone(&name));
        }
        for &address in &info.node_ips {
            self.addresses.entry(address).or_insert_with(|| Vec::with_capacity(1)).push(Arc::clone(&name));
        }
        self.nodes.insert(name, info);
    }

    /// Whether a podCIDR overlaps that network.
    pub fn meets_pods(&self, network: IpNetwork) -> bool {
        self.cidrs.of(network).next().is_some()
    }

    /// Why that node cannot have that podCIDR, as far as other Nodes decide it.
    pub fn cidr_conflict(&self, name: &str, cidr: IpNetwork) -> Option<Problem> {
        self.find_conflict(name, cidr, &mut Kept::new())
    }

    /// Why that node cannot have that address.
    pub fn address_conflict(&self, name: &str, address: IpAddr) -> Option<Problem> {
        let keeper = self.keeper(self.addresses.get(&address)?).filter(|keeper| &***keeper != name);
        if let Some(keeper) = keeper {
            return Some(Problem::AddressTaken(address, keeper.to_string()));
        }
        let mut kept = Kept::new();
        self.cidrs.of(IpNetwork::from(address)).find_map(|(cidr, names)| {
            let mut others = names.iter().filter(|it| !self.address_comes_first(name, it));
            let keeper = others.find(|it| self.keeps(it, cidr, &mut kept))?;
            Some(Problem::AddressInPods(address, cidr, keeper.to_string()))
        })
    }

    fn find_conflict(&self, name: &str, cidr: IpNetwork, kept: &mut Kept) -> Option<Problem> {
        let rank = self.rank(name);
        for (address, names) in self.addresses.range(cidr.network()..=cidr.broadcast()) {
            let keeper = self.keeper(names).filter(|keeper| self.address_comes_first(keeper, name));
            if let Some(keeper) = keeper {
                return Some(Problem::HoldsNode(cidr, *address, keeper.to_string()));
            }
        }
        self.cidrs.of(cidr).find_map(|(other, names)| {
            let mut others = names.iter().filter(|it| ***it != *name && self.rank(it) < rank);
            let keeper = others.find(|it| self.keeps(it, other, kept))?;
            Some(Problem::CidrTaken(cidr, other, keeper.to_string()))
        })
    }

    /// Ends, because each node that is asked about has a lower rank than the one before.
    fn keeps(&self, name: &Arc<str>, cidr: IpNetwork, kept: &mut Kept) -> bool {
        let key = (cidr, Arc::clone(name));
        if let Some(known) = kept.get(&key) {
            return *known;
        }
        let keeps = self.find_conflict(name, cidr, kept).is_none();
        kept.insert(key, keeps);
        keeps
    }

    /// Whether an address of one node comes before a podCIDR of the other that it lies in. It does, since a node without
    /// its podCIDR loses less than all others without that node's address; but no Node that is not ready takes the
    /// podCIDR of one that is.
    fn address_comes_first(&self, of_address: &str, of_cidr: &str) -> bool {
        let is_ready = |name| self.nodes.get(name).is_some_and(|info| info.condition.ready);
        of_address == of_cidr || is_ready(of_address) || !is_ready(of_cidr)
    }

    fn keeper<'a>(&self, names: &'a [Arc<str>]) -> Option<&'a Arc<str>> {
        names.iter().min_by_key(|name| self.rank(name))
    }

    fn rank(&self, name: &str) -> Rank<'_> {
        self.nodes.get(name).map(|info| (!info.condition.ready, info.created, info.name.as_str()))
    }

    /// The nodes for which something may change if `name` becomes `info`: itself, and all that its claims overlap before
    /// or after, and what those overlap in turn. As a rule it is alone.
    pub fn concerned(&self, name: &str, info: Option<&NodeInfo>) -> BTreeSet<String> {
        let mut found: BTreeSet<&str> = BTreeSet::from([name]);
        let mut waiting: Vec<&NodeInfo> = self.nodes.get(name).into_iter().chain(info).collect();
        while let Some(info) = waiting.pop() {
            let meet = |network: IpNetwork| {
                let cidrs = self.cidrs.of(network).map(|(_, names)| names);
                let addresses = self.addresses.range(network.network()..=network.broadcast());
                cidrs.chain(addresses.map(|(_, names)| names)).flatten()
            };
            let addresses = info.node_ips.iter().map(|&address| IpNetwork::from(address));
            for met in info.pod_cidrs.iter().copied().chain(addresses).flat_map(meet) {
                if found.insert(met) {
                    waiting.extend(self.nodes.get(met));
                }
            }
        }
        found.into_iter().map(str::to_owned).collect()
    }
}

fn withdraw<K: Ord>(claims: &mut BTreeMap<K, Vec<Arc<str>>>, key: &K, name: &str) {
    if let Some(names) = claims.get_mut(key) {
        names.retain(|it| &**it != name);
        if names.is_empty() {
            claims.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::agent::cluster::overlaps::cut;
    use crate::agent::k8s::node_info::Condition;
    use crate::desired::attachment::covers;

    /// Nodes in few addresses, so that many of their claims meet.
    fn nodes() -> impl Strategy<Value = Vec<NodeInfo>> {
        let network = (0u32..64, 26u8..=32).prop_map(|(low, prefix)| {
            cut(IpNetwork::new(Ipv4Addr::from(0x0a00_0000 + low).into(), prefix).unwrap(), prefix).unwrap()
        });
        let address = (0u32..64).prop_map(|low| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + low * 40)));
        let node = (network, address, 0i64..3, any::<bool>());
        prop::collection::vec(node, 1..12).prop_map(|nodes| {
            let info = |(number, (cidr, address, created, ready))| NodeInfo {
                name: format!("n{number}"),
                created,
                pod_cidrs: vec![cidr],
                node_ips: vec![address],
                unusable: Vec::new(),
                condition: Condition { ready, ..Condition::default() },
            };
            nodes.into_iter().enumerate().map(info).collect()
        })
    }

    fn claims<'a>(nodes: impl Iterator<Item = &'a NodeInfo>) -> Claims {
        let mut claims = Claims::default();
        nodes.for_each(|info| claims.replace(&info.name.clone(), Some(info.clone())));
        claims
    }

    fn kept(claims: &Claims) -> Vec<(&str, IpNetwork)> {
        let cidrs = claims.nodes().map(|info| (info.name.as_str(), info.pod_cidrs[0]));
        cidrs.filter(|(name, cidr)| claims.cidr_conflict(name, *cidr).is_none()).collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_overlaps_nothing_and_does_not_depend_on_order(nodes in nodes()) {
            let all = claims(nodes.iter());
            let kept_by = kept(&all);
            for (number, (_, a)) in kept_by.iter().enumerate() {
                for (_, b) in &kept_by[number + 1..] {
                    prop_assert!(!covers(*a, *b) && !covers(*b, *a), "{} {}", a, b);
                }
            }
            // The first by rank loses to addresses alone.
            let first = all.nodes().min_by_key(|info| all.rank(&info.name)).unwrap();
            let is_kept = kept_by.iter().any(|(name, _)| *name == first.name);
            let has_node = nodes.iter().any(|info| {
                let counts = info.name == first.name || info.condition.ready || !first.condition.ready;
                counts && first.pod_cidrs[0].contains(info.node_ips[0])
            });
            prop_assert_eq!(is_kept, !has_node);
            let backwards = claims(nodes.iter().rev());
            prop_assert_eq!(kept_by, kept(&backwards));
        }

        #[test]
        fn a_change_concerns_all_that_it_changes(nodes in nodes(), picked in any::<prop::sample::Index>()) {
            let picked = picked.get(&nodes);
            let without = claims(nodes.iter().filter(|info| info.name != picked.name));
            let concerned = without.concerned(&picked.name, Some(picked));
            let with = claims(nodes.iter());
            prop_assert_eq!(&concerned, &with.concerned(&picked.name, None));
            for info in nodes.iter().filter(|info| !concerned.contains(&info.name)) {
                let (cidr, address) = (info.pod_cidrs[0], info.node_ips[0]);
                prop_assert_eq!(with.cidr_conflict(&info.name, cidr), without.cidr_conflict(&info.name, cidr));
                prop_assert_eq!(
                    with.address_conflict(&info.name, address), without.address_conflict(&info.name, address)
                );
            }
        }
    }
}
