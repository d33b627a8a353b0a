//! The nftables table against the records: what `nft flush ruleset`, or the reload of a firewall, took away.

use super::{Finding, name_some};
use crate::cni::error::CniError;
use crate::commands::addresses::Acquired;
use crate::commands::attachment::describe_node;
use crate::commands::firewall;
use crate::config::Role;
use crate::datapath::node::find_uplink;
use crate::ipam::{Record, Store};
use crate::operator::attachments::Judged;
use crate::operator::networks::KnownNetwork;
use crate::operator::node::Node;

/// Looks at the table and at what every pod that lives must have in it. A network without such a pod needs none.
pub async fn examine(
    network: &KnownNetwork,
    node: &Node,
    store: Option<&Store>,
    judged: &[Judged],
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
    let uplink = find_uplink(&node.netlink, &describe_node(meaning, &Acquired::default())).await?;
    let mut differences = firewall::differences(meaning, &uplink, &alive).await?;
    if !differences.is_empty() {
        // What a DEL took meanwhile is no difference.
        alive.retain(|record| store.find(&record.key()).is_ok_and(|found| found.as_ref() == Some(record)));
        differences = firewall::differences(meaning, &uplink, &alive).await?;
    }
    Ok((!differences.is_empty()).then(|| {
        Finding::new("table-differs", name_some(&differences))
            .of(&network.name)
            .because(
                "somebody flushed or changed table inet ferrule (nft flush ruleset, a firewall's reload); until it is \
                 mended hostPorts and masquerade of running pods do not work, or pods can send under any IPv6 address",
            )
            .remedy("the next ADD mends a table that is gone; at once, and everything: ferrule sync")
    }))
}
