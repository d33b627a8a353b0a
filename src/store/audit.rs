//! Looking whether the store is as it should be, without its lock and without a change: for people, who look at a
//! node more often than they mend it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::cni::ids::AttachmentKey;
use crate::store::error::StoreError;
use crate::store::handle::{BY_IP, Store, TMP, address_of, file_name};
use crate::store::layout::{Dir, FileId};
use crate::store::record::Record;
use crate::store::recovery::ignore_damage;

/// What is not as it should be. [`StoreGuard::mend`](super::StoreGuard::mend) finds the same, and mends what can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Addresses that are held for no attachment.
    pub orphans: Vec<IpAddr>,
    /// Addresses of attachments that have no name in `by-id` any more, though their file says whose they are.
    pub unlisted: Vec<(IpAddr, AttachmentKey)>,
    /// Addresses of attachments that are not held: another attachment might get them.
    pub unheld: Vec<(IpAddr, AttachmentKey)>,
    /// Addresses of attachments that are held for another one: both may be using them.
    pub contested: Vec<(IpAddr, AttachmentKey)>,
    /// Files that are none of the store's.
    pub strangers: Vec<PathBuf>,
}

impl Store {
    /// Looks at every record and every name. Costs in proportion to what is held.
    ///
    /// Others go on meanwhile, and what they are in the middle of is not taken for a fault: everything that looks
    /// wrong is looked at again, after everything that a command could have moved it to.
    ///
    /// # Errors
    /// Where a directory cannot be read.
    pub fn survey(&self) -> Result<Survey, StoreError> {
        let mut survey = Survey::default();
        let Some(by_ip) = self.root.open_dir(BY_IP)? else { return Ok(survey) };
        let held = by_ip.names(usize::MAX)?;
        for (name, address) in self.find_orphans(&by_ip, held)? {
            let record = self.read_nameless(&by_ip, &name)?;
            match record.map(|record| record.key()) {
                Some(key) if self.by_id.identify(file_name(&key))?.is_none() => {
                    survey.unlisted.push((address, key));
                }
                _ => survey.orphans.push(address),
            }
        }
        for name in self.by_id.names(usize::MAX)? {
            let path = self.by_id.path_of(&name);
            let Some(key) = self.key_of(&name) else {
                survey.strangers.push(path);
                continue;
            };
            let Some(content) = ignore_damage(self.by_id.read(&name))? else { continue };
            let Some(record) = ignore_damage(Record::from_json(&content.bytes, &path).map(Some))? else {
                continue;
            };
            let mut suspects = Vec::new();
            for &address in &record.addresses {
                let holder = by_ip.identify(address.to_string())?;
                if holder != Some(content.id) {
                    suspects.push((address, holder));
                }
            }
            // A release takes the record away before the names of its addresses.
            if suspects.is_empty() || self.by_id.identify(&name)? != Some(content.id) {
                continue;
            }
            for (address, holder) in suspects {
                let found = if holder.is_some() { &mut survey.contested } else { &mut survey.unheld };
                found.push((address, key.clone()));
            }
        }
        Ok(survey)
    }

    /// Those of the names `held` in `by-ip` that belong to no record, on its way or not.
    fn find_orphans(&self, by_ip: &Dir, held: Vec<OsString>) -> Result<Vec<(OsString, IpAddr)>, StoreError> {
        let tmp = self.root.open_dir(TMP)?;
        // Whose they are, before it is looked who there is: a name may be given away and taken again meanwhile.
        let mut named: Vec<(OsString, FileId)> = Vec::with_capacity(held.len());
        for name in held {
            if let Some(id) = by_ip.identify(&name)? {
                named.push((name, id));
            }
        }
        let mut owners: HashSet<FileId> = HashSet::new();
        let mut take_in = |dir: &Dir| -> Result<(), StoreError> {
            for name in dir.names(usize::MAX)? {
                owners.extend(dir.identify(&name)?);
            }
            Ok(())
        };
        // A claim goes from `tmp` to `by-id` and a release goes back: read in this order, none slips through.
        tmp.as_ref().map_or(Ok(()), &mut take_in)?;
        take_in(&self.by_id)?;
        tmp.as_ref().map_or(Ok(()), &mut take_in)?;
        let mut orphans = Vec::new();
        for (name, id) in named {
            // What is no longer there was released in between.
            let is_orphan = !owners.contains(&id) && by_ip.identify(&name)? == Some(id);
            let address = address_of(&name).filter(|_| is_orphan);
            orphans.extend(address.map(|address| (name, address)));
        }
        orphans.sort_unstable_by_key(|(_, address)| *address);
        Ok(orphans)
    }
}
