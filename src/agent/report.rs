//! What the agent reports: in its log, as metrics, as events of its Node. It keeps what was reported, so that what goes
//! on being wrong is logged once.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use crate::agent::apply::Forward;
use crate::agent::apply::routes::Routed;
use crate::agent::cluster::index::{Index, Problem};
use crate::agent::drift::Parts;
use crate::agent::k8s::events::EventRecorder;
use crate::agent::serve::http::Health;
use crate::agent::serve::log::milliseconds;
use crate::agent::serve::metrics::Metrics;
use crate::datapath::nftables::Rebuilt;
use crate::datapath::overlay::{Made, OverlayDone};
use crate::datapath::overruled::Overruled;
use crate::datapath::peers::Synchronised;
use crate::desired::nftables::table::show;
use crate::linux::route::Family;

/// How many of a kind are logged one by one; of the rest, the number.
const SHOWN: usize = 16;

/// Reason of the event that says which podCIDR or address of a Node is refused.
const REFUSED: &str = "ClaimRefused";

/// Deadline of a step. All of them wait for the kernel or for a disk.
const STEP: Duration = Duration::from_secs(20);

/// What was reported, and where reports go.
pub struct Reported {
    /// Problems of Nodes.
    problems: BTreeMap<String, Vec<Problem>>,
    /// Peers without routes, with the reason.
    unreachable: BTreeMap<String, String>,
    /// Routes to peers that packets do not take: what wins, by destination.
    overruled: BTreeMap<IpNetwork, Overruled>,
    /// Routes to peers that are not as they should be.
    unprogrammed: usize,
    /// Families that this node has lost, and how many routes are left out for that.
    lost: Vec<&'static str>,
    left_out: usize,
    /// Chains of other people's firewalls that end in a drop.
    dropping: Vec<String>,
    odd_pods: pods::OddPods,
    started: Instant,
    is_ready: bool,
    /// Whether the Node's condition was set.
    is_available: bool,
    is_api_down: bool,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// For /healthz and /readyz.
    pub health: Arc<Health>,
    /// Events of the Node, once there is an API server.
    pub recorder: Option<EventRecorder>,
}

impl Default for Reported {
    fn default() -> Self {
        Self {
            problems: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            overruled: BTreeMap::new(),
            unprogrammed: 0,
            lost: Vec::new(),
            left_out: 0,
            dropping: Vec::new(),
            odd_pods: pods::OddPods::default(),
            started: Instant::now(),
            is_ready: false,
            is_available: false,
            is_api_down: false,
            metrics: Arc::default(),
            health: Arc::default(),
            recorder: None,
        }
    }
}

impl Reported {
    /// Runs one step with a deadline. Its failure is logged and counted, and `None` returned.
    pub async fn step<T, E: Display>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        self.health.beat();
        let begin = Instant::now();
        let outcome = timeout(STEP, step).await;
        self.metrics.step_took(name, begin.elapsed());
        let reason = match outcome {
            Ok(Ok(done)) => {
                self.health.succeeded(name);
                return Some(done);
            }
            Ok(Err(reason)) => reason.to_string(),
            Err(_) => format!("deadline of {STEP:?} exceeded"),
        };
        self.metrics.step_failed(name);
        self.health.failed(name, &reason);
        error!(step = name, reason, "step failed, will retry");
        None
    }

    /// The watch of the API server failed.
    pub fn api_failed(&mut self, reason: &str) {
        self.metrics.api_up.set(0);
        self.metrics.step_failed("watch");
        if !std::mem::replace(&mut self.is_api_down, true) {
            warn!(reason, "API server not reachable, continuing with known state");
        }
        debug!(reason, "watch failed");
    }

    /// Whether the API server answers nothing, or says no.
    pub fn is_api_down(&self) -> bool {
        self.is_api_down
    }

    /// The API server answered.
    pub fn api_answered(&mut self) {
        if std::mem::take(&mut self.is_api_down) {
            info!("API server reachable again");
        }
        self.metrics.api_up.set(1);
    }

    /// The overlay and all routes to peers were compared; returns whether something was repaired.
    pub fn ways(&mut self, desired: usize, routed: &Routed, has_drifted: bool) -> bool {
        let Routed { routes, overlay, .. } = routed;
        let mut is_repaired = routes.set + routes.removed > 0;
        if let Some(OverlayDone { device, set, removed, .. }) = overlay {
            let is_changed = *device != Made::default() || set + removed > 0;
            if is_changed {
                info!(?device, set, removed, "overlay updated");
            }
            is_repaired |= is_changed;
        }
        self.families(routed);
        self.routes(desired, routes, true, has_drifted);
        is_repaired
    }

    fn families(&mut self, routed: &Routed) {
        let name = |family: &Family| if *family == Family::V4 { "IPv4" } else { "IPv6" };
        let lost: Vec<&'static str> = routed.lost.iter().map(name).collect();
        for family in lost.iter().filter(|family| !self.lost.contains(family)) {
            warn!(family, routes = routed.left_out, "address family lost, leaving out routes to other nodes");
            let note = format!("this node has lost its {family} address and has no way out by {family}");
            self.event("AddressFamilyLost", note);
        }
        for family in self.lost.iter().filter(|family| !lost.contains(family)) {
            info!(family, "address family here again");
        }
        (self.lost, self.left_out) = (lost, routed.left_out);
        self.metrics.families_lost.set(gauge(self.lost.len()));
    }

    /// Routes to peers were changed. `is_all`: all of them were compared, so failures that are not named are over.
    pub fn routes(&mut self, desired: usize, done: &Synchronised, is_all: bool, has_drifted: bool) {
        if done.set + done.removed > 0 {
            info!(set = done.set, removed = done.removed, "peer routes updated");
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
        for (peer, reason) in new.iter().take(SHOWN) {
            warn!(peer, reason, "peer unreachable");
        }
        if let Some(count) = new.len().checked_sub(SHOWN).filter(|count| *count > 0) {
            warn!(count, "more peers unreachable");
        }
        if is_all {
            for peer in self.unreachable.keys().filter(|peer| !failures.contains_key(*peer)) {
                info!(peer, "peer reachable again");
                self.metrics.forget_peer(peer);
            }
            self.unreachable = failures;
        } else {
            self.unreachable.extend(failures);
        }
        self.metrics.routes_desired.set(gauge(desired));
        self.unprogrammed = self.unreachable.len().max(done.unsettled.len());
        self.count_programmed();
    }

    fn count_programmed(&self) {
        let desired = usize::try_from(self.metrics.routes_desired.get()).unwrap_or(0);
        let programmed = desired.saturating_sub(self.unprogrammed + self.overruled.len() + self.left_out);
        self.metrics.routes_programmed.set(gauge(programmed));
        self.metrics.routes_overruled.set(gauge(self.overruled.len()));
    }

    /// All routes to peers were looked up: those that packets do not take.
    pub fn overruled(&mut self, found: Vec<Overruled>) {
        let found: BTreeMap<IpNetwork, Overruled> =
            found.into_iter().map(|it| (it.destination, it)).collect();
        let is_new = |it: &&Overruled| self.overruled.get(&it.destination) != Some(*it);
        for it in found.values().filter(is_new).take(SHOWN) {
            warn!(destination = %it.destination, problem = %it, remedy = it.remedy(), "route overruled");
            self.event("RouteOverruled", format!("{it}: {}", it.remedy()));
        }
        for destination in self.overruled.keys().filter(|destination| !found.contains_key(destination)) {
            info!(%destination, "route no longer overruled");
        }
        self.overruled = found;
        self.count_programmed();
    }

    /// The table lacked something.
    pub fn table(&self, rebuilt: &Rebuilt, has_drifted: bool) {
        let Rebuilt { made, added, removed, passed_over } = rebuilt;
        info!(made, added, removed, "nftables table updated");
        if has_drifted {
            self.metrics.tables_repaired.inc();
        }
        for element in passed_over.iter().take(SHOWN) {
            warn!(element = show(element), "nftables element belongs to another pod");
        }
    }

    /// Other people's firewalls were looked at; returns whether accept rules were inserted.
    pub fn forward(&mut self, found: &Forward) -> bool {
        for it in &found.accepted {
            info!(chain = it.chain, inserted = it.inserted, removed = it.removed, "accept rules inserted");
        }
        self.metrics.forward_drops(found.dropping.iter().map(|(chain, _)| chain));
        let mut dropping = Vec::new();
        for (chain, remedy) in &found.dropping {
            let name = chain.to_string();
            if !self.dropping.contains(&name) {
                warn!(chain = name, remedy, "firewall may drop forwarded packets of pods");
            }
            self.event("FirewallMayDropPods", format!("{name} may drop packets of pods: {remedy}"));
            dropping.push(name);
        }
        self.dropping = dropping;
        !found.accepted.is_empty()
    }

    /// Forwarding was off.
    pub fn forwarding_enabled(&self, sysctls: &[String]) {
        for sysctl in sysctls {
            info!(sysctl, "forwarding enabled");
            self.metrics.sysctls_repaired.inc();
        }
    }

    /// What others had changed was repaired.
    pub fn drift_repaired(&self, parts: Parts, since: Instant) {
        let took = since.elapsed();
        self.metrics.repair_duration.observe(took.as_secs_f64());
        warn!(part = %parts, took = milliseconds(took), "drift repaired");
    }

    /// Everything was applied once, with the whole list of Nodes known; pods can come.
    pub fn ready(&mut self, routes: usize) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.health.set_ready();
            info!(took = milliseconds(self.started.elapsed()), routes, "node ready for pods");
        }
        if let Some(recorder) = self.recorder.as_ref().filter(|_| !self.is_available) {
            self.is_available = true;
            recorder.network_is_available();
        }
    }

    /// The Node has a startup taint: it goes as soon as pods can have a network here.
    pub fn remove_startup_taint(&self, place: usize) {
        if let Some(recorder) = self.recorder.as_ref().filter(|_| self.is_ready) {
            recorder.remove_startup_taint(place);
        }
    }

    /// The Node's condition says that its network is not available: it is to be set again.
    pub fn network_is_unavailable(&mut self) {
        self.is_available = false;
    }

    /// This node has no podCIDR, or no Node, yet.
    pub fn own_node_missing(&mut self, index: &Index, name: &str) {
        if index.own().is_some() {
            self.problems_of(index, BTreeSet::from([name.to_owned()]));
        } else if self.problems.insert(name.to_owned(), Vec::new()).is_none() {
            warn!(node = name, "own Node not found, waiting for it");
        }
    }

    /// The problems of every Node, as far as they are new.
    pub fn all_problems(&mut self, index: &Index) {
        let known: BTreeSet<String> = index.nodes().map(|info| info.name.clone()).collect();
        let gone = self.problems.keys().filter(|name| !known.contains(*name)).cloned();
        let all = known.iter().cloned().chain(gone).collect();
        self.problems_of(index, all);
    }

    /// The problems of these Nodes, as far as they are new.
    pub fn problems_of(&mut self, index: &Index, names: BTreeSet<String>) {
        let mut new = 0;
        for name in names {
            let problems: Vec<Problem> = index.assess(&name).problems;
            let before = self.problems.get(&name).map(Vec::as_slice).unwrap_or_default();
            for problem in problems.iter().filter(|it| !before.contains(it)) {
                new += 1;
                if new <= SHOWN {
                    warn!(node = name, %problem, "node not routable");
                    if problem.is_refusal() {
                        self.event(REFUSED, format!("node {name}: {problem}"));
                    }
                }
            }
            for problem in before.iter().filter(|it| it.is_refusal() && !problems.contains(it)) {
                info!(node = name, %problem, "claim of node no longer refused");
                if let Some(recorder) = &self.recorder {
                    recorder.tell("ClaimNoLongerRefused", format!("node {name}: it was: {problem}"));
                }
            }
            self.metrics.claims_refused(&name, problems.iter().filter(|it| it.is_refusal()).count());
            if problems.is_empty() {
                if self.problems.remove(&name).is_some() {
                    info!(node = name, "node routable again");
                }
                self.metrics.forget_peer(&name);
            } else {
                self.problems.insert(name, problems);
            }
        }
        if let Some(count) = new.checked_sub(SHOWN).filter(|count| *count > 0) {
            warn!(count, "more nodes not routable");
        }
        self.metrics.nodes_with_problems.set(self.problems.len().try_into().unwrap_or(i64::MAX));
    }

    /// Repeats what goes on being wrong as events of this Node.
    pub fn repeat_events(&self) {
        let problems = self.problems.iter().flat_map(|(name, problems)| {
            problems.iter().map(move |problem| {
                let reason = if problem.is_refusal() { REFUSED } else { "NodeLacksNetwork" };
                (reason, format!("node {name}: {problem}"))
            })
        });
        let unreachable = self.unreachable.iter().map(|(peer, reason)| {
            ("PeerUnreachable", format!("the pods of node {peer} cannot be reached: {reason}"))
        });
        let overruled =
            self.overruled.values().map(|it| ("RouteOverruled", format!("{it}: {}", it.remedy())));
        for (reason, note) in problems.chain(unreachable).chain(overruled).chain(self.odd_pods()).take(SHOWN)
        {
            self.event(reason, note);
        }
    }

    /// Records a warning as an event of this Node.
    pub fn event(&self, reason: &'static str, note: String) {
        if let Some(recorder) = &self.recorder {
            recorder.warn(reason, note);
        }
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
