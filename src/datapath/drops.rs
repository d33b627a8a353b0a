//! How many packets were dropped, by reason.

use std::collections::BTreeMap;

use crate::datapath::nftables::NftError;
use crate::datapath::policy;
use crate::desired::nftables::reason::Reason;
use crate::desired::nftables::table::table;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::snmp;
use crate::policy::plan::Direction;

/// Packets by reason: all reasons, each since its rule was made.
pub type Drops = BTreeMap<Reason, u64>;

/// Reads what was counted. Where there is no table, or one of a version that does not count, that is nothing.
///
/// # Errors
/// What the kernel refused.
pub async fn read(nft: &Nfnetlink) -> Result<Drops, NftError> {
    let mut drops: Drops = Reason::ALL.into_iter().map(|reason| (reason, 0)).collect();
    for placed in nft.placed_rules(&table()).await? {
        if let (Some(reason), Some(counted)) = (Reason::of(&placed.rule), placed.counted) {
            *drops.entry(reason).or_default() += counted.packets;
        }
    }
    for (reason, direction) in
        [(Reason::PolicyIngress, Direction::Ingress), (Reason::PolicyEgress, Direction::Egress)]
    {
        drops.insert(reason, policy::denied(nft, direction).await?);
    }
    // A kernel may have no such file.
    drops.insert(Reason::ReversePath, snmp::reverse_path_drops().unwrap_or_default());
    Ok(drops)
}

/// What was counted between two readings. A rule that was made anew counts from nothing.
pub fn between(before: &Drops, now: &Drops) -> Drops {
    let more = |(reason, &now): (&Reason, &u64)| {
        let before = before.get(reason).copied().unwrap_or_default();
        (*reason, now.checked_sub(before).unwrap_or(now))
    };
    now.iter().map(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_made_anew_counts_from_nothing() {
        let drops =
            |spoofed, invalid| Drops::from([(Reason::SpoofedSource, spoofed), (Reason::Invalid, invalid)]);
        assert_eq!(between(&drops(5, 7), &drops(9, 2)), drops(4, 2));
        assert_eq!(between(&Drops::new(), &drops(9, 2)), drops(9, 2));
    }
}
