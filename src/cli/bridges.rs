//! What imported pods on a bridge need, so that they and the pods that ferrule adds reach each other.
//!
//! A pod of the bridge plugin takes its whole subnet for its link and asks there who has an address. A pod of ferrule
//! is on no bridge, and nobody answers. For IPv4 the node can answer in its place (`proxy_arp`). For IPv6 the kernel
//! answers for single addresses only, so there the old pods' own route has to go: then they send to their gateway, as
//! pods of ptp always do.
//!
//! Neither is done by import or by ADD: the bridge and those pods' routes are not ferrule's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::node_view::NodeView;
use crate::cni::error::CniError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::linux::route::{Family, Route, RouteFilter, RouteKind};
use crate::linux::sysctl;
use crate::store::Record;

/// What ferrule leaves to a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ManualStep {
    /// A command for a shell on the node.
    pub command: String,
    /// What does not work without it.
    pub reason: String,
}

/// What has yet to be done for the imported ones of `records`; nothing where no bridge is involved.
///
/// # Errors
/// Where the kernel cannot be asked. A pod that comes to its end meanwhile is none.
pub async fn remaining_steps(
    node: &NodeView,
    records: impl IntoIterator<Item = &Record>,
) -> Result<Vec<ManualStep>, CniError> {
    let mut steps = BTreeSet::new();
    for record in records.into_iter().filter(|record| record.imported_from.is_some()) {
        for &address in &record.addresses {
            let Some(bridge) = bridge_to(node, address).await? else { continue };
            if address.is_ipv4() {
                steps.extend(answer_for_others(&bridge));
            } else {
                steps.extend(send_to_gateway(record, address).await?);
            }
        }
    }
    Ok(steps.into_iter().collect())
}

/// The bridge by which the node reaches the address.
async fn bridge_to(node: &NodeView, address: IpAddr) -> Result<Option<String>, CniError> {
    let Some(way) = node.netlink.route_to(address).await? else { return Ok(None) };
    let link = node.links.iter().find(|link| link.index == way.device);
    let bridge = link.filter(|link| link.kind.as_deref() == Some("bridge") && way.gateway.is_none());
    Ok(bridge.map(|link| link.name.clone()))
}

/// The node answers on the bridge for every address that it reaches another way.
fn answer_for_others(bridge: &str) -> Option<ManualStep> {
    // The kernel takes either for both.
    let answers = ["all", bridge].iter().any(|name| is_set(&["net", "ipv4", "conf", name, "proxy_arp"]));
    // `sysctl` takes a slash for a dot in a name, and the other way round.
    let name = bridge.replace('.', "/");
    (!answers).then(|| ManualStep {
        command: format!("sysctl -w net.ipv4.conf.{name}.proxy_arp=1 net.ipv4.neigh.{name}.proxy_delay=0"),
        reason: format!("imported pods on {bridge} do not reach new ones over IPv4 without it"),
    })
}

fn is_set(key: &[&str]) -> bool {
    sysctl::read(key).is_ok_and(|value| value == "1")
}

/// The pod sends to its gateway what it looks for on its link now.
async fn send_to_gateway(record: &Record, address: IpAddr) -> Result<Option<ManualStep>, CniError> {
    let Some(netns) = &record.netns else { return Ok(None) };
    let Ok(sandbox) = Netns::open(netns.path.as_path()) else { return Ok(None) };
    let Ok(inside) = Netlink::open_in(&sandbox) else { return Ok(None) };
    let Some(link) = inside.link(LinkRef::Name(record.ifname.to_string())).await? else { return Ok(None) };
    let filter = RouteFilter { device: Some(link.index), ..RouteFilter::all(Family::V6) };
    let routes = inside.routes(filter).await?;
    let is_on_link = |route: &&Route| {
        let destination = route.destination;
        route.kind == RouteKind::Unicast
            && route.gateway.is_none()
            && (1..128).contains(&destination.prefix())
            && destination.contains(address)
    };
    let default = routes.iter().find(|route| route.destination.prefix() == 0 && route.gateway.is_some());
    let (Some(on_link), Some(gateway)) =
        (routes.iter().find(is_on_link), default.and_then(|route| route.gateway))
    else {
        return Ok(None);
    };
    let (path, subnet) = (quote(&netns.path.to_string()), on_link.destination);
    let ifname = &record.ifname;
    let pod = record.pod.as_ref().map_or_else(|| record.container.to_string(), ToString::to_string);
    Ok(Some(ManualStep {
        command: format!(
            "nsenter --net={path} sh -c 'ip -6 route replace {gateway}/128 dev {ifname} && ip -6 route delete \
             {subnet} dev {ifname}'"
        ),
        reason: format!("imported pod {pod} does not reach new ones over IPv6 without it"),
    }))
}

/// A word for the shell.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(quote("/run/netns/cni-1"), "/run/netns/cni-1");
        assert_eq!(quote("/run/a b'c"), "'/run/a b'\\''c'");
    }
}
