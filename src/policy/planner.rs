//! From what the API server says to what the table must be.
//!
//! ```text
//! event -> index, policies -> a pod of this node: which policies select it -> its chains
//!                          -> any pod: which sets in use it is in, before and after
//! ```
//!
//! | file         | what it is                                                                        |
//! |--------------|-----------------------------------------------------------------------------------|
//! | `isolation`  | which chains of NetworkPolicies pods have, and those that are held                |
//! | `tiers`      | the same of ClusterNetworkPolicies                                                |
//! | `judge`      | why a flow is allowed or denied, from what the API server said, not from the plan |
//! | `tier_judge` | the same of ClusterNetworkPolicies                                                |
//! | `problems`   | what authors of policies should know about them                                   |
//! | `objects`    | what the planner knows, as a document                                             |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::policy::compile::Compiled;
use crate::policy::index::{Index, OwnPod};
use crate::policy::live::{Claims, Live};
use crate::policy::object::{Event, Feed, Namespace, ObjectName, Pod, Policy};
use crate::policy::plan::{Plan, Touched};

mod isolation;
mod judge;
mod objects;
mod problems;
mod tier_judge;
mod tiers;

use isolation::Again;
pub use objects::View;
pub use problems::{Problem, What};
use tiers::ClusterPolicies;

/// All that is known of policies, namespaces and pods, and the plan that follows. Incremental: a pod's event costs the
/// selectors in use on this node, never all pods.
#[derive(Debug, Default)]
pub struct Planner {
    index: Index,
    policies: BTreeMap<ObjectName, (Compiled, u16)>,
    /// The policies as they came, in JSON: for people. A compiled one does not say how it was written.
    written: BTreeMap<ObjectName, Box<str>>,
    cluster: ClusterPolicies,
    plan: Plan,
    live: Live,
    touched: Touched,
    /// What is to be planned again, by namespace.
    again: BTreeMap<String, Again>,
    /// Whether the plan follows. It does from the first moment on at which everything is known.
    follows: bool,
    policy_list: Listing,
    namespace_list: Listing,
    own_list: Listing,
    any_list: Listing,
}

/// How far the complete lists of a kind have come.
#[derive(Debug, Default, Clone, Copy)]
struct Listing {
    generation: u16,
    is_listed: bool,
}

impl Listing {
    fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }
}

impl Planner {
    /// Of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what the API server says, and plans.
    pub fn apply(&mut self, event: Event) {
        self.hear(event);
        self.settle();
    }

    /// Takes in what the API server says. Chains are planned later, by [`Self::settle`] or [`Self::take_touched`]: once,
    /// however much was heard meanwhile.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Policy(feed) => self.on_policy(feed),
            Event::Namespace(feed) => self.on_namespace(feed),
            Event::OwnPod(feed) => self.on_own_pod(feed),
            Event::AnyPod(feed) => self.on_any_pod(feed),
            Event::ClusterPolicy(feed) => self.on_cluster_policy(feed),
        }
        self.follow();
    }

    /// What addresses this node's records say a pod has. They count at once, and instead of those of the API; none: the
    /// pod has no record any more. May be said before the API tells of the pod.
    pub fn set_own_addresses(&mut self, uid: &str, addresses: &[IpAddr]) {
        let name = self.index.own_by_uid(uid).cloned();
        let before = name.as_ref().map(|name| self.claims_of_own(name)).unwrap_or_default();
        self.index.set_recorded(uid, addresses);
        let after = name.as_ref().map(|name| self.claims_of_own(name)).unwrap_or_default();
        self.change_claims(&before, &after);
    }

    /// Plans what changed since the last time.
    pub fn settle(&mut self) {
        // What is not followed is planned as a whole later.
        for (namespace, again) in std::mem::take(&mut self.again) {
            if self.follows {
                self.plan_namespace(&namespace, true, &again);
            }
        }
    }

    /// Whether the plan may change, or has, since [`Self::take_touched`].
    pub fn is_touched(&self) -> bool {
        !self.again.is_empty() || self.touched != Touched::default()
    }

    /// Forgets the pods of all nodes, and that they were listed: for whoever ends that watch.
    pub fn forget_any_pods(&mut self) {
        self.settle();
        self.any_list.is_listed = false;
        // Without a policy the plan is empty, and goes on being followed. With one it stays as it is until they are
        // listed again.
        self.follows &= self.is_complete();
        self.index.clear_any();
    }

    /// Whether everything that the plan needs has been listed once. Before, the plan stays as it was.
    pub fn is_complete(&self) -> bool {
        let always = [self.policy_list, self.namespace_list, self.own_list].iter().all(|list| list.is_listed);
        always && self.cluster.is_listed() && (self.any_list.is_listed || !self.needs_any_pods())
    }

    /// Whether the pods of all nodes are needed: a NetworkPolicy exists, or a ClusterNetworkPolicy.
    pub fn needs_any_pods(&self) -> bool {
        !self.policies.is_empty() || !self.cluster.is_empty()
    }

    /// What the table must be, as of when it was last settled.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A pod that has this address, of whatever node, as `namespace/name`. Looks at all pods.
    pub fn name_of(&self, address: IpAddr) -> Option<String> {
        self.index.name_of(address)
    }

    /// Plans, and tells what of the plan may have changed since this was last asked.
    pub fn take_touched(&mut self) -> Touched {
        self.settle();
        std::mem::take(&mut self.touched)
    }

    /// From now on, if everything is known and was not before; not any more, if a first policy needs more.
    fn follow(&mut self) {
        let is_complete = self.is_complete();
        if is_complete && !self.follows {
            self.follows = true;
            self.plan_anew();
        }
        self.follows = is_complete;
    }

    fn plan_anew(&mut self) {
        (self.plan, self.live) = (Plan::default(), Live::default());
        self.touched = Touched::everything();
        self.again.clear();
        let mut namespaces: BTreeSet<String> =
            self.policies.keys().map(|name| name.namespace.clone()).collect();
        namespaces.extend(self.covered_namespaces());
        for namespace in namespaces {
            self.plan_namespace(&namespace, false, &Again { all: true, ..Again::default() });
        }
        // All sets are there: each pod is looked at once, however many they are.
        for member in self.index.all_any().chain(self.index.all_own().map(|own| own.member)) {
            let claims = self.live.claims(&member);
            self.live.change(&mut self.plan, &mut self.touched, &Claims::new(), &claims);
        }
    }

    fn on_policy(&mut self, feed: Feed<Policy>) {
        match feed {
            Feed::ListBegins => self.policy_list.begin(),
            Feed::Listed(policy) | Feed::Changed(policy) => {
                let compiled = Compiled::new(&policy);
                // Texts, numbers and lists: serialising them cannot fail.
                let written = serde_json::to_string(&policy).unwrap_or_default();
                self.written.insert(policy.name.clone(), written.into());
                self.change_policy(policy.name, Some(compiled));
            }
            Feed::Gone(name) => self.change_policy(name, None),
            Feed::ListEnds => {
                let now = self.policy_list.generation;
                let stale = self.policies.iter().filter(|(_, it)| it.1 != now).map(|(name, _)| name.clone());
                for name in stale.collect::<Vec<_>>() {
                    self.change_policy(name, None);
                }
                self.policy_list.is_listed = true;
            }
        }
    }

    fn change_policy(&mut self, name: ObjectName, after: Option<Compiled>) {
        let namespace = name.namespace.clone();
        let directions = self.directions(&namespace);
        let generation = self.policy_list.generation;
        let before = match &after {
            Some(after) => self.policies.insert(name, (after.clone(), generation)),
            None => {
                self.written.remove(&name);
                self.policies.remove(&name)
            }
        };
        let before = before.map(|(compiled, _)| compiled);
        // A first policy may need pods of which nothing is known yet: the plan is to wait for them.
        if !self.follows || !self.is_complete() || before == after {
            return;
        }
        let all = directions != self.directions(&namespace);
        let again = self.again.entry(namespace.clone()).or_default();
        again.all |= all;
        // Of others nothing is certain for a pod that is not known.
        again.hold |= [&before, &after].into_iter().flatten().any(|it| it.selector.is_empty());
        for own in self.index.own_of(&namespace) {
            let mut both = [&before, &after].into_iter().flatten();
            if !again.all && both.any(|it| it.selector.matches(own.member.labels)) {
                again.pods.entry(own.name.name.clone()).or_default();
            }
        }
    }

    fn on_namespace(&mut self, feed: Feed<Namespace>) {
        match feed {
            Feed::ListBegins => self.namespace_list.begin(),
            Feed::Listed(namespace) | Feed::Changed(namespace) => {
                let generation = self.namespace_list.generation;
                let name = namespace.name.clone();
                self.change_namespace(&name, |index| index.put_namespace(&namespace, generation));
            }
            Feed::Gone(name) => self.change_namespace(&name.name, |index| index.remove_namespace(&name.name)),
            Feed::ListEnds => {
                for name in self.index.stale_namespaces(self.namespace_list.generation) {
                    self.change_namespace(&name, |index| index.remove_namespace(&name));
                }
                self.namespace_list.is_listed = true;
            }
        }
    }

    /// Its pods are in other sets if its labels are others.
    fn change_namespace(&mut self, name: &str, change: impl FnOnce(&mut Index)) {
        let before: Option<Vec<_>> = self.index.namespace_labels(name).map(<[_]>::to_vec);
        let claims: Vec<Claims> = if self.follows { self.claims_in(name) } else { Vec::new() };
        change(&mut self.index);
        if !self.follows || self.index.namespace_labels(name) == before.as_deref() {
            return;
        }
        for (before, after) in claims.iter().zip(self.claims_in(name)) {
            self.change_claims(before, &after);
        }
        if !self.cluster.is_empty() {
            // By its labels it is chosen whose subjects its pods are.
            self.again.entry(name.to_owned()).or_default().all = true;
        }
    }

    fn claims_in(&self, namespace: &str) -> Vec<Claims> {
        let own = self.index.own_of(namespace).map(|own| own.member);
        self.index.any_of(namespace).chain(own).map(|member| self.live.claims(&member)).collect()
    }

    fn on_own_pod(&mut self, feed: Feed<Pod>) {
        match feed {
            Feed::ListBegins => self.own_list.begin(),
            Feed::Listed(pod) | Feed::Changed(pod) => {
                let generation = self.own_list.generation;
                self.change_own(&pod.name, |index| index.put_own(&pod, generation));
            }
            Feed::Gone(name) => self.change_own(&name, |index| index.remove_own(&name)),
            Feed::ListEnds => {
                for name in self.index.stale_own(self.own_list.generation) {
                    self.change_own(&name, |index| index.remove_own(&name));
                }
                self.own_list.is_listed = true;
            }
        }
    }

    fn change_own(&mut self, name: &ObjectName, change: impl FnOnce(&mut Index)) {
        let claims = self.claims_of_own(name);
        let chosen_by =
            |own: OwnPod<'_>| (own.uid.to_owned(), own.member.labels.to_vec(), own.member.ports.to_vec());
        let before = self.index.own(name).map(chosen_by);
        change(&mut self.index);
        if !self.follows {
            return;
        }
        // Before its chains change: sets that come with them find the pod in the index.
        let after = self.claims_of_own(name);
        self.change_claims(&claims, &after);
        // Of its state and its addresses no chain knows.
        let is_same = self.index.own(name).map(chosen_by) == before;
        let is_nobody = !self.needs_any_pods() && self.plan.pods.is_empty();
        if !is_same && !is_nobody {
            let again = self.again.entry(name.namespace.clone()).or_default();
            again.pods.entry(name.name.clone()).or_default().extend(before.map(|(uid, ..)| uid));
            // With its first pod a namespace is there, although nobody has told of it yet.
            let is_new = !self.cluster.is_empty() && self.index.namespace_labels(&name.namespace).is_none();
            again.all |= is_new;
        }
    }

    fn on_any_pod(&mut self, feed: Feed<Pod>) {
        match feed {
            Feed::ListBegins => self.any_list.begin(),
            Feed::Listed(pod) | Feed::Changed(pod) => {
                let generation = self.any_list.generation;
                self.change_any(&pod.name, |index| index.put_any(&pod, generation));
            }
            Feed::Gone(name) => self.change_any(&name, |index| index.remove_any(&name)),
            Feed::ListEnds => {
                for key in self.index.stale_rows(self.any_list.generation) {
                    let before = self.index.row(key).filter(|_| self.follows);
                    let before = before.map(|member| self.live.claims(&member)).unwrap_or_default();
                    self.index.remove_row(key);
                    self.change_claims(&before, &Claims::new());
                }
                self.any_list.is_listed = true;
            }
        }
    }

    fn change_any(&mut self, name: &ObjectName, change: impl FnOnce(&mut Index)) {
        let before = self.claims_of_any(name);
        change(&mut self.index);
        let after = self.claims_of_any(name);
        self.change_claims(&before, &after);
    }

    fn claims_of_own(&self, name: &ObjectName) -> Claims {
        let own = self.index.own(name).filter(|_| self.follows);
        own.map(|own| self.live.claims(&own.member)).unwrap_or_default()
    }

    fn claims_of_any(&self, name: &ObjectName) -> Claims {
        let any = self.index.any(name).filter(|_| self.follows);
        any.map(|member| self.live.claims(&member)).unwrap_or_default()
    }

    fn change_claims(&mut self, before: &Claims, after: &Claims) {
        self.live.change(&mut self.plan, &mut self.touched, before, after);
    }

    #[cfg(test)]
    pub(super) fn index_bytes(&self) -> usize {
        self.index.bytes()
    }
}
