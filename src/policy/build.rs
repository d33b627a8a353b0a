//! From the rules of the policies that select a pod to its chain of rules: ports first, disjoint, and at each port a
//! bounded number of look-ups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::policy::blocks::Blocks;
use crate::policy::compile::{Compiled, Peers, PortMatch};
use crate::policy::content::PortContent;
use crate::policy::evaluate::RuleName;
use crate::policy::names;
use crate::policy::object::{NamedPort, ObjectName};
use crate::policy::plan::{Chain, ChainRule, Direction, PeerMatch, PortRules};
use crate::policy::selector::Invalid;
use crate::policy::set_spec::{Content, NamedPorts, PodGroup, PortOwners, SetSpec};

/// More sets than this at one port become one of each kind, their union.
pub const MOST_SETS: usize = 8;

/// Ranges of ports that overlap are cut where one begins or ends, and each piece has all peers of the ranges around it. So
/// what a few hundred lines of policies make is quadratic in them, and their author could keep the agent busy for minutes.
/// This many pairs of a piece and a peer are built for a pod in one direction.
const MOST_PAIRS: usize = 20_000;

/// So many rules are named in a comment.
const MOST_NAMES: usize = 4;

/// A chain, and the sets that its rules name.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub chain: Chain,
    /// Each once.
    pub sets: Vec<Arc<SetSpec>>,
}

/// A policy by its name.
pub type Named<'a> = (&'a ObjectName, &'a Compiled);

/// Why there is no chain.
pub fn too_large(direction: Direction) -> Invalid {
    let field = match direction {
        Direction::Ingress => "spec.ingress",
        Direction::Egress => "spec.egress",
    };
    let reason = format!(
        "has, with the other policies of the same pods, more than {MOST_PAIRS} combinations of overlapping port ranges and \
         peers; write fewer ranges that overlap, or fewer peers in them"
    );
    Invalid::new(field, reason)
}

/// The chain of a pod that these policies isolate; none where that is [`too_large`]. `own_ports`: what the pod calls its
/// ports, which ingress is about.
pub fn build(direction: Direction, policies: &[Named<'_>], own_ports: &[NamedPort]) -> Option<Built> {
    let mut builder = Builder { direction, policies, entries: Vec::new(), sets: BTreeSet::new(), pairs: 0 };
    let mut for_all = Vec::new();
    let mut by_protocol: BTreeMap<u8, Vec<(u16, u16, usize)>> = BTreeMap::new();
    for (policy, (_, compiled)) in policies.iter().enumerate() {
        for (index, rule) in compiled.rules(direction).iter().enumerate() {
            let source = (policy, index);
            let Some(ports) = &rule.ports else {
                for_all.push(builder.entry(source, targets(rule.peers.as_ref())));
                continue;
            };
            let entry = builder.entry(source, targets(rule.peers.as_ref()));
            for port in ports {
                match port {
                    PortMatch::Range { protocol, first, last } => {
                        by_protocol.entry(*protocol).or_default().push((*first, *last, entry));
                    }
                    PortMatch::Named { protocol, name } if direction == Direction::Ingress => {
                        let so_called = |it: &&NamedPort| it.protocol == *protocol && it.name == *name;
                        for it in own_ports.iter().filter(so_called) {
                            by_protocol.entry(*protocol).or_default().push((it.port, it.port, entry));
                        }
                    }
                    PortMatch::Named { protocol, name } => {
                        let targets = named_targets(rule.peers.as_ref(), *protocol, name);
                        for_all.push(builder.entry(source, targets));
                    }
                }
            }
        }
    }
    let mut ports = Vec::new();
    for (protocol, ranges) in by_protocol {
        builder.segments(protocol, &ranges, &mut ports)?;
    }
    let (rules, sets) = builder.rules(for_all);
    builder.sets.extend(sets);
    Some(builder.finish(ports, rules))
}

/// Who may; none: nobody.
#[derive(Debug, Clone)]
enum Target {
    Any,
    Set(Arc<SetSpec>),
}

fn targets(peers: Option<&Peers>) -> Vec<Target> {
    let Some(peers) = peers else { return vec![Target::Any] };
    peers.sets.iter().cloned().map(Target::Set).collect()
}

/// Of egress: by ports that the destination calls so.
fn named_targets(peers: Option<&Peers>, protocol: u8, name: &str) -> Vec<Target> {
    let owners = match peers {
        None => vec![PortOwners::Pods(Arc::new(PodGroup::all()))],
        Some(peers) => {
            let groups = peers.groups.iter().cloned().map(PortOwners::Pods);
            groups
                .chain((!peers.blocks.is_empty()).then(|| PortOwners::Blocks(peers.blocks.clone())))
                .collect()
        }
    };
    let ports = owners.into_iter().map(|of| NamedPorts { of, protocol, name: name.to_owned() });
    ports.map(|it| Target::Set(Arc::new(SetSpec::new(Content::Ports(vec![it]))))).collect()
}

/// Which policy, and which rule of it.
type Source = (usize, usize);

struct Builder<'a> {
    direction: Direction,
    policies: &'a [Named<'a>],
    /// Rules, and ways in which a rule allows something.
    entries: Vec<(Source, Vec<Target>)>,
    /// The sets in use.
    sets: BTreeSet<Arc<SetSpec>>,
    /// See [`MOST_PAIRS`].
    pairs: usize,
}

impl Builder<'_> {
    fn entry(&mut self, source: Source, targets: Vec<Target>) -> usize {
        self.entries.push((source, targets));
        self.entries.len() - 1
    }

    /// Cuts ranges where another begins or ends, so that each port is in one segment at most. None: [`MOST_PAIRS`].
    fn segments(
        &mut self,
        protocol: u8,
        ranges: &[(u16, u16, usize)],
        into: &mut Vec<PortRules>,
    ) -> Option<()> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        // As a rule each port is that of one rule.
        if sorted.is_sorted_by(|before, after| before.1 < after.0) {
            for (first, last, entry) in sorted {
                self.segment(protocol, first, last, &[entry], into);
            }
            return Some(());
        }
        let mut changes: BTreeMap<u32, Vec<(bool, usize)>> = BTreeMap::new();
        for (n, (first, last, _)) in ranges.iter().enumerate() {
            changes.entry(u32::from(*first)).or_default().push((true, n));
            changes.entry(u32::from(*last) + 1).or_default().push((false, n));
        }
        let mut active: BTreeSet<usize> = BTreeSet::new();
        let mut bounds = changes.iter().peekable();
        while let Some((begin, change)) = bounds.next() {
            for (begins, n) in change {
                if *begins {
                    active.insert(*n)
                } else {
                    active.remove(n)
                };
            }
            let end = bounds.peek().map(|(end, _)| **end - 1);
            let port = |bound: u32| u16::try_from(bound).ok();
            let (Some(first), Some(last)) = (port(*begin), end.and_then(port)) else { continue };
            let entries: BTreeSet<usize> = active.iter().map(|n| ranges[*n].2).collect();
            let entries: Vec<usize> = entries.into_iter().collect();
            self.pairs += entries.iter().map(|entry| self.entries[*entry].1.len()).sum::<usize>();
            if self.pairs > MOST_PAIRS {
                return None;
            }
            self.segment(protocol, first, last, &entries, into);
        }
        Some(())
    }

    /// Adds what is allowed at some ports; to those before, if that is the same.
    fn segment(&mut self, protocol: u8, first: u16, last: u16, entries: &[usize], into: &mut Vec<PortRules>) {
        let content = self.content(entries);
        if content.rules.is_empty() {
            return;
        }
        match into.last_mut() {
            Some(before)
                if before.protocol == protocol
                    && u32::from(before.last) + 1 == u32::from(first)
                    && before.rules == content.rules =>
            {
                before.last = last;
                before.chain = names::port_chain(&content.digest, protocol, before.first, last);
            }
            _ => into.push(PortRules {
                chain: names::port_chain(&content.digest, protocol, first, last),
                protocol,
                first,
                last,
                rules: content.rules.clone(),
            }),
        }
    }

    /// What is allowed at one port. Most ports have one rule, and that keeps it.
    fn content(&mut self, entries: &[usize]) -> Arc<PortContent> {
        let direction = self.direction;
        let make = |builder: &Self| {
            let (rules, sets) = builder.rules(entries.iter().copied());
            PortContent::new(direction, rules, sets)
        };
        let rule = match entries {
            [entry] => {
                let (policy, index) = self.entries[*entry].0;
                self.policies[policy].1.rules(direction).get(index)
            }
            _ => None,
        };
        let content = match rule {
            Some(rule) => rule.alone.or_make(|| make(self)),
            None => Arc::new(make(self)),
        };
        self.sets.extend(content.sets.iter().cloned());
        content
    }

    /// The rules of one port, and their sets. Whoever may is asked for nothing.
    fn rules(&self, entries: impl IntoIterator<Item = usize>) -> (Vec<ChainRule>, Vec<Arc<SetSpec>>) {
        let mut any: Vec<Source> = Vec::new();
        let mut sets: Vec<(Arc<SetSpec>, Vec<Source>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for entry in entries {
            let (source, targets) = &self.entries[entry];
            for target in targets {
                match target {
                    Target::Any => any.push(*source),
                    Target::Set(spec) => {
                        let place = *places.entry(&spec.name).or_insert(sets.len());
                        if place == sets.len() {
                            sets.push((spec.clone(), Vec::new()));
                        }
                        sets[place].1.push(*source);
                    }
                }
            }
        }
        if !any.is_empty() {
            return (vec![ChainRule { peer: PeerMatch::Any, comment: self.comment(&any) }], Vec::new());
        }
        if sets.len() > MOST_SETS {
            sets = union(sets);
        }
        let rules = sets.iter().map(|(spec, sources)| {
            let peer = match &spec.content {
                Content::Ports(_) => PeerMatch::AddressAndPort(spec.name.clone()),
                Content::Pods(_) | Content::Blocks(_) => PeerMatch::Address(spec.name.clone()),
            };
            ChainRule { peer, comment: self.comment(sources) }
        });
        (rules.collect(), sets.iter().map(|(spec, _)| spec.clone()).collect())
    }

    fn comment(&self, sources: &[Source]) -> String {
        let mut sources = sources.to_vec();
        sources.sort_unstable();
        sources.dedup();
        let named = sources.iter().take(MOST_NAMES).filter_map(|(policy, index)| {
            let (name, _) = self.policies.get(*policy)?;
            let rule = RuleName { policy: (*name).clone(), direction: self.direction, index: *index };
            Some(rule.to_string())
        });
        let mut comment = named.collect::<Vec<_>>().join(", ");
        if sources.len() > MOST_NAMES {
            comment.push_str(&format!(" and {} more", sources.len() - MOST_NAMES));
        }
        comment
    }

    fn finish(self, ports: Vec<PortRules>, rules: Vec<ChainRule>) -> Built {
        let policies = self.policies.iter().map(|(it, _)| format!("{}/{}", it.namespace, it.name)).collect();
        let chain = Chain::new(self.direction, ports, rules, policies);
        let name = names::rules_chain(self.direction, &chain.digest());
        Built { name, chain, sets: self.sets.into_iter().collect() }
    }
}

/// One set of each kind.
fn union(sets: Vec<(Arc<SetSpec>, Vec<Source>)>) -> Vec<(Arc<SetSpec>, Vec<Source>)> {
    let (mut groups, mut ports, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let mut sources: [Vec<Source>; 3] = Default::default();
    for (spec, its) in sets {
        let kind = match &spec.content {
            Content::Pods(its) => {
                groups.extend_from_slice(its);
                0
            }
            Content::Ports(its) => {
                ports.extend_from_slice(its);
                1
            }
            Content::Blocks(its) => {
                blocks.push(its.clone());
                2
            }
        };
        sources[kind].extend(its);
    }
    groups.sort();
    groups.dedup();
    ports.sort();
    ports.dedup();
    let of_all = [Content::Pods(groups), Content::Ports(ports), Content::Blocks(Blocks::union(&blocks))];
    let some = of_all.into_iter().zip(sources).filter(|(_, sources)| !sources.is_empty());
    some.map(|(content, sources)| (Arc::new(SetSpec::new(content)), sources)).collect()
}
