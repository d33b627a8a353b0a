//! From the rules of the policies that select a pod to its chain of rules: ports first, disjoint, and at each port a
//! bounded number of look-ups.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::policy::blocks::Blocks;
use crate::policy::compile::{Compiled, Peers, PortMatch};
use crate::policy::content::{PortContent, Segment};
use crate::policy::evaluate::RuleName;
use crate::policy::names;
use crate::policy::object::{NamedPort, ObjectName};
use crate::policy::plan::{Action, Chain, ChainRule, Direction, PeerMatch};
use crate::policy::selector::Invalid;
use crate::policy::set_spec::{Content, NamedPorts, PodGroup, PortOwners, SetSpec};

/// More sets than this at one port become one of each kind, their union.
pub const MOST_SETS: usize = 8;

/// Ranges of ports that overlap are cut where one begins or ends, and each piece has all peers of the ranges around it. So
/// what a few hundred lines of policies make is quadratic in them, and their author could keep the agent busy for minutes.
/// This many pairs of a piece and a peer are built for a pod in one direction.
pub const MOST_PAIRS: usize = 20_000;

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
/// ports, which ingress is about; `before`: a chain that may be like this one.
pub fn build(
    direction: Direction,
    policies: &[Named<'_>],
    own_ports: &[NamedPort],
    before: Option<&Chain>,
) -> Option<Built> {
    let mut builder = Builder { direction, policies, entries: Vec::new(), sets: BTreeSet::new() };
    let mut for_all = Vec::new();
    let mut by_protocol: BTreeMap<u8, Vec<Span>> = BTreeMap::new();
    for (policy, (_, compiled)) in policies.iter().enumerate() {
        for (index, rule) in compiled.rules(direction).iter().enumerate() {
            let source = (policy, index);
            let peers = rule.peers.as_ref().map(|peers| Cow::Borrowed(peers.sets.as_slice()));
            // Of peers that are all excepted nobody may.
            if peers.as_ref().is_some_and(|sets| sets.is_empty()) {
                continue;
            }
            let entry = builder.entry(source, peers);
            let Some(ports) = &rule.ports else {
                for_all.push(entry);
                continue;
            };
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
                        let sets = named_sets(rule.peers.as_ref(), *protocol, name);
                        for_all.push(builder.entry(source, Some(Cow::Owned(sets))));
                    }
                }
            }
        }
    }
    by_protocol.values_mut().for_each(|spans| spans.sort_unstable());
    // Before anything is made of them.
    if builder.has_too_many_pairs(&by_protocol) {
        return None;
    }
    let mut ports = Vec::new();
    for (protocol, spans) in by_protocol {
        builder.segments(protocol, &spans, &mut ports);
    }
    let (rules, sets) = builder.rules(&for_all);
    builder.sets.extend(sets);
    Some(builder.finish(ports, rules, before))
}

/// Of egress: by ports that the destination calls so.
fn named_sets(peers: Option<&Peers>, protocol: u8, name: &str) -> Vec<Arc<SetSpec>> {
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
    ports.map(|it| Arc::new(SetSpec::new(Content::Ports(vec![it])))).collect()
}

/// Which policy, and which rule of it.
type Source = (usize, usize);

/// A rule, or a way in which a rule allows something: whence it comes, and who may, in sets; none: whoever.
type Entry<'a> = (Source, Option<Cow<'a, [Arc<SetSpec>]>>);

/// First and last port, and the entry that is about them.
type Span = (u16, u16, usize);

struct Builder<'a> {
    direction: Direction,
    policies: &'a [Named<'a>],
    entries: Vec<Entry<'a>>,
    /// The sets in use.
    sets: BTreeSet<Arc<SetSpec>>,
}

/// Whether each port is that of one entry, as a rule.
fn are_disjoint(spans: &[Span]) -> bool {
    spans.is_sorted_by(|before, after| before.1 < after.0)
}

/// Cuts spans where another begins or ends: each piece, with the entries that are about it.
fn pieces(spans: &[Span]) -> impl Iterator<Item = (u16, u16, Vec<usize>)> {
    let begin = spans.iter().map(|(first, _, entry)| (u32::from(*first), true, *entry));
    let end = spans.iter().map(|(_, last, entry)| (u32::from(*last) + 1, false, *entry));
    let mut bounds: Vec<(u32, bool, usize)> = begin.chain(end).collect();
    bounds.sort_unstable();
    let mut bounds = bounds.into_iter().peekable();
    // An entry may have several spans around a piece.
    let mut active: BTreeMap<usize, usize> = BTreeMap::new();
    let port = |bound: u32| u16::try_from(bound).ok();
    let pieces = std::iter::from_fn(move || {
        let (at, ..) = *bounds.peek()?;
        while let Some((_, begins, entry)) = bounds.next_if(|(bound, ..)| *bound == at) {
            let spans = active.entry(entry).or_default();
            *spans = if begins { *spans + 1 } else { spans.saturating_sub(1) };
            if *spans == 0 {
                active.remove(&entry);
            }
        }
        let (end, ..) = *bounds.peek()?;
        Some((port(at)?, port(end - 1)?, active.keys().copied().collect::<Vec<usize>>()))
    });
    pieces.filter(|(.., entries)| !entries.is_empty())
}

impl<'a> Builder<'a> {
    fn entry(&mut self, source: Source, sets: Option<Cow<'a, [Arc<SetSpec>]>>) -> usize {
        self.entries.push((source, sets));
        self.entries.len() - 1
    }

    /// See [`MOST_PAIRS`].
    fn has_too_many_pairs(&self, by_protocol: &BTreeMap<u8, Vec<Span>>) -> bool {
        let overlapping = by_protocol.values().filter(|spans| !are_disjoint(spans));
        let mut entries = overlapping.flat_map(|spans| pieces(spans)).flat_map(|(.., entries)| entries);
        let mut pairs = 0;
        // Not a step further than to the first that is too many: each entry has a peer.
        entries.any(|entry| {
            pairs += self.entries[entry].1.as_ref().map_or(1, |sets| sets.len());
            pairs > MOST_PAIRS
        })
    }

    /// Adds what is allowed at spans, in order.
    fn segments(&mut self, protocol: u8, spans: &[Span], into: &mut Vec<Segment>) {
        if are_disjoint(spans) {
            for (first, last, entry) in spans {
                self.segment(protocol, *first, *last, &[*entry], into);
            }
            return;
        }
        for (first, last, entries) in pieces(spans) {
            self.segment(protocol, first, last, &entries, into);
        }
    }

    /// Adds what is allowed at some ports; to those before, if that is the same.
    fn segment(&mut self, protocol: u8, first: u16, last: u16, entries: &[usize], into: &mut Vec<Segment>) {
        let content = self.content(entries);
        match into.last_mut() {
            Some(before)
                if before.protocol == protocol
                    && u32::from(before.last) + 1 == u32::from(first)
                    && before.content.rules == content.rules =>
            {
                before.last = last;
            }
            _ => into.push(Segment { protocol, first, last, content }),
        }
    }

    /// What is allowed at one port. Most ports have one rule, and that keeps it.
    fn content(&mut self, entries: &[usize]) -> Arc<PortContent> {
        let direction = self.direction;
        let make = |builder: &Self| {
            let (rules, sets) = builder.rules(entries);
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
    fn rules(&self, entries: &[usize]) -> (Vec<ChainRule>, Vec<Arc<SetSpec>>) {
        let mut any: Vec<Source> = Vec::new();
        let mut sets: Vec<(Arc<SetSpec>, Vec<Source>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for entry in entries {
            let (source, peers) = &self.entries[*entry];
            let Some(peers) = peers else {
                any.push(*source);
                continue;
            };
            for spec in peers.iter() {
                let place = *places.entry(&spec.name).or_insert(sets.len());
                if place == sets.len() {
                    sets.push((spec.clone(), Vec::new()));
                }
                sets[place].1.push(*source);
            }
        }
        if !any.is_empty() {
            return (
                vec![ChainRule { peer: PeerMatch::Any, comment: self.comment(&any), action: Action::Accept }],
                Vec::new(),
            );
        }
        if sets.len() > MOST_SETS {
            sets = union(sets);
        }
        let rules = sets.iter().map(|(spec, sources)| {
            let peer = match &spec.content {
                Content::Ports(_) => PeerMatch::AddressAndPort(spec.name.clone()),
                Content::Pods(_) | Content::Blocks(_) => PeerMatch::Address(spec.name.clone()),
            };
            ChainRule { peer, comment: self.comment(sources), action: Action::Accept }
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

    fn finish(self, ports: Vec<Segment>, rules: Vec<ChainRule>, before: Option<&Chain>) -> Built {
        let policies = self.policies.iter().map(|(it, _)| format!("{}/{}", it.namespace, it.name)).collect();
        let chain = Chain::new(self.direction, ports, rules, policies, before);
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
