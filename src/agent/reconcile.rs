//! Doing what is due, in an order in which each thing finds what it needs.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::agent::apply::Datapath;
use crate::agent::cluster::desired_state::{Desired, Own};
use crate::agent::cluster::state_file;
use crate::agent::drift::Parts;
use crate::agent::install::conflist;
use crate::agent::pending::Due;
use crate::agent::run::Agent;
use crate::config::peer::Peer;

/// How long a step may take. All of them wait for the kernel or for a disk.
const STEP: Duration = Duration::from_secs(20);

/// How long after a change it is written to disk, so that a crowd of changes is written once.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// Peers as they were and as they are.
type Changed = (Vec<Peer>, Vec<Peer>);

impl Agent {
    /// Opens the sockets anew if they are of no use any more. Where that fails, so does what is due, which is tried again.
    fn keep_contact(&mut self) {
        if !self.datapath.has_lost_contact() {
            return;
        }
        match Datapath::open(&self.settings) {
            Ok(datapath) => {
                warn!("answers of the kernel were lost; beginning over new sockets");
                self.datapath = datapath;
                self.own = self.datapath.own();
            }
            Err(reason) => warn!(%reason, "answers of the kernel were lost, and no new sockets can be had"),
        }
    }

    /// Does what is due.
    pub(super) async fn act(&mut self) {
        self.keep_contact();
        let mut due = std::mem::take(&mut self.due);
        if self.backoff.take_due(Instant::now()) {
            due.parts = due.parts.or(std::mem::take(&mut self.failed));
        }
        let changed = self.renew(&mut due);
        let Some(desired) = self.desired.take() else { return };
        let has_drifted = due.drifted.is_some();
        let mut failed = Parts::default();
        let mut is_repaired = false;
        if due.parts.node {
            let switched_on = self.step("node", self.datapath.prepare(&desired, &self.former)).await;
            failed.node = switched_on.is_none();
            if let Some(switched_on) = switched_on {
                self.done.node = true;
                self.former.clear();
                is_repaired |= !switched_on.is_empty();
                self.tell_switched_on(&switched_on);
            }
        }
        if !due.parts.routes
            && let Some((before, after)) = changed
        {
            let done = self.step("routes_of_some", self.datapath.routes_of(&desired, before, after)).await;
            match done.flatten() {
                Some(done) => {
                    failed.routes = !done.unsettled.is_empty();
                    self.report_routes(&desired, &done, false, false);
                }
                // One of them needs more than a route.
                None => due.parts.routes = true,
            }
        }
        if due.parts.routes {
            let had_overlay = self.datapath.has_overlay();
            let routed = self.step("routes", self.datapath.routes(&desired, self.index.is_complete())).await;
            failed.routes = routed.as_ref().is_none_or(|it| !it.routes.unsettled.is_empty());
            if let Some(routed) = routed {
                self.done.routes = true;
                is_repaired |= self.take_in_ways(&desired, &routed, has_drifted);
                // Who may send to its port is in the table.
                due.parts.table |= self.datapath.has_overlay() != had_overlay;
                due.parts.files |= std::mem::replace(&mut self.pod_mtu, routed.pod_mtu) != routed.pod_mtu;
            }
        }
        if due.parts.table {
            let mended = self.step("table", self.datapath.table(&desired, due.whole_table)).await;
            failed.table = mended.is_none();
            self.done.table |= mended.is_some();
            if let Some(rebuilt) = mended.flatten() {
                is_repaired = true;
                self.report_table(&rebuilt, has_drifted);
            }
        }
        if due.parts.pods {
            let mended = self.step("pods", self.datapath.pods(&desired.own.node_ips)).await;
            failed.pods = mended.is_none();
            if let Some(routes) = mended.filter(|routes| *routes > 0) {
                is_repaired = true;
                info!(routes, "routes to this node's pods mended");
            }
        }
        if due.parts.forward {
            let looked = self.step("forward", self.datapath.forward(&desired)).await;
            failed.forward = looked.is_none();
            is_repaired |= self.report_forward(looked.unwrap_or_default());
        }
        if let Some(since) = due.drifted.filter(|_| is_repaired) {
            let took = since.elapsed();
            self.metrics.repair_seconds.observe(took.as_secs_f64());
            warn!(?took, "somebody changed what is ferrule's on this node; it is repaired");
        }
        if due.parts.files {
            failed.files = !self.install(&desired);
        }
        self.desired = Some(desired);
        self.conclude(failed);
    }

    /// Works out what is desired now, as far as the index knows it. Returns the peers that changed, where nothing else
    /// did.
    fn renew(&mut self, due: &mut Due) -> Option<Changed> {
        if !self.index.is_complete() {
            return None;
        }
        // A Node that is gone, or lost its podCIDR, does not take the network from the pods that run here.
        let known = self.desired.as_ref().map(|desired| &desired.own);
        let Some(own) = Own::of(&self.index).or_else(|| known.cloned()) else {
            self.report_own();
            return None;
        };
        let is_own_changed = known != Some(&own);
        let names = std::mem::take(&mut due.peers);
        self.metrics.nodes.set(self.index.nodes().count().try_into().unwrap_or(i64::MAX));
        if is_own_changed || due.parts.routes {
            let fresh = Desired::of(&self.index, own);
            if self.desired.as_ref() != Some(&fresh) {
                self.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
            }
            if let Some(before) = self.desired.take().filter(|_| is_own_changed) {
                let is_gone = |cidr: &IpNetwork| !fresh.own.pod_cidrs.contains(cidr);
                self.former.extend(before.own.pod_cidrs.into_iter().filter(is_gone));
                self.metrics.forget_addresses();
            }
            if is_own_changed {
                info!(pod_cidrs = %list(&fresh.own.pod_cidrs), node_ips = %list(&fresh.own.node_ips), "this node");
                due.whole_table = true;
                due.parts = Parts::ALL;
            }
            self.desired = Some(fresh);
            self.judge_all();
            return None;
        }
        if names.is_empty() {
            return None;
        }
        let changed = self.desired.as_mut().map(|desired| desired.update(&self.index, &names));
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
        due.parts.table = true;
        self.judge(names);
        changed
    }

    /// Installs plugin and conf, once all else was made true; returns whether they stand.
    fn install(&mut self, desired: &Desired) -> bool {
        if !(self.done.node && self.done.routes && self.done.table) {
            return false;
        }
        let begin = Instant::now();
        let installed = self.runtime.install(&self.settings, &desired.own, self.pod_mtu);
        self.metrics.step_took("files", begin.elapsed());
        if let Err(reason) = installed {
            self.metrics.step_failed("files");
            error!(%reason, "the runtime's files are not what they should be");
            self.warn_cluster("CannotInstall", reason.to_string());
            return false;
        }
        self.runtime.report_others(self.herald.as_ref());
        let conf = self.runtime.conf().unwrap_or_default();
        self.sets = conflist::check(conf).map(|network| network.range_sets().to_vec()).unwrap_or_default();
        if self.index.is_complete() {
            if !self.is_ready {
                self.is_ready = true;
                self.health.set_ready();
                info!(took = ?self.started.elapsed(), routes = desired.routes(), "this node is ready for pods");
            }
            if let Some(herald) = self.herald.as_ref().filter(|_| !self.is_available) {
                self.is_available = true;
                herald.network_is_available();
            }
        }
        true
    }

    /// Has what failed tried again.
    fn conclude(&mut self, failed: Parts) {
        if failed.is_empty() && self.failed.is_empty() {
            self.backoff.succeed();
        } else if !failed.is_empty() {
            self.failed = self.failed.or(failed);
            if self.backoff.at().is_none() {
                self.backoff.fail(Instant::now());
            }
        }
    }

    /// One step, with a deadline. Its failure is logged and counted; whoever needed it goes on without.
    pub(super) async fn step<T, E: Display>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        self.health.beat();
        let begin = Instant::now();
        let outcome = timeout(STEP, step).await;
        self.metrics.step_took(name, begin.elapsed());
        let reason = match outcome {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(reason)) => reason.to_string(),
            Err(_) => format!("it did not end within {STEP:?}"),
        };
        self.metrics.step_failed(name);
        error!(step = name, reason, "a step failed; it will be tried again");
        None
    }

    /// Remembers what is desired, if it is the whole truth.
    pub(super) fn save(&mut self) {
        self.save_at = None;
        let Some(desired) = self.desired.as_ref().filter(|_| self.index.is_complete()) else { return };
        let path = state_file::path(&self.settings.data_dir, &self.settings.network);
        if let Err(reason) = state_file::save(&path, &self.settings.node_name, desired) {
            self.metrics.step_failed("save");
            warn!(%reason, "what is known cannot be remembered for the next start");
        }
    }
}

/// For a log line: the items with commas between them.
pub(super) fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
