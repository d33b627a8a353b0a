//! Other people's firewalls that drop what the node forwards for its pods, or what it and its pods say to each other, or
//! may. Warnings: whether one of their rules accepts these packets is not evaluated.

use ipnetwork::IpNetwork;

use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::Finding;
use crate::config::Role;
use crate::datapath::overlay::is_overlay;
use crate::desired::names::OVERLAY_DEVICE;
use crate::desired::node::NodeState;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::foreign_firewall::{DropChain, Need, NodeDrop, node_drops, own_subnets, unaccepted};
use crate::linux::nfnetlink::Nfnetlink;

/// Names every chain that ends in a drop and has no accept rules for the network, of forwarded packets and of the node's
/// own, and what cannot be read.
pub async fn examine(network: &KnownNetwork, node: &NodeView) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut unread) = (Vec::new(), Vec::new());
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(state) = meaning.map(|it| NodeState::of(it, node.facts.has_ipv6)) else {
        return (findings, unread);
    };
    let subnets = own_subnets(&state);
    let needs = needs(node, &subnets).await;
    match Nfnetlink::open_here() {
        Ok(nft) => {
            match unaccepted(&nft, &network.name, &subnets).await {
                Ok(chains) => findings.extend(chains.iter().map(|chain| tell(chain, &subnets))),
                Err(error) => unread.push(format!("nf_tables: {error}")),
            }
            match node_drops(&nft, &network.name, &needs).await {
                Ok(drops) => findings.extend(drops.iter().map(tell_of_node)),
                Err(error) => unread.push(format!("nf_tables: {error}")),
            }
        }
        Err(error) => unread.push(format!("nf_tables: {error}")),
    }
    for legacy in LegacyTable::find() {
        match legacy {
            Ok(legacy) => {
                let chain = legacy.unaccepted(&network.name, &subnets);
                findings.extend(chain.iter().map(|chain| tell(chain, &subnets)));
                findings.extend(legacy.node_drops(&network.name, &needs).iter().map(tell_of_node));
            }
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

/// What the network needs of the node itself.
async fn needs(node: &NodeView, subnets: &[IpNetwork]) -> Vec<Need> {
    let mut needs = vec![Need::Pods(subnets.to_vec())];
    let device = node.netlink.vxlan(OVERLAY_DEVICE).await.ok().flatten();
    let tunnel = device.filter(|(link, _)| is_overlay(link)).and_then(|(_, tunnel)| tunnel);
    needs.extend(
        tunnel.and_then(|tunnel| Some(Need::Vxlan { port: tunnel.port, ipv4: tunnel.local?.is_ipv4() })),
    );
    needs
}

fn tell_of_node(drop: &NodeDrop) -> Finding {
    let NodeDrop { chain, .. } = drop;
    Finding::warning(
        "node-drops",
        format!("{chain} drops {}, unless one of its rules accepts it", drop.what()),
    )
    .because(
        "the node's own firewall decides about that: DNS and the API server on this node for pods, probes by kubelet, and \
         tunnels to other nodes, pass only if it lets them",
    )
    .remedy(format!("if nothing in it does: {}", drop.remedy()))
}
