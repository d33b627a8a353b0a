//! What the store takes from outside besides its directory: the time, and a point before each system call at which a
//! test can fail it.
//!
//! So a test can set the clock back, count the system calls of an operation, and let the process "die" before any one
//! of them.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// A system call on the store's files that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FaultPoint {
    /// The verb, as it stands in an error.
    pub operation: &'static str,
    /// The call changes what the next process will see.
    pub changes: bool,
}

/// The clock, and the fault points. Tests have their own.
pub(super) trait Env: Send + Sync {
    /// Seconds since 1970. May jump either way.
    fn unix_seconds(&self) -> u64;

    /// Asked before each call; an error is the call's result, and the call is not made.
    fn admit(&self, step: FaultPoint) -> io::Result<()>;
}

/// The machine's clock, and no faults.
pub(super) struct System;

impl Env for System {
    fn unix_seconds(&self) -> u64 {
        // A clock before 1970 is a clock that is not set: all that depends on it tolerates any value.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn admit(&self, _: FaultPoint) -> io::Result<()> {
        Ok(())
    }
}
