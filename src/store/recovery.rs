//! Putting the store right: after a holder of the lock that died, after a reboot, after somebody's hand.
//!
//! All of it is idempotent, and each step leaves a state that the same cure finishes: whoever dies while
//! mending is mended after.

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

/// What was found not to be right.
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
    /// Files that are none of the store's. Left as they are.
    pub strangers: Vec<PathBuf>,
}

impl StoreGuard<'_> {
    /// Looks at every record and every name, and puts right what can be. For `doctor`, GC and the agent:
    /// unlike everything else here it costs in proportion to what is held.
    ///
    /// # Errors
    /// Only of the file system.
    pub fn mend(&mut self) -> Result<Repairs, StoreError> {
        // What was mended when the lock was taken is told with the rest.
        let mut mended = std::mem::take(&mut self.mended);
        mended.relisted.extend(self.relist()?);
        // First, because one may stand in the place of a name that a record has lost.
        mended.freed.extend(self.remove_orphans(Orphans::All)?);
        let found = self.give_names_back()?;
        mended.freed.retain(|address| !found.restored.contains(address));
        mended.restored.extend(found.restored);
        (mended.contested, mended.strangers) = (found.contested, found.strangers);
        Ok(mended)
    }

    /// Gives each record the names that it has lost. A file of the store says whose it is and which addresses it holds,
    /// so each of its names can bring back the others. Frees nothing.
    pub(super) fn give_names_back(&mut self) -> Result<Repairs, StoreError> {
        let mut mended = Repairs { relisted: self.relist()?, ..Repairs::default() };
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
                    Some(id) if id == content.id => continue,
                    Some(_) if !self.may_replace(by_ip.as_ref(), address, &record)? => {
                        mended.contested.push((address, record.key()));
                        continue;
                    }
                    Some(_) => drop(self.by_ip.remove(&by_ip)?),
                    None => {}
                }
                self.store.by_id.link(&name, &self.by_ip, by_ip.as_ref())?;
                mended.restored.push(address);
            }
        }
        Ok(mended)
    }

    /// Whether a name in `by-ip` that leads to another file is `record`'s to have: that file is a record which says
    /// nothing of the address, so somebody moved it there; or it is what this one was before an editor wrote it anew.
    fn may_replace(&self, name: &OsStr, address: IpAddr, record: &Record) -> Result<bool, StoreError> {
        let Some(content) = ignore_damage(self.by_ip.read(name))? else { return Ok(false) };
        let other = Record::from_json(&content.bytes, &self.by_ip.path_of(name));
        Ok(other.is_ok_and(|other| !other.addresses.contains(&address) || other.key() == record.key()))
    }

    /// Gives the files that are known by an address only their name in `by-id` again, if they are whole and of this
    /// boot: the pod that had the address may still be using it. Says whose they were.
    pub(super) fn relist(&mut self) -> Result<Vec<AttachmentKey>, StoreError> {
        let mut relisted = Vec::new();
        for name in self.orphans()? {
            let record = self.store.read_nameless(&self.by_ip, &name)?;
            let Some(record) = record.filter(|record| record.is_from(&self.boot)) else { continue };
            // One whose release an error has cut short is on its way out: the next holder of the lock finishes that.
            if self.tmp.identify(file_name(&record.key()))?.is_some() {
                continue;
            }
            // If that name is there, the attachment was made anew, and this is what was left of the old one.
            if self.by_ip.link(&name, &self.store.by_id, file_name(&record.key()).as_ref())? {
                relisted.push(record.key());
            }
        }
        Ok(relisted)
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
        let content = ignore_damage(self.tmp.read(name))?;
        // What cannot be read, because it is too large for one, has its names all the same.
        let id = match &content {
            Some(content) => Some(content.id),
            None => self.tmp.identify(name)?,
        };
        if let Some(id) = id {
            for by_ip in self.names_by_ip(name, id, content.as_ref())? {
                // The name may be another's by now, or gone, if this is not the first attempt.
                if self.by_ip.identify(&by_ip)? == Some(id) {
                    self.rest.retire(&self.by_ip, &by_ip)?;
                    freed.extend(address_of(&by_ip));
                }
            }
        }
        if !self.tmp.remove(name)? {
            // A directory with something in it is nobody's to remove, and must not stand in the way of the next ADD.
            let mut aside = OsString::from("aside.");
            aside.push(name);
            drop(self.tmp.rename(name, &self.store.root, &aside));
        }
        Ok(freed)
    }

    /// The names that a record in `tmp` may have in `by-ip`.
    fn names_by_ip(
        &self,
        name: &OsStr,
        id: FileId,
        content: Option<&Content>,
    ) -> Result<Vec<OsString>, StoreError> {
        if content.is_some_and(|content| !content.has_other_names) {
            return Ok(Vec::new());
        }
        let record = content.and_then(|it| Record::from_json(&it.bytes, &self.tmp.path_of(name)).ok());
        if let Some(record) = record {
            return Ok(record.addresses.iter().map(|address| address.to_string().into()).collect());
        }
        // It does not say. Every name of its inode number may be one; the caller compares in full.
        let (mut all, mut likely) = (Vec::new(), Vec::new());
        self.by_ip.visit_names(|name, ino| {
            if id.has_inode(ino) {
                likely.push(name.to_owned());
            }
            all.push(name.to_owned());
            ControlFlow::Continue(())
        })?;
        // Some file systems list other numbers than stat(2) gives (overlayfs).
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
        self.rest.clear()?;
        // The stamp spares the next holder the same work, and does nothing else. On a full disk, where it cannot be
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

    /// Removes the names in `by-ip` that belong to no record. Says which addresses that has freed.
    pub(super) fn remove_orphans(&mut self, which: Orphans) -> Result<Vec<IpAddr>, StoreError> {
        self.relist()?;
        let mut freed = Vec::new();
        for name in self.orphans()? {
            let is_of_nobody = match self.store.read_nameless(&self.by_ip, &name)? {
                // What is left of an attachment that was made anew. If something else stands in the place of its
                // record, it may be this one that its pod uses.
                Some(old) => matches!(self.store.find(&old.key()), Ok(Some(_))),
                None => which == Orphans::All,
            };
            if is_of_nobody && self.by_ip.remove(&name)? {
                freed.extend(address_of(&name));
            }
        }
        Ok(freed)
    }

    /// The names in `by-ip` that belong to no record.
    fn orphans(&self) -> Result<Vec<OsString>, StoreError> {
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
        let mut orphans = Vec::new();
        for name in suspects {
            if self.by_ip.identify(&name)?.is_some_and(|id| !owners.contains(&id)) {
                orphans.push(name);
            }
        }
        Ok(orphans)
    }
}

/// Which names in `by-ip` without a record are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphans {
    /// Those of which it is certain that no pod uses them: their file is whole, and its attachment has another record
    /// by now.
    OfNobody,
    /// Also those whose file cannot be read, so that nobody can know: somebody has asked for it.
    All,
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
