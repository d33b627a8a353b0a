//! Other people's firewalls that drop what the node forwards for its pods, or may. Warnings: whether one of their rules
//! accepts the pods' packets is not evaluated.

use ipnetwork::IpNetwork;

use crate::attachments::claim::Allocation;
use crate::attachments::describe::describe_node;
use crate::cli::doctor::Finding;
use crate::cli::networks::KnownNetwork;
use crate::cni::error::CniError;
use crate::config::Role;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::foreign_firewall::{DropChain, own_subnets, unaccepted};
use crate::linux::nfnetlink::Nfnetlink;

/// Names every chain of the forward hook that ends in a drop and has no accept rules of the network.
pub async fn examine(network: &KnownNetwork) -> Result<Vec<Finding>, CniError> {
    let mut findings = Vec::new();
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(state) = meaning.map(|it| describe_node(it, &Allocation::default())) else {
        return Ok(findings);
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
        Err(error) => findings.push(unread(&error)),
    }
    for legacy in LegacyTable::find() {
        match legacy.map(|legacy| legacy.unaccepted(&network.name, &subnets)) {
            Ok(chain) => findings.extend(chain.iter().map(|chain| tell(chain, &subnets))),
            Err(error) => findings.push(unread(&error)),
        }
    }
    Ok(findings.into_iter().map(|finding| finding.of(&network.name)).collect())
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

fn unread(error: &str) -> Finding {
    Finding::warning("forward-unclear", format!("the node's firewall cannot be read: {error}"))
        .because("it is not known whether it drops packets between pods of different nodes")
        .remedy(
            "run ferrulectl on the node itself, with the program installed; or ping a pod of another node",
        )
}
