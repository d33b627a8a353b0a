//! The agent's loop: hears of nodes and of the kernel, and makes the node what follows from both.
//!
//! ```text
//!   API server ──> watch ──> index ──> plan ──┐
//!   disk ─────────────────> what was known ───┼──> due ──> node, routes, table, pods, files, in this order
//!   kernel ──────> monitor ──> drift ─────────┤
//!   clock ───────> a look at everything ──────┘
//! ```
//!
//! Nothing stops the loop. A step that fails is logged, counted and tried again after a while that grows to a minute;
//! the other steps are not held up, but for one: the conf is written only after all else was made true once, because
//! with it come pods. What the API server does not answer is not needed for what is known already.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error, info, warn};

use crate::agent::apply::Datapath;
use crate::agent::backoff::Backoff;
use crate::agent::cluster::desired_state::Desired;
use crate::agent::cluster::index::{Change, Index, NodeEvent, Problem};
use crate::agent::cluster::state_file;
use crate::agent::drift::{self, Parts};
use crate::agent::install::conflist;
use crate::agent::install::drop_ins;
use crate::agent::install::runtime::Runtime;
use crate::agent::k8s::events::Herald;
use crate::agent::k8s::watch::{self, Told};
use crate::agent::pending::Due;
use crate::agent::serve::http;
use crate::agent::serve::http::Health;
use crate::agent::serve::metrics::Metrics;
use crate::agent::serve::plugin_log::Tail;
use crate::agent::settings::Settings;
use crate::cni::error::CniError;
use crate::config::range::RangeSet;
use crate::linux::monitor::{Event, Monitor};

/// How long news are gathered before something is done about them: nodes come in crowds.
const GATHER: Duration = Duration::from_millis(20);

/// The same for what somebody did to the node: it comes in crowds as well, and every millisecond loses packets.
const GATHER_DRIFT: Duration = Duration::from_millis(5);

/// How often everything is looked at, whatever was heard.
const LOOK: Duration = Duration::from_secs(60);

/// How often the small things are seen to: the runtime, the plugin's log, whether the loop lives.
const TICK: Duration = Duration::from_secs(2);

/// How long after a change of the table each of its elements is compared. Pods that go change it, so this is a pause
/// between two comparisons.
const TABLE_PAUSE: Duration = Duration::from_secs(1);

/// How many events of nodes wait to be taken in.
const NODES_WAITING: usize = 64;

/// Which parts were made true at least once.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Done {
    pub(super) node: bool,
    pub(super) routes: bool,
    pub(super) table: bool,
}

/// The agent of one node.
pub struct Agent {
    pub(super) settings: Settings,
    pub(super) datapath: Datapath,
    /// By what our own doings are told from others'.
    pub(super) own: drift::Own,
    pub(super) index: Index,
    /// What is kept true: from the disk at first, then from the index.
    pub(super) desired: Option<Desired>,
    /// PodCIDRs that this node had and has no longer.
    pub(super) former: Vec<IpNetwork>,
    /// MTU of new pods, where it is not the uplink's.
    pub(super) pod_mtu: Option<u32>,
    pub(super) runtime: Runtime,
    /// Range sets of the conf that stands.
    pub(super) sets: Vec<RangeSet>,
    pub(super) due: Due,
    pub(super) done: Done,
    /// What went wrong, and when it is tried again.
    pub(super) failed: Parts,
    pub(super) backoff: Backoff,
    pub(super) whole_table_at: Option<Instant>,
    pub(super) save_at: Option<Instant>,
    pub(super) problems: BTreeMap<String, Vec<Problem>>,
    pub(super) unreachable: BTreeMap<String, String>,
    /// Chains of others that drop what pods send to other nodes.
    pub(super) dropping: Vec<String>,
    pub(super) started: Instant,
    pub(super) is_ready: bool,
    pub(super) is_available: bool,
    pub(super) api_troubled: bool,
    pub(super) tail: Tail,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) herald: Option<Herald>,
}

impl Agent {
    /// An agent that knows what the disk remembers.
    ///
    /// # Errors
    /// Where the kernel cannot be asked at all.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(settings: Settings) -> Result<Self, CniError> {
        let path = state_file::path(&settings.data_dir, &settings.network);
        let remembered = state_file::load(&path, &settings.node_name).unwrap_or_else(|reason| {
            warn!(reason, "what was known before cannot be used");
            None
        });
        if let Some(desired) = &remembered {
            info!(peers = desired.peers.len(), "beginning with what was known before");
        }
        let datapath = Datapath::open(&settings)?;
        Ok(Self {
            own: datapath.own(),
            datapath,
            index: Index::new(&settings.node_name),
            desired: remembered,
            former: Vec::new(),
            pod_mtu: None,
            runtime: Runtime::new(&settings),
            sets: Vec::new(),
            due: Due::default(),
            done: Done::default(),
            failed: Parts::default(),
            backoff: Backoff::default(),
            whole_table_at: None,
            save_at: None,
            problems: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            dropping: Vec::new(),
            started: Instant::now(),
            is_ready: false,
            is_available: false,
            api_troubled: false,
            tail: Tail::new(conflist::log_file(&settings.data_dir, &settings.network)),
            metrics: Arc::default(),
            health: Arc::default(),
            herald: None,
            settings,
        })
    }

    /// Runs until it is told to end (SIGTERM, SIGINT). What it made stays: pods go on without it.
    ///
    /// # Errors
    /// Where signals or the kernel's events cannot be had.
    pub async fn run(mut self) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Before the first look, so that nothing happens unheard in between.
        let mut monitor = Monitor::open_here()?;
        let (sender, mut nodes) = mpsc::channel(NODES_WAITING);
        match watch::connect(&self.settings) {
            Ok(client) => self.begin_watch(client, sender),
            // As long as nobody can be asked, what is known is kept true.
            Err(reason) => error!(reason, "going on without the API server"),
        }
        let pages = http::serve(self.settings.listen, Arc::clone(&self.metrics), Arc::clone(&self.health));
        tokio::spawn(pages);
        self.write_drop_ins();
        if self.desired.is_some() {
            self.due.add_all(Duration::ZERO);
        }
        let (mut look, mut tick) = (interval(LOOK), interval(TICK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        loop {
            let due_at = [self.due.at, self.backoff.at()].into_iter().flatten().min();
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                event = monitor.next() => match event {
                    Ok(event) => self.hear(&event),
                    Err(reason) => {
                        warn!(%reason, "the kernel's events are lost; listening anew");
                        monitor = Monitor::open_here()?;
                        self.hear(&Event::Missed);
                    }
                },
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => self.act().await,
                Some(told) = nodes.recv() => self.learn(told),
                _ = tick.tick() => self.see_to_small_things(),
                _ = look.tick() => self.look_at_everything().await,
            }
        }
        self.save();
        info!("ending; the network stays as it is");
        Ok(())
    }

    /// Both programs may come to the node later, so this is done each minute.
    fn write_drop_ins(&self) {
        let Some(run) = &self.settings.drop_ins else { return };
        match drop_ins::write(run) {
            Ok(written) => {
                written.iter().for_each(|path| info!(path = %path.display(), "drop-in written"));
            }
            Err(reason) => {
                self.metrics.step_failed("drop_ins");
                warn!(%reason, "a drop-in cannot be written");
            }
        }
    }

    fn begin_watch(&mut self, client: Client, sender: mpsc::Sender<Told>) {
        self.herald = Some(Herald::start(client.clone(), &self.settings.node_name));
        tokio::spawn(watch::follow(client, sender));
    }

    /// Takes in what the kernel tells.
    fn hear(&mut self, event: &Event) {
        if self.desired.is_none() {
            return;
        }
        let parts = drift::concerned(event, &self.own);
        if parts.is_empty() {
            return;
        }
        debug!(?event, "somebody changed the node");
        self.due.drifted.get_or_insert_with(Instant::now);
        self.due.whole_table |= *event == Event::Missed;
        if parts.table {
            self.whole_table_at.get_or_insert_with(|| Instant::now() + TABLE_PAUSE);
        }
        self.due.add(parts, GATHER_DRIFT);
    }

    /// Takes in what the API server tells.
    fn learn(&mut self, told: Told) {
        let event = match told {
            Told::Node(event) => event,
            Told::Trouble(reason) => {
                self.metrics.api_answers.set(0);
                self.metrics.step_failed("watch");
                if !std::mem::replace(&mut self.api_troubled, true) {
                    warn!(reason, "the API server does not answer as it should; going on with what is known");
                }
                debug!(reason, "watch");
                return;
            }
        };
        if std::mem::take(&mut self.api_troubled) {
            info!("the API server answers again");
        }
        self.metrics.api_answers.set(1);
        let is_list_end = event == NodeEvent::ListEnds;
        let change = self.index.take(event);
        if is_list_end {
            debug!(nodes = self.index.nodes().count(), "the list of nodes is complete");
        }
        if !self.index.is_complete() || change.is_nothing() {
            return;
        }
        self.take_in(change);
    }

    fn take_in(&mut self, change: Change) {
        if change.condition && self.index.own().is_some_and(|own| own.condition.awaits_network) {
            self.runtime.expect_soon();
        }
        if change.condition && self.index.own().is_some_and(|own| own.condition.network_unavailable) {
            self.is_available = false;
            self.due.hurry(GATHER);
        }
        if change.completed {
            info!(nodes = self.index.nodes().count(), "all nodes are known");
        }
        if change.completed || change.own {
            self.due.add_all(if change.completed { Duration::ZERO } else { GATHER });
        }
        if !change.peers.is_empty() {
            self.due.peers.extend(change.peers);
            self.due.hurry(GATHER);
        }
    }

    /// Sees to what needs no hurry.
    fn see_to_small_things(&mut self) {
        let now = Instant::now();
        self.health.beat();
        let awaits_network = self.index.own().is_some_and(|own| own.condition.awaits_network);
        self.runtime.nudge(now, awaits_network, self.herald.as_ref());
        if self.whole_table_at.is_some_and(|at| at <= now) {
            self.whole_table_at = None;
            self.due.whole_table = true;
            self.due.add(Parts { table: true, ..Parts::default() }, Duration::ZERO);
        }
        if self.save_at.is_some_and(|at| at <= now) {
            self.save();
        }
        if let Err(reason) = self.tail.read(&self.metrics) {
            debug!(%reason, "the plugin's log cannot be read");
        }
        self.count_addresses();
    }

    /// Once a minute: nothing is taken for granted.
    async fn look_at_everything(&mut self) {
        if self.desired.is_some() {
            self.due.add_all(Duration::ZERO);
        }
        if let Some(count) = self.step("reclaim", self.datapath.reclaim()).await.filter(|count| *count > 0) {
            self.metrics.reclaimed.inc_by(count.try_into().unwrap_or(u64::MAX));
            info!(attachments = count, "what dead pods held is free");
        }
        self.write_drop_ins();
        self.tell_the_cluster();
    }

    fn count_addresses(&self) {
        match self.datapath.usage(&self.sets) {
            Ok(usage) => {
                for (set, usage) in self.sets.iter().zip(usage) {
                    self.metrics.addresses(&set.to_string(), usage.held, usage.free);
                }
            }
            Err(reason) => debug!(%reason, "addresses cannot be counted"),
        }
    }
}
