//! From what the API server says to what the table must be.

use std::net::IpAddr;

use crate::policy::evaluate::{Flow, Judgement, Verdict};
use crate::policy::object::{Event, ObjectName};
use crate::policy::plan::{Plan, Touched};

/// All that is known of policies, namespaces and pods, and the plan that follows. Incremental: a pod's event costs the
/// selectors in use on this node, never all pods.
#[derive(Debug, Default)]
pub struct Planner {
    plan: Plan,
    touched: Touched,
}

/// Something about a policy that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which policy.
    pub policy: ObjectName,
    /// What about it.
    pub what: What,
}

/// What may be about a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It cannot be compiled; its pods are closed.
    Invalid {
        /// The field, as `spec.ingress[0].from[1].ipBlock.cidr`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No pod of the cluster that has an address and is not in a node's network.
    SelectsNobody,
}

impl Planner {
    /// Of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what the API server says.
    pub fn apply(&mut self, _event: Event) {}

    /// What addresses this node's records say a pod has. They count at once, and instead of those of the API; none: the
    /// pod has no record any more. May be said before the API tells of the pod.
    pub fn set_own_addresses(&mut self, _uid: &str, _addresses: &[IpAddr]) {}

    /// Forgets the pods of all nodes, and that they were listed: for whoever ends that watch.
    pub fn forget_any_pods(&mut self) {}

    /// Whether everything that the plan needs has been listed once. Before, the plan stays as it was.
    pub fn is_complete(&self) -> bool {
        false
    }

    /// Whether the pods of all nodes are needed: a NetworkPolicy exists.
    pub fn needs_any_pods(&self) -> bool {
        false
    }

    /// What the table must be.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What of the plan may have changed since this was last asked.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Policies that cannot be compiled, and those that select no pod. Looks at all pods of their namespaces.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What policies say of a flow, and why. Looks at all pods: for people, not for each packet (see [`Plan::walk`]).
    pub fn judge(&self, _flow: &Flow) -> Judgement {
        Judgement { egress: Verdict::NotOfThisNode, ingress: Verdict::NotOfThisNode }
    }
}
