//! `kubectl ferrule inspect`: attachments, ranges and routes to peers of all nodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kubectl::arguments::Common;
use crate::kubectl::ask::Answer;
use crate::kubectl::cluster::Cluster;
use crate::kubectl::{Report, STATUS_BLIND};
use crate::text_table::{Cell, Table, Tone, show_age, show_count};

/// What all nodes answered. The reports are handed on as they came.
#[derive(Debug, Serialize)]
pub(super) struct InspectReport {
    version: u32,
    nodes: Vec<Answer<Value>>,
}

/// The document of `ferrulectl inspect`, as much of it as is shown.
#[derive(Debug, Deserialize)]
struct NodeReport {
    #[serde(default)]
    networks: Vec<Network>,
    #[serde(default)]
    problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Network {
    name: String,
    #[serde(default)]
    attachments: Vec<Attachment>,
    #[serde(default)]
    ranges: Vec<RangeUse>,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    pod: Option<String>,
    container: String,
    #[serde(default)]
    addresses: Vec<String>,
    host_link: Option<String>,
    age_seconds: Option<u64>,
    state: String,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
struct RangeUse {
    ranges: Vec<String>,
    used: u128,
    free: u128,
}

#[derive(Debug, Deserialize)]
struct Peer {
    state: String,
}

/// Asks.
///
/// # Errors
/// Where nobody can be asked.
pub(super) async fn inspect(
    cluster: &Arc<Cluster>,
    common: &Common,
    network: Option<&str>,
) -> Result<InspectReport, String> {
    let asked = cluster.agents(common).await?;
    let words: Vec<String> = ["inspect"].into_iter().chain(network).map(str::to_owned).collect();
    let nodes = cluster.ask_all(&asked, "inspect", &words, common.deadline).await;
    Ok(InspectReport { version: 1, nodes })
}

impl Report for InspectReport {
    /// 3 if a node could not be asked.
    fn status(&self) -> u8 {
        if self.nodes.iter().any(|it| it.problem.is_some()) { STATUS_BLIND } else { 0 }
    }

    fn to_text(&self, colour: bool) -> String {
        let mut ranges = Table::new(["NODE", "NETWORK", "RANGE", "USED", "FREE", "PODS", "ROUTES TO PEERS"]);
        let mut pods = Table::new(["NODE", "POD", "CONTAINER", "ADDRESSES", "HOST LINK", "AGE", "STATE"]);
        let mut unclear = Table::new(["NODE", "PROBLEM"]);
        for answer in &self.nodes {
            let node = answer.node.as_str();
            let mut trouble = |what: &str| unclear.push([node.into(), Cell::toned(what, Tone::Bad)]);
            if let Some(problem) = &answer.problem {
                trouble(&format!("not asked: {problem}"));
            }
            let report = answer.report.as_ref().map(NodeReport::deserialize);
            let report = match report {
                Some(Ok(report)) => report,
                Some(Err(error)) => {
                    trouble(&format!("what its agent's ferrulectl printed is not understood: {error}"));
                    continue;
                }
                None => continue,
            };
            report.problems.iter().for_each(|it| trouble(it));
            for network in &report.networks {
                network.push_ranges(node, &mut ranges);
                network.attachments.iter().for_each(|it| pods.push(it.row(node)));
            }
        }
        let tables = [ranges.render(colour), pods.render(colour), unclear.render(colour)];
        let shown: Vec<&str> = tables.iter().map(String::as_str).filter(|table| !table.is_empty()).collect();
        if shown.is_empty() {
            return "no node has a network of ferrule's\n".to_owned();
        }
        shown.join("\n")
    }
}

impl Network {
    fn push_ranges(&self, node: &str, table: &mut Table<7>) {
        let alive = self.attachments.iter().filter(|it| it.state == "alive").count();
        let present = self.peers.iter().filter(|it| it.state == "present").count();
        let tone = if present < self.peers.len() { Tone::Bad } else { Tone::Plain };
        let peers = match self.peers.len() {
            0 => String::new(),
            all => format!("{present} of {all}"),
        };
        // Pods and peers are those of all ranges; they stand in the first line.
        let mut of_network = [alive.to_string().into(), Cell::toned(peers, tone)];
        for range in &self.ranges {
            let tone = if range.free == 0 { Tone::Bad } else { Tone::Plain };
            let [pods, peers] = std::mem::replace(&mut of_network, ["".into(), "".into()]);
            table.push([
                node.into(),
                self.name.as_str().into(),
                range.ranges.join(", ").into(),
                show_count(range.used).into(),
                Cell::toned(show_count(range.free), tone),
                pods,
                peers,
            ]);
        }
        if self.ranges.is_empty() {
            let [pods, peers] = of_network;
            table.push([
                node.into(),
                self.name.as_str().into(),
                "-".into(),
                "".into(),
                "".into(),
                pods,
                peers,
            ]);
        }
    }
}

impl Attachment {
    fn row(&self, node: &str) -> [Cell; 7] {
        let is_alive = self.state == "alive";
        let state = match is_alive || self.reason.is_empty() {
            true => self.state.clone(),
            false => format!("{}: {}", self.state, self.reason),
        };
        [
            node.into(),
            self.pod.as_deref().unwrap_or("-").into(),
            self.container.chars().take(13).collect::<String>().into(),
            self.addresses.join(" ").into(),
            self.host_link.as_deref().unwrap_or("-").into(),
            self.age_seconds.map(show_age).unwrap_or_default().into(),
            Cell::toned(state, if is_alive { Tone::Plain } else { Tone::Bad }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_stand_below_each_other_and_none_is_left_out() {
        let attachment = |pod: &str, state: &str, reason: &str| {
            json!({ "pod": pod, "container": "4f0c6d1f2ab93e6", "ifname": "eth0", "addresses": ["10.244.1.2"],
                    "hostLink": "veth1", "ageSeconds": 60, "state": state, "reason": reason })
        };
        let network = |attachments: Value| {
            json!({ "version": 1, "problems": [], "networks": [{
                "name": "podnet", "attachments": attachments,
                "ranges": [{ "ranges": ["10.244.1.0/24"], "used": 2, "free": 251 },
                           { "ranges": ["fd00::/64"], "used": 2, "free": 18_446_744_073_709_551_613_u64 }],
                "peers": [{ "state": "present" }, { "state": "missing" }],
            }] })
        };
        let asked = |node: &str, report: Option<Value>, problem: Option<&str>| Answer {
            node: node.to_owned(),
            agent: None,
            report,
            status: None,
            problem: problem.map(str::to_owned),
        };
        let pods = json!([
            attachment("a/web", "alive", "its namespace stands"),
            attachment("a/job", "dead", "its namespace is gone")
        ]);
        let mut report = InspectReport {
            version: 1,
            nodes: vec![
                asked("node-1", Some(network(pods)), None),
                asked("node-2", None, Some("no agent's pod is on it")),
            ],
        };
        assert_eq!(
            report.to_text(false),
            "\
NODE    NETWORK  RANGE          USED  FREE   PODS  ROUTES TO PEERS
node-1  podnet   10.244.1.0/24  2     251    1     1 of 2
node-1  podnet   fd00::/64      2     ~2^64

NODE    POD    CONTAINER      ADDRESSES   HOST LINK  AGE  STATE
node-1  a/web  4f0c6d1f2ab93  10.244.1.2  veth1      1m   alive
node-1  a/job  4f0c6d1f2ab93  10.244.1.2  veth1      1m   dead: its namespace is gone

NODE    PROBLEM
node-2  not asked: no agent's pod is on it
"
        );
        assert_eq!(report.status(), 3);
        report.nodes.pop();
        assert_eq!(report.status(), 0);
    }
}
