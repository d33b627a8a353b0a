//! A NetworkPolicy, checked and compiled once: whom it isolates, and rules whose peers are descriptions of sets.

use std::sync::Arc;

use crate::policy::blocks::Blocks;
use crate::policy::content::Alone;
use crate::policy::names::{SCTP, TCP, UDP};
use crate::policy::object::{LabelSelector, NumberOrName, Peer, Policy, Port, Rule};
use crate::policy::plan::Direction;
use crate::policy::selector::{Invalid, Selector};
use crate::policy::set_spec::{Content, Namespaces, PodGroup, SetSpec};

/// A compiled policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Which pods of its namespace it isolates; all if that cannot be told.
    pub selector: Selector,
    /// Whether it isolates them in that direction.
    ingress: bool,
    egress: bool,
    /// Its rules, or why it has none: then its pods are closed.
    pub rules: Result<Rules, Invalid>,
}

/// Rules of both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    ingress: Vec<CompiledRule>,
    egress: Vec<CompiledRule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledRule {
    /// Whom it is about; none: whoever.
    pub peers: Option<Peers>,
    /// By which ports; none: all of all protocols.
    pub ports: Option<Vec<PortMatch>>,
    /// What it is at a port of its own.
    pub alone: Alone,
}

/// The peers of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// Pods.
    pub groups: Vec<Arc<PodGroup>>,
    /// Addresses, of all ipBlocks of the rule.
    pub blocks: Blocks,
    /// A set for each of the groups, and one for the addresses.
    pub sets: Vec<Arc<SetSpec>>,
}

/// A port of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMatch {
    /// From the first to the last.
    Range { protocol: u8, first: u16, last: u16 },
    /// What the pod that is meant calls so.
    Named { protocol: u8, name: String },
}

impl Compiled {
    /// Never fails: what cannot be compiled closes its pods.
    pub fn new(policy: &Policy) -> Self {
        let spec = &policy.spec;
        let (ingress, egress, types) = directions(&spec.policy_types, !spec.egress.is_empty());
        let selector = Selector::compile(&spec.pod_selector, "spec.podSelector");
        let namespace = &policy.name.namespace;
        let rules = types.and_then(|()| {
            if let Err(invalid) = &selector {
                return Err(invalid.clone());
            }
            Ok(Rules {
                ingress: compile_rules(&spec.ingress, namespace, "spec.ingress", "from")?,
                egress: compile_rules(&spec.egress, namespace, "spec.egress", "to")?,
            })
        });
        Self { selector: selector.unwrap_or_default(), ingress, egress, rules }
    }

    /// Whether it isolates its pods in that direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// Its rules of that direction; none if it could not be compiled.
    pub fn rules(&self, direction: Direction) -> &[CompiledRule] {
        match (&self.rules, direction) {
            (Ok(rules), Direction::Ingress) => &rules.ingress,
            (Ok(rules), Direction::Egress) => &rules.egress,
            (Err(_), _) => &[],
        }
    }
}

/// Ingress and egress. Of types that are not known nothing can be told: both, unless there are others.
fn directions(types: &[String], has_egress: bool) -> (bool, bool, Result<(), Invalid>) {
    if types.is_empty() {
        return (true, has_egress, Ok(()));
    }
    let (ingress, egress) = (types.iter().any(|it| it == "Ingress"), types.iter().any(|it| it == "Egress"));
    let unknown = types.iter().enumerate().find(|(_, it)| *it != "Ingress" && *it != "Egress");
    let verdict = unknown.map_or(Ok(()), |(n, it)| {
        Err(Invalid::new(format!("spec.policyTypes[{n}]"), format!("{it:?} is not one of Ingress, Egress")))
    });
    if ingress || egress { (ingress, egress, verdict) } else { (true, true, verdict) }
}

fn compile_rules(
    rules: &[Rule],
    namespace: &str,
    field: &str,
    peers: &str,
) -> Result<Vec<CompiledRule>, Invalid> {
    let each = rules.iter().enumerate().map(|(n, rule)| {
        let field = format!("{field}[{n}]");
        let ports = rule.ports.iter().enumerate();
        let ports = ports.map(|(p, port)| compile_port(port, &format!("{field}.ports[{p}]")));
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        Ok(CompiledRule {
            peers: compile_peers(&rule.peers, namespace, &format!("{field}.{peers}"))?,
            ports: (!ports.is_empty()).then_some(ports),
            alone: Alone::default(),
        })
    });
    each.collect()
}

fn compile_peers(peers: &[Peer], namespace: &str, field: &str) -> Result<Option<Peers>, Invalid> {
    if peers.is_empty() {
        return Ok(None);
    }
    let (mut groups, mut blocks) = (Vec::new(), Vec::new());
    for (n, peer) in peers.iter().enumerate() {
        let field = format!("{field}[{n}]");
        let selector = |written: &Option<LabelSelector>, name: &str| {
            let written = written.as_ref();
            written.map(|it| Selector::compile(it, &format!("{field}.{name}"))).transpose()
        };
        let pods = selector(&peer.pod_selector, "podSelector")?;
        let namespaces = selector(&peer.namespace_selector, "namespaceSelector")?;
        match (&peer.ip_block, pods, namespaces) {
            (Some(block), None, None) => blocks.push(Blocks::compile(block, &format!("{field}.ipBlock"))?),
            (Some(_), ..) => {
                return Err(Invalid::new(field, "ipBlock stands beside podSelector or namespaceSelector"));
            }
            (None, None, None) => {
                return Err(Invalid::new(field, "has none of podSelector, namespaceSelector, ipBlock"));
            }
            (None, Some(pods), None) => {
                groups.push(Arc::new(PodGroup { namespaces: Namespaces::Only(namespace.to_owned()), pods }));
            }
            (None, pods, Some(selector)) => {
                let pods = pods.unwrap_or_default();
                groups.push(Arc::new(PodGroup { namespaces: Namespaces::Selected(selector), pods }));
            }
        }
    }
    groups.sort();
    groups.dedup();
    let blocks = Blocks::union(&blocks);
    let of_groups = groups.iter().map(|group| Content::Pods(vec![Arc::clone(group)]));
    let of_blocks = (!blocks.is_empty()).then(|| Content::Blocks(blocks.clone()));
    let sets = of_groups.chain(of_blocks).map(|content| Arc::new(SetSpec::new(content))).collect();
    Ok(Some(Peers { groups, blocks, sets }))
}

fn compile_port(port: &Port, field: &str) -> Result<PortMatch, Invalid> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => TCP,
        Some("UDP") => UDP,
        Some("SCTP") => SCTP,
        Some(other) => {
            let reason = format!("{other:?} is not one of TCP, UDP, SCTP");
            return Err(Invalid::new(format!("{field}.protocol"), reason));
        }
    };
    let number = |value: i64, name: &str| match u16::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Invalid::new(format!("{field}.{name}"), format!("{value} is not within 1 to 65535"))),
    };
    let end_port = |reason: &str| Err(Invalid::new(format!("{field}.endPort"), reason));
    match (&port.port, port.end_port) {
        (None, Some(_)) => end_port("stands without port"),
        (Some(NumberOrName::Name(_)), Some(_)) => end_port("stands with a port that is a name"),
        (None, None) => Ok(PortMatch::Range { protocol, first: 0, last: u16::MAX }),
        (Some(NumberOrName::Number(first)), end) => {
            let first = number(*first, "port")?;
            let last = end.map_or(Ok(first), |end| number(end, "endPort"))?;
            if last < first {
                return end_port("is less than port");
            }
            Ok(PortMatch::Range { protocol, first, last })
        }
        (Some(NumberOrName::Name(name)), None) if is_port_name(name) => {
            Ok(PortMatch::Named { protocol, name: name.clone() })
        }
        (Some(NumberOrName::Name(name)), None) => {
            let reason = format!("{name:?} is no name of a port: 1 to 15 of a-z, 0-9 and -, with a letter");
            Err(Invalid::new(format!("{field}.port"), reason))
        }
    }
}

/// RFC 6335, section 5.1, in lower case.
fn is_port_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
