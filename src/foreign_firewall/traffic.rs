//! What a node forwards for its pods, as packets of which only that is given which the judgement is about.

use ipnetwork::IpNetwork;

use crate::datapath::error::DatapathError;
use crate::datapath::peers::own_routes;
use crate::desired::node::NodeState;
use crate::foreign_firewall::bits::Bits;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;

/// `IFNAMSIZ`, the final NUL included.
const LINK_NAME_LENGTH: usize = 16;

/// How pods' host links are called: these letters, then as many hexadecimal digits (`desired/names.rs`).
const HOST_LINK: (&str, usize) = ("veth", 11);

/// `IPPROTO_TCP`
const TCP: u8 = 6;

/// `NF_CT_STATE_BIT(IP_CT_NEW)` (include/uapi/linux/netfilter/nf_conntrack_common.h).
pub const STATE_NEW: u32 = 8;

/// `IPS_SRC_NAT` and `IPS_DST_NAT` of the same file.
const STATUS_NAT: u32 = 0x30;

/// kube-proxy's mark of what is to be masqueraded (`--iptables-masquerade-bit`), which its chain KUBE-FORWARD accepts.
/// A packet from pod to pod never has it. Of other marks nothing is known: somebody may set one earlier.
const MARK_MASQUERADE: u32 = 0x4000;

/// How many routes to peers are looked up. STATUS is asked every five seconds.
const SAMPLE: usize = 8;

/// Whose packets are forwarded, and where to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Subnets of this node's pods.
    pub own: Vec<IpNetwork>,
    /// Subnets of the other nodes' pods, as far as they are known.
    pub others: Vec<IpNetwork>,
    /// Name of the link to all of them, for IPv4, as far as it is known.
    pub link4: Option<String>,
    /// Likewise for IPv6.
    pub link6: Option<String>,
}

impl Traffic {
    /// What `state` says; where it names no other node, what the network's routes say that stand by now, because
    /// an agent keeps them. And the links by which other nodes are reached.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn find(node: &Netlink, state: &NodeState) -> Result<Self, DatapathError> {
        let own = state.subnets.iter().filter(|it| if it.is_ipv4() { state.ipv4 } else { state.ipv6 });
        let mut others: Vec<IpNetwork> =
            state.other_nodes().flat_map(|peer| &peer.pod_cidrs).copied().collect();
        let ways = if others.is_empty() {
            let routes = own_routes(node, state).await?;
            others.extend(routes.iter().map(|route| route.destination));
            routes.iter().map(|route| (route.destination.is_ipv4(), route.device)).collect()
        } else {
            // Not by the routes to their pods: before the first ADD these lead elsewhere.
            find_ways(node, state).await?
        };
        let link4 = name_only_one(node, &ways, true).await?;
        let link6 = name_only_one(node, &ways, false).await?;
        Ok(Self { own: own.copied().collect(), others, link4, link6 })
    }

    /// Whether there is another node that a pod could have something to send to.
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The own subnets of a family.
    pub fn own_of(&self, ipv4: bool) -> impl Iterator<Item = IpNetwork> {
        self.own.iter().copied().filter(move |subnet| subnet.is_ipv4() == ipv4)
    }

    /// For each own subnet of a family the first packet of a connection in either direction: from there to a pod of
    /// another node, and from one to there.
    pub(super) fn packets(&self, ipv4: bool) -> Vec<Packet> {
        let others = Bits::within(&self.others, ipv4);
        let link = if ipv4 { &self.link4 } else { &self.link6 };
        let outside = match link {
            Some(name) => Bits::name(name, 0, LINK_NAME_LENGTH),
            None => Bits::unknown(LINK_NAME_LENGTH),
        };
        let inside = Bits::name(HOST_LINK.0, HOST_LINK.1, LINK_NAME_LENGTH);
        let both = self.own_of(ipv4).flat_map(|subnet| {
            let own = Bits::within(&[subnet], ipv4);
            let out = Packet::new(ipv4, [&own, &others], [&inside, &outside]);
            let back = Packet::new(ipv4, [&others, &own], [&outside, &inside]);
            [out, back]
        });
        both.collect()
    }
}

/// By which links the first peers are reached, each with whether it is so by IPv4; `None` for one that is not on-link.
async fn find_ways(node: &Netlink, state: &NodeState) -> Result<Vec<(bool, Option<u32>)>, DatapathError> {
    let mut ways = Vec::new();
    let places: Vec<usize> = (0..SAMPLE).collect();
    for wanted in state.peer_routes_at(&places) {
        let Some(next_hop) = wanted.route.gateway else { continue };
        let way = node.route_to(next_hop).await?.filter(|way| way.gateway.is_none());
        ways.push((next_hop.is_ipv4(), way.map(|way| way.device)));
    }
    Ok(ways)
}

/// The name of the link of all ways of a family; `None` if they differ.
async fn name_only_one(
    node: &Netlink,
    ways: &[(bool, Option<u32>)],
    ipv4: bool,
) -> Result<Option<String>, DatapathError> {
    let mut devices = ways.iter().filter(|(is_ipv4, _)| *is_ipv4 == ipv4).map(|(_, device)| *device);
    let Some(Some(first)) = devices.next() else { return Ok(None) };
    if devices.any(|device| device != Some(first)) {
        return Ok(None);
    }
    Ok(node.link(LinkRef::Index(first)).await?.map(|link| link.name))
}

/// The first packet of a connection, as far as it is known. Of TCP: where a firewall lets single protocols through,
/// this is the one that pods need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Whether it is of IPv4.
    pub ipv4: bool,
    /// Its IP header.
    pub header: Bits,
    /// Name of the link that it came in by.
    pub in_link: Bits,
    /// Name of the link that it leaves by.
    pub out_link: Bits,
    /// Its mark.
    pub mark: Bits,
}

impl Packet {
    fn new(ipv4: bool, [source, destination]: [&Bits; 2], [in_link, out_link]: [&Bits; 2]) -> Self {
        let protocol = Bits::exactly(&[TCP]);
        let header = if ipv4 {
            Bits::unknown(20).with(9, &protocol).with(12, source).with(16, destination)
        } else {
            Bits::unknown(40).with(6, &protocol).with(8, source).with(24, destination)
        };
        // What is outside the mask is known.
        let mark = Bits::unknown(4).masked(&(!MARK_MASQUERADE).to_ne_bytes());
        Self { ipv4, header, in_link: in_link.clone(), out_link: out_link.clone(), mark }
    }

    /// `NFPROTO_*`
    pub fn family(&self) -> Bits {
        Bits::exactly(&[if self.ipv4 { 2 } else { 10 }])
    }

    /// `IPPROTO_*`
    pub fn protocol(&self) -> Bits {
        Bits::exactly(&[TCP])
    }

    /// That of a new flow.
    pub fn state(&self) -> Bits {
        Bits::exactly(&STATE_NEW.to_ne_bytes())
    }

    /// A packet between pods is not rewritten.
    pub fn status(&self) -> Bits {
        let nat = STATUS_NAT.to_ne_bytes();
        // What is outside the mask is 0 and known, what is inside is not: so the other way round.
        let rest = nat.map(|byte| !byte);
        Bits::unknown(4).masked(&rest)
    }
}
