//! What a plan is in the kernel: chains, sets, rules and elements, in the plain types of [`crate::linux::nft`]. Pure.
//!
//! | part of the plan          | in the table                                                              |
//! |---------------------------|---------------------------------------------------------------------------|
//! | a set                     | a set of that name                                                        |
//! | a chain                   | a chain of that name; if it has rules by port, `NAME-ports`, a verdict map of protocol and port, and for each of its elements a chain such as `NAME-tcp-80` |
//! | a pod, one direction      | `in-<uid>`, `out-<uid>`: against connections that begin in their middle, and on; not isolated in this direction: the former |
//! | a namespace, likewise     | `hold-in-<namespace>`, `hold-out-<namespace>`                             |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::RangeInclusive;

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
use crate::policy::plan::{self, ChainRule, Direction, Isolation, Members, PeerMatch, PortRules};

/// Ports of one chain that have chains of their own.
const MOST_OWN_CHAINS: usize = 64;

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

/// All of one chain of a plan.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// The chain itself last: it refers to the map, and that to the others.
    pub(super) chains: Vec<Made>,
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

/// The chain of a plan, with its map and its chains by port. `sets` are those of the plan.
pub(super) fn chain(name: &str, chain: &plan::Chain, sets: &BTreeMap<String, Members>) -> Planned {
    let mut planned = Planned::default();
    let direction = chain.direction;
    let mut rules = Vec::new();
    if !chain.ports.is_empty() {
        let of_ports = port_chains(name, &chain.ports);
        let map = port_map(name, &chain.ports, &of_ports);
        rules.push(rule(name, [lookup_verdict(&[l4proto, th_dport], &map.0.name)], None));
        planned.map = Some(map);
        let mut made = HashSet::new();
        let each = chain.ports.iter().zip(&of_ports).filter(|(_, of_port)| made.insert(*of_port));
        planned.chains.extend(each.map(|(ports, of_port)| {
            let rules = ports.rules.iter().flat_map(|rule| allow(of_port, direction, rule, sets)).collect();
            Made::new(of_port, None, rules)
        }));
    }
    rules.extend(chain.rules.iter().flat_map(|rule| allow(name, direction, rule, sets)));
    rules.push(rule(name, [goto(names::denied_chain(direction))], None));
    planned.chains.push(Made::new(name, Some(&chain.policies.join(", ")), rules));
    planned
}

/// Name of the map of a chain's ports.
pub(super) fn port_map_name(chain: &str) -> String {
    format!("{chain}-ports")
}

fn port_map(chain: &str, ports: &[PortRules], of_ports: &[String]) -> (Set, Vec<Element>) {
    let name = port_map_name(chain);
    let interval = ports.iter().any(|ports| ports.first != ports.last);
    let key = |protocol, port| Bytes::default().protocol(protocol).port(port);
    let elements = ports.iter().zip(of_ports).map(|(ports, of_port)| Element {
        key_end: interval.then(|| key(ports.protocol, ports.last)),
        ..Element::with_verdict(&name, key(ports.protocol, ports.first), Verdict::Jump(of_port.clone()))
    });
    let elements = elements.collect();
    let (key, data) = (vec![Type::Protocol, Type::Port], vec![Type::Verdict]);
    (Set { name, key, data, interval, expires: false }, elements)
}

/// The chain of each port, in their order. Each has its own, which counts for itself; of very many, those with the same
/// rules share one: whoever writes policies can name each second port.
pub(super) fn port_chains(chain: &str, ports: &[PortRules]) -> Vec<String> {
    if ports.len() <= MOST_OWN_CHAINS {
        return ports.iter().map(|ports| port_chain(chain, ports)).collect();
    }
    let mut shared: HashMap<&[ChainRule], String> = HashMap::new();
    let name = |ports: &PortRules| format!("{}-and-more", port_chain(chain, ports));
    ports.iter().map(|ports| shared.entry(&ports.rules).or_insert_with(|| name(ports)).clone()).collect()
}

/// `NAME-tcp-80`, `NAME-tcp-80-90`, `NAME-tcp`
fn port_chain(chain: &str, ports: &PortRules) -> String {
    let protocol = match ports.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    };
    match (ports.first, ports.last) {
        (0, u16::MAX) => format!("{chain}-{protocol}"),
        (first, last) if first == last => format!("{chain}-{protocol}-{first}"),
        (first, last) => format!("{chain}-{protocol}-{first}-{last}"),
    }
}

/// Name of the plan's chain that a chain or a map of the table belongs to: `pi-<hash>` of `pi-<hash>-tcp-80`.
pub(super) fn owner(name: &str) -> &str {
    let second = name.match_indices('-').nth(1);
    second.and_then(|(at, _)| name.get(..at)).unwrap_or(name)
}

/// The rules that a rule of the plan is: one for each family.
fn allow(
    chain: &str,
    direction: Direction,
    allowed: &ChainRule,
    sets: &BTreeMap<String, Members>,
) -> Vec<Rule> {
    let comment = Some(allowed.comment.as_str());
    let accept = || [vec![Expr::Counter], verdict(Verdict::Accept)].concat();
    let (PeerMatch::Address(base) | PeerMatch::AddressAndPort(base)) = &allowed.peer else {
        return vec![rule(chain, [accept()], comment)];
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
        rules.push(rule(chain, [family, is_in(fields, &name), accept()], comment));
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

/// The sets that a chain of the plan looks into, as [`peer_sets`].
pub(super) fn sets_of(chain: &plan::Chain, sets: &BTreeMap<String, Members>) -> Vec<(String, Members)> {
    let rules = chain.ports.iter().flat_map(|ports| &ports.rules).chain(&chain.rules);
    let looked_into = rules.flat_map(|rule| match &rule.peer {
        PeerMatch::Any => Vec::new(),
        PeerMatch::Address(base) => peer_sets(base, false, sets),
        PeerMatch::AddressAndPort(base) => peer_sets(base, true, sets),
    });
    looked_into.collect()
}

/// The chain of a pod or of a hold; `is_isolated`: in one direction at least. `who` is for people.
pub(super) fn leading(
    direction: Direction,
    name: &str,
    who: &str,
    isolation: &Isolation,
    is_isolated: bool,
) -> Made {
    let denied = names::denied_chain(direction);
    let rules = match isolation {
        Isolation::Closed => vec![rule(name, [goto(denied)], None)],
        Isolation::Rules(chain) => vec![midstream(name, goto(denied)), rule(name, [goto(chain)], None)],
        Isolation::None | Isolation::Open if is_isolated => {
            vec![midstream(name, [vec![Expr::Counter], verdict(Verdict::Drop)].concat())]
        }
        Isolation::None | Isolation::Open => Vec::new(),
    };
    Made::new(name, Some(who), rules)
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
