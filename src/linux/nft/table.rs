//! Tables and chains.

use std::fmt;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, TableAttribute,
    TableFlags, TableMessage,
};

use super::userdata;

/// `NF_DROP`, `NF_ACCEPT` (include/uapi/linux/netfilter.h).
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    pub(super) fn to_netlink(self) -> NetfilterProtoFamily {
        match self {
            Self::Inet => NetfilterProtoFamily::Inet,
            Self::Ipv4 => NetfilterProtoFamily::IPv4,
            Self::Ipv6 => NetfilterProtoFamily::IPv6,
        }
    }

    /// `NFPROTO_*`, as rules compare it.
    pub fn number(self) -> u8 {
        self.to_netlink().into()
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        })
    }
}

/// A table. All else is in one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name, unique in the family.
    pub name: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

impl Table {
    pub(super) fn to_message(&self, comment: Option<&str>) -> TableMessage {
        let mut attributes = vec![TableAttribute::Name(self.name.clone())];
        attributes.extend(comment.map(|comment| TableAttribute::UserData(userdata::from_comment(comment))));
        TableMessage { attributes }
    }

    pub(super) fn to_owned_message(&self) -> TableMessage {
        let mut message = self.to_message(None);
        message.attributes.push(TableAttribute::Flags(TableFlags::Owner));
        message
    }
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name, unique in the table.
    pub name: String,
    /// Where packets enter it; `None` if only other chains send them here.
    pub base: Option<Base>,
    /// For people. At most 127 bytes are kept; none before Linux 5.10.
    pub comment: Option<String>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Base {
    /// What the chain may do.
    pub kind: ChainKind,
    /// When.
    pub hook: Hook,
    /// In which order with other chains of the same hook, lower first.
    pub priority: i32,
    /// Whether packets go on that no rule has decided about.
    pub accept: bool,
}

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Let pass or not.
    Filter,
    /// Rewrite addresses of the first packet of a flow, and by that of the flow.
    Nat,
}

/// A place on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Arrived, before it is decided where it goes.
    Prerouting,
    /// For this host.
    Input,
    /// For another host.
    Forward,
    /// Made by this host.
    Output,
    /// About to leave.
    Postrouting,
}

impl ChainKind {
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl Hook {
    fn number(self) -> InetHookNumber {
        match self {
            Self::Prerouting => InetHookNumber::PreRouting,
            Self::Input => InetHookNumber::LocalIn,
            Self::Forward => InetHookNumber::Forward,
            Self::Output => InetHookNumber::LocalOut,
            Self::Postrouting => InetHookNumber::PostRouting,
        }
    }

    fn from_number(number: HookNumber) -> Option<Self> {
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting]
            .into_iter()
            .find(|hook| u32::from(hook.number()) == u32::from(number))
    }
}

impl Chain {
    /// The chain's table and name: enough to find it.
    pub(super) fn to_question(table: &Table, name: &str) -> ChainMessage {
        ChainMessage {
            attributes: vec![
                ChainAttribute::Table(table.name.clone()),
                ChainAttribute::Name(name.to_owned()),
            ],
        }
    }

    pub(super) fn to_message(&self, table: &Table) -> ChainMessage {
        let mut message = Self::to_question(table, &self.name);
        let comment = self.comment.as_ref();
        let comment = comment.map(|comment| ChainAttribute::UserData(userdata::from_comment(comment)));
        message.attributes.extend(comment);
        if let Some(base) = self.base {
            message.attributes.extend([
                ChainAttribute::Type(base.kind.name().to_owned()),
                ChainAttribute::Hook(vec![
                    HookAttribute::Number(HookNumber::Inet(base.hook.number())),
                    HookAttribute::Priority(base.priority.cast_unsigned()),
                ]),
                ChainAttribute::Policy(if base.accept { ACCEPT } else { DROP }),
            ]);
        }
        message
    }

    /// Reads what the kernel lists; `None` if it is of a kind that [`Chain`] has no word for.
    pub(super) fn read(message: &ChainMessage) -> Option<Self> {
        let (mut name, mut kind, mut hooks, mut policy, mut comment) = (None, None, None, ACCEPT, None);
        for attribute in &message.attributes {
            match attribute {
                ChainAttribute::Name(it) => name = Some(it.clone()),
                ChainAttribute::Type(it) => kind = Some(it.as_str()),
                ChainAttribute::Hook(it) => hooks = Some(it),
                ChainAttribute::Policy(it) => policy = *it,
                ChainAttribute::UserData(it) => comment = userdata::to_comment(it),
                _ => {}
            }
        }
        let Some(hooks) = hooks else { return Some(Self { name: name?, base: None, comment }) };
        let hook = hooks.iter().find_map(|attribute| match attribute {
            HookAttribute::Number(number) => Hook::from_number(*number),
            _ => None,
        });
        let priority = hooks.iter().find_map(|attribute| match attribute {
            HookAttribute::Priority(priority) => Some(priority.cast_signed()),
            _ => None,
        });
        let kind = [ChainKind::Filter, ChainKind::Nat].into_iter().find(|it| Some(it.name()) == kind)?;
        let base = Base { kind, hook: hook?, priority: priority?, accept: policy == ACCEPT };
        Some(Self { name: name?, base: Some(base), comment })
    }
}
