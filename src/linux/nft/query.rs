//! What tables hold. Nothing but what is asked for is listed: neither other tables nor other sets. The kernel lists
//! chains by family only, so [`Nfnetlink::base_chains`] passes over those of all tables of one.

use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_netfilter::nftables::{
    ChainMessage, GenMessage, NfTablesMessage, RuleAttribute, RuleMessage,
};
use rtnetlink::packet_core::Parseable;
use rustix::io::Errno;

use super::super::attributes::Attributes;
use super::super::error::{KernelError, Reason};
use super::super::message::Object;
use super::super::nfnetlink::{Nfnetlink, Verdicts};
use super::element::{Element, message_about};
use super::message;
use super::rule::{PlacedRule, Rule};
use super::table::{Chain, Family, Table};
use super::userdata;

/// include/uapi/linux/netfilter/nf_tables.h
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFT_TABLE_F_DORMANT: u32 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_GEN_ID: u16 = 1;

/// What look-ups tell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// Whether it does nothing, because somebody made it so.
    pub is_dormant: bool,
    /// The table's comment.
    pub comment: Option<String>,
    /// How many rules are in the chain, and how many rules send packets to it. `None` if there is no such chain.
    pub chain_use: Option<u32>,
    /// What there is under each key.
    pub elements: Vec<Option<Element>>,
}

impl Nfnetlink {
    /// A number that changes with each transaction of anybody in the namespace.
    ///
    /// # Errors
    /// The kernel's refusal: it has no nf_tables.
    pub async fn generation(&self) -> Result<u32, KernelError> {
        let question = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let answers = self.ask(vec![message(Family::Inet, question)]).await;
        let generation = match answers.into_iter().next() {
            Some(Err(reason)) => Err(reason),
            Some(Ok(Some(answer))) => generation_of(&answer),
            _ => Err(Reason::lost()),
        };
        generation.map_err(|reason| reason.of("ask for the generation of nf_tables"))
    }

    /// The chains of `table` with these names; `None` for one that is not there or of a kind that [`Chain`] has
    /// no word for.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn chains(&self, table: &Table, names: &[&str]) -> Result<Vec<Option<Chain>>, KernelError> {
        let question =
            |name: &&str| message(table.family, NfTablesMessage::GetChain(Chain::to_question(table, name)));
        let answers = self.ask(names.iter().map(question).collect()).await;
        let read = |answer: Option<Object>| Chain::read(&ChainMessage::parse(answer?.netfilter_body()).ok()?);
        let mut chains = Vec::new();
        for (answer, name) in answers.into_iter().zip(names) {
            chains.push(match answer {
                Ok(answer) => read(answer),
                Err(reason) if reason.is_not_found() => None,
                Err(reason) => return Err(reason.of(format!("list chain {table} {name}"))),
            });
        }
        Ok(chains)
    }

    /// The chains of all tables of `family` where packets enter, each with its table. None where the kernel has no
    /// nf_tables. A chain of a kind that [`Chain`] has no word for is not among them.
    ///
    /// `nft list chains FAMILY`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn base_chains(&self, family: Family) -> Result<Vec<(Table, Chain)>, KernelError> {
        let question = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let answers = self.dump(&message(family, question), "list chains").await?;
        let mut chains = Vec::new();
        for answer in &answers {
            let attributes = Attributes(answer.netfilter_body());
            // Before the rest is read: kube-proxy has thousands of other chains.
            let (Some(name), Some(_)) =
                (attributes.text(NFTA_CHAIN_TABLE), attributes.value(NFTA_CHAIN_HOOK))
            else {
                continue;
            };
            let chain = ChainMessage::parse(answer.netfilter_body()).ok().and_then(|it| Chain::read(&it));
            chains.extend(chain.map(|chain| (Table { family, name }, chain)));
        }
        Ok(chains)
    }

    /// The rules of one chain in their order. None if there is no such chain.
    ///
    /// `nft list chain FAMILY TABLE NAME`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn chain_rules(&self, table: &Table, chain: &str) -> Result<Vec<PlacedRule>, KernelError> {
        let question = message(table.family, NfTablesMessage::GetRule(Rule::to_question(table, chain)));
        let answers = match self.dump(&question, format!("list rules of chain {table} {chain}")).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        Ok(answers
            .iter()
            .filter_map(|answer| PlacedRule::read(Attributes(answer.netfilter_body())))
            .collect())
    }

    /// All rules of `table`, those of a chain in their order. None if there is no such table.
    ///
    /// `nft list table FAMILY NAME`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn rules(&self, table: &Table) -> Result<Vec<Rule>, KernelError> {
        let question = RuleMessage { attributes: vec![RuleAttribute::Table(table.name.clone())] };
        let question = message(table.family, NfTablesMessage::GetRule(question));
        let answers = match self.dump(&question, format!("list rules of table {table}")).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let listed = answers.iter().map(|answer| Rule::read(Attributes(answer.netfilter_body())));
        // Older kernels list the rules of all tables of the family.
        let rules = listed.filter(|(of, _)| of.as_ref() == Some(&table.name)).map(|(_, rule)| rule);
        Ok(rules.collect())
    }

    /// All elements of a set but those that are about to expire. None if there is no such set.
    ///
    /// `nft list set FAMILY TABLE NAME`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn elements(&self, table: &Table, set: &str) -> Result<Vec<Element>, KernelError> {
        let question = NfTablesMessage::GetSetElement(message_about(table, set, &[]));
        let operation = format!("list elements of set {table} {set}");
        let answers = match self.dump(&message(table.family, question), operation).await {
            Err(refusal) if refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        Ok(answers
            .iter()
            .flat_map(|answer| Element::read_all_lasting(Attributes(answer.netfilter_body())))
            .collect())
    }

    /// What there is under the keys of `wanted`. The cost does not depend on how many elements their sets have.
    ///
    /// `nft get element FAMILY TABLE NAME { KEY }`
    ///
    /// # Errors
    /// The kernel's refusal. An element, set or table that is not there is none.
    pub async fn find_elements(
        &self,
        table: &Table,
        wanted: &[Element],
    ) -> Result<Vec<Option<Element>>, KernelError> {
        let answers = self.ask(wanted.iter().map(|it| question_about(table, it)).collect()).await;
        read_elements(table, wanted, answers)
    }

    /// The table's comment, how much `chain` is used and what there is under the keys of `wanted`, asked in one datagram.
    /// `None` if there is no such table.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn look_up(
        &self,
        table: &Table,
        chain: &str,
        wanted: &[Element],
    ) -> Result<Option<TableState>, KernelError> {
        let of_table = NfTablesMessage::GetTable(table.to_message(None));
        let of_chain = NfTablesMessage::GetChain(Chain::to_question(table, chain));
        let mut questions = vec![message(table.family, of_table), message(table.family, of_chain)];
        questions.extend(wanted.iter().map(|it| question_about(table, it)));
        let mut answers = self.ask(questions).await.into_iter();
        let mut next = |what: &str| match answers.next() {
            Some(Ok(found)) => Ok(found),
            Some(Err(reason)) if reason.is_not_found() => Ok(None),
            Some(Err(reason)) => Err(reason.of(format!("look for {what}"))),
            None => Err(Reason::lost().of(format!("look for {what}"))),
        };
        let found = next(&format!("table {table}"))?;
        let chain_use = next(&format!("chain {table} {chain}"))?
            .and_then(|answer| Attributes(answer.netfilter_body()).number(NFTA_CHAIN_USE));
        let elements = read_elements(table, wanted, answers.collect())?;
        Ok(found.map(|answer| TableState {
            is_dormant: has_dormant_flag(&answer),
            comment: Attributes(answer.netfilter_body())
                .value(NFTA_TABLE_USERDATA)
                .and_then(userdata::to_comment),
            chain_use,
            elements,
        }))
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn has_table(&self, table: &Table) -> Result<bool, KernelError> {
        let question = NfTablesMessage::GetTable(table.to_message(None));
        match self.ask(vec![message(table.family, question)]).await.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err(reason)) if reason.is_not_found() => Ok(false),
            Some(Err(reason)) => Err(reason.of(format!("look for table {table}"))),
            None => Ok(false),
        }
    }

    /// Whether the table is there and does nothing, because somebody made it dormant.
    ///
    /// # Errors
    /// The kernel's refusal. That there is no table is none.
    pub async fn is_dormant(&self, table: &Table) -> Result<bool, KernelError> {
        let question = NfTablesMessage::GetTable(table.to_message(None));
        match self.ask(vec![message(table.family, question)]).await.into_iter().next() {
            Some(Ok(Some(answer))) => Ok(has_dormant_flag(&answer)),
            Some(Err(reason)) if !reason.is_not_found() => Err(reason.of(format!("look for table {table}"))),
            _ => Ok(false),
        }
    }
}

fn has_dormant_flag(table: &Object) -> bool {
    let flags = Attributes(table.netfilter_body()).number(NFTA_TABLE_FLAGS).unwrap_or(0);
    flags & NFT_TABLE_F_DORMANT != 0
}

/// Asks for the element under this key.
fn question_about(table: &Table, element: &Element) -> NetfilterMessage {
    let key = Element { data: None, verdict: None, comment: None, ..element.clone() };
    message(table.family, NfTablesMessage::GetSetElement(message_about(table, &element.set, &[key])))
}

fn read_elements(
    table: &Table,
    wanted: &[Element],
    answers: Verdicts,
) -> Result<Vec<Option<Element>>, KernelError> {
    let mut found = Vec::new();
    for (answer, element) in answers.into_iter().zip(wanted) {
        found.push(match answer {
            Ok(answer) => answer
                .and_then(|answer| Element::read_all(Attributes(answer.netfilter_body())).into_iter().next()),
            Err(reason) if reason.is_not_found() => None,
            Err(reason) => return Err(reason.of(format!("get element {table} {}", element.set))),
        });
    }
    Ok(found)
}

pub(super) fn generation_of(answer: &Object) -> Result<u32, Reason> {
    let id = Attributes(answer.netfilter_body()).number(NFTA_GEN_ID);
    id.ok_or_else(|| Reason::ours(Errno::BADMSG, "the kernel's answer has no number in it"))
}
