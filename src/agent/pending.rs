//! What the agent has to do next, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::backoff::Backoff;
use crate::agent::drift::Parts;

/// How long changes of Nodes are gathered before they are applied: Nodes come in crowds.
pub const GATHER: Duration = Duration::from_millis(20);

/// The same for drift: it comes in crowds as well, and every millisecond loses packets.
const GATHER_DRIFT: Duration = Duration::from_millis(5);

/// How long after a change of the table by others each of its elements is compared. Pods that go change it too, so this
/// is a pause between two comparisons.
const TABLE_PAUSE: Duration = Duration::from_secs(1);

/// How long after a change the state file is written, so that a crowd of changes is written once.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// What one reconciliation has to do.
#[derive(Debug, Default)]
pub struct Due {
    /// Parts of the node to compare and to repair.
    pub parts: Parts,
    /// Peers whose routes change; the routes of all others stay.
    pub peers: BTreeSet<String>,
    /// Whether each element of the table is compared.
    pub whole_table: bool,
    /// When drift was first heard of, if that is why.
    pub drifted: Option<Instant>,
}

/// Work that is waiting.
#[derive(Debug, Default)]
pub struct Pending {
    due: Due,
    /// When it is to be done.
    at: Option<Instant>,
    /// What failed, and when it is retried.
    failed: Parts,
    backoff: Backoff,
    whole_table_at: Option<Instant>,
    save_at: Option<Instant>,
}

impl Pending {
    /// Adds parts, to be done after that time at the latest.
    pub fn add(&mut self, parts: Parts, after: Duration) {
        if !parts.is_empty() {
            self.due.parts = self.due.parts.or(parts);
            self.hurry(after);
        }
    }

    /// Adds all parts, and each element of the table.
    pub fn add_all(&mut self, after: Duration) {
        self.due.whole_table = true;
        self.add(Parts::ALL, after);
    }

    /// Adds peers whose routes change.
    pub fn add_peers(&mut self, names: BTreeSet<String>) {
        if !names.is_empty() {
            self.due.peers.extend(names);
            self.hurry(GATHER);
        }
    }

    /// Adds parts that somebody else changed. `is_missed`: what was changed is not known.
    pub fn add_drift(&mut self, parts: Parts, is_missed: bool) {
        if parts.is_empty() {
            return;
        }
        let now = Instant::now();
        self.due.drifted.get_or_insert(now);
        self.due.whole_table |= is_missed;
        if parts.table {
            self.whole_table_at.get_or_insert(now + TABLE_PAUSE);
        }
        self.add(parts, GATHER_DRIFT);
    }

    /// Whatever is waiting is done after that time at the latest.
    pub fn hurry(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }

    /// When to reconcile next, if at all.
    pub fn wake_at(&self) -> Option<Instant> {
        [self.at, self.backoff.at()].into_iter().flatten().min()
    }

    /// Takes what is due, with what failed before if its time has come.
    pub fn take(&mut self) -> Due {
        self.at = None;
        let mut due = std::mem::take(&mut self.due);
        if self.backoff.take_due(Instant::now()) {
            due.parts = due.parts.or(std::mem::take(&mut self.failed));
        }
        due
    }

    /// A reconciliation is over: what failed in it is retried, after a pause that grows.
    pub fn finish(&mut self, failed: Parts) {
        if failed.is_empty() && self.failed.is_empty() {
            self.backoff.succeed();
        } else if !failed.is_empty() {
            self.failed = self.failed.or(failed);
            if self.backoff.at().is_none() {
                self.backoff.fail(Instant::now());
            }
        }
    }

    /// Compares each element of the table if it is time for that.
    pub fn check_table_if_due(&mut self, now: Instant) {
        if self.whole_table_at.take_if(|at| *at <= now).is_some() {
            self.due.whole_table = true;
            self.add(Parts { table: true, ..Parts::default() }, Duration::ZERO);
        }
    }

    /// The state file is to be written soon.
    pub fn save_soon(&mut self) {
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
    }

    /// Whether the state file is to be written now.
    pub fn take_save(&mut self, now: Instant) -> bool {
        self.save_at.take_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_comes_back_with_what_is_due_later() {
        let routes = Parts { routes: true, ..Parts::default() };
        let mut pending = Pending::default();
        assert_eq!(pending.wake_at(), None);
        pending.add(routes, Duration::ZERO);
        assert!(pending.wake_at().is_some());
        assert_eq!(pending.take().parts, routes);
        assert_eq!(pending.wake_at(), None);
        pending.finish(routes);
        assert!(pending.wake_at().is_some(), "it is retried");
        // Its time has not come, and something else is due.
        pending.add(Parts { pods: true, ..Parts::default() }, Duration::ZERO);
        assert!(!pending.take().parts.routes);
        pending.finish(Parts::default());
        assert!(pending.wake_at().is_some(), "it is still retried");
    }

    #[test]
    fn drift_keeps_the_time_of_the_first_event() {
        let mut pending = Pending::default();
        pending.add_drift(Parts::default(), false);
        assert!(pending.take().drifted.is_none(), "an event that concerns nothing");
        pending.add_drift(Parts { table: true, ..Parts::default() }, false);
        let later = Instant::now() + TABLE_PAUSE;
        let due = pending.take();
        assert!(due.drifted.is_some() && due.parts.table && !due.whole_table);
        pending.check_table_if_due(later);
        assert!(pending.take().whole_table, "after a pause, each element");
        pending.check_table_if_due(later);
        assert!(!pending.take().whole_table, "once");
    }
}
