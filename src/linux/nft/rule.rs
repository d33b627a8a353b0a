//! Rules.

use netlink_packet_netfilter::nftables::{RuleAttribute, RuleMessage};

use super::super::attributes::Attributes;
use super::expr::{Counted, Expr};
use super::table::Table;
use super::userdata;

/// include/uapi/linux/netfilter/nf_tables.h
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;

/// A rule: the steps that a packet goes through, up to the first that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Name of the chain that it is in.
    pub chain: String,
    /// The steps.
    pub exprs: Vec<Expr>,
    /// For people. At most 127 bytes are kept.
    pub comment: Option<String>,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlacedRule {
    /// Tells it from all other rules of its table, those that were there before included.
    pub handle: u64,
    /// What it says.
    pub rule: Rule,
    /// What its counter has counted, if it has one.
    pub counted: Option<Counted>,
}

impl PlacedRule {
    pub(super) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let handle = attributes.value(NFTA_RULE_HANDLE)?.first_chunk::<8>()?;
        let counted = attributes.list(NFTA_RULE_EXPRESSIONS).find_map(Counted::read);
        Some(Self { handle: u64::from_be_bytes(*handle), rule: Rule::read(attributes).1, counted })
    }

    /// The place of the rule with that handle.
    pub(super) fn to_question(table: &Table, chain: &str, handle: u64) -> RuleMessage {
        let name = RuleAttribute::Chain(chain.to_owned());
        RuleMessage {
            attributes: vec![RuleAttribute::Table(table.name.clone()), name, RuleAttribute::Handle(handle)],
        }
    }
}

/// As much of a comment as is kept.
pub fn kept_comment(comment: &str) -> &str {
    userdata::cut(comment)
}

impl Rule {
    /// `nft add rule TABLE CHAIN ... comment COMMENT`, its counter at `counted`.
    pub(super) fn to_message(&self, table: &Table, counted: Counted) -> RuleMessage {
        let exprs = self.exprs.iter().map(|expr| match expr {
            Expr::Counter => counted.to_netlink(),
            other => other.to_netlink(),
        });
        let mut attributes = vec![
            RuleAttribute::Table(table.name.clone()),
            RuleAttribute::Chain(self.chain.clone()),
            RuleAttribute::Expressions(exprs.collect()),
        ];
        let comment = self.comment.as_ref();
        attributes.extend(comment.map(|comment| RuleAttribute::UserData(userdata::from_comment(comment))));
        RuleMessage { attributes }
    }

    /// The rules of a chain, all of them.
    pub(super) fn to_question(table: &Table, chain: &str) -> RuleMessage {
        let chain = RuleAttribute::Chain(chain.to_owned());
        RuleMessage { attributes: vec![RuleAttribute::Table(table.name.clone()), chain] }
    }

    /// Reads what the kernel lists, and which table it is of.
    pub(super) fn read(attributes: Attributes<'_>) -> (Option<String>, Self) {
        let rule = Self {
            chain: attributes.text(NFTA_RULE_CHAIN).unwrap_or_default(),
            exprs: attributes.list(NFTA_RULE_EXPRESSIONS).map(Expr::read).collect(),
            comment: attributes.value(NFTA_RULE_USERDATA).and_then(userdata::to_comment),
        };
        (attributes.text(NFTA_RULE_TABLE), rule)
    }
}
