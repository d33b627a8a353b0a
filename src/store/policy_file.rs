//! What the agent last made of the table `inet ferrule-policy`: for whoever finds that table gone.
//!
//! One file, `<dataDir>/<network>/policy`, a line of JSON. The agent writes it as a whole and gives it its name by a
//! rename; where no policy isolates anybody on this node there is none. Nothing is synced: what a power loss tears is
//! found by the checksum.
//!
//! What it says of addresses holds for the boot in which it was written. Addresses of before that are nobody's, so after a
//! reboot its sets of pods count as empty: closed rather than wrong. Its blocks, ports and rules are as true as before.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cni::ids::NetworkName;
use crate::cni::problem::plain;
use crate::policy::plan::{Members, Plan};
use crate::store::boot::BootId;
use crate::store::error::{Damaged, StoreError};
use crate::store::guard::StoreGuard;
use crate::store::handle::Store;
use crate::store::record::checksum;
use crate::store::side_files::replace_list;

pub(super) const POLICY: &str = "policy";

/// The format written here.
const VERSION: u64 = 1;

/// What stands before the checksum, and after the bytes that it is of.
const SUM: &str = ",\"sum\":\"";

/// What is remembered of the policies in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// The plan of the table. Its sets of pods are empty where the file does not tell who is in them.
    pub plan: Plan,
    /// Whether it tells who is in the sets of pods: it was written in this boot, and all of them fit into the file.
    pub has_members: bool,
}

#[derive(Deserialize)]
struct Header {
    version: u64,
    #[serde(default)]
    sum: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    boot_id: String,
    members: bool,
    plan: Plan,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    version: u64,
    boot_id: &'a str,
    members: bool,
    plan: &'a Plan,
}

impl Store {
    /// Whether the network has such a file. One system call.
    pub fn has_policy(data_dir: &Path, network: &NetworkName) -> bool {
        // What cannot be looked at is there: reading it tells why.
        let found = data_dir.join(network.as_str()).join(POLICY).symlink_metadata();
        !found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// What the agent last made of the table; `None` where no policy isolates anybody on this node.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::NewerFormat`]: there are policies, and nobody knows which. Else when the
    /// file cannot be read.
    pub fn policy(&self, boot: &BootId) -> Result<Option<PolicyFile>, StoreError> {
        let Some(content) = self.root.read(POLICY)? else { return Ok(None) };
        let path = self.root.path_of(POLICY);
        let damaged = |why: &str| StoreError::from(Damaged::new(&path, why));
        let no_plan = |error: serde_json::Error| {
            damaged(&format!("it is no plan of policies: {}", plain(&error.to_string())))
        };
        // The version first: of a newer format nothing else is known.
        let header: Header = serde_json::from_slice(&content.bytes).map_err(no_plan)?;
        if header.version != VERSION {
            return Err(StoreError::NewerFormat { path, version: header.version });
        }
        let place = content.bytes.windows(SUM.len()).rposition(|window| window == SUM.as_bytes());
        let summed = place.and_then(|place| content.bytes.get(..place));
        // Whoever edits it by hand takes the sum out.
        if let Some(sum) = header.sum
            && summed.is_none_or(|bytes| checksum(bytes) != sum)
        {
            return Err(damaged("its checksum is not that of what it says"));
        }
        let read: Read = serde_json::from_slice(&content.bytes).map_err(no_plan)?;
        let has_members = read.members && read.boot_id == boot.as_str();
        let plan = if has_members { read.plan } else { without_members(read.plan) };
        Ok(Some(PolicyFile { plan, has_members }))
    }
}

impl StoreGuard<'_> {
    /// Remembers the plan of the table, or that there is none, unless that is remembered already. For before the table is
    /// changed, or removed: whoever finds it gone makes what is remembered.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stands.
    pub fn remember_policy(&mut self, plan: Option<&Plan>) -> Result<(), StoreError> {
        let root = &self.store.root;
        let Some(plan) = plan else { return root.remove(POLICY).map(|_| ()) };
        let written = replace_list(&self.tmp, root, POLICY, &self.write(plan, true));
        match written {
            // Who is in the sets of very many pods need not be remembered.
            Err(StoreError::TooLarge { .. }) => {
                let lean = without_members(plan.clone());
                replace_list(&self.tmp, root, POLICY, &self.write(&lean, false))
            }
            written => written,
        }
    }

    fn write(&self, plan: &Plan, members: bool) -> String {
        let written = Written { version: VERSION, boot_id: self.boot.as_str(), members, plan };
        // Texts, numbers and lists: serialising them cannot fail.
        let mut json = serde_json::to_string(&written).unwrap_or_default();
        if json.pop().is_some() {
            let sum = checksum(json.as_bytes());
            json.push_str(&format!("{SUM}{sum}\"}}\n"));
        }
        json
    }
}

/// The same plan with nobody in its sets of pods.
fn without_members(mut plan: Plan) -> Plan {
    for members in plan.sets.values_mut() {
        match members {
            Members::Pods(pods) => pods.clear(),
            Members::Ports(ports) => ports.clear(),
            Members::Blocks(_) => {}
        }
    }
    plan
}
