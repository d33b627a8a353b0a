//! Base chains that end in a drop, on the way of forwarded packets or of the node's own.

use std::fmt;

use ipnetwork::IpNetwork;

use crate::desired::nftables::table::TABLE;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::expr::{Expr, Verdict};
use crate::linux::nft::rule::{PlacedRule, Rule};
use crate::linux::nft::table::{ChainKind, Family, Hook, Table};

/// Where iptables has its chain for forwarded packets.
const IPTABLES_TABLE: &str = "filter";
pub(super) const FORWARD: &str = "FORWARD";

/// docker jumps to this chain first and leaves its content to the administrator.
pub(super) const DOCKER_USER: &str = "DOCKER-USER";

/// The hooks that every forwarded packet passes.
const FORWARDED: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// A base chain that drops what none of its rules accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropChain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub chain: String,
    /// Where packets enter it.
    pub hook: Hook,
    /// Whether it belongs to iptables-legacy, which only the program of that name can change.
    pub legacy: bool,
    /// Whether its policy drops. Otherwise its last rule does.
    pub policy_drops: bool,
    /// Whether it jumps to DOCKER-USER.
    pub has_docker_user: bool,
}

/// Finds the chains of all tables of nf_tables but ferrule's own that forwarded packets pass.
///
/// # Errors
/// The kernel's refusal.
pub async fn find(nft: &Nfnetlink) -> Result<Vec<DropChain>, KernelError> {
    let found = find_at(nft, &FORWARDED).await?;
    Ok(found.into_iter().map(|(chain, _)| chain).collect())
}

/// The same at other hooks, with their rules.
pub(super) async fn find_at(
    nft: &Nfnetlink,
    hooks: &[Hook],
) -> Result<Vec<(DropChain, Vec<PlacedRule>)>, KernelError> {
    let mut found = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6, Family::Inet] {
        for (table, chain) in nft.base_chains(family).await? {
            let Some(base) = chain.base else { continue };
            let is_own = table.family == Family::Inet && table.name == TABLE;
            if !hooks.contains(&base.hook) || base.kind != ChainKind::Filter || is_own {
                continue;
            }
            let placed = nft.chain_rules(&table, &chain.name).await?;
            let rules = || placed.iter().map(|PlacedRule { rule, .. }| rule);
            if base.accept && !rules().next_back().is_some_and(drops_everything) {
                continue;
            }
            let dropping = DropChain {
                table,
                chain: chain.name,
                hook: base.hook,
                legacy: false,
                policy_drops: !base.accept,
                has_docker_user: rules().any(jumps_to_docker_user),
            };
            found.push((dropping, placed));
        }
    }
    Ok(found)
}

/// `-j DROP` or `-j REJECT` without a match; counters, comments and logging do not matter.
fn drops_everything(rule: &Rule) -> bool {
    let [steps @ .., last] = rule.exprs.as_slice() else { return false };
    let matches_nothing = |expr: &Expr| match expr {
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
    drops && steps.iter().all(matches_nothing)
}

/// `-j DOCKER-USER` without a match.
fn jumps_to_docker_user(rule: &Rule) -> bool {
    let [steps @ .., Expr::Verdict(Verdict::Jump(chain))] = rule.exprs.as_slice() else { return false };
    chain == DOCKER_USER && steps.iter().all(|expr| matches!(expr, Expr::Counter))
}

/// What iptables calls its chain of a hook.
pub(super) fn name_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Forward => FORWARD,
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

impl DropChain {
    /// A chain of iptables-legacy's table `filter`.
    pub(super) fn of_iptables(ipv4: bool, hook: Hook, policy_drops: bool, has_docker_user: bool) -> Self {
        let family = if ipv4 { Family::Ipv4 } else { Family::Ipv6 };
        let table = Table { family, name: IPTABLES_TABLE.to_owned() };
        let chain = name_of(hook).to_owned();
        Self { table, chain, hook, legacy: true, policy_drops, has_docker_user }
    }

    /// The program by which its rules are changed, where it is a chain of iptables.
    pub(super) fn program(&self) -> Option<&'static str> {
        let is_of_iptables = self.table.name == IPTABLES_TABLE && self.chain == name_of(self.hook);
        match (self.table.family, self.legacy) {
            _ if !is_of_iptables => None,
            (Family::Inet, _) => None,
            (Family::Ipv6, false) => Some("ip6tables"),
            (Family::Ipv6, true) => Some("ip6tables-legacy"),
            (Family::Ipv4, false) => Some("iptables"),
            (Family::Ipv4, true) => Some("iptables-legacy"),
        }
    }

    /// Whether it is the chain FORWARD of iptables, in which every program puts its rules beside those of others.
    pub fn is_of_iptables(&self) -> bool {
        self.hook == Hook::Forward && self.program().is_some()
    }

    /// Whether packets of IPv4 come through it.
    pub fn sees(&self, ipv4: bool) -> bool {
        match self.table.family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => !ipv4,
            Family::Inet => true,
        }
    }

    /// Those of `subnets` whose packets come through it.
    pub fn concerns(&self, subnets: &[IpNetwork]) -> Vec<IpNetwork> {
        subnets.iter().copied().filter(|subnet| self.sees(subnet.is_ipv4())).collect()
    }

    /// The chain that accept rules belong in: DOCKER-USER where docker is, because docker puts its own rules before all
    /// others of FORWARD when it starts; else the chain itself.
    pub fn entry(&self) -> &str {
        if self.has_docker_user { DOCKER_USER } else { &self.chain }
    }

    /// How an administrator lets the pods of `subnets` pass, in commands.
    pub fn remedy(&self, subnets: &[IpNetwork]) -> String {
        let subnets = self.concerns(subnets);
        if let Some(program) = self.program().filter(|_| self.is_of_iptables()) {
            let chain = self.entry();
            let rule = |it: &IpNetwork| {
                format!("{program} -I {chain} -s {it} -j ACCEPT; {program} -I {chain} -d {it} -j ACCEPT")
            };
            let rules: Vec<String> = subnets.iter().map(rule).collect();
            return format!(
                "with the agent: FERRULE_FORWARD_ACCEPT=auto; without it: set \"forwardAccept\": true in the conf and \
                 run: ferrulectl sync; or by hand: {}",
                rules.join("; ")
            );
        }
        if self.table.name == "firewalld" {
            let sources: Vec<String> = subnets.iter().map(|it| format!("--add-source={it}")).collect();
            return format!(
                "firewall-cmd --permanent --zone=trusted {}; firewall-cmd --reload; the subnets of the other nodes \
                 need the same",
                sources.join(" ")
            );
        }
        let rule = |it: &IpNetwork| {
            let protocol = if it.is_ipv4() { "ip" } else { "ip6" };
            let insert = format!("nft insert rule {} {} {protocol}", self.table, self.chain);
            format!("{insert} saddr {it} accept; {insert} daddr {it} accept")
        };
        let rules: Vec<String> = subnets.iter().map(rule).collect();
        format!("configure the program that owns the table, or for example: {}", rules.join("; "))
    }
}

/// Reads as "chain ip filter FORWARD (policy drop)".
impl fmt::Display for DropChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legacy = if self.legacy { "legacy " } else { "" };
        let how = if self.policy_drops { "policy drop" } else { "last rule drops" };
        write!(f, "{legacy}chain {} {} ({how})", self.table, self.chain)
    }
}
