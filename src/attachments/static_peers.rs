//! Keeps the routes to the peers that a conf lists.
//!
//! Each ADD lists the routes that have ferrule's protocol number, which the kernel filters, and sets what differs from
//! the conf. That costs in proportion to the peers: above 64 of them, run the agent, which changes routes when a node
//! changes and leaves ADD out of it.

use crate::cni::error::CniError;
use crate::config::Network;
use crate::config::log::LogLevel;
use crate::datapath::peers::{self, RoutesToPods};
use crate::desired::node::NodeState;
use crate::linux::netlink::Netlink;
use crate::log::{self, Entry};

/// How many failures are logged one by one. Where more fail, it is for one reason, and the count says enough.
const LOGGED: usize = 16;

/// Makes the routes to the peers what the conf says, if they are not.
///
/// Returns the routes to pods that it has seen. Logs each peer that cannot be routed to, with the reason; the others are not affected.
///
/// # Errors
/// Where the kernel's routes cannot be read at all.
pub async fn keep_routes(
    node: &Netlink,
    network: &Network,
    state: &NodeState,
) -> Result<RoutesToPods, CniError> {
    let (done, to_pods) = peers::synchronise_and_see(node, state).await?;
    let failures = done.failures;
    let warning = || Entry::new(LogLevel::Warn).with("msg", "no route to peer");
    let mut entries: Vec<Entry> = failures
        .iter()
        .take(LOGGED)
        .map(|failure| warning().with("peer", &failure.peer).with("reason", &failure.reason))
        .collect();
    if let Some(more) = failures.len().checked_sub(LOGGED).filter(|more| *more > 0) {
        entries.push(warning().with("more", &more.to_string()));
    }
    log::write(&network.log, &entries);
    Ok(to_pods)
}
