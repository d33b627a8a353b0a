//! What chains of others do with one packet, as far as their rules are understood: the expressions of nf_tables that
//! firewalls use for addresses, ports, links and states of flows. What is not understood may hold or not, and then both
//! ends are possible.

use std::fmt;

use ipnetwork::IpNetwork;

use crate::datapath::policy::{self, Packet, Step, Tracer};
use crate::desired::nftables::table::TABLE;
use crate::foreign_firewall::DropChain;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::expr::{Expr, Extension, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::{ChainKind, Family, Hook, Table};

/// More jumps than anybody's rules have.
const DEPTH_MAX: usize = 32;

/// More rules than anybody wants to wait for.
const RULES_MAX: usize = 20_000;

/// A chain that drops the packet, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// Its table.
    pub table: Table,
    /// The base chain.
    pub chain: String,
    /// Where packets enter it.
    pub hook: Hook,
    /// Where in it: the policy, or a rule of which chain.
    pub place: String,
    /// What is not understood, so that the packet may pass after all.
    pub unless: Option<String>,
}

/// Reads as "chain ip filter FORWARD (policy drop)".
impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} {} ({})", self.table, self.chain, self.place)
    }
}

impl Ruling {
    /// How an administrator lets the pods of `subnets` pass.
    pub fn remedy(&self, subnets: &[IpNetwork]) -> String {
        let chain = DropChain {
            table: self.table.clone(),
            chain: self.chain.clone(),
            hook: self.hook,
            legacy: false,
            policy_drops: false,
            has_docker_user: false,
        };
        chain.remedy(subnets)
    }
}

/// What chains of others at these hooks do with the packet that comes by each. Empty: all of them let it pass.
///
/// # Errors
/// The kernel's refusal.
pub async fn rulings(nft: &Nfnetlink, packets: &[(Hook, Packet)]) -> Result<Vec<Ruling>, KernelError> {
    let Some((_, first)) = packets.first() else { return Ok(Vec::new()) };
    let of_family = if first.source.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let mut found = Vec::new();
    for family in [of_family, Family::Inet] {
        let mut tables: Vec<(Table, Tracer<'_>)> = Vec::new();
        for (table, chain) in nft.base_chains(family).await? {
            let Some(base) = chain.base.filter(|base| base.kind == ChainKind::Filter) else { continue };
            let Some((_, packet)) = packets.iter().find(|(hook, _)| *hook == base.hook) else { continue };
            let is_own = table.family == Family::Inet && table.name == TABLE || table == policy::table();
            if is_own || nft.is_dormant(&table).await? {
                continue;
            }
            if !tables.iter().any(|(known, _)| *known == table) {
                tables.push((table.clone(), Tracer::of(nft, table.clone()).await?));
            }
            let Some((_, tracer)) = tables.iter().find(|(known, _)| *known == table) else { continue };
            let mut walk = Walk { tracer, packet, rules: 0 };
            let ends = walk.chain(&chain.name, 0).await?;
            let policy_drops = ends.passes && !base.accept;
            let drop = ends.drops.or(policy_drops.then(|| "policy drop".to_owned()));
            let accepts = ends.accepts || ends.passes && base.accept;
            if let Some(place) = drop {
                let unless = accepts.then(|| ends.unclear.unwrap_or_else(|| "one of its rules".to_owned()));
                found.push(Ruling { table, chain: chain.name, hook: base.hook, place, unless });
            }
        }
    }
    Ok(found)
}

/// How a packet's way through a chain may end.
#[derive(Debug, Default)]
struct Ends {
    accepts: bool,
    /// By what.
    drops: Option<String>,
    /// It may come to the chain's end.
    passes: bool,
    /// The first that was not understood.
    unclear: Option<String>,
}

/// What a rule decides about a packet that it is about.
enum Outcome {
    Is(Verdict),
    /// One of all, and nobody knows which.
    Any,
}

struct Walk<'a> {
    tracer: &'a Tracer<'a>,
    packet: &'a Packet,
    rules: usize,
}

impl Walk<'_> {
    async fn chain(&mut self, chain: &str, depth: usize) -> Result<Ends, KernelError> {
        let mut ends = Ends { passes: true, ..Ends::default() };
        let tracer = self.tracer;
        // Whether it may have left for where it came from, by a rule that is not understood.
        let mut may_return = false;
        for placed in tracer.rules(chain) {
            self.rules += 1;
            if self.rules > RULES_MAX {
                ends.unclear.get_or_insert_with(|| "more rules than were looked at".to_owned());
                (ends.accepts, ends.passes) = (true, true);
                return Ok(ends);
            }
            let (step, verdict) = self.meets(&placed.rule).await?;
            let is_sure = match step {
                Step::On => continue,
                Step::Decided(_) => true,
                Step::Unclear(what) => {
                    // What has no verdict does not matter.
                    if verdict.is_some() {
                        ends.unclear.get_or_insert(format!("{what} in chain {chain}"));
                    }
                    false
                }
            };
            let Some(verdict) = verdict else { continue };
            let goes_on = match verdict {
                Outcome::Any => {
                    ends.accepts = true;
                    ends.drops.get_or_insert_with(|| place_of(&placed.rule));
                    may_return = true;
                    true
                }
                Outcome::Is(Verdict::Accept) => {
                    ends.accepts = true;
                    false
                }
                Outcome::Is(Verdict::Drop) => {
                    ends.drops.get_or_insert_with(|| place_of(&placed.rule));
                    false
                }
                Outcome::Is(Verdict::Return) => {
                    if is_sure {
                        return Ok(ends);
                    }
                    may_return = true;
                    true
                }
                Outcome::Is(Verdict::Jump(ref to) | Verdict::Goto(ref to)) if depth < DEPTH_MAX => {
                    let inner = Box::pin(self.chain(to, depth + 1)).await?;
                    ends.accepts |= inner.accepts;
                    ends.drops = ends.drops.take().or(inner.drops);
                    ends.unclear = ends.unclear.take().or(inner.unclear);
                    if inner.passes && matches!(verdict, Outcome::Is(Verdict::Goto(_))) {
                        if is_sure {
                            return Ok(ends);
                        }
                        may_return = true;
                    }
                    inner.passes
                }
                Outcome::Is(Verdict::Jump(_) | Verdict::Goto(_)) => true,
            };
            if is_sure && !goes_on {
                ends.passes = may_return;
                return Ok(ends);
            }
        }
        Ok(ends)
    }

    /// Whether the packet meets a rule, and what the rule decides if it does.
    async fn meets(&self, rule: &Rule) -> Result<(Step, Option<Outcome>), KernelError> {
        let mut matches = Vec::new();
        let mut verdict = None;
        let (mut has_map, mut is_limited, mut is_queued) = (false, false, false);
        for expr in &rule.exprs {
            match expr {
                Expr::Verdict(it) => verdict = Some(Outcome::Is(it.clone())),
                Expr::Extension(it) if it.is_target => match it.name.as_str() {
                    "REJECT" | "DROP" | "TARPIT" => verdict = Some(Outcome::Is(Verdict::Drop)),
                    "NFQUEUE" => is_queued = true,
                    _ => {}
                },
                Expr::Extension(it) if it.to_comment().is_some() => {}
                Expr::Extension(it) => match has_state(it, self.packet.answers) {
                    Some(true) => {}
                    Some(false) => return Ok((Step::On, None)),
                    None => matches.push(expr.clone()),
                },
                Expr::Foreign(name) if name == "reject" => verdict = Some(Outcome::Is(Verdict::Drop)),
                // A program decides, and without one the packet is dropped.
                Expr::Foreign(name) if name == "queue" => is_queued = true,
                Expr::Limit { .. } => is_limited = true,
                Expr::Foreign(name) if ["log", "counter", "notrack"].contains(&name.as_str()) => {}
                Expr::LookupVerdict { .. } => {
                    has_map = true;
                    matches.push(expr.clone());
                }
                other => matches.push(other.clone()),
            }
        }
        if !has_map {
            // Stands for "the packet meets it".
            matches.push(Expr::Verdict(Verdict::Accept));
        }
        let step = self.tracer.meets(&Rule { exprs: matches, ..rule.clone() }, self.packet).await?;
        let decided = match (&step, has_map) {
            (Step::Decided(it), true) => Some(Outcome::Is(it.clone())),
            // A map of somebody else may hold any verdict.
            (Step::Unclear(_), true) => Some(Outcome::Any),
            _ if is_queued => Some(Outcome::Any),
            _ => verdict,
        };
        let unclear = |what: &str| Step::Unclear(what.to_owned());
        let step = match step {
            Step::Decided(_) if is_queued => unclear("a program that packets are queued for (queue)"),
            Step::Decided(_) if is_limited => unclear("a limit of packets in a time"),
            step => step,
        };
        Ok((step, decided))
    }
}

fn place_of(rule: &Rule) -> String {
    match rule.comment.as_deref().filter(|it| !it.is_empty()) {
        Some(comment) => format!("a rule of chain {}: {comment}", rule.chain),
        None => format!("a rule of chain {}", rule.chain),
    }
}

/// `-m conntrack --ctstate ...` alone (`struct xt_conntrack_mtinfo2` and 3, include/uapi/linux/netfilter/xt_conntrack.h):
/// whether it holds for the first packet of a flow, or for the first answer. `None`: it is another match.
fn has_state(extension: &Extension, answers: bool) -> Option<bool> {
    const MATCH_FLAGS: usize = 146;
    const INVERT_FLAGS: usize = 148;
    const STATE_MASK: usize = 150;
    const STATE: u16 = 1;
    const NEW: u16 = 1 << 3;
    const ESTABLISHED: u16 = 1 << 1;
    if extension.is_target || extension.name != "conntrack" || extension.revision < 2 {
        return None;
    }
    let word = |at: usize| Some(u16::from_ne_bytes(*extension.info.get(at..)?.first_chunk()?));
    if word(MATCH_FLAGS)? != STATE {
        return None;
    }
    let is_inverted = word(INVERT_FLAGS)? & STATE != 0;
    let state = if answers { ESTABLISHED } else { NEW };
    Some((word(STATE_MASK)? & state != 0) != is_inverted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conntrack(flags: u16, inverted: u16, states: u16) -> Extension {
        let mut info = vec![0; 146];
        info.extend([flags, inverted, states].iter().flat_map(|it| it.to_ne_bytes()));
        info.resize(164, 0);
        Extension { is_target: false, name: "conntrack".into(), revision: 3, info }
    }

    /// `iptables -m conntrack --ctstate NEW`, `INVALID`, `! --ctstate NEW`; and one that looks at more than the state.
    #[test]
    fn a_state_of_flows_is_understood_and_nothing_else_of_conntrack() {
        assert_eq!(has_state(&conntrack(1, 0, 1 << 3), false), Some(true));
        assert_eq!(has_state(&conntrack(1, 0, 1 << 3), true), Some(false));
        assert_eq!(has_state(&conntrack(1, 0, 0b110), true), Some(true));
        assert_eq!(has_state(&conntrack(1, 0, 1), false), Some(false));
        assert_eq!(has_state(&conntrack(1, 1, 1 << 3), false), Some(false));
        assert_eq!(has_state(&conntrack(3, 0, 1 << 3), false), None);
        assert_eq!(has_state(&Extension::comment("conntrack"), false), None);
    }
}
