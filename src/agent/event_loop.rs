//! The agent's loop: hears of Nodes and of the kernel, and reconciles the node with both.
//!
//! ```text
//!   API server ──> k8s::watch ──> Cluster ──┐
//!   state file ──────────────────> Cluster ─┼──> Pending ──> reconcile: node, routes, table, pods, forward, files
//!   kernel ──────> Kernel ──> drift ────────┤
//!   every minute ─> resync ─────────────────┘
//! ```
//!
//! | owner      | what it owns                                                             |
//! |------------|--------------------------------------------------------------------------|
//! | `Cluster`  | all Nodes, and what this node has to be                                  |
//! | `Pending`  | what is due and when, what failed and when it is retried                 |
//! | `Kernel`   | sockets that change the node, and the one that hears of changes          |
//! | `Runtime`  | the plugin's binary and the conf for the container runtime               |
//! | `Reported` | what was logged; metrics, health, events of the Node                     |
//!
//! Nothing stops the loop. A step that fails is logged, counted and retried after a pause that grows to a minute; the
//! other steps go on, but for one: the conf is written only after all else was applied once, because with it come pods.
//! What is known already is kept without the API server.

mod housekeeping;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error, info, warn};

use crate::agent::cluster::Cluster;
use crate::agent::cluster::index::{Change, NodeEvent};
use crate::agent::drift::Parts;
use crate::agent::drops::DropCounts;
use crate::agent::install::conflist;
use crate::agent::install::hold::ConfHold;
use crate::agent::install::runtime::Runtime;
use crate::agent::k8s::api_server;
use crate::agent::k8s::client;
use crate::agent::k8s::credentials::CertificateAuthority;
use crate::agent::k8s::events::EventRecorder;
use crate::agent::k8s::policy_watches::PolicyWatches;
use crate::agent::k8s::watch::{ClusterSize, WatchMessage, follow_nodes};
use crate::agent::kernel::Kernel;
use crate::agent::mounts::Mounts;
use crate::agent::own_node::OwnNodeLacks;
use crate::agent::paths::PathChecks;
use crate::agent::pending::{GATHER, Pending};
use crate::agent::policy::drift::{Look, Signal};
use crate::agent::policy::driver::Driver;
use crate::agent::probation::{Action, Probation};
use crate::agent::reconcile::list;
use crate::agent::report::Reported;
use crate::agent::serve::http;
use crate::agent::serve::plugin_log::PluginLog;
use crate::agent::settings::Settings;
use crate::agent::surroundings::ApiServer;
use crate::cni::error::CniError;
use crate::datapath::overruled::Overruled;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::linux::monitor::Event;

/// How often everything is compared, whatever was heard.
const RESYNC: Duration = Duration::from_secs(60);

/// How often the runtime, the plugin's log and the loop's health are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// How many messages of the watch wait for the loop.
const MESSAGES_WAITING: usize = 64;

/// The agent of one node.
pub struct Agent {
    pub(super) settings: Settings,
    pub(super) cluster: Cluster,
    pub(super) pending: Pending,
    pub(super) kernel: Kernel,
    pub(super) runtime: Runtime,
    pub(super) conf_hold: ConfHold,
    pub(super) reported: Reported,
    /// Parts that were applied at least once.
    pub(super) applied: Parts,
    pub(super) api_server: ApiServer,
    pub(super) probation: Probation,
    /// Has the API server asked for a word.
    ask_api: Arc<Notify>,
    /// Whether it was read what this node needs: before that no Node's claim can be judged.
    pub(super) has_looked_around: bool,
    /// The task that keeps the policies, until it runs; the number of its socket; and what it is told.
    policy: Option<Driver>,
    policy_port: u32,
    policy_signal: Arc<Signal>,
    plugin_log: PluginLog,
    mounts: Mounts,
    certificate_authority: CertificateAuthority,
    lacks: OwnNodeLacks,
    drops: DropCounts,
    pub(super) path_checks: PathChecks,
    /// Place of the route that is looked up next, while they are.
    look_up_from: Option<usize>,
    /// Routes that packets do not take, among those before that place.
    overruled: Vec<Overruled>,
}

impl Agent {
    /// An agent that knows what the state file says.
    ///
    /// # Errors
    /// Where the kernel cannot be asked at all.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(settings: Settings) -> Result<Self, CniError> {
        let cluster = Cluster::load(&settings);
        let probation = Probation::trusting(cluster.trusted());
        let reported = Reported::default();
        let policy = Driver::open(&settings, Arc::clone(&reported.metrics))?;
        Ok(Self {
            policy_port: policy.port(),
            policy: Some(policy),
            policy_signal: Arc::default(),
            cluster,
            pending: Pending::default(),
            kernel: Kernel::open(&settings)?,
            runtime: Runtime::new(&settings),
            conf_hold: ConfHold::default(),
            reported,
            applied: Parts::default(),
            lacks: OwnNodeLacks::default(),
            drops: DropCounts::default(),
            path_checks: PathChecks::default(),
            look_up_from: None,
            overruled: Vec::new(),
            api_server: ApiServer::default(),
            probation,
            ask_api: Arc::default(),
            has_looked_around: false,
            certificate_authority: CertificateAuthority::read(),
            mounts: Mounts::of(settings.directories()),
            plugin_log: PluginLog::new(conflist::log_file(&settings.data_dir, &settings.network)),
            settings,
        })
    }

    /// Runs until SIGTERM or SIGINT. What it applied stays: pods go on without it.
    ///
    /// # Errors
    /// Where signals or the kernel's events cannot be had, or one of the agent's directories is the node's no longer.
    ///
    /// # Panics
    /// Outside a [`tokio::task::LocalSet`].
    pub async fn run(mut self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut messages = self.start_watch();
        for address in self.settings.listeners() {
            let (metrics, health) = (Arc::clone(&self.reported.metrics), Arc::clone(&self.reported.health));
            tokio::spawn(http::serve(address, metrics, health));
        }
        self.write_drop_ins();
        // What is known from disk is applied; without that, it is looked for what an earlier life left.
        self.pending.add_all(Duration::ZERO);
        let (mut resync, mut housekeeping) = (interval(RESYNC), interval(HOUSEKEEPING));
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        resync.reset();
        loop {
            let wake_at = self.pending.wake_at();
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                event = self.kernel.next_event() => self.on_kernel_event(&event?),
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    self.reconcile().await;
                }
                Some(message) = messages.recv() => self.on_cluster_event(message),
                _ = housekeeping.tick() => {
                    self.end_if_only_that_helps()?;
                    self.housekeeping();
                    let awaits_network =
                        self.cluster.index.own().is_some_and(|own| own.condition.awaits_network);
                    let recorder = self.reported.recorder.as_ref();
                    self.runtime.nudge(Instant::now(), awaits_network, recorder).await;
                    self.look_up_routes().await;
                    self.drops.read(Instant::now(), &self.kernel.datapath, &self.reported.metrics).await;
                    self.try_paths().await;
                }
                _ = resync.tick() => self.resync().await,
            }
        }
        self.save();
        info!("agent stopped, the network stays as it is");
        Ok(())
    }

    /// What the container was given when it began is no good any more: kubelet's next one has what is right.
    fn end_if_only_that_helps(&self) -> io::Result<()> {
        if let Some(directory) = self.mounts.find_stale() {
            let directory = directory.display();
            return Err(io::Error::other(format!(
                "{directory} was removed or moved on the node; ending, so that the container gets a new mount"
            )));
        }
        if self.reported.is_api_down() && self.certificate_authority.is_replaced() {
            return Err(io::Error::other(
                "the API server is not heard, and the cluster's certificate authority was replaced; ending, so that it is \
                 read again",
            ));
        }
        Ok(())
    }

    /// Follows the API server. Without one, what is known is kept.
    fn start_watch(&mut self) -> mpsc::Receiver<WatchMessage> {
        let (sender, messages) = mpsc::channel(MESSAGES_WAITING);
        let mut watches = None;
        match client::connect(&self.settings) {
            Ok((client, host)) => {
                let recorder = EventRecorder::start(client.clone(), &self.settings.node_name);
                self.reported.recorder = Some(recorder);
                self.api_server.addresses = api_server::literal(&host).into_iter().collect();
                tokio::spawn(api_server::follow(
                    client.clone(),
                    host,
                    Arc::clone(&self.ask_api),
                    sender.clone(),
                ));
                let size = ClusterSize::default();
                watches = Some(PolicyWatches::start(client.clone(), &self.settings.node_name, size.clone()));
                let mut known = self.cluster.desired.as_ref().map_or(0, |desired| desired.peers.len());
                if !self.settings.conf_file().exists() {
                    self.conf_hold = ConfHold::begin(Instant::now());
                    info!("no conf yet, it waits for the API server");
                    // The first pods wait for the list.
                    known = 0;
                }
                tokio::spawn(follow_nodes(client, known, size, sender));
            }
            Err(reason) => error!(reason, "no API server, continuing with saved state"),
        }
        if let Some(policy) = self.policy.take() {
            tokio::task::spawn_local(policy.run(watches, Arc::clone(&self.policy_signal)));
        }
        messages
    }

    /// The kernel tells of a change: if it concerns a part of ours, that part is compared.
    fn on_kernel_event(&mut self, event: &Event) {
        self.policy_signal.tell(Look::after(event, self.policy_port));
        if self.cluster.desired.is_some() {
            if self.is_foreign_route_to_pods(event) {
                self.look_up_routes_soon();
            }
            let parts = self.kernel.drifted_parts(event);
            self.pending.add_drift(parts, *event == Event::Missed);
        }
    }

    /// Whether somebody else's route to pods of another node came or went, or a rule.
    fn is_foreign_route_to_pods(&self, event: &Event) -> bool {
        match event {
            Event::Route { protocol, destination, .. } => {
                *protocol != ROUTE_PROTOCOL && self.cluster.index.meets_pods(*destination)
            }
            Event::Rule { protocol, .. } => *protocol != ROUTE_PROTOCOL,
            _ => false,
        }
    }

    /// The API server tells of a Node, or does not answer.
    fn on_cluster_event(&mut self, message: WatchMessage) {
        let event = match message {
            WatchMessage::Node(event) => event,
            WatchMessage::Error(reason) => return self.reported.api_failed(&reason),
            WatchMessage::Resumed => {
                self.reported.api_answered();
                return self.on_word_of_api();
            }
            WatchMessage::NoAnswer => return self.probation.unanswered(),
            WatchMessage::ApiServer(api_server) => {
                self.on_word_of_api();
                if std::mem::replace(&mut self.api_server, api_server.clone()) != api_server {
                    self.pending.add(Parts { node: true, ..Parts::default() }, GATHER);
                }
                return;
            }
        };
        self.reported.api_answered();
        self.conf_hold.heard(Instant::now());
        self.on_word_of_api();
        let is_list_end = event == NodeEvent::ListEnds;
        let change = self.cluster.index.apply(event);
        let index = &self.cluster.index;
        if is_list_end {
            debug!(nodes = index.nodes().count(), "node list received");
        }
        if index.is_complete() && !change.is_nothing() {
            self.apply_change(change);
        }
    }

    /// The API server was heard, so the way to it is not cut off.
    fn on_word_of_api(&mut self) {
        let (suspects, was_on_trial) = (self.probation.suspects(), !self.probation.on_trial().is_empty());
        if self.probation.heard(Instant::now()) {
            let pod_cidrs = list(suspects.iter());
            error!(pod_cidrs, "API server heard again without the routes, they stay withdrawn");
            let note =
                format!("routes to {pod_cidrs} took the API server away from this node; they stay withdrawn");
            self.reported.event("RoutesCutOffApiServer", note);
        }
        if was_on_trial && self.probation.on_trial().is_empty() {
            self.pending.save_soon();
        }
    }

    /// If the API server fell silent after a change of routes, that change is taken back, and made again if it was not
    /// the cause.
    fn watch_over_routes(&mut self, now: Instant) {
        match self.probation.tick(now) {
            None => return,
            Some(Action::Ask) => return self.ask_api.notify_one(),
            Some(Action::Withdraw) => {
                let pod_cidrs = list(self.probation.suspects().iter());
                warn!(pod_cidrs, "API server silent since these routes were set, withdrawing them");
            }
            Some(Action::PutBack) => {
                warn!("API server silent without the withdrawn routes too, setting them again")
            }
            Some(Action::TryAgain) => info!("trying routes again that had cut off the API server"),
        }
        self.cluster.index.suspect(self.probation.suspects());
        self.pending.add(Parts { routes: true, table: true, ..Parts::default() }, Duration::ZERO);
    }

    /// Makes due what a change of the Nodes calls for.
    fn apply_change(&mut self, change: Change) {
        if let Some(own) = self.cluster.index.own().filter(|_| change.condition) {
            if own.condition.awaits_network {
                self.runtime.expect_soon();
            }
            if own.condition.network_unavailable {
                self.reported.network_is_unavailable();
                self.pending.add(Parts { files: true, ..Parts::default() }, GATHER);
            }
        }
        if change.completed {
            info!(nodes = self.cluster.index.nodes().count(), "node list complete");
        }
        if change.completed || change.own {
            self.pending.add_all(if change.completed { Duration::ZERO } else { GATHER });
        }
        self.pending.add_peers(change.peers);
    }
}
