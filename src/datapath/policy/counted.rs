//! What rules have counted, for people who ask by which of them a packet passed.

use crate::datapath::nftables::NftError;
use crate::datapath::policy::layout::{owner, table};
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::expr::Counted;
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

/// The rules of a chain of the plan, in their order, with what they have counted; of both families of addresses. Those of
/// the chain that drops what none of them allows come last, and count what all pods are denied in that direction. Reads
/// all rules of the table.
///
/// # Errors
/// What the kernel refused.
pub async fn counted(
    nft: &Nfnetlink,
    direction: Direction,
    chain: &str,
) -> Result<Vec<CountedRule>, NftError> {
    let denied = denied_chain(direction);
    let (mut rules, mut last) = (Vec::new(), Vec::new());
    for placed in nft.placed_rules(&table()).await? {
        let Some(counted) = placed.counted else { continue };
        let of = if placed.rule.chain == denied {
            &mut last
        } else if owner(&placed.rule.chain) == chain {
            &mut rules
        } else {
            continue;
        };
        let comment = placed.rule.comment.unwrap_or_default();
        of.push(CountedRule { chain: placed.rule.chain, comment, counted });
    }
    rules.append(&mut last);
    Ok(rules)
}
