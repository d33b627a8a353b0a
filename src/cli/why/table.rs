//! Ferrule's own table: the pod's addresses in it, masquerade, hostPorts.

use std::net::IpAddr;

use crate::cli::why::ends::Ends;
use crate::cli::why::look::Look;
use crate::cni::error::CniError;
use crate::connectivity::half::{Kind, Step};
use crate::desired::nftables::element::{Element, HostPort, read_host_port};
use crate::desired::nftables::table::{chain, set, table};
use crate::linux::listeners::listeners;
use crate::linux::nft::element::Bytes;
use crate::store::Record;

const SYNC: &str = "ferrulectl sync, or the agent, restores the table; find out what removed it (nft flush ruleset, a \
                    firewall's reload)";

/// Whether the table takes the source for the pod's own.
///
/// # Errors
/// What the kernel refused.
pub async fn examine_source(
    look: &Look<'_>,
    record: &Record,
    address: IpAddr,
) -> Result<Option<Step>, CniError> {
    let Some(rules) = record.rules() else { return Ok(None) };
    let link = Bytes::default().link_name(&rules.host_link);
    let sources = if address.is_ipv4() { set::SOURCES4 } else { set::SOURCES6 };
    let (is_pod, is_own) =
        (has(look, set::PODS, link.clone()).await?, has(look, sources, link.address(address)).await?);
    Ok(Some(if is_pod && !is_own {
        let sentence =
            format!("table {} does not know {address} for the pod's own ({sources}), and drops it", table());
        Step::broken(Kind::Antispoof, sentence, SYNC)
    } else if is_own {
        Step::ok(Kind::Antispoof, format!("table {} knows {address} for the pod's own", table()))
    } else {
        Step::ok(Kind::Antispoof, format!("table {} does not know the pod, and lets it pass", table()))
    }))
}

/// Whether what leaves the cluster gets the node's address, and what stays `inside` of it does not.
///
/// # Errors
/// What the kernel refused.
pub async fn examine_masquerade(
    look: &Look<'_>,
    record: &Record,
    destination: IpAddr,
    inside: bool,
) -> Result<Option<Step>, CniError> {
    let Some(rules) = record.rules() else { return Ok(None) };
    if !record.masquerade {
        if inside {
            return Ok(None);
        }
        let sentence =
            "packets keep the pod's address (ipMasq is off): whoever gets them must know the way back";
        return Ok(Some(Step::ok(Kind::Masquerade, sentence)));
    }
    let [masquerade, exempt] = match destination {
        IpAddr::V4(_) => [set::MASQUERADE4, set::NO_MASQUERADE4],
        IpAddr::V6(_) => [set::MASQUERADE6, set::NO_MASQUERADE6],
    };
    let pod = record.addresses.iter().copied().find(|it| it.is_ipv4() == destination.is_ipv4());
    let Some(pod) = pod else { return Ok(None) };
    let key = Bytes::default().link_name(&rules.host_link).address(pod);
    let rules = look.nft.chain_rules(&table(), chain::POSTROUTING).await?;
    let is_masqueraded = !rules.is_empty() && has(look, masquerade, key).await?;
    if inside {
        let exempt = look.nft.elements(&table(), exempt).await?;
        let is_wrong = is_masqueraded && !exempt.iter().any(|it| covers(it, destination));
        return Ok(is_wrong.then(|| {
            let sentence = format!(
                "table {} gives packets to {destination} the node's address, though that is of the cluster: whether the \
                 other node lets in what comes from there (ferruled, or ferrulectl sync, sets the exemptions)",
                table()
            );
            Step::unknown(Kind::Masquerade, sentence)
        }));
    }
    if !is_masqueraded {
        let sentence = format!(
            "table {} does not give the pod's packets the node's address, and the way back to {pod} is known inside of the \
             cluster only",
            table()
        );
        return Ok(Some(Step::broken(Kind::Masquerade, sentence, SYNC)));
    }
    let is_exempt = look.nft.elements(&table(), exempt).await?.iter().any(|it| covers(it, destination));
    Ok(Some(if is_exempt {
        let sentence = format!(
            "packets to {destination} keep the pod's address (nonMasqueradeCIDRs, or a node): whoever gets them must know \
             the way back"
        );
        Step::ok(Kind::Masquerade, sentence)
    } else {
        Step::ok(Kind::Masquerade, "packets leave with the node's address")
    }))
}

/// Whether an element of `no_masquerade`, link group and range of addresses, has the address; of whatever network.
fn covers(element: &Element, address: IpAddr) -> bool {
    let wanted = Bytes::default().address(address).0;
    let of = |key: &Bytes| key.0.get(4..).map(<[u8]>::to_vec).unwrap_or_default();
    let (first, last) = (of(&element.key), of(element.key_end.as_ref().unwrap_or(&element.key)));
    first.len() == wanted.len() && first <= wanted && wanted <= last
}

async fn has(look: &Look<'_>, set: &str, key: Bytes) -> Result<bool, CniError> {
    let wanted = Element::new(set, key);
    Ok(look.nft.find_elements(&table(), &[wanted]).await?.into_iter().flatten().next().is_some())
}

/// A port of the node that leads to a pod.
pub struct FoundHostPort {
    /// What is said of it.
    pub step: Step,
    /// The pod.
    pub pod: IpAddr,
    /// The pod's port.
    pub port: u16,
}

/// Whether a port of the node leads to a pod, and to which.
///
/// # Errors
/// What the kernel refused.
pub async fn examine_host_port(look: &Look<'_>, ends: &Ends<'_>) -> Result<Option<FoundHostPort>, CniError> {
    let flow = &ends.flow;
    let sets = match flow.destination {
        IpAddr::V4(_) => [set::HOSTPORTS4, set::ANY_HOSTPORTS4],
        IpAddr::V6(_) => [set::HOSTPORTS6, set::ANY_HOSTPORTS6],
    };
    let is_meant = |port: &HostPort| {
        let is_address = port.host_ip.is_none_or(|it| it.is_unspecified() || it == flow.destination);
        is_address && (port.protocol.number(), port.host_port) == (flow.protocol, flow.port)
    };
    let mut found = None;
    for name in sets {
        let elements = look.nft.elements(&table(), name).await?;
        let mut meant = elements.iter().filter_map(|it| Some((it, read_host_port(it)?)));
        found = found.or(meant.find(|(_, (port, _))| is_meant(port)).map(|(it, to)| (it.clone(), to)));
    }
    let Some((element, (port, pod))) = found else { return Ok(None) };
    let owner = element.comment.as_deref().and_then(|it| it.split_once(' ')).map(|(_, pod)| pod.to_owned());
    let owner = owner.unwrap_or_else(|| pod.to_string());
    let leads =
        format!("port {} of the node leads to {owner} ({pod}, port {})", flow.port, port.container_port);
    let on_node = listeners(flow.protocol, flow.port).ok().flatten().unwrap_or_default();
    let is_there = on_node.iter().any(|it| *it == flow.destination || it.is_unspecified());
    let step = if is_there {
        let sentence =
            format!("{leads}, by its hostPort; a program of the node that listens there is not reached");
        let remedy = format!("take the hostPort from {owner}, or let one of the two use another port");
        Step::broken(Kind::HostPort, sentence, remedy)
    } else {
        Step::ok(Kind::HostPort, leads)
    };
    let port = port.container_port;
    let step = step.fact("pod", &owner).fact("address", pod).fact("port", port);
    Ok(Some(FoundHostPort { step, pod, port }))
}
