//! Policies, namespaces and pods: of each the fields that decide about a connection, as the API writes them in JSON.
//!
//! What is read here is not judged yet. A policy with an invalid CIDR, port or operator reads like any other; whoever
//! compiles it names the field.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::cluster::object::ClusterPolicy;

/// Which object of a namespace. Of a Namespace itself `namespace` is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    /// `namespace/name`; of what has no namespace the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// What is heard of one kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed<T> {
    /// A complete list begins. What is not in it until it ends is gone.
    ListBegins,
    /// One object of that list.
    Listed(T),
    /// The list was complete.
    ListEnds,
    /// An object is new or changed.
    Changed(T),
    /// An object is gone.
    Gone(ObjectName),
}

/// What the API server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Of NetworkPolicies of all namespaces.
    Policy(Feed<Policy>),
    /// Of Namespaces.
    Namespace(Feed<Namespace>),
    /// Of the pods of this node; finished ones are gone.
    OwnPod(Feed<Pod>),
    /// Of the pods of all nodes, this one's among them; finished ones are gone.
    AnyPod(Feed<Pod>),
    /// Of ClusterNetworkPolicies, whose names have no namespace.
    ClusterPolicy(Feed<ClusterPolicy>),
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A pod that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Which pod.
    #[serde(flatten)]
    pub name: ObjectName,
    /// `metadata.uid`; of a static pod the annotation `kubernetes.io/config.hash`, which is what the runtime is told.
    pub uid: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `status.podIPs`; none before it has some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Ports of its containers that have a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// Whether it lives in the node's network namespace: never isolated, in no set of peers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
}

/// A port of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its protocol, an `IPPROTO_*`.
    pub protocol: u8,
    /// Its number.
    pub port: u16,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Which policy.
    #[serde(flatten)]
    pub name: ObjectName,
    /// `spec`
    #[serde(default)]
    pub spec: PolicySpec,
}

/// `spec` of a NetworkPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// Which pods of the policy's namespace it isolates. Empty: all.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// `Ingress`, `Egress`. Missing or empty: `Ingress`, and `Egress` if there are rules of egress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<String>,
    /// What may come in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// What may go out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
}

/// A rule: what one of its peers does by one of its ports is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `from` of ingress, `to` of egress. Missing or empty: whoever.
    #[serde(default, alias = "from", alias = "to", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// Missing or empty: all ports of all protocols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

/// One peer of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Pods: of the policy's namespace, or of those that `namespace_selector` selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces. Without `pod_selector`: all of their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses; with none of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpBlock {
    /// In CIDR notation.
    pub cidr: String,
    /// What of them is not meant, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// A port of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// `TCP`, `UDP` or `SCTP`; missing: `TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Missing: all ports of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NumberOrName>,
    /// The last port of a range that begins with `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i64>,
}

/// A port by its number, or by the name that a container gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NumberOrName {
    /// Its number.
    Number(i64),
    /// Its name.
    Name(String),
}

/// A selector of labels. Empty: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Each of them must be there with that value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Each of them must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// For `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}
