//! Applying what is due, in an order in which each part finds what it needs: node, routes, table, pods, forward, files.

use std::fmt::Display;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::agent::cluster::Refreshed;
use crate::agent::cluster::desired_state::{Desired, OwnNode};
use crate::agent::drift::Parts;
use crate::agent::event_loop::Agent;
use crate::agent::install::files::Installed;
use crate::agent::install::loopback;
use crate::agent::pending::Due;
use crate::config::peer::Peer;
use crate::datapath::pods::Depth;

/// One reconciliation.
struct Pass {
    due: Due,
    /// Parts that were found wrong and repaired.
    repaired: Parts,
    failed: Parts,
}

impl Agent {
    /// Applies what is due.
    pub(super) async fn reconcile(&mut self) {
        let mut due = self.pending.take();
        if (due.parts.node || !self.has_looked_around) && !self.look_around(&mut due).await {
            return self.pending.finish(Parts::ALL);
        }
        let changed = self.refresh(&mut due);
        let Some(desired) = self.cluster.desired.take() else { return };
        if due.parts.node || due.parts.files {
            self.localise(&desired, &mut due).await;
        }
        self.kernel.set_pod_cidrs(&desired.own.pod_cidrs);
        let mut pass = Pass { due, repaired: Parts::default(), failed: Parts::default() };
        if pass.due.parts.node {
            self.reconcile_node(&desired, &mut pass).await;
        }
        if let Some((before, after)) = changed.filter(|_| !pass.due.parts.routes) {
            self.reconcile_routes_of(&desired, before, after, &mut pass).await;
        }
        if pass.due.parts.routes {
            self.reconcile_routes(&desired, &mut pass).await;
        }
        // Before what no record asks for goes from the table.
        if pass.due.whole_table {
            self.take_up(&desired).await;
        }
        if pass.due.parts.table {
            self.reconcile_table(&desired, &mut pass).await;
        }
        if pass.due.parts.pods {
            self.reconcile_pods(&desired, &mut pass).await;
        }
        if pass.due.parts.forward {
            self.reconcile_forward(&desired, &mut pass).await;
        }
        if let Some(since) = pass.due.drifted.filter(|_| !pass.repaired.is_empty()) {
            self.reported.drift_repaired(pass.repaired, since);
        }
        if pass.due.parts.files && self.may_write_conf() {
            pass.failed.files = !self.install(&desired);
        }
        self.probation
            .applied(Instant::now(), desired.peers.iter().flat_map(|peer| peer.pod_cidrs.iter().copied()));
        self.cluster.desired = Some(desired);
        self.pending.finish(pass.failed);
    }

    /// Reads what this node needs, so that what Nodes claim is judged by it. Returns whether that was ever read.
    async fn look_around(&mut self, due: &mut Due) -> bool {
        let step = self.kernel.datapath.surroundings(&self.api_server);
        let Some(reserved) = self.reported.step("surroundings", step).await else {
            return self.has_looked_around;
        };
        self.has_looked_around = true;
        if self.cluster.index.reserve(reserved) {
            due.parts.routes = true;
            due.parts.table = true;
        }
        if !self.cluster.index.is_complete() {
            if let Some(saved) = self.cluster.judge_saved() {
                self.reported.all_problems(&saved);
            }
            let step = self.kernel.datapath.withdraw(self.cluster.index.reserved());
            if let Some(count) = self.reported.step("withdraw", step).await.filter(|count| *count > 0) {
                warn!(count, "routes of an earlier agent removed that lead away what this node needs");
            }
        }
        true
    }

    /// Uses for sources what this node has itself.
    async fn localise(&mut self, desired: &Desired, due: &mut Due) {
        let before = self.kernel.datapath.localised(&desired.own.node_ips);
        let step = self.kernel.datapath.localise(desired);
        if self.reported.step("localise", step).await == Some(true) {
            due.parts = Parts::ALL;
            let node_ips = list(desired.own.node_ips.iter());
            let sources = list(self.kernel.datapath.localised(&desired.own.node_ips).iter());
            info!(node_ips, sources, before = list(before.iter()), "sources of this node changed");
        }
    }

    /// Works out what is desired now. Returns peers as they were and as they are, where only they changed.
    fn refresh(&mut self, due: &mut Due) -> Option<(Vec<Peer>, Vec<Peer>)> {
        let names = std::mem::take(&mut due.peers);
        let refreshed = self.cluster.refresh(due.parts.routes, &names);
        let index = &self.cluster.index;
        if index.is_complete() {
            self.reported.metrics.nodes.set(index.nodes().count().try_into().unwrap_or(i64::MAX));
        }
        match refreshed {
            Refreshed::Unchanged => None,
            Refreshed::NoOwnNode => {
                self.reported.own_node_missing(index, &self.settings.node_name);
                None
            }
            Refreshed::Whole { is_own_changed, is_changed } => {
                if is_changed {
                    self.pending.save_soon();
                }
                if let Some(own) = self.cluster.desired.as_ref().map(|it| &it.own).filter(|_| is_own_changed)
                {
                    info!(pod_cidrs = %list(own.pod_cidrs.iter()), node_ips = %list(own.node_ips.iter()), "own node changed");
                    self.reported.metrics.forget_addresses();
                    due.whole_table = true;
                    due.parts = Parts::ALL;
                }
                self.reported.all_problems(index);
                None
            }
            Refreshed::Peers(before, after) => {
                self.pending.save_soon();
                due.parts.table = true;
                self.reported.problems_of(index, names);
                Some((before, after))
            }
        }
    }

    async fn reconcile_node(&mut self, desired: &Desired, pass: &mut Pass) {
        let step = self.kernel.datapath.prepare(desired, &self.cluster.former);
        let Some(enabled) = self.reported.step("node", step).await else {
            pass.failed.node = true;
            return;
        };
        self.applied.node = true;
        self.cluster.former.clear();
        pass.repaired.node = !enabled.is_empty();
        self.reported.forwarding_enabled(&enabled);
    }

    /// Only these peers changed. Where one of them needs more than a route, all routes become due.
    async fn reconcile_routes_of(
        &mut self,
        desired: &Desired,
        before: Vec<Peer>,
        after: Vec<Peer>,
        pass: &mut Pass,
    ) {
        let step = self.kernel.datapath.routes_of(desired, before, after);
        match self.reported.step("routes_of_some", step).await.flatten() {
            Some(done) => {
                pass.failed.routes = !done.unsettled.is_empty();
                self.look_up_routes_soon();
                self.reported.routes(desired.routes(), &done, false, false);
            }
            None => pass.due.parts.routes = true,
        }
    }

    async fn reconcile_routes(&mut self, desired: &Desired, pass: &mut Pass) {
        let had_overlay = self.kernel.datapath.has_overlay();
        let step = self.kernel.datapath.routes(desired, self.cluster.index.is_complete());
        let Some(routed) = self.reported.step("routes", step).await else {
            pass.failed.routes = true;
            return;
        };
        pass.failed.routes = !routed.routes.unsettled.is_empty();
        self.applied.routes = true;
        self.look_up_routes_soon();
        self.kernel.refresh_ownership();
        pass.repaired.routes = self.reported.ways(desired.routes(), &routed, pass.due.drifted.is_some());
        let checksums = self.reported.step("checksums", self.kernel.datapath.keep_checksum_offload()).await;
        if let Some(is_on) = checksums.flatten() {
            info!(offload = is_on, "checksums of the overlay set");
        }
        // Who may send to the overlay's port is in the table.
        pass.due.parts.table |= self.kernel.datapath.has_overlay() != had_overlay;
        pass.due.parts.files |= self.runtime.set_pod_mtu(routed.pod_mtu);
    }

    /// Pods whose records are lost get one again, and those outside of the node's podCIDRs are named.
    async fn take_up(&mut self, desired: &Desired) {
        if let Some(found) = self.reported.step("take_up", self.kernel.datapath.take_up()).await {
            self.reported.taken_up(found);
        }
        if let Some(found) = self.reported.step("outside", self.kernel.datapath.outside(desired)).await {
            self.reported.outside(found, &desired.own.pod_cidrs);
        }
    }

    async fn reconcile_table(&mut self, desired: &Desired, pass: &mut Pass) {
        let step = self.kernel.datapath.table(desired, pass.due.whole_table);
        let Some(rebuilt) = self.reported.step("table", step).await else {
            pass.failed.table = true;
            return;
        };
        self.applied.table = true;
        if let Some(rebuilt) = rebuilt {
            pass.repaired.table = true;
            self.reported.table(&rebuilt, pass.due.drifted.is_some());
        }
    }

    async fn reconcile_pods(&mut self, desired: &Desired, pass: &mut Pass) {
        // Sysctls and queues go with no address and no link: once a minute is enough.
        let depth = if pass.due.whole_table { Depth::All } else { Depth::Droppable };
        let step = self.kernel.datapath.pods(desired, depth);
        match self.reported.step("pods", step).await {
            Some(0) => {}
            Some(objects) => {
                pass.repaired.pods = true;
                info!(objects, "pods repaired");
            }
            None => pass.failed.pods = true,
        }
    }

    async fn reconcile_forward(&mut self, desired: &Desired, pass: &mut Pass) {
        match self.reported.step("forward", self.kernel.datapath.forward(desired)).await {
            Some(found) => pass.repaired.forward = self.reported.forward(&found),
            None => pass.failed.forward = true,
        }
    }

    /// Whether what is desired may become the conf now. One that is not there yet comes from this node's Node, if the API
    /// server is heard in time.
    fn may_write_conf(&mut self) -> bool {
        if !self.conf_hold.is_on() {
            return true;
        }
        if self.cluster.index.is_complete() {
            return self.has_own_node();
        }
        match self.conf_hold.left(Instant::now()) {
            Some(left) => self.pending.add(Parts { files: true, ..Parts::default() }, left),
            None => {
                warn!("API server not heard, conf comes from saved state");
                self.conf_hold.end();
            }
        }
        !self.conf_hold.is_on()
    }

    /// Whether this node's Node has what pods need, as the API server says it.
    fn has_own_node(&self) -> bool {
        self.cluster.index.is_complete() && OwnNode::of(&self.cluster.index).is_some()
    }

    /// Installs plugin and conf, once all else was applied; returns whether they are installed.
    fn install(&mut self, desired: &Desired) -> bool {
        if !(self.applied.node && self.applied.routes && self.applied.table) {
            return false;
        }
        let begin = Instant::now();
        self.install_loopback();
        let node_ips = self.kernel.datapath.localised(&desired.own.node_ips);
        let own = OwnNode { node_ips, ..desired.own.clone() };
        let installed = self.runtime.install(&self.settings, &own);
        self.reported.metrics.step_took("files", begin.elapsed());
        if let Err(reason) = installed {
            self.reported.metrics.step_failed("files");
            self.reported.health.failed("files", &reason.to_string());
            error!(step = "files", %reason, "step failed, will retry");
            self.reported.event("CannotInstall", reason.to_string());
            return false;
        }
        self.conf_hold.end();
        self.reported.health.succeeded("files");
        self.runtime.report_others(self.reported.recorder.as_ref());
        // What this node had before its Node has it is no place for pods.
        if self.has_own_node() {
            self.reported.ready(desired.routes());
        }
        true
    }

    /// Not every runtime wants it, so the conf is installed without it as well.
    fn install_loopback(&self) {
        match loopback::install(&self.settings.bin_dir, &self.settings.plugin) {
            Ok(Installed::Unchanged) => {}
            Ok(Installed::Written) => {
                let path = loopback::target(&self.settings.bin_dir);
                info!(path = %path.display(), "loopback plugin installed");
            }
            Err(reason) => {
                self.reported.metrics.step_failed("loopback");
                warn!(step = "loopback", %reason, "step failed, will retry");
            }
        }
    }
}

/// For a log line: the items with commas between them.
pub(super) fn list(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
