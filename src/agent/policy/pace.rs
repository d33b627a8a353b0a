//! How often something that costs time is done: at most once a second, and for no more than a twentieth of the time.

use std::time::Duration;

use tokio::time::Instant;

/// Least time between two.
const PAUSE: Duration = Duration::from_secs(1);

/// How many times as long as it took there is a pause.
const SHARE: u32 = 20;

/// When something is done next.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    is_wanted: bool,
    not_before: Option<Instant>,
}

impl Pace {
    /// It is to be done as soon as it may.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When, if at all.
    pub fn at(&self) -> Option<Instant> {
        self.is_wanted.then(|| self.not_before.unwrap_or_else(Instant::now))
    }

    /// Whether it is time; if so, it is wanted no longer.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.is_wanted && self.not_before.is_none_or(|at| at <= now);
        self.is_wanted &= !is_due;
        is_due
    }

    /// It was done, or tried, from `began` to `now`.
    pub fn done(&mut self, began: Instant, now: Instant) {
        self.not_before = Some(now + (now.duration_since(began) * SHARE).max(PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_comes_at_once_and_the_next_after_a_pause() {
        let mut pace = Pace::default();
        assert_eq!(pace.at(), None);
        pace.want();
        let now = Instant::now();
        assert!(pace.take_due(now) && !pace.take_due(now));
        pace.done(now, now);
        pace.want();
        assert!(!pace.take_due(now) && pace.take_due(now + PAUSE));
        // What takes long is done less often.
        let later = now + Duration::from_millis(200);
        pace.done(now, later);
        pace.want();
        assert_eq!(pace.at(), Some(later + Duration::from_secs(4)));
    }
}
