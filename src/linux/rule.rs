//! Rules of policy routing: which packets are looked up in another table first.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::attributes::{ip, number, text};
use super::error::KernelError;
use super::message::{Object, Request, rtm, split};
use super::netlink::Netlink;
use super::route::Family;

/// `FRA_*`, `FR_ACT_TO_TBL`, `FR_ACT_UNREACHABLE` (include/uapi/linux/fib_rules.h).
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
pub(super) const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
pub(super) const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;
const FRA_DPORT_MASK: u16 = 29;
const TO_TABLE: u8 = 1;
const UNREACHABLE: u8 = 7;

/// `IPPROTO_TCP` (include/uapi/linux/in.h).
const TCP: u8 = 6;

/// Instead of a table: the packets are refused (`unreachable`).
pub const REFUSED: u32 = 0;

/// Some packets are looked up in a table; where that has no route for them, the next rule counts. Or they are
/// [`REFUSED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which packets.
    pub packets: Packets,
    /// The table.
    pub table: u32,
    /// The place among the rules, from 0 on. The main table is looked up at 32766.
    pub priority: u32,
    /// Who made it (RTPROT_*).
    pub protocol: u8,
    /// Routes with a prefix of this length or a shorter one do not count (`suppress_prefixlength`).
    pub suppress: Option<u32>,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packets {
    /// Those from some addresses.
    From(IpNetwork),
    /// Those to some addresses.
    To(IpNetwork),
    /// TCP from some addresses to a port of one.
    Tcp {
        /// From where.
        from: IpNetwork,
        /// To whom.
        to: IpAddr,
        /// To which port.
        port: u16,
    },
}

impl Packets {
    fn network(self) -> IpNetwork {
        match self {
            Self::From(network) | Self::To(network) | Self::Tcp { from: network, .. } => network,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, table, priority, protocol, suppress } = self;
        match packets {
            Packets::From(network) => write!(f, "from {network}")?,
            Packets::To(network) => write!(f, "to {network}")?,
            Packets::Tcp { from, to, port } => write!(f, "from {from} to {to} ipproto tcp dport {port}")?,
        }
        match *table {
            REFUSED => f.write_str(" unreachable")?,
            table => write!(f, " lookup {table}")?,
        }
        suppress.iter().try_for_each(|length| write!(f, " suppress_prefixlength {length}"))?;
        write!(f, " priority {priority} proto {protocol}")
    }
}

/// A rule as it is listed, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRule {
    /// What it says, if that is no more than a [`Rule`] can say.
    pub rule: Option<Rule>,
    /// The table that it has packets looked up in; `None` if it does anything else with them.
    pub table: Option<u32>,
    /// In the words of `ip rule`, as far as they are known.
    pub text: String,
}

impl Netlink {
    /// The rules of a family that `protocol` made and that are no more than a [`Rule`] can say.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn rules(&self, family: Family, protocol: u8) -> Result<Vec<Rule>, KernelError> {
        let all = self.all_rules(family).await?;
        Ok(all.into_iter().filter_map(|it| it.rule).filter(|rule| rule.protocol == protocol).collect())
    }

    /// All rules of a family, in the order in which the kernel goes through them.
    ///
    /// `ip rule show`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn all_rules(&self, family: Family) -> Result<Vec<ListedRule>, KernelError> {
        let mut question = RuleMessage::default();
        question.header.family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let asked = u8::from(question.header.family);
        let answers = self.dump(rtm::GET_RULE, &question, "list rules").await?;
        // Where the kernel has no IPv6 it lists IPv4 instead.
        let of_family = answers.iter().filter(|answer| answer.payload.first() == Some(&asked));
        Ok(of_family.filter_map(ListedRule::read).collect())
    }
}

impl Rule {
    pub(super) fn read(object: &Object) -> Option<Self> {
        if object.kind != rtm::NEW_RULE {
            return None;
        }
        // struct fib_rule_hdr
        let (header, found) = split::<12>(&object.payload)?;
        let [_family, destination_len, source_len, _, table, _, _, action, ..] = *header;
        let (mut source, mut destination, mut suppress) = (None, None, None);
        let (mut table, mut protocol, mut priority) = (u32::from(table), 0, 0);
        let (mut transport, mut ports) = (None, None);
        for (kind, value) in found.iter() {
            match kind {
                FRA_SRC => source = ip(value),
                FRA_DST => destination = ip(value),
                FRA_TABLE => table = number(value)?,
                FRA_PRIORITY => priority = number(value)?,
                FRA_PROTOCOL => protocol = *value.first()?,
                FRA_IP_PROTO => transport = value.first().copied(),
                FRA_DPORT_RANGE => ports = value.first_chunk::<4>().copied(),
                // Newer kernels say of a port that all of it counts.
                FRA_DPORT_MASK if value.iter().all(|&byte| byte == u8::MAX) => {}
                // Told of each rule, as "no" (-1).
                FRA_SUPPRESS_PREFIXLEN => suppress = number(value).filter(|&it| it != u32::MAX),
                _ => return None,
            }
        }
        match action {
            TO_TABLE => {}
            UNREACHABLE => table = REFUSED,
            _ => return None,
        }
        let packets = match (source, destination, transport, ports) {
            (Some(ip), None, None, None) => Packets::From(IpNetwork::new(ip, source_len).ok()?),
            (None, Some(ip), None, None) => Packets::To(IpNetwork::new(ip, destination_len).ok()?),
            // struct fib_rule_port_range: first and last, in the host's order.
            (Some(ip), Some(to), Some(TCP), Some([a, b, c, d])) if [a, b] == [c, d] => {
                if destination_len != if to.is_ipv4() { 32 } else { 128 } {
                    return None;
                }
                Packets::Tcp {
                    from: IpNetwork::new(ip, source_len).ok()?,
                    to,
                    port: u16::from_ne_bytes([a, b]),
                }
            }
            _ => return None,
        };
        Some(Self { packets, table, priority, protocol, suppress })
    }
}

impl ListedRule {
    /// `None` for what is no rule.
    fn read(object: &Object) -> Option<Self> {
        if object.kind != rtm::NEW_RULE {
            return None;
        }
        let (header, found) = split::<12>(&object.payload)?;
        let [_family, destination_len, source_len, _, table, _, _, action, ..] = *header;
        let (mut words, mut priority, mut table) = (Vec::new(), 0, u32::from(table));
        for (kind, value) in found.iter() {
            let address = || ip(value).map(|ip| ip.to_string()).unwrap_or_default();
            match kind {
                FRA_SRC => words.push(format!("from {}/{source_len}", address())),
                FRA_DST => words.push(format!("to {}/{destination_len}", address())),
                FRA_IIFNAME => words.push(format!("iif {}", text(value))),
                FRA_OIFNAME => words.push(format!("oif {}", text(value))),
                FRA_FWMARK => words.push(format!("fwmark {:#x}", number(value).unwrap_or(0))),
                FRA_TABLE => table = number(value).unwrap_or(table),
                FRA_PRIORITY => priority = number(value).unwrap_or(0),
                _ => {}
            }
        }
        let table = (action == TO_TABLE).then_some(table);
        words.push(match table {
            Some(table) => format!("lookup {table}"),
            None => format!("{:?}", RuleAction::from(action)).to_lowercase(),
        });
        Some(Self { rule: Rule::read(object), table, text: format!("{priority}: {}", words.join(" ")) })
    }
}

/// `ip rule add {from|to} NETWORK lookup TABLE [suppress_prefixlength LENGTH] priority PRIORITY protocol PROTOCOL`
pub(super) fn add_rule(rule: &Rule) -> Request {
    Request::new(rtm::NEW_RULE, &message_to(rule), NLM_F_CREATE | NLM_F_EXCL)
}

/// `ip rule delete ...`, with the same words as for [`add_rule`]
pub(super) fn delete_rule(rule: &Rule) -> Request {
    Request::new(rtm::DEL_RULE, &message_to(rule), 0)
}

fn message_to(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.packets.network().ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.action = if rule.table == REFUSED { RuleAction::Unreachable } else { RuleAction::ToTable };
    message.attributes = match rule.packets {
        Packets::From(network) => {
            message.header.src_len = network.prefix();
            vec![RuleAttribute::Source(network.ip())]
        }
        Packets::To(network) => {
            message.header.dst_len = network.prefix();
            vec![RuleAttribute::Destination(network.ip())]
        }
        Packets::Tcp { from, to, port } => {
            message.header.src_len = from.prefix();
            message.header.dst_len = if to.is_ipv4() { 32 } else { 128 };
            vec![
                RuleAttribute::Source(from.ip()),
                RuleAttribute::Destination(to),
                RuleAttribute::IpProtocol(IpProtocol::Tcp),
                RuleAttribute::DestinationPortRange(RulePortRange { start: port, end: port }),
            ]
        }
    };
    if rule.table != REFUSED {
        message.attributes.push(RuleAttribute::Table(rule.table));
    }
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Protocol(rule.protocol.into()));
    message.attributes.extend(rule.suppress.map(RuleAttribute::SuppressPrefixLen));
    message
}
