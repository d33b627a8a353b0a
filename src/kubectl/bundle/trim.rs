//! Of objects of Kubernetes the fields that a report needs. What is not listed here does not get in.

use serde_json::{Map, Value, json};

/// Labels of a Node that everybody's nodes have.
const LABELS: [&str; 4] = [
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// A Node: where it is and how it is.
pub(super) fn node(node: &Value) -> Value {
    let mut labels = Map::new();
    for key in LABELS {
        if let Some(value) = node["metadata"]["labels"].get(key) {
            labels.insert(key.to_owned(), value.clone());
        }
    }
    json!({
        "metadata": {
            "name": node["metadata"]["name"],
            "creationTimestamp": node["metadata"]["creationTimestamp"],
            "labels": labels,
        },
        "spec": some(&node["spec"], &["podCIDR", "podCIDRs", "taints", "unschedulable"]),
        "status": {
            "addresses": node["status"]["addresses"],
            "conditions": node["status"]["conditions"],
            "nodeInfo": some(&node["status"]["nodeInfo"], &[
                "architecture", "containerRuntimeVersion", "kernelVersion", "kubeletVersion", "kubeProxyVersion",
                "operatingSystem", "osImage",
            ]),
        },
    })
}

/// The pod of an agent: which image, and how it runs.
pub(super) fn agent(pod: &Value) -> Value {
    let of_container = |it: &Value| some(it, &["name", "image", "args", "resources", "securityContext"]);
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten().map(of_container);
    json!({
        "metadata": some(&pod["metadata"], &["name", "namespace", "creationTimestamp", "deletionTimestamp"]),
        "spec": { "nodeName": pod["spec"]["nodeName"], "containers": containers.collect::<Vec<_>>() },
        "status": some(&pod["status"], &["phase", "reason", "message", "conditions", "containerStatuses", "startTime"]),
    })
}

/// Those of its fields that are there.
fn some(value: &Value, keys: &[&str]) -> Value {
    let found = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone())));
    Value::Object(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_annotations_nor_environment_get_in() {
        let trimmed = node(&json!({
            "metadata": { "name": "a", "annotations": { "x": "hidden" },
                          "labels": { "kubernetes.io/os": "linux", "team": "hidden" } },
            "spec": { "podCIDRs": ["10.244.1.0/24"], "providerID": "hidden" },
            "status": { "addresses": [], "nodeInfo": { "kernelVersion": "6.12", "machineID": "hidden" } },
        }));
        assert!(!trimmed.to_string().contains("hidden"), "{trimmed}");
        assert_eq!(trimmed["spec"]["podCIDRs"][0], "10.244.1.0/24");
        assert_eq!(trimmed["metadata"]["labels"], json!({ "kubernetes.io/os": "linux" }));
        let trimmed = agent(&json!({
            "metadata": { "name": "ferrule-x", "annotations": { "x": "hidden" } },
            "spec": { "nodeName": "a", "volumes": ["hidden"],
                      "containers": [{ "name": "ferruled", "image": "ferrule:1", "env": [{ "value": "hidden" }] }] },
            "status": { "phase": "Running", "podIPs": [] },
        }));
        assert!(!trimmed.to_string().contains("hidden"), "{trimmed}");
        assert_eq!(trimmed["spec"]["containers"][0], json!({ "name": "ferruled", "image": "ferrule:1" }));
    }
}
