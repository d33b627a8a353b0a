//! Cooldown: a freed address is not handed out again for 30 to 60 seconds while others are free, so that connections,
//! caches and conntrack entries of its last pod do not meet the next one.
//!
//! Time is cut into buckets of 30 s, and the bucket in which an address was freed is the name of the
//! directory to which its name goes. No file time is read, and a clock that jumps merely ends the cooldown.

use std::ffi::OsStr;
use std::net::IpAddr;

use crate::store::alloc::{Age, State};
use crate::store::error::StoreError;
use crate::store::layout::Dir;
use crate::store::recovery::ignore_damage;

/// Seconds in a bucket: the shortest cooldown.
const BUCKET_SECONDS: u64 = 30;

/// How many expired names one release removes. More than it adds, so that they never pile up; few, so
/// that it costs the same whatever went before.
const EXPIRE_AT_ONCE: usize = 8;

/// The addresses that cool down.
pub(super) struct Cooldown {
    buckets: Dir,
    bucket: u64,
    current: Option<Dir>,
    previous: Option<Dir>,
}

impl Cooldown {
    /// Those of the store at `root`, at the time `now`.
    pub fn open(root: &Dir, now: u64) -> Result<Self, StoreError> {
        let buckets = root.replace_dir("cooldown")?;
        let bucket = now / BUCKET_SECONDS;
        // What is no directory holds no address.
        let open = |bucket: u64| ignore_damage(buckets.open_dir(bucket.to_string()));
        let current = open(bucket)?;
        let previous = bucket.checked_sub(1).map_or(Ok(None), open)?;
        Ok(Self { buckets, bucket, current, previous })
    }

    /// The state of an address that is not held. (One that was allocated during its cooldown keeps its name here until
    /// that expires; nobody asks.)
    pub fn state_of(&self, address: IpAddr) -> Result<State, StoreError> {
        let name = address.to_string();
        for (bucket, age) in [(&self.current, Age::Recent), (&self.previous, Age::Older)] {
            if let Some(bucket) = bucket
                && bucket.identify(&name)?.is_some()
            {
                return Ok(State::CoolingDown(age));
            }
        }
        Ok(State::Free)
    }

    /// Moves an address from `by_ip` to the current bucket. Where that cannot be done, on a full disk for one, the
    /// address is freed without a cooldown.
    pub fn retire(&mut self, by_ip: &Dir, address: &OsStr) -> Result<(), StoreError> {
        match self.start_cooldown(by_ip, address) {
            Ok(()) => Ok(()),
            Err(_) => by_ip.remove(address).map(|_| ()),
        }
    }

    fn start_cooldown(&mut self, by_ip: &Dir, address: &OsStr) -> Result<(), StoreError> {
        let current = match self.current.take() {
            Some(current) => current,
            None => self.buckets.replace_dir(self.bucket.to_string())?,
        };
        by_ip.rename(address, self.current.insert(current), address).map(|_| ())
    }

    /// Removes some of the expired names: those of every bucket but the current and the previous one. Buckets of the
    /// future count as expired: a clock that was set back has left them.
    pub fn expire_some(&self) -> Result<(), StoreError> {
        let mut left = EXPIRE_AT_ONCE;
        for bucket in self.buckets.names(EXPIRE_AT_ONCE)? {
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

    /// Ends every cooldown.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        (self.current, self.previous) = (None, None);
        for bucket in self.buckets.names(usize::MAX)? {
            self.empty_bucket(&bucket, usize::MAX)?;
        }
        Ok(())
    }

    /// Removes at most `limit` names of a bucket, and the bucket once it is empty. Says how many.
    fn empty_bucket(&self, bucket: &OsStr, limit: usize) -> Result<usize, StoreError> {
        let opened = match self.buckets.open_dir(bucket) {
            // Something else than a directory stands there: it is removed, not looked into.
            Err(StoreError::Damaged(_)) => return self.buckets.remove(bucket).map(|_| 1),
            other => other?,
        };
        let Some(opened) = opened else { return Ok(0) };
        let names = opened.names(limit)?;
        for name in &names {
            opened.remove(name)?;
        }
        if names.len() < limit {
            self.buckets.remove_dir(bucket)?;
        }
        Ok(names.len())
    }
}
