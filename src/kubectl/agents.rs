//! Which node has which agent, and why one has none.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::ResourceExt;
use serde::Serialize;

/// The agent's container in its pod. What has the agents' label and not this container is something else; and so is what is
/// not in its node's network: anybody may give a pod of his the label and the name, and would be asked instead.
pub(super) const CONTAINER: &str = "ferruled";

/// A node that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its name.
    pub node: String,
    /// Why it is NotReady; `None`: it is Ready. It is asked all the same: a node without a network is NotReady.
    pub not_ready: Option<String>,
    /// Its agent, or why there is none to ask.
    pub agent: Result<Agent, String>,
}

/// A pod with an agent that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Agent {
    /// Of the pod.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
}

/// The nodes that `wanted` names, or all; in the order of their names.
///
/// # Errors
/// If there is no node of a name that is wanted, or no agent at all.
pub(super) fn find(nodes: &[Node], pods: &[Pod], wanted: &[String]) -> Result<Vec<Asked>, String> {
    for name in wanted {
        if !nodes.iter().any(|node| node.name_any() == *name) {
            return Err(format!("there is no node {name:?}"));
        }
    }
    let agents: Vec<&Pod> = pods.iter().filter(|pod| is_agent(pod)).collect();
    if agents.is_empty() {
        return Err(format!(
            "there is no agent of ferrule: no pod in its node's network has the label {} and a container {CONTAINER}",
            super::cluster::SELECTOR
        ));
    }
    let namespaces: BTreeSet<String> = agents.iter().filter_map(|pod| pod.namespace()).collect();
    if namespaces.len() > 1 {
        let names = namespaces.into_iter().collect::<Vec<_>>().join(", ");
        return Err(format!(
            "pods that look like agents are in several namespaces ({names}): name theirs with --namespace"
        ));
    }
    let mut asked: Vec<Asked> = nodes
        .iter()
        .filter(|node| wanted.is_empty() || wanted.contains(&node.name_any()))
        .filter(|node| !is_of_another_system(node))
        .map(|node| {
            let name = node.name_any();
            let here = agents.iter().filter(|pod| super::cluster::node_of(pod) == Some(&name));
            Asked { agent: choose(here.copied()), not_ready: not_ready(node), node: name }
        })
        .collect();
    asked.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(asked)
}

/// During a rollout a node has two for a moment: the one that runs.
pub(super) fn choose<'p>(pods: impl Iterator<Item = &'p Pod>) -> Result<Agent, String> {
    let mut reason = "no agent's pod is on it".to_owned();
    let mut chosen: Option<&Pod> = None;
    for pod in pods {
        match state(pod) {
            Ok(()) if chosen.is_none_or(|it| it.creation_timestamp() < pod.creation_timestamp()) => {
                chosen = Some(pod);
            }
            Ok(()) => {}
            Err(why) => reason = format!("its agent {} does not run: {why}", super::cluster::full_name(pod)),
        }
    }
    let agent =
        chosen.map(|pod| Agent { namespace: pod.namespace().unwrap_or_default(), pod: pod.name_any() });
    agent.ok_or(reason)
}

/// Whether its container runs.
pub(super) fn state(pod: &Pod) -> Result<(), String> {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or("Unknown");
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("it is being deleted".to_owned());
    }
    let Some(state) = container(pod).and_then(|it| it.state.as_ref()) else {
        return Err(format!("it is {phase}"));
    };
    if state.running.is_some() {
        return Ok(());
    }
    let waiting = state.waiting.as_ref().and_then(|it| it.reason.clone());
    let ended = state.terminated.as_ref().map(|it| format!("it ended with status {}", it.exit_code));
    Err(waiting.or(ended).unwrap_or_else(|| format!("it is {phase}")))
}

/// What is known of the agent's container.
pub(super) fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let list = pod.status.as_ref()?.container_statuses.as_ref()?;
    list.iter().find(|it| it.name == CONTAINER)
}

/// Whether it is an agent's pod.
pub(super) fn is_agent(pod: &Pod) -> bool {
    let has_container =
        pod.spec.as_ref().is_some_and(|spec| spec.containers.iter().any(|it| it.name == CONTAINER));
    has_container && super::cluster::is_on_hosts_network(pod)
}

/// Agents run on Linux only.
pub(super) fn is_of_another_system(node: &Node) -> bool {
    node.labels().get("kubernetes.io/os").is_some_and(|system| system != "linux")
}

pub(super) fn not_ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|it| it.type_ == "Ready");
    match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => {
            let words = [ready.message.as_deref(), ready.reason.as_deref()];
            let words = words.into_iter().flatten().find(|it| !it.is_empty());
            Some(format!("it is NotReady: {}", words.unwrap_or("it does not say why")))
        }
        None => Some("it is NotReady: its kubelet has not said anything yet".to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn node(name: &str, ready: &str, message: &str) -> Node {
        let condition =
            json!({ "type": "Ready", "status": ready, "reason": "KubeletReady", "message": message });
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/os": "linux" } },
            "status": { "conditions": [condition] },
        }))
        .unwrap()
    }

    fn agent(name: &str, node: &str, created: &str, state: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "kube-system", "creationTimestamp": created },
            "spec": { "nodeName": node, "hostNetwork": true, "containers": [{ "name": "ferruled" }] },
            "status": {
                "phase": "Running",
                "containerStatuses": [{
                    "name": "ferruled", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state,
                }],
            },
        }))
        .unwrap()
    }

    fn running() -> Value {
        json!({ "running": { "startedAt": "2026-11-30T10:00:00Z" } })
    }

    #[test]
    fn each_node_has_its_agent_or_a_reason() {
        let mut windows = node("w", "True", "");
        windows.labels_mut().insert("kubernetes.io/os".into(), "windows".into());
        let nodes = [
            node("c", "Unknown", "Kubelet stopped posting node status."),
            node("a", "True", ""),
            node("b", "True", ""),
            node("d", "True", ""),
            windows,
        ];
        let mut leaving = agent("ferrule-a0", "a", "2026-11-30T12:00:00Z", &running());
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let pods = [
            leaving,
            agent("ferrule-a1", "a", "2026-11-30T10:00:00Z", &running()),
            agent("ferrule-a2", "a", "2026-11-30T11:00:00Z", &running()),
            agent("ferrule-b", "b", "2026-11-30T10:00:00Z", &waiting),
            agent("ferrule-c", "c", "2026-11-30T10:00:00Z", &running()),
        ];
        let asked = find(&nodes, &pods, &[]).unwrap();
        let told: Vec<(&str, Result<&str, &str>)> = asked
            .iter()
            .map(|it| (it.node.as_str(), it.agent.as_ref().map(|it| it.pod.as_str()).map_err(String::as_str)))
            .collect();
        assert_eq!(
            told,
            [
                ("a", Ok("ferrule-a2")),
                ("b", Err("its agent kube-system/ferrule-b does not run: CrashLoopBackOff")),
                ("c", Ok("ferrule-c")),
                ("d", Err("no agent's pod is on it")),
            ]
        );
        let not_ready: Vec<_> = asked.iter().filter_map(|it| it.not_ready.as_deref()).collect();
        assert_eq!(not_ready, ["it is NotReady: Kubelet stopped posting node status."]);
        let some = find(&nodes, &pods, &["b".into(), "a".into()]).unwrap();
        assert_eq!(some.iter().map(|it| it.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    /// Whoever may create pods gives one of his what the agents' pods are found by, and it is younger.
    #[test]
    fn nobody_else_is_asked_in_the_agents_place() {
        let nodes = [node("a", "True", "")];
        let own = agent("ferrule-a", "a", "2026-11-30T10:00:00Z", &running());
        let mut other = agent("mine", "a", "2026-11-30T12:00:00Z", &running());
        other.metadata.namespace = Some("evil".into());
        let pods = [own.clone(), other.clone()];
        let error = find(&nodes, &pods, &[]).unwrap_err();
        assert!(error.contains("(evil, kube-system): name theirs with --namespace"), "{error}");
        for host_network in [None, Some(false)] {
            other.spec.as_mut().unwrap().host_network = host_network;
            let found = find(&nodes, &[own.clone(), other.clone()], &[]).unwrap();
            assert_eq!(found[0].agent.as_ref().unwrap().pod, "ferrule-a");
        }
        assert!(find(&nodes, &[other], &[]).unwrap_err().contains("there is no agent"));
    }

    #[test]
    fn a_node_that_is_not_there_and_a_cluster_without_agents_are_told() {
        let nodes = [node("a", "True", "")];
        let pods = [agent("ferrule-a", "a", "2026-11-30T10:00:00Z", &running())];
        assert_eq!(find(&nodes, &pods, &["x".into()]).unwrap_err(), "there is no node \"x\"");
        let mut other = pods[0].clone();
        other.spec.as_mut().unwrap().containers[0].name = "idle".into();
        assert!(find(&nodes, &[other], &[]).unwrap_err().contains("app.kubernetes.io/name=ferrule"));
    }
}
