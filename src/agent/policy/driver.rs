//! The task that keeps the table of policies: hears of policies, pods and records, and applies what follows.
//!
//! Before everything that the plan needs was listed once, nothing in the table changes. Where there is none although
//! policies were known (a flush, a reboot), it is made from what was kept on disk.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::agent::backoff::Backoff;
use crate::agent::k8s::policy_watches::{PolicyMessage, PolicyWatches};
use crate::agent::policy::cut::Cut;
use crate::agent::policy::denials::Denials;
use crate::agent::policy::drift::{Look, Signal};
use crate::agent::policy::due::Due;
use crate::agent::policy::keep::Keeping;
use crate::agent::policy::pace::Pace;
use crate::agent::policy::report::Said;
use crate::agent::serve::log::milliseconds;
use crate::agent::serve::metrics::Metrics;
use crate::agent::settings::Settings;
use crate::attachments::attached_pods::AttachedPods;
use crate::cni::error::CniError;
use crate::datapath::error::DatapathError;
use crate::datapath::policy::{Applied, Attached, Mirror};
use crate::linux::nfnetlink::{self, Nfnetlink};
use crate::policy::plan::Plan;
use crate::policy::planner::Planner;
use crate::store::{BootId, current_boot_id};

/// How long what the API server says is gathered before it is applied: one change of many pods is many messages.
const GATHER: Duration = Duration::from_millis(1);

/// How long after an apply the next one begins at the earliest: where changes come in crowds, many are applied at once.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the kernel's events of other people's changes are gathered.
const GATHER_DRIFT: Duration = Duration::from_millis(5);

/// How long after that an element that has expired is freed.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// How often records and the elements of pods are compared, whatever was heard.
const RESYNC: Duration = Duration::from_secs(60);

/// How often problems of policies are looked for, and the log of packets is opened where it could not be.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// Deadline of a step.
const STEP: Duration = Duration::from_secs(60);

/// The task's state.
pub struct Driver {
    pub(super) settings: Settings,
    pub(super) nft: Nfnetlink,
    /// The number by which the kernel names the agent's own changes of the table.
    port: u32,
    pub(super) metrics: Arc<Metrics>,
    pub(super) planner: Planner,
    pub(super) mirror: Mirror,
    pub(super) boot: BootId,
    pub(super) pods: AttachedPods,
    pub(super) attached: Vec<Attached>,
    pub(super) are_records_stale: bool,
    due: Due,
    failures: Backoff,
    /// Whether the table is the plan's.
    pub(super) is_applied: bool,
    /// When the last apply ended.
    applied_at: Option<Instant>,
    cut: Pace,
    /// A cut that is under way, and since when.
    pub(super) cutting: Option<(Instant, JoinHandle<Result<usize, String>>)>,
    pub(super) save: Pace,
    pub(super) keeping: Keeping,
    said: Said,
    /// Whether problems may be others than were said.
    is_said_stale: bool,
    pub(super) denials: Denials,
    /// How often the API server said by now that it has no ClusterNetworkPolicies.
    absences: u32,
}

impl Driver {
    /// Opens the sockets in the namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, CniError> {
        let refuse = |source| DatapathError::Socket { place: "node", source };
        let mut nft = nfnetlink::Socket::open_here().map_err(refuse)?;
        let port = nft.bind().map_err(refuse)?;
        let (data_dir, network) = (settings.data_dir.clone(), settings.network.clone());
        let boot = current_boot_id()?;
        let mut planner = Planner::new();
        planner.await_cluster_policies();
        Ok(Self {
            settings: settings.clone(),
            nft: Nfnetlink::start(nft),
            port,
            metrics,
            planner,
            mirror: Mirror::default(),
            pods: AttachedPods::of(data_dir, network, boot.clone()),
            boot,
            attached: Vec::new(),
            are_records_stale: false,
            due: Due::default(),
            failures: Backoff::default(),
            is_applied: false,
            applied_at: None,
            cut: Pace::default(),
            cutting: None,
            save: Pace::default(),
            keeping: Keeping::default(),
            said: Said::default(),
            is_said_stale: false,
            denials: Denials::default(),
            absences: 0,
        })
    }

    /// The number by which the kernel names the agent's own changes of the table.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Runs for as long as the agent. Without an API server, what stands is kept.
    pub async fn run(mut self, mut watches: Option<PolicyWatches>, signal: Arc<Signal>) {
        let (mut resync, mut housekeeping) = (interval(RESYNC), interval(HOUSEKEEPING));
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look(Look::ALL, Duration::ZERO);
        loop {
            let cut_at = self.cut.at().filter(|_| self.cutting.is_none());
            let keep_at = self.keeping.at().filter(|_| self.planner.is_complete());
            let wake_at = [self.due.at, self.failures.at(), cut_at, self.save.at(), keep_at]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                message = next_of(&mut watches) => match message {
                    Some(message) => self.on_message(message, watches.as_mut()),
                    None => watches = None,
                },
                () = signal.told() => self.on_kernel_event(signal.take()),
                packet = self.denials.next() => {
                    if let Some(packet) = packet {
                        self.denials.tell(&packet, &self.planner, &self.attached, &self.metrics);
                    }
                }
                outcome = end_of(&mut self.cutting) => self.on_cut(outcome),
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    self.work().await;
                }
                _ = housekeeping.tick() => self.housekeeping().await,
                _ = resync.tick() => {
                    self.pods.read_all_again();
                    // Whom a policy selects changes with pods and namespaces too.
                    self.is_said_stale = true;
                    self.due.touched.pods.extend(self.attached.iter().map(|it| it.uid.clone()));
                    self.look(Look { records: true, ..Look::default() }, Duration::ZERO);
                }
            }
        }
    }

    /// Somebody else changed something.
    fn on_kernel_event(&mut self, look: Look) {
        if look.is_nothing() {
            return;
        }
        if look.bindings || look.whole {
            self.due.drifted.get_or_insert_with(Instant::now);
        }
        self.look(look, GATHER_DRIFT);
    }

    fn look(&mut self, look: Look, after: Duration) {
        self.due.look = self.due.look.or(look);
        self.hurry(after);
    }

    fn hurry(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.due.at = Some(self.due.at.map_or(at, |known| known.min(at)));
    }

    /// Does what is due.
    async fn work(&mut self) {
        let now = Instant::now();
        if self.failures.take_due(now) {
            self.look(Look::ALL, Duration::ZERO);
        }
        if self.due.at.is_some_and(|at| at <= now) {
            let due = std::mem::take(&mut self.due);
            let begin = Instant::now();
            let outcome = timeout(STEP, self.apply(due)).await;
            self.applied_at = Some(Instant::now());
            self.metrics.step_took("policy", begin.elapsed());
            let reason = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(reason)) => Some(reason.to_string()),
                Err(_) => Some(format!("deadline of {STEP:?} exceeded")),
            };
            match reason {
                None => self.failures.succeed(),
                Some(reason) => {
                    self.metrics.step_failed("policy");
                    error!(step = "policy", reason, "step failed, will retry");
                    // What was done of it is not known.
                    self.is_applied = false;
                    self.due.touched.all = true;
                    self.failures.fail(Instant::now());
                }
            }
        }
        if self.cutting.is_none() && self.cut.take_due(now) {
            self.cut_flows(self.planner.plan().clone());
        }
        if self.save.take_due(now) {
            self.save();
        }
        self.keep_objects();
    }

    /// What follows a change of the table.
    pub(super) fn after(&mut self, due: &Due, applied: Applied) {
        self.denials.know(self.mirror.is_untold(), &self.metrics);
        if applied.left_over {
            self.hurry(LEFT_OVER);
        }
        // What somebody took away let flows begin that no rule allows.
        let is_repaired = due.drifted.is_some() && applied.transactions > 0;
        if (applied.taken_away || is_repaired) && self.settings.policy_cut {
            self.cut.want();
        }
        if applied.transactions > 0 {
            self.save.want();
            debug!(transactions = applied.transactions, "policy table updated");
            if let Some(said) = due.said {
                self.metrics.policy.programmed.observe(said.elapsed().as_secs_f64());
            }
            if let Some(since) = due.drifted.filter(|_| due.look.whole) {
                self.metrics.policy.repaired.inc();
                warn!(part = "policy", took = milliseconds(since.elapsed()), "drift repaired");
            }
        }
        let plan = self.planner.plan();
        let isolated = plan.pods.values().filter(|pod| pod.is_isolated()).count();
        let is_held =
            |it: &&Attached| !plan.pods.contains_key(&it.uid) && plan.holds.contains_key(it.namespace());
        let held = self.attached.iter().filter(is_held).count();
        self.metrics.policy.isolated.set(isolated.try_into().unwrap_or(i64::MAX));
        self.metrics.policy.held.set(held.try_into().unwrap_or(i64::MAX));
        if plan.pods.is_empty() && plan.holds.is_empty() {
            self.denials.close();
        }
    }

    /// Has existing flows forgotten that no rule allows any more.
    pub(super) fn cut_flows(&mut self, plan: Plan) {
        let cut = Cut { plan, attached: self.attached.clone(), unknown: self.unknown() };
        self.cutting = Some((
            Instant::now(),
            spawn_blocking(move || cut.carry_out().map_err(|reason| reason.to_string())),
        ));
    }

    fn on_cut(&mut self, outcome: Result<usize, String>) {
        let Some((begin, _)) = self.cutting.take() else { return };
        self.metrics.step_took("policy_cut", begin.elapsed());
        self.cut.done(begin, Instant::now());
        match outcome {
            Ok(0) => {}
            Ok(flows) => {
                self.metrics.policy.cut.inc_by(flows.try_into().unwrap_or(u64::MAX));
                info!(
                    flows,
                    took = milliseconds(begin.elapsed()),
                    "flows cut that no policy allows any more"
                );
            }
            Err(reason) => {
                self.metrics.step_failed("policy_cut");
                error!(step = "policy_cut", reason, "step failed, will retry");
                self.cut.want();
            }
        }
    }

    async fn housekeeping(&mut self) {
        if self.planner.is_complete() && std::mem::take(&mut self.is_said_stale) {
            self.said.problems(self.planner.problems(), &self.metrics);
        }
        if self.is_applied && !self.planner.plan().holds.is_empty() {
            self.denials.open();
            self.denials.count(&self.nft, &self.metrics).await;
        }
    }
}

/// The end of a cut, or none ever.
async fn end_of(cutting: &mut Option<(Instant, JoinHandle<Result<usize, String>>)>) -> Result<usize, String> {
    match cutting {
        Some((_, task)) => task.await.unwrap_or_else(|reason| Err(reason.to_string())),
        None => std::future::pending().await,
    }
}

/// The next message, or none ever.
async fn next_of(watches: &mut Option<PolicyWatches>) -> Option<PolicyMessage> {
    match watches {
        Some(watches) => watches.next().await,
        None => std::future::pending().await,
    }
}
