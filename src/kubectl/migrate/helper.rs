//! The pod that does on a node what no agent may: it has the node's root directory and all rights, and idles until
//! `ferrulectl migrate` is executed in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::kubectl::agents::{self, Agent, CONTAINER};
use crate::kubectl::cluster::{Cluster, within};
use crate::kubectl::migrate::PATIENCE;
use crate::kubectl::migrate::daemon_sets::Agents;

/// Where the pod has the node's root directory.
pub const ROOT: &str = "/host";

/// kubelet ends the pod then, should this program have gone away.
const LIFETIME: Duration = Duration::from_secs(1800);

/// How long a node may take to pull the image and to start the pod, or to end it.
const STARTING: Duration = Duration::from_secs(180);

/// Makes it, and waits until it runs. One that an interrupted run left is replaced.
pub async fn make(cluster: &Cluster, agents: &Agents, node: &str) -> Result<Agent, String> {
    let api = Api::<Pod>::namespaced(cluster.client.clone(), &agents.namespace);
    let pod = Agent { namespace: agents.namespace.clone(), pod: name(node) };
    remove(cluster, &pod).await?;
    let wanted = serde_json::from_value(manifest(agents, node)).map_err(|error| error.to_string())?;
    let made = within(PATIENCE, api.create(&PostParams::default(), &wanted)).await;
    made.map_err(|error| format!("cannot make pod {}/{}: {error}", pod.namespace, pod.pod))?;
    let end = tokio::time::Instant::now() + STARTING;
    loop {
        let found = within(PATIENCE, api.get(&pod.pod)).await?;
        let Err(why) = agents::state(&found) else { return Ok(pod) };
        if tokio::time::Instant::now() > end {
            let _ = remove(cluster, &pod).await;
            return Err(format!("pod {} does not run after {} s: {why}", pod.pod, STARTING.as_secs()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Removes it, and waits until it is gone.
pub async fn remove(cluster: &Cluster, pod: &Agent) -> Result<(), String> {
    let api = Api::<Pod>::namespaced(cluster.client.clone(), &pod.namespace);
    let end = tokio::time::Instant::now() + STARTING;
    let mut is_told = false;
    loop {
        if within(PATIENCE, api.get_opt(&pod.pod)).await?.is_none() {
            return Ok(());
        }
        if !is_told {
            // It may go by itself in this moment.
            let _ = within(PATIENCE, api.delete(&pod.pod, &DeleteParams::default())).await;
            is_told = true;
        }
        if tokio::time::Instant::now() > end {
            return Err(format!(
                "pod {0}/{1} does not end: kubectl --namespace {0} delete pod {1}",
                pod.namespace, pod.pod
            ));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn name(node: &str) -> String {
    format!("ferrule-migrate-{node}")
}

fn manifest(agents: &Agents, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name(node), "namespace": agents.namespace,
            "labels": {
                "app.kubernetes.io/name": "ferrule-migrate", "app.kubernetes.io/component": "network",
                "app.kubernetes.io/part-of": "ferrule",
            },
        },
        "spec": {
            "nodeName": node, "hostNetwork": true, "hostPID": true, "dnsPolicy": "Default",
            "restartPolicy": "Never", "activeDeadlineSeconds": LIFETIME.as_secs(), "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "priorityClassName": "system-node-critical", "tolerations": [{ "operator": "Exists" }],
            "imagePullSecrets": agents.pull_secrets,
            "containers": [{
                "name": CONTAINER, "image": agents.image, "imagePullPolicy": agents.pull_policy, "args": ["--idle"],
                "env": agents.env, "envFrom": agents.env_from,
                "securityContext": { "privileged": true, "readOnlyRootFilesystem": true },
                // The runtime mounts the pods' namespaces.
                "volumeMounts": [{ "name": "host", "mountPath": ROOT, "mountPropagation": "HostToContainer" }],
            }],
            "volumes": [{ "name": "host", "hostPath": { "path": "/", "type": "Directory" } }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_on_its_node_whatever_that_is_tainted_with() {
        let agents = Agents {
            namespace: "net".into(),
            name: "ferrule".into(),
            image: "ferrule:1".into(),
            pull_policy: None,
            pull_secrets: Vec::new(),
            env: Vec::new(),
            env_from: Vec::new(),
            conf_dir: "/etc/cni/net.d".into(),
        };
        let pod: Pod = serde_json::from_value(manifest(&agents, "a")).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("ferrule-migrate-a"));
        let spec = pod.spec.unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.host_network), (Some("a"), Some(true)));
        assert_eq!(spec.tolerations.unwrap()[0].operator.as_deref(), Some("Exists"));
        // The agents' own label would make it one of them.
        assert_ne!(pod.metadata.labels.unwrap()["app.kubernetes.io/name"], "ferrule");
        assert!(spec.active_deadline_seconds.is_some());
    }
}
