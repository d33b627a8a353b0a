//! What the loop does now and then, whatever it hears.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Agent;
use crate::agent::cluster::desired_state::OwnNode;
use crate::agent::install::drop_ins;

/// How many routes are looked up at once. That takes milliseconds.
const LOOK_UPS: usize = 512;

impl Agent {
    /// What needs no hurry.
    pub(super) fn housekeeping(&mut self) {
        let now = Instant::now();
        self.reported.health.beat();
        if self.cluster.index.is_complete() {
            let (name, recorder) = (&self.settings.node_name, self.reported.recorder.as_ref());
            match OwnNode::of(&self.cluster.index) {
                None => self.lacks.tell(now, &self.cluster.index, name, recorder),
                Some(_) => self.lacks.over(name),
            }
        }
        if let Some(place) = self.cluster.index.own().and_then(|own| own.condition.startup_taint) {
            self.reported.remove_startup_taint(place);
        }
        self.pending.check_table_if_due(now);
        self.watch_over_routes(now);
        if self.pending.take_save(now) {
            self.save();
        }
        if let Err(reason) = self.plugin_log.read(&self.reported.metrics) {
            debug!(%reason, "plugin log not readable");
        }
        self.count_addresses();
    }

    /// Compares what the kernel does with what was programmed: after a change, and now and then.
    pub(super) async fn look_up_routes(&mut self) {
        if let Some(from) = self.look_up_from {
            let step = self.kernel.datapath.overruled(from, LOOK_UPS);
            let Some((found, total)) = self.reported.step("look_up", step).await else { return };
            self.overruled.extend(found);
            self.look_up_from = Some(from + LOOK_UPS).filter(|next| *next < total);
            if self.look_up_from.is_none() {
                self.reported.overruled(std::mem::take(&mut self.overruled));
            }
        }
    }

    /// Has all routes to other nodes looked up, from the first one on.
    pub(in crate::agent) fn look_up_routes_soon(&mut self) {
        self.look_up_from = Some(0);
        self.overruled.clear();
    }

    /// Once a minute everything is compared.
    pub(super) async fn resync(&mut self) {
        if self.cluster.index.own().is_some_and(|own| own.condition.network_unavailable) {
            self.reported.network_is_unavailable();
        }
        if self.cluster.desired.is_some() {
            self.pending.add_all(Duration::ZERO);
            self.look_up_routes_soon();
        }
        let reclaimed = self.reported.step("reclaim", self.kernel.datapath.reclaim()).await;
        if let Some(attachments) = reclaimed.filter(|count| *count > 0) {
            self.reported.metrics.reclaimed.inc_by(attachments.try_into().unwrap_or(u64::MAX));
            info!(attachments, "dead attachments reclaimed");
        }
        self.write_drop_ins();
        self.reported.repeat_events();
    }

    /// Both programs may come to the node later, so this is done each minute.
    pub(super) fn write_drop_ins(&self) {
        let Some(run) = &self.settings.drop_ins else { return };
        match drop_ins::write(run) {
            Ok(written) => written.iter().for_each(|path| info!(path = %path.display(), "drop-in written")),
            Err(reason) => {
                self.reported.metrics.step_failed("drop_ins");
                warn!(%reason, "drop-in not written");
            }
        }
    }

    fn count_addresses(&self) {
        let sets = self.runtime.range_sets();
        match self.kernel.datapath.usage(sets) {
            Ok(usage) => {
                for (set, usage) in sets.iter().zip(usage) {
                    self.reported.metrics.addresses(&self.settings.network, set, usage);
                }
            }
            Err(reason) => debug!(%reason, "addresses not counted"),
        }
    }

    pub(super) fn save(&self) {
        if let Err(reason) = self.cluster.save(self.probation.on_trial()) {
            self.reported.metrics.step_failed("save");
            warn!(%reason, "state not saved");
        }
    }
}
