//! Keeping what is known of policies, namespaces and pods on disk, for `ferrulectl policy` and doctor.
//!
//! It is for people, so it may be some seconds old: it is written at most every five seconds, for changes of other
//! nodes' pods alone every thirty, and for no more than a twentieth of the time.

use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::agent::policy::driver::Driver;
use crate::policy::object::Event;

const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_OF_OTHERS: Duration = Duration::from_secs(30);

/// How many times as long as it took there is a pause.
const SHARE: u32 = 20;

/// When it is written next.
#[derive(Debug, Clone, Default)]
pub struct Keeping {
    is_wanted: bool,
    is_wanted_of_others: bool,
    /// When it was written last, and how long that took.
    last: Option<(Instant, Duration)>,
    /// Whether there is no policy, and that is known on disk as well.
    has_none: bool,
}

impl Keeping {
    /// Something changed that a person may ask about.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// The API server said this.
    pub fn want_after(&mut self, event: &Event) {
        match event {
            Event::AnyPod(_) => self.is_wanted_of_others = true,
            _ => self.is_wanted = true,
        }
    }

    /// When, if at all.
    pub fn at(&self) -> Option<Instant> {
        let pause = match (self.is_wanted, self.is_wanted_of_others) {
            (true, _) => PAUSE,
            (false, true) => PAUSE_OF_OTHERS,
            (false, false) => return None,
        };
        Some(self.last.map_or_else(Instant::now, |(at, took)| at + pause.max(took * SHARE)))
    }

    /// Whether it is time; if so, it is wanted no longer.
    fn take_due(&mut self) -> bool {
        let is_due = self.at().is_some_and(|at| at <= Instant::now());
        if is_due {
            (self.is_wanted, self.is_wanted_of_others) = (false, false);
        }
        is_due
    }
}

impl Driver {
    /// Writes it, if it is time and everything is known.
    pub(super) fn keep_objects(&mut self) {
        if !self.planner.is_complete() || !self.keeping.take_due() {
            return;
        }
        let objects = self.planner.objects();
        let has_none = objects.is_without_policies();
        if has_none && self.keeping.has_none {
            return;
        }
        let begin = Instant::now();
        let kept = self.store().and_then(|store| match store {
            Some(store) => Ok(store.remember_policy_objects(&self.boot, objects)?),
            None => Ok(()),
        });
        let took = begin.elapsed();
        self.metrics.step_took("policy_objects", took);
        self.keeping.last = Some((Instant::now(), took));
        self.keeping.has_none = has_none && kept.is_ok();
        if let Err(reason) = kept {
            self.metrics.step_failed("policy_objects");
            error!(step = "policy_objects", %reason, "step failed, will retry");
            self.keeping.want();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::object::Feed;

    #[test]
    fn the_first_comes_at_once_and_others_pods_can_wait() {
        let mut keeping = Keeping::default();
        assert!(keeping.at().is_none() && !keeping.take_due());
        keeping.want_after(&Event::AnyPod(Feed::ListEnds));
        assert!(keeping.take_due() && !keeping.take_due());
        let now = Instant::now();
        keeping.last = Some((now, Duration::ZERO));
        keeping.want_after(&Event::AnyPod(Feed::ListEnds));
        assert_eq!(keeping.at(), Some(now + PAUSE_OF_OTHERS));
        keeping.want_after(&Event::OwnPod(Feed::ListEnds));
        assert_eq!(keeping.at(), Some(now + PAUSE));
        assert!(!keeping.take_due());
        // What takes long is done less often.
        keeping.last = Some((now, Duration::from_secs(1)));
        assert_eq!(keeping.at(), Some(now + Duration::from_secs(20)));
    }
}
