//! The store of one network: opening it, and what may be done without its lock.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cni::ids::{AttachmentKey, ContainerId, IfName, NetworkName};
use crate::config::range::RangeSet;
use crate::store::boot::BootId;
use crate::store::env::{Env, System};
use crate::store::error::{Damaged, StoreError};
use crate::store::guard::StoreGuard;
use crate::store::layout::Dir;
use crate::store::lock::{AttachmentLock, deadline_after, lock_until};
use crate::store::record::Record;
use crate::store::recovery::ignore_damage;

pub(super) const LOCK: &str = "lock";
pub(super) const BOOT: &str = "boot";
pub(super) const TMP: &str = "tmp";
pub(super) const BY_IP: &str = "by-ip";
const BY_ID: &str = "by-id";

/// The records of one network.
pub struct Store {
    pub(super) network: NetworkName,
    pub(super) root: Dir,
    pub(super) by_id: Dir,
    pub(super) env: Arc<dyn Env>,
}

/// An attachment that the store knows.
#[derive(Debug)]
pub struct Entry {
    /// From the file's name, so that it is known even if the file is damaged.
    pub key: AttachmentKey,
    pub record: Result<Record, StoreError>,
}

/// How much of a range set is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Addresses that have a record, those of dead pods of this boot included.
    pub held: u128,
    /// Addresses that could be handed out now, those in cooldown included; at most `u128::MAX`.
    pub free: u128,
}

impl Store {
    /// Opens the store of `network` below `data_dir`; what is missing of both is made, for root alone.
    ///
    /// # Errors
    /// When a directory cannot be made, or something else stands in its place.
    pub fn open(data_dir: &Path, network: &NetworkName) -> Result<Self, StoreError> {
        Self::open_in(Arc::new(System), data_dir, network)
    }

    pub(super) fn open_in(
        env: Arc<dyn Env>,
        data_dir: &Path,
        network: &NetworkName,
    ) -> Result<Self, StoreError> {
        let root = Dir::make_root(data_dir, Arc::clone(&env))?.make_dir(network.as_str())?;
        let by_id = root.replace_dir(BY_ID)?;
        Ok(Self { network: network.clone(), root, by_id, env })
    }

    /// Opens the store if there is one, and writes nothing. `None` means that no attachment has a record.
    ///
    /// # Errors
    /// When something else stands in the place of a directory.
    pub fn open_existing(data_dir: &Path, network: &NetworkName) -> Result<Option<Self>, StoreError> {
        let env: Arc<dyn Env> = Arc::new(System);
        let Some(data_dir) = Dir::open_root(data_dir, Arc::clone(&env))? else { return Ok(None) };
        let Some(root) = data_dir.open_dir(network.as_str())? else { return Ok(None) };
        let Some(by_id) = root.open_dir(BY_ID)? else { return Ok(None) };
        Ok(Some(Self { network: network.clone(), root, by_id, env }))
    }

    /// As [`Store::open_existing`], for a removal: that must not fail on what an ADD would put right, such as a file in
    /// the place of the directory of records.
    ///
    /// # Errors
    /// When something else stands in the place of the network's directory.
    pub fn open_for_removal(data_dir: &Path, network: &NetworkName) -> Result<Option<Self>, StoreError> {
        match Self::open_existing(data_dir, network) {
            Err(StoreError::Damaged(_)) => Self::open(data_dir, network).map(Some),
            other => other,
        }
    }

    /// Takes the store's lock, waiting at most `patience`, and finishes what a holder that died, or a
    /// reboot, has left. `boot` is the current boot.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`]; else when the store cannot be written.
    pub fn lock(&self, boot: &BootId, patience: Duration) -> Result<StoreGuard<'_>, StoreError> {
        let deadline = deadline_after(patience);
        loop {
            let (file, id) = self.root.open_lock(LOCK)?;
            let failure = |error| StoreError::io("lock", &self.root.path_of(LOCK), error);
            let Some(file) = lock_until(file, deadline).map_err(failure)? else {
                return Err(StoreError::LockTimeout { path: self.root.path_of(LOCK), waited: patience });
            };
            // A file that was removed while it was waited for locks nobody out who comes later.
            if self.root.identify(LOCK)? == Some(id) {
                return StoreGuard::begin(self, file, boot.clone());
            }
        }
    }

    /// Removes what earlier boots have left, if nobody has had the lock since. Call it before [`Store::hold`]: the next
    /// holder of the store's lock removes a record of an earlier boot even if somebody holds it, and by then an ADD may
    /// have put another record in its place, which the caller does not hold.
    ///
    /// # Errors
    /// As [`Store::lock`].
    pub fn discard_previous_boots(&self, boot: &BootId, patience: Duration) -> Result<(), StoreError> {
        if !self.is_of(boot)? {
            drop(self.lock(boot, patience)?);
        }
        Ok(())
    }

    /// The attachment's record. `None` if it has none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::NewerFormat`]: there is one, but it cannot be read.
    pub fn find(&self, key: &AttachmentKey) -> Result<Option<Record>, StoreError> {
        let name = file_name(key);
        let Some(content) = self.by_id.read(&name)? else { return Ok(None) };
        let path = self.by_id.path_of(&name);
        let record = Record::from_json(&content.bytes, &path)?;
        if (&record.container, &record.ifname) != (&key.container, &key.ifname)
            || record.network != self.network
        {
            let reason = format!("it is the record of another attachment, {}", record.key());
            return Err(Damaged::new(path, reason).into());
        }
        Ok(Some(record))
    }

    /// The key of every attachment that has a record, in no order. Reads none of them.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn keys(&self) -> Result<Vec<AttachmentKey>, StoreError> {
        Ok(self.by_id.names(usize::MAX)?.iter().filter_map(|name| self.key_of(name)).collect())
    }

    /// Every attachment that has a record, in no order; one that cannot be read does not hide the others.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn attachments(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for name in self.by_id.names(usize::MAX)? {
            let Some(key) = self.key_of(&name) else { continue };
            match self.find(&key).transpose() {
                Some(record) => entries.push(Entry { key, record }),
                // Released since it was listed.
                None => continue,
            }
        }
        Ok(entries)
    }

    /// The addresses that are held, in no order.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn held(&self) -> Result<Vec<IpAddr>, StoreError> {
        let mut held = Vec::new();
        if let Some(by_ip) = self.root.open_dir(BY_IP)? {
            by_ip.visit_names(|name, _| {
                held.extend(address_of(name));
                ControlFlow::Continue(())
            })?;
        }
        Ok(held)
    }

    /// The record of whoever holds an address. `None` if nobody does.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn holder(&self, address: IpAddr) -> Result<Option<Record>, StoreError> {
        let Some(by_ip) = self.root.open_dir(BY_IP)? else { return Ok(None) };
        let name = address.to_string();
        let content = by_ip.read(&name)?;
        content.map(|content| Record::from_json(&content.bytes, &by_ip.path_of(&name))).transpose()
    }

    /// How much of each set is in use, as far as can be told without a lock. Writes nothing. What an
    /// earlier boot left counts as free: the next holder of the lock removes it.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn usage(&self, boot: &BootId, sets: &[RangeSet]) -> Result<Vec<Usage>, StoreError> {
        let mut held = vec![0_u128; sets.len()];
        if self.is_of(boot)?
            && let Some(by_ip) = self.root.open_dir(BY_IP)?
        {
            by_ip.visit_names(|name, _| {
                if let Some(address) = address_of(name) {
                    for (set, held) in sets.iter().zip(&mut held) {
                        *held += u128::from(set.hands_out(address));
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        let usage =
            |(set, held): (&RangeSet, u128)| Usage { held, free: set.capacity().saturating_sub(held) };
        Ok(sets.iter().zip(held).map(usage).collect())
    }

    /// Locks an attachment, waiting at most `patience` for an ADD or a DEL that has it locked. `None` if it has no
    /// record, or has lost it meanwhile.
    ///
    /// Never call this while holding the store's lock: whoever holds the attachment may be waiting for that. It keeps a
    /// record from being removed only if that is of this boot, see [`Store::discard_previous_boots`].
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`]; [`StoreError::Damaged`] if no regular file stands there (which
    /// nobody can hold, and which [`StoreGuard::release`] removes all the same).
    pub fn hold(
        &self,
        key: &AttachmentKey,
        patience: Duration,
    ) -> Result<Option<AttachmentLock>, StoreError> {
        let name = file_name(key);
        let deadline = deadline_after(patience);
        while let Some(content) = self.by_id.read(&name)? {
            let path = || self.by_id.path_of(&name);
            let locked = lock_until(content.file, deadline);
            let Some(file) = locked.map_err(|error| StoreError::io("lock", &path(), error))? else {
                return Err(StoreError::LockTimeout { path: path(), waited: patience });
            };
            // Another DEL may have released it while it was waited for, and another ADD come after.
            if self.by_id.identify(&name)? == Some(content.id) {
                return Ok(Some(AttachmentLock::new(key.clone(), file)));
            }
        }
        Ok(None)
    }

    /// Locks an attachment if nobody has it locked. `None` if somebody has, or if it has no record: in both cases there
    /// is nothing to be done with it now.
    ///
    /// # Errors
    /// As [`Store::hold`], without the waiting.
    pub fn try_hold(&self, key: &AttachmentKey) -> Result<Option<AttachmentLock>, StoreError> {
        match self.hold(key, Duration::ZERO) {
            Err(StoreError::LockTimeout { .. }) => Ok(None),
            other => other,
        }
    }

    /// The record behind a name in `by-ip`. `None` if the file is no record of this network, or one that does not list
    /// that address.
    pub(super) fn read_by_ip(&self, by_ip: &Dir, name: &OsStr) -> Result<Option<Record>, StoreError> {
        let Some(content) = ignore_damage(by_ip.read(name))? else { return Ok(None) };
        let record = ignore_damage(Record::from_json(&content.bytes, &by_ip.path_of(name)).map(Some))?;
        let is_whole = |record: &Record| {
            record.network == self.network
                && address_of(name).is_some_and(|it| record.addresses.contains(&it))
        };
        Ok(record.filter(is_whole))
    }

    /// The store was last changed in that boot.
    pub(super) fn is_of(&self, boot: &BootId) -> Result<bool, StoreError> {
        match self.root.read(BOOT) {
            Ok(content) => {
                Ok(content.is_some_and(|content| content.bytes.trim_ascii() == boot.as_str().as_bytes()))
            }
            // Whatever stands there is no boot id. The sweep replaces it.
            Err(StoreError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The inverse of [`file_name`].
    pub(super) fn key_of(&self, name: &OsStr) -> Option<AttachmentKey> {
        let (container, ifname) = name.to_str()?.split_once('@')?;
        Some(AttachmentKey {
            network: self.network.clone(),
            container: ContainerId::parse(container).ok()?,
            ifname: IfName::parse(ifname).ok()?,
        })
    }
}

/// The name of an attachment's record. No container id holds an `@`, which an interface's name may; neither holds a `/`.
pub(super) fn file_name(key: &AttachmentKey) -> String {
    format!("{}@{}", key.container, key.ifname)
}

/// The address that a name in `by-ip` stands for.
pub(super) fn address_of(name: &OsStr) -> Option<IpAddr> {
    name.to_str()?.parse().ok()
}
