//! What the agent knows of policies, namespaces and pods, for whoever asks why a connection is allowed or denied.
//!
//! One file, `<dataDir>/<network>/policy-objects`, JSON. The agent writes it from time to time, as a whole, and gives
//! it its name by a rename. Nobody holds a lock meanwhile: of a large cluster it is megabytes, and ADDs must not wait
//! for that. Nothing but answers for people follows from it, so nothing is synced and nothing is summed. Without a
//! NetworkPolicy in the cluster there is no file.

use std::io::{BufWriter, Read as _, Write};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cni::problem::plain;
use crate::policy::objects::Objects;
use crate::policy::planner::View;
use crate::store::boot::BootId;
use crate::store::error::{Damaged, StoreError};
use crate::store::handle::Store;

const OBJECTS: &str = "policy-objects";

/// Where it is written before it has its name.
const UNFINISHED: &str = "policy-objects.new";

/// The format written here.
const VERSION: u64 = 1;

/// Largest one that is read. 150,000 pods are 15 MB.
const SIZE_MAX: u64 = 256 << 20;

/// What the agent knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyObjects {
    /// Policies, namespaces and pods.
    pub objects: Objects,
    /// Whether it was written in this boot. Addresses of before that are nobody's.
    pub is_of_boot: bool,
    /// When it was written.
    pub written: SystemTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    boot_id: String,
    objects: Objects,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    version: u64,
    boot_id: &'a str,
    objects: View<'a>,
}

impl Store {
    /// What the agent knew when it last wrote it; `None` where there is no NetworkPolicy, or no agent that follows
    /// them.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::NewerFormat`]: it cannot be understood. Else when the file cannot be
    /// read.
    pub fn policy_objects(&self, boot: &BootId) -> Result<Option<PolicyObjects>, StoreError> {
        let Some((file, size)) = self.root.open(OBJECTS)? else { return Ok(None) };
        let path = self.root.path_of(OBJECTS);
        let damaged = |why: String| StoreError::from(Damaged::new(&path, why));
        if size > SIZE_MAX {
            return Err(damaged(format!("it is larger than {SIZE_MAX} bytes")));
        }
        let modified = file.metadata().and_then(|it| it.modified());
        let written = modified.map_err(|error| StoreError::io("stat", &path, error))?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let read = file.take(SIZE_MAX).read_to_end(&mut bytes);
        read.map_err(|error| StoreError::io("read", &path, error))?;
        let none = |error: serde_json::Error| {
            damaged(format!("it is no list of policies and pods: {}", plain(&error.to_string())))
        };
        // The version first: of a newer format nothing else is known.
        let header: Header = serde_json::from_slice(&bytes).map_err(none)?;
        if header.version != VERSION {
            return Err(StoreError::NewerFormat { path, version: header.version });
        }
        let read: Read = serde_json::from_slice(&bytes).map_err(none)?;
        let is_of_boot = read.boot_id == boot.as_str();
        Ok(Some(PolicyObjects { objects: read.objects, is_of_boot, written }))
    }

    /// When the file of [`Store::policy_objects`] and that of [`Store::policy`] were written, as far as they are there.
    ///
    /// # Errors
    /// When something else stands in the place of one of them.
    pub fn policy_files_written(&self) -> Result<[Option<SystemTime>; 2], StoreError> {
        let written = |name: &str| -> Result<Option<SystemTime>, StoreError> {
            let Some((file, _)) = self.root.open(name)? else { return Ok(None) };
            let modified = file.metadata().and_then(|it| it.modified());
            modified.map(Some).map_err(|error| StoreError::io("stat", &self.root.path_of(name), error))
        };
        Ok([written(OBJECTS)?, written(super::policy_file::POLICY)?])
    }

    /// Keeps what is known; without a NetworkPolicy, that there is none. For the agent alone: two at once would write
    /// into one file.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stands.
    pub fn remember_policy_objects(&self, boot: &BootId, objects: View<'_>) -> Result<(), StoreError> {
        let root = &self.root;
        // What an agent has left that did not come to the end.
        root.remove(UNFINISHED)?;
        if objects.is_without_policies() {
            return root.remove(OBJECTS).map(|_| ());
        }
        let file = root.create(UNFINISHED)?;
        let written = Written { version: VERSION, boot_id: boot.as_str(), objects };
        let mut writer = BufWriter::with_capacity(1 << 16, &file);
        let outcome = serde_json::to_writer(&mut writer, &written).map_err(std::io::Error::from);
        let outcome = outcome.and_then(|()| writer.write_all(b"\n")).and_then(|()| writer.flush());
        drop(writer);
        let outcome = outcome.map_err(|error| StoreError::io("write", &root.path_of(UNFINISHED), error));
        let outcome = outcome.and_then(|()| root.rename(UNFINISHED.as_ref(), root, OBJECTS.as_ref()));
        if outcome.is_err() {
            // Best effort: the next one removes it as well.
            let _ = root.remove(UNFINISHED);
        }
        outcome.map(|_| ())
    }
}
