//! `kubectl ferrule why`: why a connection works, or does not. Asks the API server who the two ends are, then the nodes of
//! both what is on the way, and joins what they say.

mod resolve;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use serde::{Deserialize, Serialize};

use crate::connectivity::answer::{Answer, Verdict};
use crate::connectivity::half::Half;
use crate::connectivity::join::join;
use crate::connectivity::question::{EndKind, Question};
use crate::connectivity::text::answer_text;
use crate::kubectl::agents::Agent;
use crate::kubectl::arguments::Common;
use crate::kubectl::cluster::Cluster;
use crate::kubectl::target::{self, Who};
use crate::kubectl::{Report, STATUS_BLIND};
use crate::text_table::escape;
use resolve::Facts;

/// The answer of both nodes.
#[derive(Debug, Serialize)]
pub(super) struct WhyReport {
    version: u32,
    question: Question,
    halves: Vec<Half>,
    answer: Answer,
    nodes: Vec<NodeSummary>,
}

/// A node that was to be asked.
#[derive(Debug, Serialize)]
struct NodeSummary {
    node: String,
    agent: Option<Agent>,
    /// Why it could not be.
    problem: Option<String>,
}

/// The document of `ferrulectl why`, as much of it as is used.
#[derive(Debug, Clone, Deserialize)]
struct NodeReport {
    halves: Vec<Half>,
}

/// Asks.
///
/// # Errors
/// If an end is not known, or nobody can be asked about it.
pub(super) async fn why(
    cluster: &Arc<Cluster>,
    common: &Common,
    from: &target::End,
    to: &target::End,
) -> Result<WhyReport, String> {
    let (from, to) =
        (from.in_namespace(&cluster.default_namespace), to.in_namespace(&cluster.default_namespace));
    let facts = facts(cluster, [&from, &to]).await?;
    let question = resolve::question(&facts, &from, &to)?;
    let nodes = nodes_of(&question);
    if nodes.is_empty() && !question.flows().is_empty() {
        return Err(format!(
            "neither {from} nor {to} is in this cluster, so no node knows of the connection"
        ));
    }
    let mut answers = Vec::new();
    if !nodes.is_empty() {
        let asked = cluster.agents(&Common { nodes, ..common.clone() }).await?;
        let text = serde_json::to_string(&question).map_err(|error| error.to_string())?;
        let words = ["why".to_owned(), "--question".to_owned(), text];
        answers = cluster.ask_all::<NodeReport>(&asked, "why", &words, common.deadline).await;
    }
    let halves: Vec<Half> =
        answers.iter().filter_map(|it| it.report.as_ref()).flat_map(|it| it.halves.clone()).collect();
    let answer = join(&question, &halves);
    let summary =
        answers.into_iter().map(|it| NodeSummary { node: it.node, agent: it.agent, problem: it.problem });
    let nodes = summary.collect();
    Ok(WhyReport { version: 1, question, halves, answer, nodes })
}

/// What the API server knows of the two ends.
async fn facts(cluster: &Cluster, ends: [&target::End; 2]) -> Result<Facts, String> {
    let client = &cluster.client;
    let mut facts = Facts {
        nodes: cluster.list(&Api::<Node>::all(client.clone()), ListParams::default(), "nodes").await?,
        ..Facts::default()
    };
    let services = Api::<Service>::all(client.clone());
    for end in ends {
        facts.pods.extend(cluster.find_pod(end).await?);
        if matches!(end.who, Who::Service { .. } | Who::Address(_)) && facts.services.is_empty() {
            facts.services = cluster.list(&services, ListParams::default(), "services").await?;
        }
    }
    for (namespace, name) in resolve::services_of(&facts, ends) {
        let api = Api::<EndpointSlice>::namespaced(client.clone(), &namespace);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
        facts.slices.extend(cluster.list(&api, of_service, "endpointslices").await?);
    }
    Ok(facts)
}

/// The nodes that have an end, each once.
fn nodes_of(question: &Question) -> Vec<String> {
    let of_flows = question.flows().into_iter().map(|flow| question.destination_of(&flow));
    let ends = of_flows.chain([question.source.clone()]);
    let nodes: BTreeSet<String> =
        ends.filter(|end| end.kind != EndKind::Address).filter_map(|end| Some(end.node?.name)).collect();
    nodes.into_iter().collect()
}

impl Report for WhyReport {
    /// As of `ferrulectl why`.
    fn status(&self) -> u8 {
        match self.answer.verdict {
            Verdict::Works => 0,
            Verdict::Broken => 1,
            Verdict::Unknown => STATUS_BLIND,
        }
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = answer_text(&self.question, &self.answer, colour);
        for it in &self.nodes {
            if let Some(problem) = &it.problem {
                let _ = writeln!(text, "\nnode {} was not asked: {}", escape(&it.node), escape(problem));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::half::{Kind, Role, Step};
    use crate::connectivity::question::{End, NodeRef, Protocol};

    fn end(name: &str, address: &str, node: &str) -> End {
        let node = Some(NodeRef { name: node.to_owned(), addresses: Vec::new() });
        End { name: name.to_owned(), kind: EndKind::Pod, addresses: vec![address.parse().unwrap()], node }
    }

    #[test]
    fn what_both_nodes_say_is_one_answer_and_who_is_silent_is_named() {
        let question = Question {
            source: end("shop/client", "10.244.1.2", "node-1"),
            destination: end("shop/web", "10.244.2.7", "node-2"),
            protocol: Protocol::Tcp,
            port: 80,
            endpoints: Vec::new(),
        };
        assert_eq!(nodes_of(&question), ["node-1", "node-2"]);
        let flow = question.flows()[0];
        let half = |role, steps| Half {
            node: "node-2".to_owned(),
            role,
            flow,
            steps,
            link_mtu: None,
            pod_mtu: None,
            other: None,
        };
        let broken = Step::broken(Kind::Firewall, "table inet firewalld drops it", "let it pass");
        let halves = vec![half(Role::Destination, vec![broken])];
        let nodes = vec![NodeSummary {
            node: "node-1".to_owned(),
            agent: None,
            problem: Some("no agent's pod is on it".to_owned()),
        }];
        let answer = join(&question, &halves);
        let report = WhyReport { version: 1, question, halves, answer, nodes };
        assert_eq!(report.status(), 1);
        let text = report.to_text(false);
        assert!(
            text.starts_with("shop/client does not reach shop/web (10.244.2.7:80): node-2: table"),
            "{text}"
        );
        assert!(text.contains("\nremedy  let it pass\n") && text.contains("node-2  firewall"), "{text}");
        assert!(text.ends_with("node node-1 was not asked: no agent's pod is on it\n"), "{text}");
    }
}
