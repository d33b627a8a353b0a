//! What the API server says, and what is due for it.

use tokio::time::Instant;
use tracing::debug;

use super::{Driver, GATHER, PAUSE};
use crate::agent::k8s::policy_watches::{Kind, PolicyMessage, PolicyWatches};
use crate::policy::object::{Event, Feed};

/// How often the API server must say that it has no such resource, one time after the other, until policies go that are in
/// force: one that has just started may not know of it yet. That takes some seconds.
const ABSENCES: u32 = 6;

impl Driver {
    /// The API server says something.
    pub(super) fn on_message(&mut self, message: PolicyMessage, watches: Option<&mut PolicyWatches>) {
        let (event, at) = match message {
            PolicyMessage::Error { kind, reason, is_refusal } => {
                self.said.failed(kind, &reason, is_refusal, &self.metrics);
                // Without the right to ask for them nothing else must wait, unless they are in force.
                let is_unheard = is_refusal && !self.planner.has_cluster_policies_listed();
                if kind == Kind::ClusterPolicies && is_unheard && self.mirror.has_tiers() == Some(false) {
                    self.hear_of_no_cluster_policies(watches);
                }
                return;
            }
            // Each API server has those: somebody else answers in its place, such as a proxy whose servers are away.
            PolicyMessage::Absent { kind } if kind != Kind::ClusterPolicies => {
                self.said.failed(kind, "the API server has no such resource", false, &self.metrics);
                self.absences = 0;
                return;
            }
            PolicyMessage::Absent { kind } => {
                self.said.absent(kind);
                self.absences += 1;
                let enough = if self.mirror.has_tiers() == Some(false) { 1 } else { ABSENCES };
                if self.absences >= enough {
                    self.hear_of_no_cluster_policies(watches);
                }
                return;
            }
            PolicyMessage::Resumed { kind } => return self.said.works(kind),
            PolicyMessage::Event { event, at } => (event, at),
        };
        self.said.works(kind_of(&event));
        if kind_of(&event) == Kind::ClusterPolicies {
            self.absences = 0;
        }
        self.on_event(event, at, watches);
    }

    /// None of them exists, as far as the API server tells.
    fn hear_of_no_cluster_policies(&mut self, mut watches: Option<&mut PolicyWatches>) {
        if self.planner.knows_no_cluster_policy() {
            return;
        }
        for feed in [Feed::ListBegins, Feed::ListEnds] {
            self.on_event(Event::ClusterPolicy(feed), Instant::now(), watches.as_deref_mut());
        }
    }

    fn on_event(&mut self, event: Event, at: Instant, watches: Option<&mut PolicyWatches>) {
        self.said.count(&event, &self.metrics);
        self.is_said_stale |= matches!(event, Event::Policy(_) | Event::ClusterPolicy(_));
        self.keeping.want_after(&event);
        self.planner.hear(event);
        let needs_any_pods = self.planner.needs_any_pods();
        if watches.is_some_and(|it| it.follow_any_pods(needs_any_pods)) {
            debug!(needs_any_pods, "pods of all nodes");
            if !needs_any_pods {
                self.planner.forget_any_pods();
            }
        }
        self.heard(at);
    }

    /// What follows for the plan is planned and applied soon, once all is known.
    fn heard(&mut self, said: Instant) {
        if !self.planner.is_complete() {
            return;
        }
        let is_first = !self.is_applied;
        if self.planner.is_touched() || is_first {
            self.due.touched.all |= is_first;
            if !is_first {
                self.due.said.get_or_insert(said);
            }
            let rest = self.applied_at.map(|at| (at + PAUSE).saturating_duration_since(Instant::now()));
            self.hurry(rest.map_or(GATHER, |rest| rest.max(GATHER)));
        }
    }
}

fn kind_of(event: &Event) -> Kind {
    match event {
        Event::Policy(_) => Kind::Policies,
        Event::Namespace(_) => Kind::Namespaces,
        Event::OwnPod(_) => Kind::OwnPods,
        Event::AnyPod(_) => Kind::AnyPods,
        Event::ClusterPolicy(_) => Kind::ClusterPolicies,
    }
}
