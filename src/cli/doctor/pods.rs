//! Records against the kernel: CHECK's comparison, for every pod at once.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::attachments::check::compare_recorded;
use crate::attachments::judged::JudgedAttachment;
use crate::attachments::liveness::Life;
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::bridges;
use crate::cli::doctor::{Finding, name_some};
use crate::cni::error::CniError;
use crate::config::peer::Peers;
use crate::config::{AddressManagement, MTU_MIN_IPV6, Network, Role};
use crate::datapath::detach::is_whole;
use crate::datapath::node::find_uplink;
use crate::desired::names;
use crate::desired::node::NodeState;
use crate::linux::link::{Link, LinkRef};
use crate::linux::netns::Netns;
use crate::linux::sysctl;
use crate::store::{Record, Store};

/// Whether this process may look into pods; the agent's container may not. It tries the namespace that it is in: a
/// capability says nothing where a seccomp profile or a user namespace forbids it.
pub fn can_enter_namespaces() -> bool {
    Netns::current().is_ok_and(|current| current.run(|| ()).is_ok())
}

/// Looks at every attachment that lives, and at links that belong to none. Into pods only with `can_enter_pods`.
pub async fn examine(
    network: &KnownNetwork,
    node: &NodeView,
    store: Option<&Store>,
    judged: &[JudgedAttachment],
    can_enter_pods: bool,
) -> Result<Vec<Finding>, CniError> {
    let mut findings = Vec::new();
    let recorded: HashSet<String> = judged.iter().flat_map(|it| names::node_links(&it.key)).collect();
    for link in node.unrecorded_links(&network.name, &recorded) {
        let found =
            format!("link {} ({}) has no record", link.name, link.alias.as_deref().unwrap_or("no alias"));
        findings.push(
            Finding::new("link-unrecorded", found)
                .of(&network.name)
                .because(
                    "the store was removed or changed by hand; the next comparison of the nftables table cuts the pod off",
                )
                .remedy(format!(
                    "ferrulectl sync gives its pod a record again; if the alias names no pod that runs: ip link delete {}",
                    link.name
                )),
        );
    }
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let (Some(meaning), Some(store)) = (meaning, store) else { return Ok(findings) };
    // Whoever switches it off for all switches it off for each link: one finding tells of that ([`super::node`]).
    let is_forwarding = !sysctl::read(&["net", "ipv4", "ip_forward"]).is_ok_and(|value| value == "0");
    findings.extend(examine_ranges(network, meaning, judged));
    for it in judged {
        let Ok((record, Life::NamespaceStands)) = &it.state else { continue };
        // Another plugin made their links and routes, and nothing here describes those.
        if record.imported_from.is_some() {
            continue;
        }
        let mut differences = compare(meaning, node, store, record, can_enter_pods).await?;
        let forwarding = format!("net/ipv4/conf/{}/forwarding", names::host_link(&it.key));
        differences.retain(|it| is_forwarding || !it.contains(&forwarding));
        if !differences.is_empty() {
            let name = record.pod.as_ref().map_or_else(|| it.key.to_string(), ToString::to_string);
            let remedy = if differences.iter().all(|it| can_be_repaired(it)) {
                "ferrulectl sync makes the node's side again; if it happens again, find out what changes it"
            } else {
                "ferrulectl sync makes the node's side again; if that is not enough, delete the pod, so that it is created \
                 again; if it happens again, find out what changes it"
            };
            findings.push(
                Finding::new("attachment-differs", format!("pod {name}: {}", name_some(&differences)))
                    .of(&network.name)
                    .because(
                        "another program changed it, or the kernel dropped it with an address or a link of the node, or the \
                         conf was changed after the pod was added; or the pod asks for routes of its own \
                         (ferrule.dev/routes), which are not in its record",
                    )
                    .remedy(remedy),
            );
        }
    }
    findings.extend(examine_mtu(network, meaning, node, judged).await?);
    Ok(findings)
}

/// Pods whose addresses are in no range of the conf any more.
fn examine_ranges(network: &KnownNetwork, meaning: &Network, judged: &[JudgedAttachment]) -> Option<Finding> {
    let AddressManagement::Ranges(sets) = &meaning.address_management else { return None };
    let subnets: Vec<IpNetwork> =
        sets.iter().flat_map(|set| set.ranges()).map(|range| range.subnet()).collect();
    let alive = judged.iter().filter(|it| !it.is_dead()).filter_map(|it| Some((it, it.state.as_ref().ok()?)));
    let outside: Vec<String> = alive
        .filter_map(|(it, (record, _))| {
            let is_outside = |address: &&IpAddr| !subnets.iter().any(|subnet| subnet.contains(**address));
            let address = record.addresses.iter().find(is_outside)?;
            Some(format!("{} ({address})", it.pod().unwrap_or_else(|| it.key.to_string())))
        })
        .collect();
    if outside.is_empty() {
        return None;
    }
    let found = format!("pods outside of the node's ranges: {}", name_some(&outside));
    // Who lists the peers in a conf may route these addresses all the same.
    let finding = match meaning.peers {
        Peers::KeptByAgent => Finding::new("pod-outside-ranges", found),
        Peers::Listed(_) => Finding::warning("pod-outside-ranges", found),
    };
    Some(
        finding
            .of(&network.name)
            .because(
                "the node's ranges changed after they were added, for example because its Node was deleted and made again; \
                 other nodes do not reach them, and may reach another pod at the same address",
            )
            .remedy("delete these pods: they are created again with addresses of this node"),
    )
}

/// Whether a difference is on the node's side, where all but the pair is made again.
fn can_be_repaired(difference: &str) -> bool {
    difference.starts_with("node: ") && !difference.starts_with("node: veth")
}

/// Whether imported pods and those of ferrule reach each other.
pub async fn examine_imported(
    network: &KnownNetwork,
    node: &NodeView,
    judged: &[JudgedAttachment],
) -> Result<Option<Finding>, CniError> {
    let steps = bridges::remaining_steps(node, imported(judged)).await?;
    let reasons: Vec<&String> = steps.iter().map(|step| &step.reason).collect();
    let commands: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
    Ok((!steps.is_empty()).then(|| {
        Finding::new("imported-cut-off", format!("imported pods: {}", name_some(&reasons)))
            .of(&network.name)
            .because("they look for the whole subnet on their bridge, and pods of ferrule are not on it")
            .remedy(format!("delete them, or run: {}", commands.join("; ")))
    }))
}

/// The records of imported attachments that live.
pub fn imported(judged: &[JudgedAttachment]) -> impl Iterator<Item = &Record> {
    let alive = judged.iter().filter(|it| !it.is_dead()).filter_map(|it| it.state.as_ref().ok());
    alive.map(|(record, _)| record).filter(|record| record.imported_from.is_some())
}

/// The record's attachment against the kernel. A pod that comes or goes right now does not differ.
async fn compare(
    meaning: &Network,
    node: &NodeView,
    store: &Store,
    record: &Record,
    can_enter_pods: bool,
) -> Result<Vec<String>, CniError> {
    let key = record.key();
    // Another command that has the lock is changing it; while we have the lock, nobody does.
    let Some(_lock) = store.try_hold(&key)? else { return Ok(Vec::new()) };
    if store.find(&key).ok().flatten().as_ref() != Some(record) {
        return Ok(Vec::new());
    }
    let link = node.netlink.link(LinkRef::Name(names::host_link(&key))).await?;
    Ok(match (&meaning.address_management, link) {
        (_, None) => vec!["its host link is gone".to_owned()],
        (_, Some(link)) if !is_whole(&link, &key) => vec!["its ADD did not finish".to_owned()],
        (AddressManagement::Ranges(_), Some(link)) => {
            compare_recorded(&node.netlink, &node.facts, meaning, record, &link, can_enter_pods).await?
        }
        // What another IPAM plugin chose as gateways and routes is not recorded.
        (AddressManagement::Delegate(_), Some(_)) => Vec::new(),
    })
}

/// Pods' MTU against that of the uplink. A pod with IPv6 has what that needs at least.
async fn examine_mtu(
    network: &KnownNetwork,
    meaning: &Network,
    node: &NodeView,
    judged: &[JudgedAttachment],
) -> Result<Vec<Finding>, CniError> {
    let uplink = find_uplink(&node.netlink, &NodeState::of(meaning, node.facts.has_ipv6), None).await?.mtu;
    let alive = judged.iter().filter(|it| !it.is_dead());
    let has_ipv6 = |it: &JudgedAttachment| {
        it.state.as_ref().is_ok_and(|(record, _)| record.addresses.iter().any(IpAddr::is_ipv6))
    };
    let links = alive.filter_map(|it| {
        Some((node.host_link(&it.key)?, uplink.max(if has_ipv6(it) { MTU_MIN_IPV6 } else { 0 })))
    });
    let links: Vec<(&Link, u32)> = links.collect();
    let mut findings = Vec::new();
    if links.iter().any(|(_, most)| *most > uplink) {
        let found = format!("the uplink's MTU is {uplink}, and IPv6 needs {MTU_MIN_IPV6}");
        findings.push(
            Finding::warning("uplink-without-ipv6", found)
                .of(&network.name)
                .because(
                    "the kernel has no IPv6 on a link that small: unless another one leads out, pods reach only those of \
                     this node by it",
                )
                .remedy("raise the uplink's MTU, or take the IPv6 ranges out of the conf"),
        );
    }
    let show = |link: &Link| format!("{} {}", link.name, link.mtu);
    let larger: Vec<String> =
        links.iter().filter(|(link, most)| link.mtu > *most).map(|(link, _)| show(link)).collect();
    let smaller = links.iter().filter(|(link, _)| meaning.mtu.is_none() && link.mtu < uplink);
    let smaller: Vec<String> = smaller.map(|(link, _)| show(link)).collect();
    let finding = |id, compared: &str, links: &[String]| {
        Finding::new(id, format!("MTU {compared} than the uplink's {uplink}: {}", name_some(links)))
            .of(&network.name)
            .remedy("delete these pods: they are created again with the right MTU")
    };
    if !larger.is_empty() {
        let cause = match meaning.mtu {
            Some(mtu) => format!("the conf says mtu {mtu}; connections may hang once packets get large"),
            None => "the uplink's was lowered after they were added, or a pod's ferrule.dev/mtu is too large; connections may \
                     hang"
                .to_owned(),
        };
        let finding = finding("mtu-too-large", "larger", &larger).because(cause);
        findings.push(match meaning.mtu {
            Some(_) => {
                finding.remedy("set mtu in the conf to the uplink's or leave it out, then delete these pods")
            }
            None => finding,
        });
    } else if !smaller.is_empty() {
        findings.push(finding("mtu-too-small", "smaller", &smaller).because(
            "the uplink's was raised after they were added, so they send smaller packets than they could; or a pod's \
             ferrule.dev/mtu asks for it, which is fine",
        ));
    }
    Ok(findings)
}
