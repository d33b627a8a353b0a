//! All that a table holds, for whoever compares the whole of it: names and kinds of chains and sets, rules with what they
//! have counted, and the keys of sets that may be large.

use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_netfilter::nftables::{
    ChainMessage, GenMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetMessage,
};
use rtnetlink::packet_core::Parseable;

use super::super::attributes::Attributes;
use super::super::error::{KernelError, Reason};
use super::super::message::Object;
use super::super::nfnetlink::{Nfnetlink, Verdicts};
use super::element::{element_keys, message_about};
use super::message;
use super::query::generation_of;
use super::rule::PlacedRule;
use super::set::Set;
use super::table::{Chain, Table};

/// include/uapi/linux/netfilter/nf_tables.h
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_RULE_TABLE: u16 = 1;

/// A chain that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedChain {
    /// What it is.
    pub chain: Chain,
    /// How many rules are in it, and how many rules and elements send packets to it, those that have expired and are not
    /// freed yet among them.
    pub uses: u32,
}

impl Nfnetlink {
    /// All chains of a table that [`Chain`] has words for. The kernel lists those of all tables of its family.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn all_chains(&self, table: &Table) -> Result<Vec<PlacedChain>, KernelError> {
        let question = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let is_of_table = |answer: &Object| {
            Attributes(answer.netfilter_body()).text(NFTA_CHAIN_TABLE).as_ref() == Some(&table.name)
        };
        let operation = format!("list chains of table {table}");
        let answers = self.dump_some(&message(table.family, question), operation, &is_of_table).await?;
        Ok(answers.iter().filter_map(read_chain).collect())
    }

    /// Those of the chains that are there; of the others `None`. Asked in one datagram.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn find_chains(
        &self,
        table: &Table,
        names: &[String],
    ) -> Result<Vec<Option<PlacedChain>>, KernelError> {
        let questions = names.iter().map(|name| question_about(table, name)).collect();
        read_chains(table, names, self.ask(questions).await)
    }

    /// The same, and the generation in which they were looked for: what is decided on them can be committed in it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn find_chains_now(
        &self,
        table: &Table,
        names: &[String],
    ) -> Result<(u32, Vec<Option<PlacedChain>>), KernelError> {
        // First of all: a change that comes after it is noticed.
        let generation = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let mut questions = vec![message(table.family, generation)];
        questions.extend(names.iter().map(|name| question_about(table, name)));
        let mut answers = self.ask(questions).await;
        let chains = if answers.is_empty() { Vec::new() } else { answers.split_off(1) };
        let generation = match answers.pop() {
            Some(Ok(Some(answer))) => generation_of(&answer),
            Some(Err(reason)) => Err(reason),
            _ => Err(Reason::lost()),
        };
        let generation = generation.map_err(|reason| reason.of("ask for the generation of nf_tables"))?;
        Ok((generation, read_chains(table, names, chains)?))
    }

    /// All sets and maps of a table that [`Set`] has words for, and the names of the others.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn all_sets(&self, table: &Table) -> Result<(Vec<Set>, Vec<String>), KernelError> {
        let question = SetMessage { attributes: vec![SetAttribute::Table(table.name.clone())] };
        let question = message(table.family, NfTablesMessage::GetSet(question));
        let operation = format!("list sets of table {table}");
        let (mut sets, mut others) = (Vec::new(), Vec::new());
        for answer in self.dump_or_nothing(&question, operation).await? {
            match Set::read(Attributes(answer.netfilter_body())) {
                Ok(set) => sets.push(set),
                Err(name) => others.push(name),
            }
        }
        Ok((sets, others))
    }

    /// All rules of a table, those of a chain in their order.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn placed_rules(&self, table: &Table) -> Result<Vec<PlacedRule>, KernelError> {
        self.list_rules(table, Vec::new()).await
    }

    /// Those of one chain; nothing where there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn placed_rules_of(&self, table: &Table, chain: &str) -> Result<Vec<PlacedRule>, KernelError> {
        let mut rules = self.list_rules(table, vec![RuleAttribute::Chain(chain.to_owned())]).await?;
        // Whether the kernel has looked at the chain or not.
        rules.retain(|placed| placed.rule.chain == chain);
        Ok(rules)
    }

    async fn list_rules(
        &self,
        table: &Table,
        more: Vec<RuleAttribute>,
    ) -> Result<Vec<PlacedRule>, KernelError> {
        let mut attributes = vec![RuleAttribute::Table(table.name.clone())];
        attributes.extend(more);
        let question = RuleMessage { attributes };
        let question = message(table.family, NfTablesMessage::GetRule(question));
        let answers = self.dump_or_nothing(&question, format!("list rules of table {table}")).await?;
        // Older kernels list the rules of all tables of the family.
        let of_table = answers.iter().map(|answer| Attributes(answer.netfilter_body()));
        let of_table = of_table.filter(|it| it.text(NFTA_RULE_TABLE).as_ref() == Some(&table.name));
        Ok(of_table.filter_map(PlacedRule::read).collect())
    }

    /// What `read` makes of the keys of a set that has nothing but keys, given whether a key is
    /// [behind a range](super::element::Element::ends_range). A set may have a hundred thousand of them, so none becomes an
    /// [`Element`](super::element::Element).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn keys<T>(
        &self,
        table: &Table,
        set: &str,
        read: impl Fn(&[u8], bool) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let question = NfTablesMessage::GetSetElement(message_about(table, set, &[]));
        let operation = format!("list elements of set {table} {set}");
        let mut keys = Vec::new();
        for answer in self.dump_or_nothing(&message(table.family, question), operation).await? {
            let found = element_keys(Attributes(answer.netfilter_body()));
            keys.extend(found.filter_map(|(key, ends_range)| read(key, ends_range)));
        }
        Ok(keys)
    }

    /// A list; nothing where there is no such table or set.
    async fn dump_or_nothing(
        &self,
        question: &NetfilterMessage,
        operation: String,
    ) -> Result<Vec<Object>, KernelError> {
        match self.dump(question, operation).await {
            Err(refusal) if refusal.is_not_found() => Ok(Vec::new()),
            answers => answers,
        }
    }
}

fn question_about(table: &Table, chain: &str) -> NetfilterMessage {
    message(table.family, NfTablesMessage::GetChain(Chain::to_question(table, chain)))
}

fn read_chains(
    table: &Table,
    names: &[String],
    answers: Verdicts,
) -> Result<Vec<Option<PlacedChain>>, KernelError> {
    let mut chains = Vec::new();
    for (answer, name) in answers.into_iter().zip(names) {
        chains.push(match answer {
            Ok(answer) => answer.as_ref().and_then(read_chain),
            Err(reason) if reason.is_not_found() => None,
            Err(reason) => return Err(reason.of(format!("look for chain {table} {name}"))),
        });
    }
    Ok(chains)
}

fn read_chain(answer: &Object) -> Option<PlacedChain> {
    let chain = Chain::read(&ChainMessage::parse(answer.netfilter_body()).ok()?)?;
    let uses = Attributes(answer.netfilter_body()).number(NFTA_CHAIN_USE)?;
    Some(PlacedChain { chain, uses })
}
