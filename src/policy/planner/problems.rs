//! What authors of policies should know about them.

use std::collections::BTreeSet;

use crate::policy::build::{Named, too_large};
use crate::policy::cluster;
use crate::policy::cluster::compile::{CompiledCluster, Consequence};
use crate::policy::compile::Compiled;
use crate::policy::object::ObjectName;
use crate::policy::plan::{Around, Direction, Isolation, Tier};
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
    /// It cannot be compiled, by itself or with the other policies of its pods; its pods are closed.
    Invalid(Invalid),
    /// A part of it cannot be understood, of which this is the consequence. Of ClusterNetworkPolicies only, whose names have
    /// no namespace.
    Unclear(Invalid, Consequence),
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
        problems.chain(self.too_large()).chain(self.cluster_problems(is_complete)).collect()
    }

    fn cluster_problems(&self, is_complete: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, compiled) in self.cluster.compiled() {
            let policy = ObjectName { namespace: String::new(), name: name.to_owned() };
            let unclear = compiled.unclear.iter();
            let unclear = unclear.map(|(invalid, consequence)| What::Unclear(invalid.clone(), *consequence));
            let mut found: Vec<What> = unclear.collect();
            found.extend(self.too_large_together(compiled).map(What::Invalid));
            let is_in_force = found.iter().all(|it| !matches!(it, What::Unclear(_, Consequence::NotInForce)));
            let own = self.index.all_own().map(|own| own.member);
            let mut pods = self.index.all_any().chain(own);
            if is_complete && is_in_force && !pods.any(|pod| compiled.subject.has(&pod)) {
                found.push(What::SelectsNobody);
            }
            problems.extend(found.into_iter().map(|what| Problem { policy: policy.clone(), what }));
        }
        problems
    }

    /// Why pods of a ClusterNetworkPolicy are closed, if some are.
    fn too_large_together(&self, compiled: &CompiledCluster) -> Option<Invalid> {
        [Direction::Ingress, Direction::Egress].into_iter().find_map(|direction| {
            if compiled.rules(direction).is_empty() {
                return None;
            }
            let is_closed = |around: &Around| {
                *(if compiled.tier == Tier::Admin { &around.admin } else { &around.baseline })
                    == Isolation::Closed
            };
            let mut pods = self.index.all_own().filter(|own| compiled.subject.has(&own.member));
            let closed_pod = pods
                .any(|own| self.plan.pods.get(own.uid).is_some_and(|pod| is_closed(pod.tiers.of(direction))));
            let mut holds = self.plan.holds.iter().filter(|(_, hold)| is_closed(hold.tiers.of(direction)));
            let mut closed_hold =
                || holds.any(|(namespace, _)| compiled.covers(self.index.namespace_labels(namespace)));
            (closed_pod || closed_hold()).then(|| cluster::build::too_large(direction))
        })
    }

    /// Policies of pods that are closed although each of their policies can be compiled: together they are too large.
    fn too_large(&self) -> impl Iterator<Item = Problem> {
        let mut found: BTreeSet<(&ObjectName, Direction)> = BTreeSet::new();
        let closed = |isolation: &Isolation| *isolation == Isolation::Closed;
        for direction in [Direction::Ingress, Direction::Egress] {
            for own in self.index.all_own() {
                if self.plan.pods.get(own.uid).is_some_and(|plan| closed(plan.of(direction))) {
                    let selects = |it: &Compiled| it.selector.matches(own.member.labels);
                    found.extend(self.compiled_together(&own.name.namespace, direction, selects));
                }
            }
            for (namespace, _) in self.plan.holds.iter().filter(|(_, hold)| closed(hold.of(direction))) {
                found.extend(self.compiled_together(namespace, direction, |it| it.selector.is_empty()));
            }
        }
        let problem = |(policy, direction): (&ObjectName, Direction)| Problem {
            policy: policy.clone(),
            what: What::Invalid(too_large(direction)),
        };
        found.into_iter().map(problem).collect::<Vec<_>>().into_iter()
    }

    /// The policies that isolate whom they select, unless one of them cannot be compiled.
    fn compiled_together(
        &self,
        namespace: &str,
        direction: Direction,
        selects: impl Fn(&Compiled) -> bool,
    ) -> Vec<(&ObjectName, Direction)> {
        let policies = self.policies_of(namespace);
        let isolating: Vec<Named<'_>> =
            policies.filter(|(_, it)| it.isolates(direction) && selects(it)).collect();
        match isolating.iter().any(|(_, it)| it.rules.is_err()) {
            true => Vec::new(),
            false => isolating.into_iter().map(|(name, _)| (name, direction)).collect(),
        }
    }
}
