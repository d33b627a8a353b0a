//! Rest: a freed address is not handed out again for 30 to 60 seconds, so that connections, caches and
//! conntrack entries of its last pod do not meet the next one.
//!
//! Time is cut into buckets of 30 s, and the bucket in which an address was freed is the name of the
//! directory in which it rests: no file time is read, and a clock that jumps merely ends the rest.

use std::ffi::OsStr;
use std::net::IpAddr;

use crate::store::alloc::{Rested, State};
use crate::store::error::StoreError;
use crate::store::layout::Dir;
use crate::store::recovery::ignore_damage;

/// Seconds in a bucket: the least time that an address rests.
const BUCKET_SECONDS: u64 = 30;

/// How many expired names one release removes. More than it adds, so that they never pile up; few, so
/// that it costs the same whatever went before.
const EXPIRE_AT_ONCE: usize = 8;

/// The addresses that rest.
pub(super) struct Rest {
    resting: Dir,
    bucket: u64,
    current: Option<Dir>,
    previous: Option<Dir>,
}

impl Rest {
    /// Those of the store at `root`, at the time `now`.
    pub fn open(root: &Dir, now: u64) -> Result<Self, StoreError> {
        let resting = root.replace_dir("resting")?;
        let bucket = now / BUCKET_SECONDS;
        // What is no directory is nobody's rest.
        let open = |bucket: u64| ignore_damage(resting.open_dir(bucket.to_string()));
        let current = open(bucket)?;
        let previous = bucket.checked_sub(1).map_or(Ok(None), open)?;
        Ok(Self { resting, bucket, current, previous })
    }

    /// The state of an address that is not held. (One that was taken out of its rest keeps its name here
    /// until that expires; nobody asks.)
    pub fn state_of(&self, address: IpAddr) -> Result<State, StoreError> {
        let name = address.to_string();
        for (bucket, rested) in [(&self.current, Rested::Short), (&self.previous, Rested::Long)] {
            if let Some(bucket) = bucket
                && bucket.identify(&name)?.is_some()
            {
                return Ok(State::Resting(rested));
            }
        }
        Ok(State::Free)
    }

    /// Moves an address from `by_ip` to its rest. If that cannot be done, on a full disk for one, the
    /// address is freed without: rest is a courtesy, freeing is not.
    pub fn retire(&mut self, by_ip: &Dir, address: &OsStr) -> Result<(), StoreError> {
        match self.lay_down(by_ip, address) {
            Ok(()) => Ok(()),
            Err(_) => by_ip.remove(address).map(|_| ()),
        }
    }

    fn lay_down(&mut self, by_ip: &Dir, address: &OsStr) -> Result<(), StoreError> {
        let current = match self.current.take() {
            Some(current) => current,
            None => self.resting.replace_dir(self.bucket.to_string())?,
        };
        by_ip.rename(address, self.current.insert(current), address).map(|_| ())
    }

    /// Removes some of what has rested enough: every bucket but the current and the previous one, later
    /// ones included, which a clock set back has left.
    pub fn expire_some(&self) -> Result<(), StoreError> {
        let mut left = EXPIRE_AT_ONCE;
        for bucket in self.resting.names(EXPIRE_AT_ONCE)? {
            let Some(number) = bucket.to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            if number == self.bucket || number.checked_add(1) == Some(self.bucket) {
                continue;
            }
            left -= self.empty_bucket(&bucket, left)?;
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Ends every rest.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        (self.current, self.previous) = (None, None);
        for bucket in self.resting.names(usize::MAX)? {
            self.empty_bucket(&bucket, usize::MAX)?;
        }
        Ok(())
    }

    /// Removes at most `limit` names of a bucket, and the bucket once it is empty. Says how many.
    fn empty_bucket(&self, bucket: &OsStr, limit: usize) -> Result<usize, StoreError> {
        let opened = match self.resting.open_dir(bucket) {
            // Something else than a directory stands there: it is removed, not looked into.
            Err(StoreError::Damaged(_)) => return self.resting.remove(bucket).map(|_| 1),
            other => other?,
        };
        let Some(opened) = opened else { return Ok(0) };
        let names = opened.names(limit)?;
        for name in &names {
            opened.remove(name)?;
        }
        if names.len() < limit {
            self.resting.remove_dir(bucket)?;
        }
        Ok(names.len())
    }
}
