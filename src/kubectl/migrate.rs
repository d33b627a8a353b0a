//! `kubectl ferrule migrate`: moves the nodes from a plugin with host-local to ferrule, one after another, under their
//! running pods. docs/migration.md says in which steps, and why in this order.
//!
//! One label decides which network a node has. The agents' DaemonSet asks for it (deploy/components/migration), and the old
//! plugin's is made to avoid it. What is on a node is done there by `ferrulectl migrate`, in a pod with all rights that lives
//! as long as it takes: no agent has the rights for that.

mod daemon_sets;
mod helper;
mod node;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};

use crate::kubectl::agents::is_of_another_system;
use crate::kubectl::arguments::{Common, MigrateOptions};
use crate::kubectl::cluster::{Cluster, within};
use crate::kubectl::uninstall::agreed;
use crate::kubectl::{Outcome, report as print, say};
use daemon_sets::Agents;
use node::Mover;
use report::{MigrateReport, NodeReport, State};

/// The label of nodes whose network is ferrule.
const LABEL: (&str, &str) = ("ferrule.dev/network", "ferrule");

/// Nodes that other nodes need come in the end.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// How long a write may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Moves them.
///
/// # Errors
/// If it cannot begin: agents that would be everywhere at once, an old plugin that would not give way, nobody agrees.
pub(super) async fn migrate(
    cluster: &Arc<Cluster>,
    common: &Common,
    options: &MigrateOptions,
    colour: bool,
) -> Result<Outcome, String> {
    let sets = Api::<DaemonSet>::all(cluster.client.clone());
    let sets = cluster.list(&sets, ListParams::default(), "daemonsets").await?;
    let agents = Agents::find(&sets, common.namespace.as_deref())?;
    let replaced = daemon_sets::replaced(&sets, &agents, &options.replaces)?;
    let nodes =
        cluster.list(&Api::<Node>::all(cluster.client.clone()), ListParams::default(), "nodes").await?;
    let nodes = choose(&nodes, &common.nodes)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let mover =
        Mover { cluster, common, options, agents: &agents, replaced: &replaced, interrupted: &interrupted };
    if !options.dry_run {
        let plan = plan(&nodes, &agents, &replaced);
        if !options.yes && !agreed(&plan)? {
            return Err("nobody agreed: nothing was done (--yes agrees)".to_owned());
        }
        for set in &replaced {
            let Some(patch) = daemon_sets::keep_off(set) else { continue };
            let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
            say(&format!("keeping daemonset/{name} off nodes that have moved"));
            let api = Api::<DaemonSet>::namespaced(cluster.client.clone(), &namespace);
            let patched =
                within(PATIENCE, api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await;
            patched.map_err(|error| format!("cannot change daemonset {namespace}/{name}: {error}"))?;
        }
    }
    let flag = Arc::clone(&interrupted);
    let listener = tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            say("ending as soon as no node is between two networks");
            flag.store(true, Ordering::Relaxed);
        }
    });
    let mut done = Vec::new();
    for node in &nodes {
        let is_stopped = !options.dry_run && done.iter().any(|it: &NodeReport| it.state == State::Failed);
        if is_stopped || interrupted.load(Ordering::Relaxed) {
            done.push(NodeReport::new(&node.name_any(), State::Waiting));
            continue;
        }
        done.push(mover.run(node).await);
    }
    listener.abort();
    let document = MigrateReport::new(options.dry_run, done, &replaced);
    Ok(print(common, colour, &document))
}

/// The nodes that are wanted, in the order in which they move.
fn choose<'n>(nodes: &'n [Node], wanted: &[String]) -> Result<Vec<&'n Node>, String> {
    if let Some(name) = wanted.iter().find(|name| !nodes.iter().any(|node| node.name_any() == **name)) {
        return Err(format!("there is no node {name:?}"));
    }
    let is_wanted = |node: &&Node| wanted.is_empty() || wanted.contains(&node.name_any());
    let mut chosen: Vec<&Node> =
        nodes.iter().filter(is_wanted).filter(|node| !is_of_another_system(node)).collect();
    chosen.sort_by_key(|node| (node.labels().contains_key(CONTROL_PLANE), node.name_any()));
    Ok(chosen)
}

fn plan(nodes: &[&Node], agents: &Agents, replaced: &[&DaemonSet]) -> String {
    let mut steps = Vec::new();
    for set in replaced.iter().filter(|set| daemon_sets::keep_off(set).is_some()) {
        steps.push(format!(
            "give daemonset {}/{} an affinity that keeps it off nodes with the label {}; its pods are restarted for that",
            set.namespace().unwrap_or_default(),
            set.name_any(),
            LABEL.0
        ));
    }
    let names: Vec<String> = nodes.iter().map(|node| node.name_any()).collect();
    steps.push(format!(
        "one node after another, {}: give it the label {}={}, wait for its agent, take over its pods, swap the conflists; by a \
         pod of {} with all rights on the node, which is removed afterwards",
        names.join(", "),
        LABEL.0,
        LABEL.1,
        agents.image
    ));
    (1..).zip(steps).map(|(number, step)| format!("{number}. {step}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_that_others_need_move_last() {
        let node = |name: &str, labels: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
        };
        let nodes = [
            node("a", json!({ "node-role.kubernetes.io/control-plane": "" })),
            node("c", json!({})),
            node("w", json!({ "kubernetes.io/os": "windows" })),
            node("b", json!({})),
        ];
        let names = |wanted: &[String]| -> Vec<String> {
            choose(&nodes, wanted).unwrap().iter().map(|node| node.name_any()).collect()
        };
        assert_eq!(names(&[]), ["b", "c", "a"]);
        assert_eq!(names(&["a".into(), "c".into()]), ["c", "a"]);
        assert!(choose(&nodes, &["x".into()]).unwrap_err().contains("\"x\""));
    }
}
