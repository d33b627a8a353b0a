//! Other people's firewalls that drop what the node forwards for its pods, or may. Warnings: whether one of their rules
//! accepts the pods' packets is not evaluated.

use ipnetwork::IpNetwork;

use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::Finding;
use crate::config::Role;
use crate::desired::node::NodeState;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::foreign_firewall::{DropChain, own_subnets, unaccepted};
use crate::linux::nfnetlink::Nfnetlink;

/// Names every chain of the forward hook that ends in a drop and has no accept rules of the network, and what cannot be
/// read.
pub async fn examine(network: &KnownNetwork, node: &NodeView) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut unread) = (Vec::new(), Vec::new());
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(state) = meaning.map(|it| NodeState::of(it, node.facts.has_ipv6)) else {
        return (findings, unread);
    };
    let subnets = own_subnets(&state);
    let found = match Nfnetlink::open_here() {
        Ok(nft) => {
            unaccepted(&nft, &network.name, &subnets).await.map_err(|error| format!("nf_tables: {error}"))
        }
        Err(error) => Err(format!("nf_tables: {error}")),
    };
    match found {
        Ok(chains) => findings.extend(chains.iter().map(|chain| tell(chain, &subnets))),
        Err(error) => unread.push(error),
    }
    for legacy in LegacyTable::find() {
        match legacy.map(|legacy| legacy.unaccepted(&network.name, &subnets)) {
            Ok(chain) => findings.extend(chain.iter().map(|chain| tell(chain, &subnets))),
            Err(error) => unread.push(error),
        }
    }
    let findings = findings.into_iter().map(|finding| finding.of(&network.name)).collect();
    (findings, unread.into_iter().map(|error| format!("the node's firewall: {error}")).collect())
}

fn tell(chain: &DropChain, subnets: &[IpNetwork]) -> Finding {
    Finding::warning(
        "forward-drops",
        format!("{chain} drops what pods send and receive, unless one of its rules accepts it"),
    )
    .because(
        "docker, ufw and firewalld set this up when they start; an accept in another table does not help",
    )
    .remedy(chain.remedy(subnets))
}
