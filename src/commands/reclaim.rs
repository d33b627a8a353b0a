//! Dead attachments: finding them, and freeing what they hold.

use super::{LOCK_DEADLINE, firewall, liveness};
use crate::cni::error::CniError;
use crate::datapath::detach;
use crate::ipam::{BootId, Locked, Record, Store};
use crate::kernel::netlink::Netlink;

/// The attachments that cannot be using their addresses any more, without what they had on the node. Asks the
/// kernel, hence without the store's lock.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn find_dead(
    store: &Store,
    boot: &BootId,
    node: Option<&Netlink>,
) -> Result<Vec<Record>, CniError> {
    let mut dead = Vec::new();
    for entry in store.attachments()? {
        let Ok(record) = entry.record else { continue };
        if liveness::is_dead(&record, boot, node).await? {
            if let Some(node) = node.filter(|_| record.is_from(boot)) {
                // The pair went with the namespace; what does not go with the pair goes now.
                detach::detach(node, &record.key()).await?;
                firewall::dismiss(node, std::slice::from_ref(&record)).await?;
            }
            dead.push(record);
        }
    }
    Ok(dead)
}

/// Frees the addresses of the dead. One that another command works on, or that is no longer what was judged,
/// is left alone.
///
/// Holds are taken below the lock, and without waiting: ADDs that run out of addresses together would else
/// see each other's holds as work going on, and fail.
///
/// # Errors
/// Where the store cannot be used.
pub fn release_dead(store: &Store, locked: &mut Locked<'_>, dead: &[Record]) -> Result<(), CniError> {
    for record in dead {
        let key = record.key();
        let Some(_hold) = store.try_hold(&key)? else { continue };
        if store.find(&key).is_ok_and(|found| found.as_ref() == Some(record)) {
            locked.release(&key)?;
        }
    }
    Ok(())
}

/// Finds the dead and frees what they hold.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn reclaim(store: &Store, boot: &BootId, node: Option<&Netlink>) -> Result<(), CniError> {
    let dead = find_dead(store, boot, node).await?;
    let mut locked = store.lock(boot, LOCK_DEADLINE)?;
    release_dead(store, &mut locked, &dead)
}
