//! Removes what nothing needs any more, after all that leads elsewhere by now.

use std::collections::BTreeSet;

use crate::datapath::nftables::NftError;
use crate::datapath::policy::apply::{Applying, added};
use crate::datapath::policy::compare::{Differences, is_leading};
use crate::datapath::policy::layout::{port_map_name, table};
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
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

    /// Removes chains to which nothing leads any more, with their maps: first those of pods, then what these led to, and so
    /// on. A transaction that is refused costs milliseconds, so the kernel is asked before.
    pub(super) async fn remove_chains(
        &mut self,
        nft: &Nfnetlink,
        differences: &Differences,
    ) -> Result<(), NftError> {
        let stale_sets: BTreeSet<&String> = differences.stale_sets.iter().collect();
        for pass in 0..=LAST_PASS {
            let stale = differences.stale_chains.iter().filter(|name| pass_of(name) == pass);
            let names: Vec<String> = stale.cloned().collect();
            let mut found = Vec::new();
            for some in names.chunks(QUESTIONS) {
                found.extend(nft.find_chains(&table(), some).await?);
            }
            for (name, found) in names.iter().zip(found) {
                let rules = self.mirror.chains.get(name).map_or(0, |content| content.rules);
                if found.as_ref().is_some_and(|found| found.uses > rules) {
                    self.applied.left_over = true;
                    continue;
                }
                let mut changes = Vec::new();
                changes.extend(found.map(|_| Change::DeleteChain(table(), name.clone())));
                self.mirror.chains.remove(name);
                let map = port_map_name(name);
                if stale_sets.contains(&map) && self.mirror.maps.remove(&map).is_some() {
                    changes.push(Change::DeleteSet(table(), map));
                }
                self.writer.add(changes).await?;
            }
            self.writer.flush().await?;
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

/// In which pass a chain is looked at: after all that may lead to it.
fn pass_of(name: &str) -> usize {
    match name {
        name if is_leading(name) => 0,
        name if name.starts_with("pp-") => LAST_PASS,
        name if name.starts_with("pg-") => LAST_PASS - 1,
        _ => 1,
    }
}

const LAST_PASS: usize = 3;
