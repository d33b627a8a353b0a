//! What is in the table, as far as a plan decides about it. Of chains and maps a number is kept that tells whether they are
//! the same, of sets all members: nobody knows otherwise what a change of one member is.
//!
//! The elements of pods are not in it: ADD and DEL change them at any time, so they are read when they are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::datapath::nftables::NftError;
use crate::datapath::policy::layout::{Content, content_of, table};
use crate::datapath::policy::skeleton;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::rule::Rule;
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::Table;
use crate::policy::plan::Members;

/// What is in the kernel, as far as it is known. At first nothing is.
#[derive(Debug, Default)]
pub struct Mirror {
    /// Whether the rest is true.
    pub(super) known: bool,
    /// Whether there is a table.
    pub(super) exists: bool,
    /// Whether the table does nothing, because somebody made it so.
    pub(super) is_dormant: bool,
    /// Sets of the skeleton that are of another kind than they should be.
    pub(super) wrong_sets: Vec<String>,
    /// Chains of the skeleton that packets enter elsewhere than they should.
    pub(super) wrong_chains: Vec<String>,
    /// Whether anything of the skeleton is missing or wrong.
    pub(super) skeleton_differs: bool,
    /// Whether a pod's packets to itself are judged in the chains of pods.
    pub(super) judges_own: bool,
    /// Whether it is the table of a kernel that cannot tell of denied packets.
    pub(super) is_untold: bool,
    /// Sets of addresses.
    pub(super) sets: BTreeMap<String, Members>,
    /// Maps of ports.
    pub(super) maps: BTreeMap<String, u64>,
    /// Sets and maps of any other kind.
    pub(super) strange_sets: Vec<String>,
    /// All chains but those of the skeleton.
    pub(super) chains: BTreeMap<String, Content>,
}

/// Reads the whole table; that there is none is no error.
///
/// # Errors
/// What the kernel refused.
pub async fn read(nft: &Nfnetlink) -> Result<Mirror, NftError> {
    let mut mirror = Mirror { known: true, exists: nft.has_table(&table()).await?, ..Mirror::default() };
    if mirror.exists {
        mirror.is_dormant = nft.is_dormant(&table()).await?;
        mirror.read_sets(nft).await?;
        mirror.read_chains(nft).await?;
    }
    Ok(mirror)
}

impl Mirror {
    /// What is known after the table is gone.
    pub(super) fn of_no_table() -> Self {
        Self { known: true, ..Self::default() }
    }

    /// Whether there is a table, as far as is known.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Whether ClusterNetworkPolicies have a say in the table; none where that is not known.
    pub fn has_tiers(&self) -> Option<bool> {
        self.known.then_some(self.judges_own)
    }

    /// Whether the table is that of a kernel which has no nft_log, nft_limit or nfnetlink_log: nobody is told of denied
    /// packets. They are dropped and counted all the same.
    pub fn is_untold(&self) -> bool {
        self.is_untold
    }

    /// Has the next [`super::apply`] try whether the kernel can tell of them by now.
    pub fn try_to_tell(&mut self) {
        self.skeleton_differs |= std::mem::take(&mut self.is_untold);
    }

    async fn read_sets(&mut self, nft: &Nfnetlink) -> Result<(), KernelError> {
        let (sets, mut strange) = nft.all_sets(&table()).await?;
        let skeleton = skeleton::sets();
        let is_ours = |name: &String| skeleton.iter().any(|wanted| wanted.name == *name);
        self.skeleton_differs |= skeleton.iter().any(|wanted| !sets.contains(wanted));
        for set in sets {
            let name = set.name.clone();
            if is_ours(&name) {
                if !skeleton.contains(&set) {
                    self.wrong_sets.push(name);
                }
            } else if is_port_map(&set) {
                let content = content_of(&nft.elements(&table(), &name).await?);
                self.maps.insert(name, content);
            } else if let Some(members) = read_members(nft, &set).await? {
                self.sets.insert(name, members);
            } else {
                strange.push(name);
            }
        }
        self.wrong_sets.extend(strange.iter().filter(|name| is_ours(name)).cloned());
        strange.retain(|name| !is_ours(name));
        self.strange_sets = strange;
        Ok(())
    }

    async fn read_chains(&mut self, nft: &Nfnetlink) -> Result<(), KernelError> {
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for placed in nft.placed_rules(&table()).await? {
            rules.entry(placed.rule.chain.clone()).or_default().push(placed.rule);
        }
        // Of two kinds, which differ in what becomes of a pod's packets to itself.
        let skeletons = [false, true].map(skeleton::chains);
        let mut as_it_should_be = [0_usize; 2];
        for placed in nft.all_chains(&table()).await? {
            let name = placed.chain.name;
            let rules = rules.remove(&name).unwrap_or_default();
            let wanted = skeletons.each_ref().map(|all| all.iter().find(|it| it.chain.name == name));
            let [Some(first), Some(_)] = wanted else {
                self.chains.insert(name, Content::of(rules.iter()));
                continue;
            };
            if first.chain.base != placed.chain.base {
                self.wrong_chains.push(name);
                continue;
            }
            for (wanted, count) in wanted.into_iter().flatten().zip(&mut as_it_should_be) {
                let is_untold = wanted.rules != rules && skeleton::untold(&wanted.rules) == rules;
                self.is_untold |= is_untold;
                *count += usize::from(is_untold || wanted.rules == rules);
            }
        }
        let whole = as_it_should_be.map(|count| count == skeletons[0].len());
        self.judges_own = whole == [false, true];
        self.skeleton_differs |= whole == [false, false];
        Ok(())
    }
}

fn is_port_map(set: &Set) -> bool {
    set.key == [Type::Protocol, Type::Port] && set.data == [Type::Verdict] && !set.expires
}

/// The members of a set of addresses; `None` if it is of another kind.
async fn read_members(nft: &Nfnetlink, set: &Set) -> Result<Option<Members>, KernelError> {
    let Set { name, key, data, interval, expires } = set;
    if !data.is_empty() || *expires {
        return Ok(None);
    }
    Ok(match (key.as_slice(), interval) {
        ([Type::Ipv4 | Type::Ipv6], false) => {
            let addresses = nft.keys(&table(), name, |key, _| read_address(key)).await?;
            Some(Members::Pods(addresses.into_iter().collect()))
        }
        ([Type::Ipv4 | Type::Ipv6, Type::Protocol, Type::Port], false) => Some(Members::Ports(
            nft.keys(&table(), name, |key, _| read_port(key)).await?.into_iter().collect(),
        )),
        ([Type::Ipv4 | Type::Ipv6], true) => Some(Members::Blocks(read_blocks(nft, &table(), name).await?)),
        _ => None,
    })
}

/// The ranges of a set of addresses.
pub(super) async fn read_blocks(
    nft: &Nfnetlink,
    table: &Table,
    name: &str,
) -> Result<Vec<RangeInclusive<IpAddr>>, KernelError> {
    let ends = nft.keys(table, name, |key, is_end| Some((read_address(key)?, !is_end))).await?;
    Ok(to_blocks(ends.into_iter().collect()))
}

fn read_address(key: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(key).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(key).ok().map(IpAddr::from))
}

/// An address, a protocol and a port, each filled up to four bytes.
fn read_port(key: &[u8]) -> Option<(IpAddr, u8, u16)> {
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let [protocol, _, _, _, first, second, _, _] = rest.first_chunk::<8>()?;
    Some((read_address(address)?, *protocol, u16::from_be_bytes([*first, *second])))
}

/// Ranges from their ends: each address with whether a range begins there, or has ended before it.
fn to_blocks(ends: BTreeSet<(IpAddr, bool)>) -> Vec<RangeInclusive<IpAddr>> {
    let (mut blocks, mut begun) = (Vec::new(), None);
    for (address, begins) in ends {
        if begins {
            begun = Some(address);
        } else if let (Some(first), Some(last)) = (begun.take(), before(address)) {
            blocks.push(first..=last);
        }
    }
    let last_of_all =
        |first: IpAddr| if first.is_ipv4() { [255; 4].into() } else { IpAddr::from([255_u8; 16]) };
    blocks.extend(begun.map(|first| first..=last_of_all(first)));
    blocks
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => u32::from(it).checked_sub(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(it) => u128::from(it).checked_sub(1).map(|it| IpAddr::V6(it.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_come_back_from_their_ends() {
        let ends =
            |texts: &[(&str, bool)]| texts.iter().map(|(text, begins)| (address(text), *begins)).collect();
        let found = to_blocks(ends(&[
            // nft writes such a one before the first range.
            ("0.0.0.0", false),
            ("10.0.0.0", true),
            ("10.1.0.0", false),
            ("10.1.0.0", true),
            ("10.1.0.1", false),
            ("240.0.0.0", true),
        ]));
        let wanted =
            [("10.0.0.0", "10.0.255.255"), ("10.1.0.0", "10.1.0.0"), ("240.0.0.0", "255.255.255.255")];
        assert_eq!(found, wanted.map(|(first, last)| address(first)..=address(last)));
        let all = to_blocks(ends(&[("::", true)]));
        assert_eq!(all, [address("::")..=address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]);
    }
}
