//! What one node says of a connection.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::evaluate::Flow;

/// What one node says of one connection, for the end that lives on it. A node with both ends says two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Half {
    /// The node, as the question names it, or as it calls itself.
    pub node: String,
    /// Which end lives on it.
    pub role: Role,
    /// The connection.
    pub flow: Flow,
    /// What lies on the way here, in the order in which packets come by, answers last.
    pub steps: Vec<Step>,
    /// MTU of the link towards the other end, in bytes, less what a tunnel takes; none where packets do not leave the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_mtu: Option<u32>,
    /// MTU of the pod's link, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_mtu: Option<u32>,
    /// The node that has the other end, if it is another one and this node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Other>,
}

/// Which end of the connection lives on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The one that begins.
    Source,
    /// The one that is meant.
    Destination,
}

/// The node that has the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// Its name, as far as this node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its address: the next hop, or the other end of the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// One thing on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was looked at.
    pub kind: Kind,
    /// What was found.
    pub state: State,
    /// Which packets meet it.
    #[serde(default)]
    pub direction: Direction,
    /// The same in words; it stands behind the name of the node.
    pub sentence: String,
    /// What to do, if it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Details for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It lets the connection pass.
    Ok,
    /// It does not.
    Broken,
    /// It could not be looked at, or not be understood.
    Unknown,
}

/// Which packets of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From source to destination.
    #[default]
    Forth,
    /// The answers.
    Back,
}

/// What lies on a way. Stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The pod itself: that it lives, and its link at both ends.
    Pod,
    /// The address that the source sends from.
    SourceAddress,
    /// The node's rule that a pod sends from its own addresses only.
    Antispoof,
    /// NetworkPolicies of the source.
    EgressPolicy,
    /// NetworkPolicies of the destination.
    IngressPolicy,
    /// The sysctls without which nothing is forwarded.
    Forwarding,
    /// The kernel's check where packets come from.
    RpFilter,
    /// A rule of policy routing that leads packets elsewhere.
    Rule,
    /// The route to the other node or to the world.
    Route,
    /// The node's route to its own pod.
    PodRoute,
    /// The node's link that packets leave or come in by.
    Link,
    /// The hardware address of the next hop.
    Neighbour,
    /// VXLAN: the device, what leads to the other node, and who may send to its port.
    Tunnel,
    /// How large packets may be.
    Mtu,
    /// Firewalls of others, in nf_tables.
    Firewall,
    /// The table of tracked flows.
    Conntrack,
    /// The node's address as source of what leaves the cluster.
    Masquerade,
    /// A port of the node that leads to a pod.
    HostPort,
    /// The endpoints of a Service.
    Endpoints,
    /// Whether somebody listens at the destination.
    Listener,
    /// What no node of the cluster sees.
    Beyond,
    /// A node that was not asked.
    Node,
    /// Of a newer version.
    #[serde(other)]
    Other,
}

impl Kind {
    /// As it stands in the JSON document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::SourceAddress => "source-address",
            Self::Antispoof => "antispoof",
            Self::EgressPolicy => "egress-policy",
            Self::IngressPolicy => "ingress-policy",
            Self::Forwarding => "forwarding",
            Self::RpFilter => "rp-filter",
            Self::Rule => "rule",
            Self::Route => "route",
            Self::PodRoute => "pod-route",
            Self::Link => "link",
            Self::Neighbour => "neighbour",
            Self::Tunnel => "tunnel",
            Self::Mtu => "mtu",
            Self::Firewall => "firewall",
            Self::Conntrack => "conntrack",
            Self::Masquerade => "masquerade",
            Self::HostPort => "host-port",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::Beyond => "beyond",
            Self::Node => "node",
            Self::Other => "other",
        }
    }
}

impl Step {
    /// It lets the connection pass.
    pub fn ok(kind: Kind, sentence: impl Into<String>) -> Self {
        Self::new(kind, State::Ok, sentence.into())
    }

    /// It does not.
    pub fn broken(kind: Kind, sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(kind, State::Broken, sentence.into()) }
    }

    /// It could not be looked at, or not be understood.
    pub fn unknown(kind: Kind, sentence: impl Into<String>) -> Self {
        Self::new(kind, State::Unknown, sentence.into())
    }

    fn new(kind: Kind, state: State, sentence: String) -> Self {
        Self { kind, state, direction: Direction::Forth, sentence, remedy: None, facts: BTreeMap::new() }
    }

    /// Of the answers.
    #[must_use]
    pub fn back(self) -> Self {
        Self { direction: Direction::Back, ..self }
    }

    /// With a detail for programs.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl ToString) -> Self {
        self.facts.insert(name.to_owned(), value.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_as_the_document_names_it_and_a_newer_one_is_read() {
        for kind in [Kind::Pod, Kind::SourceAddress, Kind::RpFilter, Kind::HostPort, Kind::Mtu, Kind::Other] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        assert_eq!(serde_json::from_str::<Kind>("\"of-tomorrow\"").unwrap(), Kind::Other);
    }
}
