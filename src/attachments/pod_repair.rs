//! Makes the node's side of running pods again, from their records: for `sync`, the agent, and an ADD that notices that
//! some of it is gone.

use std::net::IpAddr;

use crate::attachments::allocation::{locate, usable_sets};
use crate::attachments::describe::describe_recorded;
use crate::attachments::node::NodeFacts;
use crate::cni::error::CniError;
use crate::config::{AddressManagement, Network};
use crate::datapath::detach::is_whole;
use crate::datapath::node::Uplink;
use crate::datapath::peers::RoutesToPods;
use crate::datapath::pods::{self, Depth};
use crate::desired::attachment::Attachment;
use crate::desired::names::host_link;
use crate::linux::link::{self, LinkRef};
use crate::linux::netlink::Netlink;
use crate::store::{Record, Store};

/// How many addresses without their route an ADD looks into. They may be those of dead pods, or of ADDs that run beside it.
const LOOKED_INTO: usize = 8;

/// Repairs the node's side of every pod of the store; returns how many objects were missing or wrong. `named_gateway` as
/// the conf has it.
///
/// # Errors
/// What kernel or store refuse.
pub async fn repair(
    node: &Netlink,
    store: &Store,
    facts: &NodeFacts,
    uplink: &Uplink,
    named_gateway: impl Fn(IpAddr) -> Option<IpAddr>,
    depth: Depth,
) -> Result<usize, CniError> {
    let records = store.attachments()?.into_iter().filter_map(|entry| entry.record.ok());
    let ours = records.filter(|record| is_of_ferrule(record, facts));
    let attachments: Vec<Attachment> =
        ours.map(|record| describe_recorded(&record, facts, uplink, &named_gateway)).collect();
    Ok(pods::repair(node, attachments, depth).await?)
}

/// An ADD's look: if a running pod lacks its route, or has it with another source than the node's address, all are
/// repaired. `standing` are the routes that the ADD has seen anyhow; `own` is its own pod's addresses; `store` the network's.
///
/// # Errors
/// As [`repair`].
pub async fn repair_if_noticed(
    node: &Netlink,
    (network, store): (&Network, &Store),
    facts: &NodeFacts,
    uplink: &Uplink,
    standing: &RoutesToPods,
    own: &[IpAddr],
) -> Result<usize, CniError> {
    let mut held = store.held()?;
    held.sort_unstable();
    let is_right = |address: &IpAddr| {
        let wanted = uplink.address_for(*address);
        standing.get(address).is_some_and(|source| wanted.is_none() || *source == wanted)
    };
    let suspects = held.iter().filter(|address| !own.contains(address) && !is_right(address));
    for &address in suspects.take(LOOKED_INTO) {
        // It may have been released since, or be the rest of something that others judge.
        let Ok(Some(record)) = store.holder(address) else { continue };
        if is_of_ferrule(&record, facts) && is_running(node, &record).await? {
            return repair(node, store, facts, uplink, gateways_of(network, facts)?, Depth::Droppable).await;
        }
    }
    Ok(0)
}

/// The gateway that the conf names for an address, where it does.
///
/// # Errors
/// Where no range of the conf can be used on this node.
pub fn gateways_of(
    network: &Network,
    facts: &NodeFacts,
) -> Result<impl Fn(IpAddr) -> Option<IpAddr> + use<>, CniError> {
    let sets = match &network.address_management {
        AddressManagement::Ranges(sets) => usable_sets(sets, facts.has_ipv6)?,
        // What another plugin named is not recorded.
        AddressManagement::Delegate(_) => Vec::new(),
    };
    Ok(move |address| locate(address, &sets).named_gateway)
}

/// Whether ferrule made a link for it, in this boot.
fn is_of_ferrule(record: &Record, facts: &NodeFacts) -> bool {
    record.is_from(&facts.boot) && record.host_link.is_some() && record.imported_from.is_none()
}

/// Whether its link is there and complete. One system call tells of one that is dead.
async fn is_running(node: &Netlink, record: &Record) -> Result<bool, CniError> {
    let (key, name) = (record.key(), host_link(&record.key()));
    if matches!(link::index_of(&name), Ok(None)) {
        return Ok(false);
    }
    Ok(node.link(LinkRef::Name(name)).await?.is_some_and(|link| is_whole(&link, &key)))
}
