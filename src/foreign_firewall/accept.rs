//! Rules in iptables' chains that let a network's pods pass, in the very form in which `iptables` writes them: so it
//! prints, saves and deletes them like any other.

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::NftError;
use crate::foreign_firewall::filter::{DOCKER_USER, FORWARD, Filter, Judgement, find};
use crate::foreign_firewall::traffic::Traffic;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::expr::{Comparison, Expr, Extension, Header, Reg, Verdict};
use crate::linux::nft::rule::{PlacedRule, Rule};
use crate::linux::nft::table::{Family, Table};

/// Begins the comment of every rule of ours.
pub(super) const MARK: &str = "ferrule: ";

/// How often a decision is made anew because somebody was faster.
const ATTEMPTS: usize = 32;

/// The rules of a network in one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Table and chain: "ip filter FORWARD".
    pub chain: String,
    /// How many rules were put there; 0 if all stood.
    pub inserted: usize,
    /// How many of an earlier conf were taken away.
    pub removed: usize,
}

/// The comment by which a network's rules are known.
pub fn comment(network: &NetworkName) -> String {
    format!("{MARK}{network}")
}

/// Has the chains FORWARD of iptables that end in a drop let a network's pods pass: a rule for each own subnet and
/// direction, before all others. Idempotent. A chain that lets them pass by rules of others is left alone, and so is
/// every other table.
///
/// # Errors
/// What the kernel refused; nothing was changed then.
pub async fn accept(
    nft: &Nfnetlink,
    network: &NetworkName,
    traffic: &Traffic,
) -> Result<Vec<Accepted>, NftError> {
    let mut attempt = 0;
    loop {
        let generation = nft.generation().await?;
        let (mut accepted, mut changes) = (Vec::new(), Vec::new());
        for filter in find(nft).await?.iter().filter(|filter| filter.is_of_iptables()) {
            let Some(judgement) = filter.judge(traffic) else { continue };
            let wanted = rules(filter.entry(), network, traffic.own_of(filter.sees(true)));
            let own = own_rules(nft, &filter.table, Some(network)).await?;
            let stand = own.iter().map(|placed| &placed.rule).eq(&wanted);
            if stand || (own.is_empty() && judgement == Judgement::Passes) {
                accepted.extend(stand.then(|| Accepted::new(filter, 0, 0)));
                continue;
            }
            accepted.push(Accepted::new(filter, wanted.len(), own.len()));
            changes.extend(own.into_iter().map(|placed| deletion(&filter.table, placed)));
            // Each goes before the one that was put there before.
            let insertions = wanted.into_iter().rev();
            changes.extend(insertions.map(|rule| Change::InsertRule(filter.table.clone(), rule)));
        }
        match nft.commit(Some(generation), &changes).await {
            Ok(()) => return Ok(accepted),
            Err(rejection) if rejection.is_because(|refusal| refusal.is_outrun()) => {
                attempt += 1;
                if attempt == ATTEMPTS {
                    return Err(NftError::Outrun(rejection));
                }
            }
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// Removes the rules of one network, or of all, from iptables' chains; tells which. Not there is a success.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(nft: &Nfnetlink, network: Option<&NetworkName>) -> Result<Vec<String>, NftError> {
    let (removed, changes) = plan_removal(nft, network).await?;
    nft.commit(None, &changes).await?;
    Ok(removed)
}

/// The rules that [`remove`] would remove.
///
/// # Errors
/// What the kernel refused.
pub async fn standing(nft: &Nfnetlink, network: Option<&NetworkName>) -> Result<Vec<String>, NftError> {
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
    fn new(filter: &Filter, inserted: usize, removed: usize) -> Self {
        Self { chain: format!("{} {}", filter.table, filter.entry()), inserted, removed }
    }
}

/// The rules of ours in a table of iptables, in their order.
async fn own_rules(
    nft: &Nfnetlink,
    table: &Table,
    network: Option<&NetworkName>,
) -> Result<Vec<PlacedRule>, NftError> {
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

/// The comment of a rule of ours.
fn mark_of(rule: &Rule) -> Option<&str> {
    let accepts = rule.exprs.last() == Some(&Expr::Verdict(Verdict::Accept));
    let mut comments = rule.exprs.iter().filter_map(|expr| match expr {
        Expr::Extension(extension) => extension.to_comment(),
        _ => None,
    });
    comments.find(|comment| accepts && comment.starts_with(MARK))
}

fn deletion(table: &Table, placed: PlacedRule) -> Change {
    Change::DeleteRule { table: table.clone(), chain: placed.rule.chain, handle: placed.handle }
}

fn rules(chain: &str, network: &NetworkName, own: impl Iterator<Item = IpNetwork>) -> Vec<Rule> {
    let rule = |subnet: IpNetwork, is_source: bool| {
        let mut exprs = within(subnet, is_source);
        exprs.extend([
            Expr::Extension(Extension::comment(&comment(network))),
            Expr::Counter,
            Expr::Verdict(Verdict::Accept),
        ]);
        Rule { chain: chain.to_owned(), exprs, comment: None }
    };
    own.flat_map(|subnet| [rule(subnet, true), rule(subnet, false)]).collect()
}

/// `-s SUBNET` or `-d SUBNET`, in the form that every version of iptables reads. Later ones write a shorter one for
/// prefixes of whole bytes.
pub(super) fn within(subnet: IpNetwork, is_source: bool) -> Vec<Expr> {
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
