//! A Node as tests speak of it, and as the server serves it.

use serde_json::{Value, json};

/// A Node as tests speak of it.
#[derive(Clone)]
pub struct NodeSpec {
    pub name: String,
    pub pod_cidrs: Vec<String>,
    pub internal_ips: Vec<String>,
    pub created: String,
    pub ready: bool,
    pub awaits_network: bool,
    /// Keys of its taints.
    pub taints: Vec<String>,
    /// Changes with each heartbeat, and means nothing.
    pub heartbeat: u64,
}

impl NodeSpec {
    pub fn new(name: &str, pod_cidrs: &[&str], internal_ips: &[&str]) -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self {
            name: name.to_owned(),
            pod_cidrs: texts(pod_cidrs),
            internal_ips: texts(internal_ips),
            created: "2026-11-23T16:04:05Z".to_owned(),
            ready: true,
            awaits_network: false,
            taints: Vec::new(),
            heartbeat: 0,
        }
    }

    pub fn to_json(&self, version: u64) -> Value {
        let message = if self.awaits_network {
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:x"
        } else {
            "kubelet is posting ready status"
        };
        let images: Vec<Value> = (0..30)
            .map(|n| json!({ "names": [format!("registry.example/image-{n}@sha256:{:064x}", n)], "sizeBytes": 123_456_789 }))
            .collect();
        let mut spec = json!({ "providerID": format!("x://{}", self.name) });
        if let Some(first) = self.pod_cidrs.first() {
            spec["podCIDR"] = json!(first);
            spec["podCIDRs"] = json!(self.pod_cidrs);
        }
        let taints = self.taints.iter().map(|key| json!({ "key": key, "effect": "NoSchedule" }));
        spec["taints"] = taints.collect();
        let addresses: Vec<Value> = self
            .internal_ips
            .iter()
            .map(|ip| json!({ "type": "InternalIP", "address": ip }))
            .chain([json!({ "type": "Hostname", "address": self.name })])
            .collect();
        json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {
                "name": self.name, "uid": format!("uid-{}", self.name), "resourceVersion": version.to_string(),
                "creationTimestamp": self.created,
                "labels": { "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux" },
                "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1",
                    "fieldsV1": { "f:status": { "f:conditions": { "k:{\"type\":\"Ready\"}": { "f:lastHeartbeatTime": {} } } } } }],
            },
            "spec": spec,
            "status": {
                "addresses": addresses,
                "conditions": [
                    { "type": "MemoryPressure", "status": "False", "reason": format!("at {}", self.heartbeat) },
                    { "type": "Ready", "status": if self.ready { "True" } else { "False" }, "message": message },
                ],
                "images": images,
            },
        })
    }
}
