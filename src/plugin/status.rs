//! STATUS: can the next ADD succeed? containerd asks every five seconds, so it is cheap and writes nothing.
//!
//! What fails here makes the node NotReady. So it says "no" only to what the next ADD cannot mend itself:
//! dead attachments count as free, routes that somebody deleted count as there, and one peer of many that cannot
//! be reached is not a reason (docs/design.md).

use crate::attachments::claim::{Allocation, usable_sets};
use crate::attachments::delegate::Delegate;
use crate::attachments::{liveness, pod_rules};
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::request::Request;
use crate::config::range::RangeSet;
use crate::config::{AddressManagement, Network, Role};
use crate::datapath::error::DatapathError;
use crate::datapath::nftables::NftError;
use crate::datapath::peers;
use crate::linux::netlink::Netlink;
use crate::store;
use crate::store::{Store, StoreError, current_boot_id};

/// Whether ADD would work.
///
/// # Errors
/// Code 50 where no address is free or the store cannot be used; 51 where not one peer can be reached; code 7 where
/// the conf is wrong; the other IPAM plugin's own.
pub async fn status(request: &Request) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let node = Netlink::open_here();
    let node = node.map_err(|source| DatapathError::Socket { place: "node", source })?;
    if network.role == Role::Main {
        let usable = pod_rules::open()?.generation().await.map_err(NftError::from).map_err(CniError::from);
        usable.map_err(|error| CniError { code: Code::NotAvailable, ..error })?;
    }
    match &network.address_management {
        AddressManagement::Ranges(sets) => addresses_are_free(&network, &usable_sets(sets)?, &node).await?,
        AddressManagement::Delegate(plugin) => {
            let delegate = Delegate::find(plugin, &request.environment.path)?;
            delegate.execute(Command::Status, &request.conf, crate::attachments::DELEGATE_DEADLINE).await?;
        }
    }
    if network.role == Role::Ipam {
        return Ok(());
    }
    let state = crate::attachments::describe::describe_node(&network, &Allocation::default());
    let unreachable = peers::unreachable_peers(&node, &state).await?;
    if unreachable.is_empty() {
        return Ok(());
    }
    let message = "no other node can be reached: none of the peers' addresses is on-link";
    let details = format!("{}; is the node's uplink up (ip addr, ip route)?", unreachable.join(", "));
    Err(CniError::new(Code::LimitedConnectivity, message).with_details(details))
}

async fn addresses_are_free(network: &Network, sets: &[RangeSet], node: &Netlink) -> Result<(), CniError> {
    store::probe(&network.data_dir, &network.name)
        .map_err(|error| CniError::new(Code::NotAvailable, error.to_string()))?;
    let boot = current_boot_id()?;
    let store = Store::open_existing(&network.data_dir, &network.name);
    let looked = store.and_then(|store| match store {
        Some(store) => store.usage(&boot, sets).map(|usage| Some((store, usage))),
        None => Ok(None),
    });
    let (store, usage) = match looked {
        Ok(Some(found)) => found,
        // What stands in the place of one of its directories is replaced by the next ADD.
        Ok(None) | Err(StoreError::Damaged(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut full: Vec<&RangeSet> =
        sets.iter().zip(usage).filter(|(_, usage)| usage.free == 0).map(|(set, _)| set).collect();
    if full.is_empty() {
        return Ok(());
    }
    // Full of what? The next ADD reclaims the dead.
    for entry in store.attachments()? {
        let Ok(record) = &entry.record else { continue };
        if liveness::is_dead(record, &boot, Some(node)).await? {
            full.retain(|set| !record.addresses.iter().any(|&address| set.hands_out(address)));
        }
        if full.is_empty() {
            return Ok(());
        }
    }
    let subnets: Vec<String> = full.iter().map(ToString::to_string).collect();
    let message = format!("no free address in {}", subnets.join(", "));
    Err(CniError::new(Code::NotAvailable, message).with_details(
        "every address is held by a running pod; widen ipam.ranges or move pods to other nodes",
    ))
}
