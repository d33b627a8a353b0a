//! Which chains of ClusterNetworkPolicies pods have, and those that are held.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::policy::cluster::build::{BuiltTier, Selecting, build_tier};
use crate::policy::cluster::compile::CompiledCluster;
use crate::policy::cluster::object::ClusterPolicy;
use crate::policy::index::OwnPod;
use crate::policy::object::Feed;
use crate::policy::plan::{Direction, Tier};
use crate::policy::planner::isolation::BOTH;
use crate::policy::planner::{Listing, Planner};

/// The two tiers around that of NetworkPolicies.
pub(super) const AROUND: [Tier; 2] = [Tier::Admin, Tier::Baseline];

/// What a pod has in a direction, of each of [`AROUND`].
pub(super) type Around = [BuiltTier; 2];

/// Policies by their names, in the order in which they are asked, with whether it is certain that they select a pod.
pub(super) type Chosen = Vec<(String, bool)>;

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct ClusterPolicies {
    all: BTreeMap<String, One>,
    list: Listing,
    /// Whether their list is waited for.
    is_awaited: bool,
    /// Chains that were built already. Most namespaces have the same.
    built: HashMap<(Direction, Tier, Chosen), BuiltTier>,
}

#[derive(Debug)]
struct One {
    compiled: CompiledCluster,
    generation: u16,
    /// As it came, in JSON: for people.
    written: Box<str>,
}

impl ClusterPolicies {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn is_listed(&self) -> bool {
        !self.is_awaited || self.list.is_listed
    }

    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        self.all.values().map(|it| &*it.written)
    }

    pub(super) fn compiled(&self) -> impl Iterator<Item = (&str, &CompiledCluster)> {
        self.all.iter().map(|(name, it)| (name.as_str(), &it.compiled))
    }

    /// Those of a tier that may be about pods of a namespace with these labels, in the order in which they are asked.
    pub(super) fn covering<L: AsRef<str>>(
        &self,
        tier: Tier,
        labels: Option<&[L]>,
    ) -> Vec<(&str, &CompiledCluster)> {
        let covering = self.compiled().filter(|(_, it)| it.tier == tier && it.covers(labels));
        let mut covering: Vec<_> = covering.collect();
        // By name already.
        covering.sort_by_key(|(_, it)| it.priority);
        covering
    }

    fn build(&mut self, direction: Direction, tier: Tier, chosen: &[(String, bool)]) -> BuiltTier {
        if chosen.is_empty() {
            return BuiltTier::Nothing;
        }
        let key = (direction, tier, chosen.to_vec());
        if let Some(built) = self.built.get(&key) {
            return built.clone();
        }
        let selecting = chosen.iter().filter_map(|(name, is_certain)| {
            let (name, one) = self.all.get_key_value(name)?;
            Some(Selecting { name, policy: &one.compiled, is_certain: *is_certain })
        });
        let built = build_tier(direction, tier, &selecting.collect::<Vec<_>>());
        self.built.insert(key, built.clone());
        built
    }
}

impl Planner {
    /// From now on nothing is planned before the ClusterNetworkPolicies were listed, were it that there are none.
    pub fn await_cluster_policies(&mut self) {
        self.cluster.is_awaited = true;
    }

    /// Whether they were listed once.
    pub fn has_cluster_policies_listed(&self) -> bool {
        self.cluster.list.is_listed
    }

    /// Whether they were listed, and there are none.
    pub fn knows_no_cluster_policy(&self) -> bool {
        self.cluster.list.is_listed && self.cluster.is_empty()
    }

    pub(super) fn on_cluster_policy(&mut self, feed: Feed<ClusterPolicy>) {
        match feed {
            Feed::ListBegins => self.cluster.list.begin(),
            Feed::Listed(policy) | Feed::Changed(policy) => {
                // Texts, numbers and lists: serialising them cannot fail.
                let written = serde_json::to_string(&policy).unwrap_or_default().into();
                let generation = self.cluster.list.generation;
                let one = One { compiled: CompiledCluster::new(&policy), generation, written };
                self.change_cluster_policy(policy.name, Some(one));
            }
            Feed::Gone(name) => self.change_cluster_policy(name.name, None),
            Feed::ListEnds => {
                let now = self.cluster.list.generation;
                let stale = self.cluster.all.iter().filter(|(_, it)| it.generation != now);
                for name in stale.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                    self.change_cluster_policy(name, None);
                }
                self.cluster.list.is_listed = true;
            }
        }
    }

    fn change_cluster_policy(&mut self, name: String, after: Option<One>) {
        let compiled = after.as_ref().map(|it| it.compiled.clone());
        let before = match after {
            Some(after) => self.cluster.all.insert(name, after),
            None => self.cluster.all.remove(&name),
        };
        let before = before.map(|it| it.compiled);
        if before == compiled {
            return;
        }
        self.cluster.built.clear();
        if !self.follows || !self.is_complete() {
            return;
        }
        let changed: Vec<CompiledCluster> = [before, compiled].into_iter().flatten().collect();
        for namespace in self.every_namespace() {
            let labels = self.index.namespace_labels(&namespace);
            if changed.iter().any(|it| it.covers(labels)) {
                self.again.entry(namespace).or_default().all = true;
            }
        }
    }

    /// Namespaces of whose pods some may be subjects.
    pub(super) fn covered_namespaces(&self) -> Vec<String> {
        if self.cluster.is_empty() {
            return Vec::new();
        }
        self.every_namespace().into_iter().filter(|it| self.is_covered(it)).collect()
    }

    /// Whether pods of a namespace may be subjects. Of one that nobody has told of yet, those are that have pods here, or
    /// policies.
    pub(super) fn is_covered(&self, namespace: &str) -> bool {
        let labels = self.index.namespace_labels(namespace);
        let exists =
            || self.index.own_of(namespace).next().is_some() || self.policies_of(namespace).next().is_some();
        self.cluster.compiled().any(|(_, it)| it.covers(labels)) && (labels.is_some() || exists())
    }

    fn every_namespace(&self) -> BTreeSet<String> {
        let known = self.index.all_namespaces().map(|(name, _)| name);
        let of_pods = self.index.all_own().map(|own| own.name.namespace.as_str());
        let of_policies = self.policies.keys().map(|name| name.namespace.as_str());
        known.chain(of_pods).chain(of_policies).map(str::to_owned).collect()
    }

    /// The chains of a pod of this node, in each direction.
    pub(super) fn tiers_of(&self, own: &OwnPod<'_>) -> [[Chosen; 2]; 2] {
        self.chosen(&own.name.namespace, |policy| {
            policy.subject.pods.matches(own.member.labels).then_some(true)
        })
    }

    /// Those of a pod of the namespace that is not known yet. A policy about all pods is about it, any other may be.
    pub(super) fn tiers_of_hold(&self, namespace: &str) -> [[Chosen; 2]; 2] {
        self.chosen(namespace, |policy| Some(policy.subject.pods.is_empty()))
    }

    fn chosen(&self, namespace: &str, choose: impl Fn(&CompiledCluster) -> Option<bool>) -> [[Chosen; 2]; 2] {
        let labels = self.index.namespace_labels(namespace);
        let of_tier = AROUND.map(|tier| self.cluster.covering(tier, labels));
        BOTH.map(|direction| {
            of_tier.each_ref().map(|policies| {
                let having = policies.iter().filter(|(_, it)| !it.rules(direction).is_empty());
                having.filter_map(|(name, it)| Some(((*name).to_owned(), choose(it)?))).collect()
            })
        })
    }

    pub(super) fn build_tiers(&mut self, chosen: [[Chosen; 2]; 2]) -> [Around; 2] {
        let [ingress, egress] = chosen;
        let mut build = |direction, [admin, baseline]: [Chosen; 2]| {
            [
                self.cluster.build(direction, Tier::Admin, &admin),
                self.cluster.build(direction, Tier::Baseline, &baseline),
            ]
        };
        [build(Direction::Ingress, ingress), build(Direction::Egress, egress)]
    }
}
