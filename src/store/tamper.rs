//! Noticing that somebody else's hand was in the store.
//!
//! Whoever takes a name out of `by-id` or `by-ip` without the lock (people who are used to host-local free an address
//! with `rm`) breaks what everything else here relies on: that an address is held as long as its record stands. To
//! look at all records each time would cost in proportion to them. So the holder of the lock leaves in its file what
//! the two directories looked like when it let go, and the next one compares: their inodes, and when they were last
//! changed. Any other hand changes that time, and so does a holder that died. Then everything is looked at, once.
//!
//! The time is compared for equality only, so a clock that jumps does not matter. Where a file system, or a kernel
//! older than 6.13, counts time in ticks, a change within the same tick (some milliseconds) goes unnoticed.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::store::guard::StoreGuard;
use crate::store::layout::Dir;

/// Whether the names are as the last holder of the lock left them. Where that cannot be told, they are not.
pub(super) fn is_unbroken(lock: &File, by_id: &Dir, by_ip: &Dir) -> bool {
    let Some(expected) = describe(by_id, by_ip).filter(|_| is_ours_alone(lock)) else { return false };
    // One byte more than there should be: a longer file is another one.
    let mut found = vec![0; expected.len() + 1];
    lock.read_at(&mut found, 0).is_ok_and(|length| found.get(..length) == Some(expected.as_bytes()))
}

/// What is written in the lock's file: always as long, so that writing it is one step.
fn describe(by_id: &Dir, by_ip: &Dir) -> Option<String> {
    let [by_id, by_ip] = [by_id.last_change().ok()?, by_ip.last_change().ok()?];
    Some(format!("by-id {by_id}\nby-ip {by_ip}\n"))
}

/// The lock's file has no name elsewhere: what is written here is nobody else's.
fn is_ours_alone(lock: &File) -> bool {
    lock.metadata().is_ok_and(|metadata| metadata.nlink() == 1)
}

impl StoreGuard<'_> {
    /// Leaves the seal. Where that cannot be done, on a full disk for one, the next holder looks at everything: it is the
    /// price, and no reason to fail.
    pub(super) fn seal(&self) {
        if !self.is_sound || std::thread::panicking() || !self.by_ip.may_seal() {
            return;
        }
        if let Some(seal) = describe(&self.store.by_id, &self.by_ip).filter(|_| is_ours_alone(&self.lock)) {
            let whole = self.lock.set_len(seal.len() as u64);
            let _ = whole.and_then(|()| self.lock.write_all_at(seal.as_bytes(), 0));
        }
    }
}
