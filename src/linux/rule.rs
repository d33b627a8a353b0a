//! Rules of policy routing: which packets are looked up in another table first.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::error::KernelError;
use super::netlink::Netlink;
use super::packet::Request;
use super::route::Family;

/// Packets from some addresses are looked up in a table; where that has no route for them, the next rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Their source.
    pub source: IpNetwork,
    /// The table.
    pub table: u32,
    /// The place among the rules, from 0 on. The main table is looked up at 32766.
    pub priority: u32,
    /// Who made it (RTPROT_*).
    pub protocol: u8,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, table, priority, protocol } = self;
        write!(f, "from {source} lookup {table} priority {priority} proto {protocol}")
    }
}

impl Netlink {
    /// The rules of a family that `protocol` made and that are no more than a [`Rule`] can say.
    ///
    /// `ip rule show`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn rules(&self, family: Family, protocol: u8) -> Result<Vec<Rule>, KernelError> {
        let mut question = RuleMessage::default();
        question.header.family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let answers = self.dump(RouteNetlinkMessage::GetRule(question), "list rules").await?;
        let rules = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(message) => Rule::read(&message),
            _ => None,
        });
        // Once more: where the kernel has no IPv6 it lists IPv4 instead.
        let is_asked_for =
            |rule: &Rule| rule.protocol == protocol && rule.source.is_ipv4() == (family == Family::V4);
        Ok(rules.filter(is_asked_for).collect())
    }
}

impl Rule {
    pub(super) fn read(message: &RuleMessage) -> Option<Self> {
        let (mut source, mut protocol, mut priority) = (None, 0, 0);
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Source(ip) => source = Some(*ip),
                RuleAttribute::Table(it) => table = *it,
                RuleAttribute::Priority(it) => priority = *it,
                RuleAttribute::Protocol(it) => protocol = (*it).into(),
                // Told of each rule, as "no".
                RuleAttribute::SuppressPrefixLen(_) => {}
                _ => return None,
            }
        }
        if message.header.action != RuleAction::ToTable {
            return None;
        }
        let source = IpNetwork::new(source?, message.header.src_len).ok()?;
        Some(Self { source, table, priority, protocol })
    }
}

/// `ip rule add from SOURCE lookup TABLE priority PRIORITY protocol PROTOCOL`
pub(super) fn add_rule(rule: &Rule) -> Request {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    Request::new(RouteNetlinkMessage::NewRule(message_to(rule)), flags)
}

/// `ip rule delete ...`, with the same words as for [`add_rule`]
pub(super) fn delete_rule(rule: &Rule) -> Request {
    Request::new(RouteNetlinkMessage::DelRule(message_to(rule)), NLM_F_REQUEST | NLM_F_ACK)
}

fn message_to(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.source.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.src_len = rule.source.prefix();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(rule.source.ip()),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(rule.protocol.into()),
    ];
    message
}
