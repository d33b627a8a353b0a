//! Whether the next ADD can succeed: STATUS, and the agent where a runtime says that it has no network. containerd asks
//! every five seconds, so it is cheap and writes nothing.
//!
//! What fails here makes the node NotReady. So it says "no" only to what the next ADD cannot repair itself:
//! dead attachments count as free, routes that somebody deleted count as there, and one peer of many that cannot
//! be reached is not a reason (docs/design.md).

use crate::attachments::allocation::usable_sets;
use crate::attachments::node::NodeFacts;
use crate::attachments::timing::{Phase, Steps};
use crate::attachments::{delegate, liveness, node, pod_rules};
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::request::Request;
use crate::config::range::RangeSet;
use crate::config::{AddressManagement, Network, Role};
use crate::datapath::nftables::NftError;
use crate::datapath::node::missing_addresses;
use crate::datapath::peers;
use crate::desired::node::NodeState;
use crate::linux::netlink::Netlink;
use crate::store;
use crate::store::{BootId, Store, StoreError};

/// Whether ADD would work. Another IPAM plugin is asked with the `request`, where there is one.
///
/// # Errors
/// Code 50 where no address is free or the store cannot be used; 51 where not one peer can be reached; the other IPAM
/// plugin's own.
pub async fn judge(network: &Network, request: Option<&Request>, steps: &Steps) -> Result<(), CniError> {
    let facts = NodeFacts::ask()?;
    let node = node::open()?;
    if network.role == Role::Main {
        let generation =
            async { pod_rules::open()?.generation().await.map_err(NftError::from).map_err(CniError::from) };
        let usable = steps.wait(Phase::Nftables, generation).await;
        usable.map_err(|error| CniError { code: Code::NotAvailable, ..error })?;
    }
    match &network.address_management {
        AddressManagement::Ranges(sets) => {
            let sets = usable_sets(sets, facts.has_ipv6)?;
            steps.wait(Phase::Store, addresses_are_free(network, &sets, &node, &facts.boot)).await?;
        }
        AddressManagement::Delegate(plugin) => {
            let Some(request) = request else { return Ok(()) };
            steps.wait(Phase::Delegate, delegate::execute(plugin, request, Command::Status)).await?;
        }
    }
    if network.role == Role::Ipam {
        return Ok(());
    }
    let state = NodeState::of(network, facts.has_ipv6);
    steps.wait(Phase::Look, other_nodes_are_reached(&node, &state)).await?;
    steps.wait(Phase::Look, node_has_its_addresses(&node, &state)).await
}

async fn node_has_its_addresses(node: &Netlink, state: &NodeState) -> Result<(), CniError> {
    let Some(address) = missing_addresses(node, state).await?.first().copied() else { return Ok(()) };
    let message = format!("nodeIPs: {address} is not an address of this node");
    let remedy = "no pod can be added while it is missing: give it to the node, or correct nodeIPs";
    Err(CniError::new(Code::NotAvailable, message).with_details(remedy))
}

async fn other_nodes_are_reached(node: &Netlink, state: &NodeState) -> Result<(), CniError> {
    let unreachable = peers::unreachable_peers(node, state).await?;
    if unreachable.is_empty() {
        return Ok(());
    }
    let message = "no other node can be reached: none of the peers' addresses is on-link";
    let details = format!("{}; is the node's uplink up (ip addr, ip route)?", unreachable.join(", "));
    Err(CniError::new(Code::LimitedConnectivity, message).with_details(details))
}

async fn addresses_are_free(
    network: &Network,
    sets: &[RangeSet],
    node: &Netlink,
    boot: &BootId,
) -> Result<(), CniError> {
    store::probe(&network.data_dir, &network.name)
        .map_err(|error| CniError::new(Code::NotAvailable, error.to_string()))?;
    let store = Store::open_existing(&network.data_dir, &network.name);
    let looked = store.and_then(|store| match store {
        Some(store) => store.usage(boot, sets).map(|usage| Some((store, usage))),
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
        if liveness::is_dead(record, boot, Some(node)).await? {
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
