//! What rules are made of. Each function stands for one piece of `nft`'s syntax and returns the expressions that the
//! kernel needs for it: they load fields of the packet into registers and compare them.

use crate::linux::nft::expr::{Comparison, Expr, Header, MetaField, Reg, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::Family;

/// `RTN_UNICAST`, `RTN_LOCAL`, `RTN_UNREACHABLE` (include/uapi/linux/rtnetlink.h).
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
const UNREACHABLE: u32 = 7;

/// `IPS_DST_NAT` (include/uapi/linux/netfilter/nf_conntrack_common.h).
const DST_NAT: u32 = 1 << 5;

/// `NF_CT_STATE_INVALID_BIT`, and those of `IP_CT_ESTABLISHED`, `IP_CT_NEW` and `IP_CT_RELATED`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h).
pub const INVALID: u32 = 1;
pub const ESTABLISHED: u32 = 1 << 1;
pub const NEW: u32 = 1 << 3;
pub const RELATED: u32 = 1 << 2;

/// `IPPROTO_ICMPV6` (include/uapi/linux/in6.h).
const ICMPV6: u8 = 58;

/// `IPPROTO_TCP`, and flags of its header's byte 13 (RFC 9293, section 3.1).
pub const TCP: u8 = 6;
const FIN: u8 = 1;
pub const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
pub const ACK: u8 = 1 << 4;

/// The register of a comparison, and the first of a key.
const FIRST: Reg = Reg(0);

/// A field of the packet: loads it into a register and those after it.
pub type Field = fn(Reg) -> Expr;

/// A rule with all of these expressions. The comment is for people who list the table.
pub fn rule(chain: &str, parts: &[Vec<Expr>], comment: &str) -> Rule {
    Rule { chain: chain.to_owned(), exprs: parts.concat(), comment: Some(comment.to_owned()) }
}

/// `iifname`
pub fn iifname(to: Reg) -> Expr {
    Expr::Meta { field: MetaField::InputName, to }
}

/// `oifname`
pub fn oifname(to: Reg) -> Expr {
    Expr::Meta { field: MetaField::OutputName, to }
}

/// `iifgroup`
pub fn iifgroup(to: Reg) -> Expr {
    Expr::Meta { field: MetaField::InputGroup, to }
}

/// `meta l4proto`
pub fn l4proto(to: Reg) -> Expr {
    Expr::Meta { field: MetaField::Protocol, to }
}

/// `ip saddr`, after [`ipv4`] (RFC 791, section 3.1)
pub fn ip_saddr(to: Reg) -> Expr {
    Expr::Payload { header: Header::Network, offset: 12, length: 4, to }
}

/// `ip daddr`, after [`ipv4`]
pub fn ip_daddr(to: Reg) -> Expr {
    Expr::Payload { header: Header::Network, offset: 16, length: 4, to }
}

/// `ip6 saddr`, after [`ipv6`] (RFC 8200, section 3)
pub fn ip6_saddr(to: Reg) -> Expr {
    Expr::Payload { header: Header::Network, offset: 8, length: 16, to }
}

/// `ip6 daddr`, after [`ipv6`]
pub fn ip6_daddr(to: Reg) -> Expr {
    Expr::Payload { header: Header::Network, offset: 24, length: 16, to }
}

/// `th dport`: TCP, UDP and SCTP have it at the same place.
pub fn th_dport(to: Reg) -> Expr {
    Expr::Payload { header: Header::Transport, offset: 2, length: 2, to }
}

/// `ct original ip saddr`: who began the flow.
pub fn ct_original_ip_saddr(to: Reg) -> Expr {
    Expr::FlowSource { of_answers: false, ipv4: true, to }
}

/// `ct reply ip saddr`: who answers, whatever address it is asked by.
pub fn ct_reply_ip_saddr(to: Reg) -> Expr {
    Expr::FlowSource { of_answers: true, ipv4: true, to }
}

/// `ct original ip6 saddr`
pub fn ct_original_ip6_saddr(to: Reg) -> Expr {
    Expr::FlowSource { of_answers: false, ipv4: false, to }
}

/// `ct reply ip6 saddr`
pub fn ct_reply_ip6_saddr(to: Reg) -> Expr {
    Expr::FlowSource { of_answers: true, ipv4: false, to }
}

/// `meta nfproto ipv4`, which `nft list` leaves out where a field of IPv4 follows.
pub fn ipv4() -> Vec<Expr> {
    of_family(Family::Ipv4)
}

/// `meta nfproto ipv6`, likewise.
pub fn ipv6() -> Vec<Expr> {
    of_family(Family::Ipv6)
}

fn of_family(family: Family) -> Vec<Expr> {
    equals(|to| Expr::Meta { field: MetaField::Family, to }, &[family.number()])
}

/// `FIELD VALUE`
pub fn equals(field: Field, value: &[u8]) -> Vec<Expr> {
    vec![field(FIRST), compare(Comparison::Equal, value)]
}

/// `iifname != "lo"`
pub fn is_not_from_loopback() -> Vec<Expr> {
    let mut name = b"lo".to_vec();
    name.resize(16, 0);
    vec![iifname(FIRST), compare(Comparison::NotEqual, &name)]
}

/// `FIELD PREFIX/LENGTH`, of a length in whole bytes: no more is loaded than is compared.
pub fn starts_with(field: Field, prefix: &[u8]) -> Vec<Expr> {
    let load = match field(FIRST) {
        Expr::Payload { header, offset, to, length } => {
            Expr::Payload { header, offset, to, length: u32::try_from(prefix.len()).unwrap_or(length) }
        }
        whole => whole,
    };
    vec![load, compare(Comparison::Equal, prefix)]
}

/// `FIELD PREFIX/LENGTH`, of any length.
pub fn masked_equals(field: Field, mask: &[u8], value: &[u8]) -> Vec<Expr> {
    let mask = Expr::Mask { at: FIRST, mask: mask.to_vec() };
    vec![field(FIRST), mask, compare(Comparison::Equal, value)]
}

/// `icmpv6 type TYPE`
pub fn icmpv6_type(value: u8) -> Vec<Expr> {
    let icmp_type = |to| Expr::Payload { header: Header::Transport, offset: 0, length: 1, to };
    [ipv6(), equals(l4proto, &[ICMPV6]), equals(icmp_type, &[value])].concat()
}

/// `icmpv6 type FIRST-LAST`
pub fn icmpv6_types(first: u8, last: u8) -> Vec<Expr> {
    let icmp_type = Expr::Payload { header: Header::Transport, offset: 0, length: 1, to: FIRST };
    let (least, most) = (compare(Comparison::AtLeast, &[first]), compare(Comparison::AtMost, &[last]));
    [ipv6(), equals(l4proto, &[ICMPV6]), vec![icmp_type, least, most]].concat()
}

/// `tcp flags != syn / fin,syn,rst,ack`
pub fn is_not_first_of_tcp() -> Vec<Expr> {
    let flags = Expr::Payload { header: Header::Transport, offset: 13, length: 1, to: FIRST };
    let mask = Expr::Mask { at: FIRST, mask: vec![FIN | SYN | RST | ACK] };
    [equals(l4proto, &[TCP]), vec![flags, mask, compare(Comparison::NotEqual, &[SYN])]].concat()
}

/// `meta mark & BIT == BIT`
pub fn has_mark(bit: u32) -> Vec<Expr> {
    let bit = bit.to_ne_bytes();
    masked_equals(|to| Expr::Meta { field: MetaField::Mark, to }, &bit, &bit)
}

/// `ct status dnat`
pub fn is_redirected() -> Vec<Expr> {
    has_any_bit(Expr::FlowStatus { to: FIRST }, DST_NAT)
}

/// `ct state STATE,STATE`
pub fn is_in_state(states: u32) -> Vec<Expr> {
    has_any_bit(Expr::FlowState { to: FIRST }, states)
}

fn has_any_bit(load: Expr, bits: u32) -> Vec<Expr> {
    let mask = Expr::Mask { at: FIRST, mask: bits.to_ne_bytes().to_vec() };
    vec![load, mask, compare(Comparison::NotEqual, &[0; 4])]
}

/// `fib daddr type local`
pub fn is_for_this_node() -> Vec<Expr> {
    is_of_type(LOCAL)
}

/// `fib daddr . iif type local`
pub fn is_for_its_link() -> Vec<Expr> {
    equals(|to| Expr::DestinationType { on_input_link: true, to }, &LOCAL.to_ne_bytes())
}

/// `fib daddr type unicast fib daddr oif missing`, after [`ipv4`]: the kernel looks for the type in the table of local
/// addresses alone, and for the link in all of them.
pub fn has_no_route4() -> Vec<Expr> {
    [is_of_type(UNICAST), equals(|to| Expr::HasRoute { to }, &[0; 4])].concat()
}

/// `fib daddr type unreachable`, after [`ipv6`]
pub fn has_no_route6() -> Vec<Expr> {
    is_of_type(UNREACHABLE)
}

fn is_of_type(value: u32) -> Vec<Expr> {
    equals(|to| Expr::DestinationType { on_input_link: false, to }, &value.to_ne_bytes())
}

/// `FIELD . FIELD @SET`
pub fn is_in(fields: &[Field], set: &str) -> Vec<Expr> {
    let mut exprs = key(fields);
    exprs.push(Expr::Lookup { set: set.to_owned(), key: FIRST, data: None });
    exprs
}

/// `dnat FAMILY to FIELD . FIELD map @MAP`: on with the next rule where the map has no such key.
pub fn dnat_to(family: Family, fields: &[Field], map: &str) -> Vec<Expr> {
    let mut exprs = key(fields);
    // The map's data are an address and, in the register after it, a port.
    let port = if family == Family::Ipv4 { Reg(1) } else { Reg(4) };
    exprs.push(Expr::Lookup { set: map.to_owned(), key: FIRST, data: Some(FIRST) });
    exprs.push(Expr::Dnat { family: family.number(), address: FIRST, port });
    exprs
}

/// `masquerade`
pub fn masquerade() -> Vec<Expr> {
    vec![Expr::Masquerade { fully_random: false }]
}

/// `masquerade fully-random`: two flows at once never get the same port, of which one would be lost (kubernetes#56903).
pub fn masquerade_fully_random() -> Vec<Expr> {
    vec![Expr::Masquerade { fully_random: true }]
}

/// `accept`, `drop`, `return`
pub fn verdict(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

/// `jump CHAIN`
pub fn jump(chain: &str) -> Vec<Expr> {
    verdict(Verdict::Jump(chain.to_owned()))
}

/// `goto CHAIN`
pub fn goto(chain: &str) -> Vec<Expr> {
    verdict(Verdict::Goto(chain.to_owned()))
}

/// Loads a key: its fields one after another, each from a register of its own on.
fn key(fields: &[Field]) -> Vec<Expr> {
    let (mut exprs, mut register) = (Vec::new(), 0);
    for field in fields {
        let at = Reg(register);
        let load = field(at);
        register += registers(&load);
        // Sets of link groups hold ranges, which the kernel compares from the first byte on.
        let is_group = matches!(load, Expr::Meta { field: MetaField::InputGroup, .. });
        exprs.push(load);
        exprs.extend(is_group.then_some(Expr::ToNetworkOrder { at }));
    }
    exprs
}

/// How many registers what is loaded takes.
fn registers(load: &Expr) -> u8 {
    match load {
        Expr::Meta { field: MetaField::InputName | MetaField::OutputName, .. } => 4,
        Expr::Payload { length, .. } => u8::try_from(length.div_ceil(4)).unwrap_or(u8::MAX),
        Expr::FlowSource { ipv4: false, .. } => 4,
        _ => 1,
    }
}

fn compare(comparison: Comparison, value: &[u8]) -> Expr {
    Expr::Compare { from: FIRST, comparison, value: value.to_vec() }
}
