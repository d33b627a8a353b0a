//! Why a node, or part of it, has no route.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::agent::cluster::reserved::Holder;

/// Why a node, or part of it, has no route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// It has no podCIDR.
    NoPodCidr,
    /// It has no address of this podCIDR's family.
    NoAddress(IpNetwork),
    /// A value of its Node cannot be used.
    Unusable(String),
    /// The podCIDR overlaps one that another node keeps.
    CidrTaken(IpNetwork, IpNetwork, String),
    /// Another node keeps this address.
    AddressTaken(IpAddr, String),
    /// The address lies in the podCIDR of another node.
    AddressInPods(IpAddr, IpNetwork, String),
    /// The address of a node lies in the podCIDR.
    HoldsNode(IpNetwork, IpAddr, String),
    /// The podCIDR overlaps one of this node's own.
    OverlapsOwn(IpNetwork, IpNetwork),
    /// The podCIDR overlaps what this node needs.
    Reserved(IpNetwork, IpNetwork, Holder),
    /// Since the route to the podCIDR was set, the API server was not heard.
    Suspected(IpNetwork),
}

impl Problem {
    /// Whether the Node claims what it cannot have here, and does not only lack something.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::NoPodCidr | Self::NoAddress(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPodCidr => f.write_str(
                "has no podCIDR; kube-controller-manager gives one with --allocate-node-cidrs and --cluster-cidr; where the \
                 control plane does not (EKS, AKS), kubernetes-sigs' node-ipam-controller does, see docs/install.md",
            ),
            Self::NoAddress(cidr) => {
                let family = if cidr.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(f, "has no InternalIP of {family}, so {cidr} cannot be reached; give kubelet --node-ip")
            }
            Self::Unusable(what) => f.write_str(what),
            Self::CidrTaken(cidr, other, keeper) if cidr == other => {
                write!(f, "podCIDR {cidr} is node {keeper}'s as well, which keeps it; delete one of the two Nodes")
            }
            Self::CidrTaken(cidr, other, keeper) => write!(
                f,
                "podCIDR {cidr} overlaps {other} of node {keeper}, which keeps it; delete one of the two Nodes"
            ),
            Self::AddressTaken(address, keeper) => {
                write!(f, "address {address} is node {keeper}'s as well, which keeps it; delete a Node that is gone")
            }
            Self::AddressInPods(address, cidr, keeper) => write!(
                f,
                "address {address} lies in podCIDR {cidr} of node {keeper}, which keeps it; give kubelet another \
                 --node-ip"
            ),
            Self::HoldsNode(cidr, address, node) => write!(
                f,
                "podCIDR {cidr} contains {address}, the address of node {node}; delete the Node, and give it a podCIDR \
                 apart from the nodes' network"
            ),
            Self::OverlapsOwn(cidr, own) => {
                write!(f, "podCIDR {cidr} overlaps {own}, which is this node's own; delete one of the two Nodes")
            }
            Self::Reserved(cidr, network, holder) => write!(
                f,
                "podCIDR {cidr} overlaps {network}, {holder}; delete the Node, and give it a podCIDR apart from that"
            ),
            Self::Suspected(cidr) => write!(
                f,
                "podCIDR {cidr} is suspected: with a route to it the API server fell silent. Delete the Node if the podCIDR \
                 is wrong; the route is tried again later"
            ),
        }
    }
}
