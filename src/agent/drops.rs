//! Dropped packets by reason, for /metrics.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::apply::Datapath;
use crate::agent::serve::metrics::Metrics;
use crate::datapath::drops::{self, Drops};
use crate::desired::nftables::reason::Reason;

/// How often the counters are read: all rules of the table at once, and whoever scrapes does so more seldom.
const PAUSE: Duration = Duration::from_secs(10);

/// What was read last.
#[derive(Default)]
pub struct DropCounts {
    before: Drops,
    read_at: Option<Instant>,
}

impl DropCounts {
    /// Reads what the node has counted, now and then.
    pub async fn read(&mut self, now: Instant, datapath: &Datapath, metrics: &Metrics) {
        if self.read_at.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return;
        }
        self.read_at = Some(now);
        // What fails here fails elsewhere too, where it is said.
        let Ok(counted) = datapath.drops().await else { return };
        for (reason, packets) in drops::between(&self.before, &counted) {
            // Those are counted in any case, and dropped where that was asked for.
            if reason != Reason::Metadata || datapath.blocks_metadata() {
                metrics.dropped(reason.name(), packets);
            }
        }
        self.before = counted;
    }
}
