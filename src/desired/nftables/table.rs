//! Chains, sets and rules of `inet ferrule`. All of it is here; nothing is added or changed while it stands.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::desired::attachment::GATEWAY_V6;
use crate::desired::names::stable_hash;
use crate::desired::nftables::rule::{Action, Field, Match, Rule};
use crate::desired::nftables::vxlan;

/// Name of the table, of family `inet`.
pub const TABLE: &str = "ferrule";

/// The bit that kube-proxy marks packets with that it masquerades itself (`--iptables-masquerade-bit` 14, and
/// likewise in its other modes).
pub(super) const KUBE_PROXY_MARK: u32 = 1 << 14;

/// Router and neighbour solicitations and advertisements, and redirects (RFC 4861, RFC 4443).
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);

/// Priorities (include/uapi/linux/netfilter_ipv4.h).
const RAW: i32 = -300;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// One after `dstnat`, where kube-proxy is: a Service's address and port always win against a hostPort, which a
/// pod's author chooses without anybody's leave (CVE-2019-9946).
const AFTER_SERVICES: i32 = -99;

/// The chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChainName {
    /// Everything that arrives.
    Arriving,
    /// What arrives by a pod's link.
    FromPod,
    /// Everything that arrives, when addresses may be rewritten.
    RedirectArriving,
    /// What the node itself sends, when addresses may be rewritten.
    RedirectOwn,
    /// What may be for a hostPort.
    HostPorts,
    /// Everything that leaves.
    Leaving,
    /// What is for this node.
    ForNode,
    /// What is for this node's end of a tunnel.
    Tunnel,
    /// What this node passes on.
    Through,
    /// What a pod sends to where tunnels end.
    PodToTunnel,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Base {
    /// Whether the chain rewrites addresses.
    pub nat: bool,
    /// When.
    pub hook: Hook,
    /// In which order with other tables' chains, lower first.
    pub priority: i32,
}

/// A place on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Arrived, not routed yet.
    Prerouting,
    /// For this node.
    Input,
    /// For another host.
    Forward,
    /// Made by this node.
    Output,
    /// About to leave.
    Postrouting,
}

/// The sets and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetName {
    /// Links of pods.
    Pods,
    /// Which IPv4 addresses a link's packets may come from.
    Sources4,
    /// Which IPv6 addresses a link's packets may come from.
    Sources6,
    /// Where a network's IPv4 packets keep their source, by the link group of its pods.
    Inside4,
    /// Where a network's IPv6 packets keep their source.
    Inside6,
    /// Which links and IPv4 addresses are masqueraded.
    Masquerade4,
    /// Which links and IPv6 addresses are masqueraded.
    Masquerade6,
    /// hostPorts of one IPv4 address.
    HostPorts4,
    /// hostPorts of one IPv6 address.
    HostPorts6,
    /// hostPorts of every IPv4 address.
    AnyHostPorts4,
    /// hostPorts of every IPv6 address.
    AnyHostPorts6,
    /// Where this node's tunnels to other nodes end: UDP ports of its own.
    Tunnels,
    /// IPv4 addresses of the nodes at their other ends.
    TunnelEnds4,
    /// IPv6 addresses of the nodes at their other ends.
    TunnelEnds6,
}

/// What a field of an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A link's name.
    Link,
    /// A link's group.
    Group,
    /// An IPv4 address.
    Address4,
    /// An IPv6 address.
    Address6,
    /// A number of a transport protocol.
    Protocol,
    /// A port.
    Port,
}

impl ChainName {
    /// All, each after those that send packets to it.
    pub const ALL: [Self; 10] = [
        Self::Arriving,
        Self::FromPod,
        Self::RedirectArriving,
        Self::RedirectOwn,
        Self::HostPorts,
        Self::Leaving,
        Self::ForNode,
        Self::Tunnel,
        Self::Through,
        Self::PodToTunnel,
    ];

    /// Its name in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arriving => "prerouting",
            Self::FromPod => "antispoof",
            Self::RedirectArriving => "dnat_prerouting",
            Self::RedirectOwn => "dnat_output",
            Self::HostPorts => "hostports",
            Self::Leaving => "postrouting",
            Self::ForNode => "input",
            Self::Tunnel => "vxlan",
            Self::Through => "forward",
            Self::PodToTunnel => "pod_to_vxlan",
        }
    }

    /// Where packets enter it; `None` if only from other chains.
    pub fn base(self) -> Option<Base> {
        let base = |nat, hook, priority| Some(Base { nat, hook, priority });
        match self {
            // Before the kernel looks for the packet's flow: a forged one must not even make an entry.
            Self::Arriving => base(false, Hook::Prerouting, RAW),
            Self::RedirectArriving => base(true, Hook::Prerouting, AFTER_SERVICES),
            Self::RedirectOwn => base(true, Hook::Output, AFTER_SERVICES),
            Self::Leaving => base(true, Hook::Postrouting, SOURCE_NAT),
            // After addresses were rewritten: what counts is where a packet goes in the end.
            Self::ForNode => base(false, Hook::Input, FILTER),
            Self::Through => base(false, Hook::Forward, FILTER),
            Self::FromPod | Self::HostPorts | Self::Tunnel | Self::PodToTunnel => None,
        }
    }
}

impl SetName {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Pods,
        Self::Sources4,
        Self::Sources6,
        Self::Inside4,
        Self::Inside6,
        Self::Masquerade4,
        Self::Masquerade6,
        Self::HostPorts4,
        Self::HostPorts6,
        Self::AnyHostPorts4,
        Self::AnyHostPorts6,
        Self::Tunnels,
        Self::TunnelEnds4,
        Self::TunnelEnds6,
    ];

    /// Its name in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Sources4 => "sources4",
            Self::Sources6 => "sources6",
            Self::Inside4 => "no_masquerade4",
            Self::Inside6 => "no_masquerade6",
            Self::Masquerade4 => "masquerade4",
            Self::Masquerade6 => "masquerade6",
            Self::HostPorts4 => "hostports4",
            Self::HostPorts6 => "hostports6",
            Self::AnyHostPorts4 => "any_hostports4",
            Self::AnyHostPorts6 => "any_hostports6",
            Self::Tunnels => "vxlan_ports",
            Self::TunnelEnds4 => "vxlan_peers4",
            Self::TunnelEnds6 => "vxlan_peers6",
        }
    }

    /// What its keys consist of.
    pub fn key(self) -> &'static [Kind] {
        use Kind::{Address4, Address6, Group, Link, Port, Protocol};
        match self {
            Self::Pods => &[Link],
            Self::Sources4 | Self::Masquerade4 => &[Link, Address4],
            Self::Sources6 | Self::Masquerade6 => &[Link, Address6],
            Self::Inside4 => &[Group, Address4],
            Self::Inside6 => &[Group, Address6],
            Self::HostPorts4 => &[Address4, Protocol, Port],
            Self::HostPorts6 => &[Address6, Protocol, Port],
            Self::AnyHostPorts4 | Self::AnyHostPorts6 | Self::Tunnels => &[Protocol, Port],
            Self::TunnelEnds4 => &[Address4],
            Self::TunnelEnds6 => &[Address6],
        }
    }

    /// What a map's data consist of; nothing for a set.
    pub fn data(self) -> &'static [Kind] {
        match self {
            Self::HostPorts4 | Self::AnyHostPorts4 => &[Kind::Address4, Kind::Port],
            Self::HostPorts6 | Self::AnyHostPorts6 => &[Kind::Address6, Kind::Port],
            _ => &[],
        }
    }

    /// Whether its keys are ranges.
    pub fn has_ranges(self) -> bool {
        matches!(self, Self::Inside4 | Self::Inside6)
    }

    /// Whether its elements come and go with pods, and so can be given an end.
    pub fn can_expire(self) -> bool {
        !self.has_ranges() && !matches!(self, Self::Tunnels | Self::TunnelEnds4 | Self::TunnelEnds6)
    }
}

/// All rules, those of a chain in their order.
///
/// The comment of the first holds what rules do not show: which chains and sets this table has. So a table of
/// another version is told by its rules alone.
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for chain in ChainName::ALL {
        let of_chain = match chain {
            ChainName::Arriving => arriving(),
            ChainName::FromPod => from_pod(),
            ChainName::RedirectArriving | ChainName::RedirectOwn => redirect(),
            ChainName::HostPorts => host_ports(),
            ChainName::Leaving => leaving(),
            ChainName::ForNode => {
                vec![(vec![vxlan::is_to_tunnel()], Action::Goto(ChainName::Tunnel), "of tunnels")]
            }
            ChainName::Tunnel => vxlan::into_tunnel(),
            ChainName::Through => {
                let from_pod = Match::In(vec![Field::InLink], SetName::Pods);
                let chain = ChainName::PodToTunnel;
                vec![(
                    vec![vxlan::is_to_tunnel(), from_pod],
                    Action::Goto(chain),
                    "a pod to where tunnels end",
                )]
            }
            ChainName::PodToTunnel => vxlan::from_pod(),
        };
        rules.extend(of_chain.into_iter().map(|(matches, action, comment)| {
            let comment = comment.to_owned();
            Rule { chain, matches, action, comment }
        }));
    }
    if let Some(first) = rules.first_mut() {
        first.comment.push_str(&format!("; ferrule's layout {:016x}", layout()));
    }
    rules
}

pub(super) type Parts = (Vec<Match>, Action, &'static str);

fn arriving() -> Vec<Parts> {
    let from_outside = |field| vec![Match::NotFromLink("lo"), Match::Within(field, loopback())];
    vec![
        // Links of pods with hostPorts have route_localnet, and kube-proxy may have switched it on for all:
        // nobody but the node itself may speak to its 127.0.0.1 (CVE-2020-8558).
        (from_outside(Field::Destination4), Action::Drop, "127/8 is the node's own"),
        (from_outside(Field::Source4), Action::Drop, "127/8 is the node's own"),
        (vec![Match::In(vec![Field::InLink], SetName::Pods)], Action::Goto(ChainName::FromPod), "pods"),
    ]
}

fn from_pod() -> Vec<Parts> {
    let own = |source, set| vec![Match::In(vec![Field::InLink, source], set)];
    let (first, last) = NEIGHBOUR_DISCOVERY;
    vec![
        // Both ends know each other's addresses for good: nothing that a pod says of them is news.
        (vec![Match::Icmp6Type(first, last)], Action::Drop, "a pod teaches its node nothing"),
        (own(Field::Source4, SetName::Sources4), Action::Accept, "the pod's own address"),
        (own(Field::Source6, SetName::Sources6), Action::Accept, "the pod's own address"),
        (
            vec![
                Match::Within(Field::Source6, link_local()),
                Match::Within(Field::Destination6, IpNetwork::from(GATEWAY_V6)),
            ],
            Action::Accept,
            "to the gateway",
        ),
        (vec![], Action::Drop, "not the pod's address"),
    ]
}

fn redirect() -> Vec<Parts> {
    vec![(vec![Match::ForThisNode], Action::Goto(ChainName::HostPorts), "for this node")]
}

fn host_ports() -> Vec<Parts> {
    use Field::{Destination4, Destination6, DestinationPort, Protocol};
    let redirect = |ipv4, key: &[Field], map, comment| {
        (vec![], Action::Redirect { ipv4, key: key.to_vec(), map }, comment)
    };
    vec![
        (vec![vxlan::is_to_tunnel()], Action::Return, "a tunnel's port is no pod's to take"),
        redirect(true, &[Destination4, Protocol, DestinationPort], SetName::HostPorts4, "of one hostIP"),
        redirect(false, &[Destination6, Protocol, DestinationPort], SetName::HostPorts6, "of one hostIP"),
        redirect(true, &[Protocol, DestinationPort], SetName::AnyHostPorts4, "of every hostIP"),
        redirect(false, &[Protocol, DestinationPort], SetName::AnyHostPorts6, "of every hostIP"),
    ]
}

fn leaving() -> Vec<Parts> {
    let masquerade = Action::Masquerade { fully_random: false };
    let fully_random = Action::Masquerade { fully_random: true };
    // To the link that the source lives at: the pod speaks to itself. It would drop a packet from its own
    // address that comes from outside.
    let to_itself = |source, set| vec![Match::Redirected, Match::In(vec![Field::OutLink, source], set)];
    let inside = |destination, set| vec![Match::In(vec![Field::InGroup, destination], set)];
    // By the link as well as by the address: where the kernel does not know the link any more at this point
    // (before Linux 5.7), nothing is masqueraded, instead of everything.
    let outward = |source, set| vec![Match::In(vec![Field::InLink, source], set)];
    vec![
        (vec![Match::Marked(KUBE_PROXY_MARK)], Action::Return, "kube-proxy masquerades it"),
        (to_itself(Field::Source4, SetName::Sources4), masquerade.clone(), "a pod by its own hostPort"),
        (to_itself(Field::Source6, SetName::Sources6), masquerade.clone(), "a pod by its own hostPort"),
        (
            vec![
                Match::Redirected,
                Match::Within(Field::Source4, loopback()),
                Match::In(vec![Field::OutLink], SetName::Pods),
            ],
            masquerade,
            "a hostPort by 127.0.0.1",
        ),
        (vec![Match::In(vec![Field::OutLink], SetName::Pods)], Action::Return, "to a pod of this node"),
        (inside(Field::Destination4, SetName::Inside4), Action::Return, "within the network"),
        (inside(Field::Destination6, SetName::Inside6), Action::Return, "within the network"),
        (outward(Field::Source4, SetName::Masquerade4), fully_random.clone(), "from a pod to the world"),
        (outward(Field::Source6, SetName::Masquerade6), fully_random, "from a pod to the world"),
    ]
}

fn loopback() -> IpNetwork {
    IpNetwork::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8)
        .unwrap_or(IpNetwork::from(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

fn link_local() -> IpNetwork {
    let network = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
    IpNetwork::new(network, 10).unwrap_or(IpNetwork::from(GATEWAY_V6))
}

/// A number that is another when a chain or a set is.
fn layout() -> u64 {
    let chains = ChainName::ALL.map(|chain| format!("{chain} {:?}", chain.base()));
    let sets = SetName::ALL.map(|set| {
        let (ranges, expire) = (set.has_ranges(), set.can_expire());
        format!("{set} {:?} {:?} {ranges} {expire}", set.key(), set.data())
    });
    stable_hash(chains.iter().chain(&sets).map(String::as_str))
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
