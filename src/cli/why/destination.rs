//! What the node of the destination says.

use crate::cli::why::departure::{self, Departure};
use crate::cli::why::ends::{Ends, Place};
use crate::cli::why::look::Look;
use crate::cli::why::{firewall, forwarding, listener, pod, policies, table, tunnel};
use crate::cni::error::CniError;
use crate::connectivity::half::{Half, Kind, Role, Step};
use crate::connectivity::question::EndKind;
use crate::policy::plan::Direction;
use crate::store::Record;

/// Its half.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn half(look: &Look<'_>, ends: &Ends<'_>) -> Result<Half, CniError> {
    let (source, destination) = (&ends.source, &ends.destination);
    let mut half = Half {
        node: destination.node_name(look),
        role: Role::Destination,
        flow: ends.flow,
        steps: Vec::new(),
        link_mtu: None,
        pod_mtu: None,
        other: None,
    };
    let input = arrive(look, ends, &mut half).await?;
    let mut own_link = None;
    match destination.place {
        Place::Pod(record) => own_link = enter_pod(look, ends, record, input, &mut half).await?,
        Place::Node => match table::examine_host_port(look, ends).await? {
            Some(found) => {
                let is_taken = departure::is_broken(&found.step);
                half.steps.push(found.step);
                if let Some(record) = look.pod_with(found.pod).filter(|_| !is_taken) {
                    let inner = ends.rewritten(found.pod, found.port, record);
                    enter_pod(look, &inner, record, input, &mut half).await?;
                }
            }
            None => {
                half.steps.extend(firewall::examine_to_node(look, ends, input).await);
                half.steps.extend(listener::on_node(look, ends));
            }
        },
        Place::Elsewhere => {}
    }
    half.steps.extend(forwarding::examine_flows());
    if !source.is_here() {
        go_back(look, ends, own_link, &mut half).await?;
    } else if let Place::Pod(record) = source.place {
        half.steps.extend(back_to_pod(look, ends, record, own_link).await?);
    }
    policies::examine_hearsay(look, ends, Direction::Egress, &mut half.steps).await?;
    Ok(half)
}

/// What is for a pod of this node. Returns the index of the node's end of its link.
async fn enter_pod(
    look: &Look<'_>,
    ends: &Ends<'_>,
    record: &Record,
    input: Option<u32>,
    half: &mut Half,
) -> Result<Option<u32>, CniError> {
    let (source, destination) = (&ends.source, &ends.destination);
    let found = pod::examine(look, record, destination.address, source.address, false).await?;
    half.pod_mtu = found.mtu;
    if let Some(link) = found.link {
        half.steps.extend(pod::examine_route(look, ends, input, link).await?);
        half.steps.extend(firewall::examine_to_pod(look, ends, input, link).await);
    }
    half.steps.extend(found.steps);
    half.steps.extend(firewall::examine_in_pod(look, record, ends, false).await);
    policies::examine(look, ends, Direction::Ingress, &mut half.steps).await?;
    half.steps.extend(listener::in_pod(look, record, ends));
    Ok(found.link)
}

/// By which link packets come in, as far as that can be known here, and whether they come in well. The link is that by
/// which this node would send to the source.
async fn arrive(look: &Look<'_>, ends: &Ends<'_>, half: &mut Half) -> Result<Option<u32>, CniError> {
    let (source, destination) = (&ends.source, &ends.destination);
    match source.place {
        Place::Pod(record) => {
            let Some(link) = look.host_link(record) else { return Ok(None) };
            if destination.pod().is_some_and(|other| other.key() != record.key()) {
                half.steps.push(forwarding::examine(destination.address.is_ipv4(), &link.name));
                let pair = (source.address, destination.address);
                let origin = forwarding::examine_origin(look, pair, Some(link.index), &link.name).await?;
                half.steps.extend(origin);
            }
            return Ok(Some(link.index));
        }
        Place::Node => return Ok(None),
        Place::Elsewhere => {}
    }
    let Some(input) = input_link(look, ends).await? else { return Ok(None) };
    let name = look.link_name(input);
    let ipv4 = destination.address.is_ipv4();
    if tunnel::is_overlay(look, input) {
        half.steps.extend(tunnel::examine_arrival(look, ends).await?);
    } else {
        half.steps.extend(departure::examine_link(look, input));
    }
    if destination.pod().is_some() {
        half.steps.push(forwarding::examine(ipv4, &name));
    }
    let pair = (source.address, destination.address);
    half.steps.extend(forwarding::examine_origin(look, pair, Some(input), &name).await?);
    Ok(Some(input))
}

/// The link by which packets from the source's node come, if the two nodes agree about the way: that of ferrule's own route
/// back, that towards the source's node, or that towards the source.
async fn input_link(look: &Look<'_>, ends: &Ends<'_>) -> Result<Option<u32>, CniError> {
    let source = &ends.source;
    if let Some(device) = look.standing_route(source.address).and_then(|route| route.device) {
        return Ok(Some(device));
    }
    let listed = look.listed_route(source.address).map(|(_, next_hop)| next_hop);
    let of_node = source.asked.node.iter().flat_map(|node| node.addresses.iter().copied());
    for address in listed.into_iter().chain(of_node).chain([source.address]) {
        let way = look.node.netlink.route_to(address).await?;
        if let Some(way) = way.filter(|way| !way.local) {
            return Ok(Some(way.device));
        }
    }
    Ok(None)
}

/// The way of the answers to another node.
async fn go_back(
    look: &Look<'_>,
    ends: &Ends<'_>,
    input: Option<u32>,
    half: &mut Half,
) -> Result<(), CniError> {
    let (source, destination) = (&ends.source, &ends.destination);
    let departure = Departure {
        input,
        source: destination.address,
        destination: source.address,
        other: &source.asked,
        is_back: true,
    };
    let left = departure::examine(look, &departure).await?;
    half.steps.extend(left.steps.into_iter().map(Step::back));
    if left.link.is_some() {
        half.steps.extend(firewall::examine_answers(look, ends, input, left.link).await);
    }
    (half.link_mtu, half.other) = (left.mtu, left.other);
    if source.asked.kind == EndKind::Address {
        let sentence =
            format!("whether packets of {} come to this node cannot be seen from here", source.address);
        half.steps.insert(0, Step::unknown(Kind::Beyond, sentence));
    }
    Ok(())
}

/// The way of the answers to a pod of this node.
async fn back_to_pod(
    look: &Look<'_>,
    ends: &Ends<'_>,
    record: &Record,
    input: Option<u32>,
) -> Result<Vec<Step>, CniError> {
    let Some(link) = look.host_link(record) else { return Ok(Vec::new()) };
    let (from, to) = (ends.destination.address, ends.source.address);
    let way = pod::examine_way(look, from, to, input, link.index).await?;
    let mut steps: Vec<Step> = way.into_iter().map(Step::back).collect();
    steps.extend(firewall::examine_answers(look, ends, input, Some(link.index)).await);
    Ok(steps)
}
