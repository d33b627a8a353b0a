//! The rules, chain by chain, as `nft list table inet ferrule` prints them.

use std::net::{IpAddr, Ipv6Addr};

use crate::desired::attachment::GATEWAY_V6;
use crate::desired::nftables::expr::{
    Field, INVALID, RELATED, TCP, ct_original_ip_saddr, ct_original_ip6_saddr, ct_reply_ip_saddr,
    ct_reply_ip6_saddr, dnat_to, equals, goto, has_mark, has_no_route4, has_no_route6, icmpv6_type,
    icmpv6_types, iifgroup, iifname, ip_daddr, ip_saddr, ip6_daddr, ip6_saddr, ipv4, ipv6, is_for_its_link,
    is_for_this_node, is_in, is_in_state, is_not_from_loopback, is_redirected, jump, l4proto, masked_equals,
    masquerade, masquerade_fully_random, oifname, rule, starts_with, th_dport, verdict,
};
use crate::desired::nftables::reason::Reason;
use crate::desired::nftables::table::{chain, set};
use crate::desired::node::METADATA;
use crate::linux::nft::element::Bytes;
use crate::linux::nft::expr::Expr;
use crate::linux::nft::expr::Verdict::{Accept, Drop, Return};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::Family;

/// The bit that kube-proxy marks packets with that it masquerades itself (`--iptables-masquerade-bit` 14, and
/// likewise in its other modes).
const KUBE_PROXY_MARK: u32 = 1 << 14;

/// `IPPROTO_UDP` (include/uapi/linux/in.h).
const UDP: u8 = 17;

/// First byte of 127.0.0.0/8.
const LOOPBACK: [u8; 1] = [127];

/// `::1`
const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// All rules, those of a chain in their order.
pub fn rules() -> Vec<Rule> {
    [
        prerouting(),
        antispoof(),
        reassembled(),
        dnat_prerouting(),
        dnat_output(),
        hostports(),
        any_hostports(),
        postrouting(),
        no_flow(),
        input(),
        vxlan(),
        vec![refuse_no_flow(chain::FORWARD)],
        leaving(),
        pod_to_vxlan(),
    ]
    .concat()
}

/// A rule that drops what the parts tell, and counts it. Established traffic never comes as far as a counter.
fn drops(chain: &str, parts: &[Vec<Expr>], reason: Reason, words: &str) -> Rule {
    let parts = [parts.concat(), vec![Expr::Counter], verdict(Drop)];
    rule(chain, &parts, &reason.comment(words))
}

/// A rule that counts what the routing drops soon.
fn counts(chain: &str, parts: &[Vec<Expr>], reason: Reason, words: &str) -> Rule {
    rule(chain, &[parts.concat(), vec![Expr::Counter]], &reason.comment(words))
}

fn prerouting() -> Vec<Rule> {
    let from_outside = |field| [is_not_from_loopback(), ipv4(), starts_with(field, &LOOPBACK)].concat();
    let drops =
        |field| drops(chain::PREROUTING, &[from_outside(field)], Reason::Loopback, "127/8 is the node's own");
    vec![
        // Links of pods with hostPorts have route_localnet, and kube-proxy may have switched it on for all links:
        // only the node itself may speak to its 127.0.0.1 (CVE-2020-8558).
        // iifname != "lo" ip daddr 127.0.0.0/8 counter drop
        drops(ip_daddr),
        // iifname != "lo" ip saddr 127.0.0.0/8 counter drop
        drops(ip_saddr),
        // iifname @pods goto antispoof
        rule(chain::PREROUTING, &[is_in(&[iifname], set::PODS), goto(chain::ANTISPOOF)], "pods"),
    ]
}

fn antispoof() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::ANTISPOOF, parts, comment);
    let drops = |parts: &[Vec<Expr>], reason, words| drops(chain::ANTISPOOF, parts, reason, words);
    let link_local = || masked_equals(ip6_saddr, &padded([0xff, 0xc0]), &padded([0xfe, 0x80]));
    let no_source = equals(ip6_saddr, &Ipv6Addr::UNSPECIFIED.octets());
    let to_gateway = equals(ip6_daddr, &Bytes::default().address(GATEWAY_V6).0);
    vec![
        // iifname . ip saddr @sources4 accept
        rule(&[ipv4(), is_own(ip_saddr, set::SOURCES4), verdict(Accept)], "the pod's own address"),
        // iifname . ip6 saddr @sources6 accept
        rule(&[ipv6(), is_own(ip6_saddr, set::SOURCES6), verdict(Accept)], "the pod's own address"),
        // ip6 saddr fe80::/10 ip6 daddr fe80::1 accept
        rule(&[ipv6(), link_local(), to_gateway, verdict(Accept)], "to the gateway"),
        // What every kernel sends when a link comes up: told apart, so that what is forged can be seen.
        // ip6 saddr fe80::/10 counter drop
        drops(&[ipv6(), link_local()], Reason::LinkLocal, "nobody but the gateway is on the link"),
        // ip6 saddr :: counter drop
        drops(&[ipv6(), no_source], Reason::LinkLocal, "nobody but the gateway is on the link"),
        drops(&[], Reason::SpoofedSource, "not the pod's address"),
    ]
}

fn reassembled() -> Vec<Rule> {
    let drops = |types: Vec<Expr>, words| {
        let parts = [types, is_in(&[iifname], set::PODS)];
        drops(chain::REASSEMBLED, &parts, Reason::NeighbourDiscovery, words)
    };
    vec![
        // Router and neighbour solicitations and advertisements, and redirects (RFC 4861, RFC 4443). Both ends have
        // permanent neighbour entries for each other: nothing that a pod says there is needed. And those of multicast
        // listeners (RFC 2710, RFC 3810), which conntrack leaves alone as well: to a host far away they would leave the
        // node with the pod's address.
        // icmpv6 type 130-137 iifname @pods counter drop
        drops(icmpv6_types(130, 137), "not from pods"),
        // icmpv6 type mld2-listener-report iifname @pods counter drop
        drops(icmpv6_type(143), "no multicast listeners"),
    ]
}

/// For what a pod sends that conntrack calls INVALID or RELATED. The first has no flow, so nothing rewrites its source.
/// The second is an error about a flow, which a pod may have something to say of only if it is one of its ends.
fn no_flow() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::NO_FLOW, parts, comment);
    let its_own = |end, sources| rule(&[is_own(end, sources), verdict(Return)], "about a flow of the pod");
    vec![
        // ct state invalid counter drop
        drops(chain::NO_FLOW, &[is_in_state(INVALID)], Reason::Invalid, "of no flow"),
        // iifname . ct original ip saddr @sources4 return
        its_own(ct_original_ip_saddr, set::SOURCES4),
        its_own(ct_reply_ip_saddr, set::SOURCES4),
        its_own(ct_original_ip6_saddr, set::SOURCES6),
        its_own(ct_reply_ip6_saddr, set::SOURCES6),
        drops(chain::NO_FLOW, &[], Reason::ForeignError, "about a flow of others"),
    ]
}

/// For a hook behind conntrack.
fn refuse_no_flow(chain: &str) -> Rule {
    // ct state invalid,related iifname @pods jump no_flow
    let parts = [is_in_state(INVALID | RELATED), is_in(&[iifname], set::PODS), jump(chain::NO_FLOW)];
    rule(chain, &parts, "a pod, of no flow of its own")
}

fn dnat_prerouting() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::DNAT_PREROUTING, parts, comment);
    let by_uplink = [is_in(&[iifname], set::UPLINKS), is_for_its_link(), goto(chain::ANY_HOSTPORTS)];
    let no_route = |parts| counts(chain::DNAT_PREROUTING, parts, Reason::NoRoute, "no such pod");
    let mut rules = vec![
        // fib daddr type local jump hostports
        rule(&[is_for_this_node(), jump(chain::HOSTPORTS)], "for this node"),
        // Whatever came to be an address of an uplink since somebody looked, without anybody telling.
        // iifname @uplinks fib daddr . iif type local goto any_hostports
        rule(&by_uplink, "for the uplink that it came by"),
        // The rest drops nothing: the routing does. Chains of type nat see the first packet of a flow alone.
        // meta nfproto ipv4 fib daddr type unicast fib daddr oif missing counter
        no_route(&[ipv4(), has_no_route4()]),
        // meta nfproto ipv6 fib daddr type unreachable counter
        no_route(&[ipv6(), has_no_route6()]),
    ];
    rules.extend(METADATA.iter().map(|(address, port)| asks_metadata(*address, *port)));
    rules
}

/// `ip daddr ADDRESS tcp dport PORT iifname @pods counter`: refused by a rule of policy routing, where that is asked for.
fn asks_metadata(address: IpAddr, port: u16) -> Rule {
    let is_to = match address {
        IpAddr::V4(address) => [ipv4(), equals(ip_daddr, &address.octets())].concat(),
        IpAddr::V6(address) => [ipv6(), equals(ip6_daddr, &address.octets())].concat(),
    };
    let port = [equals(l4proto, &[TCP]), equals(th_dport, &port.to_be_bytes())].concat();
    let parts = [is_to, port, is_in(&[iifname], set::PODS)];
    counts(chain::DNAT_PREROUTING, &parts, Reason::Metadata, "refused if the conf says so")
}

fn dnat_output() -> Vec<Rule> {
    // fib daddr type local goto hostports
    vec![rule(chain::DNAT_OUTPUT, &[is_for_this_node(), goto(chain::HOSTPORTS)], "for this node")]
}

/// hostPorts of one hostIP, and the way to the others for an address that a client would call the node's. An address may
/// be local and somebody else's: kube-proxy in IPVS mode has those of Services on a link of its own, and a pod must not
/// draw their traffic (CVE-2019-9946).
fn hostports() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::HOSTPORTS, parts, comment);
    let (four, six): ([Field; 3], [Field; 3]) =
        ([ip_daddr, l4proto, th_dport], [ip6_daddr, l4proto, th_dport]);
    let loopback = "the node's own";
    let any = || goto(chain::ANY_HOSTPORTS);
    vec![
        // meta l4proto . th dport @vxlan_ports return
        rule(&[is_to_vxlan_port(), verdict(Return)], "a VXLAN port is never a hostPort"),
        // ip6 saddr ::1 return
        rule(
            &[ipv6(), equals(ip6_saddr, &Ipv6Addr::LOCALHOST.octets()), verdict(Return)],
            "::1 cannot reach a pod",
        ),
        // dnat ip to ip daddr . meta l4proto . th dport map @hostports4
        rule(&[ipv4(), dnat_to(Family::Ipv4, &four, set::HOSTPORTS4)], "of one hostIP"),
        rule(&[ipv6(), dnat_to(Family::Ipv6, &six, set::HOSTPORTS6)], "of one hostIP"),
        // ip daddr 127.0.0.0/8 goto any_hostports
        rule(&[ipv4(), starts_with(ip_daddr, &LOOPBACK), any()], loopback),
        // ip6 daddr ::1 goto any_hostports
        rule(&[ipv6(), equals(ip6_daddr, &LOOPBACK_V6), any()], loopback),
        // ip daddr @node_addresses4 goto any_hostports
        rule(&[ipv4(), is_in(&[ip_daddr], set::NODE_ADDRESSES4), any()], "an address of the node"),
        rule(&[ipv6(), is_in(&[ip6_daddr], set::NODE_ADDRESSES6), any()], "an address of the node"),
    ]
}

fn any_hostports() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::ANY_HOSTPORTS, parts, comment);
    let any: [Field; 2] = [l4proto, th_dport];
    vec![
        // meta l4proto . th dport @vxlan_ports return
        rule(&[is_to_vxlan_port(), verdict(Return)], "a VXLAN port is never a hostPort"),
        // dnat ip to meta l4proto . th dport map @any_hostports4
        rule(&[dnat_to(Family::Ipv4, &any, set::ANY_HOSTPORTS4)], "of every hostIP"),
        rule(&[dnat_to(Family::Ipv6, &any, set::ANY_HOSTPORTS6)], "of every hostIP"),
    ]
}

fn postrouting() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::POSTROUTING, parts, comment);
    // A pod that sends to its own hostPort gets the packet back. It would drop one that comes from outside with its
    // own address.
    let own_hostport = |family: Vec<Expr>, source, set| {
        let parts = [is_redirected(), family, is_in(&[oifname, source], set), masquerade()];
        rule(&parts, "a pod to its own hostPort")
    };
    // By the link as well as by the address: where the kernel does not know the link any more at this point (before
    // Linux 5.7), nothing is masqueraded, instead of everything.
    let to_the_world = |family: Vec<Expr>, source, set| {
        let parts = [family, is_in(&[iifname, source], set), masquerade_fully_random()];
        rule(&parts, "from a pod to the world")
    };
    vec![
        // meta mark & 0x00004000 == 0x00004000 return
        rule(&[has_mark(KUBE_PROXY_MARK), verdict(Return)], "kube-proxy masquerades it"),
        // ct status dnat oifname . ip saddr @sources4 masquerade
        own_hostport(ipv4(), ip_saddr, set::SOURCES4),
        own_hostport(ipv6(), ip6_saddr, set::SOURCES6),
        // ct status dnat ip saddr 127.0.0.0/8 oifname @pods masquerade
        rule(
            &[
                is_redirected(),
                ipv4(),
                starts_with(ip_saddr, &LOOPBACK),
                is_in(&[oifname], set::PODS),
                masquerade(),
            ],
            "127.0.0.1 to a hostPort",
        ),
        // oifname @pods return
        rule(&[is_in(&[oifname], set::PODS), verdict(Return)], "to a pod of this node"),
        // iifgroup . ip daddr @no_masquerade4 return
        rule(&[is_exempt4(), verdict(Return)], "within the network"),
        rule(&[is_exempt6(), verdict(Return)], "within the network"),
        // iifname . ip saddr @masquerade4 masquerade fully-random
        to_the_world(ipv4(), ip_saddr, set::MASQUERADE4),
        to_the_world(ipv6(), ip6_saddr, set::MASQUERADE6),
    ]
}

fn input() -> Vec<Rule> {
    vec![
        refuse_no_flow(chain::INPUT),
        // meta l4proto . th dport @vxlan_ports goto vxlan
        rule(chain::INPUT, &[is_to_vxlan_port(), goto(chain::VXLAN)], "for the VXLAN port"),
    ]
}

/// What is for this node's end of a tunnel. What comes out of VXLAN has no host link that tells whose it is, so the port
/// must hear nodes alone: a pod that could send to it could send to every pod of the node, as anyone.
fn vxlan() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::VXLAN, parts, comment);
    vec![
        // ip saddr @vxlan_peers4 accept
        rule(&[ipv4(), is_in(&[ip_saddr], set::VXLAN_PEERS4), verdict(Accept)], "from a node"),
        rule(&[ipv6(), is_in(&[ip6_saddr], set::VXLAN_PEERS6), verdict(Accept)], "from a node"),
        drops(chain::VXLAN, &[], Reason::VxlanStranger, "only nodes may send VXLAN"),
    ]
}

fn leaving() -> Vec<Rule> {
    // The protocol first: what is not UDP is not looked up.
    // meta l4proto . udp dport @vxlan_ports iifname @pods goto pod_to_vxlan
    let parts = [equals(l4proto, &[UDP]), is_to_vxlan_port(), is_in(&[iifname], set::PODS)];
    vec![rule(chain::LEAVING, &[parts.concat(), goto(chain::POD_TO_VXLAN)], "a pod to a VXLAN port")]
}

/// What a pod sends to a VXLAN port, with the source under which it leaves, whatever that was before: masquerade, a
/// Service, or the answer of a hostPort gives it its node's. Other pods that are nodes of a cluster of their own hear it,
/// under the pod's own address.
fn pod_to_vxlan() -> Vec<Rule> {
    let rule = |parts: &[Vec<Expr>], comment| rule(chain::POD_TO_VXLAN, parts, comment);
    let drops = |parts: &[Vec<Expr>], words| drops(chain::POD_TO_VXLAN, parts, Reason::VxlanFromPod, words);
    vec![
        // oifname @pods accept
        rule(&[is_in(&[oifname], set::PODS), verdict(Accept)], "to a pod of this node"),
        // ip daddr @vxlan_peers4 counter drop
        drops(&[ipv4(), is_in(&[ip_daddr], set::VXLAN_PEERS4)], "no pod speaks to a tunnel"),
        drops(&[ipv6(), is_in(&[ip6_daddr], set::VXLAN_PEERS6)], "no pod speaks to a tunnel"),
        // iifname . ip saddr @sources4 accept
        rule(&[ipv4(), is_own(ip_saddr, set::SOURCES4), verdict(Accept)], "with its own address"),
        rule(&[ipv6(), is_own(ip6_saddr, set::SOURCES6), verdict(Accept)], "with its own address"),
        drops(&[], "no pod sends VXLAN as its node"),
    ]
}

/// `iifname . ADDRESS @SOURCES`: one of the addresses that the pod at the link has.
fn is_own(address: Field, sources: &str) -> Vec<Expr> {
    is_in(&[iifname, address], sources)
}

/// `meta l4proto . th dport @vxlan_ports`: for the end of a tunnel, be it here or at another node.
fn is_to_vxlan_port() -> Vec<Expr> {
    is_in(&[l4proto, th_dport], set::VXLAN_PORTS)
}

/// `iifgroup . ip daddr @no_masquerade4`
fn is_exempt4() -> Vec<Expr> {
    [ipv4(), is_in(&[iifgroup, ip_daddr], set::NO_MASQUERADE4)].concat()
}

/// `iifgroup . ip6 daddr @no_masquerade6`
fn is_exempt6() -> Vec<Expr> {
    [ipv6(), is_in(&[iifgroup, ip6_daddr], set::NO_MASQUERADE6)].concat()
}

/// The first bytes of an IPv6 address, and zeros.
fn padded([first, second]: [u8; 2]) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[0] = first;
    octets[1] = second;
    octets
}
