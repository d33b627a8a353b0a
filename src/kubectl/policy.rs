//! `kubectl ferrule policy`: asks the nodes of the pods.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::kubectl::agents::Asked;
use crate::kubectl::arguments::Common;
use crate::kubectl::cluster::{Cluster, full_name, is_on_hosts_network, node_of};
use crate::kubectl::target::{End, Who};
use crate::kubectl::{Report, STATUS_BLIND};

/// What the nodes said, each in its own words.
#[derive(Debug, Serialize)]
pub(super) struct PolicyReport {
    version: u32,
    nodes: Vec<Said>,
}

/// What one node said.
#[derive(Debug, Serialize)]
struct Said {
    node: String,
    /// The document of `ferrulectl policy`; null where there is none.
    report: Option<Value>,
    /// The same for people.
    #[serde(skip)]
    text: String,
    status: Option<i32>,
    problem: Option<String>,
}

/// Asks about a connection.
///
/// # Errors
/// If an end is not known, or nobody can be asked.
pub(super) async fn why(
    cluster: &Arc<Cluster>,
    common: &Common,
    from: &End,
    to: &End,
) -> Result<PolicyReport, String> {
    let (from, to) =
        (from.in_namespace(&cluster.default_namespace), to.in_namespace(&cluster.default_namespace));
    let mut nodes = Vec::new();
    for end in [&from, &to] {
        let node = node_of_end(cluster, end).await?;
        nodes.extend(node.filter(|node| !nodes.contains(node)));
    }
    if nodes.is_empty() {
        return Err(format!("neither {from} nor {to} is a pod of this cluster: policies are about pods"));
    }
    let words = ["policy".to_owned(), "why".to_owned(), from.to_string(), to.to_string()];
    ask(cluster, common, &nodes, "policy why", &words).await
}

/// Asks about a pod.
///
/// # Errors
/// If it is not known, or its node cannot be asked.
pub(super) async fn show(cluster: &Arc<Cluster>, common: &Common, pod: &End) -> Result<PolicyReport, String> {
    let pod = pod.in_namespace(&cluster.default_namespace);
    let node = node_of_end(cluster, &pod).await?.ok_or_else(|| format!("{pod} is on no node"))?;
    let words = ["policy".to_owned(), "show".to_owned(), pod.to_string()];
    ask(cluster, common, &[node], "policy show", &words).await
}

/// The node of a pod that has addresses of its own; `None` of an address that is no pod's.
async fn node_of_end(cluster: &Cluster, end: &End) -> Result<Option<String>, String> {
    let Some(pod) = cluster.find_pod(end).await? else { return Ok(None) };
    if is_on_hosts_network(&pod) && matches!(end.who, Who::Pod { .. }) {
        return Err(format!(
            "{} is on its node's network: policies do not select it; ask about its node's address",
            full_name(&pod)
        ));
    }
    match node_of(&pod) {
        Some(node) => Ok(Some(node.to_owned())),
        None => Err(format!("{} has not been put on a node yet", full_name(&pod))),
    }
}

async fn ask(
    cluster: &Arc<Cluster>,
    common: &Common,
    nodes: &[String],
    verb: &'static str,
    words: &[String],
) -> Result<PolicyReport, String> {
    let asked = cluster.agents(&Common { nodes: nodes.to_vec(), ..common.clone() }).await?;
    let mut said = Vec::new();
    for it in &asked {
        said.push(ask_one(cluster, common, it, verb, words).await);
    }
    Ok(PolicyReport { version: 1, nodes: said })
}

/// Both forms, so that what people read is what `ferrulectl` has to say.
async fn ask_one(cluster: &Cluster, common: &Common, asked: &Asked, verb: &str, words: &[String]) -> Said {
    let node = asked.node.clone();
    let none = |problem: String, status| Said {
        node: node.clone(),
        report: None,
        text: String::new(),
        status,
        problem: Some(problem),
    };
    let agent = match &asked.agent {
        Ok(agent) => agent,
        Err(problem) => return none(problem.clone(), None),
    };
    let format = |name: &str| [words, &["--output".to_owned(), name.to_owned()]].concat();
    let (text, document) = (format("table"), format("json"));
    let (text, document) = tokio::join!(
        cluster.ask(agent, &text, common.deadline),
        cluster.ask(agent, &document, common.deadline)
    );
    match (text, document) {
        (Ok(text), Ok(said)) => match said.document(verb) {
            Ok(report) => Said {
                node: node.clone(),
                report: Some(report),
                text: String::from_utf8_lossy(&text.stdout).into_owned(),
                status: Some(said.status),
                problem: None,
            },
            Err(problem) => none(problem, Some(said.status)),
        },
        (Err(problem), _) | (_, Err(problem)) => none(problem, None),
    }
}

impl Report for PolicyReport {
    /// As `ferrulectl policy`: 1 if a node says so, 3 if one cannot tell, else 0.
    fn status(&self) -> u8 {
        let is_any =
            |wanted: i32| self.nodes.iter().any(|it| it.report.is_some() && it.status == Some(wanted));
        let is_blind = self.nodes.iter().any(|it| it.problem.is_some() || !matches!(it.status, Some(0 | 1)));
        match is_any(1) {
            true => 1,
            false if is_blind || self.nodes.is_empty() => STATUS_BLIND,
            false => 0,
        }
    }

    fn to_text(&self, _: bool) -> String {
        let told: Vec<String> = self
            .nodes
            .iter()
            .map(|it| match &it.problem {
                Some(problem) => format!("node {}: not asked: {problem}\n", it.node),
                None => format!("node {}\n\n{}", it.node, it.text),
            })
            .collect();
        told.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(status: Option<i32>) -> Said {
        let report = status.map(|_| json!({}));
        let problem = status.is_none().then(|| "no agent's pod is on it".to_owned());
        Said { node: "a".to_owned(), report, text: "allowed\n".to_owned(), status, problem }
    }

    #[test]
    fn one_node_that_denies_is_enough_and_one_that_is_blind_is_told() {
        for (statuses, status) in [
            (vec![Some(0), Some(0)], 0),
            (vec![Some(0), Some(1)], 1),
            (vec![None, Some(1)], 1),
            (vec![None, Some(0)], 3),
            (vec![Some(3), Some(0)], 3),
        ] {
            let report = PolicyReport { version: 1, nodes: statuses.iter().copied().map(said).collect() };
            assert_eq!(report.status(), status, "{statuses:?}");
        }
        let report = PolicyReport { version: 1, nodes: vec![said(Some(0)), said(None)] };
        let text = "node a\n\nallowed\n\nnode a: not asked: no agent's pod is on it\n";
        assert_eq!(report.to_text(false), text);
    }
}
