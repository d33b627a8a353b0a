//! What rules have counted, for people who ask by which of them a packet passed.

use std::collections::BTreeMap;

use crate::datapath::nftables::NftError;
use crate::datapath::policy::layout::table;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::expr::{Counted, Expr, Verdict};
use crate::linux::nft::rule::PlacedRule;
use crate::policy::names::denied_chain;
use crate::policy::plan::Direction;

/// A rule of the table that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedRule {
    /// The chain that it is in: the plan's own, or that of one of its ports.
    pub chain: String,
    /// Which rules of which policies it is.
    pub comment: String,
    /// What it has counted since it was written. The packets that begin a flow are counted, those that follow are not.
    pub counted: Counted,
}

/// How many packets of that direction no rule has allowed since the table was made. Reads two rules.
///
/// # Errors
/// What the kernel refused. That there is no table is none.
pub async fn denied(nft: &Nfnetlink, direction: Direction) -> Result<u64, NftError> {
    let rules = nft.placed_rules_of(&table(), denied_chain(direction)).await?;
    Ok(rules.into_iter().filter_map(|it| it.counted).map(|it| it.packets).sum())
}

/// The rules of a chain of the plan and of all that it leads to, in the order in which a packet meets them, with what they
/// have counted; of both families of addresses. What leads there from other chains counts as well. Those of the chain
/// that drops what none of them allows come last, and count what all pods are denied in that direction. Reads all rules of
/// the table.
///
/// # Errors
/// What the kernel refused.
pub async fn counted(
    nft: &Nfnetlink,
    direction: Direction,
    chain: &str,
) -> Result<Vec<CountedRule>, NftError> {
    let mut rules: BTreeMap<String, Vec<PlacedRule>> = BTreeMap::new();
    for placed in nft.placed_rules(&table()).await? {
        rules.entry(placed.rule.chain.clone()).or_default().push(placed);
    }
    let mut counted = Vec::new();
    let denied = denied_chain(direction);
    let mut next = vec![denied.to_owned(), chain.to_owned()];
    while let Some(name) = next.pop() {
        // Each once, however many lead there.
        for placed in rules.remove(&name).unwrap_or_default() {
            if let Some(Expr::LookupVerdict { set, .. }) = placed.rule.exprs.last() {
                let elements = nft.elements(&table(), set).await?;
                next.extend(elements.into_iter().rev().filter_map(|element| match element.verdict? {
                    Verdict::Jump(to) | Verdict::Goto(to) => Some(to),
                    _ => None,
                }));
            }
            if let Some(it) = placed.counted {
                let comment = placed.rule.comment.unwrap_or_default();
                counted.push(CountedRule { chain: name.clone(), comment, counted: it });
            }
        }
    }
    // Rules of ports come before those for all ports.
    counted.sort_by_key(|it| if it.chain == denied { 2 } else { u8::from(it.chain == chain) });
    Ok(counted)
}
