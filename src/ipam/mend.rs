//! Putting the store right: after a holder of the lock that died, after a reboot, after somebody's hand.
//!
//! All of it is idempotent, and each step leaves a state that the same cure finishes: whoever dies while
//! mending is mended after.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::dir::{Content, FileId};
use super::error::{Damaged, StoreError};
use super::locked::Locked;
use super::record::Record;
use super::store::{BOOT, address_of};
use crate::cni::ids::AttachmentKey;

/// What was found not to be right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// Addresses that were held for no attachment. They are free now.
    pub freed: Vec<IpAddr>,
    /// Addresses of attachments whose `by-ip` name was missing. They are held again.
    pub restored: Vec<IpAddr>,
    /// Addresses of attachments that are held for another one: both may be using them. Left as they are.
    pub contested: Vec<(IpAddr, AttachmentKey)>,
    /// Files that are none of the store's. Left as they are.
    pub strangers: Vec<PathBuf>,
}

impl Locked<'_> {
    /// Looks at every record and every name, and puts right what can be. For `doctor`, GC and the agent:
    /// unlike everything else here it costs in proportion to what is held.
    ///
    /// # Errors
    /// Only of the file system.
    pub fn mend(&mut self) -> Result<Mended, StoreError> {
        let mut mended = Mended { freed: self.remove_orphans()?, ..Mended::default() };
        for name in self.store.by_id.names(usize::MAX)? {
            let path = self.store.by_id.path_of(&name);
            if self.store.key_of(&name).is_none() {
                mended.strangers.push(path);
                continue;
            }
            let Some(content) = ignore_damage(self.store.by_id.read(&name))? else { continue };
            let Some(record) = ignore_damage(Record::from_json(&content.bytes, &path).map(Some))? else {
                continue;
            };
            for &address in &record.addresses {
                let by_ip = address.to_string();
                match self.by_ip.identify(&by_ip)? {
                    Some(id) if id == content.id => {}
                    Some(_) => mended.contested.push((address, record.key())),
                    None => {
                        self.store.by_id.link(&name, &self.by_ip, by_ip.as_ref())?;
                        mended.restored.push(address);
                    }
                }
            }
        }
        Ok(mended)
    }

    /// Finishes what an earlier holder of the lock began.
    pub(super) fn finish_what_was_left(&mut self) -> Result<(), StoreError> {
        for name in self.tmp.names(usize::MAX)? {
            self.finish_release(&name)?;
        }
        Ok(())
    }

    /// Frees the addresses of the record in `tmp`, then removes it. Says which they were.
    pub(super) fn finish_release(&mut self, name: &OsStr) -> Result<Vec<IpAddr>, StoreError> {
        let mut freed = Vec::new();
        if let Some(content) = ignore_damage(self.tmp.read(name))? {
            for by_ip in self.names_by_ip(name, &content)? {
                // The name may be another's by now, or gone, if this is not the first attempt.
                if self.by_ip.identify(&by_ip)? == Some(content.id) {
                    self.rest.retire(&self.by_ip, &by_ip)?;
                    freed.extend(address_of(&by_ip));
                }
            }
        }
        self.tmp.remove(name)?;
        Ok(freed)
    }

    /// The names that a record in `tmp` may have in `by-ip`.
    fn names_by_ip(&self, name: &OsStr, content: &Content) -> Result<Vec<OsString>, StoreError> {
        if !content.has_other_names {
            return Ok(Vec::new());
        }
        match Record::from_json(&content.bytes, &self.tmp.path_of(name)) {
            Ok(record) => Ok(record.addresses.iter().map(|address| address.to_string().into()).collect()),
            // It does not say. Every name of its inode number may be one; the caller compares in full.
            Err(_) => {
                let mut names = Vec::new();
                self.by_ip.visit_names(|name, ino| {
                    if content.id.has_inode(ino) {
                        names.push(name.to_owned());
                    }
                    ControlFlow::Continue(())
                })?;
                Ok(names)
            }
        }
    }

    /// Removes all that an earlier boot has left, then says in which boot the store is. Dying on the way
    /// leaves the old boot id, and the next holder of the lock begins again.
    ///
    /// A record that says it is of this boot stays: that a person removed the file `boot` must not free
    /// addresses that pods are using.
    pub(super) fn sweep_earlier_boot(&mut self) -> Result<(), StoreError> {
        let store = self.store;
        let mut alive: HashSet<FileId> = HashSet::new();
        for name in store.by_id.names(usize::MAX)? {
            let content = ignore_damage(store.by_id.read(&name))?;
            let is_alive = |content: &Content| {
                Record::from_json(&content.bytes, &store.by_id.path_of(&name))
                    .is_ok_and(|record| record.is_from(&self.boot))
            };
            match content {
                Some(content) if is_alive(&content) => {
                    alive.insert(content.id);
                }
                _ => {
                    store.by_id.remove(&name)?;
                }
            }
        }
        for name in self.by_ip.names(usize::MAX)? {
            if alive.is_empty() || !self.by_ip.identify(&name)?.is_some_and(|id| alive.contains(&id)) {
                self.by_ip.remove(&name)?;
            }
        }
        for name in self.tmp.names(usize::MAX)? {
            self.tmp.remove(&name)?;
        }
        self.rest.clear()?;
        let written = self.write_boot();
        if written.is_err() {
            // Best effort: the next one sweeps it away as well.
            let _ = self.tmp.remove(BOOT);
        }
        written
    }

    fn write_boot(&self) -> Result<(), StoreError> {
        let root = &self.store.root;
        let file = self.tmp.create(BOOT)?;
        self.tmp.write(BOOT, &file, format!("{}\n", self.boot).as_bytes())?;
        // A rename replaces a file or a link of any kind, but no directory.
        if !root.remove(BOOT)? {
            return Err(Damaged::new(root.path_of(BOOT), "it is a directory").into());
        }
        self.tmp.rename(BOOT.as_ref(), root, BOOT.as_ref()).map(|_| ())
    }

    /// Removes the names in `by-ip` that belong to no record. Says which addresses that has freed.
    pub(super) fn remove_orphans(&mut self) -> Result<Vec<IpAddr>, StoreError> {
        let by_id = &self.store.by_id;
        // A listing has the inode numbers with it: two listings tell whether there is anything to do.
        let mut inodes = HashSet::new();
        by_id.visit_names(|_, ino| {
            inodes.insert(ino);
            ControlFlow::Continue(())
        })?;
        let mut suspects = Vec::new();
        self.by_ip.visit_names(|name, ino| {
            if !inodes.contains(&ino) {
                suspects.push(name.to_owned());
            }
            ControlFlow::Continue(())
        })?;
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        // Some file systems list other numbers than stat(2) gives (overlayfs): ask before removing.
        let mut owners = HashSet::new();
        for name in by_id.names(usize::MAX)? {
            owners.extend(by_id.identify(&name)?);
        }
        let mut freed = Vec::new();
        for name in suspects {
            let is_orphan = self.by_ip.identify(&name)?.is_some_and(|id| !owners.contains(&id));
            if is_orphan && self.by_ip.remove(&name)? {
                freed.extend(address_of(&name));
            }
        }
        Ok(freed)
    }
}

/// `None` for what is damaged or of a newer format: it is passed over here, and reported by those who
/// look at it on its own account.
pub(super) fn ignore_damage<T>(found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Err(StoreError::Damaged(_) | StoreError::NewerFormat { .. }) => Ok(None),
        other => other,
    }
}
