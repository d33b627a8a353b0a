//! Where an attachment's addresses come from and go back to: the store, or another IPAM plugin.
//!
//! Both end in a record of the store, since a record is what DEL, CHECK and GC work from.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::attachments::delegate::Delegate;
use crate::attachments::reclaim::Found;
use crate::attachments::timing::Steps;
use crate::attachments::{DELEGATE_DEADLINE, HOLD_DEADLINE, LOCK_DEADLINE};
use crate::attachments::{liveness, pod_rules, reclaim};
use crate::cni::dns::Dns;
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, IfName};
use crate::cni::request::Request;
use crate::cni::result::AddResult;
use crate::cni::route::Route;
use crate::config::range::RangeSet;
use crate::config::{AddressManagement, Network};
use crate::datapath::detach;
use crate::desired::names;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::linux::sysctl;
use crate::store::{AttachmentLock, BootId, Claim, Record, RecordedNetns, Store, StoreError};

/// What an attachment was given.
#[derive(Debug, Default)]
pub struct Allocation {
    /// One address for each range set.
    pub addresses: Vec<AllocatedAddress>,
    /// Routes of the conf, or of the other IPAM plugin.
    pub routes: Vec<Route>,
    /// DNS of `resolvConf`, or of the other IPAM plugin.
    pub dns: Dns,
}

impl Allocation {
    /// The addresses, parted by commas.
    pub fn list(&self) -> String {
        self.addresses.iter().map(|it| it.address.to_string()).collect::<Vec<_>>().join(",")
    }
}

/// An address with what its range says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatedAddress {
    /// The address.
    pub address: IpAddr,
    /// The subnet of its range, where it is still known.
    pub subnet: Option<IpNetwork>,
    /// The gateway of its range, by name or by default.
    pub gateway: Option<IpAddr>,
    /// The gateway, only where the conf names it.
    pub named_gateway: Option<IpAddr>,
}

impl AllocatedAddress {
    /// The address with its subnet's prefix, as an IPAM plugin answers.
    pub fn with_subnet_prefix(&self) -> IpNetwork {
        let prefix = self.subnet.map(|subnet| subnet.prefix());
        prefix.and_then(|prefix| IpNetwork::new(self.address, prefix).ok()).unwrap_or(self.address.into())
    }
}

/// Everything that a claim of addresses works on.
pub struct AddressRequest<'a> {
    /// The command.
    pub request: &'a Request,
    /// What its conf means.
    pub network: &'a Network,
    /// Whose addresses.
    pub key: &'a AttachmentKey,
    /// The pod's namespace, where the runtime names one.
    pub netns: Option<&'a Netns>,
    /// Where the steps are noted.
    pub steps: &'a Steps,
    /// The node's links; `None` where ferrule is the IPAM plugin of another and has no links.
    pub node: Option<&'a Netlink>,
}

/// Addresses that are ours from now on: their record is on disk.
pub struct Claimed {
    /// What was given.
    pub acquired: Allocation,
    /// What is remembered of it.
    pub record: Record,
    /// Keeps other commands off the attachment until dropped.
    _hold: AttachmentLock,
}

impl AddressRequest<'_> {
    /// Claims one address of each range set, and writes the record: from here on, a crash is mended by DEL, GC
    /// or the next boot.
    ///
    /// An attachment of the same key that an ADD did not live to finish is removed first. Dead attachments
    /// are reclaimed when a range set has run out.
    ///
    /// # Errors
    /// Code 100 where no address is left, 101 where the attachment stands already or an address that was asked
    /// for is taken, 11 where a lock could not be had in time, the other plugin's own.
    pub async fn claim(&self, boot: &BootId) -> Result<Claimed, CniError> {
        let store = Store::open(&self.network.data_dir, &self.network.name)?;
        let sets = match &self.network.address_management {
            AddressManagement::Ranges(sets) => usable_sets(sets)?,
            AddressManagement::Delegate(plugin) => return self.claim_delegated(&store, boot, plugin).await,
        };
        let dns = read_resolv_conf(self.network)?;
        let claim = || {
            let mut locked = self.steps.time("lock", || store.lock(boot, LOCK_DEADLINE))?;
            let allocate = || locked.allocate(self.new_claim(), &sets, &self.network.requested);
            self.steps.time("ipam", allocate)
        };
        let mut outcome = claim();
        if let Err(StoreError::AlreadyAttached { .. }) = outcome {
            self.remove_unfinished(&store, boot, None).await?;
            outcome = claim();
        }
        if let Err(StoreError::Exhausted { .. }) = outcome {
            outcome = self.claim_from_the_dead(&store, boot, &sets).await?;
        }
        let (record, hold) = outcome?;
        let acquired = Allocation {
            addresses: record.addresses.iter().map(|&address| locate(address, &sets)).collect(),
            routes: self.network.with_pod_routes(&self.network.routes),
            dns,
        };
        Ok(Claimed { acquired, record, _hold: hold })
    }

    /// Claims once more from sets that have run out, after what the dead hold was freed. Whoever works on one of them is
    /// waited for, as long as there is no room: a DEL is about to free it, or another ADD in the same need.
    async fn claim_from_the_dead(
        &self,
        store: &Store,
        boot: &BootId,
        sets: &[RangeSet],
    ) -> Result<Result<(Record, AttachmentLock), StoreError>, CniError> {
        let mut waited_for: HashSet<AttachmentKey> = HashSet::new();
        loop {
            let Found { dead, busy } = reclaim::find_dead(store, boot, self.node).await?;
            let mut locked = store.lock(boot, LOCK_DEADLINE)?;
            reclaim::release_dead(&mut locked, dead)?;
            // Even where nothing was dead: another ADD may have made room just now, for all that wait.
            let outcome = locked.allocate(self.new_claim(), sets, &self.network.requested);
            drop(locked);
            let Err(StoreError::Exhausted { .. }) = outcome else { return Ok(outcome) };
            let Some(busy) = busy.into_iter().find(|key| waited_for.insert(key.clone())) else {
                return Ok(outcome);
            };
            // With nothing in hand that anybody could be waiting for.
            drop(store.hold(&busy, HOLD_DEADLINE)?);
        }
    }

    /// Asks another IPAM plugin, and writes what it gave to a record of our own.
    ///
    /// The record is there before, without addresses, because its hold makes every other command on this
    /// attachment wait: of two ADDs at once, the one that is refused would take the other's address back.
    async fn claim_delegated(&self, store: &Store, boot: &BootId, plugin: &str) -> Result<Claimed, CniError> {
        let delegate = Delegate::find(plugin, &self.request.environment.path)?;
        let announce = || store.lock(boot, LOCK_DEADLINE)?.adopt(self.new_claim(), &[]);
        let mut outcome = announce();
        if let Err(StoreError::AlreadyAttached { .. }) = outcome {
            self.remove_unfinished(store, boot, Some(&delegate)).await?;
            outcome = announce();
        }
        let (_, _announced) = outcome?;
        let asked = delegate.execute(Command::Add, &self.request.conf, DELEGATE_DEADLINE);
        let claimed = match self.steps.time_async("ipam", asked).await {
            Ok(answer) => self.adopt(store, boot, plugin, &answer),
            Err(failure) => Err(failure),
        };
        let Err(failure) = claimed else { return claimed };
        // Whatever it had given when it failed or was killed, or what is of no use to us: it takes it back
        // (SPEC section 4). If it will not, its complaint would hide why; DEL tells it again.
        let _ = delegate.execute(Command::Del, &self.request.conf, DELEGATE_DEADLINE).await;
        store.lock(boot, LOCK_DEADLINE)?.release(self.key)?;
        Err(failure)
    }

    fn adopt(&self, store: &Store, boot: &BootId, plugin: &str, answer: &[u8]) -> Result<Claimed, CniError> {
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
        let addresses: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.ip()).collect();
        let mut locked = store.lock(boot, LOCK_DEADLINE)?;
        locked.release(self.key)?;
        let (record, hold) = locked.adopt(self.new_claim(), &addresses)?;
        let located = result.ips.iter().map(|ip| AllocatedAddress {
            address: ip.address.ip(),
            subnet: IpNetwork::new(ip.address.network(), ip.address.prefix()).ok(),
            gateway: ip.gateway,
            named_gateway: ip.gateway,
        });
        let routes = self.network.with_pod_routes(&result.routes);
        let acquired = Allocation { addresses: located.collect(), routes, dns: result.dns };
        Ok(Claimed { acquired, record, _hold: hold })
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
            imported_from: None,
        }
    }

    /// Removes an attachment of this key that nobody finished, and has the `delegate` take back what it may have
    /// given for it. One that stands is refused.
    async fn remove_unfinished(
        &self,
        store: &Store,
        boot: &BootId,
        delegate: Option<&Delegate>,
    ) -> Result<(), CniError> {
        // Waits for an ADD of the same key that is still running, and finds it finished then.
        let Some(_hold) = store.hold(self.key, HOLD_DEADLINE)? else { return Ok(()) };
        if let Ok(Some(record)) = store.find(self.key)
            && record.is_from(boot)
            && self.stands(&record).await?
        {
            let message = format!("{} is attached already", self.key);
            let details = "DEL it first; a container id names one sandbox only";
            return Err(CniError::new(Code::AlreadyTaken, message).with_details(details));
        }
        if let Some(node) = self.node {
            detach::detach(node, self.key).await?;
            pod_rules::remove_elements_of_link(self.key).await?;
        }
        if let Some(delegate) = delegate {
            delegate.execute(Command::Del, &self.request.conf, DELEGATE_DEADLINE).await?;
        }
        store.lock(boot, LOCK_DEADLINE)?.release(self.key)?;
        Ok(())
    }

    /// Whether the recorded attachment was finished and still is in use.
    async fn stands(&self, record: &Record) -> Result<bool, CniError> {
        if record.netns.is_some() && liveness::is_namespace_gone(record) {
            return Ok(false);
        }
        let Some(node) = self.node.filter(|_| record.imported_from.is_none()) else { return Ok(true) };
        let link = node.link(LinkRef::Name(names::host_link(self.key))).await?;
        Ok(link.is_some_and(|link| detach::is_whole(&link, self.key)))
    }
}

/// Gives back what the attachment holds: the record and its addresses, or what another plugin holds for it.
/// Idempotent. The caller has the attachment's hold.
///
/// # Errors
/// Only what a second attempt can mend.
pub async fn give_back(
    request: &Request,
    delegate: Option<&str>,
    store: Option<&Store>,
    key: &AttachmentKey,
    boot: &BootId,
) -> Result<(), CniError> {
    if let Some(plugin) = delegate {
        take_from_delegate(request, plugin).await?;
    }
    if let Some(store) = store {
        store.lock(boot, LOCK_DEADLINE)?.release(key)?;
    }
    Ok(())
}

/// Tells the other IPAM plugin that the attachment is gone. Idempotent, as its DEL is.
///
/// # Errors
/// Its own, or that it cannot be found.
pub async fn take_from_delegate(request: &Request, plugin: &str) -> Result<(), CniError> {
    let delegate = Delegate::find(plugin, &request.environment.path)?;
    delegate.execute(Command::Del, &request.conf, DELEGATE_DEADLINE).await.map(|_| ())
}

/// The range sets that this node can use: on a kernel without IPv6, those of IPv4.
///
/// # Errors
/// Code 7 where none is left.
pub fn usable_sets(sets: &[RangeSet]) -> Result<Vec<RangeSet>, CniError> {
    let has_ipv6 = sysctl::has_ipv6();
    let usable: Vec<RangeSet> = sets.iter().filter(|set| set.is_ipv4() || has_ipv6).cloned().collect();
    if usable.is_empty() {
        let message = "ipam.ranges: only IPv6 addresses are configured, and this node's kernel has no IPv6";
        let remedy = "remove ipv6.disable=1 from the kernel's command line, or add a range of IPv4";
        return Err(CniError::new(Code::InvalidConf, message).with_details(remedy));
    }
    Ok(usable)
}

/// What the conf says of an address that the store holds.
pub fn locate(address: IpAddr, sets: &[RangeSet]) -> AllocatedAddress {
    let mut ranges = sets.iter().flat_map(|set| set.ranges());
    let range = ranges.find(|range| range.subnet().contains(address));
    AllocatedAddress {
        address,
        subnet: range.map(|range| range.subnet()),
        gateway: range.and_then(|range| range.gateway()),
        named_gateway: range.and_then(|range| range.names_gateway()),
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
