//! Repairs: what a dead holder of the lock, a reboot or a person with `rm` has left.
//!
//! What a dead holder left in `tmp` is finished by the next holder. What a person did is repaired by whoever asks for
//! it ([`StoreGuard::repair`]): GC, `reclaim`, and the first holder of the lock in a boot. An ADD never looks at the
//! records of others, so until then it may choose an address whose name in `by-ip` was removed while its pod runs. In
//! the main role the kernel refuses that address: the route to it exists already.
//!
//! Every step is idempotent: whoever dies while repairing leaves a state that the same code repairs.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::cni::ids::AttachmentKey;
use crate::store::boot::BootId;
use crate::store::error::{Damaged, StoreError};
use crate::store::guard::StoreGuard;
use crate::store::handle::{BOOT, address_of, file_name};
use crate::store::layout::{Content, FileId};
use crate::store::record::Record;

/// What was found wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Addresses that were held for no attachment. They are free now.
    pub freed: Vec<IpAddr>,
    /// Addresses of attachments whose `by-ip` name was missing. They are held again.
    pub restored: Vec<IpAddr>,
    /// Attachments whose `by-id` name was missing. They are known again.
    pub relisted: Vec<AttachmentKey>,
    /// Addresses of attachments that are held for another one: both may be using them. Left as they are.
    pub contested: Vec<(IpAddr, AttachmentKey)>,
    /// Files that do not belong to the store. Left as they are.
    pub strangers: Vec<PathBuf>,
}

impl StoreGuard<'_> {
    /// Audits the store and repairs what can be repaired: a record that has one name left gets the others back, and
    /// names that belong to no record go. Reads every record, unlike an ADD or a DEL.
    ///
    /// # Errors
    /// Only of the file system.
    pub fn repair(&mut self) -> Result<Repairs, StoreError> {
        let mut repairs = Repairs::default();
        loop {
            let found = self.store.audit()?;
            let before = repairs.relisted.len() + repairs.freed.len();
            for (address, key) in found.unlisted {
                let (by_ip, by_id) = (address.to_string(), file_name(&key));
                if self.by_ip.link(by_ip.as_ref(), &self.store.by_id, by_id.as_ref())? {
                    repairs.relisted.push(key);
                }
            }
            for address in found.orphans {
                if self.by_ip.remove(address.to_string())? {
                    repairs.freed.push(address);
                }
            }
            // A record that is listed again may lack other names, and an orphan may have stood in the place of one.
            if repairs.relisted.len() + repairs.freed.len() > before {
                continue;
            }
            for (address, key) in found.unheld {
                let by_ip = address.to_string();
                if self.by_ip.remove(&by_ip)? {
                    self.store.by_id.link(file_name(&key).as_ref(), &self.by_ip, by_ip.as_ref())?;
                    repairs.restored.push(address);
                }
            }
            repairs.freed.retain(|address| !repairs.restored.contains(address));
            (repairs.contested, repairs.strangers) = (found.contested, found.strangers);
            return Ok(repairs);
        }
    }

    /// Finishes what an earlier holder of the lock began.
    pub(super) fn finish_what_was_left(&mut self) -> Result<(), StoreError> {
        for name in self.tmp.names(usize::MAX)? {
            self.finish_release(&name)?;
        }
        Ok(())
    }

    /// Frees the addresses of the record `name` in `tmp`, then removes it. Returns the addresses.
    pub(super) fn finish_release(&mut self, name: &OsStr) -> Result<Vec<IpAddr>, StoreError> {
        let mut freed = Vec::new();
        let content = ignore_damage(self.tmp.read(name))?;
        // A file that is too large to be read has names in `by-ip` all the same.
        let id = match &content {
            Some(content) => Some(content.id),
            None => self.tmp.identify(name)?,
        };
        if let Some(id) = id {
            for by_ip in self.names_by_ip(name, id, content.as_ref())? {
                if self.is_held_by(&by_ip, id, name)? {
                    self.cooldown.retire(&self.by_ip, &by_ip)?;
                    freed.extend(address_of(&by_ip));
                }
            }
        }
        if !self.tmp.remove(name)? {
            // A directory that is not empty is not ours to remove, and must not stand in the way of the next ADD.
            let mut aside = OsString::from("aside.");
            aside.push(name);
            drop(self.tmp.rename(name, &self.store.root, &aside));
        }
        Ok(freed)
    }

    /// Whether a name in `by-ip` belongs to the record `name` in `tmp`: it is the same file, or another file that says
    /// that it is of the same attachment. The latter is what an editor leaves (it writes a new file), and overlayfs
    /// (it copies a file of the lower layer when that is renamed). A file that is listed in `by-id` is not on its way
    /// out, whatever stands in `tmp`.
    fn is_held_by(&self, by_ip: &OsStr, id: FileId, name: &OsStr) -> Result<bool, StoreError> {
        match self.by_ip.identify(by_ip)? {
            None => Ok(false),
            Some(found) if found == id => Ok(true),
            Some(found) if self.store.by_id.identify(name)? == Some(found) => Ok(false),
            Some(_) => {
                let other = self.store.read_by_ip(&self.by_ip, by_ip)?;
                Ok(other.is_some_and(|other| file_name(&other.key()).as_str() == name))
            }
        }
    }

    /// The names that a record in `tmp` may have in `by-ip`.
    fn names_by_ip(
        &self,
        name: &OsStr,
        id: FileId,
        content: Option<&Content>,
    ) -> Result<Vec<OsString>, StoreError> {
        let record = content.and_then(|it| Record::from_json(&it.bytes, &self.tmp.path_of(name)).ok());
        if let Some(record) = record {
            return Ok(record.addresses.iter().map(|address| address.to_string().into()).collect());
        }
        // A damaged record does not say, and what stands in the place of one does not know. Each name with its inode
        // number may be one, or else each name; the caller compares in full.
        let (mut all, mut likely) = (Vec::new(), Vec::new());
        self.by_ip.visit_names(|name, ino| {
            if id.has_inode(ino) {
                likely.push(name.to_owned());
            }
            all.push(name.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(if likely.is_empty() { all } else { likely })
    }

    /// Removes all that an earlier boot has left, then says in which boot the store is. Dying on the way
    /// leaves the old boot id, and the next holder of the lock begins again.
    ///
    /// A record that says it is of this boot stays: that a person removed the file `boot` must not free
    /// addresses that pods are using. So does one that cannot be read but has this boot's id in it.
    pub(super) fn sweep_earlier_boot(&mut self) -> Result<(), StoreError> {
        let store = self.store;
        let mut alive: HashSet<FileId> = HashSet::new();
        for name in store.by_id.names(usize::MAX)? {
            let content = ignore_damage(store.by_id.read(&name))?;
            let is_alive =
                |content: &Content| match Record::from_json(&content.bytes, &store.by_id.path_of(&name)) {
                    Ok(record) => record.is_from(&self.boot),
                    Err(_) => names_boot(&content.bytes, &self.boot),
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
        self.cooldown.clear()?;
        // The boot id spares the next holder the same work, and does nothing else. On a full disk, where it cannot be
        // written, a DEL must work all the same.
        if self.write_boot().is_err() {
            drop(self.tmp.remove(BOOT));
        }
        Ok(())
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
}

/// Whether the id of the boot stands anywhere in these bytes.
fn names_boot(bytes: &[u8], boot: &BootId) -> bool {
    let id = boot.as_str().as_bytes();
    bytes.windows(id.len()).any(|window| window == id)
}

/// `None` for what is damaged or of a newer format: it is passed over here, and reported by those who
/// look at it on its own account.
pub(super) fn ignore_damage<T>(found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Err(StoreError::Damaged(_) | StoreError::NewerFormat { .. }) => Ok(None),
        other => other,
    }
}
