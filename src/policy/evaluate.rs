//! Why a connection is allowed or denied: the answer's types. The same types answer for people and for a program.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::cluster::compile::TierRule;
use crate::policy::object::ObjectName;
use crate::policy::plan::{Direction, Tier};

/// A connection, by its first packet as the forward hook sees it: after DNAT, before SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Who begins.
    pub source: IpAddr,
    /// Who is meant.
    pub destination: IpAddr,
    /// An `IPPROTO_*`.
    pub protocol: u8,
    /// Destination port; 0 of protocols that have none.
    pub port: u16,
}

/// What this node's policies say of a flow, in each direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// By the policies of the source.
    pub egress: Verdict,
    /// By the policies of the destination.
    pub ingress: Verdict,
    /// Rules of ClusterNetworkPolicies that passed the flow on before that was said, those of egress first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<TierRuleName>,
}

impl Judgement {
    /// Whether the flow passes this node.
    pub fn allowed(&self) -> bool {
        self.egress.allowed() && self.ingress.allowed()
    }

    /// Of one direction.
    pub fn of(&self, direction: Direction) -> &Verdict {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What is said of a flow in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The address is that of no pod of this node that policies could isolate.
    NotOfThisNode,
    /// Source and destination are the same pod, which no NetworkPolicy keeps from itself.
    Itself,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// This rule allows it; others may as well.
    Allowed(RuleName),
    /// These policies isolate the pod, and none of them allows it.
    Denied(Vec<Refusal>),
    /// This rule of a ClusterNetworkPolicy accepts it.
    Accepted(TierRuleName),
    /// This rule of a ClusterNetworkPolicy denies it.
    Forbidden(TierRuleName),
}

impl Verdict {
    /// Whether it passes.
    pub fn allowed(&self) -> bool {
        !matches!(self, Self::Denied(_) | Self::Forbidden(_))
    }
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// Of which policy.
    pub policy: ObjectName,
    /// Of `spec.ingress` or `spec.egress`.
    pub direction: Direction,
    /// Its place there.
    pub index: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = list_of(self.direction);
        write!(f, "{}/{} {list}[{}]", self.policy.namespace, self.policy.name, self.index)
    }
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierRuleName {
    /// In which tier.
    pub tier: Tier,
    /// Of which policy.
    pub policy: String,
    /// Of `spec.ingress` or `spec.egress`.
    pub direction: Direction,
    /// Its place there.
    pub index: usize,
    /// How its author calls it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl TierRuleName {
    /// Of a compiled rule.
    pub fn new(tier: Tier, policy: &str, direction: Direction, rule: &TierRule) -> Self {
        Self { tier, policy: policy.to_owned(), direction, index: rule.index, name: rule.name.clone() }
    }
}

impl fmt::Display for TierRuleName {
    /// A comment of the table: what `nft` could not read back is left out of a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = list_of(self.direction);
        write!(f, "{} {} {list}[{}]", self.tier.as_str(), self.policy, self.index)?;
        let is_plain = |it: &char| !it.is_control() && !['"', '\\'].contains(it);
        let name: String = self.name.chars().filter(is_plain).collect();
        if name.is_empty() { Ok(()) } else { write!(f, " ({name})") }
    }
}

fn list_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// A policy that isolates the pod and does not allow the flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which policy.
    pub policy: ObjectName,
    /// Why it cannot be compiled, `field: reason`; the pod is then closed, whatever other policies allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// Its rule that comes nearest, and what that lacks; none if it has no rule in this direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Lack>,
}

/// What a rule lacks to allow a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// The rule's place in the list.
    pub index: usize,
    /// What ports it has, if the flow's is not among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// What its peers want, if the flow's other end is not among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerLack>,
}

/// Why the other end of a flow is no peer of a rule, by the peer that comes nearest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerLack {
    /// Its pod's labels do not fulfil this.
    Label(String),
    /// Its pod's namespace is not this one, or its labels do not fulfil this.
    Namespace(String),
    /// The rule selects pods, and the address is that of no pod that is known.
    NoPod,
    /// The rule has addresses only, and this is not among them.
    Address,
}
