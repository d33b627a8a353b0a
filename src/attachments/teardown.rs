//! The one order in which all that an attachment has goes.
//!
//! | step | what goes                                                                                          |
//! |------|----------------------------------------------------------------------------------------------------|
//! | 1    | the pod's elements in the nftables table expire: nothing of it gets through from here on           |
//! | 2    | its links; of a pod that another plugin attached, the pod's end of that plugin's pair              |
//! | 3    | the elements that are left                                                                         |
//! | 4    | what another IPAM plugin holds for it: that plugin's DEL                                           |
//! | 5    | the record, and with it the addresses: [`Removed::release`], by the holder of the store's lock     |
//!
//! The address goes last: a link that stays may still use it, and a hostPort may still lead to it. So there is no way to
//! step 5 but through the others.
//!
//! | mode           | for whom                   | its lock                         | where a step fails                |
//! |----------------|----------------------------|----------------------------------|-----------------------------------|
//! | [`Mode::Del`]  | DEL; an unfinished ADD     | waited for                       | ends there; a second attempt      |
//! | [`Mode::Undo`] | an ADD that failed         | the ADD has it                   | the rest of steps 1 to 3 is done; step 4 cannot fail |
//! | [`Mode::Gc`]   | what GC finds not valid    | never waited for                 | the rest of steps 1 to 3 is done  |
//! | [`Mode::Dead`] | the dead, for an ADD in need, the agent, `reclaim` | never waited for | ends there                |
//!
//! DEL of one attachment as a whole is [`remove_one`], and the undo of an ADD [`undo`].
//!
//! Whoever removes several at once must not wait for the lock of any: two that do so would wait for each other.

use std::path::Path;

use crate::attachments::timing::{Phase, Steps};
use crate::attachments::{HOLD_DEADLINE, LOCK_DEADLINE, UNDO_DEADLINE, delegate, imported, pod_rules};
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::AttachmentKey;
use crate::cni::request::Request;
use crate::datapath::detach::{self, is_marked};
use crate::datapath::error::DatapathError;
use crate::desired::names;
use crate::linux::link::{Link, LinkRef};
use crate::linux::netlink::Netlink;
use crate::store::{AttachmentLock, BootId, Record, Store, StoreError, StoreGuard};

/// Why attachments go. See the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The runtime says so; or another ADD finds that the one before it did not live to its end.
    Del,
    /// Their ADD failed.
    Undo,
    /// The runtime does not name them among those that are valid.
    Gc,
    /// They cannot be using their addresses any more.
    Dead,
}

/// An attachment that goes.
pub struct Leaving {
    key: AttachmentKey,
    /// What is remembered of it. `None` if it has no record, or one that is damaged; an error if it could not be read
    /// this time.
    record: Result<Option<Record>, CniError>,
    /// Keeps other commands off it. `None` where it has no record, or what no command can lock.
    _lock: Option<AttachmentLock>,
    /// Whether the store may know it: else there is nothing to release.
    is_known: bool,
}

impl Leaving {
    /// One whose record and lock the caller has.
    pub fn new(record: Record, lock: AttachmentLock) -> Self {
        Self { key: record.key(), record: Ok(Some(record)), _lock: Some(lock), is_known: true }
    }

    /// Waits for whoever works on the attachment. It goes even if nothing is known of it: its links are found by name.
    /// What is remembered of it is read by [`Leaving::read_record`].
    ///
    /// # Errors
    /// Code 11 where the lock could not be had in time; where the store cannot be read.
    pub fn wait_for(
        store: Option<&Store>,
        key: &AttachmentKey,
        boot: &BootId,
        steps: &Steps,
    ) -> Result<Self, CniError> {
        let absent = Self { key: key.clone(), record: Ok(None), _lock: None, is_known: false };
        let Some(store) = store else { return Ok(absent) };
        store.discard_previous_boots(boot, steps.patience(LOCK_DEADLINE))?;
        let lock = steps.time(Phase::AttachmentLock, || store.hold(key, steps.patience(HOLD_DEADLINE)));
        let lock = match lock {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Ok(absent),
            // No regular file, which nobody can lock. It is released all the same.
            Err(StoreError::Damaged(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { _lock: lock, is_known: true, ..absent })
    }

    /// The attachment, unless another command works on it right now.
    ///
    /// # Errors
    /// Where the store cannot be read, be it the record alone: it may hold what nobody would remove then.
    pub fn unless_busy(store: &Store, key: &AttachmentKey) -> Result<Option<Self>, CniError> {
        let lock = match store.try_hold(key) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Ok(None),
            Err(StoreError::Damaged(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let leaving = Self { key: key.clone(), record: Ok(None), _lock: lock, is_known: true };
        leaving.read_record(store).unless_unread().map(Some)
    }

    /// Reads the record, under the lock: it is what goes.
    #[must_use]
    pub fn read_record(mut self, store: &Store) -> Self {
        self.record = match store.find(&self.key) {
            Err(error @ StoreError::Io { .. }) => Err(error.into()),
            found => Ok(found.ok().flatten()),
        };
        self
    }

    /// The attachment, unless its record could not be read this time.
    ///
    /// # Errors
    /// Why it could not.
    pub fn unless_unread(self) -> Result<Self, CniError> {
        match self.record {
            Err(error) => Err(error),
            Ok(_) => Ok(self),
        }
    }

    /// Whose.
    pub fn key(&self) -> &AttachmentKey {
        &self.key
    }

    /// What is remembered of it, as far as it could be read.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref().ok().and_then(Option::as_ref)
    }

    /// Whether it has the attachment's lock, or stands for what nobody can lock.
    pub fn is_known(&self) -> bool {
        self.is_known
    }
}

/// Attachments of which nothing is left but what the store has. Nobody else works on them until this is dropped.
#[derive(Default)]
pub struct Removed(Vec<Leaving>);

impl Removed {
    /// Those of both.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last step: their records go, and their addresses are free. One that cannot be released does not keep the
    /// others.
    ///
    /// # Errors
    /// All of them. The next holder of the store's lock goes on.
    pub fn release(self, locked: &mut StoreGuard<'_>) -> Result<(), Vec<CniError>> {
        let released = self.0.into_iter().map(|it| locked.release(&it.key));
        let failures: Vec<CniError> = released.filter_map(Result::err).map(CniError::from).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }
}

/// What a teardown works with.
pub struct Teardown<'a> {
    /// Why they go.
    pub mode: Mode,
    /// The node's links; `None` where ferrule is the IPAM plugin of another, and steps 1 to 3 are that plugin's.
    pub node: Option<&'a Netlink>,
    /// The other IPAM plugin, and the command whose conf and environment it gets.
    pub delegate: Option<(&'a str, &'a Request)>,
    /// This boot.
    pub boot: &'a BootId,
    /// Where the steps are noted.
    pub steps: &'a Steps,
}

impl Teardown<'_> {
    /// Steps 1 to 4, for all of `leaving`, and for links that nobody knows any more. Idempotent: what is not there is
    /// gone.
    ///
    /// # Errors
    /// The first, or all, as the mode has it. Then the addresses must not be released.
    pub async fn remove(
        &self,
        leaving: Vec<Leaving>,
        unrecorded: Vec<Link>,
    ) -> Result<Removed, Vec<CniError>> {
        let mut failures = Vec::new();
        if let Some(node) = self.node {
            self.remove_from_node(node, &leaving, unrecorded, &mut failures).await;
            if !failures.is_empty() {
                return Err(failures);
            }
        }
        if let Some((plugin, request)) = self.delegate {
            let told = delegate::execute(plugin, request, Command::Del);
            let told = self.steps.time_async(Phase::Delegate, told).await;
            // Of an ADD that failed, its complaint would hide why. The addresses are that plugin's, and DEL tells it again.
            if self.mode != Mode::Undo {
                told.map_err(|error| vec![error])?;
            }
        }
        Ok(Removed(leaving))
    }

    /// Steps 1 to 3.
    async fn remove_from_node(
        &self,
        node: &Netlink,
        leaving: &[Leaving],
        unrecorded: Vec<Link>,
        failures: &mut Vec<CniError>,
    ) {
        let goes_on = matches!(self.mode, Mode::Undo | Mode::Gc);
        let records: Vec<Record> = leaving.iter().filter_map(|it| it.record().cloned()).collect();
        let expired = pod_rules::expire_elements(&records);
        self.steps.time_async(Phase::Nftables, expired).await;

        let removed = self.remove_links(node, leaving, unrecorded, &records);
        failures.extend(self.steps.time_async(Phase::RemoveLinks, removed).await.err());
        if !goes_on && !failures.is_empty() {
            return;
        }
        let removed = self.remove_leftover_elements(node, leaving, &records);
        failures.extend(self.steps.time_async(Phase::Nftables, removed).await.err());
    }

    /// Removes links, all in one message, so that the kernel's grace periods are waited for once.
    async fn remove_links(
        &self,
        node: &Netlink,
        leaving: &[Leaving],
        unrecorded: Vec<Link>,
        records: &[Record],
    ) -> Result<(), CniError> {
        match leaving {
            // Lists no links: one must not cost more the more pods there are.
            [only] if unrecorded.is_empty() => detach::detach(node, &only.key).await?,
            _ => remove_many_links(node, leaving, unrecorded).await?,
        }
        for record in records {
            imported::detach(record, self.boot).await?;
        }
        Ok(())
    }

    async fn remove_leftover_elements(
        &self,
        node: &Netlink,
        leaving: &[Leaving],
        records: &[Record],
    ) -> Result<(), CniError> {
        pod_rules::remove_leftover_elements(node, records).await?;
        for it in leaving {
            match &it.record {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let link = names::host_link(&it.key);
                    pod_rules::remove_elements_of_link(&it.key.network, &link).await?;
                }
                // What it holds is not known now, but may be the next time.
                Err(error) => return Err(error.clone()),
            }
        }
        Ok(())
    }
}

/// DEL: removes one attachment, whatever had become of it, the address last. Idempotent.
///
/// # Errors
/// Only what a second attempt can repair: a lock held too long, a kernel that refuses, another IPAM plugin's own error.
pub async fn remove_one(
    teardown: &Teardown<'_>,
    data_dir: &Path,
    key: &AttachmentKey,
) -> Result<(), CniError> {
    loop {
        let store = Store::open_for_removal(data_dir, &key.network)?;
        let mut leaving = Leaving::wait_for(store.as_ref(), key, teardown.boot, teardown.steps)?;
        if teardown.node.is_some()
            && let Some(store) = &store
        {
            leaving = leaving.read_record(store);
        }
        let is_known = leaving.is_known();
        let removed = teardown.remove(vec![leaving], Vec::new()).await;
        let removed = removed.map_err(|failures| one("DEL", failures))?;
        // Opened again: an ADD may have begun since, and be the network's first.
        let Some(store) = Store::open_for_removal(data_dir, &key.network)? else { return Ok(()) };
        let mut locked = lock(&store, teardown)?;
        // To release what such an ADD is using would give its address to a second pod. So DEL begins again, and waits.
        if is_known || matches!(store.find(key), Ok(None)) {
            let released = teardown.steps.time(Phase::Store, || removed.release(&mut locked));
            return released.map_err(|failures| one("DEL", failures));
        }
    }
}

/// Takes back what an ADD has made of its own, in its own time.
///
/// # Errors
/// What stays, for DEL or GC to remove.
pub async fn undo(teardown: &Teardown<'_>, data_dir: &Path, leaving: Leaving) -> Result<(), CniError> {
    teardown.steps.begin_deadline(UNDO_DEADLINE);
    let network = leaving.key.network.clone();
    let work = async {
        let removed = teardown.remove(vec![leaving], Vec::new()).await;
        let removed = removed.map_err(|failures| one("undo", failures))?;
        let Some(store) = Store::open_existing(data_dir, &network)? else { return Ok(()) };
        let mut locked = lock(&store, teardown)?;
        removed.release(&mut locked).map_err(|failures| one("undo", failures))
    };
    teardown.steps.until_deadline("the undo of ADD", work).await
}

fn lock<'store>(store: &'store Store, teardown: &Teardown<'_>) -> Result<StoreGuard<'store>, StoreError> {
    let patience = teardown.steps.patience(LOCK_DEADLINE);
    teardown.steps.time(Phase::StoreLock, || store.lock(teardown.boot, patience))
}

/// The links of the attachments are looked up one by one: a list may lack a link on a node that is busy, and the address
/// of one that stays must not become free.
async fn remove_many_links(
    node: &Netlink,
    leaving: &[Leaving],
    unrecorded: Vec<Link>,
) -> Result<(), DatapathError> {
    let mut links = unrecorded;
    for Leaving { key, .. } in leaving {
        for name in names::node_links(key) {
            links.extend(node.link(LinkRef::Name(name)).await?.filter(|link| is_marked(link, key)));
        }
    }
    detach::detach_all(node, &links).await
}

/// Several failures as one: the first one's code, and the texts of all.
pub fn one(what: &str, mut failures: Vec<CniError>) -> CniError {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let code = failures.first().map_or(Code::Internal, |first| first.code);
    CniError::new(code, format!("{what}: {} errors", failures.len())).with_details(texts.join("; "))
}
