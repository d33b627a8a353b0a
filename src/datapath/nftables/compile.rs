//! The table in the kernel layer's words: each match becomes the few steps that load a field into registers and
//! compare it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::desired::nftables::element as desired;
use crate::desired::nftables::element::{Value, last_address};
use crate::desired::nftables::rule::{Action, Field, Match, Rule};
use crate::desired::nftables::table as description;
use crate::desired::nftables::table::{ChainName, Kind, SetName};
use crate::linux::nft::change::Change;
use crate::linux::nft::element::{Bytes, Element};
use crate::linux::nft::expr::{Comparison, Expr, Header, MetaField, Reg, Verdict};
use crate::linux::nft::rule as kernel;
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::{Base, Chain, ChainKind, Family, Hook, Table};

/// `RTN_LOCAL` (include/uapi/linux/rtnetlink.h).
const LOCAL: u32 = 2;

/// `IPS_DST_NAT` (include/uapi/linux/netfilter/nf_conntrack_common.h).
const REDIRECTED: u32 = 1 << 5;

/// `IPPROTO_ICMPV6` (include/uapi/linux/in6.h).
const ICMPV6: u8 = 58;

/// The registers that a comparison needs, or the first of a key.
const FIRST: Reg = Reg(0);

/// An element and the set that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub set: SetName,
    pub element: Element,
}

/// The table.
pub fn table() -> Table {
    Table { family: Family::Inet, name: description::TABLE.to_owned() }
}

/// A change after which nothing is different but the generation: in one transaction, nobody ever sees the table.
pub fn passing_change() -> [Change; 2] {
    let passing = Table { name: format!("{}-passing", description::TABLE), ..table() };
    [Change::AddTable(passing.clone()), Change::DeleteTable(passing)]
}

/// All that makes the table, without its elements.
pub fn whole_table() -> Vec<Change> {
    let mut changes = vec![Change::AddTable(table())];
    changes.extend(ChainName::ALL.map(|name| Change::AddChain(table(), chain(name))));
    changes.extend(SetName::ALL.map(|name| Change::AddSet(table(), set(name))));
    changes.extend(rules().into_iter().map(|rule| Change::AddRule(table(), rule)));
    changes
}

/// A chain.
pub fn chain(name: ChainName) -> Chain {
    let base = name.base().map(|base| Base {
        kind: if base.nat { ChainKind::Nat } else { ChainKind::Filter },
        hook: match base.hook {
            description::Hook::Prerouting => Hook::Prerouting,
            description::Hook::Input => Hook::Input,
            description::Hook::Forward => Hook::Forward,
            description::Hook::Output => Hook::Output,
            description::Hook::Postrouting => Hook::Postrouting,
        },
        priority: base.priority,
        accept: true,
    });
    Chain { name: name.as_str().to_owned(), base }
}

fn set(name: SetName) -> Set {
    let types = |kinds: &[Kind]| kinds.iter().map(|kind| kernel_type(*kind)).collect();
    Set {
        name: name.as_str().to_owned(),
        key: types(name.key()),
        data: types(name.data()),
        interval: name.has_ranges(),
        expires: name.can_expire(),
    }
}

fn kernel_type(kind: Kind) -> Type {
    match kind {
        Kind::Link => Type::LinkName,
        Kind::Group => Type::LinkGroup,
        Kind::Address4 => Type::Ipv4,
        Kind::Address6 => Type::Ipv6,
        Kind::Protocol => Type::Protocol,
        Kind::Port => Type::Port,
    }
}

/// All rules, those of a chain in their order.
pub fn rules() -> Vec<kernel::Rule> {
    description::rules().iter().map(rule).collect()
}

/// Whether an element can be one of its set: by the lengths of its key and data.
pub fn fits(named: &Named) -> bool {
    let length = |kinds: &[Kind]| kinds.iter().map(|kind| kernel_type(*kind).padded_length()).sum::<usize>();
    let Named { set, element } = named;
    element.key.0.len() == length(set.key())
        && element.data.as_ref().map_or(0, |data| data.0.len()) == length(set.data())
        && element.key_end.is_some() == set.has_ranges()
}

impl From<&desired::Element> for Named {
    fn from(wanted: &desired::Element) -> Self {
        let element = Element {
            key: bytes(&wanted.key, IpNetwork::network),
            key_end: wanted.set.has_ranges().then(|| bytes(&wanted.key, |network| last_address(*network))),
            data: wanted.target.map(|(address, port)| Bytes::default().address(address).port(port)),
            comment: Some(wanted.owner.to_string()),
        };
        Self { set: wanted.set, element }
    }
}

/// A key; `end` says which address stands for a network.
fn bytes(key: &[Value], end: impl Fn(&IpNetwork) -> IpAddr) -> Bytes {
    key.iter().fold(Bytes::default(), |bytes, value| match value {
        Value::Link(link) => bytes.link_name(link),
        Value::Group(group) => bytes.link_group(*group),
        Value::Address(address) => bytes.address(*address),
        Value::Network(network) => bytes.address(end(network)),
        Value::Protocol(protocol) => bytes.protocol(protocol.number()),
        Value::Port(port) => bytes.port(*port),
    })
}

fn rule(rule: &Rule) -> kernel::Rule {
    let mut program = Program::default();
    for wanted in &rule.matches {
        program.push_match(wanted);
    }
    program.push_action(&rule.action);
    kernel::Rule {
        chain: rule.chain.as_str().to_owned(),
        exprs: program.exprs,
        comment: Some(rule.comment.clone()),
    }
}

/// A rule's steps so far.
#[derive(Default)]
struct Program {
    exprs: Vec<Expr>,
    /// The family that the packet is known to be of.
    family: Option<Family>,
}

impl Program {
    fn push_match(&mut self, wanted: &Match) {
        match wanted {
            Match::NotFromLink(link) => {
                self.push_load(Field::InLink, FIRST);
                let name = Bytes::default().link_name(link).0;
                self.push_compare(Comparison::NotEqual, name);
            }
            Match::Within(field, network) => self.push_within(*field, *network),
            Match::Icmp6Type(first, last) => {
                self.require(Family::Ipv6);
                self.push_load(Field::Protocol, FIRST);
                self.push_compare(Comparison::Equal, vec![ICMPV6]);
                self.exprs.push(Expr::Payload { header: Header::Transport, offset: 0, length: 1, to: FIRST });
                self.push_compare(Comparison::AtLeast, vec![*first]);
                self.push_compare(Comparison::AtMost, vec![*last]);
            }
            Match::Marked(bit) => {
                let bit = bit.to_ne_bytes().to_vec();
                self.exprs.push(Expr::Meta { field: MetaField::Mark, to: FIRST });
                self.exprs.push(Expr::Mask { at: FIRST, mask: bit.clone() });
                self.push_compare(Comparison::Equal, bit);
            }
            Match::Redirected => {
                self.exprs.push(Expr::FlowStatus { to: FIRST });
                self.exprs.push(Expr::Mask { at: FIRST, mask: REDIRECTED.to_ne_bytes().to_vec() });
                self.push_compare(Comparison::NotEqual, vec![0; 4]);
            }
            Match::ForThisNode => {
                self.exprs.push(Expr::DestinationType { to: FIRST });
                self.push_compare(Comparison::Equal, LOCAL.to_ne_bytes().to_vec());
            }
            Match::In(fields, set) => {
                self.push_key(fields, *set);
                self.exprs.push(Expr::Lookup { set: set.as_str().to_owned(), key: FIRST, data: None });
            }
        }
    }

    fn push_action(&mut self, action: &Action) {
        let expr = match action {
            Action::Accept => Expr::Verdict(Verdict::Accept),
            Action::Drop => Expr::Verdict(Verdict::Drop),
            Action::Return => Expr::Verdict(Verdict::Return),
            Action::Goto(chain) => Expr::Verdict(Verdict::Goto(chain.as_str().to_owned())),
            Action::Masquerade { fully_random } => Expr::Masquerade { fully_random: *fully_random },
            Action::Redirect { ipv4, key, map } => {
                self.push_key(key, *map);
                let set = map.as_str().to_owned();
                self.exprs.push(Expr::Lookup { set, key: FIRST, data: Some(FIRST) });
                let (family, port) = if *ipv4 { (Family::Ipv4, Reg(1)) } else { (Family::Ipv6, Reg(4)) };
                Expr::Dnat { family: family.number(), address: FIRST, port }
            }
        };
        self.exprs.push(expr);
    }

    fn push_within(&mut self, field: Field, network: IpNetwork) {
        self.push_load(field, FIRST);
        let octets = |address| Bytes::default().address(address).0;
        let (mut value, mask) = (octets(network.network()), octets(network.mask()));
        let whole_bytes = usize::from(network.prefix() / 8);
        if network.prefix().is_multiple_of(8) {
            // Whole bytes need no mask: no more of them is loaded than is compared.
            value.truncate(whole_bytes);
            if let Some(Expr::Payload { length, .. }) = self.exprs.last_mut() {
                *length = u32::try_from(whole_bytes).unwrap_or(*length);
            }
        } else {
            self.exprs.push(Expr::Mask { at: FIRST, mask });
        }
        self.push_compare(Comparison::Equal, value);
    }

    /// Loads a key into the registers from the first on.
    fn push_key(&mut self, fields: &[Field], set: SetName) {
        fields.iter().filter_map(|field| family_of(*field)).for_each(|family| self.require(family));
        let mut register = 0;
        for (field, kind) in fields.iter().zip(set.key()) {
            self.push_load(*field, Reg(register));
            // Ranges are compared from the first byte on.
            if set.has_ranges() && *kind == Kind::Group {
                self.exprs.push(Expr::ToNetworkOrder { at: Reg(register) });
            }
            let registers = kernel_type(*kind).padded_length() / 4;
            register += u8::try_from(registers).unwrap_or(u8::MAX);
        }
    }

    fn push_load(&mut self, field: Field, to: Reg) {
        if let Some(family) = family_of(field) {
            self.require(family);
        }
        let meta = |field| Expr::Meta { field, to };
        let network = |offset, length| Expr::Payload { header: Header::Network, offset, length, to };
        self.exprs.push(match field {
            Field::InLink => meta(MetaField::InputName),
            Field::OutLink => meta(MetaField::OutputName),
            Field::InGroup => meta(MetaField::InputGroup),
            Field::Protocol => meta(MetaField::Protocol),
            // RFC 791, section 3.1
            Field::Source4 => network(12, 4),
            Field::Destination4 => network(16, 4),
            // RFC 8200, section 3
            Field::Source6 => network(8, 16),
            Field::Destination6 => network(24, 16),
            Field::DestinationPort => Expr::Payload { header: Header::Transport, offset: 2, length: 2, to },
        });
    }

    /// Ends the rule for packets of the other family: at the same place they have something else.
    fn require(&mut self, family: Family) {
        if self.family == Some(family) {
            return;
        }
        self.family = Some(family);
        self.exprs.push(Expr::Meta { field: MetaField::Family, to: FIRST });
        self.push_compare(Comparison::Equal, vec![family.number()]);
    }

    fn push_compare(&mut self, comparison: Comparison, value: Vec<u8>) {
        self.exprs.push(Expr::Compare { from: FIRST, comparison, value });
    }
}

fn family_of(field: Field) -> Option<Family> {
    match field {
        Field::Source4 | Field::Destination4 => Some(Family::Ipv4),
        Field::Source6 | Field::Destination6 => Some(Family::Ipv6),
        _ => None,
    }
}
