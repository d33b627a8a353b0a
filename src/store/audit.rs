//! An audit of the store, without its lock and without a change: `doctor` reports it, and a repair acts on it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::cni::ids::AttachmentKey;
use crate::store::error::StoreError;
use crate::store::handle::{BY_IP, Store, TMP, address_of};
use crate::store::layout::{Dir, FileId};
use crate::store::record::Record;
use crate::store::recovery::ignore_damage;

/// What is wrong with the store. [`StoreGuard::repair`](super::StoreGuard::repair) repairs what can be repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
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
    pub fn audit(&self) -> Result<Audit, StoreError> {
        let mut found = Audit::default();
        let Some(by_ip) = self.root.open_dir(BY_IP)? else { return Ok(found) };
        let held = by_ip.names(usize::MAX)?;
        for (name, address) in self.find_orphans(&by_ip, held)? {
            let Some(record) = self.read_by_ip(&by_ip, &name)? else {
                found.orphans.push(address);
                continue;
            };
            match self.find(&record.key()) {
                Ok(None) => found.unlisted.push((address, record.key())),
                // The attachment was made anew: this is what was left of the old record.
                Ok(Some(_)) => found.orphans.push(address),
                // Something else stands in the place of its record. Its pod may be using the address.
                Err(StoreError::Damaged(_) | StoreError::NewerFormat { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for name in self.by_id.names(usize::MAX)? {
            let path = self.by_id.path_of(&name);
            let Some(key) = self.key_of(&name) else {
                found.strangers.push(path);
                continue;
            };
            let Some(content) = ignore_damage(self.by_id.read(&name))? else { continue };
            let Some(record) = ignore_damage(Record::from_json(&content.bytes, &path).map(Some))? else {
                continue;
            };
            let (mut unheld, mut contested) = (Vec::new(), Vec::new());
            for &address in &record.addresses {
                match by_ip.identify(address.to_string())? {
                    Some(id) if id == content.id => {}
                    Some(_) if !is_replaceable(&by_ip, address, &key)? => {
                        contested.push((address, key.clone()))
                    }
                    _ => unheld.push((address, key.clone())),
                }
            }
            // A release takes the record away before the names of its addresses.
            let is_suspect = !unheld.is_empty() || !contested.is_empty();
            if is_suspect && self.by_id.identify(&name)? == Some(content.id) {
                found.unheld.append(&mut unheld);
                found.contested.append(&mut contested);
            }
        }
        Ok(found)
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

/// Whether the file that `by-ip` has for an address of `key` may give way to that attachment's record: it is a record
/// that does not list the address, so somebody moved it there; or an older file of the same attachment, which an editor
/// leaves when it writes a new one.
fn is_replaceable(by_ip: &Dir, address: IpAddr, key: &AttachmentKey) -> Result<bool, StoreError> {
    let name = address.to_string();
    let Some(content) = ignore_damage(by_ip.read(&name))? else { return Ok(false) };
    let other = Record::from_json(&content.bytes, &by_ip.path_of(&name));
    Ok(other.is_ok_and(|other| !other.addresses.contains(&address) || other.key() == *key))
}
