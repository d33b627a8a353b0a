//! `kubectl ferrule bundle`: one archive with what a report of a defect needs, without secrets. What each file is stands
//! in its MANIFEST.

mod archive;
mod redact;
mod trim;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::kubectl::agents::{Asked, is_agent};
use crate::kubectl::arguments::Common;
use crate::kubectl::ask::Answer;
use crate::kubectl::cluster::{Cluster, SELECTOR, node_of};
use crate::kubectl::{Outcome, STATUS_BLIND, doctor, say};
use archive::Archive;
use redact::redact;

/// Where the archive goes.
enum Place<'p> {
    Stdout,
    File(&'p Path),
}

/// What is in every bundle, before the files themselves are listed.
const ABOUT: &str = "\
What is in this archive, for a report of a defect in ferrule.

doctor.txt                 findings of all nodes, as `kubectl ferrule doctor` prints them
problems.txt               what could not be collected, and why
nodes/NODE/node.json       the Node object: name, addresses, pod ranges, taints, conditions, versions. No labels or annotations
                           but those of kubernetes.io's topology and system
nodes/NODE/agent.json      the agent's pod: image, restarts, states, conditions. No environment
nodes/NODE/agent.log       the end of the agent's log; agent.previous.log that of the container before, if it was restarted
nodes/NODE/state.json      what `ferrulectl bundle` printed there: inspect, doctor, policy show of its pods; links, addresses,
                           routes, rules of policy routing; ferrule's tables with their counters; some sysctls

It names pods, namespaces, policies, nodes and their addresses. It has no Secret, no ConfigMap, no conflist, no environment, and
no byte of what pods send. Words that look like tokens, passwords or private keys are replaced by REDACTED; have a look
all the same before you hand it on.

Files:
";

/// Collects.
///
/// # Errors
/// Where nobody can be asked, or the archive cannot be written.
pub(super) async fn bundle(
    cluster: &Arc<Cluster>,
    common: &Common,
    file: Option<&Path>,
    log_lines: i64,
) -> Result<Outcome, String> {
    let now = SystemTime::now();
    let default = PathBuf::from(format!("{}.tar.gz", name(now)));
    let place = match file {
        Some(file) if file == Path::new("-") => Place::Stdout,
        file => Place::File(file.unwrap_or(&default)),
    };
    if matches!(place, Place::Stdout) && io::stdout().is_terminal() {
        return Err("stdout is a terminal, and an archive is no text; give a FILE".to_owned());
    }
    let asked = cluster.agents(common).await?;
    let mut archive = Archive::new(&name(now), now);
    let mut problems = Vec::new();
    say(&format!("asking {} nodes for their state", asked.len()));
    let words = ["bundle".to_owned()];
    let states = cluster.ask_all::<Value>(&asked, "bundle", &words, common.deadline).await;
    let mut findings = Vec::new();
    for answer in &states {
        problems.extend(answer.problem.as_ref().map(|it| format!("node {}: {it}", answer.node)));
        if let Some(state) = &answer.report {
            archive.add(&format!("nodes/{}/state.json", answer.node), &pretty(state))?;
        }
        let report = answer.report.as_ref().and_then(|it| it.get("doctor")).cloned();
        findings.push(Answer { report, ..answer.clone() });
    }
    archive.add("doctor.txt", &doctor::text_of(&findings))?;
    say("reading nodes, agents' pods and their logs");
    objects(cluster, &asked, &mut archive, &mut problems).await?;
    for it in &asked {
        logs(cluster, it, log_lines, &mut archive, &mut problems).await?;
    }
    problems.push(String::new());
    archive.add("problems.txt", &problems.join("\n"))?;
    let bytes = archive.finish(ABOUT)?;
    let is_whole = problems.len() == 1;
    match place {
        Place::Stdout => {
            let written = io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush());
            written.map_err(|error| format!("cannot write the archive: {error}"))?;
        }
        Place::File(path) => {
            let written = write_new(path, &bytes);
            written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            say(&format!("{}: {} KiB", path.display(), bytes.len() / 1024));
        }
    }
    let stderr = problems.iter().filter(|it| !it.is_empty()).map(|it| format!("{it}\n")).collect();
    Ok(Outcome { stderr, status: if is_whole { 0 } else { STATUS_BLIND }, ..Outcome::default() })
}

/// The objects of those nodes, as far as a report needs them.
async fn objects(
    cluster: &Cluster,
    asked: &[Asked],
    archive: &mut Archive,
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let is_asked = |name: &str| asked.iter().any(|it| it.node == name);
    let nodes = Api::<Node>::all(cluster.client.clone());
    for node in cluster.list(&nodes, ListParams::default(), "nodes").await? {
        let name = node.metadata.name.clone().unwrap_or_default();
        if is_asked(&name) {
            archive.add(&format!("nodes/{name}/node.json"), &pretty(&trim::node(&as_json(&node))))?;
        }
    }
    let pods = Api::<Pod>::all(cluster.client.clone());
    match cluster.list(&pods, ListParams::default().labels(SELECTOR), "pods").await {
        Ok(pods) => {
            for pod in pods.iter().filter(|pod| is_agent(pod)) {
                if let Some(node) = node_of(pod).filter(|node| is_asked(node)) {
                    archive.add(&format!("nodes/{node}/agent.json"), &pretty(&trim::agent(&as_json(pod))))?;
                }
            }
        }
        // Whoever may not list pods of all namespaces has named one.
        Err(error) => problems.push(format!("agents' pods: {error}")),
    }
    Ok(())
}

/// The log of a node's agent, and of the one before if there was one.
async fn logs(
    cluster: &Cluster,
    asked: &Asked,
    lines: i64,
    archive: &mut Archive,
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let Ok(agent) = &asked.agent else { return Ok(()) };
    match cluster.log(agent, lines, false).await {
        Ok(log) => archive.add(&format!("nodes/{}/agent.log", asked.node), &log)?,
        Err(error) => problems.push(format!("node {}: log of {}: {error}", asked.node, agent.pod)),
    }
    // That there was none before is no problem.
    if let Ok(log) = cluster.log(agent, lines, true).await {
        archive.add(&format!("nodes/{}/agent.previous.log", asked.node), &log)?;
    }
    Ok(())
}

/// Of the archive, and of the directory in it.
fn name(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("ferrule-bundle-{seconds}")
}

/// Nobody else may read it, and none is overwritten.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

fn as_json(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}
