//! A packet led through the table as it is in the kernel, rule by rule: for whoever asks what becomes of a connection,
//! and whether that is what the policies say. Nothing of a plan is believed here.

mod packet;
mod registers;

use std::collections::BTreeMap;

use crate::datapath::nftables::NftError;
use crate::datapath::policy::layout::table;
use crate::datapath::policy::mirror::read_blocks;
use crate::datapath::policy::skeleton::{POLICY_IN, POLICY_NODE, POLICY_OUT};
use crate::desired::nftables::expr::{ESTABLISHED, NEW};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::element::{Bytes, Element};
use crate::linux::nft::expr::{Comparison, Expr, Reg, Verdict};
use crate::linux::nft::rule::{PlacedRule, Rule};
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::Table;
use crate::policy::plan::Direction;
pub use packet::Packet;
use registers::Registers;

/// `RTN_UNICAST` and `RTN_LOCAL` (include/uapi/linux/rtnetlink.h).
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;

/// More rules than any packet meets: there are no loops, and no chain of ours is that long.
const RULES_MAX: usize = 100_000;

/// What becomes of a packet in the chains of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    /// The chains that it comes through, in order, as far as they have rules.
    pub chains: Vec<String>,
    /// How that ends.
    pub end: End,
}

/// How a packet's way ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum End {
    /// No rule decides about it.
    #[default]
    Passed,
    /// A rule accepts it; its comment.
    Accepted(String),
    /// A rule drops it.
    Dropped,
    /// By a rule that this program does not understand, which somebody else must have made.
    Unclear(String),
}

impl Traced {
    /// Whether the packet passes; `None`: not known.
    pub fn allowed(&self) -> Option<bool> {
        match self.end {
            End::Passed | End::Accepted(_) => Some(true),
            End::Dropped => Some(false),
            End::Unclear(_) => None,
        }
    }
}

/// The table, read for tracing.
pub struct Tracer<'a> {
    nft: &'a Nfnetlink,
    table: Table,
    rules: BTreeMap<String, Vec<PlacedRule>>,
    /// Base chains, and whether what no rule decides about passes.
    accepting: BTreeMap<String, bool>,
    sets: Vec<Set>,
    exists: bool,
}

impl<'a> Tracer<'a> {
    /// Reads rules and kinds of sets, but no elements.
    ///
    /// # Errors
    /// What the kernel refused. That there is no table is none.
    pub async fn read(nft: &'a Nfnetlink) -> Result<Self, NftError> {
        Ok(Self::of(nft, table()).await?)
    }

    /// The same of a table of somebody else.
    ///
    /// # Errors
    /// What the kernel refused. That there is no table is none.
    pub async fn of(nft: &'a Nfnetlink, table: Table) -> Result<Self, KernelError> {
        let mut tracer = Self {
            nft,
            rules: BTreeMap::new(),
            accepting: BTreeMap::new(),
            sets: Vec::new(),
            exists: nft.has_table(&table).await?,
            table,
        };
        if tracer.exists {
            for placed in nft.placed_rules(&tracer.table).await? {
                tracer.rules.entry(placed.rule.chain.clone()).or_default().push(placed);
            }
            let chains = nft.all_chains(&tracer.table).await?.into_iter();
            let based = chains.filter_map(|it| Some((it.chain.name, it.chain.base?.accept)));
            tracer.accepting = based.collect();
            tracer.sets = nft.all_sets(&tracer.table).await?.0;
        }
        Ok(tracer)
    }

    /// Whether there is a table.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// The rules of a chain, in their order.
    pub fn rules(&self, chain: &str) -> &[PlacedRule] {
        self.rules.get(chain).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where a chain sends all packets on to, in order: those that come back from one go to the next.
    pub fn leads_to(&self, chain: &str) -> Vec<&str> {
        let on = self.rules(chain).iter().filter_map(|placed| match placed.rule.exprs.as_slice() {
            [Expr::Verdict(Verdict::Goto(to) | Verdict::Jump(to))] => Some(to.as_str()),
            _ => None,
        });
        on.collect()
    }

    /// The way of a packet through the chains of one direction.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn trace(&self, direction: Direction, packet: &Packet) -> Result<Traced, NftError> {
        let base = match (direction, packet.to_node) {
            (Direction::Egress, true) => POLICY_NODE,
            (Direction::Egress, false) => POLICY_OUT,
            // What goes to the node is no pod's ingress.
            (Direction::Ingress, true) => return Ok(Traced::default()),
            (Direction::Ingress, false) => POLICY_IN,
        };
        let mut traced = Traced::default();
        // Without the chain no packet is looked at.
        let Some(accepts) = self.accepting.get(base) else { return Ok(traced) };
        let mut stack: Vec<(&str, usize)> = vec![(base, 0)];
        traced.chains.push(base.to_owned());
        for _ in 0..RULES_MAX {
            let Some((chain, next)) = stack.last_mut() else { break };
            let Some(placed) = self.rules(chain).get(*next) else {
                stack.pop();
                continue;
            };
            *next += 1;
            let verdict = match self.meets(&placed.rule, packet).await? {
                Step::On => continue,
                Step::Unclear(what) => {
                    traced.end = End::Unclear(format!("{what} in chain {}", placed.rule.chain));
                    return Ok(traced);
                }
                Step::Decided(verdict) => verdict,
            };
            let comment = || placed.rule.comment.clone().unwrap_or_default();
            let to = match verdict {
                Verdict::Accept => {
                    traced.end = End::Accepted(comment());
                    return Ok(traced);
                }
                Verdict::Drop => {
                    traced.end = End::Dropped;
                    return Ok(traced);
                }
                Verdict::Return => {
                    stack.pop();
                    continue;
                }
                Verdict::Jump(to) => to,
                Verdict::Goto(to) => {
                    stack.pop();
                    to
                }
            };
            traced.chains.push(to.clone());
            // One without rules is the same as one that is not there.
            if let Some((name, _)) = self.rules.get_key_value(&to) {
                stack.push((name, 0));
            }
        }
        traced.end = if *accepts { End::Passed } else { End::Dropped };
        Ok(traced)
    }

    /// What a rule does with the packet.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn meets(&self, rule: &Rule, packet: &Packet) -> Result<Step, KernelError> {
        let mut registers = Registers::new();
        for expr in &rule.exprs {
            match expr {
                Expr::Meta { field, to } => match packet.meta(*field) {
                    Some(value) => registers.load(*to, &value),
                    None => return Ok(Step::Unclear("a match of a packet's mark or group".to_owned())),
                },
                Expr::Payload { header, offset, length, to } => {
                    match packet.payload(*header, *offset, *length) {
                        Some(value) => registers.load(*to, &value),
                        None => return Ok(Step::Unclear(format!("a match of bytes {offset} and on"))),
                    }
                }
                Expr::FlowState { to } => {
                    let state = if packet.answers { ESTABLISHED } else { NEW };
                    registers.load(*to, &state.to_ne_bytes());
                }
                // Nobody has rewritten it.
                Expr::FlowStatus { to } => registers.load(*to, &0_u32.to_ne_bytes()),
                Expr::DestinationType { on_input_link: false, to } => {
                    let kind = if packet.to_node { LOCAL } else { UNICAST };
                    registers.load(*to, &kind.to_ne_bytes());
                }
                Expr::Mask { at, mask } => registers.mask(*at, mask),
                Expr::Compare { from, comparison, value } => {
                    let order = registers.get(*from, value.len()).cmp(value.as_slice());
                    let holds = match comparison {
                        Comparison::Equal => order.is_eq(),
                        Comparison::NotEqual => order.is_ne(),
                        Comparison::AtLeast => order.is_ge(),
                        Comparison::AtMost => order.is_le(),
                    };
                    if !holds {
                        return Ok(Step::On);
                    }
                }
                Expr::Lookup { set, key, data: None } => match self.look_up(set, *key, &registers).await? {
                    Found::Unknown => return Ok(Step::Unclear(format!("set {set}"))),
                    Found::Missing => return Ok(Step::On),
                    Found::There(_) => {}
                },
                Expr::LookupVerdict { set, key } => match self.look_up(set, *key, &registers).await? {
                    Found::Unknown => return Ok(Step::Unclear(format!("map {set}"))),
                    Found::There(Some(verdict)) => return Ok(Step::Decided(verdict)),
                    // The kernel goes on with the rule's end.
                    Found::Missing | Found::There(None) => return Ok(Step::On),
                },
                Expr::Verdict(verdict) => return Ok(Step::Decided(verdict.clone())),
                Expr::Counter | Expr::Log(_) => {}
                // At most some packets come past it, and it stands before a log.
                Expr::Limit { .. } => {}
                other => return Ok(Step::Unclear(format!("an expression of others ({other:?})"))),
            }
        }
        Ok(Step::On)
    }

    async fn look_up(&self, name: &str, key: Reg, registers: &Registers) -> Result<Found, KernelError> {
        let Some(set) = self.sets.iter().find(|set| set.name == name) else { return Ok(Found::Unknown) };
        let length = set.key.iter().map(|field| field.padded_length()).sum();
        let key = registers.get(key, length).to_vec();
        if !set.interval {
            let wanted = Element::new(name, Bytes(key));
            let found = self.nft.find_elements(&self.table, &[wanted]).await?.into_iter().flatten().next();
            return Ok(found.map_or(Found::Missing, |element| Found::There(element.verdict)));
        }
        if let [kind] = set.key.as_slice() {
            if !matches!(kind, Type::Ipv4 | Type::Ipv6) {
                return Ok(Found::Unknown);
            }
            let address = Bytes(key).to_address();
            let blocks = read_blocks(self.nft, &self.table, name).await?;
            let is_in = address.is_some_and(|address| blocks.iter().any(|block| block.contains(&address)));
            return Ok(if is_in { Found::There(None) } else { Found::Missing });
        }
        let is_in = |element: &Element| {
            let last = element.key_end.as_ref().unwrap_or(&element.key);
            let ends = element.key.0.chunks(4).zip(last.0.chunks(4));
            key.chunks(4).zip(ends).all(|(field, (first, last))| first <= field && field <= last)
        };
        let found = self.nft.elements(&self.table, name).await?.into_iter().find(is_in);
        Ok(found.map_or(Found::Missing, |element| Found::There(element.verdict)))
    }
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: on with the next rule.
    On,
    /// It decides.
    Decided(Verdict),
    /// This of it is not understood.
    Unclear(String),
}

enum Found {
    Unknown,
    Missing,
    There(Option<Verdict>),
}
