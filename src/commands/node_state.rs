//! The node's own part of a network, and what the node was like before.

use std::path::Path;

use super::LOCK_DEADLINE;
use crate::cni::error::CniError;
use crate::config::Network;
use crate::datapath::node::{self, Switch};
use crate::desired::node::NodeState;
use crate::ipam::{BootId, Changed, Store};
use crate::kernel::netlink::Netlink;

/// Makes the node forward, and gives it its standing routes and addresses. Idempotent. What a setting was before is
/// remembered first, so that `ferrule uninstall` can put it back.
///
/// # Errors
/// What kernel or store refuse.
pub async fn prepare(
    node: &Netlink,
    network: &Network,
    state: &NodeState,
    boot: &BootId,
) -> Result<(), CniError> {
    prepare_in(node, &network.data_dir, state, boot).await.map(drop)
}

/// The same for whoever has no conf but a data directory. Returns what was changed.
///
/// # Errors
/// As [`prepare`].
pub async fn prepare_in(
    node: &Netlink,
    data_dir: &Path,
    state: &NodeState,
    boot: &BootId,
) -> Result<Vec<Switch>, CniError> {
    let switches = node::find_switches(node, state).await?;
    if !switches.is_empty() {
        let changed = switches.iter().map(|switch| Changed {
            path: switch.path.clone(),
            before: switch.before.clone(),
            after: switch.after.clone(),
        });
        let store = Store::open(data_dir, &state.network)?;
        store.lock(boot, LOCK_DEADLINE)?.remember_changed(&changed.collect::<Vec<_>>())?;
    }
    node::prepare(node, state, &switches).await?;
    Ok(switches)
}
