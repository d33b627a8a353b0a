//! What lies between the pods and the world on this node, apart from rules and routes: links that do not forward or have
//! no carrier, neighbours that do not answer, a full table of tracked flows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::attachments::networks::{KnownNetwork, Networks};
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::{Finding, name_some};
use crate::cni::error::CniError;
use crate::config::Role;
use crate::datapath::overlay::is_overlay;
use crate::desired::node::NodeState;
use crate::linux::link::Link;
use crate::linux::neigh::Reachability;
use crate::linux::route::{Family, MAIN_TABLE, RouteFilter, RouteKind};
use crate::linux::sysctl;

/// From this share of its room on, in percent, the table of tracked flows is told of.
const NEARLY_FULL: u64 = 90;

/// Looks at the links by which pods reach the world and other nodes, at the neighbours there, and at conntrack.
pub async fn examine(networks: &Networks, node: &NodeView) -> Result<Vec<Finding>, CniError> {
    let mut findings = Vec::new();
    let states: Vec<NodeState> = networks.known.iter().filter_map(|it| state_of(it, node)).collect();
    if states.is_empty() {
        return Ok(findings);
    }
    let next_hops: BTreeSet<IpAddr> =
        states.iter().flat_map(NodeState::next_hops).map(|(_, next_hop)| next_hop).collect();
    let mut uplinks = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let routes =
            node.netlink.routes(RouteFilter { table: Some(MAIN_TABLE), ..RouteFilter::all(family) }).await?;
        let ways_out =
            routes.iter().filter(|it| it.destination.prefix() == 0 && it.kind == RouteKind::Unicast);
        uplinks.extend(ways_out.filter_map(|route| route.device));
    }
    let mut silent = Vec::new();
    for next_hop in next_hops {
        let Some(way) = node.netlink.route_to(next_hop).await?.filter(|way| !way.local) else { continue };
        uplinks.insert(way.device);
        let neighbour = way.gateway.unwrap_or(next_hop);
        let known = node.netlink.neighbours(way.device).await?;
        if let Some(it) = known.iter().find(|it| it.address == neighbour) {
            match it.reachability {
                Reachability::Failed => silent.push(format!("{neighbour} does not answer")),
                Reachability::Permanent => {
                    let mac = it.mac.map(|mac| mac.to_string()).unwrap_or_default();
                    silent.push(format!("{neighbour} is {mac} by hand"));
                }
                Reachability::Incomplete | Reachability::Other => {}
            }
        }
    }
    let uplinks: Vec<&Link> = node.links.iter().filter(|link| uplinks.contains(&link.index)).collect();
    findings.extend(without_carrier(&uplinks));
    if states.iter().any(|state| state.ipv4) {
        findings.extend(not_forwarding(&uplinks));
    }
    findings.extend(strict_beside_overlay(&uplinks, &node.links));
    if !silent.is_empty() {
        findings.push(
            Finding::warning("neighbour-silent", format!("next hops to other nodes: {}", name_some(&silent)))
                .because(
                    "frames to it go nowhere, or to an address that somebody set by hand; if that one is wrong, pods of \
                     that node are not reached",
                )
                .remedy("see ip neighbour; for one set by hand: ip neighbour flush to ADDRESS nud permanent"),
        );
    }
    findings.extend(flows());
    Ok(findings)
}

fn state_of(network: &KnownNetwork, node: &NodeView) -> Option<NodeState> {
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main)?;
    Some(NodeState::of(meaning, node.facts.has_ipv6))
}

fn without_carrier(uplinks: &[&Link]) -> Option<Finding> {
    let dead: Vec<&str> =
        uplinks.iter().filter(|link| link.up && !link.carrier).map(|link| link.name.as_str()).collect();
    (!dead.is_empty()).then(|| {
        Finding::new("no-carrier", format!("links without a carrier: {}", name_some(&dead)))
            .because("what pods send to other nodes and to the world goes by them, and nobody is at their other end")
            .remedy("see the cable, the switch or the other end: ip link shows NO-CARRIER until it is back")
    })
}

/// A link whose own setting is 0 drops what comes in by it for the pods, though `ip_forward` is 1 (ip_route_input_slow,
/// net/ipv4/route.c). IPv6 asks the setting of all links only.
fn not_forwarding(uplinks: &[&Link]) -> Option<Finding> {
    if sysctl::read(&["net", "ipv4", "ip_forward"]).is_ok_and(|value| value == "0") {
        return None;
    }
    let is_off = |link: &&&Link| {
        sysctl::read(&["net", "ipv4", "conf", &link.name, "forwarding"]).is_ok_and(|value| value == "0")
    };
    let off: Vec<&str> = uplinks.iter().filter(is_off).map(|link| link.name.as_str()).collect();
    let first = *off.first()?;
    Some(
        Finding::new(
            "link-forwarding-off",
            format!("net.ipv4.conf.*.forwarding is 0 on {}", name_some(&off)),
        )
        .because("what comes in by that link for the pods is dropped, whatever net.ipv4.ip_forward says")
        .remedy(format!(
            "sysctl -w net/ipv4/conf/{first}/forwarding=1, and see what in /etc/sysctl.d sets it"
        )),
    )
}

/// The way back of what another node sends to a hostPort here is by VXLAN, since it is from a pod: a strict check of sources
/// on the uplink drops it (`__fib_validate_source`, net/ipv4/fib_frontend.c).
fn strict_beside_overlay(uplinks: &[&Link], links: &[Link]) -> Option<Finding> {
    if !links.iter().any(is_overlay) {
        return None;
    }
    let value = |link: &str| {
        let read = sysctl::read(&["net", "ipv4", "conf", link, "rp_filter"]).ok();
        read.and_then(|value| value.parse::<u8>().ok()).unwrap_or(0)
    };
    let all = value("all");
    let is_strict = |link: &&&Link| all.max(value(&link.name)) == 1;
    let strict: Vec<&str> = uplinks.iter().filter(is_strict).map(|link| link.name.as_str()).collect();
    let first = *strict.first()?;
    Some(
        Finding::warning(
            "rp-filter-strict",
            format!("rp_filter is strict on {}, and nodes are reached by VXLAN", name_some(&strict)),
        )
        .because(
            "of IPv4 this node drops what processes of those nodes, under their nodes' addresses, send to hostPorts and \
             NodePorts of pods here: the answers would go by VXLAN",
        )
        .remedy(format!(
            "if such a process matters: sysctl -w net/ipv4/conf/{first}/rp_filter=2, which is loose, and the same in /etc/sysctl.d"
        )),
    )
}

fn flows() -> Option<Finding> {
    tracked_flows().and_then(|(count, room)| judge_flows(count, room))
}

/// How many flows are tracked, and how many there may be. Without connection tracking there is no such table.
pub fn tracked_flows() -> Option<(u64, u64)> {
    let number = |name| sysctl::read(&["net", "netfilter", name]).ok()?.parse::<u64>().ok();
    Some((number("nf_conntrack_count")?, number("nf_conntrack_max")?))
}

fn judge_flows(count: u64, room: u64) -> Option<Finding> {
    if room == 0 || count.saturating_mul(100) < room.saturating_mul(NEARLY_FULL) {
        return None;
    }
    let found = format!("{count} of {room} tracked flows");
    let finding = if count >= room {
        Finding::new("conntrack-full", found)
    } else {
        Finding::warning("conntrack-full", found)
    };
    Some(
        finding
            .because("once the table is full the kernel drops the first packet of every new connection, of pods and node")
            .remedy("sysctl -w net.netfilter.nf_conntrack_max=..., and conntrack -L shows whose flows they are"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    #[test]
    fn a_full_table_of_flows_is_an_error_and_a_nearly_full_one_a_warning() {
        let severity = |count, room| judge_flows(count, room).map(|finding| finding.severity);
        assert_eq!((severity(0, 0), severity(0, 100), severity(89, 100)), (None, None, None));
        assert_eq!(severity(90, 100), Some(Severity::Warning));
        assert_eq!((severity(100, 100), severity(101, 100)), (Some(Severity::Error), Some(Severity::Error)));
        assert_eq!(severity(u64::MAX, u64::MAX), Some(Severity::Error));
    }
}
