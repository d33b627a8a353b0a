//! Removes what nothing needs any more, after all that leads elsewhere by now.

use std::collections::BTreeMap;

use crate::datapath::nftables::NftError;
use crate::datapath::policy::apply::{Applying, added};
use crate::datapath::policy::compare::{Differences, is_leading};
use crate::datapath::policy::layout::{owner, port_map_name, table};
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::listing::PlacedChain;
use crate::policy::plan::Members;

/// Chains that are asked for in one datagram.
const QUESTIONS: usize = 512;

impl Applying<'_, '_> {
    /// Removes from sets what should not be in them any more.
    pub(super) async fn remove_members(&mut self, differences: &Differences) -> Result<(), NftError> {
        for set in &differences.sets {
            let (Some(wanted), Some(there)) = (set.wanted(self.plan), self.mirror.sets.get_mut(&set.name))
            else {
                continue;
            };
            let stale = added(&set.name, wanted, there, set.moved.as_deref());
            if stale.is_empty() {
                continue;
            }
            self.applied.taken_away = true;
            match (there, wanted) {
                (Members::Pods(there), Members::Pods(wanted)) if set.moved.is_some() => {
                    set.moved.iter().flatten().filter(|it| !wanted.contains(*it)).for_each(|it| {
                        there.remove(it);
                    });
                }
                (there, wanted) => there.clone_from(wanted),
            }
            self.writer.delete_elements(&stale).await?;
        }
        Ok(self.writer.flush().await?)
    }

    /// Removes chains to which nothing leads any more, those of pods first. A transaction that is refused costs
    /// milliseconds, so the kernel is asked before.
    pub(super) async fn remove_chains(
        &mut self,
        nft: &Nfnetlink,
        differences: &Differences,
    ) -> Result<(), NftError> {
        let mut groups: BTreeMap<(bool, &str), Vec<String>> = BTreeMap::new();
        for name in &differences.stale_chains {
            let key = if is_leading(name) { (false, name.as_str()) } else { (true, owner(name)) };
            groups.entry(key).or_default().push(name.clone());
        }
        for pass in [false, true] {
            for ((_, of), names) in groups.iter().filter(|((second, _), _)| *second == pass) {
                let map = port_map_name(of);
                let map = differences.stale_sets.contains(&map).then_some(map);
                let mut found = Vec::with_capacity(names.len());
                for some in names.chunks(QUESTIONS) {
                    found.extend(nft.find_chains(&table(), some).await?);
                }
                let is_free = |(name, found): (&String, &Option<PlacedChain>)| {
                    let rules = self.mirror.chains.get(name).map_or(0, |content| content.rules);
                    // The map leads to a chain of a port, from as many ports as share it, and goes with it.
                    let is_by_map = map.is_some() && name != of;
                    is_by_map || found.as_ref().is_none_or(|found| found.uses <= rules)
                };
                if names.iter().zip(&found).all(is_free) {
                    let there = names.iter().zip(found).filter(|(_, found)| found.is_some());
                    self.remove_group(of, there.map(|(name, _)| name.clone()).collect(), map).await?;
                } else {
                    self.applied.left_over = true;
                }
            }
            self.writer.flush().await?;
        }
        Ok(())
    }

    /// Removes a chain with its map and its chains by port.
    async fn remove_group(
        &mut self,
        of: &str,
        mut names: Vec<String>,
        map: Option<String>,
    ) -> Result<(), NftError> {
        names.sort_by_key(|name| name != of);
        let mut changes = Vec::new();
        if names.first().is_some_and(|name| name == of) {
            self.mirror.chains.remove(of);
            changes.push(Change::DeleteChain(table(), names.remove(0)));
        }
        if let Some(map) = map.filter(|map| self.mirror.maps.remove(map).is_some()) {
            changes.push(Change::DeleteSet(table(), map));
        }
        self.writer.add(changes).await?;
        // Nothing leads there any more, so they may go one by one: there may be very many.
        for name in names {
            self.mirror.chains.remove(&name);
            self.writer.add(vec![Change::DeleteChain(table(), name)]).await?;
        }
        Ok(())
    }

    /// Removes sets that no chain looks into any more.
    pub(super) async fn remove_sets(&mut self, stale: &[String]) -> Result<(), NftError> {
        // What is left over may be one that does.
        for name in stale.iter().filter(|_| !self.applied.left_over) {
            let strange = self.mirror.strange_sets.iter().position(|it| it == name);
            let strange = strange.map(|at| self.mirror.strange_sets.remove(at)).is_some();
            if self.mirror.sets.remove(name).is_some() || self.mirror.maps.remove(name).is_some() || strange {
                self.writer.add(vec![Change::DeleteSet(table(), name.clone())]).await?;
            }
        }
        Ok(self.writer.flush().await?)
    }
}
