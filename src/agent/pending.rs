//! What the agent has to do next, gathered until it does it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::drift::Parts;

/// What has to be done.
#[derive(Debug, Default)]
pub struct Due {
    /// Parts of the node that are to be compared and mended.
    pub parts: Parts,
    /// Peers whose routes are to be others than they are; those of all others stand.
    pub peers: BTreeSet<String>,
    /// Whether each element of the table is compared.
    pub whole_table: bool,
    /// Since when somebody else's doing is to be mended.
    pub drifted: Option<Instant>,
    /// When it is to be done.
    pub at: Option<Instant>,
}

impl Due {
    /// Adds parts, to be done after that time at the latest.
    pub fn add(&mut self, parts: Parts, after: Duration) {
        if !parts.is_empty() {
            self.parts = self.parts.or(parts);
            self.hurry(after);
        }
    }

    /// Whatever there is, it is to be done after that time at the latest.
    pub fn hurry(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }

    /// Everything, and each element of the table.
    pub fn add_all(&mut self, after: Duration) {
        self.whole_table = true;
        self.add(Parts::ALL, after);
    }
}
