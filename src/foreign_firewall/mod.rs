//! Other people's firewalls, as far as they drop what this node forwards for its pods, or what it and its pods say to
//! each other.
//!
//! docker, ufw and firewalld make the forward hook drop what they do not know, and an `accept` in another table does
//! not override that (kubernetes#39823). ferrule decides nothing by their rules: it finds the chains that end in a drop,
//! says which they are, and puts two accept rules per subnet into iptables' FORWARD, the one chain that is shared.
//!
//! | verb                      | what it does                                                                  |
//! |---------------------------|-------------------------------------------------------------------------------|
//! | [`find`]                  | finds base chains of the forward hook that end in a drop, in nf_tables        |
//! | [`unaccepted`]            | of these, the ones that have no accept rules of the network                   |
//! | [`node_drops`]            | finds those of the hooks input and output, and what each drops of what a network needs |
//! | [`accept`]                | inserts the accept rules where iptables' FORWARD drops                        |
//! | [`remove`], [`accept_rules`] | removes the accept rules; lists them                                       |
//! | [`ruling::rulings`]       | what chains do with one packet, as far as their rules are understood: for `ferrulectl why` |
//! | [`legacy::LegacyTable`]   | the same for iptables-legacy, through its own programs                        |
//!
//! Finding costs one list of chains for each family, and the rules of base chains at the forward hook: kube-proxy's
//! thousands of chains are not read.

mod accept;
mod drop_chain;
pub mod legacy;
mod node_drop;
pub mod ruling;
mod save;

pub use accept::{Accepted, accept, accept_rules, comment, remove, unaccepted};
pub use drop_chain::{DropChain, find};
pub use node_drop::{Need, NodeDrop, node_drops};

use ipnetwork::IpNetwork;

use crate::desired::node::NodeState;

/// The subnets of the node's own pods that accept rules are about.
pub fn own_subnets(state: &NodeState) -> Vec<IpNetwork> {
    let is_used = |subnet: &&IpNetwork| if subnet.is_ipv4() { state.ipv4 } else { state.ipv6 };
    state.subnets.iter().filter(is_used).copied().collect()
}
