//! Dead attachments: finding them, taking down what is left of them, and freeing what they hold.

use std::net::IpAddr;
use std::path::Path;

use crate::attachments::teardown::{self, Leaving, Mode, Removed, Teardown};
use crate::attachments::timing::Steps;
use crate::attachments::{LOCK_DEADLINE, liveness, node_addresses, pod_rules};
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::datapath::detach::{self, bears_mark_of};
use crate::desired::names;
use crate::linux::limits;
use crate::linux::netlink::Netlink;
use crate::store::{BootId, Record, Store, StoreGuard};

/// What was found of the dead.
#[derive(Default)]
pub struct Found {
    /// Those whose addresses may be freed.
    pub dead: Removed,
    /// Those that another command works on: a DEL, an ADD of the same id, or somebody who reclaims like this one.
    pub busy: Vec<AttachmentKey>,
}

/// Finds the attachments that cannot be using their addresses any more, and takes down what they had on the node. Asks
/// the kernel, hence without the store's lock.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn find_dead(store: &Store, boot: &BootId, node: Option<&Netlink>) -> Result<Found, CniError> {
    find_dead_among(store, boot, node, |_| true).await
}

/// The same for those attachments alone that hold one of `addresses`.
///
/// # Errors
/// As [`find_dead`].
pub async fn find_dead_holders(
    store: &Store,
    boot: &BootId,
    node: Option<&Netlink>,
    addresses: &[IpAddr],
) -> Result<Found, CniError> {
    let holds_one = |record: &Record| record.addresses.iter().any(|address| addresses.contains(address));
    find_dead_among(store, boot, node, holds_one).await
}

async fn find_dead_among(
    store: &Store,
    boot: &BootId,
    node: Option<&Netlink>,
    is_meant: impl Fn(&Record) -> bool,
) -> Result<Found, CniError> {
    // Each of the dead keeps its lock open.
    limits::raise_open_files();
    let mut found = Found::default();
    store.discard_previous_boots(boot, LOCK_DEADLINE)?;
    for entry in store.attachments()? {
        let Ok(record) = entry.record else { continue };
        if !is_meant(&record) || !liveness::is_dead(&record, boot, node).await? {
            continue;
        }
        match take_down(store, &record, boot, node).await? {
            Some(dead) => found.dead.join(dead),
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
    boot: &BootId,
    node: Option<&Netlink>,
) -> Result<Option<Removed>, CniError> {
    let Some(leaving) = Leaving::unless_busy(store, &record.key())? else { return Ok(None) };
    if leaving.record() != Some(record) {
        return Ok(None);
    }
    let teardown = Teardown { mode: Mode::Dead, node, delegate: None, boot, steps: &Steps::default() };
    let removed = teardown.remove(vec![leaving], Vec::new()).await;
    removed.map(Some).map_err(|failures| teardown::one("reclaim", failures))
}

/// Frees what the dead hold.
///
/// # Errors
/// Where the store cannot be used.
pub fn release_dead(locked: &mut StoreGuard<'_>, dead: Removed) -> Result<(), CniError> {
    dead.release(locked).map_err(|failures| teardown::one("reclaim", failures))
}

/// Removes the link by which this node reaches `address`, with all that it has in the tables, if it is what an ADD of
/// `network` left that did not live to its end, and whose record is lost: a link with the network's mark, without an alias
/// and without a record. Returns whether it was one.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn remove_unfinished(
    store: &Store,
    node: &Netlink,
    network: &NetworkName,
    address: IpAddr,
) -> Result<bool, CniError> {
    let Some(link) = node_addresses::link_to_pod(node, address).await? else { return Ok(false) };
    if link.alias.is_some() || !bears_mark_of(&link, network) {
        return Ok(false);
    }
    // After the link: an ADD that is at work has written its record before it made one.
    if store.keys()?.iter().flat_map(names::node_links).any(|name| name == link.name) {
        return Ok(false);
    }
    detach::detach_all(node, std::slice::from_ref(&link)).await?;
    pod_rules::remove_elements_of_link(network, &link.name).await?;
    Ok(true)
}

/// Frees what the dead among the pods with these addresses hold, whatever network of the data directory they are in; not
/// `own`. `false`, and some may be left, if one of them may live.
///
/// # Errors
/// Where store or kernel cannot be used.
pub async fn release_dead_holders(
    data_dir: &Path,
    addresses: &[IpAddr],
    own: &AttachmentKey,
    boot: &BootId,
    node: &Netlink,
) -> Result<bool, CniError> {
    for network in Store::networks(data_dir)? {
        let Some(store) = Store::open_existing(data_dir, &network)? else { continue };
        store.discard_previous_boots(boot, LOCK_DEADLINE)?;
        for entry in store.attachments()? {
            let Ok(record) = entry.record else { continue };
            let is_holder = record.addresses.iter().any(|address| addresses.contains(address));
            if !is_holder || record.key() == *own {
                continue;
            }
            if !liveness::is_dead(&record, boot, Some(node)).await? {
                return Ok(false);
            }
            if let Some(dead) = take_down(&store, &record, boot, Some(node)).await? {
                release_dead(&mut store.lock(boot, LOCK_DEADLINE)?, dead)?;
            }
        }
    }
    Ok(true)
}
