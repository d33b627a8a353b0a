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

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error, info, warn};

use crate::agent::cluster::Cluster;
use crate::agent::cluster::desired_state::OwnNode;
use crate::agent::cluster::index::{Change, NodeEvent};
use crate::agent::drift::Parts;
use crate::agent::install::runtime::Runtime;
use crate::agent::install::{conflist, drop_ins};
use crate::agent::k8s::events::EventRecorder;
use crate::agent::k8s::watch::{self, WatchMessage};
use crate::agent::kernel::Kernel;
use crate::agent::own_node::OwnNodeLacks;
use crate::agent::pending::{GATHER, Pending};
use crate::agent::report::Reported;
use crate::agent::serve::http;
use crate::agent::serve::plugin_log::PluginLog;
use crate::agent::settings::Settings;
use crate::cni::error::CniError;
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
    pub(super) reported: Reported,
    /// Parts that were applied at least once.
    pub(super) applied: Parts,
    plugin_log: PluginLog,
    lacks: OwnNodeLacks,
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
        Ok(Self {
            cluster: Cluster::load(&settings),
            pending: Pending::default(),
            kernel: Kernel::open(&settings)?,
            runtime: Runtime::new(&settings),
            reported: Reported::default(),
            applied: Parts::default(),
            lacks: OwnNodeLacks::default(),
            plugin_log: PluginLog::new(conflist::log_file(&settings.data_dir, &settings.network)),
            settings,
        })
    }

    /// Runs until SIGTERM or SIGINT. What it applied stays: pods go on without it.
    ///
    /// # Errors
    /// Where signals or the kernel's events cannot be had.
    pub async fn run(mut self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut messages = self.start_watch();
        for address in self.settings.listeners() {
            let (metrics, health) = (Arc::clone(&self.reported.metrics), Arc::clone(&self.reported.health));
            tokio::spawn(http::serve(address, metrics, health));
        }
        self.write_drop_ins();
        if self.cluster.desired.is_some() {
            self.pending.add_all(Duration::ZERO);
        }
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
                _ = housekeeping.tick() => self.housekeeping(),
                _ = resync.tick() => self.resync().await,
            }
        }
        self.save();
        info!("agent stopped, the network stays as it is");
        Ok(())
    }

    /// Follows the API server. Without one, what is known is kept.
    fn start_watch(&mut self) -> mpsc::Receiver<WatchMessage> {
        let (sender, messages) = mpsc::channel(MESSAGES_WAITING);
        match watch::connect(&self.settings) {
            Ok(client) => {
                let recorder = EventRecorder::start(client.clone(), &self.settings.node_name);
                self.reported.recorder = Some(recorder);
                tokio::spawn(watch::follow(client, sender));
            }
            Err(reason) => error!(reason, "no API server, continuing with saved state"),
        }
        messages
    }

    /// The kernel tells of a change: if it concerns a part of ours, that part is compared.
    fn on_kernel_event(&mut self, event: &Event) {
        if self.cluster.desired.is_some() {
            let parts = self.kernel.drifted_parts(event);
            self.pending.add_drift(parts, *event == Event::Missed);
        }
    }

    /// The API server tells of a Node, or does not answer.
    fn on_cluster_event(&mut self, message: WatchMessage) {
        let event = match message {
            WatchMessage::Node(event) => event,
            WatchMessage::Error(reason) => return self.reported.api_failed(&reason),
        };
        self.reported.api_answered();
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

    /// What needs no hurry.
    fn housekeeping(&mut self) {
        let now = Instant::now();
        self.reported.health.beat();
        let own = self.cluster.index.own();
        let awaits_network = own.is_some_and(|own| own.condition.awaits_network);
        self.runtime.nudge(now, awaits_network, self.reported.recorder.as_ref());
        if self.cluster.index.is_complete() {
            let (name, recorder) = (&self.settings.node_name, self.reported.recorder.as_ref());
            match OwnNode::of(&self.cluster.index) {
                None => self.lacks.tell(now, &self.cluster.index, name, recorder),
                Some(_) => self.lacks.over(name),
            }
        }
        self.pending.check_table_if_due(now);
        if self.pending.take_save(now) {
            self.save();
        }
        if let Err(reason) = self.plugin_log.read(&self.reported.metrics) {
            debug!(%reason, "plugin log not readable");
        }
        self.count_addresses();
    }

    /// Once a minute everything is compared.
    async fn resync(&mut self) {
        if self.cluster.desired.is_some() {
            self.pending.add_all(Duration::ZERO);
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
    fn write_drop_ins(&self) {
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

    fn save(&self) {
        if let Err(reason) = self.cluster.save() {
            self.reported.metrics.step_failed("save");
            warn!(%reason, "state not saved");
        }
    }
}
