//! Allocating and releasing addresses: what only the holder of the store's lock may do.

use std::fs::File;
use std::net::IpAddr;
use std::ops::ControlFlow;

use crate::cni::ids::AttachmentKey;
use crate::config::range::RangeSet;
use crate::store::alloc::{Choice, State, assign_requested, choose_address};
use crate::store::boot::BootId;
use crate::store::cooldown::Cooldown;
use crate::store::cursor::Cursor;
use crate::store::error::StoreError;
use crate::store::handle::{BY_IP, Store, TMP, address_of, file_name};
use crate::store::layout::Dir;
use crate::store::lock::{AttachmentLock, Flock};
use crate::store::record::{Claim, Record};

/// How many addresses are tried one by one before the whole directory is read. A try costs one stat;
/// reading 60,000 names costs as much as some ten thousand tries, and a set must be nearly full before
/// so many neighbours are held.
const TRIES: usize = 256;

/// The store, locked. Dropped, or when its process dies, it is unlocked.
///
/// Drop it before anything that waits for the kernel.
pub struct StoreGuard<'store> {
    pub(super) store: &'store Store,
    pub(super) boot: BootId,
    pub(super) tmp: Dir,
    pub(super) by_ip: Dir,
    pub(super) cooldown: Cooldown,
    pub(super) _lock: Flock,
    now: u64,
}

/// What a release has freed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The addresses; all of those that the attachment still had.
    pub addresses: Vec<IpAddr>,
}

impl<'store> StoreGuard<'store> {
    /// Finishes what the last holder left, or, if it is the first in this boot, removes all of earlier boots.
    pub(super) fn begin(store: &'store Store, lock: Flock, boot: BootId) -> Result<Self, StoreError> {
        let now = store.env.unix_seconds();
        let tmp = store.root.replace_dir(TMP)?;
        let by_ip = store.root.replace_dir(BY_IP)?;
        let cooldown = Cooldown::open(&store.root, now)?;
        let mut guard = Self { store, boot, tmp, by_ip, cooldown, _lock: lock, now };
        if guard.store.is_of(&guard.boot)? {
            guard.finish_what_was_left()?;
        } else {
            guard.sweep_earlier_boot()?;
            guard.repair()?;
        }
        Ok(guard)
    }

    /// Gives the attachment one address of each set, in the order of the sets, and remembers it: those
    /// `requested`, where one fits the set, else the next in turn. All or nothing.
    ///
    /// The attachment's lock comes with it; keep it until the kernel has what the record says, or has not again.
    ///
    /// # Errors
    /// [`StoreError::AlreadyAttached`], [`StoreError::Exhausted`]; for a requested address
    /// [`StoreError::Taken`], [`StoreError::Outside`], [`StoreError::Reserved`], [`StoreError::Surplus`].
    pub fn allocate(
        &mut self,
        claim: Claim,
        sets: &[RangeSet],
        requested: &[IpAddr],
    ) -> Result<(Record, AttachmentLock), StoreError> {
        self.refuse_attached(&claim.key)?;
        let assigned = assign_requested(sets, requested)?;
        let cursor = Cursor::read(&self.store.root)?;
        let mut addresses = Vec::with_capacity(sets.len());
        let mut last = Vec::with_capacity(sets.len());
        for (set, requested) in sets.iter().zip(assigned) {
            let before = cursor.last_of(set);
            match requested {
                // A requested address does not move the cursor: else it would come round to all too soon.
                Some(address) => {
                    self.refuse_taken(address)?;
                    addresses.push(address);
                    last.extend(before);
                }
                None => {
                    let address = self.next_address(set, before, &addresses)?;
                    addresses.push(address);
                    last.push(address);
                }
            }
        }
        let record = Record::new(claim, addresses, self.boot.clone(), self.now);
        self.commit(record, || cursor.advance(&self.store.root, &last))
    }

    /// Remembers an attachment whose addresses another IPAM plugin has chosen. All or nothing.
    ///
    /// # Errors
    /// [`StoreError::AlreadyAttached`]; [`StoreError::Taken`] if that plugin gave out what is held.
    pub fn adopt(
        &mut self,
        claim: Claim,
        addresses: &[IpAddr],
    ) -> Result<(Record, AttachmentLock), StoreError> {
        self.refuse_attached(&claim.key)?;
        self.refuse_held(addresses)?;
        let record = Record::new(claim, addresses.to_vec(), self.boot.clone(), self.now);
        self.commit(record, || Ok(()))
    }

    /// Forgets the attachment and frees its addresses, which then cool down for a while. A damaged record is
    /// released like any other. `None` if there is none: repeating a release is no error.
    ///
    /// # Errors
    /// Only of the file system. Once the record has left its place, the next holder of the lock finishes
    /// what an error has cut short.
    pub fn release(&mut self, key: &AttachmentKey) -> Result<Option<Released>, StoreError> {
        let name = file_name(key);
        if !self.store.by_id.rename(name.as_ref(), &self.tmp, name.as_ref())? {
            return Ok(None);
        }
        let addresses = self.finish_release(name.as_ref())?;
        // Housekeeping that the next release does as well: no reason to fail this one.
        drop(self.cooldown.expire_some());
        Ok(Some(Released { addresses }))
    }

    /// Whether an attachment holds one of the addresses.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if so.
    pub fn refuse_held(&self, addresses: &[IpAddr]) -> Result<(), StoreError> {
        addresses.iter().try_for_each(|&address| self.refuse_taken(address))
    }

    fn refuse_attached(&self, key: &AttachmentKey) -> Result<(), StoreError> {
        match self.store.find(key)? {
            Some(_) => Err(StoreError::AlreadyAttached { key: key.clone() }),
            None => Ok(()),
        }
    }

    fn refuse_taken(&self, address: IpAddr) -> Result<(), StoreError> {
        match self.by_ip.identify(address.to_string())? {
            None => Ok(()),
            Some(_) => Err(StoreError::Taken { address, holder: self.holder_of(address) }),
        }
    }

    /// Whose an address is, for a message.
    fn holder_of(&self, address: IpAddr) -> String {
        let name = address.to_string();
        let path = self.by_ip.path_of(&name);
        let record = match self.by_ip.read(&name) {
            Ok(Some(content)) => Record::from_json(&content.bytes, &path).ok(),
            _ => None,
        };
        match record {
            Some(record) => record.key().to_string(),
            None => format!("a record that cannot be read, {}", path.display()),
        }
    }

    fn next_address(
        &self,
        set: &RangeSet,
        last: Option<IpAddr>,
        chosen: &[IpAddr],
    ) -> Result<IpAddr, StoreError> {
        if let Choice::Take(address) = self.search(set, last, chosen)? {
            return Ok(address);
        }
        let held = self.held_addresses(set)?.len() as u128;
        Err(StoreError::Exhausted { set: set.to_string(), held, capacity: set.capacity() })
    }

    fn search(&self, set: &RangeSet, last: Option<IpAddr>, chosen: &[IpAddr]) -> Result<Choice, StoreError> {
        let one_by_one = choose_address(set, last, TRIES, |address| {
            if chosen.contains(&address) || self.by_ip.identify(address.to_string())?.is_some() {
                return Ok(State::Held);
            }
            self.cooldown.state_of(address)
        })?;
        if one_by_one != Choice::GaveUp {
            return Ok(one_by_one);
        }
        let held = self.held_addresses(set)?;
        choose_address(set, last, usize::MAX, |address| {
            if chosen.contains(&address) || held.binary_search(&address).is_ok() {
                return Ok(State::Held);
            }
            self.cooldown.state_of(address)
        })
    }

    /// The addresses of the set that are held, sorted: 17 bytes each, where a hash set would take 60.
    fn held_addresses(&self, set: &RangeSet) -> Result<Vec<IpAddr>, StoreError> {
        let mut held = Vec::new();
        self.by_ip.visit_names(|name, _| {
            held.extend(address_of(name).filter(|&address| set.hands_out(address)));
            ControlFlow::Continue(())
        })?;
        held.sort_unstable();
        Ok(held)
    }

    /// Writes the record and gives it its names. `before_commit` is done last but for the commit itself.
    fn commit(
        &mut self,
        record: Record,
        before_commit: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(Record, AttachmentLock), StoreError> {
        let name = file_name(&record.key());
        let file = self.tmp.create(&name)?;
        let mut linked = Vec::with_capacity(record.addresses.len());
        match self.give_names(&record, &name, file, &mut linked, before_commit) {
            Ok(file) => {
                let lock = AttachmentLock::new(record.key(), file);
                Ok((record, lock))
            }
            Err(error) => {
                // What cannot be taken back now stays in `tmp`, and the next holder of the lock does it.
                let mut is_undone = true;
                for address in linked {
                    is_undone &= self.by_ip.remove(address.to_string()).is_ok();
                }
                if is_undone {
                    drop(self.tmp.remove(&name));
                }
                Err(error)
            }
        }
    }

    fn give_names(
        &self,
        record: &Record,
        name: &str,
        file: File,
        linked: &mut Vec<IpAddr>,
        before_commit: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<Flock, StoreError> {
        // Held before it can be found, so that nobody sees the attachment as one that lies idle.
        let file =
            Flock::try_new(file).map_err(|error| StoreError::io("lock", &self.tmp.path_of(name), error))?;
        self.tmp.write(name, &file, &record.to_json())?;
        for &address in &record.addresses {
            let by_ip = address.to_string();
            if !self.tmp.link(name.as_ref(), &self.by_ip, by_ip.as_ref())? {
                return Err(StoreError::Taken { address, holder: self.holder_of(address) });
            }
            linked.push(address);
        }
        before_commit()?;
        match self.tmp.rename(name.as_ref(), &self.store.by_id, name.as_ref())? {
            true => Ok(file),
            false => Err(StoreError::io(
                "rename",
                &self.tmp.path_of(name),
                std::io::Error::from(std::io::ErrorKind::NotFound),
            )),
        }
    }
}
