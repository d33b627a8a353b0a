//! What is allowed at one port, and the names that follow from it; and many ports, cut into groups.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use crate::policy::digest::digest;
use crate::policy::names;
use crate::policy::plan::{Chain, ChainRule, Direction, PortGroup, PortRules, Tier};
use crate::policy::set_spec::{SetSpec, json};

/// Ports of one chain that have chains of their own, which count for themselves. Of more, those with the same rules share
/// one: whoever writes policies can name each second port.
pub(in crate::policy) const MOST_OWN_CHAINS: usize = 64;

/// With fewer ports than this a chain has one map of them.
const MANY: usize = 128;

/// About how many ports a group has, as a power of two.
const GROUP_BITS: u32 = 5;

/// What is allowed at one port.
#[derive(Debug)]
pub struct PortContent {
    /// The rules.
    pub rules: Arc<[ChainRule]>,
    /// What they look into.
    pub sets: Vec<Arc<SetSpec>>,
    /// What names them.
    digest: String,
    /// The chain that ports with these rules share, where ports are many.
    shared_chain: Arc<str>,
}

impl PortContent {
    /// Names the rules.
    pub fn new(direction: Direction, rules: Vec<ChainRule>, sets: Vec<Arc<SetSpec>>) -> Self {
        let digest = digest_of(direction, &rules);
        let shared_chain = names::shared_port_chain(&digest).into();
        Self { rules: rules.into(), sets, digest, shared_chain }
    }
}

/// A port or a range of ports, and what is allowed there.
#[derive(Debug, Clone)]
pub struct Segment {
    /// An `IPPROTO_*`.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
    /// What is allowed.
    pub content: Arc<PortContent>,
}

impl Segment {
    fn named(self, shares_chain: bool) -> PortRules {
        let Self { protocol, first, last, content } = self;
        let chain = match shares_chain {
            true => content.shared_chain.clone(),
            false => names::port_chain(&content.digest, protocol, first, last).into(),
        };
        PortRules { chain, protocol, first, last, rules: content.rules.clone() }
    }
}

/// What names the rules of a port.
pub fn digest_of(direction: Direction, rules: &[ChainRule]) -> String {
    digest(&json(&(direction, rules)))
}

/// What a rule allows at a port that no other rule is about: made when it is first asked for, and then kept with it.
#[derive(Debug, Clone, Default)]
pub struct Alone(OnceLock<Arc<PortContent>>);

impl Alone {
    /// What is kept, or what `make` makes.
    pub fn or_make(&self, make: impl FnOnce() -> PortContent) -> Arc<PortContent> {
        self.0.get_or_init(|| Arc::new(make())).clone()
    }
}

/// It follows from the rule, whether it is there already or not.
impl PartialEq for Alone {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Alone {}

impl Chain {
    /// Of ports that are disjoint and in order. `before`: a chain that may have most of its groups already.
    pub fn new(
        direction: Direction,
        ports: Vec<Segment>,
        rules: Vec<ChainRule>,
        policies: Vec<String>,
        before: Option<&Self>,
    ) -> Self {
        let share_chains = ports.len() > MOST_OWN_CHAINS;
        let ports: Vec<PortRules> = ports.into_iter().map(|it| it.named(share_chains)).collect();
        let groups = if ports.len() < MANY { Vec::new() } else { cut(&ports, before) };
        Self { direction, ports, groups, rules, policies, tier: Tier::NetworkPolicy }
    }

    /// What names it.
    pub fn digest(&self) -> String {
        let ports = match self.groups.as_slice() {
            [] => digest_of_ports(&self.ports),
            groups => groups.iter().map(|it| it.chain.as_str()).collect::<Vec<_>>().join(" "),
        };
        digest(&json(&(self.direction, ports, &self.rules, &self.policies)))
    }

    /// The groups with their ports.
    pub fn grouped(&self) -> impl Iterator<Item = (&PortGroup, &[PortRules])> {
        let mut rest = self.ports.as_slice();
        self.groups.iter().map(move |group| {
            let (ports, after) = rest.split_at(group.ports.min(rest.len()));
            rest = after;
            (group, ports)
        })
    }
}

/// What names ports with what they lead to. Their rules are in the names of their chains.
fn digest_of_ports(ports: &[PortRules]) -> String {
    let mut content = String::new();
    for it in ports {
        // Into a string nothing fails.
        let _ = writeln!(content, "{} {} {} {}", it.protocol, it.first, it.last, it.chain);
    }
    digest(content.as_bytes())
}

/// Where a group begins depends on the port there and on nothing else, so that one port more or less changes one group, or
/// two.
fn cut(ports: &[PortRules], before: Option<&Chain>) -> Vec<PortGroup> {
    let key = |ports: &[PortRules]| ports.first().map(|first| (first.protocol, first.first));
    let before = before.into_iter().flat_map(Chain::grouped);
    let before: HashMap<_, _> = before.map(|(group, ports)| (key(ports), (group, ports))).collect();
    let begins =
        |ports: &PortRules| u32::from(ports.first).wrapping_mul(0x9e37_79b1) >> (32 - GROUP_BITS) == 0;
    let groups = ports.chunk_by(|before, after| before.protocol == after.protocol && !begins(after));
    let groups = groups.map(|ports| {
        let same = before.get(&key(ports)).filter(|(_, before)| have_same_name(before, ports));
        let chain = same.map(|(group, _)| group.chain.clone());
        let chain = chain.unwrap_or_else(|| names::group_chain(&digest_of_ports(ports)));
        PortGroup { chain, ports: ports.len() }
    });
    groups.collect()
}

/// As [`digest_of_ports`] would find, without making a digest.
fn have_same_name(some: &[PortRules], others: &[PortRules]) -> bool {
    let named_by = |it: &PortRules| (it.protocol, it.first, it.last);
    let same = |(a, b): (&PortRules, &PortRules)| named_by(a) == named_by(b) && a.chain == b.chain;
    some.len() == others.len() && some.iter().zip(others).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(ports: impl Iterator<Item = u16>) -> Vec<Segment> {
        let content = Arc::new(PortContent::new(Direction::Ingress, Vec::new(), Vec::new()));
        let ports = ports.map(|port| Segment {
            protocol: names::TCP,
            first: port,
            last: port,
            content: content.clone(),
        });
        ports.collect()
    }

    fn chain(ports: impl Iterator<Item = u16>) -> Chain {
        Chain::new(Direction::Ingress, segments(ports), Vec::new(), Vec::new(), None)
    }

    #[test]
    fn very_many_ports_with_the_same_rules_have_one_chain() {
        let chains = |ports: std::ops::Range<u16>| -> std::collections::BTreeSet<Arc<str>> {
            chain(ports).ports.into_iter().map(|it| it.chain).collect()
        };
        assert_eq!(chains(1..65).len(), 64);
        let of_all = chains(1..66);
        assert!(of_all.len() == 1 && of_all.iter().all(|it| it.ends_with("-many")), "{of_all:?}");
        // They are told apart by more than their chain.
        assert_ne!(chain(1..70).digest(), chain(2..71).digest());
        assert_ne!(chain(1..700).digest(), chain(2..701).digest());
    }

    #[test]
    fn few_ports_are_one_group() {
        assert!(chain(1000..1127).groups.is_empty());
    }

    #[test]
    fn a_port_more_changes_two_groups_at_most() {
        for step in [1, 2, 7, 64] {
            let without = chain((1..1000).map(|n| n * step).filter(|port| *port != 500 * step));
            let with = chain((1..1000).map(|n| n * step));
            let count = with.groups.len();
            assert!((16..64).contains(&count), "{step}: {count}");
            assert_eq!(with.grouped().map(|(_, ports)| ports.len()).sum::<usize>(), with.ports.len());
            // Names that were known are those that would have been made.
            let all = segments((1..1000).map(|n| n * step));
            assert_eq!(Chain::new(Direction::Ingress, all, Vec::new(), Vec::new(), Some(&without)), with);
            let others = with.groups.iter().filter(|it| !without.groups.contains(it)).count();
            assert!((1..3).contains(&others), "{step}: {others}");
        }
    }
}
