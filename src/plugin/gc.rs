//! GC: DEL for everything that is known and not valid, then for what nobody knows any more.

use std::collections::HashSet;

use futures_util::future::join_all;

use crate::attachments::delegate::Delegate;
use crate::attachments::{LOCK_DEADLINE, imported, pod_rules};
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::AttachmentKey;
use crate::cni::request::Request;
use crate::config::{AddressManagement, Network, Role};
use crate::datapath::detach::{self, bears_mark_of, is_marked};
use crate::datapath::error::DatapathError;
use crate::desired::names;
use crate::linux::link::{Link, LinkRef};
use crate::linux::netlink::Netlink;
use crate::store::{AttachmentLock, BootId, Record, Store, StoreError, current_boot_id};

/// How many links are looked up at once. Each answer takes some KiB of the socket's receive buffer, before the first is
/// read.
const LOOKS: usize = 16;

/// An attachment that goes.
struct Doomed {
    key: AttachmentKey,
    /// What is remembered of it, where that can be read.
    record: Option<Record>,
    /// Keeps other commands off it meanwhile. There is none where no record stands, which nobody can hold.
    _hold: Option<AttachmentLock>,
}

/// Removes every attachment of the network that `cni.dev/valid-attachments` does not name.
///
/// Goes on after an error. An attachment that another command is working on right now is left alone.
///
/// # Errors
/// All of them, in one answer.
pub async fn gc(request: &Request) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let boot = current_boot_id()?;
    let mut failures: Vec<CniError> = Vec::new();

    let valid: HashSet<AttachmentKey> = network
        .valid_attachments
        .iter()
        .map(|(container, ifname)| AttachmentKey {
            network: network.name.clone(),
            container: container.clone(),
            ifname: ifname.clone(),
        })
        .collect();
    let node = match network.role {
        Role::Main => {
            Some(Netlink::open_here().map_err(|source| DatapathError::Socket { place: "node", source })?)
        }
        Role::Ipam => None,
    };
    // Before the records: a link that is here by then and has none later was left behind. Listed after them, it
    // could be that of an ADD which began in between.
    let old_links: Vec<Link> = match &node {
        Some(node) => node.links().await?,
        None => Vec::new(),
    };
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    if let Some(store) = &store {
        // What lost its name in `by-id` has it again before anything is judged, and what is of an earlier boot goes
        // before anything is held: no hold keeps that.
        let repaired = store.lock(&boot, LOCK_DEADLINE).and_then(|mut locked| locked.repair());
        failures.extend(repaired.err().map(CniError::from));
    }
    let known: Vec<AttachmentKey> = match &store {
        Some(store) => store.keys()?,
        None => Vec::new(),
    };
    let mut doomed: Vec<Doomed> = Vec::new();
    if let Some(store) = &store {
        for key in known.iter().filter(|key| !valid.contains(key)) {
            let hold = match store.try_hold(key) {
                Ok(Some(hold)) => Some(hold),
                // Somebody is working on it.
                Ok(None) => continue,
                // It is released all the same.
                Err(StoreError::Damaged(_)) => None,
                Err(error) => {
                    failures.push(error.into());
                    continue;
                }
            };
            // Read under the hold: it is what goes.
            let record = match store.find(key) {
                // The next time it can be read perhaps, and then it is known what it holds.
                Err(error @ StoreError::Io { .. }) => {
                    failures.push(error.into());
                    continue;
                }
                record => record.ok().flatten(),
            };
            doomed.push(Doomed { key: key.clone(), record, _hold: hold });
        }
    }
    let mut is_unused = true;
    if let Some(node) = &node {
        let spared: HashSet<String> = known.iter().chain(&valid).flat_map(names::node_links).collect();
        let is_leftover = |link: &Link| !spared.contains(&link.name) && bears_mark_of(link, &network.name);
        let leftovers = old_links.into_iter().filter(is_leftover).collect();
        if let Err(error) = remove_links(node, &doomed, leftovers).await {
            failures.push(error.into());
            is_unused = false;
        }
        if let Err(error) = dismiss_all(node, &doomed).await {
            failures.push(error);
            is_unused = false;
        }
        for record in doomed.iter().filter_map(|it| it.record.as_ref()) {
            if let Err(error) = imported::detach(record, &boot).await {
                failures.push(error);
                is_unused = false;
            }
        }
    }
    // A link that stays may still use its address, and a hostPort may still lead to it.
    if let Some(store) = store.filter(|_| is_unused) {
        failures.extend(release_all(&store, &boot, &doomed).err());
    }
    if network.role == Role::Main {
        failures.extend(pod_rules::sweep(&network.data_dir, &network.name, &boot).await.err());
    }
    if let AddressManagement::Delegate(plugin) = &network.address_management {
        let delegate = Delegate::find(plugin, &request.environment.path);
        let outcome = match delegate {
            Ok(delegate) => delegate
                .execute(Command::Gc, &request.conf, crate::attachments::DELEGATE_DEADLINE)
                .await
                .map(|_| ()),
            Err(error) => Err(error),
        };
        failures.extend(outcome.err());
    }
    join(failures)
}

/// Removes the doomed attachments' links and the leftovers, all in one message, so that the kernel's grace
/// periods are waited for once.
///
/// Those of the doomed are looked up one by one: a list may lack a link on a node that is busy, and the address of one
/// that stays must not become free.
async fn remove_links(node: &Netlink, doomed: &[Doomed], leftovers: Vec<Link>) -> Result<(), DatapathError> {
    let mut links = leftovers;
    let names = doomed.iter().flat_map(|it| names::node_links(&it.key).map(|name| (name, &it.key)));
    let names: Vec<(String, &AttachmentKey)> = names.collect();
    for some in names.chunks(LOOKS) {
        let looks = some.iter().map(|(name, _)| node.link(LinkRef::Name(name.clone())));
        for (found, (_, key)) in join_all(looks).await.into_iter().zip(some) {
            links.extend(found?.filter(|link| is_marked(link, key)));
        }
    }
    detach::detach_all(node, &links).await
}

/// Removes what the doomed have in the nftables table, in one transaction but for those without a record.
async fn dismiss_all(node: &Netlink, doomed: &[Doomed]) -> Result<(), CniError> {
    let records: Vec<Record> = doomed.iter().filter_map(|it| it.record.clone()).collect();
    pod_rules::remove_elements(node, &records).await?;
    for it in doomed.iter().filter(|it| it.record.is_none()) {
        pod_rules::remove_elements_of_link(&it.key).await?;
    }
    Ok(())
}

fn release_all(store: &Store, boot: &BootId, doomed: &[Doomed]) -> Result<(), CniError> {
    let mut locked = store.lock(boot, LOCK_DEADLINE)?;
    let mut failures: Vec<CniError> = Vec::new();
    for it in doomed {
        failures.extend(locked.release(&it.key).err().map(CniError::from));
    }
    join(failures)
}

/// No error, the one error, or one that tells them all.
fn join(mut failures: Vec<CniError>) -> Result<(), CniError> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        count => {
            let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
            let code = failures.first().map_or(Code::Internal, |first| first.code);
            Err(CniError::new(code, format!("GC: {count} errors")).with_details(texts.join("; ")))
        }
    }
}
