//! Chains of the forward hook that end in a drop, and what they do with the pods' packets.

use std::collections::HashMap;
use std::fmt;

use crate::foreign_firewall::traffic::Traffic;
use crate::foreign_firewall::walk::{Ends, Rules, walk};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::element::Member;
use crate::linux::nft::expr::{Expr, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::{ChainKind, Family, Hook, Table};

/// How many chains are followed from one. STATUS is asked every five seconds.
const CHAINS: usize = 128;

/// Where iptables has its chain for what is forwarded.
const IPTABLES_TABLE: &str = "filter";
pub(super) const FORWARD: &str = "FORWARD";

/// The chain that docker goes through first and leaves to the administrator.
pub(super) const DOCKER_USER: &str = "DOCKER-USER";

/// A chain that drops what none of its rules lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The table that it is in.
    pub table: Table,
    /// Its name.
    pub chain: String,
    /// Whether it is one of iptables before nf_tables, which only the program `iptables-legacy` can change.
    pub legacy: bool,
    /// Whether it is its policy that drops, and not its last rule.
    pub policy_drops: bool,
    /// The rules of the chain and of those that it leads to.
    pub(super) chains: HashMap<String, Vec<Rule>>,
    /// The sets that these rules ask.
    pub(super) sets: HashMap<String, Vec<Member>>,
}

/// What a chain does with packets between a network's pods and those of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It lets them pass.
    Passes,
    /// No rule lets the first packet of a connection pass, in one direction at least.
    Drops,
    /// That depends on what is not known here, or on what ferrule has no word for.
    Unclear,
}

/// Reads the chains of all tables that end in a drop.
///
/// # Errors
/// The kernel's refusal.
pub async fn find(nft: &Nfnetlink) -> Result<Vec<Filter>, KernelError> {
    let mut filters = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6, Family::Inet] {
        for (table, chain) in nft.base_chains(family).await? {
            let Some(base) = chain.base else { continue };
            if base.hook != Hook::Forward || base.kind != ChainKind::Filter {
                continue;
            }
            let rules = read_chain(nft, &table, &chain.name).await?;
            if !base.accept || rules.last().is_some_and(always_drops) {
                filters.push(read(nft, table, chain.name, !base.accept, rules).await?);
            }
        }
    }
    Ok(filters)
}

/// Reads the chains that do not certainly let `traffic` pass, and what they do with it.
///
/// # Errors
/// The kernel's refusal.
pub async fn obstacles(nft: &Nfnetlink, traffic: &Traffic) -> Result<Vec<(Filter, Judgement)>, KernelError> {
    Ok(among(find(nft).await?, traffic))
}

/// Those of `filters` that do not certainly let `traffic` pass, and what they do with it.
pub fn among(filters: Vec<Filter>, traffic: &Traffic) -> Vec<(Filter, Judgement)> {
    let judged = filters.into_iter().filter_map(|filter| {
        let judgement = filter.judge(traffic)?;
        Some((filter, judgement))
    });
    judged.filter(|(_, judgement)| *judgement != Judgement::Passes).collect()
}

/// Reads what a chain leads to.
async fn read(
    nft: &Nfnetlink,
    table: Table,
    chain: String,
    policy_drops: bool,
    rules: Vec<Rule>,
) -> Result<Filter, KernelError> {
    let mut filter = Filter {
        table,
        chain: chain.clone(),
        legacy: false,
        policy_drops,
        chains: HashMap::from([(chain.clone(), rules)]),
        sets: HashMap::new(),
    };
    let mut pending = vec![chain];
    while let Some(name) = pending.pop() {
        let rules = filter.chains.get(&name).cloned().unwrap_or_default();
        for expr in rules.iter().flat_map(|rule| &rule.exprs) {
            let mut next = Vec::new();
            match expr {
                Expr::Verdict(verdict) => next.extend(leads_to(verdict)),
                Expr::Lookup { set, .. } | Expr::VerdictMap { map: set, .. } if is_anonymous(set) => {
                    let members = nft.members(&filter.table, set).await?;
                    next.extend(members.iter().filter_map(|it| it.verdict.as_ref()).filter_map(leads_to));
                    filter.sets.insert(set.clone(), members);
                }
                _ => {}
            }
            for chain in next {
                if !filter.chains.contains_key(&chain) && filter.chains.len() < CHAINS {
                    let rules = read_chain(nft, &filter.table, &chain).await?;
                    filter.chains.insert(chain.clone(), rules);
                    pending.push(chain);
                }
            }
        }
    }
    Ok(filter)
}

async fn read_chain(nft: &Nfnetlink, table: &Table, chain: &str) -> Result<Vec<Rule>, KernelError> {
    Ok(nft.chain_rules(table, chain).await?.into_iter().map(|placed| placed.rule).collect())
}

fn leads_to(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain.clone()),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}

/// Sets that are written out in their rule are small. One with a name may have anybody's hundred thousand addresses.
fn is_anonymous(set: &str) -> bool {
    set.starts_with("__set") || set.starts_with("__map")
}

/// Whether a rule drops every packet.
fn always_drops(rule: &Rule) -> bool {
    let [steps @ .., last] = rule.exprs.as_slice() else { return false };
    let is_step = |expr: &Expr| match expr {
        Expr::Counter => true,
        Expr::Extension(extension) => extension.to_comment().is_some(),
        Expr::Foreign(name) => name == "log",
        _ => false,
    };
    let drops = match last {
        Expr::Verdict(verdict) => *verdict == Verdict::Drop,
        Expr::Extension(extension) => extension.is_target && extension.name == "REJECT",
        Expr::Foreign(name) => name == "reject",
        _ => false,
    };
    drops && steps.iter().all(is_step)
}

impl Filter {
    /// The chain from which `rules` come, by the chains' names.
    pub(super) fn of_iptables(
        ipv4: bool,
        policy_drops: bool,
        chains: HashMap<String, Vec<Rule>>,
    ) -> Option<Self> {
        if !policy_drops && !chains.get(FORWARD)?.last().is_some_and(always_drops) {
            return None;
        }
        let family = if ipv4 { Family::Ipv4 } else { Family::Ipv6 };
        Some(Self {
            table: Table { family, name: IPTABLES_TABLE.to_owned() },
            chain: FORWARD.to_owned(),
            legacy: true,
            policy_drops,
            chains,
            sets: HashMap::new(),
        })
    }

    /// The chain `chain` of these.
    #[cfg(feature = "fuzzing")]
    pub fn for_fuzzing(
        table: Table,
        chain: String,
        chains: HashMap<String, Vec<Rule>>,
        sets: HashMap<String, Vec<Member>>,
    ) -> Self {
        Self { table, chain, legacy: false, policy_drops: true, chains, sets }
    }

    /// What it does with the pods' packets; `None` if none of them come through here.
    pub fn judge(&self, traffic: &Traffic) -> Option<Judgement> {
        let families = match self.table.family {
            Family::Ipv4 => [true].as_slice(),
            Family::Ipv6 => &[false],
            Family::Inet => &[true, false],
        };
        let rules = Rules { chains: &self.chains, sets: &self.sets };
        let mut ends = families.iter().flat_map(|&ipv4| traffic.packets(ipv4)).map(|packet| {
            let ends = walk(rules, &self.chain, &packet);
            // What no rule decides about, the policy does.
            match ends {
                Ends { accept, drop, on: true, .. } => {
                    (accept || !self.policy_drops, drop || self.policy_drops)
                }
                Ends { accept, drop, .. } => (accept, drop),
            }
        });
        let first = ends.next()?;
        let all: Vec<(bool, bool)> = std::iter::once(first).chain(ends).collect();
        Some(if all.contains(&(false, true)) {
            Judgement::Drops
        } else if all.iter().all(|it| *it == (true, false)) {
            Judgement::Passes
        } else {
            Judgement::Unclear
        })
    }

    /// Whether it is the chain FORWARD of iptables, in which every program puts its rules beside those of others.
    pub fn is_of_iptables(&self) -> bool {
        self.table.family != Family::Inet && self.table.name == IPTABLES_TABLE && self.chain == FORWARD
    }

    /// Whether packets of IPv4 come through here.
    pub fn sees(&self, ipv4: bool) -> bool {
        match self.table.family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => !ipv4,
            Family::Inet => true,
        }
    }

    /// The chain that rules for pods belong in: docker's for administrators where all packets go through that, else
    /// this one.
    pub fn entry(&self) -> &str {
        let goes_to_docker_user = |rule: &Rule| {
            let [steps @ .., Expr::Verdict(Verdict::Jump(chain))] = rule.exprs.as_slice() else {
                return false;
            };
            chain == DOCKER_USER && steps.iter().all(|expr| matches!(expr, Expr::Counter))
        };
        let mut rules = self.chains.get(&self.chain).into_iter().flatten();
        if rules.any(goes_to_docker_user) { DOCKER_USER } else { &self.chain }
    }

    /// How an administrator lets the pods pass, in commands.
    pub fn remedy(&self, traffic: &Traffic) -> String {
        let own = [true, false].into_iter().filter(|&ipv4| self.sees(ipv4));
        let own: Vec<_> = own.flat_map(|ipv4| traffic.own_of(ipv4)).collect();
        if self.is_of_iptables() {
            let program = match (self.table.family, self.legacy) {
                (Family::Ipv6, false) => "ip6tables",
                (Family::Ipv6, true) => "ip6tables-legacy",
                (_, false) => "iptables",
                (_, true) => "iptables-legacy",
            };
            let rule = |it: &ipnetwork::IpNetwork| {
                let chain = self.entry();
                format!("{program} -I {chain} -s {it} -j ACCEPT; {program} -I {chain} -d {it} -j ACCEPT")
            };
            let rules: Vec<String> = own.iter().map(rule).collect();
            return format!(
                "set \"forwardAccept\": true in the conf and run: ferrule sync; or by hand: {}",
                rules.join("; ")
            );
        }
        if self.table.name == "firewalld" {
            let all = own.iter().chain(traffic.others.iter().filter(|it| self.sees(it.is_ipv4())));
            let sources: Vec<String> = all.map(|it| format!("--add-source={it}")).collect();
            return format!(
                "firewall-cmd --permanent --zone=trusted {}; firewall-cmd --reload",
                sources.join(" ")
            );
        }
        let rule = |it: &ipnetwork::IpNetwork| {
            let protocol = if it.is_ipv4() { "ip" } else { "ip6" };
            let insert = format!("nft insert rule {} {} {protocol}", self.table, self.chain);
            format!("{insert} saddr {it} accept; {insert} daddr {it} accept")
        };
        let rules: Vec<String> = own.iter().map(rule).collect();
        format!("have whoever made the table let the pods pass, for example: {}", rules.join("; "))
    }
}

/// Reads as "chain ip filter FORWARD (policy drop)".
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legacy = if self.legacy { "legacy " } else { "" };
        let how = if self.policy_drops { "policy drop" } else { "a drop at its end" };
        write!(f, "{legacy}chain {} {} ({how})", self.table, self.chain)
    }
}
