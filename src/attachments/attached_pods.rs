//! The pods of this node as NetworkPolicy knows them, from the records: which links and addresses a uid has.
//!
//! Each record is read once. Who comes and goes shows in the names of the files alone, so looking again costs one list of
//! a directory, however many pods there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::attachments::pod_policy::attached;
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::datapath::policy::Attached;
use crate::store::{BootId, Store};

/// The attached pods of all networks of this node: a policy is about each of a pod's interfaces.
#[derive(Debug)]
pub struct AttachedPods {
    data_dir: PathBuf,
    /// The one whose addresses the API server tells.
    network: NetworkName,
    boot: BootId,
    /// `None`: of no pod whose uid is known, or of an earlier boot.
    known: HashMap<AttachmentKey, Option<Attached>>,
    is_stale: bool,
}

/// Uids of pods that came, went, or changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// By whichever interface.
    pub pods: BTreeSet<String>,
    /// Those among them that did so in the network whose addresses the API server tells.
    pub addressed: BTreeSet<String>,
}

impl AttachedPods {
    /// None yet.
    pub fn of(data_dir: PathBuf, network: NetworkName, boot: BootId) -> Self {
        Self { data_dir, network, boot, known: HashMap::new(), is_stale: false }
    }

    /// Has every record read again the next time.
    pub fn read_all_again(&mut self) {
        self.is_stale = true;
    }

    /// Looks who came and who went since.
    ///
    /// # Errors
    /// When a store cannot be read. A record that cannot be read is passed over until the next time.
    pub fn look(&mut self) -> Result<Changed, CniError> {
        let is_stale = std::mem::take(&mut self.is_stale);
        let (mut now, mut changed) = (HashMap::new(), Changed::default());
        for network in Store::networks(&self.data_dir)? {
            let Some(store) = Store::open_existing(&self.data_dir, &network)? else { continue };
            for key in store.keys()? {
                // Whoever asks another plugin for addresses writes the record before that, without them.
                let is_whole = |it: &Option<Attached>| {
                    !is_stale && it.as_ref().is_none_or(|it| !it.addresses.is_empty())
                };
                let before = self.known.remove(&key);
                if let Some(known) = before.clone().filter(is_whole) {
                    now.insert(key, known);
                    continue;
                }
                let Ok(Some(record)) = store.find(&key) else { continue };
                let attached = Some(&record).filter(|it| it.is_from(&self.boot)).and_then(attached);
                let before = before.flatten();
                if before != attached {
                    changed.add(key.network == self.network, [&before, &attached].into_iter().flatten());
                }
                now.insert(key, attached);
            }
        }
        for (key, gone) in std::mem::replace(&mut self.known, now) {
            changed.add(key.network == self.network, gone.iter());
        }
        Ok(changed)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Attached> {
        self.known.values().flatten().cloned().collect()
    }

    /// Their addresses by uid, those of other networks left out: nobody outside this node knows them.
    pub fn addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let here = self.known.iter().filter(|(key, _)| key.network == self.network);
        for it in here.filter_map(|(_, it)| it.as_ref()) {
            addresses.entry(it.uid.clone()).or_default().extend(&it.addresses);
        }
        addresses
    }
}

impl Changed {
    fn add<'a>(&mut self, is_addressed: bool, pods: impl Iterator<Item = &'a Attached>) {
        for it in pods {
            self.pods.insert(it.uid.clone());
            if is_addressed {
                self.addressed.insert(it.uid.clone());
            }
        }
    }
}
