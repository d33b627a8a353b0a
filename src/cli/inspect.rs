//! `ferrulectl inspect`: the networks of this node, their attachments, ranges and routes to peers. Changes nothing.

use std::fmt::Write;

use serde::Serialize;

use crate::attachments::judged::judge_network;
use crate::attachments::networks::{ConfProblem, KnownNetwork};
use crate::attachments::node_view::NodeView;
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cli::attachment_report::AttachmentReport;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::Role;
use crate::datapath::peers::{self, Standing};
use crate::desired::node::NodeState;
use crate::text_table::{Cell, Table, Tone, escape, show_age, show_count};

/// What was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    version: u32,
    networks: Vec<NetworkReport>,
    problems: Vec<String>,
    #[serde(skip)]
    conf_dir: String,
}

/// One network.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkReport {
    name: String,
    /// The file that it was found in; null where only its store is left.
    conf: Option<String>,
    /// `main` or `ipam`; null where no conf tells.
    role: Option<&'static str>,
    /// The other plugin that gives the addresses.
    delegate: Option<String>,
    store: String,
    attachments: Vec<AttachmentReport>,
    ranges: Vec<RangeUse>,
    peers: Vec<PeerState>,
}

/// How much of a range set is in use.
#[derive(Serialize)]
struct RangeUse {
    ranges: Vec<String>,
    used: u128,
    free: u128,
}

/// The route to some of a peer's pods.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerState {
    node: String,
    pod_cidr: String,
    next_hop: Option<String>,
    /// `present`, `missing` or `different`.
    state: &'static str,
    /// The route that is there instead.
    found: Option<String>,
}

/// Lists the networks.
///
/// # Errors
/// Where conf directory, store or kernel cannot be read.
pub async fn inspect(common: &Common, only: Option<&NetworkName>) -> Result<InspectReport, CniError> {
    let networks = common.find_networks(only)?;
    let node = NodeView::read().await?;
    let mut inspected = Vec::new();
    for network in &networks.known {
        inspected.push(inspect_network(network, &node).await?);
    }
    let problem = |it: &ConfProblem| format!("{}: {}", it.path.display(), it.text);
    Ok(InspectReport {
        version: 1,
        networks: inspected,
        problems: networks.problems.iter().map(problem).collect(),
        conf_dir: common.conf_dir.display().to_string(),
    })
}

async fn inspect_network(network: &KnownNetwork, node: &NodeView) -> Result<NetworkReport, CniError> {
    let (store, judged) = judge_network(network, node).await?;
    let mut inspected = NetworkReport {
        name: network.name.to_string(),
        conf: network.conf.as_ref().map(|conf| conf.display().to_string()),
        role: network.role.map(|role| if role == Role::Main { "main" } else { "ipam" }),
        delegate: network.delegate.clone(),
        store: network.data_dir.join(network.name.as_str()).display().to_string(),
        attachments: judged.iter().map(AttachmentReport::from).collect(),
        ranges: Vec::new(),
        peers: Vec::new(),
    };
    let Some(meaning) = &network.meaning else { return Ok(inspected) };
    let sets = meaning.range_sets();
    let usage = match &store {
        Some(store) => store.usage(&node.boot, sets)?.iter().map(|usage| usage.held).collect(),
        None => vec![0; sets.len()],
    };
    inspected.ranges = sets
        .iter()
        .zip(usage)
        .map(|(set, used)| RangeUse {
            ranges: set.ranges().iter().map(ToString::to_string).collect(),
            used,
            free: set.capacity().saturating_sub(used),
        })
        .collect();
    if meaning.role == Role::Main {
        let standings = peers::standings(&node.netlink, &NodeState::of(meaning, node.facts.has_ipv6)).await?;
        inspected.peers = standings
            .into_iter()
            .map(|(wanted, standing)| PeerState {
                node: wanted.peer,
                pod_cidr: wanted.route.destination.to_string(),
                next_hop: wanted.route.gateway.map(|next_hop| next_hop.to_string()),
                state: match &standing {
                    Standing::Stands => "present",
                    Standing::Missing => "missing",
                    Standing::Other(_) => "different",
                },
                found: match standing {
                    Standing::Other(found) => Some(node.show_route(&found)),
                    _ => None,
                },
            })
            .collect();
    }
    Ok(inspected)
}

impl Report for InspectReport {
    fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        for (at, network) in self.networks.iter().enumerate() {
            text.push_str(if at > 0 { "\n\n" } else { "" });
            network.write_text(&mut text, colour);
        }
        if self.networks.is_empty() {
            let directory = &self.conf_dir;
            let _ = writeln!(
                text,
                "no ferrule network: no conf in {directory} names ferrule, and there is no store"
            );
        }
        for problem in &self.problems {
            let _ = writeln!(text, "\n{}", escape(problem));
        }
        text
    }
}

impl NetworkReport {
    fn write_text(&self, text: &mut String, colour: bool) {
        let conf = self.conf.as_deref().unwrap_or("no conf");
        let role = match (self.role, &self.delegate) {
            (Some("ipam"), _) => ", IPAM plugin only".to_owned(),
            (_, Some(delegate)) => format!(", addresses from {delegate}"),
            _ => String::new(),
        };
        let _ = writeln!(text, "network {}  ({}{})", self.name, escape(conf), escape(&role));

        let mut table = Table::new(["POD", "CONTAINER", "ADDRESSES", "HOST LINK", "AGE", "STATE"]);
        for it in &self.attachments {
            let tone = match it.state {
                "alive" if it.is_well() => Tone::Plain,
                "alive" => Tone::Odd,
                _ => Tone::Bad,
            };
            let mut state = it.state.to_owned();
            if it.imported_from.is_some() {
                state.push_str(", imported");
            }
            if !it.is_well() {
                state.push_str(": ");
                state.push_str(&it.reason);
            }
            table.push([
                it.pod.as_deref().unwrap_or("-").into(),
                it.short_container().into(),
                it.addresses().into(),
                it.host_link.as_deref().unwrap_or("-").into(),
                it.age_seconds.map(show_age).unwrap_or_default().into(),
                Cell::toned(state, tone),
            ]);
        }
        push_section(text, &table.render(colour), "no attachments");

        let mut table = Table::new(["RANGE", "USED", "FREE"]);
        for it in &self.ranges {
            let tone = if it.free == 0 { Tone::Bad } else { Tone::Plain };
            let free = Cell::toned(show_count(it.free), tone);
            table.push([it.ranges.join(", ").into(), show_count(it.used).into(), free]);
        }
        push_section(text, &table.render(colour), "");

        let mut table = Table::new(["PEER", "POD CIDR", "NEXT HOP", "ROUTE"]);
        for it in &self.peers {
            let state = match &it.found {
                Some(found) => Cell::toned(format!("{}: {found}", it.state), Tone::Bad),
                None if it.state == "missing" => Cell::toned(it.state, Tone::Bad),
                None => it.state.into(),
            };
            table.push([
                it.node.as_str().into(),
                it.pod_cidr.as_str().into(),
                it.next_hop.as_deref().unwrap_or("-").into(),
                state,
            ]);
        }
        push_section(text, &table.render(colour), "");
    }
}

/// Adds a table below an empty line, or what to say instead.
fn push_section(text: &mut String, table: &str, instead: &str) {
    if !table.is_empty() {
        let _ = write!(text, "\n{table}");
    } else if !instead.is_empty() {
        let _ = writeln!(text, "\n{instead}");
    }
}
