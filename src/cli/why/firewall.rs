//! Firewalls of others: what their chains do with the connection's first packet.

use std::net::IpAddr;

use crate::cli::policy::protocol_word;
use crate::cli::why::ends::Ends;
use crate::cli::why::look::Look;
use crate::cli::why::pod;
use crate::connectivity::half::{Kind, State, Step};
use crate::datapath::policy::Packet;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::foreign_firewall::own_subnets;
use crate::foreign_firewall::ruling::{Ruling, rulings};
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::table::Hook;
use crate::store::Record;

/// UDP, which VXLAN is carried by.
const UDP: u8 = 17;

/// What leaves the node by a link: from a pod's link, or made by the node.
pub async fn examine_leaving(
    look: &Look<'_>,
    ends: &Ends<'_>,
    input: Option<&str>,
    output: u32,
) -> Vec<Step> {
    let output = look.link_name(output);
    let hooks = match input {
        Some(_) => vec![Hook::Prerouting, Hook::Forward, Hook::Postrouting],
        None => vec![Hook::Output, Hook::Postrouting],
    };
    let mut steps = judge(look, &hooks, &packet(ends, input, Some(&output))).await;
    if input.is_some() {
        steps.extend(legacy(look, ends));
    }
    steps
}

/// What goes to a pod of the node.
pub async fn examine_to_pod(look: &Look<'_>, ends: &Ends<'_>, input: Option<u32>, link: u32) -> Vec<Step> {
    let (input, output) = (input.map(|it| look.link_name(it)), look.link_name(link));
    let hooks = match input {
        Some(_) => vec![Hook::Prerouting, Hook::Forward, Hook::Postrouting],
        None => vec![Hook::Output, Hook::Postrouting],
    };
    let mut steps = judge(look, &hooks, &packet(ends, input.as_deref(), Some(&output))).await;
    if input.is_some() {
        steps.extend(legacy(look, ends));
    }
    steps
}

/// What goes to the node itself.
pub async fn examine_to_node(look: &Look<'_>, ends: &Ends<'_>, input: Option<u32>) -> Vec<Step> {
    let name = input.map_or_else(|| "lo".to_owned(), |it| look.link_name(it));
    judge(look, &[Hook::Prerouting, Hook::Input], &packet(ends, Some(&name), None)).await
}

/// The answers, from the destination to the source: by which link they come, or made by this node, and by which they leave,
/// or for this node. Only what drops them.
pub async fn examine_answers(
    look: &Look<'_>,
    ends: &Ends<'_>,
    input: Option<u32>,
    output: Option<u32>,
) -> Vec<Step> {
    let (input, output) = (input.map(|it| look.link_name(it)), output.map(|it| look.link_name(it)));
    let hooks: &[Hook] = match (&input, &output) {
        (Some(_), Some(_)) => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
        (Some(_), None) => &[Hook::Prerouting, Hook::Input],
        (None, Some(_)) => &[Hook::Output, Hook::Postrouting],
        (None, None) => return Vec::new(),
    };
    let there = packet(ends, input.as_deref(), output.as_deref());
    let (source, destination) = (there.destination, there.source);
    let steps = judge(look, hooks, &Packet { source, destination, answers: true, ..there }).await;
    let of_answers = |step: Step| Step { sentence: format!("answers: {}", step.sentence), ..step.back() };
    steps.into_iter().filter(|step| step.state != State::Ok).map(of_answers).collect()
}

/// Rules in the pod itself, of its own programs: of what it sends, or of what it gets, and of the answers. Only what drops
/// them.
pub async fn examine_in_pod(look: &Look<'_>, record: &Record, ends: &Ends<'_>, sends: bool) -> Vec<Step> {
    if !look.can_enter || ends.source.address == ends.destination.address {
        return Vec::new();
    }
    let nft = match pod::namespace(record)
        .and_then(|netns| Nfnetlink::open_in(&netns).map_err(|error| error.to_string()))
    {
        Ok(nft) => nft,
        // That the pod cannot be entered has been said.
        Err(_) => return Vec::new(),
    };
    let name = record.ifname.to_string();
    let forth = match sends {
        true => packet(ends, None, Some(&name)),
        false => packet(ends, Some(&name), None),
    };
    let back = match sends {
        true => packet(ends, Some(&name), None),
        false => packet(ends, None, Some(&name)),
    };
    let (source, destination) = (back.destination, back.source);
    let back = Packet { source, destination, answers: true, ..back };
    let mut steps = Vec::new();
    for packet in [forth, back] {
        let hooks =
            if packet.to_node { [Hook::Prerouting, Hook::Input] } else { [Hook::Output, Hook::Postrouting] };
        let packets = hooks.map(|hook| (hook, packet.clone()));
        let rulings = match rulings(&nft, &packets).await {
            Ok(rulings) => rulings,
            Err(error) => {
                return vec![Step::unknown(Kind::Firewall, format!("the pod's own rules: {error}"))];
            }
        };
        let which = if packet.answers { "answers: " } else { "" };
        let tell = |it: &Ruling| match &it.unless {
            Some(unless) => Step::unknown(
                Kind::Firewall,
                format!(
                    "{which}in the pod, {it} drops it, unless what is not understood accepts it: {unless}"
                ),
            ),
            None => Step::broken(
                Kind::Firewall,
                format!("{which}in the pod, {it} drops it"),
                "a program of the pod, or one of its init containers, has made the rule: see nft list ruleset in its \
                 namespace",
            ),
        };
        let of_direction = |step: Step| if packet.answers { step.back() } else { step };
        steps.extend(rulings.iter().map(tell).map(of_direction));
    }
    steps
}

/// What carries the packets of a tunnel: from another node to this one, or the other way.
pub async fn examine_carrier(
    look: &Look<'_>,
    (source, destination): (IpAddr, IpAddr),
    port: u16,
    link: &str,
    arrives: bool,
) -> Vec<Step> {
    let hooks = if arrives { [Hook::Prerouting, Hook::Input] } else { [Hook::Output, Hook::Postrouting] };
    let packet = Packet {
        input: arrives.then(|| link.to_owned()),
        output: (!arrives).then(|| link.to_owned()),
        to_node: arrives,
        source,
        destination,
        protocol: UDP,
        port,
        answers: false,
    };
    let steps = judge(look, &hooks, &packet).await;
    let of_tunnel = |step: Step| Step { sentence: format!("VXLAN (UDP {port}): {}", step.sentence), ..step };
    steps.into_iter().filter(|step| step.state != State::Ok).map(of_tunnel).collect()
}

fn packet(ends: &Ends<'_>, input: Option<&str>, output: Option<&str>) -> Packet {
    let flow = &ends.flow;
    Packet {
        input: input.map(str::to_owned),
        output: output.map(str::to_owned),
        to_node: output.is_none(),
        source: flow.source,
        destination: flow.destination,
        protocol: flow.protocol,
        port: flow.port,
        answers: false,
    }
}

async fn judge(look: &Look<'_>, hooks: &[Hook], packet: &Packet) -> Vec<Step> {
    let packets: Vec<(Hook, Packet)> = hooks.iter().map(|hook| (*hook, packet.clone())).collect();
    let rulings = match rulings(&look.nft, &packets).await {
        Ok(rulings) => rulings,
        Err(error) => return vec![Step::unknown(Kind::Firewall, format!("the node's firewall: {error}"))],
    };
    if rulings.is_empty() {
        return vec![Step::ok(Kind::Firewall, "no chain of others in nf_tables drops it")];
    }
    let tell = |it: &Ruling| match &it.unless {
        Some(unless) => Step::unknown(
            Kind::Firewall,
            format!("{it} drops it, unless what is not understood accepts it: {unless}"),
        ),
        None => Step::broken(Kind::Firewall, format!("{it} drops it"), remedy(look, it, packet)),
    };
    rulings.iter().map(tell).collect()
}

fn remedy(look: &Look<'_>, ruling: &Ruling, packet: &Packet) -> String {
    let subnets: Vec<_> = look.mains().flat_map(|network| own_subnets(&look.state_of(network))).collect();
    if packet.to_node || packet.protocol == UDP && subnets.iter().all(|it| !it.contains(packet.source)) {
        return format!(
            "let the program that owns table {} accept {} to port {}",
            ruling.table,
            protocol_word(packet.protocol),
            packet.port
        );
    }
    ruling.remedy(&subnets)
}

/// iptables-legacy, whose rules are not evaluated.
fn legacy(look: &Look<'_>, ends: &Ends<'_>) -> Vec<Step> {
    let ipv4 = ends.flow.source.is_ipv4();
    let mut steps = Vec::new();
    for table in LegacyTable::find() {
        let table = match table {
            Ok(table) => table,
            Err(error) => {
                steps.push(Step::unknown(Kind::Firewall, format!("the node's firewall: {error}")));
                continue;
            }
        };
        for network in look.mains() {
            let subnets = own_subnets(&look.state_of(network));
            let chain = table.unaccepted(&network.name, &subnets).filter(|chain| chain.sees(ipv4));
            steps.extend(chain.map(|chain| {
                Step::unknown(Kind::Firewall, format!("{chain} drops it, unless one of its rules accepts it"))
            }));
        }
    }
    steps
}
