//! Rules of policy routing: ferrule's own for the pods of this node, and those of others that come before.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::attachments::judged::JudgedAttachment;
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::{Finding, name_some};
use crate::cni::error::CniError;
use crate::config::Role;
use crate::datapath::node::find_uplink;
use crate::datapath::node_addresses::find_node_addresses;
use crate::desired::attachment::LOCAL_TABLE;
use crate::desired::names::{POD_RULE_PRIORITY, ROUTE_PROTOCOL};
use crate::desired::node::NodeState;
use crate::linux::route::{Family, MAIN_TABLE, RouteFilter};
use crate::linux::rule::{ListedRule, Rule};

/// Looks at the rules, and whether the node reaches its pods from each of its addresses. Without pods nothing has to be
/// there yet.
pub async fn examine(
    network: &KnownNetwork,
    node: &NodeView,
    judged: &[JudgedAttachment],
) -> Result<Vec<Finding>, CniError> {
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let mut alive = judged.iter().filter(|it| !it.is_dead() && !it.is_imported() && it.has_link).peekable();
    let (Some(meaning), true) = (meaning, alive.peek().is_some()) else { return Ok(Vec::new()) };
    let state = NodeState::of(meaning, node.facts.has_ipv6);
    let families = [node.netlink.all_rules(Family::V4).await?, node.netlink.all_rules(Family::V6).await?];
    let mut findings = Vec::new();
    let is_there = |wanted: &Rule| families.iter().flatten().any(|it| it.rule.as_ref() == Some(wanted));
    let missing: Vec<Rule> = state.pod_rules().into_iter().filter(|rule| !is_there(rule)).collect();
    if !missing.is_empty() {
        findings.push(
            Finding::new("pod-rule-missing", format!("no rule: {}", name_some(&missing)))
                .of(&network.name)
                .because("it was removed; rules of others may lead what is for pods of this node elsewhere")
                .remedy("ferrulectl sync, or the next ADD, restores it"),
        );
    }
    let diverted = find_diverted(node, meaning.node_ips.as_slice(), &state, alive).await?;
    let before: Vec<&str> = families.iter().flat_map(|rules| rules_before(rules)).collect();
    if !diverted.is_empty() {
        let cause = match before.as_slice() {
            [] => "a route or a rule of another program leads there".to_owned(),
            rules => format!("rules of others come before ferrule's: {}", name_some(rules)),
        };
        findings.push(
            Finding::new("pod-diverted", name_some(&diverted))
                .of(&network.name)
                .because(cause)
                .remedy(format!(
                    "ferrulectl sync; if that does not help, give the other rules a place after {POD_RULE_PRIORITY} (ip \
                     rule), or exempt the pods' subnets from them"
                )),
        );
    } else if !before.is_empty() {
        findings.push(
            Finding::warning("rule-before-ours", format!("rules before ferrule's: {}", name_some(&before)))
                .of(&network.name)
                .because("what they match never comes to the rule by which this node finds its pods")
                .remedy(format!(
                    "if pods are not reached, give them a place after {POD_RULE_PRIORITY} (ip rule)"
                )),
        );
    }
    Ok(findings)
}

/// Those of others that come before ours, and may send to another table than the two where the kernel and ferrule have
/// their routes.
fn rules_before(rules: &[ListedRule]) -> Vec<&str> {
    let is_ours = |it: &ListedRule| {
        it.rule.is_some_and(|it| (it.protocol, it.priority) == (ROUTE_PROTOCOL, POD_RULE_PRIORITY))
    };
    let is_harmless = |it: &&ListedRule| [Some(LOCAL_TABLE), Some(MAIN_TABLE)].contains(&it.table);
    let until_ours = rules.iter().position(is_ours).unwrap_or_default();
    let before = rules.iter().take(until_ours).filter(|it| !is_harmless(it));
    before.map(|it| it.text.as_str()).collect()
}

/// What does not reach a pod from an address of the node: of each family one pod is tried.
async fn find_diverted<'a>(
    node: &NodeView,
    named: &[IpAddr],
    state: &NodeState,
    alive: impl Iterator<Item = &'a JudgedAttachment>,
) -> Result<Vec<String>, CniError> {
    let uplink = find_uplink(&node.netlink, state, None).await?;
    let own = find_node_addresses(&node.netlink, &uplink, named).await?;
    let mut tried: Vec<(IpAddr, u32)> = Vec::new();
    for it in alive {
        let (Ok((record, _)), Some(link)) = (&it.state, node.host_link(&it.key)) else { continue };
        for &address in &record.addresses {
            let is_tried = tried.iter().any(|(known, _)| known.is_ipv4() == address.is_ipv4());
            // That a pod has no route is said of the pod.
            if !is_tried && has_route(node, address, link.index).await? {
                tried.push((address, link.index));
            }
        }
    }
    let mut diverted = Vec::new();
    for (pod, link) in tried {
        for &source in own.addresses().iter().filter(|it| it.is_ipv4() == pod.is_ipv4()) {
            let way = node.netlink.route_from(source, pod).await?;
            if way.as_ref().is_none_or(|way| way.device != link) {
                let device = way.and_then(|way| node.links.iter().find(|it| it.index == way.device));
                let where_to =
                    device.map_or_else(|| "is refused".to_owned(), |it| format!("leaves by {}", it.name));
                diverted.push(format!("what goes from {source} to pod {pod} {where_to}"));
            }
        }
    }
    Ok(diverted)
}

async fn has_route(node: &NodeView, pod: IpAddr, link: u32) -> Result<bool, CniError> {
    let family = if pod.is_ipv4() { Family::V4 } else { Family::V6 };
    let filter = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        device: Some(link),
        table: Some(MAIN_TABLE),
        ..RouteFilter::all(family)
    };
    Ok(node.netlink.routes(filter).await?.iter().any(|route| route.destination == IpNetwork::from(pod)))
}
