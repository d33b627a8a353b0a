//! What a chain may do with a packet of which only part is given.
//!
//! Every rule is gone through as the kernel does, but where what is not given decides, both ways are. What no word is
//! known for may do anything: nothing is claimed that is not certain.

use std::collections::HashMap;
use std::ops::{BitOr, BitOrAssign};

use crate::foreign_firewall::bits::Bits;
use crate::foreign_firewall::traffic::{Packet, STATE_NEW};
use crate::linux::nft::element::Member;
use crate::linux::nft::expr::{Comparison, Expr, Extension, Header, MetaField, Reg, Verdict};
use crate::linux::nft::rule::Rule;

/// How many rules are gone through at most. Chains that call each other take more than they have.
const STEPS: usize = 20_000;

/// As many chains may be in each other (`NFT_JUMP_STACK_SIZE`, include/net/netfilter/nf_tables.h).
const DEPTH: usize = 16;

/// Bytes of all registers.
const REGISTERS: usize = 64;

/// Expressions that let every packet go on as it is.
const WITHOUT_EFFECT: [&str; 3] = ["log", "last", "notrack"];

/// Expressions that load what is not given, or end the rule by it.
const CONDITIONS: [&str; 24] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "ct",
    "dynset",
    "exthdr",
    "fib",
    "flow_offload",
    "hash",
    "immediate",
    "limit",
    "lookup",
    "meta",
    "numgen",
    "objref",
    "osf",
    "payload",
    "quota",
    "range",
    "rt",
    "socket",
    "tunnel",
    "xfrm",
];

/// Targets of iptables that let every packet go on, and do not change what a later rule here looks at.
const TARGETS_WITHOUT_EFFECT: [&str; 8] =
    ["AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "LOG", "NFLOG", "TCPMSS", "TRACE"];

/// Where a packet may be after some rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// It was let pass.
    pub accept: bool,
    /// It is gone.
    pub drop: bool,
    /// At the next rule.
    pub on: bool,
    /// Back in the chain that sent it here.
    pub back: bool,
}

impl Ends {
    const ACCEPT: Self = Self { accept: true, drop: false, on: false, back: false };
    const DROP: Self = Self { accept: false, drop: true, on: false, back: false };
    const ON: Self = Self { accept: false, drop: false, on: true, back: false };
    const BACK: Self = Self { accept: false, drop: false, on: false, back: true };
    const ANY: Self = Self { accept: true, drop: true, on: true, back: true };
}

impl BitOr for Ends {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            accept: self.accept || other.accept,
            drop: self.drop || other.drop,
            on: self.on || other.on,
            back: self.back || other.back,
        }
    }
}

impl BitOrAssign for Ends {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// The rules that a packet may meet: those of each chain, and the sets that they ask.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// By the chain's name. A jump to one that is not here may do anything.
    pub chains: &'a HashMap<String, Vec<Rule>>,
    /// By the set's name. One that is not here may have anything.
    pub sets: &'a HashMap<String, Vec<Member>>,
}

/// Sends a packet through a chain. Where it ends is told as of the chain's caller: what is at the end of the chain is
/// on.
pub fn walk(rules: Rules<'_>, chain: &str, packet: &Packet) -> Ends {
    Walk { rules, packet: packet.clone(), steps: 0 }.chain(chain, 0)
}

struct Walk<'a> {
    rules: Rules<'a>,
    packet: Packet,
    steps: usize,
}

/// What a rule has loaded.
struct Registers(Bits);

impl Registers {
    fn unknown() -> Self {
        Self(Bits::unknown(REGISTERS))
    }

    /// Loads a value; the rest of its last register becomes 0.
    fn load(&mut self, register: Reg, value: &Bits) -> Step {
        let at = usize::from(register.0) * 4;
        let filler = Bits::exactly(&vec![0; value.len().next_multiple_of(4)]);
        let taken = std::mem::replace(&mut self.0, Bits::unknown(0));
        self.0 = taken.with(at, &filler).with(at, value);
        Step::Goes
    }

    fn part(&self, register: Reg, length: usize) -> Bits {
        self.0.part(usize::from(register.0) * 4, length)
    }
}

/// What an expression does.
enum Step {
    /// The rule goes on.
    Goes,
    /// The rule goes on, or does not.
    May,
    /// The rule is over.
    Fails,
    /// The rule is over, and this may follow.
    Ends(Ends),
}

impl From<Option<bool>> for Step {
    fn from(holds: Option<bool>) -> Self {
        match holds {
            Some(true) => Self::Goes,
            Some(false) => Self::Fails,
            None => Self::May,
        }
    }
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> Ends {
        let Some(rules) = self.rules.chains.get(name).filter(|_| depth < DEPTH) else {
            return Ends { back: false, ..Ends::ANY };
        };
        let mut ends = Ends::default();
        for rule in rules {
            self.steps += 1;
            if self.steps > STEPS {
                return Ends { back: false, ..Ends::ANY };
            }
            let of_rule = self.rule(rule, depth);
            ends |= Ends { on: false, ..of_rule };
            if !of_rule.on {
                return Ends { on: ends.back, back: false, ..ends };
            }
        }
        Ends { on: true, back: false, ..ends }
    }

    fn rule(&mut self, rule: &Rule, depth: usize) -> Ends {
        let mut registers = Registers::unknown();
        let mut ends = Ends::default();
        for expr in &rule.exprs {
            match self.step(expr, &mut registers, depth) {
                Step::Goes => {}
                Step::May => ends |= Ends::ON,
                Step::Fails => return ends | Ends::ON,
                Step::Ends(its) => return ends | its,
            }
        }
        ends | Ends::ON
    }

    fn step(&mut self, expr: &Expr, registers: &mut Registers, depth: usize) -> Step {
        match expr {
            Expr::Meta { field, to } => registers.load(*to, &self.meta(*field)),
            Expr::Payload { header: Header::Network, offset, length, to } => {
                registers.load(*to, &self.packet.header.part(*offset as usize, at_most_all(*length)))
            }
            Expr::Payload { length, to, .. } => registers.load(*to, &Bits::unknown(at_most_all(*length))),
            Expr::FlowState { to } => registers.load(*to, &self.packet.state()),
            Expr::FlowStatus { to } => registers.load(*to, &self.packet.status()),
            Expr::DestinationType { to } => registers.load(*to, &Bits::unknown(4)),
            Expr::Compare { from, comparison, value } => {
                registers.part(*from, value.len()).stands(*comparison, value).into()
            }
            Expr::Mask { at: register, mask } => {
                let value = registers.part(*register, mask.len()).masked(mask);
                registers.load(*register, &value)
            }
            Expr::ToNetworkOrder { at: register } => registers.load(*register, &Bits::unknown(4)),
            Expr::Lookup { set, key, data } => {
                let key = registers.part(*key, REGISTERS);
                if let Some(data) = data {
                    registers.load(*data, &Bits::unknown(16));
                }
                self.rules.sets.get(set).and_then(|members| is_in(members, &key)).into()
            }
            Expr::VerdictMap { map, key } => self.decide_by_map(map, &registers.part(*key, REGISTERS), depth),
            Expr::Verdict(verdict) => Step::Ends(self.decide(verdict, depth)),
            Expr::Counter => Step::Goes,
            Expr::Extension(extension) if extension.is_target => self.target(extension),
            Expr::Extension(extension) => self.matches(extension),
            Expr::Dnat { .. } | Expr::Masquerade { .. } => Step::Ends(Ends::ANY),
            Expr::Foreign(name) => {
                let name = name.as_str();
                match name {
                    // Both may write as well.
                    "meta" => self.packet.mark = Bits::unknown(4),
                    "payload" => self.packet.header = Bits::unknown(self.packet.header.len()),
                    _ => {}
                }
                match name {
                    "reject" => Step::Ends(Ends::DROP),
                    name if WITHOUT_EFFECT.contains(&name) => Step::Goes,
                    name if CONDITIONS.contains(&name) => {
                        *registers = Registers::unknown();
                        Step::May
                    }
                    _ => Step::Ends(Ends::ANY),
                }
            }
        }
    }

    fn meta(&self, field: MetaField) -> Bits {
        match field {
            MetaField::Family => self.packet.family(),
            MetaField::Protocol => self.packet.protocol(),
            MetaField::InputName => self.packet.in_link.clone(),
            MetaField::OutputName => self.packet.out_link.clone(),
            MetaField::InputGroup => Bits::unknown(4),
            MetaField::Mark => self.packet.mark.clone(),
        }
    }

    fn decide(&mut self, verdict: &Verdict, depth: usize) -> Ends {
        match verdict {
            Verdict::Accept => Ends::ACCEPT,
            Verdict::Drop => Ends::DROP,
            Verdict::Return => Ends::BACK,
            Verdict::Jump(chain) => self.chain(chain, depth + 1),
            Verdict::Goto(chain) => {
                let ends = self.chain(chain, depth + 1);
                Ends { on: false, back: ends.on, ..ends }
            }
        }
    }

    fn decide_by_map(&mut self, map: &str, key: &Bits, depth: usize) -> Step {
        let Some(members) = self.rules.sets.get(map) else { return Step::Ends(Ends::ANY) };
        if is_in(members, key) == Some(false) {
            return Step::Fails;
        }
        let mut ends = Ends::ON;
        for member in members.iter().filter(|member| !member.ends_range) {
            ends |= member.verdict.as_ref().map_or(Ends::ANY, |verdict| self.decide(verdict, depth));
        }
        Step::Ends(ends)
    }

    fn target(&mut self, target: &Extension) -> Step {
        match target.name.as_str() {
            "REJECT" | "DROP" => Step::Ends(Ends::DROP),
            "MARK" => {
                self.packet.mark = Bits::unknown(4);
                Step::Goes
            }
            name if TARGETS_WITHOUT_EFFECT.contains(&name) => Step::Goes,
            _ => Step::Ends(Ends::ANY),
        }
    }

    /// Matches of iptables. One that is not known here may hold or not.
    fn matches(&self, extension: &Extension) -> Step {
        match (extension.name.as_str(), extension.revision) {
            ("comment", _) => Step::Goes,
            ("conntrack", 2 | 3) => conntrack(&extension.info).into(),
            ("state", 0) => number(&extension.info, 0).map(|states| states & STATE_NEW != 0).into(),
            ("mark", 1) => self.mark(&extension.info).into(),
            _ => Step::May,
        }
    }

    /// `struct xt_mark_mtinfo1` (include/uapi/linux/netfilter/xt_mark.h).
    fn mark(&self, info: &[u8]) -> Option<bool> {
        let (mark, mask) = (info.get(0..4)?, info.get(4..8)?);
        let inverted = *info.get(8)? != 0;
        let equal = self.packet.mark.clone().masked(mask).stands(Comparison::Equal, mark)?;
        Some(equal != inverted)
    }
}

/// `struct xt_conntrack_mtinfo2` and `3` (include/uapi/linux/netfilter/xt_conntrack.h), as far as they ask for the
/// state and nothing else.
fn conntrack(info: &[u8]) -> Option<bool> {
    const MATCH_FLAGS: usize = 146;
    const INVERT_FLAGS: usize = 148;
    const STATE_MASK: usize = 150;
    const XT_CONNTRACK_STATE: u16 = 1;
    let short = |at: usize| info.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes));
    let (flags, inverted) = (short(MATCH_FLAGS)?, short(INVERT_FLAGS)? & XT_CONNTRACK_STATE != 0);
    if flags & XT_CONNTRACK_STATE == 0 {
        return None;
    }
    let is_new = (u32::from(short(STATE_MASK)?) & STATE_NEW != 0) != inverted;
    // All must hold: of what else it asks, nothing is known.
    if is_new && flags != XT_CONNTRACK_STATE { None } else { Some(is_new) }
}

/// The kernel loads no more than its registers hold; the number may say anything.
fn at_most_all(length: u32) -> usize {
    (length as usize).min(REGISTERS)
}

fn number(info: &[u8], at: usize) -> Option<u32> {
    info.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Whether a set has the key; `None` where that is not certain.
fn is_in(members: &[Member], key: &Bits) -> Option<bool> {
    let has_ranges = members.iter().any(|member| member.ends_range);
    let mut edges = Vec::new();
    for member in members {
        let value = member.key.as_deref().filter(|_| !member.has_key_end)?;
        // The range of everything has no end.
        if value.iter().all(|&byte| byte == 0) && !has_ranges {
            return None;
        }
        edges.push((value, member.ends_range));
    }
    edges.sort_unstable();
    let mut is_certain = true;
    for (at, (start, _)) in edges.iter().enumerate().filter(|(_, (_, ends))| !ends) {
        // A range ends before the next edge, or never.
        let end = edges.get(at + 1).filter(|_| has_ranges).map(|(end, _)| *end);
        let holds = if has_ranges {
            let below = end.map_or(Some(false), |end| key.stands(Comparison::AtLeast, end));
            match (key.stands(Comparison::AtLeast, start), below) {
                (Some(true), Some(false)) => Some(true),
                (Some(false), _) | (_, Some(true)) => Some(false),
                _ => None,
            }
        } else {
            key.stands(Comparison::Equal, start)
        };
        match holds {
            Some(true) => return Some(true),
            Some(false) => {}
            None => is_certain = false,
        }
    }
    is_certain.then_some(false)
}

#[cfg(test)]
mod tests;
