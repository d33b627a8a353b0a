//! Dead attachments: finding them, taking down what is left of them, and freeing what they hold.

use crate::attachments::{LOCK_DEADLINE, liveness, pod_rules};
use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::datapath::detach;
use crate::linux::netlink::Netlink;
use crate::store::{AttachmentLock, BootId, Record, Store, StoreGuard};

/// A dead attachment of which nothing is left but its record. Nobody else works on it until this is dropped.
pub struct Dead {
    record: Record,
    _hold: AttachmentLock,
}

/// What was found of the dead.
#[derive(Default)]
pub struct Found {
    /// Those whose addresses may be freed.
    pub dead: Vec<Dead>,
    /// Those that another command works on: a DEL, an ADD of the same id, or somebody who reclaims like this one.
    pub busy: Vec<AttachmentKey>,
}

/// Finds the attachments that cannot be using their addresses any more, and takes down what they had on the node. Asks
/// the kernel, hence without the store's lock.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn find_dead(store: &Store, boot: &BootId, node: Option<&Netlink>) -> Result<Found, CniError> {
    let mut found = Found::default();
    store.discard_previous_boots(boot, LOCK_DEADLINE)?;
    for entry in store.attachments()? {
        let Ok(record) = entry.record else { continue };
        if !liveness::is_dead(&record, boot, node).await? {
            continue;
        }
        match take_down(store, &record, node).await? {
            Some(dead) => found.dead.push(dead),
            None => found.busy.push(record.key()),
        }
    }
    Ok(found)
}

/// Takes down what an attachment of this boot that was judged dead has on the node. The pair went with the namespace;
/// what does not go with the pair goes now. `None`, and nothing is done, if another command works on it, or has made
/// it anew since it was judged: link and elements of the table bear the same names then, and are a living pod's.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn take_down(
    store: &Store,
    record: &Record,
    node: Option<&Netlink>,
) -> Result<Option<Dead>, CniError> {
    let key = record.key();
    // Never waited for: those who reclaim would wait for each other.
    let Some(hold) = store.try_hold(&key)? else { return Ok(None) };
    if !store.find(&key).is_ok_and(|found| found.as_ref() == Some(record)) {
        return Ok(None);
    }
    if let Some(node) = node {
        detach::detach(node, &key).await?;
        pod_rules::remove_elements(node, std::slice::from_ref(record)).await?;
    }
    Ok(Some(Dead { record: record.clone(), _hold: hold }))
}

/// Frees what the dead hold.
///
/// # Errors
/// Where the store cannot be used.
pub fn release_dead(locked: &mut StoreGuard<'_>, dead: Vec<Dead>) -> Result<(), CniError> {
    for it in dead {
        locked.release(&it.record.key())?;
    }
    Ok(())
}
