//! Applying what is due: records, plan and kernel become one.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::agent::policy::driver::Driver;
use crate::agent::policy::due::{Due, merge};
use crate::attachments::LOCK_DEADLINE;
use crate::cni::error::CniError;
use crate::config::policy::PolicyUnknown;
use crate::datapath::policy::{self, Applied, Unknown};
use crate::policy::names::{hold_chain, pod_chain};
use crate::policy::plan::{Direction, Touched};
use crate::store::Store;

impl Driver {
    /// Makes the table what the plan says.
    pub(super) async fn apply(&mut self, mut due: Due) -> Result<(), CniError> {
        // Who uses no policy pays for no list of records.
        self.are_records_stale |= due.look.records;
        let matters = self.planner.needs_any_pods() || !self.planner.is_complete();
        if matters && std::mem::take(&mut self.are_records_stale) {
            self.look_at_records(&mut due.touched)?;
        }
        if due.look.whole {
            self.mirror = policy::read(&self.nft).await?;
            if !self.is_applied {
                // Its modules may be there since.
                self.mirror.try_to_tell();
            }
        }
        if !self.planner.is_complete() {
            return if due.look.whole { self.restore().await } else { Ok(()) };
        }
        merge(&mut due.touched, self.planner.take_touched());
        due.touched.all |= due.look.whole || !self.is_applied;
        if due.look.bindings && !due.touched.all {
            self.look_at_bindings(&mut due.touched).await?;
        }
        if !self.planner.plan().holds.is_empty() {
            // Before the first packet is denied.
            self.denials.open();
        }
        // An ADD that finds no table makes what the file says: it is there before the first table, and gone before the
        // last one goes. In between it follows.
        if !self.is_applied || self.mirror.exists() == self.has_no_plan() {
            self.save();
        }
        let mut applied = Applied::default();
        loop {
            let plan = self.planner.plan();
            let (touched, attached, unknown) = (&due.touched, &self.attached, self.unknown());
            let done = policy::apply(&self.nft, &mut self.mirror, plan, touched, attached, unknown).await?;
            applied.transactions += done.transactions;
            applied.taken_away |= done.taken_away;
            applied.left_over = done.left_over;
            // An ADD that came in between has found no chains, and is known by its record.
            due.touched = Touched::default();
            if !matters || !self.look_at_records(&mut due.touched)? {
                break;
            }
        }
        if !std::mem::replace(&mut self.is_applied, true) {
            let plan = self.planner.plan();
            info!(pods = plan.pods.len(), namespaces = plan.holds.len(), "network policies applied");
        }
        self.after(&due, applied);
        Ok(())
    }

    /// Where there is no table, makes it from what was kept of it.
    async fn restore(&mut self) -> Result<(), CniError> {
        if self.mirror.exists() {
            return Ok(());
        }
        let Some(store) = self.store()? else { return Ok(()) };
        let Some(file) = store.policy(&self.boot)? else { return Ok(()) };
        if policy::restore(&self.nft, &file.plan, &self.attached, self.unknown(), file.has_members).await? {
            warn!(
                members = file.has_members,
                "policy table restored from disk, until the API server is heard"
            );
            self.mirror = policy::read(&self.nft).await?;
            // What began while there was none.
            if self.settings.policy_cut && self.cutting.is_none() {
                self.cut_flows(file.plan);
            }
        }
        Ok(())
    }

    /// What pods have that are not known yet.
    pub(super) fn unknown(&self) -> Unknown {
        match self.settings.policy_unknown {
            PolicyUnknown::Hold => Unknown::Hold,
            PolicyUnknown::Open => Unknown::Open,
        }
    }

    /// Whether no policy isolates anybody of this node.
    fn has_no_plan(&self) -> bool {
        let plan = self.planner.plan();
        plan.pods.is_empty() && plan.holds.is_empty()
    }

    pub(super) fn store(&self) -> Result<Option<Store>, CniError> {
        Ok(Store::open_existing(&self.settings.data_dir, &self.settings.network)?)
    }

    /// Keeps the plan on disk, for whoever finds the table gone.
    pub(super) fn save(&mut self) {
        let begin = Instant::now();
        let plan = (!self.has_no_plan()).then(|| self.planner.plan());
        let saved = self.store().and_then(|store| {
            let Some(store) = store else { return Ok(()) };
            Ok(store.lock(&self.boot, LOCK_DEADLINE)?.remember_policy(plan)?)
        });
        let now = Instant::now();
        self.metrics.step_took("policy_save", now.duration_since(begin));
        self.save.done(begin, now);
        if let Err(reason) = saved {
            self.metrics.step_failed("policy_save");
            error!(step = "policy_save", %reason, "step failed, will retry");
            self.save.want();
        }
    }

    /// Reads who is attached; returns whether that changed, and adds what follows from it.
    fn look_at_records(&mut self, touched: &mut Touched) -> Result<bool, CniError> {
        let changed = self.pods.look()?;
        if changed.pods.is_empty() {
            return Ok(false);
        }
        self.attached = self.pods.all();
        let addresses = self.pods.addresses();
        for uid in &changed.addressed {
            let now = addresses.get(uid).map(Vec::as_slice).unwrap_or_default();
            self.planner.set_own_addresses(uid, now);
        }
        self.keeping.want();
        touched.pods.extend(changed.pods);
        merge(touched, self.planner.take_touched());
        Ok(true)
    }

    /// Adds the pods whose packets are not led where the plan says, and those that could not reach themselves. Four lists,
    /// whatever the policies are.
    async fn look_at_bindings(&mut self, touched: &mut Touched) -> Result<(), CniError> {
        let bound = policy::bound(&self.nft).await?;
        let led: BTreeMap<(&str, Direction), &str> =
            bound.iter().map(|it| ((it.link.as_str(), it.direction), it.chain.as_str())).collect();
        let own = policy::own(&self.nft).await?;
        let plan = self.planner.plan();
        let holds = self.unknown() == Unknown::Hold;
        for attached in &self.attached {
            let (pod, namespace) = (plan.pods.get(&attached.uid), attached.namespace());
            let hold = plan.holds.get(namespace).filter(|_| holds);
            let is_wrong = |direction: Direction| {
                let wanted = match (pod, hold) {
                    (Some(_), _) => pod_chain(direction, &attached.uid),
                    (None, Some(_)) => hold_chain(direction, namespace),
                    (None, None) => return false,
                };
                led.get(&(attached.link.as_str(), direction)) != Some(&wanted.as_str())
            };
            let has_elements = pod.is_some() || hold.is_some();
            let lacks_own = || {
                let mut places = attached.addresses.iter().map(|address| (attached.link.clone(), *address));
                has_elements && !places.all(|place| own.contains(&place))
            };
            if is_wrong(Direction::Ingress) || is_wrong(Direction::Egress) || lacks_own() {
                touched.pods.insert(attached.uid.clone());
            }
        }
        Ok(())
    }
}
