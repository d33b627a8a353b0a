//! Why a flow is allowed or denied: from policies, namespaces and pods, not from the plan.

use std::net::IpAddr;

use crate::policy::build::{Named, too_large};
use crate::policy::compile::{CompiledRule, Peers, PortMatch};
use crate::policy::evaluate::{Flow, Judgement, Lack, PeerLack, Refusal, RuleName, TierRuleName, Verdict};
use crate::policy::index::{Member, OwnPod};
use crate::policy::names::{SCTP, TCP, UDP};
use crate::policy::plan::{Direction, Isolation, Tier};
use crate::policy::planner::Planner;
use crate::policy::set_spec::{Namespaces, PodGroup};

impl Planner {
    /// What policies say of a flow, and why. Looks at all pods: for people, not for thousands of flows; those are for
    /// [`Plan::walk`](crate::policy::plan::Plan::walk).
    pub fn judge(&self, flow: &Flow) -> Judgement {
        let (source, destination) = (self.own_with(flow.source), self.own_with(flow.destination));
        let itself = match (&source, &destination) {
            (Some(source), Some(destination)) => source.uid == destination.uid,
            _ => false,
        };
        let mut passed = Vec::new();
        let mut judge = |direction, own: Option<OwnPod<'_>>, peer| {
            own.map_or(Verdict::NotOfThisNode, |own| {
                self.judge_tiers(direction, &own, peer, flow, itself, &mut passed)
            })
        };
        let egress = judge(Direction::Egress, source, flow.destination);
        let ingress = judge(Direction::Ingress, destination, flow.source);
        Judgement { egress, ingress, passed }
    }

    /// All tiers, one after the other.
    fn judge_tiers(
        &self,
        direction: Direction,
        own: &OwnPod<'_>,
        peer: IpAddr,
        flow: &Flow,
        itself: bool,
        passed: &mut Vec<TierRuleName>,
    ) -> Verdict {
        if let Some(decided) = self.judge_tier(Tier::Admin, direction, own, peer, flow, passed) {
            return decided;
        }
        let verdict = self.judge_one(direction, own, peer, flow);
        if verdict == Verdict::NotIsolated
            && let Some(decided) = self.judge_tier(Tier::Baseline, direction, own, peer, flow, passed)
        {
            return decided;
        }
        if itself { Verdict::Itself } else { verdict }
    }

    /// The pod of this node that has an address. Of several the one that has a record: the others are going or coming.
    fn own_with(&self, address: IpAddr) -> Option<OwnPod<'_>> {
        let having = self.index.all_own().filter(|own| own.member.addresses().any(|its| its == address));
        having.max_by_key(|own| self.index.is_recorded(own.uid))
    }

    fn judge_one(&self, direction: Direction, own: &OwnPod<'_>, peer: IpAddr, flow: &Flow) -> Verdict {
        let isolating = self.policies_of(&own.name.namespace);
        let isolating = isolating
            .filter(|(_, it)| it.isolates(direction) && it.selector.matches(own.member.labels))
            .collect::<Vec<Named<'_>>>();
        if isolating.is_empty() {
            return Verdict::NotIsolated;
        }
        let invalid = isolating.iter().filter_map(|(name, it)| Some((name, it.rules.as_ref().err()?)));
        let invalid = invalid.map(|(name, why)| Refusal {
            policy: (*name).clone(),
            invalid: Some(why.to_string()),
            nearest: None,
        });
        let invalid: Vec<Refusal> = invalid.collect();
        if !invalid.is_empty() {
            return Verdict::Denied(invalid);
        }
        let plan = self.plan.pods.get(own.uid);
        if plan.is_some_and(|plan| *plan.of(direction) == Isolation::Closed) {
            let why = too_large(direction).to_string();
            let refusals = isolating.iter().map(|(name, _)| Refusal {
                policy: (*name).clone(),
                invalid: Some(why.clone()),
                nearest: None,
            });
            return Verdict::Denied(refusals.collect());
        }
        let members: Vec<Member<'_>> = self.index.with_address(peer).collect();
        let other = OtherEnd { direction, own: &own.member, members: &members, address: peer, flow };
        let mut refusals = Vec::new();
        for (name, compiled) in isolating {
            let mut nearest: Option<(usize, Lack)> = None;
            for (index, rule) in compiled.rules(direction).iter().enumerate() {
                let Some((distance, port, peer)) = other.lacks(rule) else {
                    return Verdict::Allowed(RuleName { policy: name.clone(), direction, index });
                };
                if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                    nearest = Some((distance, Lack { index, port, peer }));
                }
            }
            let nearest = nearest.map(|(_, lack)| lack);
            refusals.push(Refusal { policy: name.clone(), invalid: None, nearest });
        }
        Verdict::Denied(refusals)
    }
}

/// A flow, seen from the pod that is isolated.
struct OtherEnd<'a> {
    direction: Direction,
    own: &'a Member<'a>,
    /// Pods that have the other end's address; of all of them, what one may do passes.
    members: &'a [Member<'a>],
    address: IpAddr,
    flow: &'a Flow,
}

impl OtherEnd<'_> {
    /// Nothing if the rule allows the flow; else how far it is from that, and what it lacks.
    fn lacks(&self, rule: &CompiledRule) -> Option<(usize, Option<String>, Option<PeerLack>)> {
        let is_peer = |peers: &Peers| self.members.iter().any(|it| self.is_peer(peers, Some(it)));
        let no_peer = match &rule.peers {
            Some(peers) if !is_peer(peers) && !self.is_peer(peers, None) => Some(self.peer_lack(peers)),
            _ => None,
        };
        let has_port = rule.ports.as_ref().is_none_or(|ports| {
            ports.iter().any(|port| self.has_port(port, no_peer.is_some(), rule.peers.as_ref()))
        });
        if no_peer.is_none() && has_port {
            return None;
        }
        let port = (!has_port).then(|| port_list(rule.ports.as_deref().unwrap_or_default()));
        let (distance, peer) = no_peer.unzip();
        Some((distance.unwrap_or(0) + usize::from(port.is_some()), port, peer))
    }

    /// Whether the address, or the pod with it, is one of the peers.
    fn is_peer(&self, peers: &Peers, member: Option<&Member<'_>>) -> bool {
        peers.blocks.contains(self.address)
            || member.is_some_and(|member| peers.groups.iter().any(|group| group.has(member)))
    }

    /// `any_peer`: it is known already that the other end is no peer, and only the port is asked for.
    fn has_port(&self, port: &PortMatch, any_peer: bool, peers: Option<&Peers>) -> bool {
        let (protocol, number) = (self.flow.protocol, self.flow.port);
        match port {
            PortMatch::Range { protocol: wanted, first, last } => {
                *wanted == protocol && (*first..=*last).contains(&number)
            }
            PortMatch::Named { protocol: wanted, name } => {
                let has = |member: &Member<'_>| {
                    let mut ports = member.ports.iter();
                    *wanted == protocol
                        && ports.any(|it| it.protocol == protocol && it.port == number && it.name == *name)
                };
                match self.direction {
                    Direction::Ingress => has(self.own),
                    Direction::Egress => self.members.iter().any(|member| {
                        let counts = any_peer || peers.is_none_or(|peers| self.is_peer(peers, Some(member)));
                        counts && has(member)
                    }),
                }
            }
        }
    }

    /// How far the nearest peer is, and what it lacks.
    fn peer_lack(&self, peers: &Peers) -> (usize, PeerLack) {
        let lacks = self.members.iter().flat_map(|member| {
            peers.groups.iter().map(move |group| {
                let (namespace, pods) = unmet(group, member);
                let label = group.pods.unmet(member.labels).map(ToString::to_string);
                let lack = namespace.as_ref().map(|(_, text)| PeerLack::Namespace(text.clone()));
                let lack = lack.unwrap_or_else(|| PeerLack::Label(label.unwrap_or_default()));
                (namespace.map_or(0, |(count, _)| count) + pods, lack)
            })
        });
        let nearest = lacks.min_by_key(|(distance, _)| *distance);
        let without = if peers.groups.is_empty() { PeerLack::Address } else { PeerLack::NoPod };
        nearest.unwrap_or((1, without))
    }
}

/// What of a group a pod does not fulfil: of the namespace (how many terms, and one of them), of the pod (how many).
fn unmet(group: &PodGroup, member: &Member<'_>) -> (Option<(usize, String)>, usize) {
    let namespace = match (&group.namespaces, member.namespace_labels) {
        _ if group.namespaces.have(member) => None,
        (Namespaces::Only(name), _) => Some((1, name.clone())),
        (Namespaces::Selected(selector), labels) => {
            let labels = labels.unwrap_or_default();
            let term = selector.unmet(labels).map(ToString::to_string).unwrap_or_default();
            Some((selector.count_unmet(labels).max(1), term))
        }
    };
    (namespace, group.pods.count_unmet(member.labels))
}

/// As people write them: `TCP 80, UDP 5000-5010, TCP http`.
fn port_list(ports: &[PortMatch]) -> String {
    let word = |protocol: u8| match protocol {
        TCP => "TCP",
        UDP => "UDP",
        SCTP => "SCTP",
        _ => "?",
    };
    let each = ports.iter().map(|port| match port {
        PortMatch::Range { protocol, first: 0, last: u16::MAX } => word(*protocol).to_owned(),
        PortMatch::Range { protocol, first, last } if first == last => format!("{} {first}", word(*protocol)),
        PortMatch::Range { protocol, first, last } => format!("{} {first}-{last}", word(*protocol)),
        PortMatch::Named { protocol, name } => format!("{} {name}", word(*protocol)),
    });
    each.collect::<Vec<_>>().join(", ")
}
