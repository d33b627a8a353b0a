//! The nftables table against the records: what `nft flush ruleset` or the reload of a firewall removed.

use crate::attachments::judged::JudgedAttachment;
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::attachments::pod_rules;
use crate::cli::doctor::{Finding, name_some};
use crate::cni::error::CniError;
use crate::config::{Network, Role};
use crate::datapath::nftables;
use crate::datapath::node::{Uplink, find_uplink};
use crate::datapath::node_addresses::find_node_addresses;
use crate::desired::node::NodeState;
use crate::store::{Record, Store};

/// Looks at the table and at what every pod that lives must have in it. A network without such a pod needs none.
pub async fn examine(
    network: &KnownNetwork,
    node: &NodeView,
    store: Option<&Store>,
    judged: &[JudgedAttachment],
) -> Result<Option<Finding>, CniError> {
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let (Some(meaning), Some(store)) = (meaning, store) else { return Ok(None) };
    let mut alive: Vec<Record> = Vec::new();
    for it in judged.iter().filter(|it| !it.is_dead() && !it.is_imported()) {
        // One that comes or goes right now has its elements before or after this.
        let Ok((record, _)) = &it.state else { continue };
        if store.try_hold(&it.key)?.is_some() {
            alive.push(record.clone());
        }
    }
    if alive.is_empty() {
        return Ok(None);
    }
    let uplink =
        find_uplink(&node.netlink, &NodeState::of(meaning, node.facts.has_ipv6), meaning.mtu).await?;
    let mut differences = pod_rules::differences(meaning, &uplink, &alive).await?;
    if !differences.is_empty() {
        // What a DEL took meanwhile is no difference.
        alive.retain(|record| store.find(&record.key()).is_ok_and(|found| found.as_ref() == Some(record)));
        differences = pod_rules::differences(meaning, &uplink, &alive).await?;
    }
    if differences.is_empty() && alive.iter().any(pod_rules::asks_for_any_address) {
        return examine_node_addresses(network, meaning, node, &uplink).await;
    }
    Ok((!differences.is_empty()).then(|| {
        Finding::new("table-differs", name_some(&differences))
            .of(&network.name)
            .because(
                "another program flushed or changed table inet ferrule (nft flush ruleset, a firewall's reload); until it \
                 is restored, host ports and masquerade of running pods may not work, and pods may send from any address",
            )
            .remedy("ferrulectl sync restores all of it")
    }))
}

/// An address of the node that came, or went, since the table was told.
async fn examine_node_addresses(
    network: &KnownNetwork,
    meaning: &Network,
    node: &NodeView,
    uplink: &Uplink,
) -> Result<Option<Finding>, CniError> {
    let found = find_node_addresses(&node.netlink, uplink, &meaning.node_ips).await?;
    let nft = pod_rules::open()?;
    let differences = nftables::node_address_differences(&nft, &network.name, &found).await?;
    Ok((!differences.is_empty()).then(|| {
        Finding::new("node-addresses-differ", name_some(&differences))
            .of(&network.name)
            .because(
                "the node's addresses changed after the last ADD of a pod with a hostPort; until the table is told, hostPorts \
                 may answer on them from outside only, not from this node and its pods",
            )
            .remedy("ferrulectl sync, or the next ADD of a pod with a hostPort, tells it; the agent does so at once")
    }))
}
