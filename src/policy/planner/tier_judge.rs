//! What ClusterNetworkPolicies say of a flow, from the policies, not from the plan.

use std::net::IpAddr;

use crate::policy::cluster::build::too_large;
use crate::policy::cluster::compile::TierRule;
use crate::policy::evaluate::{Flow, Refusal, TierRuleName, Verdict};
use crate::policy::index::{Member, OwnPod};
use crate::policy::object::ObjectName;
use crate::policy::plan::{Action, Direction, Isolation, Tier};
use crate::policy::planner::Planner;

impl Planner {
    /// What a tier decides; none where that is the next one's business. A rule that says so is added to `passed`.
    pub(super) fn judge_tier(
        &self,
        tier: Tier,
        direction: Direction,
        own: &OwnPod<'_>,
        peer: IpAddr,
        flow: &Flow,
        passed: &mut Vec<TierRuleName>,
    ) -> Option<Verdict> {
        let labels = self.index.namespace_labels(&own.name.namespace);
        let mut policies = self.cluster.covering(tier, labels);
        policies
            .retain(|(_, it)| !it.rules(direction).is_empty() && it.subject.pods.matches(own.member.labels));
        let around = self.plan.pods.get(own.uid).map(|pod| pod.tiers.of(direction));
        let is_closed = around.is_some_and(|around| {
            *(if tier == Tier::Admin { &around.admin } else { &around.baseline }) == Isolation::Closed
        });
        if is_closed {
            let why = too_large(direction).to_string();
            let refusals = policies.iter().map(|(name, _)| Refusal {
                policy: ObjectName { namespace: String::new(), name: (*name).to_owned() },
                invalid: Some(why.clone()),
                nearest: None,
            });
            return Some(Verdict::Denied(refusals.collect()));
        }
        let members: Vec<Member<'_>> = self.index.with_address(peer).collect();
        let mut rules = policies
            .into_iter()
            .flat_map(|(name, policy)| policy.rules(direction).iter().map(move |rule| (name, rule)));
        let (name, rule) = rules.find(|(_, rule)| matches(rule, &members, peer, flow))?;
        let found = TierRuleName::new(tier, name, direction, rule);
        match rule.action {
            Action::Accept => Some(Verdict::Accepted(found)),
            Action::Deny => Some(Verdict::Forbidden(found)),
            Action::Pass => {
                passed.push(found);
                None
            }
        }
    }
}

fn matches(rule: &TierRule, members: &[Member<'_>], peer: IpAddr, flow: &Flow) -> bool {
    let is_peer = rule.peers.as_ref().is_none_or(|peers| {
        let is_selected = |member: &Member<'_>| peers.groups.iter().any(|group| group.has(member));
        peers.blocks.contains(peer) || members.iter().any(is_selected)
    });
    let is_port = rule.ports.as_ref().is_none_or(|ports| {
        ports.iter().any(|(protocol, first, last)| {
            *protocol == flow.protocol && (*first..=*last).contains(&flow.port)
        })
    });
    is_peer && is_port
}
