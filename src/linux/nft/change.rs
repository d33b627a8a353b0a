//! Changes of tables, made together or not at all.

use std::fmt;
use std::time::Duration;

use netlink_packet_netfilter::nftables::NfTablesMessage;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

use super::super::error::KernelError;
use super::super::message::Request;
use super::super::nfnetlink::{self, Nfnetlink};
use super::element::{Element, message_about, message_with_end};
use super::expr::Counted;
use super::message;
use super::rule::{PlacedRule, Rule};
use super::set::Set;
use super::table::{Chain, Table};

/// Elements that travel in one message. An attribute's length has sixteen bits, and an element of ours takes less
/// than 300 bytes.
const ELEMENTS_PER_MESSAGE: usize = 128;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a table, with a comment (not kept before Linux 5.10). Refused (EEXIST) if there is one of that name.
    AddTable(Table, Option<String>),
    /// Makes a table that goes with the socket over which it is made, however its process ends; nobody else can change it
    /// meanwhile. Refused (EEXIST) if there is one of that name, and (EOPNOTSUPP, EINVAL) before Linux 5.12.
    AddOwnedTable(Table),
    /// Removes a table with all that is in it. Refused (ENOENT) if there is none.
    DeleteTable(Table),
    /// Makes a chain.
    AddChain(Table, Chain),
    /// Removes a chain with its rules. Refused (EBUSY) while a rule or an element sends packets to it, ENOENT if it is not
    /// there.
    DeleteChain(Table, String),
    /// Removes all rules of a chain.
    FlushChain(Table, String),
    /// Makes a set or map. One that is there already is a success if it is of the same kind, else refused (EEXIST).
    AddSet(Table, Set),
    /// Removes a set or map with its elements. Refused (EBUSY) while a rule looks into it, ENOENT if it is not there.
    DeleteSet(Table, String),
    /// Adds a rule to the end of its chain.
    AddRule(Table, Rule),
    /// The same, and its counter goes on from what another one has counted.
    AddCountedRule(Table, Rule, Counted),
    /// Puts a rule before all others of its chain.
    InsertRule(Table, Rule),
    /// Removes a rule. Refused (ENOENT) if it is not there.
    DeleteRule {
        /// Its table.
        table: Table,
        /// Its chain.
        chain: String,
        /// Its [`PlacedRule::handle`].
        handle: u64,
    },
    /// Adds elements. One that is there already is a success, but refused (EEXIST; EBUSY by older
    /// kernels) if a map has other data under its key.
    AddElements(Table, Vec<Element>),
    /// Gives elements of a set that has `expires` their end, after which they are as good as not there. Unlike those that
    /// [`Change::DeleteElements`] removes, they are not waited for by anybody who closes a socket like this one
    /// (nft_rcv_nl_event, net/netfilter/nf_tables_api.c). Refused (EEXIST; EBUSY by older kernels) if a map has other
    /// data under the key of one. One that is not there is made, and ends likewise.
    ///
    /// Before Linux 6.12 a success that changes nothing: look whether they have gone.
    ExpireElements {
        /// Their table.
        table: Table,
        /// Which.
        elements: Vec<Element>,
        /// When. The kernel counts in ticks, and takes less than one for never: no less than 10 ms.
        after: Duration,
    },
    /// Removes elements, found by their keys. Refused (ENOENT) if one is not there.
    DeleteElements(Table, Vec<Element>),
}

/// Why a transaction was refused, of which nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|it| it.refusal.to_string()).collect::<Vec<_>>().join("; "))]
pub struct Rejection(pub Vec<Blame>);

/// One reason of a [`Rejection`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The change to blame, by its place among those asked for; `None` where it is none in particular.
    pub change: Option<usize>,
    /// The kernel's reason.
    pub refusal: KernelError,
}

impl Rejection {
    /// Whether any of the reasons is such a one.
    pub fn is_because(&self, reason: impl Fn(&KernelError) -> bool) -> bool {
        self.0.iter().any(|blame| reason(&blame.refusal))
    }
}

impl Nfnetlink {
    /// Makes all of `changes`, in their order and at one moment, or none of them.
    ///
    /// With a `generation` ([`Nfnetlink::generation`]), only if nobody changed any table of the namespace since:
    /// what was decided on what was read then still holds. Else refused, see [`KernelError::is_outrun`].
    ///
    /// # Errors
    /// What the kernel refused; nothing was changed then.
    pub async fn commit(&self, generation: Option<u32>, changes: &[Change]) -> Result<(), Rejection> {
        let mut requests = Vec::new();
        let mut places = Vec::new();
        for (place, change) in changes.iter().enumerate() {
            requests.extend(change.to_requests(place));
            places.resize(requests.len(), place);
        }
        self.transact(generation, requests).await.map_err(|rejected| {
            let blame = |(request, reason): (Option<usize>, super::super::error::Reason)| {
                let change = request.and_then(|request| places.get(request).copied());
                let operation = match change.and_then(|place| changes.get(place)) {
                    Some(change) => change.to_string(),
                    None => format!("nf_tables transaction of {} changes", changes.len()),
                };
                Blame { change, refusal: reason.of(operation) }
            };
            Rejection(rejected.reasons.into_iter().map(blame).collect())
        })
    }
}

impl Change {
    /// `place` tells it from the others of the transaction.
    pub(super) fn to_requests(&self, place: usize) -> Vec<Request> {
        let request = |table: &Table, flags, inner| nfnetlink::request(&message(table.family, inner), flags);
        let one = |table: &Table, flags, inner| vec![request(table, flags, inner)];
        match self {
            // nft create table FAMILY NAME
            Self::AddTable(table, comment) => {
                let inner = NfTablesMessage::NewTable(table.to_message(comment.as_deref()));
                one(table, NLM_F_CREATE | NLM_F_EXCL, inner)
            }
            // nft create table FAMILY NAME { flags owner }
            Self::AddOwnedTable(table) => {
                one(table, NLM_F_CREATE | NLM_F_EXCL, NfTablesMessage::NewTable(table.to_owned_message()))
            }
            // nft delete table FAMILY NAME
            Self::DeleteTable(table) => one(table, 0, NfTablesMessage::DeleteTable(table.to_message(None))),
            Self::AddChain(table, chain) => {
                one(table, NLM_F_CREATE, NfTablesMessage::NewChain(chain.to_message(table)))
            }
            Self::AddSet(table, set) => {
                let id = u32::try_from(place + 1).unwrap_or(u32::MAX);
                one(table, NLM_F_CREATE, NfTablesMessage::NewSet(set.to_message(table, id)))
            }
            // nft delete chain FAMILY TABLE NAME
            Self::DeleteChain(table, name) => {
                one(table, 0, NfTablesMessage::DeleteChain(Chain::to_question(table, name)))
            }
            // nft flush chain FAMILY TABLE NAME
            Self::FlushChain(table, name) => {
                one(table, 0, NfTablesMessage::DeleteRule(Rule::to_question(table, name)))
            }
            // nft delete set FAMILY TABLE NAME
            Self::DeleteSet(table, name) => {
                one(table, 0, NfTablesMessage::DeleteSet(Set::to_question(table, name)))
            }
            Self::AddRule(table, rule) => {
                let inner = NfTablesMessage::NewRule(rule.to_message(table, Counted::default()));
                one(table, NLM_F_CREATE | NLM_F_APPEND, inner)
            }
            // nft add rule FAMILY TABLE CHAIN ... counter packets PACKETS bytes BYTES ...
            Self::AddCountedRule(table, rule, counted) => {
                let inner = NfTablesMessage::NewRule(rule.to_message(table, *counted));
                one(table, NLM_F_CREATE | NLM_F_APPEND, inner)
            }
            // nft insert rule FAMILY TABLE CHAIN ...
            Self::InsertRule(table, rule) => {
                let inner = NfTablesMessage::NewRule(rule.to_message(table, Counted::default()));
                one(table, NLM_F_CREATE, inner)
            }
            // nft delete rule FAMILY TABLE CHAIN handle HANDLE
            Self::DeleteRule { table, chain, handle } => {
                one(table, 0, NfTablesMessage::DeleteRule(PlacedRule::to_question(table, chain, *handle)))
            }
            // nft add element TABLE SET { KEY : DATA, ... }
            Self::AddElements(table, elements) => in_messages(elements)
                .map(|(set, some)| {
                    let inner = NfTablesMessage::NewSetElement(message_about(table, set, some));
                    request(table, NLM_F_CREATE, inner)
                })
                .collect(),
            // nft add element TABLE SET { KEY timeout AFTER expires AFTER : DATA, ... }
            Self::ExpireElements { table, elements, after } => in_messages(elements)
                .map(|(set, some)| {
                    let inner = message_with_end(table, set, some, Some(*after));
                    request(table, NLM_F_CREATE, NfTablesMessage::NewSetElement(inner))
                })
                .collect(),
            // nft delete element TABLE SET { KEY, ... }
            Self::DeleteElements(table, elements) => in_messages(elements)
                .map(|(set, some)| {
                    request(table, 0, NfTablesMessage::DeleteSetElement(message_about(table, set, some)))
                })
                .collect(),
        }
    }
}

/// Elements of one set each, as many as one message holds.
fn in_messages(elements: &[Element]) -> impl Iterator<Item = (&str, &[Element])> {
    let of_one_set = elements.chunk_by(|a, b| a.set == b.set);
    let messages = of_one_set.flat_map(|elements| elements.chunks(ELEMENTS_PER_MESSAGE));
    messages.filter_map(|some| some.first().map(|first| (first.set.as_str(), some)))
}

/// The name of their set.
fn set_of(elements: &[Element]) -> &str {
    elements.first().map_or("", |first| &first.set)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table, _) | Self::AddOwnedTable(table) => write!(f, "create table {table}"),
            Self::DeleteTable(table) => write!(f, "delete table {table}"),
            Self::AddChain(table, chain) => write!(f, "add chain {table} {}", chain.name),
            Self::AddSet(table, set) => write!(f, "add set {table} {}", set.name),
            Self::DeleteChain(table, name) => write!(f, "delete chain {table} {name}"),
            Self::FlushChain(table, name) => write!(f, "flush chain {table} {name}"),
            Self::DeleteSet(table, name) => write!(f, "delete set {table} {name}"),
            Self::AddRule(table, rule) | Self::AddCountedRule(table, rule, _) => {
                write!(f, "add rule {table} {}", rule.chain)
            }
            Self::InsertRule(table, rule) => write!(f, "insert rule {table} {}", rule.chain),
            Self::DeleteRule { table, chain, handle } => {
                write!(f, "delete rule {table} {chain} handle {handle}")
            }
            Self::AddElements(table, elements) => write!(f, "add element {table} {}", set_of(elements)),
            Self::ExpireElements { table, elements, .. } => {
                write!(f, "expire element {table} {}", set_of(elements))
            }
            Self::DeleteElements(table, elements) => {
                write!(f, "delete element {table} {}", set_of(elements))
            }
        }
    }
}
