//! The table's chains and sets. Nothing of them changes while the table is there; only elements come and go.

use crate::desired::nftables::rules::rules;
use crate::linux::nft::change::Change;
use crate::linux::nft::element::Element;
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::{Base, Chain, ChainKind, Family, Hook, Table};

/// Priorities (include/uapi/linux/netfilter_ipv4.h). Fragments are put together at -400, where flows are tracked.
const RAW_BEFORE_DEFRAG: i32 = -450;
const RAW: i32 = -300;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// After every rule of anybody that rewrites a source: chains of type `nat` are evaluated at [`SOURCE_NAT`], whatever
/// priority they have among themselves.
const AFTER_SOURCE_NAT: i32 = 300;

/// One after `dstnat`, where kube-proxy is: a Service's address and port always win against a hostPort, which a
/// pod's author chooses without anybody's leave (CVE-2019-9946).
const AFTER_SERVICES: i32 = -99;

/// Names of the chains.
pub mod chain {
    /// All that arrives, each fragment by itself, before the kernel puts them together or looks for a flow: a forged one
    /// must neither complete another's datagram nor make an entry. Nothing here may look behind the IP header, which the
    /// first fragment alone has something of.
    pub const PREROUTING: &str = "prerouting";
    /// What arrives by a pod's link.
    pub const ANTISPOOF: &str = "antispoof";
    /// All that arrives, put together, before the kernel looks for its flow.
    pub const REASSEMBLED: &str = "reassembled";
    /// All that arrives, where destinations may be rewritten.
    pub const DNAT_PREROUTING: &str = "dnat_prerouting";
    /// What the node itself sends, where destinations may be rewritten.
    pub const DNAT_OUTPUT: &str = "dnat_output";
    /// What may be for a hostPort: those of one address, and the way to the others.
    pub const HOSTPORTS: &str = "hostports";
    /// What is for an address of the node: hostPorts of every address.
    pub const ANY_HOSTPORTS: &str = "any_hostports";
    /// All that leaves.
    pub const POSTROUTING: &str = "postrouting";
    /// What is for this node, after destinations were rewritten.
    pub const INPUT: &str = "input";
    /// What is for this node's VXLAN port.
    pub const VXLAN: &str = "vxlan";
    /// What this node passes on, after destinations were rewritten.
    pub const FORWARD: &str = "forward";
    /// What a pod sends that is no packet of a flow of its own.
    pub const NO_FLOW: &str = "no_flow";
    /// All that leaves, with the source under which it leaves.
    pub const LEAVING: &str = "leaving";
    /// What a pod sends to a VXLAN port.
    pub const POD_TO_VXLAN: &str = "pod_to_vxlan";
}

/// Names of the sets and maps.
pub mod set {
    /// Host links of pods.
    pub const PODS: &str = "pods";
    /// Which IPv4 addresses a link's packets may come from.
    pub const SOURCES4: &str = "sources4";
    /// Which IPv6 addresses a link's packets may come from.
    pub const SOURCES6: &str = "sources6";
    /// Where a network's IPv4 packets keep their source, by the link group of its pods.
    pub const NO_MASQUERADE4: &str = "no_masquerade4";
    /// Where a network's IPv6 packets keep their source.
    pub const NO_MASQUERADE6: &str = "no_masquerade6";
    /// Which links and IPv4 addresses are masqueraded.
    pub const MASQUERADE4: &str = "masquerade4";
    /// Which links and IPv6 addresses are masqueraded.
    pub const MASQUERADE6: &str = "masquerade6";
    /// hostPorts of one IPv4 address.
    pub const HOSTPORTS4: &str = "hostports4";
    /// hostPorts of one IPv6 address.
    pub const HOSTPORTS6: &str = "hostports6";
    /// hostPorts of every IPv4 address.
    pub const ANY_HOSTPORTS4: &str = "any_hostports4";
    /// hostPorts of every IPv6 address.
    pub const ANY_HOSTPORTS6: &str = "any_hostports6";
    /// Links by which the node is reached.
    pub const UPLINKS: &str = "uplinks";
    /// IPv4 addresses that a client would call the node's.
    pub const NODE_ADDRESSES4: &str = "node_addresses4";
    /// IPv6 addresses that a client would call the node's.
    pub const NODE_ADDRESSES6: &str = "node_addresses6";
    /// UDP ports that VXLAN is spoken at.
    pub const VXLAN_PORTS: &str = "vxlan_ports";
    /// IPv4 addresses of the nodes that speak VXLAN.
    pub const VXLAN_PEERS4: &str = "vxlan_peers4";
    /// IPv6 addresses of the nodes that speak VXLAN.
    pub const VXLAN_PEERS6: &str = "vxlan_peers6";
}

/// Name of the table, of family `inet`.
pub const TABLE: &str = "ferrule";

/// The table's comment: tells by a hash which version of chains, sets and rules it has, whoever made it. A test says what
/// must stand here when one of them has changed.
pub const COMMENT: &str = "ferrule layout 095c2d1a57778fbe";

/// How often [`chain::ANTISPOOF`] is used: by its own rules, and by the one that sends packets there. Without it one pod
/// can speak as another.
pub const ANTISPOOF_USE: u32 = 7;

/// `table inet ferrule`
pub fn table() -> Table {
    Table { family: Family::Inet, name: TABLE.to_owned() }
}

/// All chains, each after those that send packets to it.
pub fn chains() -> Vec<Chain> {
    let base = |name: &str, kind, hook, priority| Chain {
        name: name.to_owned(),
        base: Some(Base { kind, hook, priority, accept: true }),
        comment: None,
    };
    let plain = |name: &str| Chain { name: name.to_owned(), base: None, comment: None };
    vec![
        // type filter hook prerouting priority -450; policy accept;
        base(chain::PREROUTING, ChainKind::Filter, Hook::Prerouting, RAW_BEFORE_DEFRAG),
        plain(chain::ANTISPOOF),
        // type filter hook prerouting priority raw; policy accept;
        base(chain::REASSEMBLED, ChainKind::Filter, Hook::Prerouting, RAW),
        // type nat hook prerouting priority dstnat + 1; policy accept;
        base(chain::DNAT_PREROUTING, ChainKind::Nat, Hook::Prerouting, AFTER_SERVICES),
        base(chain::DNAT_OUTPUT, ChainKind::Nat, Hook::Output, AFTER_SERVICES),
        plain(chain::HOSTPORTS),
        plain(chain::ANY_HOSTPORTS),
        // type nat hook postrouting priority srcnat; policy accept;
        base(chain::POSTROUTING, ChainKind::Nat, Hook::Postrouting, SOURCE_NAT),
        plain(chain::NO_FLOW),
        // type filter hook input priority filter; policy accept;
        base(chain::INPUT, ChainKind::Filter, Hook::Input, FILTER),
        plain(chain::VXLAN),
        // type filter hook forward priority filter; policy accept;
        base(chain::FORWARD, ChainKind::Filter, Hook::Forward, FILTER),
        // type filter hook postrouting priority 300; policy accept;
        base(chain::LEAVING, ChainKind::Filter, Hook::Postrouting, AFTER_SOURCE_NAT),
        plain(chain::POD_TO_VXLAN),
    ]
}

/// All sets and maps.
pub fn sets() -> Vec<Set> {
    use Type::{Ipv4, Ipv6, LinkGroup, LinkName, Port, Protocol};
    let set = |name: &str, key: &[Type]| Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data: Vec::new(),
        interval: false,
        expires: false,
    };
    // flags timeout: elements that come and go with pods can be made to expire.
    let of_pods = |name, key| Set { expires: true, ..set(name, key) };
    let map_of_pods = |name, key, data: &[Type]| Set { data: data.to_vec(), ..of_pods(name, key) };
    // flags interval
    let of_ranges = |name, key| Set { interval: true, ..set(name, key) };
    vec![
        of_pods(set::PODS, &[LinkName]),
        // type ifname . ipv4_addr
        of_pods(set::SOURCES4, &[LinkName, Ipv4]),
        of_pods(set::SOURCES6, &[LinkName, Ipv6]),
        // type devgroup . ipv4_addr
        of_ranges(set::NO_MASQUERADE4, &[LinkGroup, Ipv4]),
        of_ranges(set::NO_MASQUERADE6, &[LinkGroup, Ipv6]),
        of_pods(set::MASQUERADE4, &[LinkName, Ipv4]),
        of_pods(set::MASQUERADE6, &[LinkName, Ipv6]),
        // type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        map_of_pods(set::HOSTPORTS4, &[Ipv4, Protocol, Port], &[Ipv4, Port]),
        map_of_pods(set::HOSTPORTS6, &[Ipv6, Protocol, Port], &[Ipv6, Port]),
        map_of_pods(set::ANY_HOSTPORTS4, &[Protocol, Port], &[Ipv4, Port]),
        map_of_pods(set::ANY_HOSTPORTS6, &[Protocol, Port], &[Ipv6, Port]),
        set(set::UPLINKS, &[LinkName]),
        set(set::NODE_ADDRESSES4, &[Ipv4]),
        set(set::NODE_ADDRESSES6, &[Ipv6]),
        set(set::VXLAN_PORTS, &[Protocol, Port]),
        set(set::VXLAN_PEERS4, &[Ipv4]),
        set(set::VXLAN_PEERS6, &[Ipv6]),
    ]
}

/// All that makes the table, without its elements.
pub fn whole_table() -> Vec<Change> {
    let mut changes = vec![Change::AddTable(table(), Some(COMMENT.to_owned()))];
    changes.extend(chains().into_iter().map(|chain| Change::AddChain(table(), chain)));
    changes.extend(sets().into_iter().map(|set| Change::AddSet(table(), set)));
    changes.extend(rules().into_iter().map(|rule| Change::AddRule(table(), rule)));
    changes
}

/// Whether the elements of a set are those of pods, each of which a record asks for. The others are of a network as a whole.
pub fn is_of_pods(set: &str) -> bool {
    sets().iter().any(|it| it.name == set && it.expires)
}

/// An element as `nft get element inet ferrule` takes it: `sources4 { "veth0" . 10.244.1.7 }`.
pub fn show(element: &Element) -> String {
    let set = sets().into_iter().find(|set| set.name == element.set);
    set.map_or_else(|| element.set.clone(), |set| set.show(element))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::names::stable_hash;
    use crate::linux::nft::expr::{Expr, Verdict};

    #[test]
    fn the_comment_tells_of_chains_sets_and_rules() {
        let words = [format!("{:?}", chains()), format!("{:?}", sets()), format!("{:?}", rules())];
        let hash = stable_hash(words.iter().map(String::as_str));
        assert_eq!(COMMENT, format!("ferrule layout {hash:016x}"), "write the right one into COMMENT");
    }

    #[test]
    fn the_use_of_antispoof_is_its_rules_and_those_that_lead_to_it() {
        let leads_there = Expr::Verdict(Verdict::Goto(chain::ANTISPOOF.to_owned()));
        let uses = |rule: &&crate::linux::nft::rule::Rule| {
            rule.chain == chain::ANTISPOOF || rule.exprs.contains(&leads_there)
        };
        assert_eq!(rules().iter().filter(uses).count(), ANTISPOOF_USE as usize);
    }
}
