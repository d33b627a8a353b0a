//! Where an attachment's addresses come from and go back to: the store, or another IPAM plugin.
//!
//! Both end in a record of the store, since a record is what DEL, CHECK and GC work from.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::attachments::allocation::{AllocatedAddress, Allocation, usable_sets};
use crate::attachments::delegate::Delegate;
use crate::attachments::node::{self, NodeFacts};
use crate::attachments::reclaim::Found;
use crate::attachments::teardown::{Leaving, Mode, Teardown};
use crate::attachments::timing::{Phase, Steps};
use crate::attachments::{
    HOLD_DEADLINE, LOCK_DEADLINE, UNDO_DEADLINE, liveness, node_addresses, reclaim, teardown,
};
use crate::cni::dns::Dns;
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, IfName};
use crate::cni::request::Request;
use crate::cni::result::AddResult;
use crate::config::range::RangeSet;
use crate::config::{AddressManagement, Network};
use crate::datapath::detach;
use crate::desired::names;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::store::{AttachmentLock, Claim, Record, RecordedNetns, Store, StoreError, StoreGuard};

/// Everything that a claim of addresses works on.
pub struct AddressRequest<'a> {
    /// The command.
    pub request: &'a Request,
    /// What its conf means.
    pub network: &'a Network,
    /// The network's store.
    pub store: &'a Store,
    /// Whose addresses.
    pub key: &'a AttachmentKey,
    /// The pod's namespace, where the runtime names one.
    pub netns: Option<&'a Netns>,
    /// Where the steps are noted, and how much time there is.
    pub steps: &'a Steps,
    /// The node's links; `None` where ferrule is the IPAM plugin of another and has no links.
    pub node: Option<&'a Netlink>,
    /// What was asked of the node.
    pub facts: &'a NodeFacts,
}

/// Addresses that are ours from now on: their record is on disk.
pub struct Claimed {
    /// What was given.
    pub allocation: Allocation,
    /// What is remembered of it.
    pub record: Record,
    /// Keeps other commands off the attachment until dropped.
    pub lock: AttachmentLock,
}

impl AddressRequest<'_> {
    /// Claims one address of each range set, and writes the record: from here on, a crash is repaired by DEL, GC
    /// or the next boot.
    ///
    /// An attachment of the same key that an ADD did not live to finish is removed first. Dead attachments
    /// are reclaimed when a range set has run out, or when they hold an address that is asked for.
    ///
    /// # Errors
    /// Code 100 where no address is left, 101 where the attachment exists already or an address that was asked
    /// for is taken, 11 where a lock could not be had in time, the other plugin's own.
    pub async fn claim(&self) -> Result<Claimed, CniError> {
        let store = self.store;
        let sets = match &self.network.address_management {
            AddressManagement::Ranges(sets) => usable_sets(sets, self.facts.has_ipv6)?,
            AddressManagement::Delegate(plugin) => return self.claim_delegated(store, plugin).await,
        };
        let dns = read_resolv_conf(self.network)?;
        let node = self.node_or_open()?;
        let can_be_had = |address: &&IpAddr| sets.iter().any(|set| set.hands_out(**address));
        for &address in self.network.requested.iter().filter(can_be_had) {
            if let Some(whose) = self.steps.wait(Phase::Look, node_addresses::why_own(&node, address)).await?
            {
                let message = format!("{address} is {whose} and cannot be given to a pod");
                return Err(
                    CniError::new(Code::AlreadyTaken, message).with_details("ask for another address")
                );
            }
        }
        let mut usable = sets.clone();
        let (record, lock) = loop {
            let (record, lock) = self.claim_from(store, &usable).await?;
            let taken = node_addresses::not_free_among(&node, &record.addresses);
            let taken = self.steps.wait(Phase::Look, taken).await;
            if taken.as_ref().is_ok_and(Vec::is_empty) {
                break (record, lock);
            }
            self.lock(store)?.release(self.key)?;
            let taken = taken?;
            if self.remove_unfinished_among(store, &node, &taken).await? {
                continue;
            }
            for address in taken.iter().filter(|it| self.network.requested.contains(it)) {
                node_addresses::refuse_lost_pods(&node, None, *address).await?;
            }
            usable = node_addresses::without_taken(&node, usable, &taken).await?;
        };
        // One of each set, in their order.
        let addresses = record.addresses.iter().zip(&sets);
        let allocation = Allocation {
            addresses: addresses.map(|(&it, set)| AllocatedAddress::of(it, set.range_of(it))).collect(),
            routes: self.network.with_pod_routes(&self.network.routes),
            dns,
        };
        Ok(Claimed { allocation, record, lock })
    }

    /// Claims one address of each of these sets.
    async fn claim_from(
        &self,
        store: &Store,
        sets: &[RangeSet],
    ) -> Result<(Record, AttachmentLock), CniError> {
        let allocate =
            |locked: &mut StoreGuard<'_>| locked.allocate(self.new_claim(), sets, &self.network.requested);
        let claim = || {
            let mut locked = self.lock(store)?;
            self.steps.time(Phase::Store, || allocate(&mut locked))
        };
        let mut outcome = claim();
        if let Err(StoreError::AlreadyAttached { .. }) = outcome {
            self.in_time(self.remove_unfinished(store, None)).await?;
            outcome = claim();
        }
        if let Err(StoreError::Exhausted { .. } | StoreError::Taken { .. }) = outcome {
            let again = self.claim_from_the_dead(store, &self.network.requested, outcome, allocate);
            outcome = self.in_time(again).await?;
        }
        Ok(outcome?)
    }

    /// The node's links; a socket of its own where ferrule has none there.
    fn node_or_open(&self) -> Result<Netlink, CniError> {
        self.node.map_or_else(node::open, |node| Ok(node.clone()))
    }

    fn lock<'store>(&self, store: &'store Store) -> Result<StoreGuard<'store>, StoreError> {
        let patience = self.steps.patience(LOCK_DEADLINE);
        self.steps.time(Phase::StoreLock, || store.lock(&self.facts.boot, patience))
    }

    /// What a claim waits for must not keep it longer than the command may take. Nothing is cut short that would leave
    /// more behind than a DEL removes.
    fn in_time<'a, T: 'a>(
        &'a self,
        work: impl Future<Output = Result<T, CniError>> + 'a,
    ) -> impl Future<Output = Result<T, CniError>> + 'a {
        self.steps.until_deadline("ADD", work)
    }

    /// Claims once more, after what the dead hold was freed: of sets that have run out, or of `addresses` of which one is
    /// taken, as `outcome` says. Whoever works on one of the dead is waited for, as long as there is no room: a DEL is
    /// about to free it, or another ADD in the same need.
    async fn claim_from_the_dead(
        &self,
        store: &Store,
        addresses: &[IpAddr],
        mut outcome: Result<(Record, AttachmentLock), StoreError>,
        claim: impl Fn(&mut StoreGuard<'_>) -> Result<(Record, AttachmentLock), StoreError>,
    ) -> Result<Result<(Record, AttachmentLock), StoreError>, CniError> {
        let (boot, node) = (&self.facts.boot, self.node);
        let mut waited_for: HashSet<AttachmentKey> = HashSet::new();
        loop {
            let was_taken = match outcome {
                Err(StoreError::Taken { .. }) => true,
                Err(StoreError::Exhausted { .. }) => false,
                outcome => return Ok(outcome),
            };
            let Found { dead, busy } = match was_taken {
                true => reclaim::find_dead_holders(store, boot, node, addresses).await?,
                false => reclaim::find_dead(store, boot, node).await?,
            };
            let mut locked = self.lock(store)?;
            reclaim::release_dead(&mut locked, dead)?;
            // Even where nothing was dead: another ADD may have made room just now, for all that wait.
            outcome = claim(&mut locked);
            drop(locked);
            if was_taken && matches!(outcome, Err(StoreError::Exhausted { .. })) {
                // Of the other family, of which other attachments may hold addresses.
                continue;
            }
            let Some(busy) = busy.into_iter().find(|key| waited_for.insert(key.clone())) else {
                return Ok(outcome);
            };
            // With nothing in hand that anybody could be waiting for.
            let patience = self.steps.patience(HOLD_DEADLINE);
            drop(self.steps.time(Phase::AttachmentLock, || store.hold(&busy, patience))?);
        }
    }

    /// Asks another IPAM plugin, and writes what it gave to a record of our own.
    ///
    /// The record is there before, without addresses, because its lock makes every other command on this
    /// attachment wait: of two ADDs at once, the one that is refused would take the other's address back.
    async fn claim_delegated(&self, store: &Store, plugin: &str) -> Result<Claimed, CniError> {
        let delegate = Delegate::find(plugin, &self.request.environment.path)?;
        let announce = || self.lock(store)?.adopt(self.new_claim(), &[]);
        let mut outcome = announce();
        if let Err(StoreError::AlreadyAttached { .. }) = outcome {
            self.in_time(self.remove_unfinished(store, Some(plugin))).await?;
            outcome = announce();
        }
        let (announced, lock) = outcome?;
        let asked = self.in_time(delegate.execute(Command::Add, &self.request.conf));
        let claimed = match self.steps.time_async(Phase::Delegate, asked).await {
            Ok(answer) => self.in_time(self.adopt(store, plugin, &answer)).await,
            Err(failure) => Err(failure),
        };
        let Err(mut failure) = claimed else { return claimed };
        // Whatever it had given when it failed or was killed, or what is of no use to us: it takes it back
        // (SPEC section 4).
        self.steps.begin_deadline(UNDO_DEADLINE);
        let undo = Teardown { node: None, ..self.teardown(Mode::Undo, Some(plugin)) };
        let removed = undo.remove(vec![Leaving::new(announced, lock)], Vec::new()).await;
        let undone = removed
            .and_then(|removed| removed.release(&mut self.lock(store).map_err(|error| vec![error.into()])?));
        if let Err(failures) = undone {
            failure.add_failed_undo(&teardown::one("ADD", failures));
        }
        Err(failure)
    }

    async fn adopt(&self, store: &Store, plugin: &str, answer: &[u8]) -> Result<Claimed, CniError> {
        let unusable = |reason: String| {
            let message = format!("IPAM plugin {plugin:?} answered ADD with what is no result");
            CniError::new(Code::Decode, message).with_details(reason)
        };
        let answer = serde_json::from_slice(answer).map_err(|error| unusable(error.to_string()))?;
        let result = AddResult::parse(self.network.version, &answer)
            .map_err(|problem| unusable(problem.to_string()))?;
        if result.ips.is_empty() {
            return Err(unusable("it gives no address (ips is empty)".into()));
        }
        let node = self.node_or_open()?;
        for ip in &result.ips {
            let judged = node_addresses::refuse_no_pods(&node, plugin, ip.address, ip.gateway);
            self.steps.wait(Phase::Look, judged).await?;
        }
        let addresses: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.ip()).collect();
        let used = self.steps.wait(Phase::Look, node_addresses::not_free_among(&node, &addresses)).await?;
        // What a record holds is judged below, by that.
        if !used.is_empty() && self.lock(store)?.refuse_held(&used).is_ok() {
            self.remove_unfinished_among(store, &node, &used).await?;
            for address in used {
                node_addresses::refuse_lost_pods(&node, Some(plugin), address).await?;
            }
        }
        // What was announced stays until its successor can be written: its lock makes others wait.
        let adopt = |locked: &mut StoreGuard<'_>| {
            locked.refuse_held(&addresses)?;
            locked.release(self.key)?;
            locked.adopt(self.new_claim(), &addresses)
        };
        let mut outcome = adopt(&mut self.lock(store)?);
        if let Err(StoreError::Taken { .. }) = outcome {
            // The plugin knows that the pod is gone which had it, and nobody told us.
            outcome = self.claim_from_the_dead(store, &addresses, outcome, adopt).await?;
        }
        let (record, lock) = outcome?;
        let located = result.ips.iter().map(|ip| AllocatedAddress {
            address: ip.address.ip(),
            subnet: IpNetwork::new(ip.address.network(), ip.address.prefix()).ok(),
            gateway: ip.gateway,
            named_gateway: ip.gateway,
        });
        let routes = self.network.with_pod_routes(&result.routes);
        let allocation = Allocation { addresses: located.collect(), routes, dns: result.dns };
        Ok(Claimed { allocation, record, lock })
    }

    /// Removes what ADDs left that had these addresses and did not live to their end; whether there was any.
    async fn remove_unfinished_among(
        &self,
        store: &Store,
        node: &Netlink,
        addresses: &[IpAddr],
    ) -> Result<bool, CniError> {
        let mut any = false;
        for &address in addresses {
            let removed = reclaim::remove_unfinished(store, node, &self.network.name, address);
            any |= self.steps.wait(Phase::RemoveLinks, removed).await?;
        }
        Ok(any)
    }

    fn new_claim(&self) -> Claim {
        let environment = &self.request.environment;
        let netns = self.netns.zip(environment.netns.as_ref()).map(|(netns, path)| RecordedNetns {
            path: path.clone(),
            dev: netns.identity().dev,
            ino: netns.identity().ino,
        });
        Claim {
            key: self.key.clone(),
            netns,
            host_link: self.node.and_then(|_| IfName::parse(&names::host_link(self.key)).ok()),
            pod: environment.args.pod.clone(),
            masquerade: self.network.masquerade.is_on,
            host_ports: self.network.host_ports.clone(),
            mac: self.network.mac,
            bandwidth: self.network.bandwidth,
            imported_from: None,
        }
    }

    /// Removes an attachment of this key that nobody finished, and has the `delegate` take back what it may have
    /// given for it. One that is in use is refused.
    async fn remove_unfinished(&self, store: &Store, delegate: Option<&str>) -> Result<(), CniError> {
        // Waits for an ADD of the same key that is still running, and finds it finished then.
        let leaving = Leaving::wait_for(Some(store), self.key, &self.facts.boot, self.steps)?;
        if !leaving.is_known() {
            return Ok(());
        }
        // One that cannot be read this time may be a running pod's.
        let leaving = leaving.read_record(store).unless_unread()?;
        if let Some(record) = leaving.record()
            && record.is_from(&self.facts.boot)
            && self.is_in_use(record).await?
        {
            let message = format!("{} is attached already", self.key);
            let details = "DEL it first; a container id names one sandbox only";
            return Err(CniError::new(Code::AlreadyTaken, message).with_details(details));
        }
        let removed = self.teardown(Mode::Del, delegate).remove(vec![leaving], Vec::new()).await;
        let removed = removed.map_err(|failures| teardown::one("ADD", failures))?;
        removed.release(&mut self.lock(store)?).map_err(|failures| teardown::one("ADD", failures))
    }

    fn teardown<'a>(&'a self, mode: Mode, delegate: Option<&'a str>) -> Teardown<'a> {
        Teardown {
            mode,
            node: self.node,
            delegate: delegate.map(|plugin| (plugin, self.request)),
            boot: &self.facts.boot,
            steps: self.steps,
        }
    }

    /// Whether the recorded attachment was finished and still is in use.
    async fn is_in_use(&self, record: &Record) -> Result<bool, CniError> {
        if record.netns.is_some() && liveness::is_namespace_gone(record) {
            return Ok(false);
        }
        let Some(node) = self.node.filter(|_| record.imported_from.is_none()) else { return Ok(true) };
        let link = node.link(LinkRef::Name(names::host_link(self.key))).await?;
        Ok(link.is_some_and(|link| detach::is_whole(&link, self.key)))
    }
}

/// DNS settings of the file that `ipam.resolvConf` names, as host-local reads it.
fn read_resolv_conf(network: &Network) -> Result<Dns, CniError> {
    let Some(path) = &network.resolv_conf else { return Ok(Dns::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("ipam.resolvConf: cannot read {}", path.display());
        CniError::new(Code::Io, message).with_details(error.to_string())
    })?;
    Ok(Dns::from_resolv_conf(&text))
}
