//! What is said of policies, once each: those that cannot be compiled, watches that are refused, pods that are held.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};

use crate::agent::k8s::policy_watches::Kind;
use crate::agent::serve::metrics::Metrics;
use crate::policy::cluster::object::ClusterPolicy;
use crate::policy::object::{Event, Feed, ObjectName};
use crate::policy::planner::{Problem, What};
use crate::policy::selector::Invalid;

/// How many of a kind are logged one by one.
const SHOWN: usize = 16;

/// What was said.
#[derive(Debug, Default)]
pub struct Said {
    /// What is wrong with policies, by their name and the field, and what follows from it.
    invalid: BTreeMap<(ObjectName, String), (String, String)>,
    idle: BTreeSet<ObjectName>,
    /// Watches that fail, each with whether it is refused.
    failing: BTreeMap<Kind, bool>,
    policies: Names,
    cluster_policies: Names,
    /// Whether it was said that the API server has no ClusterNetworkPolicies.
    is_absent: bool,
}

/// Objects of a kind.
#[derive(Debug, Default)]
struct Names {
    all: BTreeSet<ObjectName>,
    listed: Option<BTreeSet<ObjectName>>,
}

impl Names {
    /// Hears of one; returns how many there are.
    fn hear<T>(&mut self, feed: &Feed<T>, name: impl Fn(&T) -> ObjectName) -> i64 {
        match feed {
            Feed::ListBegins => self.listed = Some(BTreeSet::new()),
            Feed::Listed(it) => {
                self.listed.get_or_insert_default().insert(name(it));
            }
            Feed::ListEnds => self.all = self.listed.take().unwrap_or_default(),
            Feed::Changed(it) => {
                self.all.insert(name(it));
            }
            Feed::Gone(name) => {
                self.all.remove(name);
            }
        }
        self.all.len().try_into().unwrap_or(i64::MAX)
    }
}

impl Said {
    /// A watch failed.
    pub fn failed(&mut self, kind: Kind, reason: &str, is_refusal: bool, metrics: &Metrics) {
        metrics.step_failed("policy_watch");
        debug!(resource = kind.resource(), reason, "watch failed");
        let before = self.failing.insert(kind, is_refusal);
        if is_refusal && before != Some(true) {
            let remedy = match kind {
                Kind::ClusterPolicies => {
                    "apply the ClusterRole of this version; until then no ClusterNetworkPolicy is heard of"
                }
                _ => "apply the ClusterRole of this version; until then policies stay as they are",
            };
            warn!(resource = kind.resource(), reason, remedy, "API server refuses what NetworkPolicy needs");
        }
    }

    /// A watch works.
    pub fn works(&mut self, kind: Kind) {
        if self.failing.remove(&kind) == Some(true) {
            info!(resource = kind.resource(), "API server allows what NetworkPolicy needs");
        }
    }

    /// The API server has no such resource. Most have not.
    pub fn absent(&mut self, kind: Kind) {
        if !std::mem::replace(&mut self.is_absent, true) {
            info!(resource = kind.resource(), "API server has no such resource, asking again now and then");
        }
        self.works(kind);
    }

    /// Counts policies.
    pub fn count(&mut self, event: &Event, metrics: &Metrics) {
        match event {
            Event::Policy(feed) => {
                metrics.policy.policies.set(self.policies.hear(feed, |it| it.name.clone()));
            }
            Event::ClusterPolicy(feed) => {
                let name = |it: &ClusterPolicy| of_cluster(&it.name);
                metrics.policy.cluster_policies.set(self.cluster_policies.hear(feed, name));
            }
            _ => {}
        }
    }

    /// Says what is new about policies.
    pub fn problems(&mut self, problems: Vec<Problem>, metrics: &Metrics) {
        let (mut invalid, mut idle) = (BTreeMap::new(), BTreeSet::new());
        for Problem { policy, what } in problems {
            match what {
                What::Invalid(Invalid { field, reason }) => {
                    invalid.insert((policy, field), (reason, "its pods are closed".to_owned()));
                }
                What::Unclear(Invalid { field, reason }, consequence) => {
                    invalid.insert((policy, field), (reason, consequence.to_string()));
                }
                What::SelectsNobody => {
                    idle.insert(policy);
                }
            }
        }
        let is_new =
            |(key, what): &(&(ObjectName, String), &(String, String))| self.invalid.get(*key) != Some(*what);
        for ((policy, field), (reason, consequence)) in invalid.iter().filter(is_new).take(SHOWN) {
            warn!(%policy, field, reason, consequence, "policy invalid");
        }
        for (policy, field) in self.invalid.keys().filter(|key| !invalid.contains_key(*key)).take(SHOWN) {
            info!(%policy, field, "policy no longer invalid");
        }
        for policy in idle.difference(&self.idle).take(SHOWN) {
            debug!(%policy, "policy selects no pod");
        }
        let policies: BTreeSet<&ObjectName> = invalid.keys().map(|(policy, _)| policy).collect();
        metrics.policy.problems("invalid", policies.len());
        metrics.policy.problems("selects_nobody", idle.len());
        (self.invalid, self.idle) = (invalid, idle);
    }
}

fn of_cluster(name: &str) -> ObjectName {
    ObjectName { namespace: String::new(), name: name.to_owned() }
}
