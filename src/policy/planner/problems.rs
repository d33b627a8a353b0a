//! What authors of policies should know about them.

use crate::policy::object::ObjectName;
use crate::policy::planner::Planner;
use crate::policy::selector::Invalid;

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
    Invalid(Invalid),
    /// It selects no pod of the cluster that has an address and is not in a node's network.
    SelectsNobody,
}

impl Planner {
    /// Policies that cannot be compiled, and those that select no pod. Looks at all pods of their namespaces.
    pub fn problems(&self) -> Vec<Problem> {
        let is_complete = self.is_complete();
        let problem = |name: &ObjectName, what| Some(Problem { policy: name.clone(), what });
        let problems = self.policies.iter().filter_map(|(name, (compiled, _))| {
            if let Err(invalid) = &compiled.rules {
                return problem(name, What::Invalid(invalid.clone()));
            }
            let own = self.index.own_of(&name.namespace).map(|own| own.member);
            let mut pods = self.index.any_of(&name.namespace).chain(own);
            let selects_nobody = is_complete && !pods.any(|pod| compiled.selector.matches(pod.labels));
            if selects_nobody { problem(name, What::SelectsNobody) } else { None }
        });
        problems.collect()
    }
}
