//! Firewalls of others that drop what pods send to other nodes, or may.

use crate::attachments::claim::Allocation;
use crate::attachments::describe::describe_node;
use crate::cli::doctor::Finding;
use crate::cli::networks::KnownNetwork;
use crate::cli::node::Node;
use crate::cni::error::CniError;
use crate::config::Role;
use crate::foreign_firewall::legacy::Legacy;
use crate::foreign_firewall::{Filter, Judgement, Traffic, obstacles};
use crate::linux::nfnetlink::Nfnetlink;

/// Looks at every chain that packets between this node's pods and those of other nodes go through. Without other nodes
/// there are no such packets.
pub async fn examine(network: &KnownNetwork, node: &Node) -> Result<Vec<Finding>, CniError> {
    let mut findings = Vec::new();
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(state) = meaning.map(|it| describe_node(it, &Allocation::default())) else {
        return Ok(findings);
    };
    let traffic = Traffic::find(&node.netlink, &state).await?;
    if !traffic.has_others() {
        return Ok(findings);
    }
    let found = match Nfnetlink::open_here() {
        Ok(nft) => obstacles(&nft, &traffic).await.map_err(|refusal| refusal.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(found) => findings.extend(found.iter().map(|(filter, it)| tell(filter, *it, &traffic))),
        Err(error) => findings.push(unread(&error)),
    }
    for legacy in Legacy::find() {
        match legacy.map(|legacy| legacy.filter()) {
            Ok(filter) => {
                let judged = filter.iter().filter_map(|filter| Some((filter, filter.judge(&traffic)?)));
                let obstacles = judged.filter(|(_, judgement)| *judgement != Judgement::Passes);
                findings.extend(obstacles.map(|(filter, it)| tell(filter, it, &traffic)));
            }
            Err(error) => findings.push(unread(&error)),
        }
    }
    Ok(findings.into_iter().map(|finding| finding.of(&network.name)).collect())
}

fn tell(filter: &Filter, judgement: Judgement, traffic: &Traffic) -> Finding {
    let remedy = filter.remedy(traffic);
    match judgement {
        Judgement::Drops => Finding::new(
            "forward-drops",
            format!("{filter} lets no pod reach the pods of other nodes"),
        )
        .because(
            "docker, ufw and firewalld make it so when they start; that another table accepts the packets \
                     does not help",
        )
        .remedy(remedy),
        Judgement::Unclear | Judgement::Passes => Finding::new(
            "forward-unclear",
            format!("whether {filter} lets pods reach the pods of other nodes cannot be told"),
        )
        .because("it has rules that let some packets pass and not others, or that ferrule cannot read")
        .remedy(format!("try it; if pods of other nodes cannot be reached: {remedy}")),
    }
}

fn unread(error: &str) -> Finding {
    Finding::new("forward-unclear", format!("the firewall cannot be looked at: {error}"))
        .because("what it does with packets between pods of different nodes is not known")
        .remedy("install the program, or see whether pods reach the pods of other nodes")
}
