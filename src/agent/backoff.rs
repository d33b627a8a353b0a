//! When a failed step is retried.

use std::time::Duration;

use tokio::time::Instant;

/// First pause after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses that grow with each failure in a row.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
    at: Option<Instant>,
}

impl Backoff {
    /// A failure: retry after a pause.
    pub fn fail(&mut self, now: Instant) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.at = Some(now + pause);
    }

    /// A success.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// When to retry, if at all.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Number of failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it is time to retry; if so, the time is forgotten.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.at.is_some_and(|at| at <= now);
        if is_due {
            self.at = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_a_success() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            backoff.fail(now);
            pauses.push((backoff.at().unwrap() - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(
            !backoff.take_due(now) && backoff.take_due(now + LONGEST) && !backoff.take_due(now + LONGEST)
        );
        backoff.succeed();
        assert_eq!((backoff.at(), backoff.failures()), (None, 0));
        backoff.fail(now);
        assert_eq!(backoff.at(), Some(now + FIRST));
    }
}
