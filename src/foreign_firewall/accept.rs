//! Accept rules in iptables' chains, written as `iptables` itself writes them, so that it prints, saves and deletes
//! them like any other rule.

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::NftError;
use crate::foreign_firewall::drop_chain::{DOCKER_USER, DropChain, FORWARD, find};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::expr::{Comparison, Expr, Extension, Header, Reg, Verdict};
use crate::linux::nft::rule::{PlacedRule, Rule};
use crate::linux::nft::table::{Family, Table};

/// Begins the comment of every accept rule.
pub(super) const MARK: &str = "ferrule: ";

/// How often the transaction is tried again because another program changed the ruleset in between.
const ATTEMPTS: usize = 32;

/// The rules of a network in one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Table and chain: "ip filter FORWARD".
    pub chain: String,
    /// How many rules were inserted; 0 if all were there.
    pub inserted: usize,
    /// How many rules of an earlier conf were removed.
    pub removed: usize,
}

/// The comment that marks a network's rules.
pub fn comment(network: &NetworkName) -> String {
    format!("{MARK}{network}")
}

/// Inserts a rule for each of `subnets` and each direction, before all others, into the chains FORWARD of iptables that
/// end in a drop. Idempotent. No other table is changed.
///
/// # Errors
/// What the kernel refused; nothing was changed then.
pub async fn accept(
    nft: &Nfnetlink,
    network: &NetworkName,
    subnets: &[IpNetwork],
) -> Result<Vec<Accepted>, NftError> {
    let mut attempt = 0;
    loop {
        let generation = nft.generation().await?;
        let (mut accepted, mut changes) = (Vec::new(), Vec::new());
        for chain in find(nft).await?.iter().filter(|chain| chain.is_of_iptables()) {
            let wanted = rules(chain.entry(), network, chain.concerns(subnets));
            if wanted.is_empty() {
                continue;
            }
            let own = own_rules(nft, &chain.table, Some(network)).await?;
            if own.iter().map(|placed| &placed.rule).eq(&wanted) {
                accepted.push(Accepted::new(chain, 0, 0));
                continue;
            }
            accepted.push(Accepted::new(chain, wanted.len(), own.len()));
            changes.extend(own.into_iter().map(|placed| deletion(&chain.table, placed)));
            // Each goes before the one that was inserted before.
            let insertions = wanted.into_iter().rev();
            changes.extend(insertions.map(|rule| Change::InsertRule(chain.table.clone(), rule)));
        }
        if commit(nft, generation, &changes, &mut attempt).await? {
            return Ok(accepted);
        }
    }
}

/// Whether the changes were made; `false` if another program changed the ruleset in between, and they are to be planned
/// again.
async fn commit(
    nft: &Nfnetlink,
    generation: u32,
    changes: &[Change],
    attempt: &mut usize,
) -> Result<bool, NftError> {
    match nft.commit(Some(generation), changes).await {
        Ok(()) => Ok(true),
        Err(rejection) if rejection.is_because(|refusal| refusal.is_outrun()) => {
            *attempt += 1;
            if *attempt == ATTEMPTS { Err(NftError::Outrun(rejection)) } else { Ok(false) }
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// The chains that end in a drop, see packets of `subnets`, and have no accept rules of the network.
///
/// # Errors
/// The kernel's refusal.
pub async fn unaccepted(
    nft: &Nfnetlink,
    network: &NetworkName,
    subnets: &[IpNetwork],
) -> Result<Vec<DropChain>, KernelError> {
    let mut unaccepted = Vec::new();
    for chain in find(nft).await?.into_iter().filter(|chain| !chain.concerns(subnets).is_empty()) {
        if !chain.is_of_iptables() || own_rules(nft, &chain.table, Some(network)).await?.is_empty() {
            unaccepted.push(chain);
        }
    }
    Ok(unaccepted)
}

/// Removes the rules of one network, or of all, from iptables' chains, and returns them. None is a
/// success.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(nft: &Nfnetlink, network: Option<&NetworkName>) -> Result<Vec<String>, NftError> {
    let mut attempt = 0;
    loop {
        // By number: where others change the chain in between, a number may be another rule's.
        let generation = nft.generation().await?;
        let (removed, changes) = plan_removal(nft, network).await?;
        if changes.is_empty() || commit(nft, generation, &changes, &mut attempt).await? {
            return Ok(removed);
        }
    }
}

/// The accept rules of one network, or of all, that are in iptables' chains.
///
/// # Errors
/// What the kernel refused.
pub async fn accept_rules(nft: &Nfnetlink, network: Option<&NetworkName>) -> Result<Vec<String>, NftError> {
    Ok(plan_removal(nft, network).await?.0)
}

async fn plan_removal(
    nft: &Nfnetlink,
    network: Option<&NetworkName>,
) -> Result<(Vec<String>, Vec<Change>), NftError> {
    let (mut removed, mut changes) = (Vec::new(), Vec::new());
    for family in [Family::Ipv4, Family::Ipv6] {
        let table = Table { family, name: "filter".to_owned() };
        for placed in own_rules(nft, &table, network).await? {
            let of = mark_of(&placed.rule).unwrap_or_default();
            removed.push(format!("{table} {} \"{of}\"", placed.rule.chain));
            changes.push(deletion(&table, placed));
        }
    }
    Ok((removed, changes))
}

impl Accepted {
    fn new(chain: &DropChain, inserted: usize, removed: usize) -> Self {
        Self { chain: format!("{} {}", chain.table, chain.entry()), inserted, removed }
    }
}

/// Accept rules in a table of iptables, in their order.
async fn own_rules(
    nft: &Nfnetlink,
    table: &Table,
    network: Option<&NetworkName>,
) -> Result<Vec<PlacedRule>, KernelError> {
    let wanted = network.map(comment);
    let mut own = Vec::new();
    for chain in [FORWARD, DOCKER_USER] {
        let placed = nft.chain_rules(table, chain).await?.into_iter();
        own.extend(placed.filter(|placed| match (mark_of(&placed.rule), &wanted) {
            (Some(mark), Some(wanted)) => mark == wanted,
            (Some(_), None) => true,
            (None, _) => false,
        }));
    }
    Ok(own)
}

/// The comment of an accept rule of ferrule's.
fn mark_of(rule: &Rule) -> Option<&str> {
    let accepts = rule.exprs.last() == Some(&Expr::Verdict(Verdict::Accept));
    comments_of(rule).find(|comment| accepts && comment.starts_with(MARK))
}

/// The comments that iptables has written into a rule.
pub(super) fn comments_of(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.exprs.iter().filter_map(|expr| match expr {
        Expr::Extension(extension) => extension.to_comment(),
        _ => None,
    })
}

fn deletion(table: &Table, placed: PlacedRule) -> Change {
    Change::DeleteRule { table: table.clone(), chain: placed.rule.chain, handle: placed.handle }
}

fn rules(chain: &str, network: &NetworkName, subnets: Vec<IpNetwork>) -> Vec<Rule> {
    let rule = |subnet: IpNetwork, is_source: bool| {
        let mut exprs = within(subnet, is_source);
        exprs.extend([
            Expr::Extension(Extension::comment(&comment(network))),
            Expr::Counter,
            Expr::Verdict(Verdict::Accept),
        ]);
        Rule { chain: chain.to_owned(), exprs, comment: None }
    };
    subnets.into_iter().flat_map(|subnet| [rule(subnet, true), rule(subnet, false)]).collect()
}

/// `-s SUBNET` or `-d SUBNET`, in the form that every version of iptables reads. Later ones write a shorter one for
/// prefixes of whole bytes.
fn within(subnet: IpNetwork, is_source: bool) -> Vec<Expr> {
    let at = Reg(0);
    let (offset, address, mask) = match subnet {
        IpNetwork::V4(subnet) => {
            let offset = if is_source { 12 } else { 16 };
            (offset, subnet.network().octets().to_vec(), subnet.mask().octets().to_vec())
        }
        IpNetwork::V6(subnet) => {
            let offset = if is_source { 8 } else { 24 };
            (offset, subnet.network().octets().to_vec(), subnet.mask().octets().to_vec())
        }
    };
    let length = u32::try_from(address.len()).unwrap_or(u32::MAX);
    let mut exprs = vec![Expr::Payload { header: Header::Network, offset, length, to: at }];
    if mask.iter().any(|&byte| byte != 0xff) {
        exprs.push(Expr::Mask { at, mask });
    }
    exprs.push(Expr::Compare { from: at, comparison: Comparison::Equal, value: address });
    exprs
}
