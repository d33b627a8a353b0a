//! Why a packet is dropped, under the names that metrics, `ferrulectl` and the comments of rules have for it.
//!
//! A rule that drops counts what it drops, and its comment begins with the reason: `spoofed_source: not the pod's
//! address`. So whoever reads the rules knows how many packets were dropped for which reason, of a table of any version
//! that counts. What is not dropped meets no counter.

use crate::linux::nft::rule::Rule;

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A pod sends from an address that is not its own.
    SpoofedSource,
    /// A pod sends from a link-local address, or from none yet. Every pod's kernel does so when its link comes up.
    LinkLocal,
    /// A pod speaks as a router or neighbour, from an address of its own.
    NeighbourDiscovery,
    /// From 127/8 or to it, not from the node itself.
    Loopback,
    /// What conntrack calls INVALID, from a pod.
    Invalid,
    /// An error about a flow of which the pod is no end.
    ForeignError,
    /// For the node's VXLAN port, and not from a node.
    VxlanStranger,
    /// From a pod to another node's VXLAN port.
    VxlanFromPod,
    /// To an address of the node's own ranges that no pod has, or one that no route leads to.
    NoRoute,
    /// From a pod to the cloud's metadata service, where pods are kept from it.
    Metadata,
    /// To a pod, and no NetworkPolicy allows it.
    PolicyIngress,
    /// From a pod, and no NetworkPolicy allows it.
    PolicyEgress,
    /// By another link than the one that leads back to its source: the kernel's rp_filter, on any link of the node.
    ReversePath,
}

impl Reason {
    /// All, in the order in which a packet meets them.
    pub const ALL: [Self; 13] = [
        Self::SpoofedSource,
        Self::LinkLocal,
        Self::NeighbourDiscovery,
        Self::Loopback,
        Self::ReversePath,
        Self::NoRoute,
        Self::Metadata,
        Self::Invalid,
        Self::ForeignError,
        Self::VxlanStranger,
        Self::VxlanFromPod,
        Self::PolicyIngress,
        Self::PolicyEgress,
    ];

    /// Its name, for programs. Stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::SpoofedSource => "spoofed_source",
            Self::LinkLocal => "link_local",
            Self::NeighbourDiscovery => "neighbour_discovery",
            Self::Loopback => "loopback",
            Self::Invalid => "invalid",
            Self::ForeignError => "foreign_error",
            Self::VxlanStranger => "vxlan_stranger",
            Self::VxlanFromPod => "vxlan_from_pod",
            Self::NoRoute => "no_route",
            Self::Metadata => "metadata",
            Self::PolicyIngress => "policy_ingress",
            Self::PolicyEgress => "policy_egress",
            Self::ReversePath => "reverse_path",
        }
    }

    /// What such packets are.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::SpoofedSource => "from a pod, with a source that is not its own",
            Self::LinkLocal => {
                "from a pod, with a link-local source or none; a few of each pod at its start are usual"
            }
            Self::NeighbourDiscovery => "neighbour, router or multicast listener messages from a pod",
            Self::Loopback => "from the wire or a pod, with an address of 127/8",
            Self::Invalid => "from a pod, of no connection that the node knows",
            Self::ForeignError => "ICMP errors from a pod, about a connection of others",
            Self::VxlanStranger => "to the node's VXLAN port, not from a node of the cluster",
            Self::VxlanFromPod => "from a pod to a node's VXLAN port",
            Self::NoRoute => "to an address of this node's ranges that no pod has, or without any route",
            Self::Metadata => {
                "first packets from a pod to the cloud's metadata service, which the conf refuses"
            }
            Self::PolicyIngress => "to a pod, allowed by no NetworkPolicy",
            Self::PolicyEgress => "from a pod, allowed by no NetworkPolicy",
            Self::ReversePath => "by the kernel's rp_filter, on any link of the node, IPv4",
        }
    }

    /// Whether packets of this kind are there on a node that is well.
    pub fn is_usual(self) -> bool {
        self == Self::LinkLocal
    }

    /// The reason for which a rule drops, or would.
    pub fn of(rule: &Rule) -> Option<Self> {
        let (name, _) = rule.comment.as_deref()?.split_once(": ")?;
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// The comment of a rule for this reason.
    pub(super) fn comment(self, words: &str) -> String {
        format!("{}: {words}", self.name())
    }
}
