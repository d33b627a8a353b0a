//! What is said of policies, once each: those that cannot be compiled, watches that are refused, pods that are held.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};

use crate::agent::k8s::policy_watches::Kind;
use crate::agent::serve::metrics::Metrics;
use crate::policy::object::{Event, Feed, ObjectName};
use crate::policy::planner::{Problem, What};
use crate::policy::selector::Invalid;

/// How many of a kind are logged one by one.
const SHOWN: usize = 16;

/// What was said.
#[derive(Debug, Default)]
pub struct Said {
    /// What is wrong with policies, by their name and the field.
    invalid: BTreeMap<(ObjectName, String), String>,
    idle: BTreeSet<ObjectName>,
    /// Watches that fail, each with whether it is refused.
    failing: BTreeMap<Kind, bool>,
    policies: BTreeSet<ObjectName>,
    listed: Option<BTreeSet<ObjectName>>,
}

impl Said {
    /// A watch failed.
    pub fn failed(&mut self, kind: Kind, reason: &str, is_refusal: bool, metrics: &Metrics) {
        metrics.step_failed("policy_watch");
        debug!(resource = kind.resource(), reason, "watch failed");
        let before = self.failing.insert(kind, is_refusal);
        if is_refusal && before != Some(true) {
            let remedy = "apply the ClusterRole of this version; until then policies stay as they are";
            warn!(resource = kind.resource(), reason, remedy, "API server refuses what NetworkPolicy needs");
        }
    }

    /// A watch works.
    pub fn works(&mut self, kind: Kind) {
        if self.failing.remove(&kind) == Some(true) {
            info!(resource = kind.resource(), "API server allows what NetworkPolicy needs");
        }
    }

    /// Counts policies.
    pub fn count(&mut self, event: &Event, metrics: &Metrics) {
        let Event::Policy(feed) = event else { return };
        match feed {
            Feed::ListBegins => self.listed = Some(BTreeSet::new()),
            Feed::Listed(policy) => {
                self.listed.get_or_insert_default().insert(policy.name.clone());
            }
            Feed::ListEnds => self.policies = self.listed.take().unwrap_or_default(),
            Feed::Changed(policy) => {
                self.policies.insert(policy.name.clone());
            }
            Feed::Gone(name) => {
                self.policies.remove(name);
            }
        }
        metrics.policy.policies.set(self.policies.len().try_into().unwrap_or(i64::MAX));
    }

    /// Says what is new about policies.
    pub fn problems(&mut self, problems: Vec<Problem>, metrics: &Metrics) {
        let (mut invalid, mut idle) = (BTreeMap::new(), BTreeSet::new());
        for Problem { policy, what } in problems {
            match what {
                What::Invalid(Invalid { field, reason }) => {
                    invalid.insert((policy, field), reason);
                }
                What::SelectsNobody => {
                    idle.insert(policy);
                }
            }
        }
        let is_new =
            |(key, reason): &(&(ObjectName, String), &String)| self.invalid.get(*key) != Some(*reason);
        for ((policy, field), reason) in invalid.iter().filter(is_new).take(SHOWN) {
            let consequence = "its pods are closed";
            warn!(policy = show(policy), field, reason, consequence, "policy invalid");
        }
        for (policy, field) in self.invalid.keys().filter(|key| !invalid.contains_key(*key)).take(SHOWN) {
            info!(policy = show(policy), field, "policy no longer invalid");
        }
        for policy in idle.difference(&self.idle).take(SHOWN) {
            debug!(policy = show(policy), "policy selects no pod");
        }
        let policies: BTreeSet<&ObjectName> = invalid.keys().map(|(policy, _)| policy).collect();
        metrics.policy.problems("invalid", policies.len());
        metrics.policy.problems("selects_nobody", idle.len());
        (self.invalid, self.idle) = (invalid, idle);
    }
}

fn show(name: &ObjectName) -> String {
    format!("{}/{}", name.namespace, name.name)
}
