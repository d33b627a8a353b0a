//! The node's own part of a network, and what the node was like before.

use std::path::Path;

use crate::attachments::LOCK_DEADLINE;
use crate::cni::error::CniError;
use crate::datapath::error::DatapathError;
use crate::datapath::node::{self, Switch};
use crate::desired::node::NodeState;
use crate::linux::netlink::Netlink;
use crate::linux::sysctl;
use crate::store::{BootId, Store, SysctlBackup, current_boot_id};

/// What a command asks of its node, once, before all else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Which boot this is.
    pub boot: BootId,
    /// Whether the kernel has IPv6 at all.
    pub has_ipv6: bool,
}

impl NodeFacts {
    /// Asks the kernel of the calling thread.
    ///
    /// # Errors
    /// Where the kernel does not tell its boot id.
    pub fn ask() -> Result<Self, CniError> {
        Ok(Self { boot: current_boot_id()?, has_ipv6: sysctl::has_ipv6() })
    }
}

/// A socket in the node's namespace, which the calling thread is in.
///
/// # Errors
/// Code 103.
pub fn open() -> Result<Netlink, CniError> {
    Ok(Netlink::open_here().map_err(|source| DatapathError::Socket { place: "node", source })?)
}

/// Makes the node forward, and gives it its standing routes and addresses. Idempotent. What a setting is when it is
/// looked at for the first time is remembered, so that `ferrulectl uninstall` can put it back: then already, because what
/// somebody else sets it to later is not what it was before ferrule.
///
/// `store` is the network's. Returns what was changed.
///
/// # Errors
/// What kernel or store refuse.
pub async fn prepare(
    node: &Netlink,
    store: &Store,
    state: &NodeState,
    boot: &BootId,
) -> Result<Vec<Switch>, CniError> {
    let mut switches = node::find_switches(node, state).await?;
    // What cannot be read is written anew.
    let known = store.sysctl_backup(boot).unwrap_or_default();
    let is_known = |switch: &Switch| known.iter().any(|it| it.path == switch.path);
    if !switches.iter().all(is_known) {
        let found = switches.iter().map(|switch| SysctlBackup {
            path: switch.path.clone(),
            before: switch.before.clone(),
            after: switch.after.clone(),
        });
        store.lock(boot, LOCK_DEADLINE)?.back_up_sysctls(&found.collect::<Vec<_>>())?;
    }
    node::prepare(node, state, &switches).await?;
    switches.retain(Switch::is_due);
    Ok(switches)
}

/// The same for whoever has no store open but knows the data directory.
///
/// # Errors
/// As [`prepare`].
pub async fn prepare_in(
    node: &Netlink,
    data_dir: &Path,
    state: &NodeState,
    boot: &BootId,
) -> Result<Vec<Switch>, CniError> {
    prepare(node, &Store::open(data_dir, &state.network)?, state, boot).await
}
