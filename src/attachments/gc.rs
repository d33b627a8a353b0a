//! GC: finds the attachments of a network that the runtime does not name as valid, and tears them down, together with
//! links that nobody knows any more.

use std::collections::HashSet;

use crate::attachments::teardown::{self, Leaving, Mode, Teardown};
use crate::attachments::timing::{Phase, Steps};
use crate::attachments::{LOCK_DEADLINE, delegate, node, pod_rules};
use crate::cni::env::Command;
use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::cni::request::Request;
use crate::config::{AddressManagement, Network, Role};
use crate::datapath::detach::bears_mark_of;
use crate::desired::names;
use crate::linux::limits;
use crate::linux::link::Link;
use crate::linux::netlink::Netlink;
use crate::store::{BootId, Store, StoreError, StoreGuard};

/// What a garbage collection works on.
pub struct Gc<'a> {
    /// The command.
    pub request: &'a Request,
    /// What its conf means.
    pub network: &'a Network,
    /// This boot.
    pub boot: &'a BootId,
    /// Where the steps are noted.
    pub steps: &'a Steps,
}

impl Gc<'_> {
    /// Removes every attachment of the network that is not among those that the conf names as valid.
    ///
    /// Goes on after an error. An attachment that another command is working on right now is left alone.
    ///
    /// # Errors
    /// All of them, in one answer.
    pub async fn run(&self) -> Result<(), CniError> {
        let mut failures: Vec<CniError> = Vec::new();
        let node = match self.network.role {
            Role::Main => Some(node::open()?),
            Role::Ipam => None,
        };
        if let Err(error) = self.remove_stale(node.as_ref(), &mut failures).await {
            failures.push(error);
        }
        if self.network.role == Role::Main {
            let swept = pod_rules::sweep(&self.network.data_dir, &self.network.name, self.boot);
            failures.extend(self.steps.time_async(Phase::Nftables, swept).await.err());
        }
        if let AddressManagement::Delegate(plugin) = &self.network.address_management {
            let told = delegate::execute(plugin, self.request, Command::Gc);
            failures.extend(self.steps.time_async(Phase::Delegate, told).await.err());
        }
        if failures.is_empty() { Ok(()) } else { Err(teardown::one("GC", failures)) }
    }

    async fn remove_stale(
        &self,
        node: Option<&Netlink>,
        failures: &mut Vec<CniError>,
    ) -> Result<(), CniError> {
        // Before the records: a link that is here by then and has none later was left behind. Listed after them, it
        // could be that of an ADD which began in between.
        let old_links: Vec<Link> = match node {
            Some(node) => self.steps.wait(Phase::Look, node.links()).await?,
            None => Vec::new(),
        };
        let store = Store::open_existing(&self.network.data_dir, &self.network.name)?;
        let known = match &store {
            Some(store) => {
                // What lost its name in `by-id` has it again before anything is judged, and what is of an earlier boot
                // goes before anything is locked: no lock keeps that.
                let repaired = self.lock(store).and_then(|mut locked| locked.repair());
                failures.extend(repaired.err().map(CniError::from));
                store.keys()?
            }
            None => Vec::new(),
        };
        let valid = self.valid();
        // Each of them keeps its lock open.
        limits::raise_open_files();
        let mut stale: Vec<Leaving> = Vec::new();
        if let Some(store) = &store {
            for key in known.iter().filter(|key| !valid.contains(key)) {
                match Leaving::unless_busy(store, key) {
                    Ok(leaving) => stale.extend(leaving),
                    Err(error) => failures.push(error),
                }
            }
        }
        let spared: HashSet<String> = known.iter().chain(&valid).flat_map(names::node_links).collect();
        let is_unrecorded =
            |link: &Link| !spared.contains(&link.name) && bears_mark_of(link, &self.network.name);
        let unrecorded = old_links.into_iter().filter(is_unrecorded).collect();
        let teardown = Teardown { mode: Mode::Gc, node, delegate: None, boot: self.boot, steps: self.steps };
        match (teardown.remove(stale, unrecorded).await, store) {
            (Ok(removed), Some(store)) => match self.lock(&store) {
                Ok(mut locked) => {
                    failures.extend(removed.release(&mut locked).err().into_iter().flatten());
                }
                Err(error) => failures.push(error.into()),
            },
            (Ok(_), None) => {}
            (Err(errors), _) => failures.extend(errors),
        }
        Ok(())
    }

    fn lock<'store>(&self, store: &'store Store) -> Result<StoreGuard<'store>, StoreError> {
        let patience = self.steps.patience(LOCK_DEADLINE);
        self.steps.time(Phase::StoreLock, || store.lock(self.boot, patience))
    }

    fn valid(&self) -> HashSet<AttachmentKey> {
        let named = self.network.valid_attachments.iter();
        named
            .map(|(container, ifname)| AttachmentKey {
                network: self.network.name.clone(),
                container: container.clone(),
                ifname: ifname.clone(),
            })
            .collect()
    }
}
