//! VXLAN: the device, what leads to the other node, the way of what carries it, and who may send to this node's port.

use std::net::IpAddr;

use crate::cli::why::departure::{examine_link, is_broken};
use crate::cli::why::ends::Ends;
use crate::cli::why::look::Look;
use crate::cli::why::{firewall, neighbour};
use crate::cni::error::CniError;
use crate::connectivity::half::{Kind, Step};
use crate::datapath::overlay;
use crate::desired::names::{OVERLAY_DEVICE, vtep_mac};
use crate::desired::nftables::element::Element;
use crate::desired::nftables::table::{set, table};
use crate::desired::overlay::inner_mtu;
use crate::linux::nft::element::Bytes;
use crate::linux::vxlan::Tunnel;

/// What was found of a tunnel.
#[derive(Debug, Default)]
pub struct Through {
    /// Step by step.
    pub steps: Vec<Step>,
    /// The other end.
    pub remote: Option<IpAddr>,
    /// What the link below leaves room for, in bytes.
    pub room: Option<u32>,
}

const REPAIR: &str =
    "a running ferruled restores it within a second; see its log, and whether it knows the other node";

/// Whether a link is ferrule's VXLAN device.
pub fn is_overlay(look: &Look<'_>, index: u32) -> bool {
    look.link(index).is_some_and(overlay::is_overlay)
}

/// The way by the device to `next_hop`.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine(look: &Look<'_>, device: u32, next_hop: IpAddr) -> Result<Through, CniError> {
    let mut through = Through::default();
    let Some((link, Some(tunnel))) = look.node.netlink.vxlan(OVERLAY_DEVICE).await? else {
        return Ok(through);
    };
    let broken = |sentence: String| Step::broken(Kind::Tunnel, sentence, REPAIR);
    if !link.up {
        through.steps.push(broken(format!("{OVERLAY_DEVICE} is down")));
        return Ok(through);
    }
    let known = look.node.netlink.neighbours(device).await?;
    let Some(mac) = known.iter().find(|it| it.address == next_hop).and_then(|it| it.mac) else {
        through.steps.push(broken(format!("{OVERLAY_DEVICE} has no neighbour entry of {next_hop}")));
        return Ok(through);
    };
    let entries = look.node.netlink.forwarding_entries(device).await?;
    let Some(remote) = entries.iter().find(|it| it.mac == mac).map(|it| it.remote) else {
        through.steps.push(broken(format!(
            "{OVERLAY_DEVICE} has no forwarding entry of {mac}, the device of {next_hop}"
        )));
        return Ok(through);
    };
    through.remote = Some(remote);
    if vtep_mac(remote) != mac {
        through.steps.push(broken(format!(
            "{OVERLAY_DEVICE} sends frames for {mac} to {remote}, whose device is {}",
            vtep_mac(remote)
        )));
        return Ok(through);
    }
    if let Some(local) = tunnel.local.filter(|local| !look.own.contains(local)) {
        through
            .steps
            .push(broken(format!("{OVERLAY_DEVICE} sends from {local}, which this node does not have")));
        return Ok(through);
    }
    let sentence = format!("by {OVERLAY_DEVICE} to {remote} (VXLAN {}, UDP port {})", tunnel.id, tunnel.port);
    through.steps.push(
        Step::ok(Kind::Tunnel, sentence)
            .fact("remote", remote)
            .fact("port", tunnel.port)
            .fact("id", tunnel.id),
    );
    let steps = examine_below(look, &tunnel, remote, &mut through.room).await?;
    through.steps.extend(steps);
    Ok(through)
}

/// The way of what carries the packets.
async fn examine_below(
    look: &Look<'_>,
    tunnel: &Tunnel,
    remote: IpAddr,
    room: &mut Option<u32>,
) -> Result<Vec<Step>, CniError> {
    let Some(way) = look.node.netlink.route_to(remote).await?.filter(|way| !way.local) else {
        let sentence = format!("there is no route to {remote}, the other end of the tunnel");
        return Ok(vec![Step::broken(Kind::Route, sentence, "see ip route and ip rule")]);
    };
    let mut steps: Vec<Step> = examine_link(look, way.device).into_iter().collect();
    if steps.iter().any(is_broken) {
        return Ok(steps);
    }
    steps.push(neighbour::examine(look, way.device, way.gateway.unwrap_or(remote)).await?);
    *room = look.link(way.device).map(|link| {
        let mtu = way.mtu.unwrap_or(link.mtu);
        inner_mtu(mtu, remote, false)
    });
    if let Some(local) = tunnel.local.or(way.source) {
        let name = look.link_name(way.device);
        steps.extend(firewall::examine_carrier(look, (local, remote), tunnel.port, &name, false).await);
    }
    Ok(steps)
}

/// Whether what another node sends by VXLAN comes in here.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine_arrival(look: &Look<'_>, ends: &Ends<'_>) -> Result<Vec<Step>, CniError> {
    let Some((link, Some(tunnel))) = look.node.netlink.vxlan(OVERLAY_DEVICE).await? else {
        return Ok(Vec::new());
    };
    if !link.up {
        return Ok(vec![Step::broken(Kind::Tunnel, format!("{OVERLAY_DEVICE} is down"), REPAIR)]);
    }
    let Some(remote) = remote_of(look, ends, link.index).await? else {
        let sentence = "which node the packets come from by VXLAN";
        return Ok(vec![Step::unknown(Kind::Tunnel, sentence)]);
    };
    let mut steps = Vec::new();
    if !may_send(look, &tunnel, remote).await? {
        let sentence = format!(
            "table {} lets only nodes send to UDP port {}, and does not know {remote} for one",
            table(),
            tunnel.port
        );
        steps.push(Step::broken(Kind::Tunnel, sentence, REPAIR));
        return Ok(steps);
    }
    let sentence =
        format!("{OVERLAY_DEVICE} takes what {remote} sends (VXLAN {}, UDP port {})", tunnel.id, tunnel.port);
    steps.push(Step::ok(Kind::Tunnel, sentence).fact("port", tunnel.port).fact("id", tunnel.id));
    if let (Some(way), Some(local)) = (look.node.netlink.route_to(remote).await?, tunnel.local) {
        let name = look.link_name(way.device);
        steps.extend(firewall::examine_carrier(look, (remote, local), tunnel.port, &name, true).await);
    }
    Ok(steps)
}

/// The other end of the tunnel by which the source's packets come.
async fn remote_of(look: &Look<'_>, ends: &Ends<'_>, device: u32) -> Result<Option<IpAddr>, CniError> {
    let next_hop = look.standing_route(ends.source.address).and_then(|route| route.gateway);
    let known = look.node.netlink.neighbours(device).await?;
    let mac = known.iter().find(|it| Some(it.address) == next_hop).and_then(|it| it.mac);
    let entries = look.node.netlink.forwarding_entries(device).await?;
    Ok(entries.iter().find(|it| Some(it.mac) == mac).map(|it| it.remote))
}

/// Whether ferrule's table lets the node's packets in. Without the port in the table nobody is kept out.
async fn may_send(look: &Look<'_>, tunnel: &Tunnel, remote: IpAddr) -> Result<bool, CniError> {
    const UDP: u8 = 17;
    let port = Bytes::default().protocol(UDP).port(tunnel.port);
    let peers = if remote.is_ipv4() { set::VXLAN_PEERS4 } else { set::VXLAN_PEERS6 };
    let wanted =
        [Element::new(set::VXLAN_PORTS, port), Element::new(peers, Bytes::default().address(remote))];
    let found = look.nft.find_elements(&table(), &wanted).await?;
    Ok(match found.as_slice() {
        [port, peer] => port.is_none() || peer.is_some(),
        _ => true,
    })
}
