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

/// The attached pods of one network.
#[derive(Debug)]
pub struct AttachedPods {
    data_dir: PathBuf,
    network: NetworkName,
    boot: BootId,
    /// `None`: of no pod whose uid is known, or of an earlier boot.
    known: HashMap<AttachmentKey, Option<Attached>>,
    is_stale: bool,
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

    /// Looks who came and who went since: the uids of both.
    ///
    /// # Errors
    /// When the store cannot be read. A record that cannot be read is passed over until the next time.
    pub fn look(&mut self) -> Result<BTreeSet<String>, CniError> {
        let is_stale = std::mem::take(&mut self.is_stale);
        let (mut now, mut changed) = (HashMap::new(), BTreeSet::new());
        let store = Store::open_existing(&self.data_dir, &self.network)?;
        let keys = store.as_ref().map_or_else(|| Ok(Vec::new()), Store::keys)?;
        for key in keys {
            // Whoever asks another plugin for addresses writes the record before that, without them.
            let is_whole =
                |it: &Option<Attached>| !is_stale && it.as_ref().is_none_or(|it| !it.addresses.is_empty());
            let before = self.known.remove(&key);
            if let Some(known) = before.clone().filter(is_whole) {
                now.insert(key, known);
                continue;
            }
            let Ok(Some(record)) = store.as_ref().map_or(Ok(None), |store| store.find(&key)) else {
                continue;
            };
            let attached = Some(&record).filter(|it| it.is_from(&self.boot)).and_then(attached);
            let before = before.flatten();
            if before != attached {
                changed.extend([&before, &attached].into_iter().flatten().map(|it| it.uid.clone()));
            }
            now.insert(key, attached);
        }
        changed.extend(std::mem::replace(&mut self.known, now).into_values().flatten().map(|it| it.uid));
        Ok(changed)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Attached> {
        self.known.values().flatten().cloned().collect()
    }

    /// Their addresses by uid.
    pub fn addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for it in self.known.values().flatten() {
            addresses.entry(it.uid.clone()).or_default().extend(&it.addresses);
        }
        addresses
    }
}
