//! DEL: nothing of the attachment remains, whatever had become of it.
//!
//! Needs the container id and the interface name, and of the conf the network's name and the store's place.
//! No namespace, another's namespace at the path, no link, no record, a damaged record, a conf that changed
//! since: all of these are a success, because what DEL promises holds (k8s#57465, cilium#40459). It never enters
//! the pod's namespace, so a stale path that leads to another pod's cannot mislead it (cri-o#2849). The one exception
//! are pods that another plugin made (`attachments::imported`).

use crate::attachments::claim::take_from_delegate;
use crate::attachments::{HOLD_DEADLINE, LOCK_DEADLINE, Progress, imported, pod_rules};
use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::cni::request::Request;
use crate::config::{Removal, Role};
use crate::datapath::detach;
use crate::datapath::error::DatapathError;
use crate::linux::netlink::Netlink;
use crate::store::{AttachmentLock, BootId, Record, Store, StoreError, current_boot_id};

/// Removes the attachment: its rights first, then its links, the address last. Idempotent.
///
/// # Errors
/// Only what a second attempt can mend: a lock held too long, a kernel that refuses, another IPAM plugin's
/// own error.
pub async fn del(request: &Request, progress: &Progress) -> Result<(), CniError> {
    let removal = Removal::read(&request.conf)?;
    let key = request.environment.attachment(removal.name.clone())?;
    let boot = current_boot_id()?;
    loop {
        let store = Store::open_for_removal(&removal.data_dir, &removal.name)?;
        let grip = progress.steps.time("lock", || grip(store.as_ref(), &key, &boot))?;
        if removal.role == Role::Main {
            let node = Netlink::open_here();
            let node = node.map_err(|source| DatapathError::Socket { place: "node", source })?;
            let found = store.as_ref().map_or(Ok(None), |store| store.find(&key));
            if let Ok(Some(record)) = &found {
                progress.steps.time_async("nft", pod_rules::expire_elements(record)).await;
            }
            progress.steps.time_async("link", detach::detach(&node, &key)).await?;
            progress.steps.time_async("nft", dismiss(&node, found, &key, &boot)).await?;
        }
        if let Some(plugin) = &removal.delegate {
            progress.steps.time_async("ipam", take_from_delegate(request, plugin)).await?;
        }
        if progress.steps.time("ipam", || release(&removal, &key, &boot, &grip))? {
            return Ok(());
        }
    }
}

/// Removes what the attachment has in the nftables table: what its record says, or what its link's name leads to. Of an
/// imported one, the link that another plugin made.
async fn dismiss(
    node: &Netlink,
    found: Result<Option<Record>, StoreError>,
    key: &AttachmentKey,
    boot: &BootId,
) -> Result<(), CniError> {
    match found {
        Ok(Some(record)) => {
            imported::detach(&record, boot).await?;
            pod_rules::remove_leftover_elements(node, &record).await
        }
        // What it holds is not known now, but may be the next time.
        Err(error @ StoreError::Io { .. }) => Err(error.into()),
        _ => pod_rules::remove_elements_of_link(key).await,
    }
}

/// What keeps others off the attachment.
enum Grip {
    /// Its hold.
    Held(#[expect(dead_code, reason = "kept for what its drop does")] AttachmentLock),
    /// Its record is no file, which no command can hold or work on.
    Unholdable,
    /// It has no record, so there is nothing to hold.
    Absent,
}

/// Waits for an ADD of the same key that is still running.
fn grip(store: Option<&Store>, key: &AttachmentKey, boot: &BootId) -> Result<Grip, CniError> {
    let Some(store) = store else { return Ok(Grip::Absent) };
    store.discard_previous_boots(boot, LOCK_DEADLINE)?;
    match store.hold(key, HOLD_DEADLINE) {
        Ok(Some(hold)) => Ok(Grip::Held(hold)),
        Ok(None) => Ok(Grip::Absent),
        Err(StoreError::Damaged(_)) => Ok(Grip::Unholdable),
        Err(error) => Err(error.into()),
    }
}

/// Forgets the attachment. `false`, and nothing is done, if an ADD has begun since there was nothing to hold: to
/// release what that is using would give its address to a second pod.
fn release(removal: &Removal, key: &AttachmentKey, boot: &BootId, grip: &Grip) -> Result<bool, CniError> {
    // Opened again: the ADD may have been the network's first.
    let Some(store) = Store::open_for_removal(&removal.data_dir, &removal.name)? else { return Ok(true) };
    let mut locked = store.lock(boot, LOCK_DEADLINE)?;
    let is_ours = match grip {
        Grip::Held(_) | Grip::Unholdable => true,
        Grip::Absent => matches!(store.find(key), Ok(None)),
    };
    if is_ours {
        locked.release(key)?;
    }
    Ok(is_ours)
}
