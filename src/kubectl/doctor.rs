//! `kubectl ferrule doctor`: what is wrong on which nodes. What several nodes have is told once.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kubectl::arguments::Common;
use crate::kubectl::ask::Answer;
use crate::kubectl::cluster::Cluster;
use crate::kubectl::{Report, STATUS_BLIND};
use crate::text_table::{Cell, Table, Tone, escape};

/// Nodes that a line names; of more the first ones, and how many there are.
const NAMED: usize = 8;

/// The document of `ferrulectl doctor`, as much of it as is used.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NodeReport {
    #[serde(default)]
    findings: Vec<Finding>,
    #[serde(default)]
    skipped: Vec<String>,
}

/// One of its findings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Finding {
    id: String,
    severity: String,
    network: Option<String>,
    found: String,
    cause: String,
    remedy: String,
}

/// What was found on all of them.
#[derive(Debug, Serialize)]
pub(super) struct DoctorReport {
    version: u32,
    findings: Vec<Group>,
    /// What could not be looked at, and where.
    skipped: Vec<Places>,
    nodes: Vec<NodeSummary>,
}

/// A finding, with all nodes that have it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Group {
    id: String,
    severity: String,
    network: Option<String>,
    /// In each node's words, as cause and remedies: they name its pods and its subnets.
    found: Vec<Places>,
    cause: Vec<Places>,
    remedy: Vec<Places>,
}

/// Something that is the same on some nodes.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Places {
    what: String,
    nodes: Vec<String>,
}

/// How one node is.
#[derive(Debug, Serialize)]
struct NodeSummary {
    node: String,
    errors: usize,
    warnings: usize,
    skipped: usize,
    /// Why its agent could not be asked.
    problem: Option<String>,
}

/// Asks, and puts together what is the same.
///
/// # Errors
/// Where nobody can be asked.
pub(super) async fn doctor(
    cluster: &Arc<Cluster>,
    common: &Common,
    network: Option<&str>,
) -> Result<DoctorReport, String> {
    let asked = cluster.agents(common).await?;
    let words: Vec<String> = ["doctor"].into_iter().chain(network).map(str::to_owned).collect();
    Ok(DoctorReport::of(&cluster.ask_all::<NodeReport>(&asked, "doctor", &words, common.deadline).await))
}

impl DoctorReport {
    pub(super) fn of(answers: &[Answer<NodeReport>]) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut skipped = Vec::new();
        let mut nodes = Vec::new();
        for answer in answers {
            let report = answer.report.as_ref();
            let findings = report.map(|it| it.findings.as_slice()).unwrap_or_default();
            for it in findings {
                let group = match groups.iter().position(|group| group.is_of(it)) {
                    Some(place) => groups.get_mut(place),
                    None => {
                        groups.push(Group::new(it));
                        groups.last_mut()
                    }
                };
                if let Some(group) = group {
                    note(&mut group.found, &it.found, &answer.node);
                    note(&mut group.cause, &it.cause, &answer.node);
                    note(&mut group.remedy, &it.remedy, &answer.node);
                }
            }
            let unseen = report.map(|it| it.skipped.as_slice()).unwrap_or_default();
            unseen.iter().for_each(|it| note(&mut skipped, it, &answer.node));
            let errors = findings.iter().filter(|it| it.is_error()).count();
            nodes.push(NodeSummary {
                node: answer.node.clone(),
                errors,
                warnings: findings.len() - errors,
                skipped: unseen.len(),
                problem: answer.problem.clone(),
            });
        }
        // Errors first, then what many have.
        groups.sort_by_key(|it| (!it.is_error(), std::cmp::Reverse(it.nodes())));
        Self { version: 1, findings: groups, skipped, nodes }
    }

    /// Some names, or how many nodes these are if it is every node that was asked.
    fn name(&self, nodes: &[String]) -> String {
        if nodes.len() > 3 && nodes.len() == self.nodes.len() {
            return format!("all {} nodes", nodes.len());
        }
        let mut named: Vec<&str> = nodes.iter().take(NAMED).map(String::as_str).collect();
        let more = nodes.len().saturating_sub(NAMED);
        let rest = format!("and {more} more");
        if more > 0 {
            named.push(&rest);
        }
        named.join(", ")
    }
}

impl Finding {
    fn is_error(&self) -> bool {
        self.severity == "error"
    }
}

impl Group {
    fn new(finding: &Finding) -> Self {
        let Finding { id, severity, network, .. } = finding.clone();
        Self { id, severity, network, found: Vec::new(), cause: Vec::new(), remedy: Vec::new() }
    }

    fn is_of(&self, it: &Finding) -> bool {
        (&self.id, &self.severity, &self.network) == (&it.id, &it.severity, &it.network)
    }

    fn is_error(&self) -> bool {
        self.severity == "error"
    }

    fn nodes(&self) -> usize {
        self.found.iter().map(|it| it.nodes.len()).sum()
    }
}

/// Notes that it is so on this node, too.
fn note(places: &mut Vec<Places>, what: &str, node: &str) {
    match places.iter_mut().find(|it| it.what == what) {
        Some(place) if place.nodes.last().is_some_and(|it| it == node) => {}
        Some(place) => place.nodes.push(node.to_owned()),
        None => places.push(Places { what: what.to_owned(), nodes: vec![node.to_owned()] }),
    }
}

impl Report for DoctorReport {
    /// As of `ferrulectl doctor`: 1 for a fault; 3 if none was found and not everything could be looked at.
    fn status(&self) -> u8 {
        let is_blind = !self.skipped.is_empty() || self.nodes.iter().any(|it| it.problem.is_some());
        match self.findings.iter().any(Group::is_error) {
            true => 1,
            false if is_blind => STATUS_BLIND,
            false => 0,
        }
    }

    fn to_text(&self, colour: bool) -> String {
        let mut table = Table::new(["NODE", "FINDINGS", "NOT LOOKED AT"]);
        for it in &self.nodes {
            let row = match &it.problem {
                Some(problem) => [
                    it.node.as_str().into(),
                    Cell::toned(format!("not asked: {problem}"), Tone::Bad),
                    "".into(),
                ],
                None => [it.node.as_str().into(), it.findings(), it.unseen().into()],
            };
            table.push(row);
        }
        let mut text = table.render(colour);
        for it in &self.findings {
            let (begin, end) = match (colour, it.is_error()) {
                (false, _) => ("", ""),
                (true, true) => ("\u{1b}[31m", "\u{1b}[0m"),
                (true, false) => ("\u{1b}[33m", "\u{1b}[0m"),
            };
            text.push('\n');
            let severity = if it.is_error() { String::new() } else { format!("{}: ", it.severity) };
            let network = it.network.as_ref().map(|name| format!("network {name}: ")).unwrap_or_default();
            for found in &it.found {
                let head = format!("{severity}{network}{}", found.what);
                let _ = writeln!(text, "{begin}{}{end}", escape(&head));
                let _ = writeln!(text, "  nodes   {}", escape(&self.name(&found.nodes)));
            }
            for (word, texts) in [("cause ", &it.cause), ("remedy", &it.remedy)] {
                for place in texts {
                    let nodes = self.name(&place.nodes);
                    let of_some = if texts.len() > 1 { format!("on {nodes}: ") } else { String::new() };
                    let _ = writeln!(text, "  {word}  {}", escape(&(of_some + &place.what)));
                }
            }
        }
        for it in &self.skipped {
            let nodes = self.name(&it.nodes);
            let _ = writeln!(text, "\nnot looked at on {}: {}", escape(&nodes), escape(&it.what));
        }
        text
    }
}

impl NodeSummary {
    fn findings(&self) -> Cell {
        let count = |number: usize, what: &str| {
            let plural = if number == 1 { "" } else { "s" };
            (number > 0).then(|| format!("{number} {what}{plural}"))
        };
        let parts: Vec<String> =
            [count(self.errors, "fault"), count(self.warnings, "warning")].into_iter().flatten().collect();
        match (self.errors, self.warnings) {
            (0, 0) => "none".into(),
            (0, _) => Cell::toned(parts.join(", "), Tone::Odd),
            _ => Cell::toned(parts.join(", "), Tone::Bad),
        }
    }

    fn unseen(&self) -> String {
        if self.skipped == 0 { String::new() } else { self.skipped.to_string() }
    }
}

/// Groups what a bundle has asked for already.
pub(super) fn text_of(answers: &[Answer<serde_json::Value>]) -> String {
    let read = |it: &Answer<serde_json::Value>| Answer {
        node: it.node.clone(),
        agent: it.agent.clone(),
        report: it.report.clone().and_then(|report| serde_json::from_value(report).ok()),
        status: it.status,
        problem: it.problem.clone(),
    };
    DoctorReport::of(&answers.iter().map(read).collect::<Vec<_>>()).to_text(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn finding(id: &str, severity: &str, found: &str) -> Value {
        json!({ "id": id, "severity": severity, "network": "podnet", "found": found,
                "cause": format!("cause of {id}"), "remedy": format!("remedy of {id}"), "field of later": 1 })
    }

    fn answer(node: &str, findings: &[Value], skipped: &[&str]) -> Answer<NodeReport> {
        let report = json!({ "version": 1, "findings": findings, "skipped": skipped });
        Answer {
            node: node.to_owned(),
            agent: None,
            report: Some(serde_json::from_value(report).unwrap()),
            status: Some(0),
            problem: None,
        }
    }

    fn unasked(node: &str, problem: &str) -> Answer<NodeReport> {
        Answer { report: None, problem: Some(problem.to_owned()), ..answer(node, &[], &[]) }
    }

    #[test]
    fn what_several_nodes_have_is_told_once() {
        let dead = |pod: &str| finding("dead-attachments", "error", &format!("dead attachments: {pod}"));
        let firewall = finding("forward-drop", "warning", "FORWARD drops");
        let report = DoctorReport::of(&[
            answer("a", &[firewall.clone(), dead("x/1")], &["inside of pods"]),
            answer("b", &[firewall.clone(), dead("x/1")], &["inside of pods"]),
            answer("c", &[firewall, dead("x/2")], &[]),
            unasked("d", "no agent's pod is on it"),
        ]);
        assert_eq!(report.status(), 1);
        assert_eq!(
            report.to_text(false),
            "\
NODE  FINDINGS                            NOT LOOKED AT
a     1 fault, 1 warning                  1
b     1 fault, 1 warning                  1
c     1 fault, 1 warning
d     not asked: no agent's pod is on it

network podnet: dead attachments: x/1
  nodes   a, b
network podnet: dead attachments: x/2
  nodes   c
  cause   cause of dead-attachments
  remedy  remedy of dead-attachments

warning: network podnet: FORWARD drops
  nodes   a, b, c
  cause   cause of forward-drop
  remedy  remedy of forward-drop

not looked at on a, b: inside of pods
"
        );
        let document = serde_json::to_value(&report).unwrap();
        assert_eq!(
            document["findings"][0]["found"][1],
            json!({ "what": "dead attachments: x/2", "nodes": ["c"] })
        );
        assert_eq!(document["nodes"][3]["problem"], "no agent's pod is on it");
    }

    /// Remedies name each node's own subnets.
    #[test]
    fn remedies_that_differ_say_where_each_is_for() {
        let of = |subnet: &str| {
            let mut found = finding("forward-drops", "warning", "table inet closing drops");
            found["remedy"] = json!(format!("nft insert rule ... {subnet} accept"));
            found
        };
        let report = DoctorReport::of(&[
            answer("a", &[of("10.244.1.0/24")], &[]),
            answer("b", &[of("10.244.2.0/24")], &[]),
        ]);
        let text = report.to_text(false);
        let told = "\
warning: network podnet: table inet closing drops
  nodes   a, b
  cause   cause of forward-drops
  remedy  on a: nft insert rule ... 10.244.1.0/24 accept
  remedy  on b: nft insert rule ... 10.244.2.0/24 accept
";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn the_status_is_that_of_the_worst_node() {
        let warning = finding("forward-drop", "warning", "FORWARD drops");
        let note = finding("dropped", "note", "packets were dropped");
        let error = finding("forwarding-off", "error", "forwarding is off");
        for (answers, status) in [
            (vec![answer("a", &[], &[]), answer("b", &[], &[])], 0),
            (vec![answer("a", &[warning, note], &[])], 0),
            (vec![answer("a", &[], &["something"]), answer("b", &[], &[])], 3),
            (vec![answer("a", &[], &[]), unasked("b", "it hangs")], 3),
            (vec![answer("a", &[error], &[]), unasked("b", "it hangs")], 1),
        ] {
            assert_eq!(DoctorReport::of(&answers).status(), status, "{answers:?}");
        }
    }

    #[test]
    fn of_many_nodes_some_are_named_and_all_are_counted() {
        let warning = finding("forward-drop", "warning", "FORWARD drops");
        let names: Vec<String> = (1..=12).map(|number| format!("node-{number}")).collect();
        let with = |some: &dyn Fn(usize) -> bool| {
            let found = |place| if some(place) { vec![warning.clone()] } else { Vec::new() };
            let answers = names.iter().enumerate().map(|(place, name)| answer(name, &found(place), &[]));
            DoctorReport::of(&answers.collect::<Vec<_>>()).to_text(false)
        };
        assert!(with(&|_| true).contains("  nodes   all 12 nodes\n"));
        let some = with(&|place| place < 11);
        assert!(some.contains("node-8, and 3 more\n") && !some.contains("node-9,"), "{some}");
    }
}
