//! The way from this node to another one, or to the world: rules, route, link, next hop.

use std::net::IpAddr;

use crate::cli::doctor::name_some;
use crate::cli::why::look::Look;
use crate::cli::why::{neighbour, tunnel};
use crate::cni::error::CniError;
use crate::config::peer::Peers;
use crate::connectivity::half::{Kind, Other, State, Step};
use crate::connectivity::question::{End, EndKind};
use crate::datapath::overruled::delete;
use crate::desired::attachment::LOCAL_TABLE;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::linux::link::Link;
use crate::linux::route::{Family, MAIN_TABLE, PacketRoute, Resolved, Route};
use crate::linux::rule::ListedRule;

/// `RT_TABLE_DEFAULT`, which each namespace looks up last.
const DEFAULT_TABLE: u32 = 253;

/// Packets that leave.
pub struct Departure<'a> {
    /// Index of the pod's link that they come in by; `None`: the node sends them.
    pub input: Option<u32>,
    /// Who sends them.
    pub source: IpAddr,
    /// Who is meant.
    pub destination: IpAddr,
    /// The other end, as the question has it.
    pub other: &'a End,
    /// Whether they are answers.
    pub is_back: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Left {
    /// Step by step.
    pub steps: Vec<Step>,
    /// Index of the link that packets leave by.
    pub link: Option<u32>,
    /// What that takes, in bytes.
    pub mtu: Option<u32>,
    /// The next hop.
    pub next_hop: Option<IpAddr>,
    /// Who has the other end.
    pub other: Option<Other>,
}

/// Looks at the way.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine(look: &Look<'_>, departure: &Departure<'_>) -> Result<Left, CniError> {
    let mut left = Left { other: other_node(look, departure), ..Left::default() };
    let Departure { input, source, destination, .. } = *departure;
    let packet = PacketRoute { source: Some(source), destination, input };
    let way = match look.node.netlink.route_of(packet).await {
        Ok(Some(way)) => way,
        Ok(None) => return refused(look, departure, left).await,
        Err(error) if error.is_unreachable() || error.is_wrong_source() => {
            return refused(look, departure, left).await;
        }
        Err(error) => return Err(error.into()),
    };
    let (way, route) = way;
    if way.local {
        let sentence = format!("this node takes {destination} for an address of its own");
        let remedy = format!("ip route get {destination}; ip -d route show table local: see who added it");
        left.steps.push(Step::broken(Kind::Route, sentence, remedy));
        return Ok(left);
    }
    left.steps.push(judge_route(look, departure, &way, &route).await?);
    left.link = Some(way.device);
    left.next_hop = Some(way.gateway.unwrap_or(destination));
    if left.steps.iter().any(is_broken) {
        return Ok(left);
    }
    let link = look.link(way.device);
    left.mtu = way.mtu.or(link.map(|link| link.mtu));
    if tunnel::is_overlay(look, way.device) {
        let through = tunnel::examine(look, way.device, way.gateway.unwrap_or(destination)).await?;
        left.steps.extend(through.steps);
        left.mtu = left.mtu.zip(through.room).map(|(own, room)| own.min(room)).or(left.mtu);
        if let Some(other) = left.other.as_mut().filter(|it| it.address.is_none()) {
            other.address = through.remote;
        }
        return Ok(left);
    }
    let by = examine_link(look, way.device);
    let is_cut = by.as_ref().is_some_and(is_broken);
    left.steps.extend(by);
    if !is_cut {
        left.steps.push(neighbour::examine(look, way.device, way.gateway.unwrap_or(destination)).await?);
    }
    Ok(left)
}

/// Whether what comes after it need not be looked at.
pub fn is_broken(step: &Step) -> bool {
    step.state == State::Broken
}

/// Who has the other end: by the conf, or by ferrule's route.
fn other_node(look: &Look<'_>, departure: &Departure<'_>) -> Option<Other> {
    if !departure.other.is_of_a_node() {
        return None;
    }
    if let Some(node) = &departure.other.node {
        return Some(Other { node: Some(node.name.clone()), address: node.addresses.first().copied() });
    }
    if let Some((node, address)) = look.listed_route(departure.destination) {
        return Some(Other { node: Some(node), address: Some(address) });
    }
    let gateway = look.standing_route(departure.destination)?.gateway;
    // Of IPv6 the next hop in a tunnel is a link-local one.
    let address = gateway.filter(|it| !matches!(it, IpAddr::V6(it) if it.is_unicast_link_local()));
    Some(Other { node: None, address })
}

/// The kernel turns the packets away.
async fn refused(look: &Look<'_>, departure: &Departure<'_>, mut left: Left) -> Result<Left, CniError> {
    let destination = departure.destination;
    let step = match look.standing_route(destination) {
        Some(route) => {
            let found = look.node.show_route(route);
            let family = if destination.is_ipv4() { Family::V4 } else { Family::V6 };
            let rules = look.node.netlink.all_rules(family).await?;
            let by = match rules_of_others(&rules).as_slice() {
                [] => String::new(),
                others => format!(" (rules of others: {})", name_some(others)),
            };
            let sentence = format!(
                "the node has ferrule's route {found}, and turns packets to {destination} away all the same{by}"
            );
            let remedy = format!(
                "ip rule show, and ip route show table all type blackhole (or prohibit, unreachable, throw): remove what \
                 matches {destination}"
            );
            Step::broken(Kind::Rule, sentence, remedy)
        }
        None => match down_link(look, departure).await? {
            Some(link) => {
                let sentence =
                    format!("the node's link {link} is down, so there is no route to {destination}");
                Step::broken(Kind::Link, sentence, format!("ip link set {link} up; then: ferrulectl sync"))
            }
            None => no_route(look, departure, None),
        },
    };
    left.steps.push(step);
    Ok(left)
}

/// Those that may send packets to another table than those that each namespace has from the start.
fn rules_of_others(rules: &[ListedRule]) -> Vec<&str> {
    let is_of_all = |it: &ListedRule| {
        [Some(LOCAL_TABLE), Some(MAIN_TABLE), Some(DEFAULT_TABLE)].contains(&it.table)
            || it.rule.is_some_and(|it| it.protocol == ROUTE_PROTOCOL)
    };
    rules.iter().filter(|it| !is_of_all(it)).map(|it| it.text.as_str()).collect()
}

/// A link of the node that is down, and that has an address in the network of the next hop; or the only one that is down.
async fn down_link(look: &Look<'_>, departure: &Departure<'_>) -> Result<Option<String>, CniError> {
    let is_of_node = |link: &&Link| link.group == 0 && link.name != "lo" && !link.up;
    let down: Vec<&Link> = look.node.links.iter().filter(is_of_node).collect();
    let next_hop = look.listed_route(departure.destination).map(|(_, next_hop)| next_hop);
    let next_hop = next_hop.or(departure.other.node.as_ref().and_then(|it| it.addresses.first().copied()));
    for link in &down {
        let addresses = look.node.netlink.addresses(Some(link.index)).await?;
        let has = |address: IpAddr| addresses.iter().any(|it| it.network.contains(address));
        if has(departure.destination) || next_hop.is_some_and(has) {
            return Ok(Some(link.name.clone()));
        }
    }
    // IPv6 loses its addresses with the link.
    let only = (down.len() == 1 && !departure.destination.is_ipv4()).then(|| down[0].name.clone());
    Ok(only)
}

fn no_route(look: &Look<'_>, departure: &Departure<'_>, taken: Option<&Route>) -> Step {
    let Departure { destination, is_back, .. } = *departure;
    let what = if is_back { "answers" } else { "packets" };
    let instead = match taken {
        Some(route) => format!("; {what} take {} instead", look.node.show_route(route)),
        None => String::new(),
    };
    let remedy = match look.listed_route(destination) {
        Some(_) => "ferrulectl sync, or the next ADD on this node, restores it",
        None if is_kept_by_agent(look) => {
            "see the log of ferruled on this node, and whether the other node's Node has its podCIDRs: kubectl get nodes \
             --output custom-columns=NAME:.metadata.name,CIDRS:.spec.podCIDRs"
        }
        None => "see ip route; in the conf, list the other nodes (peers)",
    };
    Step::broken(Kind::Route, format!("there is no route to {destination}{instead}"), remedy)
}

fn is_kept_by_agent(look: &Look<'_>) -> bool {
    look.mains().any(|network| matches!(network.peers, Peers::KeptByAgent))
}

/// Whether the route is the one that it should be.
async fn judge_route(
    look: &Look<'_>,
    departure: &Departure<'_>,
    way: &Resolved,
    route: &Route,
) -> Result<Step, CniError> {
    let Departure { destination, other, .. } = *departure;
    let ok = || {
        let shown = look.node.show_route(route);
        Step::ok(Kind::Route, format!("{destination} is reached by {shown}"))
            .fact("route", &shown)
            .fact("link", look.link_name(way.device))
    };
    let is_ours = route.protocol == ROUTE_PROTOCOL;
    // Nodes themselves and the world are reached as the node has it.
    if other.kind != EndKind::Pod || is_ours && route.destination.prefix() > 0 {
        return Ok(ok());
    }
    let shown = look.node.show_route(route);
    let table = route.table.unwrap_or(MAIN_TABLE);
    if let Some(own) = look.standing_route(destination) {
        let own = look.node.show_route(own);
        return Ok(if table == MAIN_TABLE {
            let sentence = format!("route {shown} wins over ferrule's, {own}");
            let remedy = format!("find out what made it; if nothing needs it any more: {}", delete(route));
            Step::broken(Kind::Route, sentence, remedy)
        } else {
            let sentence = format!(
                "a rule of policy routing leads packets from {} to table {table}, and there by {shown}, past ferrule's \
                 route {own}",
                departure.source
            );
            let remedy = format!(
                "ip rule show: give the rule a place behind 32766, or exempt the pods' addresses from it: ip rule add to \
                 {} lookup main priority 7",
                look.standing_route(destination).map(|it| it.destination.to_string()).unwrap_or_default()
            );
            Step::broken(Kind::Rule, sentence, remedy)
        });
    }
    let is_expected = look.listed_route(destination).is_some()
        || is_kept_by_agent(look)
        || look.has_routes_to_nodes(destination.is_ipv4());
    if is_expected { Ok(no_route(look, departure, Some(route))) } else { Ok(ok()) }
}

/// The link by which packets leave the node, or come in.
pub fn examine_link(look: &Look<'_>, index: u32) -> Option<Step> {
    let link = look.link(index)?;
    let name = &link.name;
    Some(if !link.up {
        Step::broken(Kind::Link, format!("link {name} is down"), format!("ip link set {name} up"))
    } else if !link.carrier {
        let remedy = "see the cable, the switch or the other end: ip link shows NO-CARRIER until it is back";
        Step::broken(Kind::Link, format!("link {name} has no carrier: nobody is at its other end"), remedy)
    } else {
        Step::ok(Kind::Link, format!("link {name} is up, mtu {}", link.mtu)).fact("mtu", link.mtu)
    })
}
