//! What the store takes from outside besides its directory: the time, and leave to go on.
//!
//! Both are values, so that a test can set the clock back, count the steps of an operation, and let the
//! process "die" before any one of them.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// One system call on the store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The verb, as it stands in an error.
    pub operation: &'static str,
    /// The step changes what the next process will see.
    pub changes: bool,
}

/// The surroundings of a store.
pub(super) trait World: Send + Sync {
    /// Seconds since 1970. May jump either way.
    fn unix_seconds(&self) -> u64;

    /// Asked before each step; an error is the step's result, and the step is not taken.
    fn admit(&self, step: Step) -> io::Result<()>;
}

/// The machine's clock, and no step ever refused.
pub(super) struct RealWorld;

impl World for RealWorld {
    fn unix_seconds(&self) -> u64 {
        // A clock before 1970 is a clock that is not set: all that depends on it tolerates any value.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn admit(&self, _: Step) -> io::Result<()> {
        Ok(())
    }
}
