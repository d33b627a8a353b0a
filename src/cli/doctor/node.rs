//! What a node needs besides its pods: forwarding, reverse path filtering, routes to the other nodes.

use std::path::Path;

use crate::attachments::networks::{KnownNetwork, Networks};
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::{Finding, name_some, systemd};
use crate::cni::error::CniError;
use crate::config::Role;
use crate::datapath::node::missing_addresses;
use crate::datapath::peers::{self, Standing};
use crate::desired::node::NodeState;
use crate::desired::object::Route;
use crate::linux::route::{Family, RouteFilter, RouteKind};
use crate::linux::sysctl;

/// Looks at the settings that all networks share.
pub fn examine(networks: &Networks) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !networks.known.iter().any(|network| network.role == Some(Role::Main)) {
        return findings;
    }
    let all = ["net", "ipv4", "conf", "all", "rp_filter"];
    if sysctl::read(&all).is_ok_and(|value| value == "2") {
        findings.push(
            Finding::new("rp-filter-loose", "net.ipv4.conf.all.rp_filter is 2")
                .because(
                    "the kernel takes the larger of this value and that of the pod's own link, and 2 is loose: a pod can \
                     send from another pod's address",
                )
                .remedy("sysctl -w net.ipv4.conf.all.rp_filter=1 or 0, and the same in /etc/sysctl.d"),
        );
    }
    if systemd::takes_foreign_routes_away(Path::new("/")) {
        findings.push(
            Finding::new("networkd-foreign-routes", "systemd-networkd manages foreign routes")
                .because("when it restarts, for example after an upgrade, it removes routes that it did not make")
                .remedy(
                    "put [Network] and ManageForeignRoutes=no into /etc/systemd/networkd.conf.d/ferrule.conf, then \
                     systemctl restart systemd-networkd; then: ferrulectl sync",
                ),
        );
    }
    findings
}

/// Looks at what one network needs of the node. Without pods nothing has to be there yet: the first ADD makes it.
pub async fn examine_network(
    network: &KnownNetwork,
    node: &NodeView,
    has_pods: bool,
) -> Result<Vec<Finding>, CniError> {
    let mut findings = Vec::new();
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(state) = meaning.map(|it| NodeState::of(it, node.facts.has_ipv6)) else {
        return Ok(findings);
    };
    let mut find = |finding: Finding| findings.push(finding.of(&network.name));
    for address in missing_addresses(&node.netlink, &state).await? {
        find(
            Finding::new("node-address-missing", format!("nodeIPs: this node has no address {address}"))
                .because("it was taken from the node, or the conf was made for another; no pod can be added")
                .remedy("give the address to the node, or correct nodeIPs in the conf"),
        );
    }
    if has_pods {
        for wanted in state.forwarding() {
            let path: Vec<&str> = wanted.path.iter().map(String::as_str).collect();
            let Ok(value) = sysctl::read(&path) else { continue };
            if value != wanted.value {
                let name = path.join(".");
                find(
                    Finding::new("forwarding-off", format!("{name} is {value}"))
                        .because("something switched it off after the last ADD; pods reach only this node")
                        .remedy(format!("sysctl -w {name}=1, and see what in /etc/sysctl.d sets it")),
                );
            }
        }
        let missing = missing_catch_alls(node, &state.standing_routes()).await?;
        if !missing.is_empty() {
            find(
                Finding::new("catch-all-missing", format!("no unreachable route: {}", name_some(&missing)))
                    .because("it was removed; packets to addresses without a pod leave by the default route")
                    .remedy("ferrulectl sync, or the next ADD, restores it"),
            );
        }
    }
    let (mut unreachable, mut wrong) = (Vec::new(), Vec::new());
    for (wanted, standing) in peers::standings(&node.netlink, &state).await? {
        let (peer, destination) = (&wanted.peer, wanted.route.destination);
        let Some(next_hop) = wanted.route.gateway else { continue };
        match node.netlink.route_to(next_hop).await? {
            None => unreachable.push(format!("{peer} ({next_hop}: no route)")),
            Some(way) if way.local => {}
            Some(way) => match (way.gateway, standing) {
                (Some(router), _) => unreachable.push(format!("{peer} ({next_hop}: only through {router})")),
                (None, Standing::Stands) => {}
                (None, Standing::Missing) if !has_pods => {}
                (None, Standing::Missing) => wrong.push(format!("{peer} {destination} (missing)")),
                (None, Standing::Other(found)) => {
                    wrong.push(format!("{peer} {destination} (it is {})", node.show_route(&found)))
                }
            },
        }
    }
    if !unreachable.is_empty() {
        find(
            Finding::new("peer-unreachable", format!("not on-link: {}", name_some(&unreachable)))
                .because("this node and that peer share no subnet, or the link to it is down")
                .remedy(
                    "see ip addr and ip route; in the conf, give a nodeIP in a subnet that both nodes are in",
                ),
        );
    }
    if !wrong.is_empty() {
        find(
            Finding::new("peer-route-wrong", format!("routes to peers: {}", name_some(&wrong)))
                .because("removed after the last ADD, for example by a link that went down, or the conf was changed")
                .remedy("ferrulectl sync, or the next ADD on this node, restores them"),
        );
    }
    Ok(findings)
}

/// The own subnets that lack their `unreachable` route.
async fn missing_catch_alls(node: &NodeView, wanted: &[Route]) -> Result<Vec<String>, CniError> {
    let mut standing = Vec::new();
    for family in [Family::V4, Family::V6] {
        let routes = node.netlink.routes(RouteFilter::all(family)).await?;
        standing.extend(
            routes.into_iter().filter(|it| it.kind == RouteKind::Unreachable).map(|it| it.destination),
        );
    }
    let has_ipv6 = sysctl::has_ipv6();
    let missing = wanted.iter().map(|route| route.destination).filter(|it| !standing.contains(it));
    Ok(missing.filter(|it| it.is_ipv4() || has_ipv6).map(|it| it.to_string()).collect())
}
