//! Whether the firewalls of others let pods reach the pods of other nodes.

use crate::cni::error::{CniError, Code};
use crate::desired::node::NodeState;
use crate::foreign_firewall::{Judgement, Traffic, among, find};
use crate::linux::netlink::Netlink;
use crate::linux::nfnetlink::Nfnetlink;

/// For STATUS: looks at the tables of nf_tables, and executes nothing. So of iptables before nf_tables it sees nothing;
/// `ferrule doctor` does.
///
/// # Errors
/// Code 51 where it is certain that pods and those of other nodes cannot reach each other. What cannot be read or
/// understood is no reason to take the node out of service, and neither is anything without other nodes.
pub async fn lets_pods_pass(node: &Netlink, state: &NodeState) -> Result<(), CniError> {
    let Ok(nft) = Nfnetlink::open_here() else { return Ok(()) };
    let Ok(filters) = find(&nft).await else { return Ok(()) };
    // Most nodes have none, and who is to pass need not be asked: with an agent those are the routes to all nodes.
    if filters.is_empty() {
        return Ok(());
    }
    let Ok(traffic) = Traffic::find(node, state).await else { return Ok(()) };
    if !traffic.has_others() {
        return Ok(());
    }
    let obstacles = among(filters, &traffic);
    let dropping: Vec<_> = obstacles.iter().filter(|(_, judgement)| *judgement == Judgement::Drops).collect();
    if dropping.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = dropping.iter().map(|(filter, _)| filter.to_string()).collect();
    let remedies: Vec<String> = dropping.iter().map(|(filter, _)| filter.remedy(&traffic)).collect();
    let message =
        format!("pods and those of other nodes cannot reach each other: dropped by {}", names.join(", "));
    Err(CniError::new(Code::LimitedConnectivity, message).with_details(remedies.join("; ")))
}
