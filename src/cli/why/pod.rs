//! A pod: its link at both ends, its address, its own routes, and the node's route to it.

use std::net::IpAddr;

use crate::cli::why::ends::Ends;
use crate::cli::why::look::Look;
use crate::cni::error::CniError;
use crate::connectivity::half::{Kind, Step};
use crate::desired::names;
use crate::linux::link::{Link, LinkRef};
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::linux::route::{MAIN_TABLE, PacketRoute};
use crate::mac::MacAddr;
use crate::store::Record;

/// What was found of a pod.
#[derive(Debug, Default)]
pub struct Found {
    /// Step by step.
    pub steps: Vec<Step>,
    /// Index of the node's end of its link.
    pub link: Option<u32>,
    /// MTU of its link, in bytes.
    pub mtu: Option<u32>,
}

const AGAIN: &str =
    "delete the pod, so that it is created again; if it happens again, find out what changes it";

/// Looks at a pod that speaks with `other` by its `address`. `sends`: whether it begins.
///
/// # Errors
/// Where the node's kernel cannot be asked.
pub async fn examine(
    look: &Look<'_>,
    record: &Record,
    address: IpAddr,
    other: IpAddr,
    sends: bool,
) -> Result<Found, CniError> {
    let mut found = Found::default();
    let Some(link) = look.host_link(record) else {
        let sentence = "the pod's link is gone from the node: a record is left of it, and no network";
        found.steps.push(Step::broken(Kind::Pod, sentence, AGAIN));
        return Ok(found);
    };
    found.link = Some(link.index);
    found.mtu = Some(link.mtu);
    let name = &link.name;
    if !link.up {
        let sentence = format!("the node's end of the pod's link, {name}, is down");
        found.steps.push(Step::broken(
            Kind::Pod,
            sentence,
            "ferrulectl sync, or the agent, sets it up again",
        ));
        return Ok(found);
    }
    if !look.can_enter {
        if !link.carrier {
            let sentence = format!("the pod's end of {name} is down");
            found.steps.push(Step::broken(Kind::Pod, sentence, AGAIN));
            return Ok(found);
        }
        let sentence = "the inside of the pod cannot be looked at from here (that needs CAP_SYS_ADMIN)";
        found.steps.push(Step::unknown(Kind::Pod, sentence));
        return Ok(found);
    }
    match inside(record) {
        Ok(sandbox) => {
            let inner = Inner { sandbox: &sandbox, record, address, other, sends };
            match inner.examine(&mut found).await {
                Ok(steps) => found.steps.extend(steps),
                Err(error) => found.steps.push(Step::unknown(Kind::Pod, format!("the pod: {error}"))),
            }
        }
        Err(reason) => {
            found.steps.push(Step::unknown(Kind::Pod, format!("the pod cannot be entered: {reason}")))
        }
    }
    found.steps.extend(examine_neighbour(look, record, address, link).await?);
    Ok(found)
}

/// The namespace of a pod, if it is still the same.
pub fn namespace(record: &Record) -> Result<Netns, String> {
    let recorded = record.netns.as_ref().ok_or("its record names no namespace")?;
    let netns = Netns::open(recorded.path.as_path()).map_err(|error| error.to_string())?;
    let identity = netns.identity();
    if (identity.dev, identity.ino) != (recorded.dev, recorded.ino) {
        return Err("another namespace is in the place of its own".to_owned());
    }
    Ok(netns)
}

fn inside(record: &Record) -> Result<Netlink, String> {
    Netlink::open_in(&namespace(record)?).map_err(|error| error.to_string())
}

struct Inner<'a> {
    sandbox: &'a Netlink,
    record: &'a Record,
    address: IpAddr,
    other: IpAddr,
    sends: bool,
}

impl Inner<'_> {
    async fn examine(&self, found: &mut Found) -> Result<Vec<Step>, CniError> {
        let Self { sandbox, record, address, other, .. } = *self;
        let name = record.ifname.to_string();
        let broken = |sentence: String| Ok(vec![Step::broken(Kind::Pod, sentence, AGAIN)]);
        let Some(link) = sandbox.link(LinkRef::Name(name.clone())).await? else {
            return broken(format!("the pod has no link {name}"));
        };
        found.mtu = found.mtu.map(|mtu| mtu.min(link.mtu));
        if !link.up || !link.carrier {
            return broken(format!("the pod's link {name} is down"));
        }
        let addresses = sandbox.addresses(None).await?;
        if !addresses.iter().any(|it| it.network.ip() == address) {
            return broken(format!("the pod has not its address {address}"));
        }
        let chosen = sandbox.route_to(other).await?;
        let way = sandbox.route_from(address, other).await?;
        let Some(way) = way else {
            let what = if self.sends { "packets" } else { "answers" };
            return broken(format!("the pod has no route for {what} to {other}"));
        };
        if way.local {
            return Ok(vec![Step::ok(Kind::Pod, format!("{other} is the pod's own address"))]);
        }
        if way.device != link.index {
            let by = sandbox.link(LinkRef::Index(way.device)).await?;
            let by = by.map_or_else(|| format!("link {}", way.device), |it| it.name);
            let sentence = format!("the pod sends packets to {other} by {by}, not by {name}");
            return Ok(vec![Step::unknown(Kind::Pod, sentence)]);
        }
        let mut steps = vec![
            Step::ok(Kind::Pod, format!("the pod has {address} on {name}, and a route to {other}"))
                .fact("link", &name)
                .fact("mtu", link.mtu),
        ];
        if self.sends {
            steps.extend(self.examine_source(chosen.and_then(|it| it.source)));
        }
        Ok(steps)
    }

    /// The address that the pod's kernel chooses, if the program does not.
    fn examine_source(&self, chosen: Option<IpAddr>) -> Option<Step> {
        let chosen = chosen?;
        Some(if self.record.addresses.contains(&chosen) {
            Step::ok(Kind::SourceAddress, format!("the pod sends from {chosen}"))
        } else {
            let sentence = format!(
                "the pod sends from {chosen}, which is none of its own addresses; the node drops what a pod sends so"
            );
            let remedy = "see ip route get inside of the pod: a program in it has added the address, or a route with src";
            Step::broken(Kind::SourceAddress, sentence, remedy).fact("source", chosen)
        })
    }
}

/// The node's neighbour entry of the pod. That there is none is not fatal: then the kernel asks, and the pod answers.
async fn examine_neighbour(
    look: &Look<'_>,
    record: &Record,
    address: IpAddr,
    link: &Link,
) -> Result<Option<Step>, CniError> {
    let known = look.node.netlink.neighbours(link.index).await?;
    let Some(mac) = known.iter().find(|it| it.address == address && it.is_permanent()).and_then(|it| it.mac)
    else {
        return Ok(None);
    };
    let Some(own) = pods_mac(record).await else { return Ok(None) };
    Ok((own != mac).then(|| {
        let sentence = format!("the node sends frames for {address} to {mac}, and the pod has {own}");
        Step::broken(Kind::Neighbour, sentence, "ferrulectl sync, or the agent, corrects the entry")
    }))
}

async fn pods_mac(record: &Record) -> Option<MacAddr> {
    let sandbox = inside(record).ok()?;
    let link = sandbox.link(LinkRef::Name(record.ifname.to_string())).await.ok()??;
    Some(link.mac.unwrap_or_else(|| names::pod_mac(&record.key())))
}

/// The node's way to a pod of its own, `link` being the node's end of its link.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine_route(
    look: &Look<'_>,
    ends: &Ends<'_>,
    input: Option<u32>,
    link: u32,
) -> Result<Vec<Step>, CniError> {
    examine_way(look, ends.source.address, ends.destination.address, input, link).await
}

/// The same for any two addresses.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine_way(
    look: &Look<'_>,
    source: IpAddr,
    destination: IpAddr,
    input: Option<u32>,
    link: u32,
) -> Result<Vec<Step>, CniError> {
    let name = look.link_name(link);
    let packet = PacketRoute { source: Some(source), destination, input };
    let way = match look.node.netlink.route_of(packet).await {
        Ok(way) => way,
        Err(error) if error.is_unreachable() || error.is_wrong_source() => None,
        Err(error) => return Err(error.into()),
    };
    let remedy = "ferrulectl sync, or the agent, restores the node's route and rule for the pod";
    let found = match way {
        Some((way, _)) if way.device == link && !way.local => {
            return Ok(vec![Step::ok(Kind::PodRoute, format!("the node leads {destination} to {name}"))]);
        }
        Some((way, route)) => {
            let by = look.link_name(way.device);
            match route.table.unwrap_or(MAIN_TABLE) {
                MAIN_TABLE => (
                    Kind::PodRoute,
                    format!("the node leads packets to {destination} to {by}, not to {name}"),
                ),
                table => (
                    Kind::Rule,
                    format!(
                        "a rule leads packets to {destination} to table {table}, and so to {by}, not to {name}"
                    ),
                ),
            }
        }
        None => {
            // Without the packet's source and link: only the route.
            let bare = look.node.netlink.route_to(destination).await?;
            match bare.filter(|it| it.device == link) {
                Some(_) => (
                    Kind::Rule,
                    format!(
                        "the node has a route to {destination}, and turns packets from {source} away all the same"
                    ),
                ),
                None => (Kind::PodRoute, format!("the node has no route to its pod {destination}")),
            }
        }
    };
    let (kind, sentence) = found;
    Ok(vec![Step::broken(kind, sentence, remedy)])
}
