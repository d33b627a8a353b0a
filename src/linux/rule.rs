//! Rules of policy routing: which packets are looked up in another table first.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::attributes::{ip, number};
use super::error::KernelError;
use super::message::{Object, Request, rtm, split};
use super::netlink::Netlink;
use super::route::Family;

/// `FRA_*`, `FR_ACT_TO_TBL` (include/uapi/linux/fib_rules.h).
const FRA_SRC: u16 = 2;
pub(super) const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
pub(super) const FRA_PROTOCOL: u16 = 21;
const TO_TABLE: u8 = 1;

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
        let answers = self.dump(rtm::GET_RULE, &question, "list rules").await?;
        let rules = answers.iter().filter_map(Rule::read);
        // Once more: where the kernel has no IPv6 it lists IPv4 instead.
        let is_asked_for =
            |rule: &Rule| rule.protocol == protocol && rule.source.is_ipv4() == (family == Family::V4);
        Ok(rules.filter(is_asked_for).collect())
    }
}

impl Rule {
    pub(super) fn read(object: &Object) -> Option<Self> {
        if object.kind != rtm::NEW_RULE {
            return None;
        }
        // struct fib_rule_hdr
        let (header, found) = split::<12>(&object.payload)?;
        let [_family, _, source_len, _, table, _, _, action, ..] = *header;
        let (mut source, mut table, mut protocol, mut priority) = (None, u32::from(table), 0, 0);
        for (kind, value) in found.iter() {
            match kind {
                FRA_SRC => source = ip(value),
                FRA_TABLE => table = number(value)?,
                FRA_PRIORITY => priority = number(value)?,
                FRA_PROTOCOL => protocol = *value.first()?,
                // Told of each rule, as "no".
                FRA_SUPPRESS_PREFIXLEN => {}
                _ => return None,
            }
        }
        if action != TO_TABLE {
            return None;
        }
        let source = IpNetwork::new(source?, source_len).ok()?;
        Some(Self { source, table, priority, protocol })
    }
}

/// `ip rule add from SOURCE lookup TABLE priority PRIORITY protocol PROTOCOL`
pub(super) fn add_rule(rule: &Rule) -> Request {
    Request::new(rtm::NEW_RULE, &message_to(rule), NLM_F_CREATE | NLM_F_EXCL)
}

/// `ip rule delete ...`, with the same words as for [`add_rule`]
pub(super) fn delete_rule(rule: &Rule) -> Request {
    Request::new(rtm::DEL_RULE, &message_to(rule), 0)
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
