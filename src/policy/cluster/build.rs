//! From the policies of a tier that select a pod to their chain.
//!
//! The first rule that matches decides, so a port's chain has all rules that are about that port, those for all ports
//! among them, in their order, and a packet that was there meets no other rule of the tier. A rule looks into two sets at
//! most, one of pods and one of addresses, however many peers it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::policy::build::{Built, MOST_PAIRS};
use crate::policy::cluster::compile::{CompiledCluster, TierRule};
use crate::policy::content::{MOST_OWN_CHAINS, digest_of};
use crate::policy::evaluate::TierRuleName;
use crate::policy::names;
use crate::policy::plan::{Action, Chain, ChainRule, Direction, PeerMatch, PortRules, Tier};
use crate::policy::selector::Invalid;
use crate::policy::set_spec::{Content, SetSpec};

/// A policy of a tier, and whether it is certain that it selects the pod.
#[derive(Debug, Clone, Copy)]
pub struct Selecting<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it says.
    pub policy: &'a CompiledCluster,
    /// Whether it does. Of a pod that is not known yet that is not always known.
    pub is_certain: bool,
}

/// What became of a tier's rules.
#[derive(Debug, Clone)]
pub enum BuiltTier {
    /// No rule.
    Nothing,
    /// A chain.
    Chain(Arc<Built>),
    /// Too many: [`too_large`].
    TooLarge,
}

/// Why there is no chain.
pub fn too_large(direction: Direction) -> Invalid {
    let field = match direction {
        Direction::Ingress => "spec.ingress",
        Direction::Egress => "spec.egress",
    };
    let reason = format!(
        "has, with the other policies of the tier and the same pods, more than {MOST_PAIRS} rules, or combinations of \
         overlapping port ranges and rules; write fewer rules, or fewer ranges that overlap"
    );
    Invalid::new(field, reason)
}

/// The chain of the policies of one tier, in their order.
pub fn build_tier(direction: Direction, tier: Tier, policies: &[Selecting<'_>]) -> BuiltTier {
    let mut rules = Vec::new();
    for selecting in policies {
        for rule in selecting.policy.rules(direction) {
            let action =
                if selecting.is_certain { Some(rule.action) } else { if_uncertain(tier, rule.action) };
            let Some(action) = action else { continue };
            rules.push(Entry::new(direction, tier, selecting.name, rule, action));
        }
    }
    // What comes after a rule about everything is never asked.
    if let Some(last) = rules.iter().position(Entry::is_about_all) {
        rules.truncate(last + 1);
    }
    if rules.is_empty() {
        return BuiltTier::Nothing;
    }
    let Some(ports) = ports(direction, &rules) else { return BuiltTier::TooLarge };
    let mut seen = BTreeSet::new();
    let named = policies.iter().filter(|it| !it.policy.rules(direction).is_empty());
    let named = named.filter(|it| seen.insert(it.name)).map(|it| it.name.to_owned());
    let chain = Chain {
        direction,
        ports,
        // What lies between two ports of a group would miss the rules for all ports.
        groups: Vec::new(),
        rules: chain_rules(rules.iter().filter(|it| it.rule.ports.is_none())),
        policies: named.collect(),
        tier,
    };
    let name = names::tier_chain(tier, direction, &chain.digest());
    let sets: BTreeSet<Arc<SetSpec>> = rules
        .iter()
        .flat_map(|it| it.rule.peers.iter().flat_map(|peers| peers.sets.iter().cloned()))
        .collect();
    BuiltTier::Chain(Arc::new(Built { name, chain, sets: sets.into_iter().collect() }))
}

/// What a rule does to a pod of which nobody knows whether the rule is about it: no more than what is allowed either way.
fn if_uncertain(tier: Tier, action: Action) -> Option<Action> {
    match (tier, action) {
        (_, Action::Accept) => None,
        (_, Action::Deny) => Some(Action::Deny),
        // The rest of the tier, or what comes behind the tier: neither is certain.
        (Tier::Admin, Action::Pass) => Some(Action::Deny),
        // It allows; or the rest of the tier decides.
        (_, Action::Pass) => None,
    }
}

/// A rule of the tier.
struct Entry<'a> {
    rule: &'a TierRule,
    /// What it is in the table.
    made: Vec<ChainRule>,
}

impl<'a> Entry<'a> {
    fn new(direction: Direction, tier: Tier, policy: &str, rule: &'a TierRule, action: Action) -> Self {
        let name = TierRuleName::new(tier, policy, direction, rule);
        let comment = name.to_string();
        let made = match &rule.peers {
            None => vec![ChainRule { peer: PeerMatch::Any, comment, action }],
            Some(peers) => {
                let of_set = |set: &Arc<SetSpec>| ChainRule {
                    peer: match &set.content {
                        Content::Ports(_) => PeerMatch::AddressAndPort(set.name.clone()),
                        Content::Pods(_) | Content::Blocks(_) => PeerMatch::Address(set.name.clone()),
                    },
                    comment: comment.clone(),
                    action,
                };
                peers.sets.iter().map(of_set).collect()
            }
        };
        Self { rule, made }
    }

    fn is_about_all(&self) -> bool {
        self.rule.peers.is_none() && self.rule.ports.is_none()
    }
}

fn chain_rules<'e>(entries: impl Iterator<Item = &'e Entry<'e>>) -> Vec<ChainRule> {
    entries.flat_map(|it| it.made.iter().cloned()).collect()
}

/// The rules by port: disjoint, in order. None: [`BuiltTier::TooLarge`].
fn ports(direction: Direction, rules: &[Entry<'_>]) -> Option<Vec<PortRules>> {
    let general: BTreeSet<usize> = (0..rules.len()).filter(|it| rules[*it].rule.ports.is_none()).collect();
    let mut pairs = general.len();
    if pairs > MOST_PAIRS {
        return None;
    }
    // Where ports of a rule begin, and behind their last one.
    let mut bounds: BTreeMap<u8, Vec<(u32, bool, usize)>> = BTreeMap::new();
    for (place, entry) in rules.iter().enumerate() {
        for (protocol, first, last) in entry.rule.ports.iter().flatten() {
            let bounds = bounds.entry(*protocol).or_default();
            bounds.extend([(u32::from(*first), true, place), (u32::from(*last) + 1, false, place)]);
        }
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (protocol, mut bounds) in bounds {
        bounds.sort_unstable();
        let mut bounds = bounds.into_iter().peekable();
        // Rules that are about a port, with how many of their ranges are around it.
        let mut here: BTreeMap<usize, usize> = general.iter().map(|place| (*place, 1)).collect();
        while let Some((begin, ..)) = bounds.peek().copied() {
            while let Some((_, begins, place)) = bounds.next_if(|(bound, ..)| *bound == begin) {
                let ranges = here.entry(place).or_default();
                *ranges = if begins { *ranges + 1 } else { ranges.saturating_sub(1) };
                if *ranges == 0 {
                    here.remove(&place);
                }
            }
            let Some((end, ..)) = bounds.peek().copied() else { break };
            // Where only those for all ports are, they need no chain of their own.
            if here.len() == general.len() {
                continue;
            }
            pairs += here.len();
            if pairs > MOST_PAIRS {
                return None;
            }
            let (Ok(first), Ok(last)) = (u16::try_from(begin), u16::try_from(end - 1)) else { continue };
            let rules = chain_rules(here.keys().map(|place| &rules[*place]));
            match segments.last_mut() {
                Some(before)
                    if before.protocol == protocol
                        && u32::from(before.last) + 1 == begin
                        && before.rules == rules =>
                {
                    before.last = last;
                }
                _ => segments.push(Segment { protocol, first, last, rules }),
            }
        }
    }
    let shares_chains = segments.len() > MOST_OWN_CHAINS;
    let named = segments.into_iter().map(|Segment { protocol, first, last, rules }| {
        let digest = digest_of(direction, &rules);
        let chain = match shares_chains {
            true => names::shared_port_chain(&digest),
            false => names::port_chain(&digest, protocol, first, last),
        };
        PortRules { chain: chain.into(), protocol, first, last, rules: rules.into() }
    });
    Some(named.collect())
}

/// Ports that follow one another and have the same rules.
struct Segment {
    protocol: u8,
    first: u16,
    last: u16,
    rules: Vec<ChainRule>,
}
