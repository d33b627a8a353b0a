//! What is to be in a set: a description, by which the set is named, and which tells of a pod whether it is a member.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::policy::blocks::Blocks;
use crate::policy::digest::digest;
use crate::policy::index::Member;
use crate::policy::selector::Selector;

/// Pods that a peer of a rule selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PodGroup {
    /// Of which namespaces.
    pub namespaces: Namespaces,
    /// Which of their pods.
    pub pods: Selector,
}

/// Namespaces that a peer is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Namespaces {
    /// The policy's own.
    Only(String),
    /// Those with such labels.
    Selected(Selector),
}

impl Namespaces {
    /// Whether a member's is one of them. One whose labels are not known yet is selected only by what selects all.
    pub fn have(&self, member: &Member<'_>) -> bool {
        match (self, member.namespace_labels) {
            (Self::Only(name), _) => name == member.namespace,
            (Self::Selected(selector), Some(labels)) => selector.matches(labels),
            (Self::Selected(selector), None) => selector.is_empty(),
        }
    }
}

impl PodGroup {
    /// All pods of the cluster.
    pub fn all() -> Self {
        Self { namespaces: Namespaces::Selected(Selector::default()), pods: Selector::default() }
    }

    /// Whether it has this pod.
    pub fn has(&self, member: &Member<'_>) -> bool {
        self.namespaces.have(member) && self.pods.matches(member.labels)
    }
}

/// The ports of that name of these pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPorts {
    /// Of which pods.
    pub of: PortOwners,
    /// An `IPPROTO_*`.
    pub protocol: u8,
    /// The ports' name.
    pub name: String,
}

/// Whose named ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortOwners {
    /// Of pods that are selected.
    Pods(Arc<PodGroup>),
    /// Of pods with such an address.
    Blocks(Blocks),
}

/// What is in a set. Of several parts: the union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Addresses of pods.
    Pods(Vec<Arc<PodGroup>>),
    /// Addresses, protocols and ports of pods.
    Ports(Vec<NamedPorts>),
    /// Addresses that are written in policies.
    Blocks(Blocks),
}

/// A set, described. Compared by its name, which is a hash of the content.
#[derive(Debug)]
pub struct SetSpec {
    /// As rules write it, and with `4` and `6` added as the plan has it.
    pub name: String,
    /// By family.
    pub name4: String,
    /// By family.
    pub name6: String,
    /// What is in it.
    pub content: Content,
}

/// An element of a set of pods.
pub type Element = (IpAddr, u8, u16);

impl SetSpec {
    /// Names the content.
    pub fn new(content: Content) -> Self {
        let (prefix, text) = match &content {
            Content::Pods(groups) => ("peers", json(&groups.iter().map(|it| &**it).collect::<Vec<_>>())),
            Content::Ports(ports) => {
                let parts = ports.iter().map(|it| match &it.of {
                    PortOwners::Pods(group) => (Some(&**group), None, it.protocol, &it.name),
                    PortOwners::Blocks(blocks) => (None, Some(blocks), it.protocol, &it.name),
                });
                ("ports", json(&parts.collect::<Vec<_>>()))
            }
            Content::Blocks(blocks) => ("blocks", json(blocks)),
        };
        let name = format!("{prefix}-{}", digest(&text));
        Self { name4: format!("{name}4"), name6: format!("{name}6"), name, content }
    }

    /// The name of the half that has this address.
    pub fn name_of(&self, address: IpAddr) -> &str {
        if address.is_ipv4() { &self.name4 } else { &self.name6 }
    }

    /// What a pod adds to the set. Of a set of addresses protocol and port are 0.
    pub fn elements(&self, member: &Member<'_>, mut add: impl FnMut(Element)) {
        match &self.content {
            Content::Blocks(_) => {}
            Content::Pods(groups) => {
                if groups.iter().any(|group| group.has(member)) {
                    member.addresses().for_each(|address| add((address, 0, 0)));
                }
            }
            Content::Ports(ports) => ports.iter().for_each(|wanted| {
                for port in member.ports {
                    if port.protocol != wanted.protocol || port.name != wanted.name {
                        continue;
                    }
                    let of = |address: &IpAddr| match &wanted.of {
                        PortOwners::Pods(group) => group.has(member),
                        PortOwners::Blocks(blocks) => blocks.contains(*address),
                    };
                    let addresses = member.addresses().filter(of);
                    addresses.for_each(|address| add((address, port.protocol, port.port)));
                }
            }),
        }
    }
}

/// Of our own types, which JSON can say.
pub(in crate::policy) fn json(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).unwrap_or_default()
}

impl PartialEq for SetSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SetSpec {}

impl PartialOrd for SetSpec {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SetSpec {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}
