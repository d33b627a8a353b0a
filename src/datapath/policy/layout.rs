//! What a plan is in the kernel: chains, sets, rules and elements, in the plain types of [`crate::linux::nft`]. Pure.
//!
//! | part of the plan          | in the table                                                              |
//! |---------------------------|---------------------------------------------------------------------------|
//! | a set                     | a set of that name                                                        |
//! | a chain                   | a chain of that name; if it has rules by port, `NAME-ports`, a verdict map of protocol and port |
//! | rules of a port           | `pp-<hash>-tcp-80`, which all chains with such an element have in common  |
//! | a group of ports          | `pg-<hash>`, with a map `pg-<hash>-ports`; the map of the chain leads to groups then |
//! | a chain of a tier         | likewise; its map leads to ports by goto, and its end is where it was called     |
//! | a pod, one direction      | `in-<uid>`, `out-<uid>`: against connections that begin in their middle, and on; not isolated in this direction: the former |
//! | a namespace, likewise     | `hold-in-<namespace>`, `hold-out-<namespace>`                             |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::datapath::policy::skeleton;
use crate::desired::nftables::expr::{
    Field, NEW, goto, ip_daddr, ip_saddr, ip6_daddr, ip6_saddr, ipv4, ipv6, is_in, is_in_state,
    is_not_first_of_tcp, l4proto, th_dport, verdict,
};
use crate::linux::nft::change::Change;
use crate::linux::nft::element::{Bytes, Element};
use crate::linux::nft::expr::{Expr, Reg, Verdict};
use crate::linux::nft::rule::{Rule, kept_comment};
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::{Chain, Family, Table};
use crate::policy::names;
use crate::policy::plan::{
    self, Action, ChainRule, Direction, Isolation, Members, PeerMatch, Plan, PortGroup, PortRules, Tier, Way,
};

/// `table inet ferrule-policy`
pub fn table() -> Table {
    Table { family: Family::Inet, name: names::TABLE.to_owned() }
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) chain: Chain,
    pub(super) rules: Vec<Rule>,
}

/// A chain's rules, as much as is kept of them to tell whether they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) hash: u64,
    /// How many rules.
    pub(super) rules: u32,
}

/// A chain that is named by its content, and the map of ports that it looks into.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) made: Made,
    pub(super) map: Option<(Set, Vec<Element>)>,
}

impl Content {
    pub(super) fn of<'r>(rules: impl ExactSizeIterator<Item = &'r Rule>) -> Self {
        let mut hasher = DefaultHasher::new();
        let count = rules.len();
        rules.for_each(|rule| rule.hash(&mut hasher));
        Self { hash: hasher.finish(), rules: u32::try_from(count).unwrap_or(u32::MAX) }
    }
}

impl Made {
    pub(super) fn new(name: &str, comment: Option<&str>, rules: Vec<Rule>) -> Self {
        let comment = comment.map(|comment| kept_comment(comment).to_owned());
        Self { chain: Chain { name: name.to_owned(), base: None, comment }, rules }
    }

    pub(super) fn content(&self) -> Content {
        Content::of(self.rules.iter())
    }

    /// Makes the chain what it should be, whether it is there or not.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut changes = vec![
            Change::AddChain(table(), self.chain.clone()),
            Change::FlushChain(table(), self.chain.name.clone()),
        ];
        changes.extend(self.rules.iter().map(|rule| Change::AddRule(table(), rule.clone())));
        changes
    }
}

/// A set's number that changes with each of its elements.
pub(super) fn content_of(elements: &[Element]) -> u64 {
    let mut elements: Vec<&Element> = elements.iter().collect();
    elements.sort_by(|a, b| a.key.cmp(&b.key));
    let mut hasher = DefaultHasher::new();
    elements.hash(&mut hasher);
    hasher.finish()
}

/// The set of a plan.
pub(super) fn set(name: &str, members: &Members) -> Set {
    let address = if name.ends_with('4') { Type::Ipv4 } else { Type::Ipv6 };
    let (key, interval) = match members {
        Members::Pods(_) => (vec![address], false),
        Members::Ports(_) => (vec![address, Type::Protocol, Type::Port], false),
        Members::Blocks(_) => (vec![address], true),
    };
    Set { name: name.to_owned(), key, data: Vec::new(), interval, expires: false }
}

/// The element of an address in a set of pods.
pub(super) fn pod_element(set: &str, address: IpAddr) -> Element {
    Element::new(set, Bytes::default().address(address))
}

/// The element of an address, protocol and port.
pub(super) fn port_element(set: &str, (address, protocol, port): (IpAddr, u8, u16)) -> Element {
    Element::new(set, Bytes::default().address(address).protocol(protocol).port(port))
}

/// The elements of a set of a plan, made one by one: an element takes some hundred bytes.
pub(super) fn elements_of<'a>(
    set: &'a str,
    members: &'a Members,
) -> Box<dyn Iterator<Item = Element> + Send + 'a> {
    match members {
        Members::Pods(pods) => Box::new(pods.iter().map(move |address| pod_element(set, *address))),
        Members::Ports(ports) => Box::new(ports.iter().map(move |port| port_element(set, *port))),
        Members::Blocks(blocks) => {
            let range =
                move |block: &RangeInclusive<IpAddr>| Element::range(set, *block.start(), *block.end());
            Box::new(blocks.iter().flat_map(range))
        }
    }
}

/// What a chain of a plan leads to and that is named by its content, as far as it is to be made or looked at.
pub(super) struct Below<'p> {
    ports: Vec<&'p PortRules>,
    groups: Vec<(&'p PortGroup, &'p [PortRules])>,
}

impl<'p> Below<'p> {
    /// Of those below the chain what is `wanted`. Groups come first: one that is not wanted has its ports already, and of
    /// two thousand ports those of one group are looked at.
    pub(super) fn of(chain: &'p plan::Chain, mut wanted: impl FnMut(&'p str) -> bool) -> Self {
        let groups: Vec<_> = chain.grouped().filter(|(group, _)| wanted(&group.chain)).collect();
        let mut ports: Vec<&PortRules> = match chain.groups.as_slice() {
            [] => chain.ports.iter().collect(),
            _ => groups.iter().flat_map(|(_, ports)| *ports).collect(),
        };
        ports.retain(|ports| wanted(&ports.chain));
        Self { ports, groups }
    }
}

/// The chain of a plan, and before it what is below: the chains of ports, then those of groups. `sets` are those of the
/// plan.
pub(super) fn parts(
    name: &str,
    chain: &plan::Chain,
    below: &Below<'_>,
    sets: &BTreeMap<String, Members>,
) -> Vec<Part> {
    let direction = chain.direction;
    let mut parts = Vec::new();
    for ports in &below.ports {
        let rules = ports.rules.iter().flat_map(|rule| allow(&ports.chain, direction, rule, sets)).collect();
        parts.push(Part { made: Made::new(&ports.chain, None, rules), map: None });
    }
    for (group, ports) in &below.groups {
        let map = port_map(&group.chain, ports.iter().map(of_ports));
        let by_port = rule(&group.chain, [lookup_verdict(&[l4proto, th_dport], &map.0.name)], None);
        parts.push(Part { made: Made::new(&group.chain, None, vec![by_port]), map: Some(map) });
    }
    let map = match chain.groups.as_slice() {
        // What returns from a port's chain of a tier leaves the tier.
        [] if chain.tier != Tier::NetworkPolicy => {
            port_map_by(name, chain.ports.iter().map(of_ports), Verdict::Goto)
        }
        [] => port_map(name, chain.ports.iter().map(of_ports)),
        _ => port_map(name, chain.grouped().filter_map(|(group, ports)| of_group(&group.chain, ports))),
    };
    let map = (!chain.ports.is_empty()).then_some(map);
    let mut rules = Vec::new();
    rules.extend(
        map.iter().map(|(map, _)| rule(name, [lookup_verdict(&[l4proto, th_dport], &map.name)], None)),
    );
    rules.extend(chain.rules.iter().flat_map(|rule| allow(name, direction, rule, sets)));
    if chain.tier == Tier::NetworkPolicy {
        rules.push(rule(name, [goto(names::denied_chain(direction))], None));
    }
    parts.push(Part { made: Made::new(name, Some(&chain.policies.join(", ")), rules), map });
    parts
}

/// The chains of rules of a plan, and those below them that are named by their content, and whether they have a map.
pub(super) fn part_names(plan: &Plan) -> HashMap<&str, bool> {
    let mut names = HashMap::new();
    for (name, chain) in &plan.chains {
        names.insert(name.as_str(), !chain.ports.is_empty());
        let ungrouped = if chain.groups.is_empty() { chain.ports.as_slice() } else { &[] };
        names.extend(ungrouped.iter().map(|it| (&*it.chain, false)));
        for (group, ports) in chain.grouped() {
            // Many chains have most of their groups in common.
            if names.insert(group.chain.as_str(), true).is_none() {
                names.extend(ports.iter().map(|it| (&*it.chain, false)));
            }
        }
    }
    names
}

/// Name of the map of a chain's ports.
pub(super) fn port_map_name(chain: &str) -> String {
    format!("{chain}-ports")
}

/// Where ports lead: protocol, the first and the last of them, and the chain.
type Leads<'a> = (u8, u16, u16, &'a str);

fn of_ports(ports: &PortRules) -> Leads<'_> {
    (ports.protocol, ports.first, ports.last, &ports.chain)
}

/// Ports of one protocol, in order. What lies between two of them has no element in the group's map.
fn of_group<'a>(chain: &'a str, ports: &[PortRules]) -> Option<Leads<'a>> {
    let (first, last) = (ports.first()?, ports.last()?);
    Some((first.protocol, first.first, last.last, chain))
}

fn port_map<'a>(chain: &str, leads: impl Iterator<Item = Leads<'a>>) -> (Set, Vec<Element>) {
    port_map_by(chain, leads, Verdict::Jump)
}

fn port_map_by<'a>(
    chain: &str,
    leads: impl Iterator<Item = Leads<'a>>,
    by: fn(String) -> Verdict,
) -> (Set, Vec<Element>) {
    let name = port_map_name(chain);
    let key = |protocol, port| Bytes::default().protocol(protocol).port(port);
    let mut interval = false;
    let elements = leads.map(|(protocol, first, last, to)| {
        interval |= first != last;
        let element = Element::with_verdict(&name, key(protocol, first), by(to.to_owned()));
        Element { key_end: Some(key(protocol, last)), ..element }
    });
    let mut elements: Vec<Element> = elements.collect();
    if !interval {
        elements.iter_mut().for_each(|element| element.key_end = None);
    }
    let (key, data) = (vec![Type::Protocol, Type::Port], vec![Type::Verdict]);
    (Set { name, key, data, interval, expires: false }, elements)
}

/// The rules that a rule of the plan is: one for each family.
fn allow(
    chain: &str,
    direction: Direction,
    allowed: &ChainRule,
    sets: &BTreeMap<String, Members>,
) -> Vec<Rule> {
    let comment = Some(allowed.comment.as_str());
    let verdict = match allowed.action {
        Action::Accept => verdict(Verdict::Accept),
        Action::Deny => goto(names::denied_chain(direction)),
        Action::Pass => verdict(Verdict::Return),
    };
    let decide = || [vec![Expr::Counter], verdict.clone()].concat();
    let (PeerMatch::Address(base) | PeerMatch::AddressAndPort(base)) = &allowed.peer else {
        return vec![rule(chain, [decide()], comment)];
    };
    let (four, six): (Field, Field) = match direction {
        Direction::Ingress => (ip_saddr, ip6_saddr),
        Direction::Egress => (ip_daddr, ip6_daddr),
    };
    let with_port = matches!(allowed.peer, PeerMatch::AddressAndPort(_));
    let mut rules = Vec::new();
    for (name, _) in peer_sets(base, with_port, sets) {
        let (family, address) = if name.ends_with('4') { (ipv4(), four) } else { (ipv6(), six) };
        let fields: &[Field] = if with_port { &[address, l4proto, th_dport] } else { &[address] };
        rules.push(rule(chain, [family, is_in(fields, &name), decide()], comment));
    }
    rules
}

/// The sets that a rule looks into: of blocks, which never change, those that the plan has. Of pods both, so that the
/// first member of a family changes a set and no chain.
pub(super) fn peer_sets(
    base: &str,
    with_port: bool,
    sets: &BTreeMap<String, Members>,
) -> Vec<(String, Members)> {
    let empty = || if with_port { Members::Ports([].into()) } else { Members::Pods([].into()) };
    let of_family = ['4', '6'].map(|family| format!("{base}{family}"));
    let is_blocks = |name: &String| matches!(sets.get(name), Some(Members::Blocks(_)));
    let blocks = of_family.iter().any(is_blocks);
    let wanted = of_family.into_iter().filter(|name| !blocks || is_blocks(name));
    wanted.map(|name| (name, empty())).collect()
}

/// The sets that a chain of the plan and what is below look into, as [`peer_sets`].
pub(super) fn sets_of(
    chain: &plan::Chain,
    below: &Below<'_>,
    sets: &BTreeMap<String, Members>,
) -> Vec<(String, Members)> {
    let rules = below.ports.iter().flat_map(|ports| ports.rules.iter()).chain(&chain.rules);
    let bases = rules.filter_map(|rule| match &rule.peer {
        PeerMatch::Any => None,
        PeerMatch::Address(base) => Some((base.as_str(), false)),
        PeerMatch::AddressAndPort(base) => Some((base.as_str(), true)),
    });
    // A thousand ports may look into one set.
    let mut seen = HashSet::new();
    let bases = bases.filter(|base| seen.insert(*base));
    bases.flat_map(|(base, with_port)| peer_sets(base, with_port, sets)).collect()
}

/// A chain of a pod or of a hold.
pub(super) struct Leading<'p> {
    /// Which packets.
    pub(super) direction: Direction,
    /// For people.
    pub(super) who: &'p str,
    /// What decides about them.
    pub(super) way: Way<'p>,
    /// Whether anything does in one direction at least.
    pub(super) is_isolated: bool,
    /// Whether it is here that a pod's packets to itself are let through: behind the tier Admin.
    pub(super) judges_own: bool,
}

impl Leading<'_> {
    pub(super) fn made(&self, name: &str) -> Made {
        let denied = names::denied_chain(self.direction);
        let on = |rules: &mut Vec<Rule>, isolation: &Isolation, by: fn(String) -> Verdict| match isolation {
            Isolation::Closed => rules.push(rule(name, [goto(denied)], None)),
            Isolation::Rules(chain) => rules.push(rule(name, [verdict(by(chain.clone()))], None)),
            Isolation::None | Isolation::Open => {}
        };
        let mut rules = Vec::new();
        let Way { admin, policies, baseline, own_passes } = self.way;
        if self.judges_own && self.is_isolated && !self.way.has_tiers() && own_passes {
            rules.extend(skeleton::own(name));
        }
        match policies {
            // Everything is denied, so this as well.
            Isolation::Closed if !admin.isolates() => {}
            _ if self.way.isolates() => rules.push(midstream(name, goto(denied))),
            _ if self.is_isolated => {
                let drop = [vec![Expr::Counter], verdict(Verdict::Drop)].concat();
                rules.push(midstream(name, drop));
            }
            _ => {}
        }
        on(&mut rules, admin, Verdict::Jump);
        if *admin != Isolation::Closed {
            if self.way.has_tiers() && policies.isolates() && own_passes {
                rules.extend(skeleton::own(name));
            }
            on(&mut rules, policies, Verdict::Goto);
            on(&mut rules, baseline, Verdict::Jump);
        }
        Made::new(name, Some(self.who), rules)
    }
}

/// `tcp flags != syn / fin,syn,rst,ack ct state new ...`: conntrack takes any packet with an ACK for the begin of
/// a flow (`nf_conntrack_tcp_loose`). Of one that was cut it may be the server's, and the client's would be its answers.
fn midstream(chain: &str, then: Vec<Expr>) -> Rule {
    rule(chain, [is_not_first_of_tcp(), is_in_state(NEW), then], Some("of a connection that is not known"))
}

/// `FIELD . FIELD vmap @MAP`
pub(super) fn lookup_verdict(fields: &[Field], map: &str) -> Vec<Expr> {
    let mut exprs = is_in(fields, map);
    exprs.pop();
    exprs.push(Expr::LookupVerdict { set: map.to_owned(), key: Reg(0) });
    exprs
}

pub(super) fn rule<const N: usize>(chain: &str, parts: [Vec<Expr>; N], comment: Option<&str>) -> Rule {
    let comment = comment.map(|comment| kept_comment(comment).to_owned());
    Rule { chain: chain.to_owned(), exprs: parts.concat(), comment }
}
