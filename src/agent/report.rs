//! What the agent says of what it found and did: in its log, in metrics, and as events of its Node.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use crate::agent::apply::{Forward, Routed};
use crate::agent::cluster::desired_state::Desired;
use crate::agent::cluster::index::Problem;
use crate::agent::run::Agent;
use crate::datapath::nftables::Rebuilt;
use crate::datapath::overlay::{Made, OverlayDone};
use crate::datapath::peers::Synchronised;
use crate::desired::nftables::table::show;

/// How many of a kind are told one by one; of what is beyond, the number.
const TOLD: usize = 16;

/// What the plugin's verb says of the way out; with an agent it is the agent that does it.
const SYNC: &str = "set \"forwardAccept\": true in the conf and run: ferrule sync";

impl Agent {
    /// Tells what became of all ways to other nodes; returns whether something was mended.
    pub(super) fn take_in_ways(&mut self, desired: &Desired, routed: &Routed, has_drifted: bool) -> bool {
        let Routed { routes, overlay, .. } = routed;
        self.own = self.datapath.own();
        let mut is_mended = routes.set + routes.removed > 0;
        if let Some(OverlayDone { device, set, removed, .. }) = overlay {
            let is_changed = *device != Made::default() || set + removed > 0;
            if is_changed {
                info!(?device, set, removed, "overlay to nodes that are not on-link");
            }
            is_mended |= is_changed;
        }
        self.report_routes(desired, routes, true, has_drifted);
        is_mended
    }

    /// Tells what became of routes. `is_all`: all of them were looked at, so failures that are not named are over.
    pub(super) fn report_routes(
        &mut self,
        desired: &Desired,
        done: &Synchronised,
        is_all: bool,
        has_drifted: bool,
    ) {
        if done.set + done.removed > 0 {
            info!(set = done.set, removed = done.removed, "routes to other nodes");
        }
        if has_drifted {
            self.metrics.routes_repaired.inc_by(done.set.try_into().unwrap_or(u64::MAX));
        }
        let mut failures: BTreeMap<String, String> = BTreeMap::new();
        for failure in &done.failures {
            self.metrics.peer_failed(&failure.peer);
            failures.insert(failure.peer.clone(), failure.reason.clone());
        }
        let is_new = |(peer, reason): &(&String, &String)| self.unreachable.get(*peer) != Some(*reason);
        let new: Vec<(&String, &String)> = failures.iter().filter(is_new).collect();
        for (peer, reason) in new.iter().take(TOLD) {
            warn!(peer, reason, "a node's pods cannot be reached");
        }
        if let Some(more) = new.len().checked_sub(TOLD).filter(|more| *more > 0) {
            warn!(more, "and the pods of more nodes cannot be reached");
        }
        if is_all {
            for peer in self.unreachable.keys().filter(|peer| !failures.contains_key(*peer)) {
                info!(peer, "a node's pods can be reached again");
                self.metrics.forget_peer(peer);
            }
            self.unreachable = failures;
        } else {
            self.unreachable.extend(failures);
        }
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.routes_desired.set(count(desired.routes()));
        let standing = desired.routes().saturating_sub(self.unreachable.len().max(done.unsettled.len()));
        self.metrics.routes_programmed.set(count(standing));
    }

    /// Tells what the table lacked.
    pub(super) fn report_table(&self, rebuilt: &Rebuilt, has_drifted: bool) {
        let Rebuilt { made, added, removed, passed_over } = rebuilt;
        info!(made, added, removed, "nftables table mended");
        if has_drifted {
            self.metrics.tables_repaired.inc();
        }
        for element in passed_over.iter().take(TOLD) {
            warn!(
                element = show(element),
                "two pods claim one place in the nftables table; the other one has it"
            );
        }
    }

    /// Tells of firewalls of others.
    pub(super) fn report_forward(&mut self, found: Forward) {
        for chain in found.accepting {
            info!(chain, "a firewall lets the pods pass from now on");
        }
        for (chain, remedy) in &found.dropping {
            let remedy = remedy.replace(SYNC, "start the agents with --forward-accept");
            if !self.dropping.contains(chain) {
                warn!(chain, remedy, "a firewall lets no pod reach the pods of other nodes");
            }
            self.warn_cluster(
                "FirewallDropsPods",
                format!("{chain} lets no pod reach other nodes: {remedy}"),
            );
        }
        self.dropping = found.dropping.into_iter().map(|(chain, _)| chain).collect();
    }

    /// Tells which forwarding was off.
    pub(super) fn tell_switched_on(&self, switched_on: &[String]) {
        for sysctl in switched_on {
            info!(sysctl, "forwarding switched on");
            self.metrics.sysctls_repaired.inc();
        }
    }

    /// Tells why this node has no network yet.
    pub(super) fn report_own(&mut self) {
        let name = self.settings.node_name.clone();
        if self.index.own().is_none() {
            if self.problems.insert(name.clone(), Vec::new()).is_none() {
                warn!(node = name, "the API server knows no Node of this name yet; waiting for it");
            }
            return;
        }
        self.judge(BTreeSet::from([name]));
    }

    /// Looks at every node's problems.
    pub(super) fn judge_all(&mut self) {
        let known: BTreeSet<String> = self.index.nodes().map(|facts| facts.name.clone()).collect();
        let gone = self.problems.keys().filter(|name| !known.contains(*name)).cloned();
        let all = known.iter().cloned().chain(gone).collect();
        self.judge(all);
    }

    /// Tells the problems of these nodes, as far as they are new.
    pub(super) fn judge(&mut self, names: BTreeSet<String>) {
        let mut told = 0;
        for name in names {
            let problems: Vec<Problem> = self.index.standing(&name).problems;
            let before = self.problems.get(&name).map(Vec::as_slice).unwrap_or_default();
            for problem in problems.iter().filter(|it| !before.contains(it)) {
                told += 1;
                if told <= TOLD {
                    warn!(node = name, %problem, "a node lacks what its routes need");
                }
            }
            if problems.is_empty() {
                if self.problems.remove(&name).is_some() {
                    info!(node = name, "a node has what its routes need");
                }
                self.metrics.forget_peer(&name);
            } else {
                self.problems.insert(name, problems);
            }
        }
        if let Some(more) = told.checked_sub(TOLD).filter(|more| *more > 0) {
            warn!(more, "and there are more such problems");
        }
        self.metrics.nodes_with_problems.set(self.problems.len().try_into().unwrap_or(i64::MAX));
    }

    /// Tells the cluster what goes on being wrong, as events of this Node.
    pub(super) fn tell_the_cluster(&self) {
        let problems = self.problems.iter().flat_map(|(name, problems)| {
            problems.iter().map(move |problem| ("NodeLacksNetwork", format!("node {name}: {problem}")))
        });
        let unreachable = self.unreachable.iter().map(|(peer, reason)| {
            ("PeerUnreachable", format!("the pods of node {peer} cannot be reached: {reason}"))
        });
        for (reason, note) in problems.chain(unreachable).take(TOLD) {
            self.warn_cluster(reason, note);
        }
    }

    /// An event of this Node.
    pub(super) fn warn_cluster(&self, reason: &'static str, note: String) {
        if let Some(herald) = &self.herald {
            herald.warn(reason, note);
        }
    }
}
