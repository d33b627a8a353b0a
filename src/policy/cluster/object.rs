//! ClusterNetworkPolicies: the fields that decide about a connection, as the API writes them in JSON.
//!
//! What is read here is not judged yet. Fields that this program does not know are kept by their names, because what has
//! one cannot be understood: whoever compiles it says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::object::LabelSelector;

/// Fields that are not known: experimental ones, and those of later versions.
pub type Others = BTreeMap<String, Value>;

/// A ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicy {
    /// Its name. It has no namespace.
    pub name: String,
    /// `spec`
    #[serde(default)]
    pub spec: Box<ClusterSpec>,
}

/// `spec` of a ClusterNetworkPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// `Admin` or `Baseline`.
    #[serde(default)]
    pub tier: String,
    /// From 0 to 1000; the lowest comes first.
    #[serde(default)]
    pub priority: i64,
    /// Whom it is about.
    #[serde(default)]
    pub subject: Subject,
    /// What comes in, by the first rule that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterRule>,
    /// What goes out, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterRule>,
}

/// Whom a policy is about: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some of their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
    /// What is not known.
    #[serde(flatten)]
    pub others: Others,
}

/// Pods by their labels and those of their namespaces. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPods {
    /// Of which namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Which of their pods.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// A rule: what becomes of what one of its peers does by one of its protocols.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRule {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    #[serde(default)]
    pub action: String,
    /// `from` of ingress, `to` of egress; at least one.
    #[serde(default, alias = "from", alias = "to")]
    pub peers: Vec<ClusterPeer>,
    /// Missing: whatever the protocol and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<Protocol>,
    /// What is not known.
    #[serde(flatten)]
    pub others: Others,
}

/// One peer of a rule: one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some of their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
    /// Addresses in CIDR notation. Of egress only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// What is not known: `nodes`, `domainNames`.
    #[serde(flatten)]
    pub others: Others,
}

/// One protocol of a rule: one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Ports>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<Ports>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<Ports>,
    /// What is not known: `destinationNamedPort`.
    #[serde(flatten)]
    pub others: Others,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// The server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterPort>,
    /// What is not known.
    #[serde(flatten)]
    pub others: Others,
}

/// One port, or several: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPort {
    /// This one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// From the first to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterRange>,
    /// What is not known.
    #[serde(flatten)]
    pub others: Others,
}

/// Ports that follow one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRange {
    /// The first.
    #[serde(default)]
    pub start: i64,
    /// The last.
    #[serde(default)]
    pub end: i64,
}
