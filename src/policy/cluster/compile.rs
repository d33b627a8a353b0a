//! A ClusterNetworkPolicy, checked and compiled once: whom it is about, and its rules in order.
//!
//! A rule that cannot be understood fails closed, as the API demands it: one that accepts then accepts nothing, any other
//! denies everything. A policy of which nobody can tell whom it is about, or in which tier it is, is about nobody: to deny
//! all of the cluster for a slip of the pen would leave nobody to mend it.

use std::fmt;
use std::sync::Arc;

use crate::policy::blocks::Blocks;
use crate::policy::cluster::object::{
    ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, NamespacedPods, Others, Ports, Protocol, Subject,
};
use crate::policy::compile::Peers;
use crate::policy::names::{SCTP, TCP, UDP};
use crate::policy::object::{IpBlock, LabelSelector};
use crate::policy::plan::{Action, Direction, Tier};
use crate::policy::selector::{Invalid, Selector};
use crate::policy::set_spec::{Content, Namespaces, PodGroup, SetSpec};

/// A compiled policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledCluster {
    /// Admin or Baseline.
    pub tier: Tier,
    /// The lowest comes first, and of two with the same the one whose name comes first.
    pub priority: i64,
    /// Whom it is about.
    pub subject: PodGroup,
    ingress: Vec<TierRule>,
    egress: Vec<TierRule>,
    /// What could not be understood, and what follows from that.
    pub unclear: Vec<(Invalid, Consequence)>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierRule {
    /// Its place in the list.
    pub index: usize,
    /// Its name; may be empty.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Whom it is about; none: whoever.
    pub peers: Option<Peers>,
    /// By which ports, each a protocol, the first and the last; none: all of all protocols.
    pub ports: Option<Vec<(u8, u16, u16)>>,
}

/// What follows if a part of a policy cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The rule accepts nothing.
    AcceptsNothing,
    /// The rule denies everything to and from its pods.
    DeniesAll,
    /// The policy is about nobody.
    NotInForce,
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AcceptsNothing => "the rule accepts nothing",
            Self::DeniesAll => "the rule denies everything",
            Self::NotInForce => "the policy is not in force",
        })
    }
}

impl CompiledCluster {
    /// Never fails: what cannot be understood has a [`Consequence`].
    pub fn new(policy: &ClusterPolicy) -> Self {
        let spec = &policy.spec;
        let nobody = |invalid: Invalid| Self {
            tier: Tier::Admin,
            priority: spec.priority,
            subject: PodGroup::all(),
            ingress: Vec::new(),
            egress: Vec::new(),
            unclear: vec![(invalid, Consequence::NotInForce)],
        };
        let tier = match spec.tier.as_str() {
            "Admin" => Tier::Admin,
            "Baseline" => Tier::Baseline,
            other => {
                return nobody(Invalid::new("spec.tier", format!("{other:?} is not one of Admin, Baseline")));
            }
        };
        let subject = match compile_subject(&spec.subject) {
            Ok(subject) => subject,
            Err(invalid) => return nobody(invalid),
        };
        let mut unclear = Vec::new();
        let ingress = compile_rules(&spec.ingress, Direction::Ingress, &mut unclear);
        let egress = compile_rules(&spec.egress, Direction::Egress, &mut unclear);
        Self { tier, priority: spec.priority, subject, ingress, egress, unclear }
    }

    /// Its rules of that direction, in order; without those that accept nothing.
    pub fn rules(&self, direction: Direction) -> &[TierRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Whether it has no rule at all.
    pub fn is_idle(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    /// Whether it may be about pods of a namespace with these labels; `None`: they are not known.
    pub fn covers<L: AsRef<str>>(&self, labels: Option<&[L]>) -> bool {
        let Namespaces::Selected(selector) = &self.subject.namespaces else { return false };
        !self.is_idle() && labels.map_or_else(|| selector.is_empty(), |labels| selector.matches(labels))
    }
}

fn compile_subject(subject: &Subject) -> Result<PodGroup, Invalid> {
    let field = "spec.subject";
    known(&subject.others, field)?;
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => whole_namespaces(namespaces, &format!("{field}.namespaces")),
        (None, Some(pods)) => some_pods(pods, &format!("{field}.pods")),
        _ => Err(Invalid::new(field, "must have one of namespaces, pods")),
    }
}

fn whole_namespaces(selector: &LabelSelector, field: &str) -> Result<PodGroup, Invalid> {
    let namespaces = Namespaces::Selected(Selector::compile(selector, field)?);
    Ok(PodGroup { namespaces, pods: Selector::default() })
}

fn some_pods(pods: &NamespacedPods, field: &str) -> Result<PodGroup, Invalid> {
    let namespaces = Selector::compile(&pods.namespace_selector, &format!("{field}.namespaceSelector"))?;
    let pods = Selector::compile(&pods.pod_selector, &format!("{field}.podSelector"))?;
    Ok(PodGroup { namespaces: Namespaces::Selected(namespaces), pods })
}

/// What has fields that are not known cannot be understood.
fn known(others: &Others, field: &str) -> Result<(), Invalid> {
    match others.keys().next() {
        Some(other) => Err(Invalid::new(
            format!("{field}.{other}"),
            "is experimental or of another version of the API, and not supported",
        )),
        None => Ok(()),
    }
}

fn compile_rules(
    rules: &[ClusterRule],
    direction: Direction,
    unclear: &mut Vec<(Invalid, Consequence)>,
) -> Vec<TierRule> {
    let (list, peers) = match direction {
        Direction::Ingress => ("spec.ingress", "from"),
        Direction::Egress => ("spec.egress", "to"),
    };
    let mut compiled = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{list}[{index}]");
        let name = rule.name.clone();
        let invalid = match compile_rule(rule, direction, &field, peers) {
            Ok((action, peers, ports)) => {
                compiled.push(TierRule { index, name, action, peers: Some(peers), ports });
                continue;
            }
            Err(invalid) => invalid,
        };
        if rule.action == "Accept" {
            unclear.push((invalid, Consequence::AcceptsNothing));
        } else {
            unclear.push((invalid, Consequence::DeniesAll));
            compiled.push(TierRule { index, name, action: Action::Deny, peers: None, ports: None });
        }
    }
    compiled
}

type Rule = (Action, Peers, Option<Vec<(u8, u16, u16)>>);

fn compile_rule(rule: &ClusterRule, direction: Direction, field: &str, peers: &str) -> Result<Rule, Invalid> {
    known(&rule.others, field)?;
    let action = match rule.action.as_str() {
        "Accept" => Action::Accept,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        other => {
            let reason = format!("{other:?} is not one of Accept, Deny, Pass");
            return Err(Invalid::new(format!("{field}.action"), reason));
        }
    };
    let peers = compile_peers(&rule.peers, direction, &format!("{field}.{peers}"))?;
    let mut ports = Vec::new();
    for (n, protocol) in rule.protocols.iter().enumerate() {
        ports.push(compile_protocol(protocol, &format!("{field}.protocols[{n}]"))?);
    }
    ports.sort_unstable();
    ports.dedup();
    Ok((action, peers, (!ports.is_empty()).then_some(ports)))
}

/// One set for all pods of a rule, and one for all of its addresses.
fn compile_peers(peers: &[ClusterPeer], direction: Direction, field: &str) -> Result<Peers, Invalid> {
    if peers.is_empty() {
        return Err(Invalid::new(field, "must have a peer"));
    }
    let (mut groups, mut blocks) = (Vec::new(), Vec::new());
    for (n, peer) in peers.iter().enumerate() {
        let field = format!("{field}[{n}]");
        known(&peer.others, &field)?;
        match (&peer.namespaces, &peer.pods, &peer.networks) {
            (Some(namespaces), None, None) => {
                groups.push(Arc::new(whole_namespaces(namespaces, &format!("{field}.namespaces"))?));
            }
            (None, Some(pods), None) => groups.push(Arc::new(some_pods(pods, &format!("{field}.pods"))?)),
            (None, None, Some(networks)) if direction == Direction::Egress && !networks.is_empty() => {
                for (at, cidr) in networks.iter().enumerate() {
                    let written = IpBlock { cidr: cidr.clone(), except: Vec::new() };
                    let path = format!("{field}.networks[{at}]");
                    let compiled = Blocks::compile(&written, &path);
                    blocks.push(compiled.map_err(|invalid| Invalid { field: path, ..invalid })?);
                }
            }
            (None, None, Some(_)) if direction == Direction::Ingress => {
                return Err(Invalid::new(format!("{field}.networks"), "is for egress only"));
            }
            _ => return Err(Invalid::new(field, "must have one of namespaces, pods, networks")),
        }
    }
    groups.sort();
    groups.dedup();
    let blocks = Blocks::union(&blocks);
    let of_pods = (!groups.is_empty()).then(|| Content::Pods(groups.clone()));
    let of_blocks = (!blocks.is_empty()).then(|| Content::Blocks(blocks.clone()));
    let sets = of_pods.into_iter().chain(of_blocks).map(|content| Arc::new(SetSpec::new(content))).collect();
    Ok(Peers { groups, blocks, sets })
}

fn compile_protocol(protocol: &Protocol, field: &str) -> Result<(u8, u16, u16), Invalid> {
    known(&protocol.others, field)?;
    let (number, word, ports) = match (&protocol.tcp, &protocol.udp, &protocol.sctp) {
        (Some(ports), None, None) => (TCP, "tcp", ports),
        (None, Some(ports), None) => (UDP, "udp", ports),
        (None, None, Some(ports)) => (SCTP, "sctp", ports),
        _ => return Err(Invalid::new(field, "must have one of tcp, udp, sctp")),
    };
    let (first, last) = compile_ports(ports, &format!("{field}.{word}"))?;
    Ok((number, first, last))
}

fn compile_ports(ports: &Ports, field: &str) -> Result<(u16, u16), Invalid> {
    known(&ports.others, field)?;
    let Some(port) = &ports.destination_port else {
        return Err(Invalid::new(field, "must have destinationPort"));
    };
    let field = format!("{field}.destinationPort");
    known(&port.others, &field)?;
    let number = |value: i64, name: &str| match u16::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Invalid::new(format!("{field}.{name}"), format!("{value} is not within 1 to 65535"))),
    };
    match port {
        ClusterPort { number: Some(one), range: None, .. } => {
            number(*one, "number").map(|number| (number, number))
        }
        ClusterPort { number: None, range: Some(range), .. } => {
            let (first, last) = (number(range.start, "range.start")?, number(range.end, "range.end")?);
            if first > last {
                return Err(Invalid::new(format!("{field}.range"), "its end is less than its start"));
            }
            Ok((first, last))
        }
        _ => Err(Invalid::new(field, "must have one of number, range")),
    }
}
